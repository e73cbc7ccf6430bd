//! Running programs: echo the command, stream its output, turn a bad exit into an error.
//!
//! Never interprets output beyond counting tests. Called by every command that starts a program.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// The root of the repository.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest
        .parent()
        .expect("xtask lies in the root of the repository")
        .to_path_buf()
}

/// A command of cargo, with the toolchain that runs this program.
pub fn cargo<I, S>(args: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// Builds one of the workspace's programs and returns where it lies.
///
/// The whole workspace is selected although one program is built: the features of its dependencies are
/// then the same as everywhere else, and nothing is compiled twice.
///
/// # Errors
/// If it does not compile.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let build = ["build", "--quiet", "--locked", "--workspace", "--bin", name];
    run(&mut cargo(build), &mut Counts::default())?;
    Ok(target()?.join("debug").join(name))
}

/// Cargo's target folder.
///
/// # Errors
/// If cargo does not say.
pub fn target() -> anyhow::Result<PathBuf> {
    let metadata = output(&mut cargo([
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
    ]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    Ok(metadata["target_directory"]
        .as_str()
        .context("cargo metadata names no target directory")?
        .into())
}

/// Where built tools are kept between runs, apart from `target/`: the same folder as the cluster's.
///
/// # Errors
/// If the environment names no home.
pub fn cache() -> anyhow::Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache"),
    };
    Ok(base.join("mediaservice-cluster"))
}

/// The first program of that name on `PATH`.
pub fn which(name: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
}

/// Whether a process runs and was started with that variable in its environment.
pub fn has_variable(pid: &str, name: &str, value: &Path) -> bool {
    let wanted = format!("{name}={}", value.display());
    std::fs::read(format!("/proc/{pid}/environ")).is_ok_and(|all| {
        all.split(|byte| *byte == 0)
            .any(|one| one == wanted.as_bytes())
    })
}

/// Tests that a command's output says it ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: u64,
    pub failed: u64,
}

impl Counts {
    /// Adds what one line of libtest's output says: `test result: ok. 3 passed; 0 failed; …`.
    pub fn read(&mut self, line: &str) {
        let Some((_, rest)) = line.split_once("test result: ") else {
            return;
        };
        let words: Vec<&str> = rest.split_whitespace().collect();
        for pair in words.windows(2) {
            let Ok(n) = pair[0].parse::<u64>() else {
                continue;
            };
            match pair[1].trim_end_matches(';') {
                "passed" => self.passed += n,
                "failed" => self.failed += n,
                _ => {}
            }
        }
    }
}

/// Runs a command with its output shown as it comes, and counts the tests it reports.
///
/// # Errors
/// If the command can't be started or exits with anything but 0; the counts are kept in `counts`.
pub fn run(command: &mut Command, counts: &mut Counts) -> anyhow::Result<()> {
    let shown = show(command);
    println!("$ {shown}");
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| format!("can't start `{shown}`"))?;
    let out = child.stdout.take().expect("stdout is piped");
    let mut reader = BufReader::new(out);
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        counts.read(&String::from_utf8_lossy(&line));
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(&line)?;
        stdout.flush()?;
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("`{shown}` ended with {status}");
    }
    Ok(())
}

/// Runs a command quietly and returns its standard output.
///
/// # Errors
/// If the command can't be started or exits with anything but 0; the message carries its stderr.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let shown = show(command);
    let out = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("can't start `{shown}`"))?;
    if !out.status.success() {
        bail!(
            "`{shown}` ended with {}:\n{}",
            out.status,
            String::from_utf8_lossy(&out.stderr).trim_end()
        );
    }
    String::from_utf8(out.stdout)
        .with_context(|| format!("`{shown}` printed something other than UTF-8"))
}

fn show(command: &Command) -> String {
    let mut words = vec![
        Path::new(command.get_program())
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
    ];
    words.extend(
        command
            .get_args()
            .map(|arg| arg.to_string_lossy().into_owned()),
    );
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_over_test_binaries() {
        let mut counts = Counts::default();
        counts.read("test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 3 filtered out; finished in 0.02s");
        counts.read("test some::name ... ok");
        counts
            .read("test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out");
        assert_eq!(
            counts,
            Counts {
                passed: 13,
                failed: 2
            }
        );
    }
}
