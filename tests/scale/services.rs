//! The services that are applied, and what the cluster needs for so many of them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use tests::wait_for;

use crate::api::Api;
use crate::node;

pub const MEDIA_SERVICES: &str = "/apis/mediaservice.io/v1alpha1";

/// Services of a namespace: a list by label reads all objects of its namespace.
const NAMESPACE_HOLDS: usize = 50;

/// Until the cluster is ready for all of them.
const BEGUN: Duration = Duration::from_secs(120);

/// Namespace of the one that is made before all others.
pub const FIRST: &str = "scale-first";

const FIRST_PORT: u64 = 30100;

/// Applied at the same time, as a few people with `kubectl apply` would.
const APPLIERS: u64 = 8;

/// Addresses for three thousand Services: the cluster's own range has 254.
pub async fn add_addresses(api: &Api) {
    let range = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "scale"},
        "spec": {"cidrs": ["198.19.0.0/19"]},
    });
    let path = "/apis/networking.k8s.io/v1/servicecidrs";
    api.create(path, &range).await.expect("it is new");
    wait_for("the addresses for Services", BEGUN, || async {
        let range = api.get(&format!("{path}/scale")).await?;
        let conditions = &range["status"]["conditions"];
        let ready = conditions[0]["type"] == "Ready" && conditions[0]["status"] == "True";
        ensure!(ready, "{conditions}");
        Ok(())
    })
    .await;
}

/// One service of its own: for half a minute after the definition was made, the API server refuses
/// children because it does not know their owner's kind yet. That is not what is measured here.
pub async fn wait_for_the_first(api: &Api) {
    create_namespace(api, FIRST).await;
    let path = format!("{MEDIA_SERVICES}/namespaces/{FIRST}/mediaservices");
    let mut first = service(0);
    first["metadata"] = json!({"name": "first", "namespace": FIRST});
    first["spec"]["replicas"] = json!(0);
    first["spec"]["media"]["nodePort"] = json!(FIRST_PORT - 1);
    let made = api.create(&path, &first).await;
    made.expect("the manifest is right");
    let set = format!("/apis/apps/v1/namespaces/{FIRST}/statefulsets/first");
    wait_for("the first StatefulSet", BEGUN, || api.get(&set)).await;
}

pub async fn create_namespaces(api: &Api, count: u64) {
    for first in (0..count).step_by(NAMESPACE_HOLDS) {
        create_namespace(api, &namespace(first)).await;
    }
}

async fn create_namespace(api: &Api, name: &str) {
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let made = api.create("/api/v1/namespaces", &body).await;
    made.expect("it is new");
}

/// Applies `count` services, and returns when the API server has taken them all.
pub async fn apply(api: &Arc<Api>, count: u64) {
    let appliers: Vec<_> = (0..APPLIERS)
        .map(|first| {
            let api = api.clone();
            tokio::spawn(async move {
                for n in (first..count).step_by(APPLIERS as usize) {
                    let path =
                        format!("{MEDIA_SERVICES}/namespaces/{}/mediaservices", namespace(n));
                    let made = api.create(&path, &service(n)).await;
                    made.expect("the manifest is right");
                }
            })
        })
        .collect();
    for applier in appliers {
        applier.await.expect("all were made");
    }
}

fn namespace(n: u64) -> String {
    format!("scale-{}", n / NAMESPACE_HOLDS as u64)
}

fn service(n: u64) -> Value {
    let selector = json!({"kubernetes.io/hostname": node::NAME});
    json!({
        "apiVersion": "mediaservice.io/v1alpha1", "kind": "MediaService",
        "metadata": {"name": format!("cam-{n}"), "namespace": namespace(n)},
        "spec": {
            // Of all exposures the one that a thousand pods of one node can have.
            "media": {"exposure": "NodePort", "nodePort": FIRST_PORT + n, "externalAddresses": ["203.0.113.1"]},
            "pod": {"nodeSelector": selector, "tolerations": [{"key": node::TAINT, "operator": "Exists"}]},
        },
    })
}
