//! `cargo xtask demo --cluster current` on a cluster of others: what is live, what stays, what goes.
//!
//! Runs in the cluster's outside network with `KUBECONFIG` set and both images loaded. Whatever has the
//! demo's names there is removed before and after each test, so it is nothing for a cluster in use. Tests run
//! one after another (`--test-threads=1`).
#![forbid(unsafe_code)]

use std::process::Command;

use serde_json::Value;
use tests::demo::{self, Run};
use tests::{Kubectl, operator};

const NAMESPACE: &str = "media";
const DEFINITION: &str = "mediaservices.mediaservice.io";

fn current(more: &str) -> Run {
    demo::run(&["--cluster", "current", more])
}

fn kubectl(args: &[&str]) -> String {
    Kubectl::new(NAMESPACE)
        .run(args)
        .unwrap_or_else(|error| panic!("{error:#}"))
}

fn helm(args: &[&str]) -> String {
    let output = Command::new("helm")
        .args(args)
        .output()
        .expect("helm can be started");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "helm {args:?}: {complaint}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Nothing with the demo's names is left, whoever made it.
fn clean() {
    let _ = current("--down");
    let there = kubectl(&["get", "crd", DEFINITION, "--ignore-not-found", "-o", "name"]);
    if !there.is_empty() {
        kubectl(&["delete", "mediaservices", "--all"]);
    }
    let release = ["uninstall", "mediaservice-operator", "--ignore-not-found"];
    helm(
        &[
            &release[..],
            &["--namespace", operator::NAMESPACE, "--wait"],
        ]
        .concat(),
    );
    for object in [
        ["namespace", NAMESPACE],
        ["namespace", operator::NAMESPACE],
        ["customresourcedefinition", DEFINITION],
    ] {
        kubectl(&[&["delete", "--ignore-not-found"][..], &object[..]].concat());
    }
}

/// Name, uid, labels and annotations of an object; `None` if it is not there.
fn identity(kind: &str, name: &str) -> Option<Value> {
    let text = kubectl(&["get", kind, name, "--ignore-not-found", "-o", "json"]);
    let object: Value = serde_json::from_str(&text).ok()?;
    let of = |field: &str| object["metadata"][field].clone();
    Some(serde_json::json!([
        of("name"),
        of("uid"),
        of("labels"),
        of("annotations")
    ]))
}

/// Everything that the demo could make or take, and the releases with their revisions.
fn cluster() -> Vec<Option<Value>> {
    vec![
        identity("namespace", NAMESPACE),
        identity("namespace", operator::NAMESPACE),
        identity("customresourcedefinition", DEFINITION),
        serde_json::from_str(&helm(&["list", "--all-namespaces", "-o", "json"])).ok(),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_of_somebody_else_is_refused_and_stays() {
    clean();
    operator::install();
    let before = cluster();
    let up = current("--images-present");
    assert!(!up.ok, "{}", up.said);
    let words = "nothing was touched: the release mediaservice-operator";
    assert!(up.complained.contains(words), "{}", up.complained);
    assert_eq!(cluster(), before);
    let down = current("--down").good();
    let words = "left as it is: the release mediaservice-operator";
    assert!(down.said.contains(words), "{}", down.said);
    assert_eq!(cluster(), before);
    clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_before_is_used_and_stays_as_it_is() {
    clean();
    kubectl(&["create", "namespace", NAMESPACE]);
    kubectl(&["label", "namespace", NAMESPACE, "team=video"]);
    kubectl(&["create", "configmap", "keep"]);
    let definition = operator::root().join("crds/mediaservices.yaml");
    let definition = definition.display().to_string();
    kubectl(&["apply", "--server-side", "-f", &definition]);
    let before = cluster();

    let up = current("--images-present").good();
    let words = "the namespace media was there before";
    assert!(up.said.contains(words), "{}", up.said);
    up.is_live().await;
    let down = current("--down").good();
    for what in [
        "the namespace media",
        "the CustomResourceDefinition mediaservices",
    ] {
        let words = format!("left as it is: {what}");
        assert!(down.said.contains(&words), "{}", down.said);
    }
    assert_eq!(cluster(), before);
    kubectl(&["get", "configmap", "keep"]);
    let kinds = "mediaservices,statefulsets,pods,services,ingresses,secrets";
    let left = kubectl(&["get", kinds, "-o", "name"]);
    assert_eq!(left, "", "of the demo's MediaService nothing is left");
    clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_demo_made_goes_with_it() {
    clean();
    let before = cluster();
    let up = current("--images-present").good();
    up.is_live().await;
    current("--down").good();
    assert_eq!(cluster(), before);
    let (origin, _) = up.page();
    let answer = reqwest::get(format!("{origin}/")).await;
    assert!(answer.is_err(), "nothing carries the page any more");
    let again = current("--down").good();
    let words = "nothing of the demo is on this cluster";
    assert!(again.said.contains(words), "{}", again.said);
}
