//! An API that a cluster may lack comes and goes while the operator runs.

use std::time::Duration;

use serde_json::{Value, json};
use tests::{Kubectl, operator};

use crate::service::{BACK, Service, operator_pods};
use crate::turn;

/// Discovery is asked every minute, and at once when a watch fails.
const NOTICED: Duration = Duration::from_secs(120);

const DEFINITION: &str = "prometheusrules.monitoring.coreos.com";

/// A definition that was deleted. The next tests need it, however this one ends.
struct Deleted {
    kubectl: Kubectl,
    manifest: String,
}

impl Deleted {
    fn new(name: &str) -> Self {
        let kubectl = Kubectl::new(operator::NAMESPACE);
        let mut definition = kubectl.get(&["crd", name]).expect("it is there");
        definition["metadata"] = json!({
            "name": name, "annotations": definition["metadata"]["annotations"],
        });
        definition["status"] = Value::Null;
        let deleted = Self {
            kubectl,
            manifest: definition.to_string(),
        };
        deleted
            .kubectl
            .run(&["delete", "crd", name])
            .expect("it can be deleted");
        deleted
    }

    fn put_back(&self) -> anyhow::Result<()> {
        self.kubectl.apply(&self.manifest)?;
        self.kubectl.established(&["crd", DEFINITION])
    }
}

impl Drop for Deleted {
    fn drop(&mut self) {
        if let Err(error) = self.put_back() {
            eprintln!("the definition is not back: {error:#}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_vanishes_and_appears_again_restarts_no_operator_and_nothing_else_waits_for_it()
{
    let _turn = turn::alone();
    let service = Service::apply("reconcile-optional", "{media: {exposure: HostPort}}");
    service.settled().await;
    service.condition("MonitoringReady", "True", NOTICED).await;
    let running = operator_pods().expect("the operator runs");

    // Nothing waits for the API that is gone.
    let definition = Deleted::new(DEFINITION);
    service.restores("service", "cam-pods").await;
    let missing = service.condition("MonitoringReady", "False", NOTICED).await;
    assert_eq!(missing["reason"], "CRDAbsent", "{missing}");
    service.condition("Ready", "True", BACK).await;
    service.restores("configmap", "cam-addresses").await;

    definition.put_back().expect("it can be made again");
    service.condition("MonitoringReady", "True", NOTICED).await;
    service.restores("prometheusrule", "cam").await;
    assert_eq!(
        operator_pods().expect("the operator runs"),
        running,
        "uid and restarts"
    );
}
