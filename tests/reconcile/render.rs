//! `operator render` prints what the controller applies.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;
use tests::process::{piped, program};
use tests::{Kubectl, operator, wait_for};

use crate::service::{NAME, START, Service};

/// The controller's bookkeeping, which belongs to no spec.
const HASH: &str = "/metadata/annotations/mediaservice.io~1applied-hash";

#[tokio::test(flavor = "multi_thread")]
async fn render_prints_exactly_what_the_controller_applies_for_both_examples() {
    for example in ["minimal", "full"] {
        let path = operator::root().join(format!("crds/examples/{example}.yaml"));
        let text = std::fs::read_to_string(path).expect("it is there");
        let manifest: Value = serde_yaml::from_str(&text).expect("YAML");
        let mut spec = manifest["spec"].clone();
        // The objects are compared and not the pod, whose Secrets are not there.
        spec["replicas"] = 0.into();
        let service = Service::apply(&format!("reconcile-render-{example}"), &spec.to_string());
        let rendered = wait_for(
            "the controller to have applied everything",
            START,
            || async {
                let object = service.kubectl.get(&["mediaservice", NAME])?;
                ensure!(
                    object["status"]["observedGeneration"] == object["metadata"]["generation"],
                    "{}",
                    object["status"]
                );
                let rendered = served(&service.kubectl, render(&object)?)?;
                ensure!(
                    names(&rendered) == live(&service.kubectl)?,
                    "{:?}",
                    names(&rendered)
                );
                Ok::<_, anyhow::Error>(rendered)
            },
        )
        .await;
        for object in rendered.iter().filter(|object| object["kind"] != "Secret") {
            let name = name_of(object);
            let now = service.kubectl.get(&[&name]).expect("it is there");
            let applied = dry_run(&service.kubectl, object).expect("it is accepted");
            assert_eq!(comparable(applied), comparable(now), "{example}: {name}");
        }
    }
}

/// The documents that `operator render` prints for the object as it is in the cluster.
fn render(service: &Value) -> anyhow::Result<Vec<Value>> {
    let mut render = Command::new(program("OPERATOR", "operator"));
    render.args(["render", "--file", "-", "--namespace", operator::NAMESPACE]);
    let output = piped(&mut render, &service.to_string())?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{complaint}");
    let text = String::from_utf8(output.stdout)?;
    text.split("\n---\n")
        .map(|document| Ok(serde_yaml::from_str(document.trim_start_matches("---\n"))?))
        .collect()
}

/// Those of APIs that this cluster has; the controller makes no others.
fn served(kubectl: &Kubectl, objects: Vec<Value>) -> anyhow::Result<Vec<Value>> {
    let versions = kubectl.run(&["api-versions"])?;
    let versions: BTreeSet<&str> = versions.lines().collect();
    Ok(objects
        .into_iter()
        .filter(|object| {
            object["apiVersion"]
                .as_str()
                .is_some_and(|version| versions.contains(version))
        })
        .collect())
}

/// What the API server would store if the controller applied this.
fn dry_run(kubectl: &Kubectl, object: &Value) -> anyhow::Result<Value> {
    let apply = [
        "apply",
        "--server-side",
        "--force-conflicts",
        "--field-manager=mediaservice-operator",
        "--dry-run=server",
        "--output=json",
        "--filename=-",
    ];
    Ok(serde_json::from_str(
        &kubectl.run_with(&apply, &object.to_string())?,
    )?)
}

fn comparable(mut object: Value) -> Value {
    // Kubernetes' own controllers write it between the two reads.
    object.as_object_mut().expect("an object").remove("status");
    let metadata = object["metadata"].as_object_mut().expect("metadata");
    for field in ["managedFields", "resourceVersion"] {
        metadata.remove(field);
    }
    if let Some(hash) = object.pointer_mut(HASH) {
        hash.take();
    } else {
        object["metadata"]["annotations"]["mediaservice.io/applied-hash"] = Value::Null;
    }
    // Addresses of nodes and load balancers are found in a cluster, and `render` has none.
    if object["metadata"]["name"] == "cam-addresses" {
        object["data"].take();
    }
    object
}

fn name_of(object: &Value) -> String {
    let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    match object["apiVersion"]
        .as_str()
        .and_then(|version| version.split_once('/'))
    {
        Some((group, _)) => format!("{kind}.{group}/{name}"),
        None => format!("{kind}/{name}"),
    }
}

fn names(objects: &[Value]) -> BTreeSet<String> {
    objects.iter().map(name_of).collect()
}

/// Every child that the controller has made.
fn live(kubectl: &Kubectl) -> anyhow::Result<BTreeSet<String>> {
    let selector = format!(
        "--selector=app.kubernetes.io/managed-by=mediaservice-operator,app.kubernetes.io/instance={NAME}"
    );
    let found = kubectl.get(&[operator::CHILD_KINDS, &selector])?;
    Ok(names(found["items"].as_array().context("a list")?))
}
