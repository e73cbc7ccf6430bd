//! The servers of `bench/servers.toml`: how each is started, reached and ended.
//!
//! Owns the file's format and the build of the Pion SFU. A server that this starts ends with the value
//! that stands for it.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use crate::demo::machine;
use crate::sh;

/// The name of ours, which the others are compared with.
pub const OURS: &str = "media-server";

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Longest wait for a server to listen, and for one to end when it is asked to.
const START: Duration = Duration::from_secs(20);
const END: Duration = Duration::from_secs(5);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    servers: BTreeMap<String, Line>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    start: String,
    whip: String,
    whep: String,
    scenarios: Option<Vec<String>>,
}

/// A server that can be started.
#[derive(Debug, Clone)]
pub struct Server {
    pub name: String,
    line: Line,
}

/// What stands for `{…}` in a line.
#[derive(Debug, Default)]
pub struct Places {
    pub target: PathBuf,
    pub pion_sfu: PathBuf,
    pub key: PathBuf,
}

/// Reads the servers, ours first.
///
/// # Errors
/// If the file is not as its head says, or ours is not in it.
pub fn read(text: &str) -> anyhow::Result<Vec<Server>> {
    let file: File = toml::from_str(text).context("bench/servers.toml is not as its head says")?;
    ensure!(
        file.servers.contains_key(OURS),
        "bench/servers.toml has no line for {OURS}"
    );
    let mut servers: Vec<Server> = file
        .servers
        .into_iter()
        .map(|(name, line)| Server { name, line })
        .collect();
    servers.sort_by_key(|server| server.name != OURS);
    Ok(servers)
}

impl Server {
    /// Whether the scenario is for it.
    pub fn takes(&self, scenario: &str) -> bool {
        let only = self.line.scenarios.as_ref();
        only.is_none_or(|only| only.iter().any(|name| name == scenario))
    }

    /// The same with more flags.
    pub fn with(mut self, flags: &[&str]) -> Self {
        for flag in flags {
            self.line.start.push(' ');
            self.line.start.push_str(flag);
        }
        self
    }

    /// Whether it is built from `bench/pion-sfu`.
    pub fn is_pion(&self) -> bool {
        self.line.start.contains("{pion-sfu}")
    }

    /// The words of its command line.
    fn words(&self, places: &Places, http: &str, media: &str) -> Vec<String> {
        let put = |word: &str| {
            word.replace("{target}", &places.target.display().to_string())
                .replace("{pion-sfu}", &places.pion_sfu.display().to_string())
                .replace("{key}", &places.key.display().to_string())
                .replace("{http}", http)
                .replace("{media}", media)
        };
        self.line.start.split_whitespace().map(put).collect()
    }

    /// Its command line and endpoints for people: without what is of this machine or this run.
    pub fn shown(&self) -> String {
        let places = Places {
            target: "target/release".into(),
            pion_sfu: "pion-sfu".into(),
            key: "KEY".into(),
        };
        self.words(&places, SHOWN_HTTP, SHOWN_MEDIA).join(" ")
    }

    /// Starts it on free ports, with its output in `log`, and waits until it listens.
    ///
    /// # Errors
    /// If it does not start, ends, or listens to nobody.
    pub fn start(&self, places: &Places, log: &Path) -> anyhow::Result<Running> {
        let http = SocketAddr::new(LOOPBACK, machine::free_tcp(LOOPBACK, 31_000)?);
        // Apart, because media may be served over TCP too.
        let media = SocketAddr::new(LOOPBACK, machine::free_udp(LOOPBACK, 32_000)?);
        let words = self.words(places, &http.to_string(), &media.to_string());
        let (program, args) = words.split_first().context("`start` names no program")?;
        let out =
            std::fs::File::create(log).with_context(|| format!("can't write {}", log.display()))?;
        let mut command = Command::new(program);
        // A developer's own settings must not change what is measured.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MEDIA_") {
                command.env_remove(&name);
            }
        }
        let child = command
            .args(args)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("can't start {program}"))?;
        let put = |url: &str| url.replace("{http}", &http.to_string());
        let mut running = Running {
            media,
            whip: put(&self.line.whip),
            whep: put(&self.line.whep),
            child,
        };
        let deadline = Instant::now() + START;
        while TcpStream::connect_timeout(&http, Duration::from_millis(200)).is_err() {
            if let Some(status) = running.child.try_wait()? {
                bail!("{} ended with {status}, see {}", self.name, log.display());
            }
            ensure!(
                Instant::now() < deadline,
                "{} does not listen on {http}, see {}",
                self.name,
                log.display()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(running)
    }
}

