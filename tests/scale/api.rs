//! The API server as JSON over `kubectl proxy`, for thousands of requests.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Method;
use serde_json::Value;
use tests::process::Process;
use tests::wait_for;

pub struct Api {
    http: reqwest::Client,
    base: String,
    _proxy: Process,
}

impl Api {
    pub async fn start() -> Self {
        let kubectl = std::env::var_os("KUBECTL").unwrap_or_else(|| "kubectl".into());
        let mut command = Command::new(kubectl);
        let proxy = Process::start("kubectl-proxy", command.args(["proxy", "--port=0"]));
        let base = wait_for("kubectl proxy", Duration::from_secs(30), || async {
            let log = proxy.log();
            let port = log
                .trim()
                .rsplit_once(':')
                .and_then(|(_, port)| port.parse::<u16>().ok());
            port.map(|port| format!("http://127.0.0.1:{port}"))
                .ok_or(log)
        })
        .await;
        Self {
            http: reqwest::Client::new(),
            base,
            _proxy: proxy,
        }
    }

    pub async fn text(&self, path: &str) -> anyhow::Result<String> {
        let answer = self.http.get(format!("{}{path}", self.base)).send().await?;
        Ok(answer.error_for_status()?.text().await?)
    }

    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.text(path).await?)?)
    }

    pub async fn create(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send(Method::POST, path, "application/json", body)
            .await
    }

    /// A merge patch.
    pub async fn patch(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send(Method::PATCH, path, "application/merge-patch+json", body)
            .await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: &Value,
    ) -> anyhow::Result<Value> {
        let request = self.http.request(method, format!("{}{path}", self.base));
        let answer = request
            .header("content-type", kind)
            .body(body.to_string())
            .send()
            .await?;
        let status = answer.status();
        let text = answer.text().await?;
        ensure!(status.is_success(), "{path}: {text}");
        serde_json::from_str(&text).with_context(|| text)
    }
}

/// Kills the API server of this cluster, which starts anew a second later: no watch survives that.
pub fn end_server() {
    let server = server().expect("the API server runs on this machine");
    kill(server, Signal::SIGKILL).expect("it is the cluster's, and this is root");
}

fn server() -> anyhow::Result<Pid> {
    let state = std::env::var("CLUSTER_DIR").context("CLUSTER_DIR")?;
    let program = format!("{state}/bin/kube-apiserver");
    for entry in std::fs::read_dir("/proc")? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let Ok(pid) = name.parse() else { continue };
        // It may have ended meanwhile.
        let Ok(command) = std::fs::read(path.join("cmdline")) else {
            continue;
        };
        if command.split(|byte| *byte == 0).next() == Some(program.as_bytes()) {
            return Ok(Pid::from_raw(pid));
        }
    }
    bail!("no process is {program}")
}
