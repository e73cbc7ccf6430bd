//! Children that somebody edits or deletes come back.

use std::time::Instant;

use anyhow::{bail, ensure};
use serde_json::Value;
use tests::wait_for;

use crate::service::{BACK, NAME, START, Service};

/// Kind, name, an edit of a field that the operator sets, and where to look for it.
const CHILDREN: &[(&str, &str, &str, &str)] = &[
    (
        "serviceaccount",
        "cam-media",
        r#"{"automountServiceAccountToken":true}"#,
        "/automountServiceAccountToken",
    ),
    (
        "configmap",
        "cam-config",
        r#"{"data":{"config.toml":"nonsense"}}"#,
        "/data/config.toml",
    ),
    (
        "configmap",
        "cam-addresses",
        r#"{"data":{"addresses.json":"{}"}}"#,
        "/data/addresses.json",
    ),
    (
        "configmap",
        "cam-dashboard-overview",
        r#"{"metadata":{"labels":{"grafana_dashboard":"0"}}}"#,
        "/metadata/labels",
    ),
    (
        "service",
        "cam-pods",
        r#"{"spec":{"publishNotReadyAddresses":false}}"#,
        "/spec/publishNotReadyAddresses",
    ),
    (
        "service",
        "cam",
        r#"{"spec":{"selector":{"app.kubernetes.io/name":"other"}}}"#,
        "/spec/selector",
    ),
    (
        "networkpolicy",
        "cam-media",
        r#"{"spec":{"ingress":[]}}"#,
        "/spec/ingress",
    ),
    (
        "poddisruptionbudget",
        "cam",
        r#"{"spec":{"maxUnavailable":0}}"#,
        "/spec/maxUnavailable",
    ),
    (
        "ingress",
        "cam",
        r#"{"spec":{"rules":[{"host":"other.example.com"}]}}"#,
        "/spec/rules",
    ),
    (
        "servicemonitor",
        "cam",
        r#"{"spec":{"jobLabel":"other"}}"#,
        "/spec/jobLabel",
    ),
    (
        "prometheusrule",
        "cam",
        r#"{"spec":{"groups":[]}}"#,
        "/spec/groups",
    ),
    (
        "statefulset",
        "cam",
        r#"{"spec":{"template":{"spec":{"terminationGracePeriodSeconds":77,"containers":[{"name":"media-server","image":"other:1"}]}}}}"#,
        "/spec/template",
    ),
];

