//! The real kubectl, with JSON out.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::process::{Process, piped};
use crate::wait_for;

/// A kubectl bound to one namespace; the cluster comes from `KUBECONFIG`.
#[derive(Debug, Clone)]
pub struct Kubectl {
    pub namespace: String,
}

impl Kubectl {
    pub fn new(namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command =
            Command::new(std::env::var_os("KUBECTL").unwrap_or_else(|| "kubectl".into()));
        command.args(["--namespace", &self.namespace]).args(args);
        command
    }

    /// Runs it and returns what it printed.
    ///
    /// # Errors
    /// What kubectl wrote to stderr.
    pub fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = self
            .command(args)
            .output()
            .context("kubectl cannot be started")?;
        text(args, output)
    }

    /// Waits until definitions are served; `kubectl wait` gives up at once at a new one, which has no
    /// conditions yet.
    ///
    /// # Errors
    /// What kubectl wrote to stderr last, after a minute.
    pub fn established(&self, definitions: &[&str]) -> anyhow::Result<()> {
        let wait = ["wait", "--for=condition=Established", "--timeout=10s"];
        let args = [&wait, definitions].concat();
        let started = Instant::now();
        loop {
            match self.run(&args) {
                Ok(_) => return Ok(()),
                Err(error) if started.elapsed() > Duration::from_secs(60) => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }

    /// `kubectl proxy`: the API server at a port of loopback, without credentials, for as long as the process
    /// is there. Returns the address too.
    ///
    /// # Panics
    /// If it does not come up.
    pub async fn proxy(&self) -> (Process, String) {
        let mut process = Process::start("proxy", &mut self.command(&["proxy", "--port=0"]));
        let within = Duration::from_secs(30);
        let address = wait_for("kubectl to serve", within, || {
            assert!(process.ended().is_none(), "{}", process.log());
            let log = process.log();
            let address = log.split_once("Starting to serve on ");
            let address = address.map(|(_, address)| address.trim().to_owned());
            async move { address.ok_or(log) }
        })
        .await;
        (process, address)
    }

    /// `kubectl get … -o json`.
    ///
    /// # Errors
    /// What kubectl wrote to stderr, also when there is no such object.
    pub fn get(&self, args: &[&str]) -> anyhow::Result<Value> {
        let args = [&["get", "-o", "json"], args].concat();
        Ok(serde_json::from_str(&self.run(&args)?)?)
    }

    /// The same, with `input` on its stdin.
    ///
    /// # Errors
    /// What kubectl wrote to stderr.
    pub fn run_with(&self, args: &[&str], input: &str) -> anyhow::Result<String> {
        let output = piped(&mut self.command(args), input).context("kubectl cannot be run")?;
        text(args, output)
    }

    /// `kubectl apply -f -` of a manifest, as a person would.
    ///
    /// # Errors
    /// What kubectl wrote to stderr.
    pub fn apply(&self, manifest: &str) -> anyhow::Result<String> {
        self.run_with(&["apply", "-f", "-"], manifest)
    }

    /// `kubectl patch` of `target`, as kind, name and options, with a merge patch (RFC 7396).
    ///
    /// # Errors
    /// What kubectl wrote to stderr.
    pub fn merge(&self, target: &[&str], patch: &str) -> anyhow::Result<String> {
        let how = ["--type=merge", "--patch", patch];
        self.run(&[&["patch"][..], target, &how].concat())
    }
}

fn text(args: &[&str], output: Output) -> anyhow::Result<String> {
    if !output.status.success() {
        bail!(
            "kubectl {}: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}