const SHOWN_HTTP: &str = "127.0.0.1:30006";
const SHOWN_MEDIA: &str = "127.0.0.1:8443";

/// A server that runs; dropped, it is asked to end, then made to.
pub struct Running {
    pub media: SocketAddr,
    pub whip: String,
    pub whep: String,
    child: Child,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let pid = self.pid().to_string();
        let _ = Command::new("kill").args(["-s", "TERM", &pid]).status();
        let deadline = Instant::now() + END;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        // Both calls are harmless once it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Builds the Pion SFU into the cache, unless this version of it is there; returns the program.
///
/// # Errors
/// If Go is missing, or does not build it.
pub fn build_pion() -> anyhow::Result<PathBuf> {
    let folder = sh::root().join("bench/pion-sfu");
    let mut go = Command::new("go");
    let versions = sh::output(go.args(["env", "GOVERSION", "GOARCH"]).current_dir(&folder))
        .context("the Pion SFU needs Go: https://go.dev/doc/install")?;
    let mut key = std::hash::DefaultHasher::new();
    key.write(versions.as_bytes());
    for file in ["go.mod", "go.sum", "main.go"] {
        key.write(&std::fs::read(folder.join(file))?);
    }
    let out = sh::cache()?.join(format!("pion-sfu-{:016x}", key.finish()));
    let program = out.join("pion-sfu");
    if program.exists() {
        return Ok(program);
    }
    // Renamed when it is whole: a build that is cut off leaves nothing that looks like one.
    let part = out.join("part");
    let mut build = Command::new("go");
    build
        .args(["build", "-trimpath", "-o"])
        .arg(&part)
        .arg(".")
        .env("CGO_ENABLED", "0")
        .current_dir(&folder);
    std::fs::create_dir_all(&out)?;
    sh::run(&mut build, &mut sh::Counts::default())?;
    std::fs::rename(&part, &program)?;
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_the_repository_is_read_with_ours_first() {
        let text = std::fs::read_to_string(sh::root().join("bench/servers.toml")).expect("there");
        let servers = read(&text).expect("as its head says");
        assert_eq!(servers[0].name, OURS);
        assert!(!servers[0].is_pion());
        let pion = servers.iter().find(|server| server.name == "pion");
        assert!(pion.expect("the yardstick").is_pion());
        for server in &servers {
            for only in server.line.scenarios.iter().flatten() {
                let known = super::super::scenarios::ALL.iter();
                assert!(known.clone().any(|s| s.name == only), "{only}");
            }
        }
    }

    #[test]
    fn a_line_is_a_command_with_places_for_what_a_run_decides() {
        let text = r#"
            [servers]
            media-server = { start = "x", whip = "w", whep = "v" }
            other = { start = "/bin/o {http} -k {key} --udp={media}", whip = "http://{http}/in/{device}", whep = "p", scenarios = ["joins"] }
        "#;
        let servers = read(text).expect("two servers");
        let other = &servers[1];
        assert!(other.takes("joins") && !other.takes("fleet"));
        assert!(servers[0].takes("fleet"));
        let places = Places {
            key: "/k".into(),
            ..Places::default()
        };
        assert_eq!(
            other.words(&places, "h:1", "m:2"),
            ["/bin/o", "h:1", "-k", "/k", "--udp=m:2"]
        );
        assert_eq!(
            other.shown(),
            "/bin/o 127.0.0.1:30006 -k KEY --udp=127.0.0.1:8443"
        );
    }

    #[test]
    fn a_file_without_ours_or_with_an_unknown_key_is_refused() {
        let line = r#"{ start = "x", whip = "w", whep = "v" }"#;
        assert!(read(&format!("[servers]\nother = {line}")).is_err());
        let odd = r#"{ start = "x", whip = "w", whep = "v", tokens = 1 }"#;
        assert!(read(&format!("[servers]\nmedia-server = {odd}")).is_err());
    }
}
