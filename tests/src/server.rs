//! A `media-server` of its own for each test, on free loopback ports.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::metrics::Metrics;
use crate::process::{Process, TempDir, program};
use crate::wait::wait_for;

pub struct MediaServer {
    process: Process,
    pub http: SocketAddr,
    pub media: SocketAddr,
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
        Self::start(&args, None).await
    }

    /// Starts a server that asks for tokens; [`Self::token`] makes them.
    pub async fn closed(args: &[&str]) -> Self {
        let dir = TempDir::new("key");
        let file = dir.path().join("jwt-hmac");
        std::fs::write(&file, b"a key for tests, of 32 bytes ....")
            .expect("the key can be written");
        let key = file.display().to_string();
        let args = [&["--auth", "jwt", "--jwt-hmac-file", &key], args].concat();
        Self::start(&args, Some(Key { file, _dir: dir })).await
    }

    /// Starts a server with its built-in device (`--demo`).
    pub async fn demo() -> Self {
        Self::start(&["--demo"], None).await
    }

    async fn start(args: &[&str], key: Option<Key>) -> Self {
        let http = free_tcp();
        let media = free_udp();
        let mut command = Command::new(binary());
        command
            .args([
                "--http-listen",
                &http.to_string(),
                "--media-listen",
                &media.to_string(),
            ])
            .args(args);
        // A developer's own settings must not reach the test.
        for (name, _) in std::env::vars_os() {
            let name_text = name.to_string_lossy();
            if name_text.starts_with("MEDIA_") && name_text != "MEDIA_SERVER_BIN" {
                command.env_remove(&name);
            }
        }
        command.env_remove("PORT").env_remove("JWT_SECRET");
        let mut server = Self {
            process: Process::start("media-server", &mut command),
            http,
            media,
            key,
        };
        server.wait_until_ready().await;
        server
    }

    async fn wait_until_ready(&mut self) {
        let url = self.url("/readyz");
        let client = reqwest::Client::new();
        wait_for(
            "the media-server to be ready",
            Duration::from_secs(30),
            || {
                if let Some(status) = self.process.ended() {
                    panic!("the media-server ended with {status}");
                }
                let request = client.get(&url).send();
                async move {
                    match request.await {
                        Ok(response) if response.status().is_success() => Ok(()),
                        Ok(response) => Err(format!("/readyz answered {}", response.status())),
                        Err(error) => Err(error.to_string()),
                    }
                }
            },
        )
        .await;
    }

    /// Address of `path` on the server.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
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
        Metrics::fetch(&self.url("/metrics"))
            .await
            .expect("metrics can be scraped")
    }
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
    let output = Command::new(binary())
        .args([
            "token",
            "--device",
            device,
            "--grant",
            grants,
            "--ttl",
            "1h",
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

/// A TCP address on loopback that was free a moment ago.
pub fn free_tcp() -> SocketAddr {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    socket.local_addr().expect("a bound socket has an address")
}

/// A UDP address on loopback that was free a moment ago.
pub fn free_udp() -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
    socket.local_addr().expect("a bound socket has an address")
}
