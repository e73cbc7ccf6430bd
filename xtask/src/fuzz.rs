//! `cargo xtask fuzz`: builds `fuzz/targets` with coverage counters and runs them, as many at a time
//! as there are cores.
//!
//! Owns the compiler flags and the limits of a run; what is asserted is in `fuzz/src`. New inputs are kept
//! in `target/fuzz/corpus`, what breaks a target in `target/fuzz/found`; the seeds in `fuzz/corpus` are
//! changed by people only. Called by people and by the gate, which with `--long` takes minutes for it.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::sh::{self, Counts};

#[derive(clap::Args, Default)]
pub struct Args {
    /// Seconds for each target [default: 5, so that all take 25 s on two cores]
    #[arg(long, value_name = "N")]
    pub seconds: Option<u32>,
    /// Only this target
    target: Option<String>,
    /// Only this input of it: what a run has found
    #[arg(requires = "target")]
    input: Option<PathBuf>,
}

const SECONDS: u32 = 5;

/// Seconds for each target in the long gate.
const LONG_SECONDS: u32 = 600;

impl Args {
    pub fn long() -> Self {
        Args {
            seconds: Some(LONG_SECONDS),
            ..Args::default()
        }
    }
}

/// What libFuzzer needs the compiler to add, as `cargo fuzz` sets it; all of it is stable. No sanitizer:
/// media-core forbids unsafe code, and one would need an unstable flag.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// One input that takes this many seconds hangs; one that takes this much memory, in MiB, has no bound.
const LIMITS: &[&str] = &["-timeout=10", "-rss_limit_mb=1024", "-malloc_limit_mb=64"];

/// Builds and runs the targets.
///
/// # Errors
/// If one does not build, or an input breaks it.
pub fn run(args: Args) -> anyhow::Result<()> {
    let folder = sh::root().join("fuzz");
    let mut targets = targets(&folder)?;
    if let Some(only) = &args.target {
        if !targets.contains(only) {
            bail!("{only} is no target; there are {}", targets.join(", "));
        }
        targets.retain(|target| target == only);
    }
    let work = sh::target()?.join("fuzz");
    let programs = build(&folder, &work)?;
    if let (Some(target), Some(input)) = (targets.first(), &args.input) {
        let mut once = Command::new(programs.join(target));
        return sh::run(once.args(LIMITS).arg(input), &mut Counts::default());
    }
    let seconds = args.seconds.unwrap_or(SECONDS);
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    let waiting = Mutex::new(VecDeque::from(targets));
    let failed = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                loop {
                    // A statement of its own: the lock must not be held while the target runs.
                    let Some(target) = lock(&waiting).pop_front() else {
                        break;
                    };
                    match fuzz(&folder, &work, &programs, &target, seconds) {
                        Ok(summary) => println!("{target}: {summary}"),
                        Err(error) => {
                            eprintln!("{target}: {error:#}");
                            lock(&failed).push(target);
                        }
                    }
                }
            });
        }
    });
    let failed = lock(&failed);
    if !failed.is_empty() {
        bail!("broken: {}", failed.join(", "));
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names of the targets, as the manifest has them.
fn targets(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut metadata = sh::cargo(["metadata", "--format-version", "1", "--no-deps", "--locked"]);
    let metadata = sh::output(metadata.current_dir(folder.join("targets")))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let all = metadata["packages"][0]["targets"].as_array();
    let programs = all.into_iter().flatten().filter(|t| t["kind"][0] == "bin");
    let names = programs.filter_map(|target| target["name"].as_str());
    Ok(names.map(str::to_owned).collect())
}

/// Builds all targets; returns the folder that they lie in.
fn build(folder: &Path, work: &Path) -> anyhow::Result<PathBuf> {
    let version = sh::output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc names no host")?;
    // With a target named, build scripts and macros are built without the flags.
    let mut build = sh::cargo(["build", "--locked", "--bins", "--target", host]);
    build.current_dir(folder.join("targets"));
    build.env("CARGO_TARGET_DIR", work);
    build.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
    sh::run(&mut build, &mut Counts::default())?;
    Ok(work.join(host).join("debug"))
}

/// Runs one target; returns what it did.
fn fuzz(
    folder: &Path,
    work: &Path,
    programs: &Path,
    target: &str,
    seconds: u32,
) -> anyhow::Result<String> {
    let corpus = work.join("corpus").join(target);
    let found = work.join("found").join(target);
    for dir in [&corpus, &found] {
        fs::create_dir_all(dir)?;
    }
    let log = work.join(format!("{target}.log"));
    let output = File::create(&log)?;
    let mut program = Command::new(programs.join(target));
    program.args(LIMITS).args([
        format!("-max_total_time={seconds}"),
        format!("-artifact_prefix={}/", found.display()),
        "-print_final_stats=1".to_owned(),
        "-verbosity=1".to_owned(),
    ]);
    if matches!(target, "answer" | "offer" | "fragment") {
        let words = folder.join("dictionaries/sdp.dict");
        program.arg(format!("-dict={}", words.display()));
    }
    // New inputs go to the first.
    program.arg(&corpus).arg(folder.join("corpus").join(target));
    let status = program
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .status()?;
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    if !status.success() {
        let tail: Vec<&str> = text.lines().rev().take(40).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        bail!(
            "ended with {status}; inputs that break it are in {}, run one with \
             `cargo xtask fuzz {target} FILE`\n{}",
            found.display(),
            tail.join("\n")
        );
    }
    Ok(summary(&text))
}

/// How much was tried, from libFuzzer's last words.
fn summary(log: &str) -> String {
    let figure = |name: &str| {
        let line = log.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    let tried = figure("stat::number_of_executed_units:").unwrap_or(0);
    let memory = figure("stat::peak_rss_mb:").unwrap_or(0);
    let last = log.lines().rev().find(|line| line.contains(" cov: "));
    let coverage = last.and_then(|line| line.split(" cov: ").nth(1)?.split(' ').next());
    let coverage = coverage.unwrap_or("?");
    format!("{tried} inputs, {coverage} edges reached, {memory} MiB at most")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_summed_up_in_its_last_words() {
        let log = "#2\tINITED cov: 58 ft: 59 corp: 1/1b exec/s: 0 rss: 30Mb\n\
            #900\tDONE   cov: 120 ft: 300 corp: 20/1Kb lim: 40 exec/s: 450 rss: 40Mb\n\
            Done 900 runs in 2 second(s)\nstat::number_of_executed_units: 900\n\
            stat::average_exec_per_sec:     450\nstat::peak_rss_mb:              40\n";
        assert_eq!(
            summary(log),
            "900 inputs, 120 edges reached, 40 MiB at most"
        );
    }
}
