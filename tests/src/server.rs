//! A `media-server` of its own for each test, on loopback ports that it chose itself.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::metrics::Metrics;
use crate::namespace::Namespace;
use crate::process::{Process, TempDir, program};
use crate::wait::wait_for;

pub struct MediaServer {
    process: Process,
    pub http: SocketAddr,
    pub media: SocketAddr,
    /// Where metrics and probes are: `http` but with `--metrics-listen`.
    pub operations: SocketAddr,
    key: Option<Key>,
}

struct Key {
    file: PathBuf,
    _dir: TempDir,
}

impl MediaServer {
    /// Starts a server that asks for no token.
    pub async fn open(args: &[&str]) -> Self {
        let args = [&["--auth", "none"], args].concat();
        Self::start(Command::new(binary()), &args, None).await
    }

    /// The same after so much of a shell script.
    pub async fn after(script: &str, args: &[&str]) -> Self {
        let mut command = Command::new("sh");
        let script = format!("{script}; exec \"$0\" \"$@\"");
        command.args(["-c", &script]).arg(binary());
        let args = [&["--auth", "none"], args].concat();
        Self::start(command, &args, None).await
    }

    /// The same in a network of its own, which alone can reach it.
    pub async fn within(namespace: &Namespace, args: &[&str]) -> Self {
        let args = [&["--auth", "none"], args].concat();
        Self::start(namespace.command(binary()), &args, None).await
    }

    /// Starts a server that asks for tokens; [`Self::token`] makes them.
    pub async fn closed(args: &[&str]) -> Self {
        let dir = TempDir::new("key");
        let file = dir.path().join("jwt-hmac");
        std::fs::write(&file, b"a key for tests, of 32 bytes ....")
            .expect("the key can be written");
        let key = file.display().to_string();
        let args = [&["--auth", "jwt", "--jwt-hmac-file", &key], args].concat();
        let key = Some(Key { file, _dir: dir });
        Self::start(Command::new(binary()), &args, key).await
    }

    /// Starts a server with these arguments, and its addresses.
    pub async fn with(args: &[&str]) -> Self {
        Self::start(Command::new(binary()), args, None).await
    }

    /// Starts a server with its built-in device (`--demo`).
    pub async fn demo() -> Self {
        Self::demo_with(&[]).await
    }

    /// The same with more arguments.
    pub async fn demo_with(args: &[&str]) -> Self {
        let args = [&["--demo"], args].concat();
        Self::start(Command::new(binary()), &args, None).await
    }

    async fn start(mut command: Command, args: &[&str], key: Option<Key>) -> Self {
        for listen in ["--http-listen", "--media-listen"] {
            if !args.contains(&listen) {
                command.args([listen, ANY_PORT]);
            }
        }
        command.args(args);
        // A developer's own settings must not reach the test.
        for (name, _) in std::env::vars_os() {
            let name_text = name.to_string_lossy();
            if name_text.starts_with("MEDIA_") && name_text != "MEDIA_SERVER_BIN" {
                command.env_remove(&name);
            }
        }
        for name in [
            "PORT",
            "JWT_SECRET",
            "TURN_URLS",
            "STUN_SERVERS",
            "RABBITMQ_URL",
        ] {
            command.env_remove(name);
        }
        let mut process = Process::start("media-server", &mut command);
        let serving = serving(&mut process).await;
        let address = |field: &str| {
            let text = serving[field].as_str().unwrap_or_default();
            let text = text.rsplit_once("://").map_or(text, |(_, address)| address);
            text.parse()
                .unwrap_or_else(|error| panic!("{field} in {serving}: {error}"))
        };
        Self {
            http: address("url"),
            media: address("media"),
            operations: address("operations"),
            process,
            key,
        }
    }

    /// Address of `path` on the server.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it has written until now.
    pub fn log(&self) -> String {
        self.process.log()
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// A token of one hour for `device`, made by `media-server token` itself.
    ///
    /// # Panics
    /// If the server asks for none, or makes none.
    pub fn token(&self, device: &str, grants: &str) -> String {
        let key = self.key.as_ref().expect("a server that asks for tokens");
        mint_token(&key.file, device, grants)
    }

    /// The key that its tokens are signed with.
    ///
    /// # Panics
    /// If the server asks for none.
    pub fn key_file(&self) -> &Path {
        &self
            .key
            .as_ref()
            .expect("a server that asks for tokens")
            .file
    }

    /// One scrape of `/metrics`.
    ///
    /// # Panics
    /// If it cannot be had or read.
    pub async fn metrics(&self) -> Metrics {
        Metrics::fetch(&format!("http://{}/metrics", self.operations))
            .await
            .expect("metrics can be scraped")
    }
}

/// The server takes a free port by itself: one that a test found free may be taken again by the time
/// that the server asks for it.
pub const ANY_PORT: &str = "127.0.0.1:0";

/// Waits for the log line that says where the server listens. All of its sockets are bound then.
async fn serving(process: &mut Process) -> serde_json::Value {
    let within = Duration::from_secs(60);
    wait_for("the media-server to serve", within, || {
        if let Some(status) = process.ended() {
            panic!("the media-server ended with {status}: {}", process.log());
        }
        let log = process.log();
        let found = log
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .find(|line| line["msg"] == "serving");
        async move { found.ok_or(log) }
    })
    .await
}

/// The program under test.
pub fn binary() -> PathBuf {
    program("MEDIA_SERVER_BIN", "media-server")
}

/// Makes a token with the key in `file` through the product's own command.
///
/// # Panics
/// If the command fails.
pub fn mint_token(file: &Path, device: &str, grants: &str) -> String {
    mint_token_for(file, device, grants, "ann")
}

/// The same for a holder of that name.
///
/// # Panics
/// If the command fails.
pub fn mint_token_for(file: &Path, device: &str, grants: &str, subject: &str) -> String {
    let output = Command::new(binary())
        .args([
            "token",
            "--device",
            device,
            "--grant",
            grants,
            "--ttl",
            "1h",
            "--subject",
            subject,
            "--jwt-hmac-file",
        ])
        .arg(file)
        .output()
        .expect("media-server can be started");
    assert!(
        output.status.success(),
        "token: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .expect("a token is text")
        .trim()
        .to_owned()
}
