//! What is wrong shows in a condition, and its correction is enough.

use std::time::Duration;

use anyhow::{bail, ensure};
use serde_json::json;
use tests::wait_for;

use crate::service::{NAME, START, Service};
use crate::turn;

/// A kubelet tells about a pull or a mount that fails within a few tries.
const SHOWS: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_does_not_exist_shows_and_its_correction_replaces_the_pod_that_never_was_ready()
 {
    let service = Service::apply(
        "reconcile-image",
        "{media: {exposure: HostPort}, image: registry.invalid/none:1}",
    );
    let degraded = service.condition("Degraded", "True", SHOWS).await;
    assert_eq!(degraded["reason"], "ImagePullFailed", "{degraded}");
    let message = degraded["message"].as_str().unwrap_or_default();
    assert!(message.contains("registry.invalid/none:1"), "{message}");
    let ready = service.condition("Ready", "False", START).await;
    assert_eq!(ready["reason"], "NoPods", "{ready}");
    wait_for("the event in kubectl describe", SHOWS, || async {
        let text = service.kubectl.run(&["describe", "mediaservice", NAME])?;
        let events = text
            .split("\nEvents:")
            .nth(1)
            .unwrap_or_default()
            .to_owned();
        ensure!(events.contains("ImagePullFailed"), "{events}");
        Ok::<_, anyhow::Error>(())
    })
    .await;
    // The default of the chart, by its name.
    let chart = tests::operator::root().join("charts/mediaservice-operator/Chart.yaml");
    let chart: serde_json::Value =
        serde_yaml::from_str(&std::fs::read_to_string(chart).expect("it is there"))
            .expect("it is YAML");
    let image = format!(
        "media-server:{}",
        chart["appVersion"].as_str().expect("it has a version")
    );
    service.patch(&format!(r#"{{"spec":{{"image":"{image}"}}}}"#));
    service.settled().await;
    service.condition("Degraded", "False", START).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_pod_that_no_pod_can_have_shows_and_no_other_service_waits_for_it() {
    let _turn = turn::alone();
    let odd = Service::apply(
        "reconcile-odd",
        "{media: {exposure: HostPort}, pod: {tolerations: [{key: a, tolerationSeconds: '60'}]}}",
    );
    let degraded = odd.condition("Degraded", "True", START).await;
    assert_eq!(degraded["reason"], "InvalidSpec", "{degraded}");
    let message = degraded["message"].as_str().unwrap_or_default();
    assert!(message.contains("spec.pod.tolerations[0]"), "{message}");
    // A new operator lists all of them before it does anything.
    let operator = tests::Kubectl::new(tests::operator::NAMESPACE);
    let restart = ["rollout", "restart", "deployment/mediaservice-operator"];
    operator.run(&restart).expect("it can be restarted");
    let status = ["rollout", "status", "deployment/mediaservice-operator"];
    operator.run(&status).expect("it comes back");
    let other = Service::apply("reconcile-beside-odd", "{media: {exposure: HostPort}}");
    other.settled().await;
    drop(other);
    odd.patch(r#"{"spec":{"pod":{"tolerations":[{"key":"a","tolerationSeconds":60,"operator":"Exists","effect":"NoExecute"}]}}}"#);
    odd.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_secret_is_named_with_the_command_that_makes_it() {
    let spec = "{media: {exposure: HostPort}, clusterKeySecretRef: {name: my-keys, key: root}}";
    let service = Service::apply("reconcile-secret", spec);
    let degraded = service.condition("Degraded", "True", SHOWS).await;
    assert_eq!(degraded["reason"], "MountFailed", "{degraded}");
    let message = degraded["message"].as_str().unwrap_or_default();
    let command = "kubectl -n reconcile-secret create secret generic my-keys --from-file=root=";
    assert!(message.contains(command), "{message}");
    let literal = "--from-literal=root=0123456789abcdef0123456789abcdef";
    service
        .kubectl
        .run(&["create", "secret", "generic", "my-keys", literal])
        .expect("the secret can be made");
    service.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_know_its_configuration_is_told_as_one_of_another_version() {
    let service = Service::apply("reconcile-skew", "{media: {exposure: HostPort}}");
    service.settled().await;
    // As an operator of a later version would write it; this one would undo it.
    service.patch(r#"{"spec":{"paused":true}}"#);
    service.condition("Paused", "True", START).await;
    let config = service.kubectl.get(&["configmap", "cam-config"]);
    let config = config.expect("it is there")["data"]["config.toml"].clone();
    let config = config.as_str().expect("a file");
    let later = config.replace("[limits]\n", "[limits]\nof_a_later_version = 1\n");
    assert_ne!(later, config);
    let patch = json!({"data": {"config.toml": later}}).to_string();
    let target = ["configmap", "cam-config"];
    service.kubectl.merge(&target, &patch).expect("it may be");
    let delete = ["delete", "pod", "cam-0"];
    service.kubectl.run(&delete).expect("it can be deleted");
    let message = service.reason("Degraded", "True", "VersionSkew").await;
    for words in ["pod cam-0", "media-server:", "the field of_a_later_version"] {
        assert!(message.contains(words), "{message}");
    }
    service.patch(r#"{"spec":{"paused":false}}"#);
    service.settled().await;
    service.condition("Degraded", "False", START).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_secret_that_is_deleted_comes_back_as_soon_as_a_pod_needs_it() {
    let service = Service::apply("reconcile-keys", "{media: {exposure: HostPort}}");
    service.settled().await;
    let pod = || service.kubectl.get(&["pod", "cam-0"]);
    let first = pod().expect("it is there")["metadata"]["uid"].clone();
    for object in ["secret/cam-generated", "pod/cam-0"] {
        let delete = ["delete", object];
        service.kubectl.run(&delete).expect("it can be deleted");
    }
    wait_for("the next pod to be ready", START, || async {
        let pod = pod()?;
        ensure!(pod["metadata"]["uid"] != first, "still the first");
        let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        let is_ready = conditions.any(|c| c["type"] == "Ready" && c["status"] == "True");
        ensure!(is_ready, "{}", pod["status"]);
        Ok::<_, anyhow::Error>(())
    })
    .await;
    service.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_spec_replaces_the_pod_and_scaling_to_zero_and_back_stops_and_starts_it() {
    let service = Service::apply("reconcile-replace", "{media: {exposure: HostPort}}");
    service.settled().await;
    let uid = || anyhow::Ok(service.kubectl.get(&["pod", "cam-0"])?["metadata"]["uid"].clone());
    let first = uid().expect("the pod is there");
    service.patch(r#"{"spec":{"limits":{"sessionsPerPod":50}}}"#);
    wait_for("another pod", START, || async {
        ensure!(uid()? != first, "still the first");
        Ok::<_, anyhow::Error>(())
    })
    .await;
    service.settled().await;
    let config = service
        .kubectl
        .run(&["exec", "cam-0", "--", "media-server", "--version"]);
    config.expect("the pod runs the server");

    service
        .kubectl
        .run(&["scale", "mediaservice", NAME, "--replicas=0"])
        .expect("0 is allowed");
    let ready = service.condition("Ready", "False", START).await;
    assert_eq!(ready["reason"], "Stopped", "{ready}");
    wait_for("the pod to be gone", START, || async {
        match uid() {
            Err(_) => Ok(()),
            Ok(uid) => bail!("{uid}"),
        }
    })
    .await;
    service
        .kubectl
        .run(&["scale", "mediaservice", NAME, "--replicas=1"])
        .expect("1 is allowed");
    service.settled().await;
}
