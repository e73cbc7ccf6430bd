//! A MediaService in a namespace, as a user would apply it, and what its clients need to know.

use std::time::Duration;

use anyhow::{Context, ensure};
use client::{Http, HttpOptions};
use serde_json::{Value, json};
use tests::{Kubectl, wait_for};

/// Enough for images that are there to start on a busy machine.
const START: Duration = Duration::from_secs(180);

/// The device of every service here.
pub const DEVICE: &str = "cam-1";

pub struct Service {
    pub kubectl: Kubectl,
    pub name: &'static str,
    /// Base URL of the Service, which the outside network routes to a node.
    pub signalling: String,
    /// For everything that may be done with the device.
    pub token: String,
}

impl Service {
    /// Applies it with `more` in its spec and waits until it is ready. Each has a port of the node of its
    /// own.
    pub async fn ready(
        kubectl: &Kubectl,
        name: &'static str,
        node: &str,
        port: u16,
        more: Value,
    ) -> Self {
        let mut spec = json!({
            "media": {"exposure": "HostPort", "port": port},
            "pod": {
                // Five of them and the rest of the cluster share two cores.
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
                "nodeSelector": {"kubernetes.io/hostname": node},
            },
        });
        let more = more.as_object().expect("an object").clone();
        spec.as_object_mut().expect("an object").extend(more);
        let manifest = json!({
            "apiVersion": "mediaservice.io/v1alpha1", "kind": "MediaService",
            "metadata": {"name": name}, "spec": spec,
        });
        kubectl
            .apply(&manifest.to_string())
            .expect("the MediaService can be applied");
        is_ready(kubectl, name).await;
        let service = kubectl.get(&["service", name]).expect("it was made");
        let ip = service["spec"]["clusterIP"].as_str().expect("it has one");
        Self {
            kubectl: kubectl.clone(),
            name,
            signalling: format!("http://{ip}"),
            token: token(kubectl, name),
        }
    }

    pub fn http(&self) -> Http {
        let options = HttpOptions {
            token: Some(self.token.clone()),
            ..HttpOptions::default()
        };
        Http::new(&options).expect("a client can be made")
    }

    /// Waits until its pod is ready again.
    pub async fn is_ready(&self) {
        is_ready(&self.kubectl, self.name).await;
    }
}

/// A namespace that takes pods with a port of the node.
pub fn namespace(name: &str) -> Kubectl {
    let kubectl = Kubectl::new(name);
    kubectl
        .run(&["create", "namespace", name])
        .expect("the namespace is new");
    kubectl
}

async fn is_ready(kubectl: &Kubectl, name: &str) {
    wait_for("the MediaService to be Ready", START, || async {
        let resource = kubectl.get(&["mediaservice", name])?;
        let pod = kubectl.get(&["pod", &format!("{name}-0")])?;
        let ready = is_true(&resource["status"]) && is_true(&pod["status"]);
        ensure!(ready, "{}; pod: {}", resource["status"], pod["status"]);
        anyhow::Ok(())
    })
    .await;
}

fn is_true(status: &Value) -> bool {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let mut ready = conditions.filter(|condition| condition["type"] == "Ready");
    ready.any(|condition| condition["status"] == "True")
}

/// Made in the pod by the product's own command.
fn token(kubectl: &Kubectl, name: &str) -> String {
    let pod = format!("{name}-0");
    let grant = [
        "--device",
        DEVICE,
        "--grant",
        "publish,view,record",
        "--ttl",
        "2h",
    ];
    let args = [&["exec", &pod, "--", "media-server", "token"][..], &grant].concat();
    let text = kubectl
        .run(&args)
        .context("a token can be made in the pod")
        .expect("the pod is ready");
    text.trim().to_owned()
}
