//! The operator for one namespace: with the Role that the chart grants there it does all of its work, and
//! it asks for nothing outside.

use std::time::Duration;

use anyhow::{bail, ensure};
use tests::{Kubectl, audit, wait_for};

use crate::{Clean, MEDIA, NAMESPACE, helm, install, ok, ready};

/// Of its own, so that what the audit log says of its account is this test's.
pub const RELEASE: &str = "scoped";

/// What the operator promises for a child.
const BACK: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_for_one_namespace_does_its_work_with_its_role_alone_and_attempts_nothing_outside()
 {
    let _clean = Clean::start();
    let watched = format!("watchNamespaces={{{MEDIA}}}");
    ok(install("install", RELEASE, &[&watched]));
    let said = ok(helm(&[
        "test",
        RELEASE,
        "--namespace",
        NAMESPACE,
        "--logs",
        "--timeout",
        "3m",
    ]));
    assert!(said.contains("ok       all "), "{said}");
    assert!(said.contains("leads in namespace"), "{said}");

    let cam = Kubectl::new(MEDIA);
    cam.apply(&crate::media_service(
        "{ingress: {host: media.example.com}}",
    ))
    .expect("the manifest is right");
    let elsewhere = Kubectl::new(NAMESPACE);
    elsewhere
        .apply(&crate::media_service("{}"))
        .expect("the manifest is right");
    ready(&cam).await;

    for (kind, name) in [
        ("configmap", "cam-config"),
        ("service", "cam"),
        ("servicemonitor", "cam"),
        ("ingress", "cam"),
    ] {
        cam.run(&["delete", kind, name]).expect("it is there");
        wait_for(&format!("{kind} {name} to be back"), BACK, || async {
            cam.get(&[kind, name])
        })
        .await;
    }
    let less = r#"{"spec":{"signalling":{"ingress":null},"monitoring":{"dashboards":{"enabled":false}},"pod":{"labels":{"a":"b"}}}}"#;
    cam.merge(&["mediaservice", "cam"], less)
        .expect("the patch is right");
    for (kind, name) in [("ingress", "cam"), ("configmap", "cam-dashboard-overview")] {
        wait_for(&format!("{kind} {name} to be gone"), BACK, || async {
            match cam
                .run(&["get", kind, name, "--ignore-not-found", "--output=name"])?
                .as_str()
            {
                "" => Ok(()),
                found => bail!("{found}"),
            }
        })
        .await;
    }
    wait_for("a pod with the new label", crate::START, || async {
        let pod = cam.get(&["pod", "cam-0"])?;
        ensure!(
            pod["metadata"]["labels"]["a"] == "b",
            "{}",
            pod["metadata"]["labels"]
        );
        Ok::<_, anyhow::Error>(())
    })
    .await;
    ready(&cam).await;
    let described = cam
        .run(&["describe", "mediaservice", "cam"])
        .expect("it is there");
    assert!(described.contains("ReplacingPod"), "{described}");
    let untouched = elsewhere
        .get(&["mediaservice", "cam"])
        .expect("it is there");
    assert!(untouched["status"].is_null(), "{untouched}");

    let account = format!("system:serviceaccount:{NAMESPACE}:{RELEASE}-mediaservice-operator");
    let requests = audit::requests(&account).expect("the audit log can be read");
    assert!(requests.len() > 100, "{} requests", requests.len());
    let mut wrong = Vec::new();
    for request in &requests {
        let target = &request["objectRef"];
        let inside = match target["resource"].as_str() {
            // Discovery, which everybody may read.
            None => true,
            // What `operator check` asks about itself.
            Some("selfsubjectaccessreviews") => true,
            Some("leases") => target["namespace"] == NAMESPACE,
            Some(_) => target["namespace"] == MEDIA,
        };
        if !inside || request["responseStatus"]["code"] == 403 {
            wrong.push(audit::line(request));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
