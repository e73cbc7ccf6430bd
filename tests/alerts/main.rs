//! Faults on a real cluster, and what Prometheus fires for them: the alert of the fault and its declared
//! companions, nothing else, and all of them end with it.
//!
//! Rules, waits and windows are those that users get; so the faults are provoked all at once, each on a
//! MediaService of its own. Runs on a local cluster of its own in its outside network, with `KUBECONFIG`
//! and `CLUSTER_DIR` set, both images loaded, and a Prometheus that selects by
//! `release: kube-prometheus-stack` at `PROMETHEUS_URL`. Started by the stage `alerts` of
//! `cargo xtask test --long`; takes 16 minutes.
#![forbid(unsafe_code)]

mod faults;
mod firing;
mod network;
mod service;
mod stream;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::ensure;
use tests::{Prometheus, cluster, operator, wait_for};

use faults::{Disk, Flood, Operator, Pod, PublisherNetwork};
use firing::{Alert, Fault, Seen};

/// Until Prometheus has found what the chart and the operator made, and asked twice.
const FOUND: Duration = Duration::from_secs(240);

/// One for each fault; the table is in docs/monitoring.md too, with the seconds that were seen.
const PUBLISHER_NETWORK: Fault = Fault {
    what: "the publisher's network stops",
    namespace: "alerts-network",
    alert: "MediaContinuityBurn",
    companions: &[],
};
const POD: Fault = Fault {
    what: "a pod is killed with its node",
    namespace: "alerts-pod",
    alert: "MediaPodDown",
    // It was the only one.
    companions: &["MediaNoAcceptingPods"],
};
const DISK: Fault = Fault {
    what: "the disk of a recording fills",
    namespace: "alerts-disk",
    alert: "MediaRecordingFailed",
    companions: &[],
};
const TOKENS: Fault = Fault {
    what: "a flood of bad tokens",
    namespace: "alerts-tokens",
    alert: "MediaAuthFailuresHigh",
    companions: &[],
};
const OPERATOR: Fault = Fault {
    what: "Prometheus loses sight of the operator",
    namespace: operator::NAMESPACE,
    alert: "MediaOperatorUnseen",
    companions: &[],
};

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_fires_its_alert_and_declared_companions_alone_and_they_end_with_it() {
    let prometheus = Prometheus::of_cluster();
    // On the first node, which stays.
    operator::install_with(&[
        "metrics.serviceMonitor.enabled=true",
        "metrics.prometheusRule.enabled=true",
    ]);
    let second = SecondNode::join();
    let (mut network, mut pod, mut disk, mut tokens) = tokio::join!(
        PublisherNetwork::ready(PUBLISHER_NETWORK.namespace),
        Pod::ready(POD.namespace),
        Disk::ready(DISK.namespace),
        Flood::ready(TOKENS.namespace),
    );
    wait_for("Prometheus to see all of them", FOUND, || async {
        for (query, count) in [
            ("up{job=\"mediaservice-operator\"} == 1", 1),
            ("media_sessions{role=\"publisher\"} == 1", 5),
            ("media_sessions{role=\"viewer\"} == 1", 5),
        ] {
            let seen = prometheus.query(query).await?;
            ensure!(seen.len() == count, "{query}: {seen:?}");
        }
        let alerts = prometheus.alerting_rules().await?;
        for (name, count) in [("MediaPodDown", 5), ("MediaOperatorUnseen", 1)] {
            let rules = alerts.iter().filter(|rule| rule["name"] == name);
            let seen: Vec<_> = rules.filter(|rule| rule["health"] == "ok").collect();
            ensure!(seen.len() == count, "{name}: {seen:?}");
        }
        anyhow::Ok(())
    })
    .await;
    assert_eq!(firing::ever(&prometheus).await, BTreeSet::new());

    let mut operator = Operator;
    // What is mended is used on until the others have ended.
    let seen: [Seen<'_>; 5] = tokio::join!(
        firing::provoke(&PUBLISHER_NETWORK, &prometheus, &mut network),
        firing::provoke(&POD, &prometheus, &mut pod),
        firing::provoke(&DISK, &prometheus, &mut disk),
        firing::provoke(&TOKENS, &prometheus, &mut tokens),
        firing::provoke(&OPERATOR, &prometheus, &mut operator),
    )
    .into();
    println!("| Fault | Alert | Fires after | Ends after |\n|---|---|---|---|");
    seen.iter().for_each(Seen::print);

    // Also what fired and ended in between; and for `door`, beside the service that is flooded, nothing.
    let declared: BTreeSet<Alert> = seen.iter().flat_map(Seen::alerts).collect();
    assert_eq!(firing::ever(&prometheus).await, declared);
    assert_eq!(firing::now(&prometheus).await, BTreeSet::new());
    drop(second);
}

/// The node whose pod is killed, until the test ends.
struct SecondNode;

impl SecondNode {
    fn join() -> Self {
        cluster::run(&["node", "2"]).expect("a second node can join");
        Self
    }
}

impl Drop for SecondNode {
    fn drop(&mut self) {
        if let Err(error) = cluster::run(&["stop", "2"]) {
            eprintln!("{error:#}");
        }
    }
}
