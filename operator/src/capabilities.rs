//! Which optional APIs the cluster serves.
//!
//! Asks every minute, and when a watch fails; an answer that could not be had is not an answer, and the
//! last one stays. Never watches anything itself. The controller is rebuilt when an API appears or
//! vanishes, because a watch on an absent API holds up all others.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::api::{ApiResource, GroupVersionKind};
use tokio::sync::{Notify, watch};

/// Whether an optional API is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Availability {
    Present,
    Absent,
    /// Never answered since the operator started.
    Unknown,
}

/// An API that a cluster may lack, with the kinds of it that a MediaService may own. A new one is a
/// variant here, a line in `ALL`, and its rights in `rbac`; what else it needs does not compile before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionalApi {
    Monitoring,
    Gateway,
    CertManager,
}

impl OptionalApi {
    pub const ALL: [Self; 3] = [Self::Monitoring, Self::Gateway, Self::CertManager];

    /// As in `apiVersion`.
    pub fn group_version(self) -> &'static str {
        match self {
            Self::Monitoring => MONITORING_GROUP_VERSION,
            Self::Gateway => GATEWAY_GROUP_VERSION,
            Self::CertManager => CERT_MANAGER_GROUP_VERSION,
        }
    }

    /// What is not made without it, and what to do about that.
    pub fn absence(self) -> Absence {
        let (field, lost, fix) = match self {
            Self::Monitoring => (
                "spec.monitoring",
                "no scraping and no alerts are set up",
                "install Prometheus Operator, for instance by the chart kube-prometheus-stack, or scrape the headless Service",
            ),
            Self::Gateway => (
                "spec.signalling.httpRoute",
                "no route is made",
                "install the Gateway API and a gateway, or use spec.signalling.ingress",
            ),
            Self::CertManager => (
                "spec.signalling.certificateIssuerRef",
                "no certificate is made",
                "install cert-manager, or make the Secret of spec.signalling.ingress.tlsSecretName yourself",
            ),
        };
        Absence { field, lost, fix }
    }

    /// The kinds that are watched, listed and pruned. The API is present when all of them are served.
    pub fn kinds(self) -> Vec<ApiResource> {
        match self {
            Self::Monitoring => vec![service_monitor(), prometheus_rule()],
            Self::Gateway => vec![http_route()],
            Self::CertManager => vec![certificate()],
        }
    }
}

/// What it means that an API is absent, in words.
pub struct Absence {
    /// The field that needs it.
    pub field: &'static str,
    pub lost: &'static str,
    pub fix: &'static str,
}

/// What is known of every optional API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served([Availability; OptionalApi::ALL.len()]);

impl Served {
    /// The same for all of them.
    pub const fn all(availability: Availability) -> Self {
        Self([availability; OptionalApi::ALL.len()])
    }

    pub fn get(&self, api: OptionalApi) -> Availability {
        self.0[api as usize]
    }

    pub fn set(&mut self, api: OptionalApi, availability: Availability) {
        self.0[api as usize] = availability;
    }

    /// Whether one of them is still to be found out.
    pub fn is_unclear(&self) -> bool {
        self.0.contains(&Availability::Unknown)
    }
}

/// Time between two questions.
const PERIOD: Duration = Duration::from_secs(60);

/// Time to the next try while nothing is known, and the least time between two questions.
const FIRST_PERIOD: Duration = Duration::from_secs(2);

pub const MONITORING_GROUP_VERSION: &str = "monitoring.coreos.com/v1";

const GATEWAY_GROUP_VERSION: &str = "gateway.networking.k8s.io/v1";
const CERT_MANAGER_GROUP_VERSION: &str = "cert-manager.io/v1";

/// The HTTPRoute API.
pub fn http_route() -> ApiResource {
    resource(GATEWAY_GROUP_VERSION, "HTTPRoute", "httproutes")
}

/// The Certificate API.
pub fn certificate() -> ApiResource {
    resource(CERT_MANAGER_GROUP_VERSION, "Certificate", "certificates")
}

/// The ServiceMonitor API.
pub fn service_monitor() -> ApiResource {
    resource(
        MONITORING_GROUP_VERSION,
        "ServiceMonitor",
        "servicemonitors",
    )
}

