//! A node that nobody runs: its pods are ready as soon as they are bound to it, and do nothing.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::api::Api;

pub const NAME: &str = "nobody";
/// Keeps all other pods away.
pub const TAINT: &str = "example.com/nobody";

/// The controller manager gives a node up after 50 s without one: the default of Kubernetes 1.34.
const HEARTBEAT: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(500);

pub async fn create(api: &Api) -> anyhow::Result<()> {
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": NAME, "labels": {"kubernetes.io/hostname": NAME, "kubernetes.io/os": "linux"}},
        "spec": {"taints": [{"key": TAINT, "effect": "NoSchedule"}]},
    });
    api.create("/api/v1/nodes", &node).await?;
    beat(api).await
}

/// Heartbeats and pods, for ever.
pub async fn run(api: Arc<Api>) {
    let mut last = Instant::now();
    loop {
        if last.elapsed() >= HEARTBEAT {
            last = Instant::now();
            report("heartbeat", beat(&api).await);
        }
        report("pods", start_pods(&api).await);
        tokio::time::sleep(LOOK).await;
    }
}

/// The API server is killed once: what fails is tried again.
fn report(what: &str, result: anyhow::Result<()>) {
    if let Err(error) = result {
        eprintln!("{what} of the node that nobody runs: {error:#}");
    }
}

async fn beat(api: &Api) -> anyhow::Result<()> {
    let room = json!({"cpu": "10k", "memory": "100Ti", "pods": "5k"});
    let ready = json!({
        "type": "Ready", "status": "True", "reason": "Fake", "message": "nobody runs it",
        "lastHeartbeatTime": now()?,
    });
    let status = json!({"status": {"capacity": room, "allocatable": room, "conditions": [ready]}});
    api.patch(&format!("/api/v1/nodes/{NAME}/status"), &status)
        .await?;
    Ok(())
}

/// As in a heartbeat.
fn now() -> anyhow::Result<String> {
    let output = Command::new("date")
        .args(["-u", "+%Y-%m-%dT%H:%M:%SZ"])
        .output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

async fn start_pods(api: &Api) -> anyhow::Result<()> {
    let pending =
        format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{NAME},status.phase%3DPending");
    let pods = api.get(&pending).await?;
    for pod in pods["items"].as_array().into_iter().flatten() {
        let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
        let (namespace, name) = (text("namespace"), text("name"));
        let image = &pod["spec"]["containers"][0]["image"];
        // Of a documentation network: nothing answers there.
        let status = json!({"status": {
            "phase": "Running", "podIP": "192.0.2.1", "podIPs": [{"ip": "192.0.2.1"}],
            "conditions": [
                {"type": "Ready", "status": "True"}, {"type": "ContainersReady", "status": "True"},
                {"type": "PodScheduled", "status": "True"}, {"type": "Initialized", "status": "True"},
            ],
            "containerStatuses": [{
                "name": pod["spec"]["containers"][0]["name"], "image": image, "imageID": "", "ready": true,
                "restartCount": 0, "started": true, "state": {"running": {}},
            }],
        }});
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/status");
        api.patch(&path, &status).await?;
    }
    Ok(())
}
