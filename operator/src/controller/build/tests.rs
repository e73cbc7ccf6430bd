//! Golden files: whole objects, from manifests whose name, instance and namespace all differ.
//! `UPDATE_GOLDEN=1 cargo test -p operator` writes them; read the difference before committing it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{Built, Children};
use crate::capabilities::{Availability, OptionalApi, Served};
use crate::controller::fetch::Nodes;
use crate::controller::{build_offline, offline};
use crate::crd::MediaService;

/// The children on a cluster of two nodes.
fn children(manifest: &str) -> Children<Built> {
    let service: MediaService = serde_yaml::from_str(manifest).unwrap();
    let mut fetched = offline(service, "registry.example.com/media-server:golden".into());
    fetched.operator_namespace = "epsilon".into();
    fetched.nodes = Nodes::Known(BTreeMap::from([
        ("node-a".into(), vec!["203.0.113.1".into()]),
        ("node-b".into(), vec!["2001:db8::2".into()]),
    ]));
    build_offline(&fetched).unwrap().1
}

fn render(manifest: &str) -> String {
    let mut children = children(manifest);
    // The content of rules and dashboards is the catalogue's, and tested there.
    if let Some(rule) = &mut children.prometheus_rule {
        rule.data["spec"]["groups"] = serde_json::json!("from the catalogue");
    }
    for dashboard in &mut children.dashboards {
        for content in dashboard.data.iter_mut().flat_map(BTreeMap::values_mut) {
            *content = "from the catalogue".into();
        }
    }
    let documents = children.documents();
    let documents = documents.iter().map(serde_yaml::to_string);
    documents
        .map(|document| format!("---\n{}", document.unwrap()))
        .collect()
}

fn compare(name: &str, found: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden/operator")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, found).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "{name} differs; UPDATE_GOLDEN=1 writes it anew. Found:\n{found}"
    );
}

const MINIMAL: &str = "apiVersion: mediaservice.io/v1alpha1\nkind: MediaService\nmetadata: {name: alpha, namespace: beta, uid: gamma}\nspec: {media: {exposure: HostPort}}\n";

/// The example with every field, in a namespace that has another name.
fn full_manifest() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../crds/examples/full.yaml");
    std::fs::read_to_string(path).unwrap().replace(
        "  name: studio\n",
        "  name: studio\n  namespace: film\n  uid: delta\n",
    )
}

#[test]
fn a_minimal_service_gets_these_children() {
    compare("minimal.yaml", &render(MINIMAL));
}

/// The documents of these kinds.
fn of_kinds(rendered: &str, kinds: &[&str]) -> String {
    rendered
        .split("---\n")
        .filter(|document| {
            kinds
                .iter()
                .any(|kind| document.contains(&format!("\nkind: {kind}\n")))
        })
        .map(|document| format!("---\n{document}"))
        .collect()
}

/// What an exposure makes different from another.
const OF_EXPOSURE: &[&str] = &["ConfigMap", "Service", "NetworkPolicy", "StatefulSet"];

#[test]
fn a_service_behind_node_ports_and_a_route_gets_these_children() {
    let manifest = MINIMAL.replace(
        "{exposure: HostPort}",
        "{exposure: NodePort}, signalling: {httpRoute: {hostnames: [media.example.com], \
         parentRefs: [{name: gateway, namespace: infra, sectionName: https}, {name: other}]}}, \
         monitoring: {dashboards: {enabled: false}}, \
         networkPolicy: {monitoringFrom: [{matchLabels: {team: metrics}}], signallingFrom: [{matchLabels: {team: net}}]}",
    );
    let kinds = [OF_EXPOSURE, &["HTTPRoute"]].concat();
    compare("node-port.yaml", &of_kinds(&render(&manifest), &kinds));
}

#[test]
fn a_service_in_the_network_of_its_node_gets_these_children() {
    let manifest = MINIMAL.replace(
        "{exposure: HostPort}",
        "{exposure: HostNetwork, port: 9000}, monitoring: {dashboards: {enabled: false}}",
    );
    compare(
        "host-network.yaml",
        &of_kinds(&render(&manifest), OF_EXPOSURE),
    );
}

