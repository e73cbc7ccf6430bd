//! The cloud that a local cluster has not: gives addresses to Services of type LoadBalancer.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{Kubectl, wait_for};

const SOON: Duration = Duration::from_secs(60);

/// Writes what a cloud's controller would, an `ip` or a `hostname`, once there is such a Service: its address is
/// missed before.
pub async fn gives(kubectl: &Kubectl, service: &str, ingress: &Value) {
    let status = json!({"status": {"loadBalancer": {"ingress": [ingress]}}}).to_string();
    let target = ["service", service, "--subresource=status"];
    wait_for(&format!("a status of {service}"), SOON, || async {
        kubectl.merge(&target, &status)
    })
    .await;
}
