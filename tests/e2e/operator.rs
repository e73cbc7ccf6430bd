//! The operator is not in the path of a stream, writes nothing without need, and takes all of its own away.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::Value;
use tests::operator::{CHILD_KINDS, NAMESPACE};
use tests::page::Source;
use tests::{Kubectl, Page, wait_for};

use crate::service::{NAME, START, Service};

const SOON: Duration = Duration::from_secs(90);
/// For as long the operator is watched doing nothing: longer than all of its periods but the ten minutes
/// between two looks at everything; the longest of them is the minute between two looks for APIs.
const QUIET: Duration = Duration::from_secs(75);

/// Every object of a MediaService, and itself.
fn kinds() -> String {
    format!("mediaservices,{CHILD_KINDS}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_outlives_the_operator_which_then_writes_nothing_and_deletion_leaves_nothing() {
    let service = Service::apply("e2e-operator", None);
    service.reachable().await;
    let token = service.token("cam-1");
    let (sender, receiver) = tokio::join!(service.browser(), service.browser());
    let sending = Page::open(&sender, &service.url(), Some(&token)).await;
    sending.publish("cam-1", Source::TestPicture).await;
    sending.published(SOON).await;
    let watching = Page::open(&receiver, &service.url(), Some(&token)).await;
    watching.watch("cam-1", SOON).await;
    watching.frames_grow_by(30, SOON).await;

    // The one thing that the status tells and no spec says; every 30 s at most.
    wait_for("both sessions to be counted", SOON, || async {
        let found = service.kubectl.get(&["mediaservice", NAME])?;
        let sessions = &found["status"]["sessions"];
        match (&sessions["publishers"], &sessions["viewers"]) {
            (publishers, viewers) if *publishers == 1 && *viewers == 1 => Ok(()),
            _ => bail!("{sessions}"),
        }
    })
    .await;

    let operator = Kubectl::new(NAMESPACE);
    let selector = "--selector=app.kubernetes.io/component=operator";
    let scale = |replicas: &str| {
        let replicas = format!("--replicas={replicas}");
        operator
            .run(&["scale", "deployment", selector, &replicas])
            .expect("the operator can be scaled");
    };
    scale("0");
    let kill = [
        "delete",
        "pods",
        selector,
        "--grace-period=0",
        "--force",
        "--ignore-not-found",
    ];
    operator
        .run(&kill)
        .expect("the operator's pod can be killed");
    wait_for("the operator to be gone", SOON, || async {
        let pods = operator.get(&["pods", selector])?;
        match pods["items"].as_array().map_or(0, Vec::len) {
            0 => Ok(()),
            pods => bail!("{pods} pods"),
        }
    })
    .await;
    watching.frames_grow_by(100, SOON).await;
    watching.picture_changes(SOON).await;

    let before = versions(&service.kubectl).expect("the objects can be listed");
    scale("1");
    let available = [
        "wait",
        "deployment",
        selector,
        "--for=condition=Available",
        "--timeout=120s",
    ];
    operator.run(&available).expect("the operator comes back");
    // It serves before it leads; only a leader could write.
    wait_for("the new operator to lead", SOON, || async {
        let pods = operator.get(&["pods", selector])?;
        let pod = pods["items"][0]["metadata"]["name"].as_str();
        let pod = pod.unwrap_or("missing");
        let lease = operator.get(&["lease", "mediaservice-operator"])?;
        match lease["spec"]["holderIdentity"].as_str() {
            Some(holder) if holder.starts_with(&format!("{pod}_")) => Ok(()),
            holder => bail!("{holder:?} leads, the pod is {pod}"),
        }
    })
    .await;
    let started = Instant::now();
    wait_for("the time to pass without a write", QUIET + SOON, || async {
        let now = versions(&service.kubectl)?;
        assert_eq!(now, before, "the operator wrote without need");
        match started.elapsed() {
            quiet if quiet >= QUIET => Ok(()),
            quiet => bail!("quiet for {quiet:?}"),
        }
    })
    .await;
    watching.frames_grow_by(30, SOON).await;

    service
        .kubectl
        .run(&["delete", "mediaservice", NAME, "--wait=false"])
        .expect("it can be deleted");
    wait_for("every child to be gone", START, || async {
        let selector = format!("--selector=app.kubernetes.io/instance={NAME}");
        let left = service
            .kubectl
            .get(&[&format!("{},pods", kinds()), &selector])?;
        let names: Vec<_> = left["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(name)
            .collect();
        if names.is_empty() {
            Ok(())
        } else {
            bail!("{names:?}")
        }
    })
    .await;
    let generated = service
        .kubectl
        .get(&["secret", &format!("{NAME}-generated")]);
    assert!(generated.is_err(), "the generated Secret is a child too");
    tokio::join!(sender.close(), receiver.close());
}

/// Kind and name → resourceVersion, of all that carries the service's label, of the service, and of the
/// operator's events.
fn versions(kubectl: &Kubectl) -> anyhow::Result<BTreeMap<String, String>> {
    let objects = kubectl.get(&[&format!("{},events", kinds())])?;
    let own = |object: &&Value| {
        object["kind"] == "MediaService"
            || object["reportingComponent"] == "mediaservice-operator"
            || object["metadata"]["labels"]["app.kubernetes.io/instance"] == NAME
    };
    let objects = objects["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(own);
    let version = |object: &Value| {
        object["metadata"]["resourceVersion"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    Ok(objects
        .map(|object| (name(object), version(object)))
        .collect())
}

fn name(object: &Value) -> String {
    format!(
        "{}/{}",
        object["kind"].as_str().unwrap_or("?"),
        object["metadata"]["name"].as_str().unwrap_or("?")
    )
}
