//! Asks a pod what it does: `GET /load` on its metrics port.
//!
//! Reads only. A pod that does not answer in time is unknown, which is neither busy nor idle. Called
//! while a pod is replaced, and for the session counts of the status.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;

use super::build::config::METRICS_PORT;

/// What a pod says of itself. Its form is fixed by the server's tests; fields of later versions are
/// passed over.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Load {
    /// Accepting, Draining or Drained.
    pub state: String,
    pub publishers: u32,
    pub viewers: u32,
}

impl Load {
    /// Whether no session is left and none is taken.
    pub fn is_drained(&self) -> bool {
        self.state == "Drained"
    }

    pub fn is_accepting(&self) -> bool {
        self.state == "Accepting"
    }

    pub fn sessions(&self) -> u32 {
        self.publishers.saturating_add(self.viewers)
    }
}

/// Whom to ask, and how. Cheap to clone.
#[derive(Clone)]
pub struct Loads {
    client: Client<HttpConnector, Body>,
    port: u16,
}

/// An answer is made in less than a millisecond; a pod that takes longer has other trouble.
const WITHIN: Duration = Duration::from_secs(2);

/// Most that is read of an answer, which has some hundred bytes.
const MAX_BYTES: usize = 64 * 1024;

impl Default for Loads {
    fn default() -> Self {
        let port = u16::try_from(METRICS_PORT).expect("it is a port");
        Self::at(port)
    }
}

impl Loads {
    /// For pods that answer on `port`.
    pub fn at(port: u16) -> Self {
        let client = Client::builder(TokioExecutor::new())
            // A pod is asked every few seconds: a connection would only be in the way of its end.
            .pool_max_idle_per_host(0)
            .build_http();
        Self { client, port }
    }

    /// `None` if the pod has no address or does not answer.
    pub async fn of(&self, pod: &Pod) -> Option<Load> {
        self.of_address(address(pod)?).await
    }

    /// The same for a pod of which only the address is known.
    pub async fn of_address(&self, ip: &str) -> Option<Load> {
        let asked = tokio::time::timeout(WITHIN, self.ask(ip)).await;
        match asked {
            Ok(Ok(load)) => Some(load),
            Ok(Err(error)) => {
                tracing::debug!(ip, error, "a pod does not say its load");
                None
            }
            Err(_) => {
                tracing::debug!(ip, "a pod does not say its load in time");
                None
            }
        }
    }

    async fn ask(&self, ip: &str) -> Result<Load, String> {
        let host = match ip.contains(':') {
            true => format!("[{ip}]"),
            false => ip.to_owned(),
        };
        let uri = format!("http://{host}:{}/load", self.port);
        let uri = uri.parse().map_err(|_| format!("{uri} is no URI"))?;
        let answer = self.client.get(uri).await.map_err(|e| e.to_string())?;
        if !answer.status().is_success() {
            return Err(answer.status().to_string());
        }
        let body = to_bytes(Body::new(answer.into_body()), MAX_BYTES).await;
        serde_json::from_slice(&body.map_err(|e| e.to_string())?).map_err(|e| e.to_string())
    }
}

/// Where a pod answers.
pub fn address(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.pod_ip.as_deref()
}