/// Kind, name, a JSON patch (RFC 6902) that only adds, and where to look for it.
const ADDED: &[(&str, &str, &str, &str)] = &[
    (
        "statefulset",
        "cam",
        r#"[{"op":"add","path":"/spec/template/spec/containers/0/args/-","value":"--insecure-no-auth"}]"#,
        "/spec/template/spec/containers/0/args",
    ),
    (
        "statefulset",
        "cam",
        r#"[{"op":"add","path":"/spec/template/spec/containers/0/env/-","value":{"name":"MEDIA_AUTH","value":"none"}}]"#,
        "/spec/template/spec/containers/0/env",
    ),
    (
        "statefulset",
        "cam",
        r#"[{"op":"add","path":"/spec/template/spec/containers/0/resources/limits/cpu","value":"4"}]"#,
        "/spec/template/spec/containers/0/resources",
    ),
    (
        "configmap",
        "cam-config",
        r#"[{"op":"add","path":"/data/more","value":"x"}]"#,
        "/data",
    ),
    (
        "service",
        "cam-pods",
        r#"[{"op":"add","path":"/spec/ports/-","value":{"name":"more","port":1234}}]"#,
        "/spec/ports",
    ),
    (
        "service",
        "cam",
        r#"[{"op":"add","path":"/spec/selector/no","value":"such"}]"#,
        "/spec/selector",
    ),
    (
        "networkpolicy",
        "cam-media",
        r#"[{"op":"add","path":"/spec/ingress/-","value":{}}]"#,
        "/spec/ingress",
    ),
    (
        "ingress",
        "cam",
        r#"[{"op":"add","path":"/spec/rules/-","value":{"host":"other.example.com"}}]"#,
        "/spec/rules",
    ),
    (
        "ingress",
        "cam",
        r#"[{"op":"add","path":"/spec/tls/0/hosts/-","value":"other.example.com"}]"#,
        "/spec/tls",
    ),
    (
        "servicemonitor",
        "cam",
        r#"[{"op":"add","path":"/spec/selector/matchLabels/no","value":"such"}]"#,
        "/spec/selector",
    ),
    (
        "servicemonitor",
        "cam",
        r#"[{"op":"add","path":"/spec/endpoints/-","value":{"port":"http"}}]"#,
        "/spec/endpoints",
    ),
    (
        "prometheusrule",
        "cam",
        r#"[{"op":"add","path":"/spec/groups/-","value":{"name":"more","rules":[{"record":"more:x","expr":"1"}]}}]"#,
        "/spec/groups",
    ),
    (
        "prometheusrule",
        "cam",
        r#"[{"op":"add","path":"/spec/groups/0/rules/-","value":{"record":"more:y","expr":"1"}}]"#,
        "/spec/groups",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_added_to_a_child_is_taken_out_within_ten_seconds() {
    let spec = "{media: {exposure: HostPort}, signalling: {ingress: {host: media.example.com}}}";
    let service = Service::apply("reconcile-added", spec);
    service.settled().await;
    for (kind, name, patch, field) in ADDED {
        let wanted = wait_for(&format!("{kind} {name}"), START, || async {
            service.kubectl.get(&[kind, name])
        })
        .await;
        let at = |object: &Value| object.pointer(field).cloned();
        service
            .kubectl
            .run(&["patch", kind, name, "--type=json", "--patch", patch])
            .expect("the edit is accepted");
        let edited = Instant::now();
        wait_for(&format!("{field} of {kind} {name}"), BACK, || async {
            let now = service.kubectl.get(&[kind, name])?;
            ensure!(at(&now) == at(&wanted), "{:?}", at(&now));
            Ok::<_, anyhow::Error>(())
        })
        .await;
        println!(
            "{kind} {name}: {field} is back after {:?}",
            edited.elapsed()
        );
    }
    service.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_is_edited_or_deleted_comes_back_within_ten_seconds() {
    let spec = "{media: {exposure: HostPort}, signalling: {ingress: {host: media.example.com}}}";
    let service = Service::apply("reconcile-children", spec);
    service.settled().await;
    for (kind, name, edit, field) in CHILDREN {
        let wanted = wait_for(&format!("{kind} {name}"), START, || async {
            service.kubectl.get(&[kind, name])
        })
        .await;
        let at = |object: &Value| object.pointer(field).cloned();
        service
            .kubectl
            .merge(&[kind, name], edit)
            .expect("the edit is accepted");
        let edited = Instant::now();
        wait_for(
            &format!("the edit of {kind} {name} to be undone"),
            BACK,
            || async {
                let now = service.kubectl.get(&[kind, name])?;
                ensure!(at(&now) == at(&wanted), "{:?}", at(&now));
                Ok::<_, anyhow::Error>(())
            },
        )
        .await;
        println!("{kind} {name}: edit undone after {:?}", edited.elapsed());
    }
    for (kind, name, _, _) in CHILDREN {
        service.restores(kind, name).await;
    }
    service.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_that_is_deleted_without_its_pod_comes_back_and_takes_the_same_pod_on() {
    let service = Service::apply("reconcile-orphan", "{media: {exposure: HostPort}}");
    service.settled().await;
    let get = |kind: &str, name: &str| service.kubectl.get(&[kind, name]);
    let uid = |object: &Value| object["metadata"]["uid"].clone();
    let owner = |pod: &Value| pod["metadata"]["ownerReferences"][0]["uid"].clone();
    let set = get("statefulset", NAME).expect("it is there");
    let pod = get("pod", "cam-0").expect("it is there");
    assert_eq!(owner(&pod), uid(&set), "{pod}");
    // Waits until this one is gone, which takes as long as the garbage collector needs to let go of the pod.
    service
        .kubectl
        .run(&["delete", "statefulset", NAME, "--cascade=orphan"])
        .expect("it can be deleted");
    let deleted = Instant::now();
    let next = wait_for("the next StatefulSet", BACK, || async {
        let now = get("statefulset", NAME)?;
        ensure!(uid(&now) != uid(&set), "the old one is still there");
        Ok::<_, anyhow::Error>(now)
    })
    .await;
    println!("the StatefulSet is back after {:?}", deleted.elapsed());
    assert_eq!(next["spec"], set["spec"]);
    let adopted = wait_for("the pod to be its own", START, || async {
        let now = get("pod", "cam-0")?;
        ensure!(owner(&now) == uid(&next), "{}", now["metadata"]);
        Ok::<_, anyhow::Error>(now)
    })
    .await;
    println!("and has its pod after {:?}", deleted.elapsed());
    service.settled().await;
    let now = get("pod", "cam-0").expect("it is there");
    for now in [&adopted, &now] {
        assert_eq!(uid(now), uid(&pod), "the same pod");
        assert!(now["metadata"]["deletionTimestamp"].is_null(), "{now}");
        let starts = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].clone();
        assert_eq!(starts(now), starts(&pod));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_longer_wanted_goes_and_fields_of_others_stay() {
    let spec = "{media: {exposure: HostPort}, signalling: {ingress: {host: media.example.com}}, replicas: 0}";
    let service = Service::apply("reconcile-prune", spec);
    // For a while after its definition was made, the API server refuses every child of a MediaService.
    service.condition("Degraded", "False", START).await;
    service
        .kubectl
        .run(&["annotate", "service", NAME, "example.com/mine=yes"])
        .expect("anybody may annotate");
    service.patch(
        r#"{"spec":{"signalling":{"ingress":null},"monitoring":{"dashboards":{"enabled":false}}}}"#,
    );
    for (kind, name) in [("ingress", "cam"), ("configmap", "cam-dashboard-overview")] {
        wait_for(&format!("{kind} {name} to be gone"), BACK, || async {
            let args = ["get", kind, name, "--ignore-not-found", "--output=name"];
            match service.kubectl.run(&args)?.as_str() {
                "" => Ok(()),
                found => bail!("{found}"),
            }
        })
        .await;
    }
    let kept = service
        .kubectl
        .get(&["service", NAME])
        .expect("it is still wanted");
    assert_eq!(kept["metadata"]["annotations"]["example.com/mine"], "yes");
}
