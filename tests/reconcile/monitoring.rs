//! An API that a cluster may lack comes and goes while the operator runs.

use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};
use tests::{Kubectl, operator, wait_for};

use crate::service::{Service, operator_pods};

/// Discovery is asked every minute, and at once when a watch fails.
const NOTICED: Duration = Duration::from_secs(120);
const BACK: Duration = Duration::from_secs(10);

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
        let established = ["wait", "--for=condition=Established", "crd", DEFINITION];
        self.kubectl.run(&established)?;
        Ok(())
    }
}

impl Drop for Deleted {
    fn drop(&mut self) {
        if let Err(error) = self.put_back() {
            eprintln!("the definition is not back: {error:#}");
        }
    }
}

/// A child that is deleted comes back in time: nothing waits for the API that is gone.
async fn is_restored(service: &Service, kind: &str, name: &str) {
    let uid = |object: &Value| object["metadata"]["uid"].clone();
    let before = service.kubectl.get(&[kind, name]).expect("it is there");
    service
        .kubectl
        .run(&["delete", kind, name])
        .expect("it can be deleted");
    let deleted = Instant::now();
    wait_for(&format!("{kind} {name} to be back"), BACK, || async {
        let now = service.kubectl.get(&[kind, name])?;
        ensure!(uid(&now) != uid(&before), "the old one is still there");
        Ok::<_, anyhow::Error>(())
    })
    .await;
    println!("{kind} {name}: back after {:?}", deleted.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_vanishes_and_appears_again_restarts_no_operator_and_nothing_else_waits_for_it()
{
    let service = Service::apply("reconcile-optional", "{media: {exposure: HostPort}}");
    service.settled().await;
    service.condition("MonitoringReady", "True", NOTICED).await;
    let running = operator_pods().expect("the operator runs");

    let definition = Deleted::new(DEFINITION);
    is_restored(&service, "service", "cam-pods").await;
    let missing = service.condition("MonitoringReady", "False", NOTICED).await;
    assert_eq!(missing["reason"], "CRDAbsent", "{missing}");
    service.condition("Ready", "True", BACK).await;
    is_restored(&service, "configmap", "cam-addresses").await;

    definition.put_back().expect("it can be made again");
    service.condition("MonitoringReady", "True", NOTICED).await;
    is_restored(&service, "prometheusrule", "cam").await;
    assert_eq!(
        operator_pods().expect("the operator runs"),
        running,
        "uid and restarts"
    );
}