#[test]
fn a_service_that_says_nothing_is_behind_load_balancers() {
    let manifest = MINIMAL.replace("spec: {media: {exposure: HostPort}}", "spec: {}");
    let children = children(&manifest);
    let services = children.media_services.iter().map(|service| {
        let spec = service.spec.as_ref().unwrap();
        let port = &spec.ports.as_ref().unwrap()[0];
        (
            service.metadata.name.as_deref().unwrap(),
            spec.type_.as_deref().unwrap(),
            port.protocol.as_deref().unwrap(),
            port.port,
        )
    });
    assert_eq!(
        services.collect::<Vec<_>>(),
        [
            ("alpha-media-udp", "LoadBalancer", "UDP", 8443),
            ("alpha-media-tcp", "LoadBalancer", "TCP", 8443)
        ]
    );
}

/// A pod that drains is not ready: its sessions send media, and DELETE and PATCH to signalling.
#[test]
fn every_service_leads_to_a_pod_that_is_not_ready() {
    for exposure in ["LoadBalancer", "NodePort", "HostPort", "HostNetwork"] {
        let children = children(&MINIMAL.replace("HostPort", exposure));
        let services = [children.pods_service, children.service];
        for service in services.into_iter().chain(children.media_services) {
            let name = service.metadata.name.unwrap();
            let published = service.spec.unwrap().publish_not_ready_addresses;
            assert_eq!(published, Some(true), "{name} with {exposure}");
        }
    }
}

/// The Pod Security level `restricted`, whose rules on volumes, users and capabilities hold for every
/// exposure, forbids ports and the network of the host.
#[test]
fn pods_behind_a_service_have_nothing_of_the_host() {
    for exposure in ["LoadBalancer", "NodePort", "HostPort", "HostNetwork"] {
        let pod = children(&MINIMAL.replace("HostPort", exposure)).stateful_set;
        let pod = pod.spec.unwrap().template.spec.unwrap();
        let ports = pod.containers[0].ports.as_ref().unwrap();
        let of_host = ports.iter().any(|port| port.host_port.is_some());
        assert_eq!(of_host, exposure == "HostPort", "{exposure}");
        assert_eq!(
            pod.host_network == Some(true),
            exposure == "HostNetwork",
            "{exposure}"
        );
    }
}

#[test]
fn a_service_with_every_field_gets_these_children() {
    compare("full.yaml", &render(&full_manifest()));
}

/// What the server reads; its own tests load these two files. Addresses of nodes are given only where
/// the spec has none, and so not with every field.
#[test]
fn the_server_gets_this_configuration_and_these_addresses() {
    let full = children(&full_manifest());
    compare("config.toml", &full.config.data.unwrap()["config.toml"]);
    let addresses = children(MINIMAL).addresses.data.unwrap();
    compare("addresses.json", &addresses["addresses.json"]);
}

#[test]
fn nothing_is_made_of_an_api_that_the_cluster_has_not_and_the_ingress_goes_without_its_certificate()
{
    let manifest = full_manifest();
    assert!(children(&manifest).certificate.is_some());
    let service: MediaService = serde_yaml::from_str(&manifest).unwrap();
    let mut fetched = offline(service, "i".into());
    fetched
        .served
        .set(OptionalApi::CertManager, Availability::Absent);
    let (_, children) = build_offline(&fetched).unwrap();
    assert!(children.certificate.is_none() && children.ingress.is_some());
}

/// The expressions and descriptions of the rules, and the pod's part that decides on a restart.
fn rules_and_pod(monitoring: &str) -> (String, String) {
    let with = format!("{{exposure: HostPort}}, monitoring: {monitoring}");
    let children = children(&MINIMAL.replace("{exposure: HostPort}", &with));
    let rule = children.prometheus_rule.expect("made");
    let set = serde_json::to_string(&children.stateful_set.spec).unwrap();
    (rule.data["spec"]["groups"].to_string(), set)
}

