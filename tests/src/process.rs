//! Child processes and folders that end with the test that made them.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A folder of its own, removed on drop; kept, and named, when the test panics.
pub struct TempDir(PathBuf);

impl TempDir {
    /// # Panics
    /// If the folder cannot be made.
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = format!("mediaservice-{name}-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(folder);
        fs::create_dir_all(&path).expect("the temporary folder can be written");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// A running program whose output goes to a file; killed on drop.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    dir: TempDir,
}

impl Process {
    /// Starts `command` with its output in a file of a new folder.
    ///
    /// # Panics
    /// If the program cannot be started.
    pub fn start(name: &str, command: &mut Command) -> Self {
        let dir = TempDir::new(name);
        let log = dir.path().join("log");
        let out = File::create(&log).expect("the log can be written");
        let err = out.try_clone().expect("a file can be cloned");
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        Self {
            name: name.to_owned(),
            child,
            log,
            dir,
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The folder that the process may use; it goes with it.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What the program has written so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The exit status, when it has ended.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Sends a signal by name (`TERM`, `KILL`) to this process alone.
    pub fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        let _ = Command::new("kill").args(["-s", signal, &pid]).status();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.lines().rev().take(200).collect::<Vec<_>>();
            eprintln!("--- {} (last {} lines of its log)", self.name, tail.len());
            for line in tail.iter().rev() {
                eprintln!("{line}");
            }
            eprintln!("---");
        }
    }
}

/// Runs `command` to its end, with `input` on its stdin.
///
/// # Errors
/// If it can't be started, or does not read all of its input.
pub fn piped(command: &mut Command, input: &str) -> io::Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    child.wait_with_output()
}

/// A program of this workspace: named by `variable`, else beside the test's own target folder.
///
/// # Panics
/// If it has not been built.
pub fn program(variable: &str, name: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return path.into();
    }
    let test = std::env::current_exe().expect("a running test has a path");
    // target/debug/deps/test-1234 → target/debug/media-server
    let path = test
        .ancestors()
        .nth(2)
        .expect("a test lies in a target folder")
        .join(name);
    assert!(
        path.exists(),
        "{} is not there: run `cargo build -p {name}`, or set {variable}",
        path.display()
    );
    path
}

/// The target folder of this build, where what a person may want to look at is left.
pub fn target_dir() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    test.ancestors()
        .nth(3)
        .expect("a test lies in a target folder")
        .to_owned()
}