/// The PrometheusRule API.
pub fn prometheus_rule() -> ApiResource {
    resource(
        MONITORING_GROUP_VERSION,
        "PrometheusRule",
        "prometheusrules",
    )
}

fn resource(group_version: &str, kind: &str, plural: &str) -> ApiResource {
    let (group, version) = group_version
        .split_once('/')
        .expect("no optional API is in the core group");
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
}

/// Asks once for one API.
pub async fn discover(client: &Client, api: OptionalApi) -> Availability {
    match client.list_api_group_resources(api.group_version()).await {
        Ok(list) => {
            let served = |kind: &ApiResource| {
                list.resources
                    .iter()
                    .any(|resource| resource.name == kind.plural)
            };
            if api.kinds().iter().all(served) {
                Availability::Present
            } else {
                Availability::Absent
            }
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Availability::Absent,
        Err(error) => {
            tracing::warn!(api = api.group_version(), %error, "can't find out whether an optional API is served");
            Availability::Unknown
        }
    }
}

/// Asks once for each; what gives no answer stays as it is in `last`.
pub async fn discover_all(client: &Client, mut last: Served) -> Served {
    for api in OptionalApi::ALL {
        let found = discover(client, api).await;
        if found != Availability::Unknown {
            last.set(api, found);
        }
    }
    last
}

/// Asks for ever and sends every change; runs until all receivers are gone. `doubt` is notified when
/// something suggests that an answer is out of date.
pub async fn watch(client: Client, sender: watch::Sender<Served>, doubt: Arc<Notify>) {
    loop {
        let last = *sender.borrow();
        let found = discover_all(&client, last).await;
        sender.send_if_modified(|last| {
            let changed = *last != found;
            *last = found;
            changed
        });
        for api in OptionalApi::ALL {
            if found.get(api) != last.get(api) {
                tracing::info!(api = api.group_version(), availability = ?found.get(api), "optional API");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(FIRST_PERIOD) => {}
            () = sender.closed() => return,
        }
        if found.is_unclear() {
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep(PERIOD - FIRST_PERIOD) => {}
            () = doubt.notified() => {}
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
        assert_eq!(
            discover(&both, OptionalApi::Monitoring).await,
            Availability::Present
        );
        let one = answering(200, list(&["servicemonitors"]));
        assert_eq!(
            discover(&one, OptionalApi::Monitoring).await,
            Availability::Absent
        );
        let none = answering(404, failure_body(404));
        assert_eq!(
            discover(&none, OptionalApi::Monitoring).await,
            Availability::Absent
        );
        for code in [403, 500, 503] {
            let unclear = answering(code, failure_body(code));
            assert_eq!(
                discover(&unclear, OptionalApi::Monitoring).await,
                Availability::Unknown,
                "{code}"
            );
        }
    }

    #[tokio::test]
    async fn an_unclear_answer_leaves_the_last_one() {
        let (sender, receiver) = watch::channel(Served::all(Availability::Present));
        let unclear = answering(503, failure_body(503));
        let watching = tokio::spawn(super::watch(unclear, sender, Arc::default()));
        tokio::time::timeout(FIRST_PERIOD, async { receiver.clone().changed().await })
            .await
            .expect_err("nothing is sent");
        assert_eq!(*receiver.borrow(), Served::all(Availability::Present));
        drop(receiver);
        watching.await.unwrap();
    }

    #[tokio::test]
    async fn doubt_asks_long_before_the_minute_is_over() {
        let (sender, mut receiver) = watch::channel(Served::all(Availability::Present));
        // Present by an earlier answer, absent now; the first question is asked at once.
        let doubt = Arc::new(Notify::new());
        let gone = answering(404, failure_body(404));
        let watching = tokio::spawn(super::watch(gone, sender.clone(), doubt.clone()));
        for _ in 0..2 {
            tokio::time::timeout(PERIOD / 2, receiver.changed())
                .await
                .expect("within seconds")
                .expect("the watch runs");
            let now = *receiver.borrow_and_update();
            assert_eq!(now, Served::all(Availability::Absent));
            // As if it had been there again at the last question.
            sender.send_replace(Served::all(Availability::Present));
            receiver.mark_unchanged();
            doubt.notify_one();
        }
        drop(receiver);
        watching.await.unwrap();
    }
}