#[test]
fn other_targets_and_labels_reach_the_rules_and_no_pod() {
    let (usual, pod) = rules_and_pod("{}");
    let (changed, same) = rules_and_pod(
        "{sloTargets: {continuity: '99.5'}, prometheusRule: {alertLabels: {team: video}}}",
    );
    assert!(usual.contains("mediaservice:continuity_errors:ratio_rate1h{namespace=\\\"beta\\\",mediaservice=\\\"alpha\\\"} > 14.4 * 0.001"), "{usual}");
    assert!(changed.contains("mediaservice:continuity_errors:ratio_rate1h{namespace=\\\"beta\\\",mediaservice=\\\"alpha\\\"} > 14.4 * 0.005"), "{changed}");
    assert!(
        usual.contains("\"for\":\"660s\""),
        "a drain of 540 s that is not over"
    );
    assert!(changed.contains("\"team\":\"video\"") && !usual.contains("team"));
    assert_eq!(pod, same);
}

/// The rules of a service, in order.
fn rules(manifest: &str) -> Vec<serde_json::Value> {
    let rule = children(manifest).prometheus_rule.expect("made");
    let groups = rule.data["spec"]["groups"].as_array().unwrap();
    let rules = groups
        .iter()
        .map(|group| group["rules"].as_array().unwrap());
    rules.flatten().cloned().collect()
}

#[test]
fn what_a_service_says_of_its_levels_and_alerts_is_in_its_rules() {
    let usual = rules(MINIMAL);
    let full = rules(&full_manifest());
    let objectives: BTreeMap<&str, &str> = full
        .iter()
        .filter(|rule| rule["record"] == catalogue::rules::slo::OBJECTIVE)
        .filter_map(|rule| Some((rule["labels"]["sli"].as_str()?, rule["expr"].as_str()?)))
        .collect();
    let wanted = [
        ("availability", "vector(0.9995)"),
        ("continuity", "vector(0.995)"),
        ("latency", "vector(0.95)"),
        ("setup", "vector(0.99)"),
    ];
    assert_eq!(objectives, BTreeMap::from(wanted));
    let of = |rules: &[serde_json::Value], alert: &str| {
        let found = rules.iter().find(|rule| rule["alert"] == alert);
        found.cloned()
    };
    let disabled = "MediaSessionLimitNear";
    assert!(of(&usual, disabled).is_some() && of(&full, disabled).is_none());
    let down = of(&full, "MediaPodDown").unwrap();
    assert_eq!(
        down["annotations"]["runbook_url"],
        "https://example.com/media/docs/runbooks/MediaPodDown.md"
    );
    let with = |more: &str| rules(&MINIMAL.replace("spec: {", &format!("spec: {{{more}, ")));
    let short = with("rollout: {drainTimeoutSeconds: 60}");
    assert_eq!(of(&short, "MediaDrainOverdue").unwrap()["for"], "180s");
    // What was stopped on purpose wakes nobody.
    let idle = with("replicas: 0");
    let nobody = "MediaNoAcceptingPods";
    assert!(of(&usual, nobody).is_some() && of(&idle, nobody).is_none());
}

#[test]
fn nothing_of_monitoring_is_made_where_it_is_not_wanted_or_not_served() {
    let manifest = "apiVersion: mediaservice.io/v1alpha1\nkind: MediaService\nmetadata: {name: a, namespace: b}\nspec: {media: {exposure: HostPort}}\n";
    let service: MediaService = serde_yaml::from_str(manifest).unwrap();
    let mut fetched = offline(service, "i".into());
    fetched.served = Served::all(Availability::Absent);
    let (_, children) = build_offline(&fetched).unwrap();
    assert!(children.service_monitor.is_none() && children.prometheus_rule.is_none());
    assert_eq!(children.dashboards.len(), 6);
}

#[test]
fn prometheus_takes_as_many_samples_as_the_cap_on_each_family_lets_a_pod_have() {
    let limit = |cap: u32| {
        let manifest = MINIMAL.replace(
            "{exposure: HostPort}",
            &format!("{{exposure: HostPort}}, monitoring: {{maxSeriesPerFamily: {cap}}}, limits: {{sessionsPerPod: 1}}"),
        );
        let monitor = children(&manifest).service_monitor.unwrap();
        monitor.data["spec"]["sampleLimit"].as_u64().unwrap()
    };
    for cap in [1000, 200_000] {
        assert_eq!(limit(cap), catalogue::samples::most_samples(cap));
    }
}
