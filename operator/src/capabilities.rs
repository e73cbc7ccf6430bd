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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{answering, failure_body};
    use serde_json::json;

    #[tokio::test]
    async fn only_a_clear_answer_is_an_answer() {
        let list = |names: &[&str]| {
            let resources: Vec<_> = names
                .iter()
                .map(|name| json!({"name": name, "singularName": "", "namespaced": true, "kind": "K", "verbs": []}))
                .collect();
            json!({"kind": "APIResourceList", "groupVersion": MONITORING_GROUP_VERSION, "resources": resources})
        };
        let both = answering(200, list(&["servicemonitors", "prometheusrules"]));
        assert_eq!(discover(&both).await, Availability::Present);
        let one = answering(200, list(&["servicemonitors"]));
        assert_eq!(discover(&one).await, Availability::Absent);
        let none = answering(404, failure_body(404));
        assert_eq!(discover(&none).await, Availability::Absent);
        for code in [403, 500, 503] {
            let unclear = answering(code, failure_body(code));
            assert_eq!(discover(&unclear).await, Availability::Unknown, "{code}");
        }
    }

    #[tokio::test]
    async fn an_unclear_answer_leaves_the_last_one() {
        let (sender, receiver) = watch::channel(Availability::Present);
        let watching = tokio::spawn(super::watch(answering(503, failure_body(503)), sender));
        tokio::time::timeout(FIRST_PERIOD, async { receiver.clone().changed().await })
            .await
            .expect_err("nothing is sent");
        assert_eq!(*receiver.borrow(), Availability::Present);
        drop(receiver);
        watching.await.unwrap();
    }
}
