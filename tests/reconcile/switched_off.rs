//! What a spec no longer asks for goes, kind by kind, and comes back when it is asked for again.

use std::collections::BTreeSet;

use anyhow::bail;
use serde_json::{Value, json};
use tests::operator::CHILD_KINDS;
use tests::wait_for;

use crate::service::{BACK, START, Service};

/// Kind and name, the patch that does without, and the patch that asks for it again.
const PARTS: &[(&str, &str, &str, &str)] = &[
    (
        "servicemonitor",
        "cam",
        r#"{"spec":{"monitoring":{"serviceMonitor":{"enabled":false}}}}"#,
        r#"{"spec":{"monitoring":{"serviceMonitor":{"enabled":true}}}}"#,
    ),
    (
        "prometheusrule",
        "cam",
        r#"{"spec":{"monitoring":{"prometheusRule":{"enabled":false}}}}"#,
        r#"{"spec":{"monitoring":{"prometheusRule":{"enabled":true}}}}"#,
    ),
    (
        "configmap",
        "cam-dashboard-overview",
        r#"{"spec":{"monitoring":{"dashboards":{"enabled":false}}}}"#,
        r#"{"spec":{"monitoring":{"dashboards":{"enabled":true}}}}"#,
    ),
    (
        "serviceaccount",
        "cam-media",
        r#"{"spec":{"pod":{"serviceAccountName":"default"}}}"#,
        r#"{"spec":{"pod":{"serviceAccountName":""}}}"#,
    ),
    (
        "ingress",
        "cam",
        r#"{"spec":{"signalling":{"ingress":null}}}"#,
        r#"{"spec":{"signalling":{"ingress":{"host":"media.example.com"}}}}"#,
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_switched_off_goes_and_comes_back_when_it_is_switched_on() {
    let spec = "{media: {exposure: HostPort}, signalling: {ingress: {host: media.example.com}}, replicas: 0}";
    let service = Service::apply("reconcile-parts", spec);
    service.condition("Progressing", "False", START).await;
    for (kind, name, off, on) in PARTS {
        let there = async |wanted: bool| {
            wait_for(&format!("{kind} {name}: {wanted}"), BACK, || async {
                let args = ["get", kind, name, "--ignore-not-found", "--output=name"];
                let found = service.kubectl.run(&args)?;
                match found.is_empty() {
                    empty if empty != wanted => Ok(()),
                    _ => bail!("{found:?}"),
                }
            })
            .await;
        };
        there(true).await;
        service.patch(off);
        there(false).await;
        service.patch(on);
        there(true).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_a_child_goes_because_nobody_asked_for_it() {
    let spec = "{media: {exposure: HostPort}, signalling: {ingress: {host: media.example.com}}, replicas: 0}";
    let service = Service::apply("reconcile-copies", spec);
    service.condition("Progressing", "False", START).await;
    let selector = "--selector=app.kubernetes.io/managed-by=mediaservice-operator";
    let children = service
        .kubectl
        .get(&[CHILD_KINDS, selector])
        .expect("they can be listed");
    let mut kinds = BTreeSet::new();
    for child in children["items"].as_array().into_iter().flatten() {
        let kind = child["kind"].as_str().expect("an object has a kind");
        // The one Secret is made once and never read, so a copy of it stays.
        if kind == "Secret" || !kinds.insert(kind) {
            continue;
        }
        let copy = copy(child);
        service
            .kubectl
            .apply(&copy.to_string())
            .expect("it can be copied");
        wait_for(
            &format!("the {kind} nobody asked for to be gone"),
            BACK,
            || async {
                let args = ["get", kind, COPY, "--ignore-not-found", "--output=name"];
                match service.kubectl.run(&args)?.as_str() {
                    "" => Ok(()),
                    found => bail!("{found}"),
                }
            },
        )
        .await;
    }
    let but_secrets = CHILD_KINDS.split(',').count() - 1;
    assert_eq!(kinds.len(), but_secrets, "{kinds:?}");
}

const COPY: &str = "cam-copy";

/// What `kubectl get -o yaml`, a new name and `kubectl apply` make of an object.
fn copy(object: &Value) -> Value {
    let mut copy = object.clone();
    let metadata = &object["metadata"];
    copy["metadata"] = json!({
        "name": COPY, "labels": metadata["labels"], "ownerReferences": metadata["ownerReferences"],
    });
    if let Some(whole) = copy.as_object_mut() {
        whole.remove("status");
    }
    if let Some(spec) = copy["spec"].as_object_mut() {
        spec.remove("clusterIP");
        spec.remove("clusterIPs");
    }
    copy
}
