//! cargo-deny: licences, sources and bans of what is depended on. Built once for each version, outside of the checkout.

use std::path::PathBuf;
use std::process::Command;

use crate::sh::{self, Counts};

/// Pinned, because its checks decide what passes.
const CARGO_DENY: &str = "0.20.2";

/// Builds it; `None` where it is there.
pub fn install() -> anyhow::Result<Option<Command>> {
    if program()?.exists() {
        return Ok(None);
    }
    let mut install = sh::cargo([
        "install",
        "--locked",
        "cargo-deny",
        "--version",
        CARGO_DENY,
        "--no-default-features",
        "--root",
    ]);
    install.arg(folder()?);
    // Its own target folder goes with it; this workspace's is locked by the other stages.
    install.env_remove("CARGO_TARGET_DIR");
    Ok(Some(install))
}

pub fn run(counts: &mut Counts) -> anyhow::Result<()> {
    // For more than one target cargo-deny asks cargo for the packages of every platform, Windows too:
    // what was compiled until now has fetched those of this one.
    sh::run(&mut sh::cargo(["fetch", "--locked"]), counts)?;
    let mut deny = Command::new(program()?);
    deny.args([
        "--offline",
        "--color",
        "never",
        "check",
        "bans",
        "licenses",
        "sources",
    ]);
    sh::run(deny.current_dir(sh::root()), counts)
}

fn folder() -> anyhow::Result<PathBuf> {
    Ok(sh::cache()?.join(format!("cargo-deny-{CARGO_DENY}")))
}

fn program() -> anyhow::Result<PathBuf> {
    Ok(folder()?.join("bin/cargo-deny"))
}
