//! A build that runs while other stages do, at low priority: on two cores it takes what the linker and
//! the waiting of tests leave over.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// How often a waiting stage says how far the build is.
const REPORT_EVERY: Duration = Duration::from_secs(30);

pub struct Background {
    name: &'static str,
    child: Child,
    log: PathBuf,
    started: Instant,
}

impl Background {
    /// Starts `command` with its output in `<logs>/<name>.log`. It gets as little CPU as there is.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start(name: &'static str, command: &Command, logs: &Path) -> anyhow::Result<Self> {
        let log = logs.join(format!("{name}.log"));
        let out = File::create(&log).with_context(|| format!("can't write {}", log.display()))?;
        let mut nice = Command::new("nice");
        nice.args(["-n", "15"])
            .arg(command.get_program())
            .args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => nice.env(key, value),
                None => nice.env_remove(key),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            nice.current_dir(folder);
        }
        let child = nice
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("can't start {name}"))?;
        println!(
            "{name} runs in the background, its log is {}",
            log.display()
        );
        Ok(Self {
            name,
            child,
            log,
            started: Instant::now(),
        })
    }

    /// Waits until it has ended, and shows the end of its log when it failed.
    ///
    /// # Errors
    /// If it failed.
    pub fn wait(mut self) -> anyhow::Result<()> {
        let mut said = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if said.elapsed() >= REPORT_EVERY {
                said = Instant::now();
                println!("{}: {}", self.name, self.last_lines(1));
            }
            std::thread::sleep(Duration::from_millis(200));
        };
        if !status.success() {
            bail!(
                "{} ended with {status}:\n{}",
                self.name,
                self.last_lines(30)
            );
        }
        println!(
            "{}: done, {} s after its start",
            self.name,
            self.started.elapsed().as_secs()
        );
        Ok(())
    }

    fn last_lines(&self, count: usize) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(count)..].join("\n")
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // Both calls are harmless once it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
