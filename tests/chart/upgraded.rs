//! An upgrade from a release whose definition lacks fields of the present one: helm brings the present one
//! with it, and what runs goes on.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use tests::process::TempDir;
use tests::{Kubectl, wait_for};

use crate::{CRD, Clean, MEDIA, NAMESPACE, START, helm, ok, ready, root};

/// Two rounds in which the operator asks pods what they do.
const ASKED: Duration = Duration::from_secs(60);

const DRAIN: &str = r#"{"spec":{"rollout":{"drainTimeoutSeconds":60}}}"#;

/// The chart with the definition of 2a4bb36, as that release had it.
fn older_chart(folder: &Path) {
    let chart = root().join("charts/mediaservice-operator");
    ok(Command::new("cp")
        .arg("-rT")
        .args([&chart, folder])
        .output()
        .expect("cp is there"));
    let older = root().join("tests/golden/operator/before/2a4bb36/definition.yaml");
    let older = fs::read_to_string(older).expect("it is there").replacen(
        "metadata:\n",
        "metadata:\n  annotations:\n    helm.sh/resource-policy: keep\n",
        1,
    );
    let template = folder.join("templates/crd.yaml");
    fs::write(template, older).expect("the copy can be written");
}

/// Kind and name → uid of all that `cam` has, and its own.
fn uids(cam: &Kubectl) -> BTreeMap<String, Value> {
    let kinds = format!("{},pods", tests::operator::CHILD_KINDS);
    let of_cam = "--selector=app.kubernetes.io/instance=cam";
    let children = cam.get(&[&kinds, of_cam]).expect("they can be listed");
    let own = cam.get(&["mediaservice", "cam"]).expect("it is there");
    let objects = children["items"]
        .as_array()
        .expect("a list")
        .iter()
        .chain([&own]);
    objects
        .map(|object| {
            let metadata = &object["metadata"];
            (
                format!("{} {}", object["kind"], metadata["name"]),
                metadata["uid"].clone(),
            )
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_brings_the_definition_up_to_date_under_a_service_that_runs() {
    let _clean = Clean::start();
    let older = TempDir::new("older-chart");
    older_chart(older.path());
    let path = older.path().display().to_string();
    ok(helm(&["install", "one", &path, "--namespace", NAMESPACE]));
    let cam = Kubectl::new(MEDIA);
    cam.established(&["crd", CRD]).expect("it is served");
    cam.apply(&crate::media_service("{}"))
        .expect("the manifest is right");
    ready(&cam).await;
    let drain = || -> anyhow::Result<Value> {
        let set = cam.get(&["statefulset", "cam"])?;
        let patience = &set["spec"]["template"]["spec"]["terminationGracePeriodSeconds"];
        let service = cam.get(&["mediaservice", "cam"])?;
        Ok(json!([
            service["spec"]["rollout"]["drainTimeoutSeconds"],
            patience
        ]))
    };
    cam.merge(&["mediaservice", "cam"], DRAIN)
        .expect("a field more is no error");
    assert_eq!(
        drain().expect("both are there"),
        json!([null, 570]),
        "it has no such field"
    );
    wait_for("what the definition has of the sessions", ASKED, || async {
        let status = cam.get(&["mediaservice", "cam"])?["status"].clone();
        ensure!(status["sessions"]["viewers"] == 0, "{status}");
        assert!(status["pods"].is_null(), "{status}");
        Ok::<_, anyhow::Error>(())
    })
    .await;
    let before = uids(&cam);
    assert!(before.len() > 10, "{before:?}");

    let chart = "charts/mediaservice-operator";
    let upgrade = ["upgrade", "one", chart, "--namespace", NAMESPACE];
    ok(helm(
        &[&upgrade[..], &["--reset-then-reuse-values"]].concat(),
    ));
    cam.established(&["crd", CRD]).expect("it is served");
    cam.merge(&["mediaservice", "cam"], DRAIN)
        .expect("the patch is right");
    wait_for("the new field to be taken up", START, || async {
        let now = drain()?;
        ensure!(now == json!([60, 90]), "{now}");
        Ok::<_, anyhow::Error>(())
    })
    .await;
    wait_for("a new field of the status", ASKED, || async {
        let status = cam.get(&["mediaservice", "cam"])?["status"].clone();
        ensure!(status["pods"][0]["state"] == "Accepting", "{status}");
        Ok::<_, anyhow::Error>(())
    })
    .await;
    ready(&cam).await;
    assert_eq!(uids(&cam), before, "the same objects, the pod among them");
}
