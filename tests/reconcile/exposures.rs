//! What an exposure makes and says, as far as no packet is needed: the Services, the conditions, the way
//! from one exposure to another. That media arrives is for `tests/e2e`.

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use tests::wait_for;

use crate::service::{NAME, START, Service};

const SOON: Duration = Duration::from_secs(30);

// Node ports are below 30086, as are those of no other test: the API server gives ports from there on to
// Services that ask for none, such as those of a LoadBalancer.

/// Names of the Services that bring media.
async fn media_services(service: &Service, wanted: &[&str]) {
    wait_for(&format!("the Services {wanted:?}"), SOON, || async {
        let services = service.kubectl.get(&["services"])?;
        let names: Vec<&str> = services["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|service| service["metadata"]["name"].as_str())
            .filter(|name| name.starts_with("cam-media"))
            .collect();
        ensure!(names == wanted, "{names:?}");
        Ok::<_, anyhow::Error>(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exposure_brings_its_services_and_takes_those_of_the_one_before_away() {
    let service = Service::apply("reconcile-exposure", "{replicas: 0}");
    media_services(&service, &["cam-media-tcp", "cam-media-udp"]).await;
    let class = |class: &str| {
        let spec = json!({"spec": {"media": {"loadBalancer": {"class": class}}}});
        service.patch(&spec.to_string());
    };
    let uid = || -> anyhow::Result<Value> {
        let found = service.kubectl.get(&["service", "cam-media-udp"])?;
        Ok(json!([
            found["metadata"]["uid"],
            found["spec"]["loadBalancerClass"]
        ]))
    };
    let first = uid().expect("it is there");
    class("example.com/a");
    wait_for("Services of the class", SOON, || async {
        let now = uid()?;
        ensure!(now[1] == "example.com/a" && now[0] != first[0], "{now}");
        Ok::<_, anyhow::Error>(())
    })
    .await;
    service.patch(r#"{"spec":{"media":{"tcp":{"enabled":false}}}}"#);
    media_services(&service, &["cam-media-udp"]).await;
    let node_port = json!({"exposure": "NodePort", "nodePort": 30002, "tcp": {"enabled": true}});
    service.patch(&json!({"spec": {"media": node_port}}).to_string());
    media_services(&service, &["cam-media"]).await;
    let found = service
        .kubectl
        .get(&["service", "cam-media"])
        .expect("it is there");
    let ports = found["spec"]["ports"].as_array().expect("it has ports");
    let ports: Vec<_> = ports
        .iter()
        .map(|port| (port["protocol"].as_str(), port["nodePort"].as_u64()))
        .collect();
    assert_eq!(
        ports,
        [(Some("UDP"), Some(30002)), (Some("TCP"), Some(30002))]
    );
    service.patch(r#"{"spec":{"media":{"exposure":"HostNetwork"}}}"#);
    media_services(&service, &[]).await;
    wait_for("no NetworkPolicy", SOON, || async {
        let found = service.kubectl.get(&["networkpolicies"])?;
        ensure!(found["items"] == json!([]), "{found}");
        Ok::<_, anyhow::Error>(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_missing_is_named_and_comes_without_a_restart() {
    let service = Service::apply("reconcile-addresses", "{}");
    let message = service
        .reason("AddressesReady", "False", "LoadBalancerPending")
        .await;
    assert!(
        message.contains("describe service cam-media-udp"),
        "{message}"
    );
    let ready = service.condition("Ready", "False", START).await;
    assert_eq!(ready["reason"], "AddressesPending", "{ready}");
    service.patch(r#"{"spec":{"media":{"externalAddresses":["no.such.name.invalid"]}}}"#);
    let message = service
        .reason("AddressesReady", "False", "NameUnresolvable")
        .await;
    assert!(message.contains("no.such.name.invalid"), "{message}");
    let uid = || anyhow::Ok(service.kubectl.get(&["pod", "cam-0"])?["metadata"]["uid"].clone());
    let first = uid().expect("the pod is there");
    service.patch(r#"{"spec":{"media":{"externalAddresses":["203.0.113.9"]}}}"#);
    service.settled().await;
    assert_eq!(uid().expect("the pod is there"), first, "the same pod");
    let found = service
        .kubectl
        .get(&["mediaservice", NAME])
        .expect("it is there");
    let told = json!(["203.0.113.9:8443/udp", "203.0.113.9:8443/tcp"]);
    assert_eq!(found["status"]["addresses"]["media"], told);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_that_forbids_host_ports_shows_and_an_exposure_by_service_lives_there() {
    let service = Service::apply(
        "reconcile-restricted",
        "{replicas: 0, media: {exposure: HostPort}}",
    );
    let label = "pod-security.kubernetes.io/enforce=restricted";
    service
        .kubectl
        .run(&["label", "namespace", "reconcile-restricted", label])
        .expect("it can be labelled");
    for exposure in ["HostPort", "HostNetwork"] {
        let spec = json!({"spec": {"replicas": 1, "media": {"exposure": exposure}}});
        service.patch(&spec.to_string());
        let message = wait_for(&format!("{exposure} to be refused"), START, || async {
            let message = service.reason_now("Degraded", "True", "PodSecurityConflict")?;
            ensure!(
                message.contains(&format!("exposure {exposure} needs")),
                "{message}"
            );
            Ok::<_, anyhow::Error>(message)
        })
        .await;
        let fix = "kubectl label namespace reconcile-restricted pod-security.kubernetes.io/enforce=privileged";
        assert!(message.contains(fix), "{message}");
    }
    service.patch(r#"{"spec":{"media":{"exposure":"NodePort","nodePort":30003}}}"#);
    service.settled().await;
    service.condition("Degraded", "False", START).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_service_is_left_as_it_is_until_it_is_paused_no_more() {
    let service = Service::apply("reconcile-paused", "{media: {exposure: HostPort}}");
    service.settled().await;
    let paused = r#"{"spec":{"paused":true,"media":{"externalAddresses":["203.0.113.9"]}}}"#;
    service.patch(paused);
    service.condition("Paused", "True", START).await;
    service
        .kubectl
        .run(&["delete", "poddisruptionbudget", NAME])
        .expect("it is there");
    // Told by the same reconciliation that would have made it again.
    service.patch(r#"{"spec":{"limits":{"sessionsPerPod":50}}}"#);
    service.condition("Paused", "True", START).await;
    service.condition("Ready", "True", START).await;
    let gone = service.kubectl.get(&["poddisruptionbudget", NAME]);
    assert!(gone.is_err(), "{gone:?}");
    service.patch(r#"{"spec":{"paused":false}}"#);
    wait_for("the child to be back", SOON, || async {
        service.kubectl.get(&["poddisruptionbudget", NAME])
    })
    .await;
    service.condition("Paused", "False", START).await;
    service.settled().await;
}
