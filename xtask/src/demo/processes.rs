//! Processes of the demo that stay when its command has returned.
//!
//! Owns their logs and the files with their numbers, one folder for all. A number alone may be another
//! process's by now, so each also has a variable in its environment by which it is known again.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::machine;
use crate::sh;

pub struct Processes {
    folder: PathBuf,
    variable: &'static str,
    value: PathBuf,
}

impl Processes {
    /// Those whose logs are in `folder`, and whose environment has the variable.
    ///
    /// # Errors
    /// If the folder can't be made.
    pub fn at(folder: PathBuf, variable: &'static str, value: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("can't make {}", folder.display()))?;
        Ok(Self {
            folder,
            variable,
            value: value.to_owned(),
        })
    }

    /// A file of the demo's own, beside the logs.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.file(&format!("{name}.log"))
    }

    /// Gives a command the variable.
    pub fn mark(&self, command: &mut Command) {
        command.env(self.variable, &self.value);
    }

    /// Starts a process that stays after this one, in place of an earlier one of that name.
    ///
    /// # Errors
    /// If it can't be started, or the earlier one does not end.
    pub fn spawn(&self, name: &str, command: &mut Command) -> anyhow::Result<()> {
        self.end(name)?;
        let log = File::create(self.log(name))?;
        self.mark(command);
        let child = alone(command)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("can't start {}", command.get_program().display()))?;
        std::fs::write(self.number(name), child.id().to_string())?;
        Ok(())
    }

    /// Waits until the log has that word.
    ///
    /// # Errors
    /// If it has not after ten seconds.
    pub fn says(&self, name: &str, word: &str) -> anyhow::Result<()> {
        let log = self.log(name);
        let cat = || {
            let mut cat = Command::new("cat");
            cat.arg(&log);
            Ok(cat)
        };
        machine::until(name, Duration::from_secs(10), cat, |out| out.contains(word)).map(drop)
    }

    /// The process of that name, if it runs.
    pub fn running(&self, name: &str) -> Option<String> {
        let pid = std::fs::read_to_string(self.number(name)).ok()?;
        sh::has_variable(&pid, self.variable, &self.value).then_some(pid)
    }

    /// Ends the process of that name, of this run or an earlier one.
    ///
    /// # Errors
    /// If it does not end within ten seconds.
    pub fn end(&self, name: &str) -> anyhow::Result<()> {
        let Some(pid) = self.running(name) else {
            return Ok(());
        };
        // It may end by itself just now.
        let _ = sh::output(Command::new("kill").arg(&pid));
        let asked = Instant::now();
        while self.running(name).is_some() {
            if asked.elapsed() > Duration::from_secs(10) {
                bail!("{name}, process {pid}, does not end");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Stays until interrupted, or until one of them ends.
    ///
    /// # Errors
    /// Names the one that has ended.
    pub fn hold(&self, names: &[&str]) -> anyhow::Result<()> {
        println!("holding; Ctrl-C leaves everything running");
        loop {
            for name in names {
                if self.running(name).is_none() {
                    bail!("{name} has ended; its log is {}", self.log(name).display());
                }
            }
            std::thread::sleep(Duration::from_secs(2));
        }
    }

    fn number(&self, name: &str) -> PathBuf {
        self.file(&format!("{name}.pid"))
    }
}

/// The command without the files that were left open for this one: somebody may wait for their end, as
/// `flock FILE cargo xtask demo` does for its lock.
fn alone(command: &Command) -> Command {
    let close =
        r#"for n in /proc/$$/fd/*; do n=${n##*/}; [ "$n" -le 2 ] || exec {n}>&-; done; exec "$@""#;
    let mut alone = Command::new("bash");
    alone
        .args(["-c", close, "bash"])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => alone.env(name, value),
            None => alone.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        alone.current_dir(folder);
    }
    alone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_stays_keeps_no_file_of_its_caller_open() {
        let mut list = Command::new("readlink");
        list.args((3..30).map(|n| format!("/proc/self/fd/{n}")));
        let opened = |command: &Command| {
            let mut open = Command::new("bash");
            open.args(["-c", r#"exec 3</etc/passwd 17</etc/group; exec "$@""#, "-"]);
            open.arg(command.get_program()).args(command.get_args());
            let out = open.output().expect("bash is there");
            String::from_utf8_lossy(&out.stdout).into_owned()
        };
        let with = opened(&list);
        assert!(
            with.contains("/etc/passwd") && with.contains("/etc/group"),
            "{with}"
        );
        assert_eq!(opened(&alone(&list)), "");
    }

    #[test]
    fn a_process_is_known_again_by_another_run_and_ended_and_a_number_of_others_is_left_alone() {
        let folder = std::env::temp_dir().join(format!("xtask-processes-{}", std::process::id()));
        let run = || Processes::at(folder.clone(), "XTASK_TEST", &folder).expect("can be made");
        let mut talk = Command::new("sh");
        talk.args(["-c", "echo carrying; exec sleep 600"]);
        run().spawn("talk", &mut talk).expect("sh is there");
        run().says("talk", "carrying").expect("it says so");
        assert!(run().running("talk").is_some());
        run().end("talk").expect("it ends");
        assert_eq!(run().running("talk"), None);

        let mut other = Command::new("sleep")
            .arg("600")
            .spawn()
            .expect("sleep is there");
        std::fs::write(run().number("talk"), other.id().to_string()).expect("can be written");
        assert_eq!(run().running("talk"), None);
        run().end("talk").expect("nothing to end");
        assert!(other.try_wait().expect("is a child").is_none());
        other.kill().expect("it runs");
        other.wait().expect("it ends");
        std::fs::remove_dir_all(&folder).expect("it was made");
    }
}
