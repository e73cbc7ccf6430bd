//! Tests of the status: conditions and reasons for each state that a cluster can be in.

use super::*;
use crate::capabilities::{Availability, OptionalApi};
use crate::controller::fetch::Nodes;
use crate::controller::{offline, validate};
use kube::CustomResourceExt;
use serde_json::json;
use std::sync::Arc;

fn fetched(replicas: i32) -> Fetched {
    let service: MediaService = serde_json::from_value(json!({
        "apiVersion": "mediaservice.io/v1alpha1",
        "kind": "MediaService",
        "metadata": {"name": "cam", "namespace": "media", "uid": "u-1", "generation": 3},
        "spec": {"replicas": replicas, "media": {"exposure": "HostPort"}, "signalling": {"ingress": {"host": "m.example.com"}}},
    }))
    .unwrap();
    let mut fetched = offline(service, "i:1".into());
    fetched.nodes = Nodes::Known([("n1".to_owned(), vec!["203.0.113.1".to_owned()])].into());
    fetched
}

fn with_pod(mut fetched: Fetched, ready: bool) -> Fetched {
    let pod = json!({
        "metadata": {"name": "cam-0"},
        "spec": {"nodeName": "n1", "containers": []},
        "status": {"conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
    });
    fetched.pods = vec![serde_json::from_value(pod).unwrap()];
    fetched
}

fn applied(fetched: &Fetched) -> MediaServiceStatus {
    let valid = validate::validate(fetched).unwrap();
    describe(
        fetched,
        &Outcome::Applied {
            service: &valid,
            replaced: &replace::Rollout::default(),
            scaling: &ScaleDown::default(),
        },
        Timestamp::UNIX_EPOCH,
    )
}

fn word(status: &MediaServiceStatus, type_: &str) -> (String, String) {
    let condition = status.conditions.iter().find(|c| c.type_ == type_).unwrap();
    (condition.status.clone(), condition.reason.clone())
}

fn is(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

#[test]
fn a_ready_pod_with_an_address_makes_the_service_ready() {
    let status = applied(&with_pod(fetched(1), true));
    assert_eq!(word(&status, "Ready"), is("True", "Accepting"));
    assert_eq!(word(&status, "Progressing"), is("False", "UpToDate"));
    assert_eq!(word(&status, "Degraded"), is("False", "AsExpected"));
    let media = ["203.0.113.1:8443/udp", "203.0.113.1:8443/tcp"];
    assert_eq!(status.addresses.media, media);
    assert_eq!(status.addresses.signalling, "https://m.example.com");
    assert_eq!(
        (
            status.replicas,
            status.ready_replicas,
            status.desired_replicas
        ),
        (1, 1, 1)
    );
    assert_eq!(status.observed_generation, Some(3));
}

#[test]
fn the_definition_names_every_condition() {
    let definition = serde_json::to_value(MediaService::crd()).unwrap();
    let status = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/conditions/description";
    let described = definition.pointer(status).unwrap().as_str().unwrap();
    let described: Vec<&str> = described.trim_end_matches('.').split(", ").collect();
    let status = applied(&with_pod(fetched(1), true));
    let types: Vec<&str> = status.conditions.iter().map(|c| c.type_.as_str()).collect();
    assert_eq!(described, types);
}

#[test]
fn without_a_ready_pod_it_progresses_and_is_not_ready() {
    let status = applied(&with_pod(fetched(1), false));
    assert_eq!(word(&status, "Ready"), is("False", "NoPods"));
    assert_eq!(word(&status, "Progressing"), is("True", "StartingPods"));
}

#[test]
fn a_stopped_service_says_so() {
    assert_eq!(word(&applied(&fetched(0)), "Ready"), is("False", "Stopped"));
}

#[test]
fn a_node_without_any_address_is_named() {
    let mut fetched = with_pod(fetched(1), true);
    fetched.nodes = Nodes::Known([("n1".to_owned(), vec![])].into());
    let status = applied(&fetched);
    assert_eq!(
        word(&status, "AddressesReady"),
        is("False", "NodeAddressMissing")
    );
    assert_eq!(word(&status, "Ready"), is("False", "AddressesPending"));
}

fn with_spec(fetched: &mut Fetched, spec: serde_json::Value) {
    let mut service = (*fetched.service).clone();
    service.spec = serde_json::from_value(spec).unwrap();
    fetched.service = service.into();
}

fn message(status: &MediaServiceStatus, type_: &str) -> String {
    let condition = status.conditions.iter().find(|c| c.type_ == type_).unwrap();
    condition.message.clone()
}

#[test]
fn a_load_balancer_that_gave_no_address_yet_is_named_and_one_that_did_is_enough() {
    let mut fetched = with_pod(fetched(1), false);
    with_spec(&mut fetched, json!({}));
    let status = applied(&fetched);
    let pending = is("False", "LoadBalancerPending");
    assert_eq!(word(&status, "AddressesReady"), pending);
    assert!(message(&status, "AddressesReady").contains("Service cam-media-udp "));
    assert_eq!(word(&status, "Ready"), is("False", "AddressesPending"));
    let services = json!([{"metadata": {"name": "cam-media-udp"},
        "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}]}}}]);
    fetched.live.services = serde_json::from_value(services).unwrap();
    let status = applied(&with_pod(fetched, true));
    assert_eq!(word(&status, "AddressesReady"), is("True", "Discovered"));
    // Until TCP has an address too, nobody is told of it.
    assert!(message(&status, "AddressesReady").contains("cam-media-tcp"));
    assert_eq!(status.addresses.media, ["198.51.100.1:8443/udp"]);
}

#[test]
fn names_that_do_not_resolve_are_named_unless_another_address_is_left() {
    let mut fetched = with_pod(fetched(1), false);
    fetched.unresolved = vec!["a.example.com".into(), "b.example.com".into()];
    let mut state = |addresses: &[&str]| {
        with_spec(
            &mut fetched,
            json!({"media": {"externalAddresses": addresses}}),
        );
        let status = applied(&fetched);
        (
            word(&status, "AddressesReady"),
            message(&status, "AddressesReady"),
        )
    };
    let (words, message) = state(&["a.example.com", "b.example.com"]);
    assert_eq!(words, is("False", "NameUnresolvable"));
    assert_eq!(
        message,
        "no address can be found for a.example.com and b.example.com"
    );
    assert_eq!(
        state(&["a.example.com", "c.example.com"]).0,
        is("True", "Given")
    );
    assert_eq!(
        state(&["a.example.com", "203.0.113.9"]).0,
        is("True", "Given")
    );
}

#[test]
fn without_the_right_to_read_nodes_only_a_load_balancer_needs_no_help() {
    let mut fetched = with_pod(fetched(1), true);
    fetched.nodes = Nodes::Unreadable;
    for exposure in ["NodePort", "HostPort", "HostNetwork"] {
        with_spec(&mut fetched, json!({"media": {"exposure": exposure}}));
        let status = applied(&fetched);
        let missing = is("False", "NodeAddressMissing");
        assert_eq!(word(&status, "AddressesReady"), missing, "{exposure}");
        assert!(message(&status, "AddressesReady").contains("set spec.media.externalAddresses"));
    }
    with_spec(&mut fetched, json!({"media": {"exposure": "LoadBalancer"}}));
    let status = applied(&fetched);
    assert_eq!(word(&status, "AddressesReady").1, "LoadBalancerPending");
}

#[test]
fn an_api_that_the_spec_asks_for_and_the_cluster_has_not_degrades_it() {
    let mut fetched = with_pod(fetched(1), true);
    fetched.served = crate::capabilities::Served::all(Availability::Absent);
    let route = json!({"parentRefs": [{"name": "gw"}], "hostnames": ["r.example.com"]});
    with_spec(
        &mut fetched,
        json!({"media": {"exposure": "HostPort"}, "signalling": {"httpRoute": route}}),
    );
    let status = applied(&fetched);
    assert_eq!(word(&status, "Degraded"), is("True", "CRDAbsent"));
    assert!(message(&status, "Degraded").contains("gateway.networking.k8s.io/v1"));
    assert_eq!(word(&status, "Ready"), is("False", "SignallingNotReady"));
    assert_eq!(status.addresses.signalling, "https://r.example.com");
    fetched
        .served
        .set(OptionalApi::Gateway, Availability::Present);
    let status = applied(&fetched);
    assert_eq!(word(&status, "Degraded"), is("False", "AsExpected"));
    let ingress = json!({"host": "m.example.com", "tlsSecretName": "tls"});
    with_spec(
        &mut fetched,
        json!({"media": {"exposure": "HostPort"}, "signalling":
            {"ingress": ingress, "certificateIssuerRef": {"name": "le"}}}),
    );
    let status = applied(&fetched);
    assert_eq!(word(&status, "Degraded"), is("True", "CRDAbsent"));
    assert!(message(&status, "Degraded").contains("cert-manager.io/v1"));
    assert_eq!(word(&status, "Ready"), is("True", "Accepting"));
}

#[test]
fn a_route_is_one_once_a_gateway_has_accepted_it() {
    let mut fetched = with_pod(fetched(1), true);
    let route = json!({"parentRefs": [{"name": "gw"}], "hostnames": ["r.example.com"]});
    with_spec(
        &mut fetched,
        json!({"media": {"exposure": "HostPort"}, "signalling": {"httpRoute": route}}),
    );
    let mut ready = |accepted: &[(&str, &str)]| {
        let parents: Vec<serde_json::Value> = accepted
            .iter()
            .map(|(status, message)| {
                let condition = json!({"type": "Accepted", "status": status, "message": message});
                json!({"conditions": [{"type": "ResolvedRefs", "status": "True"}, condition]})
            })
            .collect();
        let object = json!({"metadata": {"name": "cam"}, "status": {"parents": parents}});
        let objects = vec![serde_json::from_value(object).unwrap()];
        fetched.live.optional.insert("HTTPRoute".into(), objects);
        let status = applied(&fetched);
        (word(&status, "Ready"), message(&status, "Ready"))
    };
    let waiting = is("False", "SignallingNotReady");
    assert_eq!(ready(&[]).0, waiting);
    let refused = ready(&[("False", "no listener has this host name")]);
    assert_eq!(refused.0, waiting);
    assert!(refused.1.ends_with(": no listener has this host name"));
    let accepted = [("False", "not here"), ("True", "")];
    assert_eq!(ready(&accepted).0, is("True", "Accepting"));
}

#[test]
fn a_paused_service_says_so_and_what_runs_stays_ready() {
    let mut fetched = with_pod(fetched(1), true);
    with_spec(
        &mut fetched,
        json!({"media": {"exposure": "HostPort"}, "paused": true}),
    );
    let valid = validate::validate(&fetched).unwrap();
    let outcome = Outcome::Paused { service: &valid };
    let status = describe(&fetched, &outcome, Timestamp::UNIX_EPOCH);
    assert_eq!(word(&status, "Paused"), is("True", "Paused"));
    assert_eq!(word(&status, "Progressing"), is("False", "Paused"));
    assert_eq!(word(&status, "Ready"), is("True", "Accepting"));
}

#[test]
fn a_paused_service_of_which_a_pod_is_left_is_not_stopped_and_does_not_scale_down() {
    let paused = json!({"media": {"exposure": "HostPort"}, "paused": true, "replicas": 0});
    let of = |mut fetched: Fetched| {
        with_spec(&mut fetched, paused.clone());
        let valid = validate::validate(&fetched).unwrap();
        let outcome = Outcome::Paused { service: &valid };
        describe(&fetched, &outcome, Timestamp::UNIX_EPOCH)
    };
    let left = of(with_pod(fetched(0), true));
    assert_eq!(word(&left, "Ready"), is("True", "Accepting"));
    assert_eq!(left.rollout.phase, RolloutPhase::Idle);
    let gone = of(fetched(0));
    assert_eq!(word(&gone, "Ready"), is("False", "Stopped"));
    // Paused in the middle of its drain.
    let mut drains = with_pod(fetched(0), false);
    let annotations = drains.pods[0].annotations_mut();
    annotations.insert(meta::DRAIN.into(), "true".into());
    let drains = of(drains);
    assert_eq!(word(&drains, "Ready"), is("False", "NoPods"));
    assert!(
        message(&drains, "Paused").contains("pod cam-0 was told before to take no new sessions")
    );
    assert!(!message(&left, "Paused").contains("cam-0"));
}

#[test]
fn an_ingress_that_was_refused_is_missing_from_ready_and_one_that_is_there_is_not() {
    let mut fetched = with_pod(fetched(1), true);
    let refused = |fetched: &Fetched| {
        let valid = validate::validate(fetched).unwrap();
        let outcome = Outcome::Refused {
            service: &valid,
            replaced: &replace::Rollout::default(),
            scaling: &ScaleDown::default(),
            trouble: Trouble {
                reason: "ApplyRejected",
                message: "no such class".into(),
            },
        };
        describe(fetched, &outcome, Timestamp::UNIX_EPOCH)
    };
    let status = refused(&fetched);
    assert_eq!(word(&status, "Ready"), is("False", "SignallingNotReady"));
    fetched.live.ingresses = vec![Default::default()];
    let status = refused(&fetched);
    assert_eq!(word(&status, "Ready"), is("True", "Accepting"));
}

#[test]
fn an_absent_monitoring_api_shows_and_does_not_touch_ready() {
    let mut fetched = with_pod(fetched(1), true);
    fetched.served = crate::capabilities::Served::all(Availability::Absent);
    let status = applied(&fetched);
    assert_eq!(word(&status, "MonitoringReady"), is("False", "CRDAbsent"));
    assert_eq!(word(&status, "Ready"), is("True", "Accepting"));
}

#[test]
fn objects_for_prometheus_that_nobody_takes_show_where_their_status_says_so() {
    let mut fetched = with_pod(fetched(1), true);
    let mut state = |kind: &str, of_object: serde_json::Value| {
        fetched.live.optional.clear();
        let object = json!({"metadata": {"name": "cam"}, "status": of_object});
        let objects = vec![serde_json::from_value(object).unwrap()];
        fetched.live.optional.insert(kind.into(), objects);
        let status = applied(&fetched);
        assert_eq!(word(&status, "Ready"), is("True", "Accepting"));
        assert_eq!(word(&status, "Degraded"), is("False", "AsExpected"));
        let message = message(&status, "MonitoringReady");
        (word(&status, "MonitoringReady"), message)
    };
    let binding = |name: &str, accepted: &str| {
        let condition = json!({"type": "Accepted", "status": accepted, "message": "bad label"});
        json!({"resource": "prometheuses", "namespace": "ops", "name": name, "conditions": [condition]})
    };
    let created = is("True", "Created");
    for nothing_said in [json!(null), json!({})] {
        assert_eq!(state("ServiceMonitor", nothing_said).0, created);
    }
    let taken = json!({"bindings": [binding("a", "False"), binding("b", "True")]});
    assert_eq!(state("ServiceMonitor", taken).0, created);
    for kind in ["ServiceMonitor", "PrometheusRule"] {
        let (words, message) = state(kind, json!({"bindings": [binding("a", "False")]}));
        assert_eq!(words, is("False", "NotSelected"));
        let refused = format!("{kind} cam is refused by prometheuses ops/a: bad label");
        assert_eq!(message, refused);
        let (words, message) = state(kind, json!({"bindings": []}));
        assert_eq!(words, is("False", "NotSelected"));
        assert!(message.contains("`operator check`"), "{message}");
    }
}

#[test]
fn rules_without_a_scrape_say_what_they_need() {
    let mut fetched = with_pod(fetched(1), true);
    let said = |fetched: &Fetched| {
        let status = applied(fetched);
        assert_eq!(word(&status, "MonitoringReady"), is("True", "Created"));
        message(&status, "MonitoringReady")
    };
    assert!(!said(&fetched).contains("scrape of yours"));
    let monitoring = &mut Arc::make_mut(&mut fetched.service).spec.monitoring;
    monitoring.service_monitor.enabled = false;
    let message = said(&fetched);
    assert!(
        message.contains("the labels namespace, mediaservice and pod"),
        "{message}"
    );
    let monitoring = &mut Arc::make_mut(&mut fetched.service).spec.monitoring;
    monitoring.service_monitor.enabled = true;
    monitoring.prometheus_rule.enabled = false;
    assert!(!said(&fetched).contains("scrape of yours"));
}

#[test]
fn the_time_of_a_condition_changes_only_with_its_status() {
    let mut fetched = with_pod(fetched(1), true);
    let first = applied(&fetched);
    let mut service = (*fetched.service).clone();
    service.status = Some(first.clone());
    fetched.service = service.into();
    let valid = validate::validate(&fetched).unwrap();
    let later = Timestamp::UNIX_EPOCH + k8s_openapi::jiff::SignedDuration::from_secs(60);
    let outcome = Outcome::Applied {
        service: &valid,
        replaced: &replace::Rollout::default(),
        scaling: &ScaleDown::default(),
    };
    assert_eq!(describe(&fetched, &outcome, later), first);
}

#[test]
fn two_wordings_of_one_failed_pull_are_one_status() {
    let with_wording = |mut fetched: Fetched, reason: &str, message: &str| {
        fetched.pods[0].status = Some(
            serde_json::from_value(json!({"containerStatuses": [{
                "name": "m", "image": "no:1", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": reason, "message": message}},
            }]}))
            .unwrap(),
        );
        fetched
    };
    let mut fetched = with_wording(with_pod(fetched(1), false), "ErrImagePull", "not found");
    let first = applied(&fetched);
    assert_eq!(word(&first, "Degraded"), is("True", "ImagePullFailed"));
    let mut service = (*fetched.service).clone();
    service.status = Some(first.clone());
    fetched.service = service.into();
    let second = applied(&with_wording(
        fetched,
        "ImagePullBackOff",
        "Back-off pulling image",
    ));
    assert_eq!(
        first.conditions.iter().find(|c| c.type_ == "Degraded"),
        second.conditions.iter().find(|c| c.type_ == "Degraded")
    );
}
