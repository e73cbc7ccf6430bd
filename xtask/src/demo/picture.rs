//! The live test picture: published to the MediaService as a device would, and watched.
//!
//! Owns the client's programs and their flags. Knows nothing of the cluster but where its HTTP is reached.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use super::processes::Processes;
use super::{DEVICE, NAMESPACE, machine};
use crate::sh;

/// Host name of the example's Ingress.
pub const HOST: &str = "media.example.com";

/// The device's process.
pub const PUBLISHER: &str = "publisher";

/// Frames that must arrive before the picture counts as live.
const FRAMES: u64 = 100;

/// Compiles the test device and the headless viewer, as a developer's builds do: what they depend on is
/// optimised there too, and is likely there already.
///
/// # Errors
/// If they do not compile.
pub fn build() -> anyhow::Result<()> {
    let mut cargo = sh::cargo([
        "build",
        "--locked",
        "--target-dir",
        "target",
        "-p",
        "client",
    ]);
    cargo.args(["--bins", "--features", "test-picture"]);
    sh::run(&mut cargo, &mut sh::Counts::default())
}

/// A token to publish and to watch, minted in the pod with the key that the operator made.
///
/// # Errors
/// If the pod can't make one for a minute.
pub fn token(kubectl: impl Fn() -> anyhow::Result<Command>) -> anyhow::Result<String> {
    let mint = || {
        let mut kubectl = kubectl()?;
        kubectl.args(["exec", "cam-0", "--", "media-server", "token"]);
        kubectl.args(["--device", "*", "--grant", "publish,view", "--ttl", "24h"]);
        Ok(kubectl)
    };
    let out = machine::until("minting a token", Duration::from_secs(60), mint, |out| {
        !out.trim().is_empty()
    })?;
    Ok(out.trim().to_owned())
}

/// How the picture's programs reach the MediaService.
pub struct Way {
    /// Where the host's HTTP is.
    pub http: SocketAddr,
    /// This machine's address for media.
    pub bind: IpAddr,
}

impl Way {
    /// Starts the test device anew, and watches it with a headless viewer.
    ///
    /// # Errors
    /// If there are no 100 frames within a minute.
    pub fn publish_and_watch(&self, processes: &Processes, token: &str) -> anyhow::Result<()> {
        let mut publisher = self.client("media-test-publisher");
        publisher
            .args(["--whip", &format!("http://{HOST}/whip/{DEVICE}")])
            .env("MEDIA_PUBLISH_TOKEN", token);
        processes.spawn(PUBLISHER, &mut publisher)?;
        let watch = || {
            let mut viewer = self.client("media-load");
            viewer
                .args(["--whep", &format!("http://{HOST}/whep/{DEVICE}")])
                .args(["--publishers", "0", "--viewers", "1", "--duration", "6"])
                .args(["--device", DEVICE, "--codec", "h264"])
                .env("MEDIA_LOAD_TOKEN", token);
            // It ends with the rest if this command is killed.
            processes.mark(&mut viewer);
            Ok(viewer)
        };
        let frames = |out: &str| {
            serde_json::from_str::<serde_json::Value>(out)
                .ok()
                .and_then(|report| report["video_frames"].as_u64())
                .unwrap_or(0)
        };
        let out = machine::until(
            "watching the picture",
            Duration::from_secs(60),
            watch,
            |out| frames(out) >= FRAMES,
        )
        .with_context(|| format!("the device's log is {}", processes.log(PUBLISHER).display()))?;
        println!("watched {} frames", frames(&out));
        Ok(())
    }

    /// A program of the client that reaches the example's host there.
    fn client(&self, name: &str) -> Command {
        let mut command = Command::new(sh::root().join("target/debug").join(name));
        command.arg(format!("--resolve={HOST}={}", self.http));
        command.arg(format!("--bind={}", self.bind));
        command
    }
}

/// The promql for the demo's sessions.
pub fn query() -> String {
    format!("media_active_sessions{{namespace=\"{NAMESPACE}\"}}")
}

/// What is said at the end, wherever the MediaService runs.
pub struct Summary<'a> {
    /// Scheme, host and port of the page.
    pub origin: &'a str,
    pub token: &'a str,
    pub metrics: SocketAddr,
    /// Where Prometheus is, if that is known.
    pub prometheus: Option<SocketAddr>,
    /// In front of kubectl.
    pub kubectl: &'a str,
}

impl Summary<'_> {
    /// The page's address, with the token where no server sees it.
    pub fn page(&self) -> String {
        format!("{}/#token={}&device={DEVICE}", self.origin, self.token)
    }

    pub fn print(&self) {
        println!("\nThe page, with a token to publish and to watch for 24 hours:");
        println!("    {}", self.page());
        if self.origin.starts_with("https://") {
            println!("    Its certificate is self-signed: the browser asks once.");
        }
        println!("The metrics of the pod:");
        println!("    curl http://{}/metrics", self.metrics);
        match self.prometheus {
            Some(address) => println!("Prometheus is at http://{address}; sessions, by promql:"),
            None => println!("In the cluster's Prometheus, sessions by promql:"),
        }
        println!("    {}", query());
        println!("kubectl for the cluster:");
        println!(
            "    {}kubectl -n {NAMESPACE} get mediaservice,pods",
            self.kubectl
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_the_token_in_its_fragment_alone() {
        let summary = Summary {
            origin: "http://127.0.0.1:8080",
            token: "abc",
            metrics: ([127, 0, 0, 1], 8081).into(),
            prometheus: None,
            kubectl: "",
        };
        assert_eq!(
            summary.page(),
            format!("http://127.0.0.1:8080/#token=abc&device={DEVICE}")
        );
    }
}
