//! A TURN server (coturn) on loopback, with credentials that end by themselves.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::process::{Process, TempDir};
use crate::wait::wait_for;

/// Ends with its value.
pub struct TurnServer {
    process: Process,
    port: u16,
    dir: TempDir,
}

impl TurnServer {
    /// What its credentials are made with.
    pub const SECRET: &'static str = "north";

    /// Starts `turnserver`, of the package coturn.
    ///
    /// # Panics
    /// If it does not listen.
    pub async fn start() -> Self {
        Self::start_ahead(Duration::ZERO).await
    }

    /// The same with a clock that is so much ahead, of the package faketime.
    ///
    /// # Panics
    /// If it does not listen.
    pub async fn start_ahead(ahead: Duration) -> Self {
        // It takes no free port by itself, and one found free may be taken again.
        for _ in 0..5 {
            if let Some(server) = Self::try_start(ahead).await {
                return server;
            }
        }
        panic!("turnserver found no port")
    }

    async fn try_start(ahead: Duration) -> Option<Self> {
        let free = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let port = free.local_addr().expect("an address").port();
        drop(free);
        let dir = TempDir::new("turn");
        std::fs::write(dir.path().join("secret"), Self::SECRET).expect("the secret can be written");
        let file = |name: &str| dir.path().join(name).display().to_string();
        let mut command = Command::new("turnserver");
        command
            .args(["-n", "--no-cli", "--no-tls", "--no-dtls", "--verbose"])
            .args(["--listening-ip", "127.0.0.1", "--relay-ip", "127.0.0.1"])
            .args(["--listening-port", &port.to_string()])
            .args(["--use-auth-secret", "--static-auth-secret", Self::SECRET])
            .args(["--realm", "media.test", "--allow-loopback-peers"])
            .args(["--log-file", "stdout", "--pidfile", &file("pid")])
            .args(["--userdb", &file("users")])
            .current_dir(dir.path());
        if !ahead.is_zero() {
            // Not `faketime` itself, which stays in between and would leave its child when it is killed.
            command
                .env("LD_PRELOAD", "/usr/$LIB/faketime/libfaketimeMT.so.1")
                .env("FAKETIME", format!("+{}", ahead.as_secs()))
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        let mut process = Process::start("turnserver", &mut command);
        let listening = format!("UDP listener opened on: 127.0.0.1:{port}");
        let listens = wait_for("turnserver to listen", Duration::from_secs(30), || {
            let (log, ended) = (process.log(), process.ended().is_some());
            let listens = log.contains(&listening);
            async move {
                match (listens, ended) {
                    (true, false) => Ok(true),
                    (_, true) => Ok(false),
                    (false, false) => Err(log),
                }
            }
        })
        .await;
        listens.then_some(Self { process, port, dir })
    }

    /// As clients are told of it.
    pub fn url(&self) -> String {
        format!("turn:127.0.0.1:{}?transport=udp", self.port)
    }

    /// A file with [`Self::SECRET`].
    pub fn secret_file(&self) -> PathBuf {
        self.dir.path().join("secret")
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        self.process.log()
    }
}
