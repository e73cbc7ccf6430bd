//! Which optional APIs the cluster serves.
//!
//! Asks every minute; an answer that could not be had is not an answer, and the last one stays.
//! Never watches anything itself. The controller is rebuilt when an API appears or vanishes, because
//! a watch on an absent API holds up all others.

use std::time::Duration;

use kube::Client;
use kube::api::{ApiResource, GroupVersionKind};
use tokio::sync::watch;

/// Whether an optional API is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    Present,
    Absent,
    /// Never answered since the operator started.
    Unknown,
}

/// Time between two questions.
const PERIOD: Duration = Duration::from_secs(60);

/// Time to the next try while nothing is known.
const FIRST_PERIOD: Duration = Duration::from_secs(2);

pub const MONITORING_GROUP_VERSION: &str = "monitoring.coreos.com/v1";

/// The ServiceMonitor API.
pub fn service_monitor() -> ApiResource {
    resource("ServiceMonitor", "servicemonitors")
}

/// The PrometheusRule API.
pub fn prometheus_rule() -> ApiResource {
    resource("PrometheusRule", "prometheusrules")
}

fn resource(kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("monitoring.coreos.com", "v1", kind),
        plural,
    )
}

/// Asks once.
pub async fn discover(client: &Client) -> Availability {
    match client
        .list_api_group_resources(MONITORING_GROUP_VERSION)
        .await
    {
        Ok(list) => {
            let served = |plural: &str| {
                list.resources
                    .iter()
                    .any(|resource| resource.name == plural)
            };
            if served("servicemonitors") && served("prometheusrules") {
                Availability::Present
            } else {
                Availability::Absent
            }
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Availability::Absent,
        Err(error) => {
            tracing::warn!(%error, "can't find out whether the monitoring API is served");
            Availability::Unknown
        }
    }
}

/// Asks for ever and sends every change; runs until all receivers are gone.
pub async fn watch(client: Client, sender: watch::Sender<Availability>) {
    loop {
        let found = discover(&client).await;
        if found != Availability::Unknown {
            sender.send_if_modified(|last| {
                let changed = *last != found;
                if changed {
                    tracing::info!(availability = ?found, "monitoring API");
                }
                *last = found;
                changed
            });
        }
        let period = if *sender.borrow() == Availability::Unknown {
            FIRST_PERIOD
        } else {
            PERIOD
        };
        tokio::select! {
            () = tokio::time::sleep(period) => {}
            () = sender.closed() => return,
        }
    }
}
