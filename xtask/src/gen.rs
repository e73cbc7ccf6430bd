//! `cargo xtask gen`: writes, or with `--check` compares, every generated file.
//!
//! Owns the list of generated files and how each is made from its one source; the sources are the
//! operator's types and the metric catalogue. Never edits a file by hand-made rules beyond that.

use std::path::PathBuf;

use anyhow::{Context, bail};

use crate::sh;

#[derive(clap::Args)]
pub struct Args {
    /// Write nothing; fail if a file differs from what would be written
    #[arg(long)]
    pub check: bool,
}

/// One generated file: where it lies in the repository, and all of its text.
struct Generated {
    path: &'static str,
    text: String,
}

/// Writes or checks every generated file.
///
/// # Errors
/// With `--check`, if a file is missing or differs, all of them named.
pub fn run(args: Args) -> anyhow::Result<()> {
    let mut stale = Vec::new();
    for file in generate()? {
        let path: PathBuf = sh::root().join(file.path);
        let current = std::fs::read_to_string(&path).unwrap_or_default();
        if current == file.text {
            continue;
        }
        if args.check {
            stale.push(file.path);
            continue;
        }
        let folder = path.parent().expect("a generated file lies in a folder");
        std::fs::create_dir_all(folder)
            .with_context(|| format!("can't make {}", folder.display()))?;
        std::fs::write(&path, &file.text)
            .with_context(|| format!("can't write {}", path.display()))?;
        println!("wrote {}", file.path);
    }
    if !stale.is_empty() {
        bail!(
            "not up to date: {}; run `cargo xtask gen` and commit the result",
            stale.join(", ")
        );
    }
    Ok(())
}

fn generate() -> anyhow::Result<Vec<Generated>> {
    Ok(Vec::new())
}
