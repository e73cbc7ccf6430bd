//! The operator's own metrics, where it does its work.

use std::time::Duration;

use anyhow::ensure;
use catalogue::dashboard::of_operator;
use serde_json::json;
use tests::process::Process;
use tests::scraping::{Asked, Scraping, queries};
use tests::{Kubectl, Metrics, operator, wait_for};

use crate::service::{START, Service};
use crate::turn;

const SOON: Duration = Duration::from_secs(30);

/// Where the API server passes on what the operator says.
fn path() -> String {
    format!(
        "/api/v1/namespaces/{}/services/mediaservice-operator:http/proxy/metrics",
        operator::NAMESPACE
    )
}

/// A scrape through the API server.
pub fn scrape() -> anyhow::Result<Metrics> {
    Metrics::parse(&Kubectl::new(operator::NAMESPACE).run(&["get", "--raw", &path()])?)
}

/// A Prometheus of the test's own that does so each second, and its way to the API server. What the chart's
/// ServiceMonitor makes takes minutes to reach that of the cluster.
async fn scraping() -> (Process, Scraping) {
    let (proxy, address) = Kubectl::new(operator::NAMESPACE).proxy().await;
    let job = json!({
        "job_name": "mediaservice-operator",
        "metrics_path": path(),
        "static_configs": [{"targets": [address], "labels": {"namespace": operator::NAMESPACE}}],
    });
    (proxy, Scraping::start(job, json!([])).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_metrics_say_that_it_leads_what_it_asks_and_what_it_could_not_do() {
    let _turn = turn::alone();
    operator::install();
    // One that is about to end may still do the work that the other is asked for here.
    let operators = Kubectl::new(operator::NAMESPACE);
    wait_for("a single operator", START, || async {
        let selector = "--selector=app.kubernetes.io/component=operator";
        let pods = operators.get(&["pods", selector])?;
        let count = pods["items"].as_array().map_or(0, Vec::len);
        ensure!(count == 1, "{count} pods");
        Ok::<_, anyhow::Error>(())
    })
    .await;
    let (_proxy, scraping) = scraping().await;
    let service = Service::apply(
        "reconcile-metrics",
        "{media: {exposure: HostPort}, replicas: 0}",
    );
    service.condition("Progressing", "False", START).await;
    let metrics = wait_for("an idle leader", SOON, || async {
        let metrics = scrape()?;
        let value = |name: &str| metrics.value(&format!("mediaservice_operator_{name}"), &[]);
        for (name, wanted) in [
            ("leader", 1.0),
            ("queue_depth", 0.0),
            ("reconciles_in_flight", 0.0),
            ("crd_missing", 0.0),
        ] {
            ensure!(value(name) == Some(wanted), "{name}: {:?}", value(name));
        }
        Ok::<_, anyhow::Error>(metrics)
    })
    .await;
    let requests = |verb: &str, code: &str| {
        let labels = [("verb", verb), ("code", code)];
        metrics.sum("mediaservice_operator_api_requests_total", &labels)
    };
    for (verb, code) in [
        ("list", "200"),
        ("watch", "200"),
        ("patch", "200"),
        ("patch", "201"),
        ("create", "201"),
        ("update", "200"),
        ("get", "404"),
    ] {
        assert!(requests(verb, code) > 0.0, "{verb} {code}");
    }
    assert!(
        metrics.sum(
            "mediaservice_operator_writes_total",
            &[("kind", "StatefulSet")]
        ) > 0.0
    );

    // A name that is somebody else's: the reason is the condition's.
    let before = metrics.sum(
        "mediaservice_operator_reconcile_errors_total",
        &[("reason", "NameTaken")],
    );
    let kubectl = &service.kubectl;
    let theirs = "apiVersion: mediaservice.io/v1alpha1\nkind: MediaService\nmetadata: {name: taken}\n\
                  spec: {media: {exposure: HostPort}, replicas: 0}\n";
    kubectl
        .run(&["create", "configmap", "taken-config", "--from-literal=a=b"])
        .expect("it can be made");
    kubectl.apply(theirs).expect("the manifest is right");
    wait_for("the error to be counted by its reason", SOON, || async {
        let now = scrape()?.sum(
            "mediaservice_operator_reconcile_errors_total",
            &[("reason", "NameTaken")],
        );
        ensure!(now > before, "{before}, then {now}");
        let taken = kubectl.get(&["mediaservice", "taken"])?;
        let degraded = taken["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|condition| condition["type"] == "Degraded");
        ensure!(
            degraded.is_some_and(|condition| condition["reason"] == "NameTaken"),
            "{}",
            taken["status"]
        );
        Ok::<_, anyhow::Error>(())
    })
    .await;
    is_refused(kubectl).await;
    every_panel_has_data(&scraping).await;
}

/// The API server keeps the operator from making something.
async fn is_refused(kubectl: &Kubectl) {
    let quota = ["quota", "no-more", "--hard=count/statefulsets.apps=1"];
    kubectl
        .run(&[&["create"], &quota[..]].concat())
        .expect("it can be made");
    // Before that it refuses for another reason.
    wait_for("the quota to be known", SOON, || async {
        let known = kubectl.get(&["quota", "no-more"])?["status"]["used"].take();
        ensure!(known["count/statefulsets.apps"] == "1", "{known}");
        Ok::<_, anyhow::Error>(())
    })
    .await;
    let second = "apiVersion: mediaservice.io/v1alpha1\nkind: MediaService\nmetadata: {name: second}\n\
                  spec: {media: {exposure: HostPort}, replicas: 0}\n";
    kubectl.apply(second).expect("the manifest is right");
    wait_for("the refusal to be counted", SOON, || async {
        let metrics = scrape()?;
        let refused = [("verb", "patch"), ("code", "403")];
        let refused = metrics.sum("mediaservice_operator_api_requests_total", &refused);
        ensure!(refused > 0.0, "none yet");
        Ok::<_, anyhow::Error>(())
    })
    .await;
}

/// The operator's dashboard, asked of a Prometheus that saw what was done here.
async fn every_panel_has_data(scraping: &Scraping) {
    let asked = queries(&of_operator(), &[("$namespace", operator::NAMESPACE)]);
    assert!(asked.len() >= 14, "{}", asked.len());
    scraping
        .have_data(&asked.iter().collect::<Vec<&Asked>>())
        .await;
    let of = |title: &str| {
        let asked = asked.iter().find(|asked| asked.title == title);
        asked.map(|asked| &*asked.query).expect("a panel")
    };
    scraping.is(of("Leaders"), 1.0).await;
    scraping.is(of("Definition missing"), 0.0).await;
    let failed = of("Failed");
    scraping
        .becomes(failed, "some of them", |share| share > 0.0 && share <= 1.0)
        .await;
}
