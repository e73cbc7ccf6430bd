//! The operator's chart, rendered: what each set of values makes, and what it must never make.
//!
//! Needs `helm` on PATH and no cluster. `live.rs` beside it is the same chart against a real API
//! server. Run by the stage `chart` of `cargo xtask test`.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_yaml::Value;

/// The operator's own table of the rights that it uses.
#[allow(dead_code, reason = "the reasons in it are for `operator check`")]
#[path = "../../operator/src/rbac.rs"]
mod rbac;

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/mediaservice-operator")
}

fn helm(args: &[&str]) -> Output {
    Command::new("helm")
        .args(args)
        .output()
        .expect("helm is on PATH")
}

fn render_output(settings: &[&str]) -> Output {
    let chart = chart();
    // The namespace and the release differ from every name in the chart, so that swapped ones show.
    let mut args = vec![
        "template",
        "rel",
        chart.to_str().expect("UTF-8"),
        "--namespace",
        "ops",
        "--kube-version",
        "1.33.0",
    ];
    for setting in settings {
        args.extend(["--set", setting]);
    }
    helm(&args)
}

fn render(settings: &[&str]) -> Vec<Value> {
    let output = render_output(settings);
    assert!(
        output.status.success(),
        "{settings:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.split("\n---\n")
        .map(|document| serde_yaml::from_str(document).expect("YAML"))
        .filter(|document: &Value| !document.is_null())
        .collect()
}

fn kind(object: &Value) -> &str {
    object["kind"].as_str().expect("an object has a kind")
}

fn of_kind<'a>(objects: &'a [Value], wanted: &str) -> Vec<&'a Value> {
    objects
        .iter()
        .filter(|object| kind(object) == wanted)
        .collect()
}

fn one<'a>(objects: &'a [Value], wanted: &str) -> &'a Value {
    let found = of_kind(objects, wanted);
    assert_eq!(found.len(), 1, "one {wanted}");
    found[0]
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_sequence()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn rules(objects: &[Value]) -> Vec<&Value> {
    objects
        .iter()
        .filter(|object| matches!(kind(object), "Role" | "ClusterRole"))
        .flat_map(|role| role["rules"].as_sequence().expect("a role has rules"))
        .collect()
}

#[test]
fn lint_finds_nothing_to_complain_about() {
    let chart = chart();
    let output = helm(&[
        "lint",
        "--strict",
        "--kube-version",
        "1.33.0",
        chart.to_str().expect("UTF-8"),
    ]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn rights_are_the_least_in_both_scopes() {
    for settings in [&[][..], &["watchNamespaces={media,lab}"]] {
        for rule in rules(&render(settings)) {
            let (resources, verbs) = (strings(&rule["resources"]), strings(&rule["verbs"]));
            for word in resources.iter().chain(&verbs) {
                assert!(!word.contains('*'), "{settings:?}: a wildcard in {rule:?}");
            }
            for forbidden in ["escalate", "bind", "impersonate", "deletecollection"] {
                assert!(
                    !verbs.contains(&forbidden),
                    "{settings:?}: {forbidden} in {rule:?}"
                );
            }
            for forbidden in [
                "pods/exec",
                "nodes/proxy",
                "pods/log",
                "serviceaccounts/token",
            ] {
                assert!(
                    !resources.contains(&forbidden),
                    "{settings:?}: {forbidden} in {rule:?}"
                );
            }
            if resources.contains(&"secrets") {
                assert_eq!(
                    verbs,
                    ["create"],
                    "{settings:?}: Secrets are made, never read"
                );
            }
        }
    }
}

/// Every (group, resource, verb) that the roles in `namespace`, or cluster-wide for None, grant.
fn granted(objects: &[Value], namespace: Option<&str>) -> BTreeSet<(String, String, String)> {
    let mut granted = BTreeSet::new();
    for role in objects
        .iter()
        .filter(|object| matches!(kind(object), "Role" | "ClusterRole"))
    {
        if role["metadata"]["namespace"].as_str() != namespace {
            continue;
        }
        for rule in role["rules"].as_sequence().expect("a role has rules") {
            for group in strings(&rule["apiGroups"]) {
                for resource in strings(&rule["resources"]) {
                    for verb in strings(&rule["verbs"]) {
                        granted.insert((group.to_owned(), resource.to_owned(), verb.to_owned()));
                    }
                }
            }
        }
    }
    granted
}

fn used(scopes: &[rbac::Scope]) -> BTreeSet<(String, String, String)> {
    let rules = rbac::RULES
        .iter()
        .filter(|rule| scopes.contains(&rule.scope));
    rules
        .flat_map(|rule| {
            rule.verbs.iter().map(|verb| {
                (
                    rule.group.to_owned(),
                    rule.resource.to_owned(),
                    (*verb).to_owned(),
                )
            })
        })
        .collect()
}

#[test]
fn the_roles_grant_exactly_what_the_operator_uses() {
    use rbac::Scope::{Cluster, Own, Watched};
    let all = render(&[]);
    assert_eq!(granted(&all, None), used(&[Watched, Cluster]));
    assert_eq!(granted(&all, Some("ops")), used(&[Own]));
    let named = render(&["watchNamespaces={media,lab}"]);
    assert_eq!(granted(&named, Some("media")), used(&[Watched]));
    assert_eq!(granted(&named, Some("lab")), used(&[Watched]));
    assert_eq!(granted(&named, Some("ops")), used(&[Own]));
    assert_eq!(granted(&named, None), BTreeSet::new());
}

#[test]
fn named_namespaces_get_a_role_each_and_nothing_is_cluster_wide() {
    let objects = render(&["watchNamespaces={media,lab}", "crds.enabled=false"]);
    assert!(of_kind(&objects, "ClusterRole").is_empty());
    assert!(of_kind(&objects, "ClusterRoleBinding").is_empty());
    let mut namespaces: Vec<&str> = of_kind(&objects, "Role")
        .iter()
        .map(|role| role["metadata"]["namespace"].as_str().expect("a namespace"))
        .collect();
    namespaces.sort_unstable();
    assert_eq!(namespaces, ["lab", "media", "ops"]);
    assert!(
        objects
            .iter()
            .all(|object| object["metadata"]["namespace"].is_string()),
        "every object has a namespace"
    );
    assert!(
        !rules(&objects)
            .iter()
            .any(|rule| strings(&rule["resources"]).contains(&"nodes"))
    );
    for binding in of_kind(&objects, "RoleBinding") {
        assert_eq!(
            binding["subjects"][0]["namespace"], "ops",
            "the operator stays in its own namespace"
        );
    }
    let deployment = one(&objects, "Deployment");
    let args = strings(&deployment["spec"]["template"]["spec"]["containers"][0]["args"]);
    assert!(args.contains(&"--watch-namespaces=media,lab"), "{args:?}");
}

#[test]
fn all_namespaces_are_watched_by_default() {
    let objects = render(&[]);
    assert_eq!(
        one(&objects, "ClusterRoleBinding")["subjects"][0]["namespace"],
        "ops"
    );
    let deployment = one(&objects, "Deployment");
    let args = strings(&deployment["spec"]["template"]["spec"]["containers"][0]["args"]);
    assert!(
        !args.iter().any(|arg| arg.starts_with("--watch-namespaces")),
        "{args:?}"
    );
}

#[test]
fn the_definition_is_kept_on_uninstall_and_can_be_left_out() {
    let objects = render(&[]);
    let definition = one(&objects, "CustomResourceDefinition");
    assert_eq!(
        definition["metadata"]["name"],
        "mediaservices.mediaservice.io"
    );
    assert_eq!(
        definition["metadata"]["annotations"]["helm.sh/resource-policy"],
        "keep"
    );
    assert!(of_kind(&render(&["crds.enabled=false"]), "CustomResourceDefinition").is_empty());
}

#[test]
fn the_definition_in_the_chart_is_the_one_in_crds() {
    let mut from_chart = one(&render(&[]), "CustomResourceDefinition").clone();
    let metadata = from_chart["metadata"]
        .as_mapping_mut()
        .expect("metadata is a map");
    metadata.remove("annotations");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/mediaservices.yaml");
    let text = std::fs::read_to_string(path).expect("crds/mediaservices.yaml is there");
    let mut alone: Value = serde_yaml::from_str(&text).expect("YAML");
    alone["metadata"]
        .as_mapping_mut()
        .expect("metadata is a map")
        .remove("annotations");
    assert_eq!(from_chart, alone);
}

#[test]
fn the_pod_meets_the_restricted_profile() {
    let objects = render(&[]);
    let pod = &one(&objects, "Deployment")["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["runAsUser"], 65532);
    assert_eq!(
        pod["securityContext"]["seccompProfile"]["type"],
        "RuntimeDefault"
    );
    let container = &pod["containers"][0]["securityContext"];
    assert_eq!(container["allowPrivilegeEscalation"], false);
    assert_eq!(container["readOnlyRootFilesystem"], true);
    assert_eq!(strings(&container["capabilities"]["drop"]), ["ALL"]);
    for word in ["hostNetwork", "hostPID", "hostIPC", "volumes"] {
        assert!(pod[word].is_null(), "{word}");
    }
}

#[test]
fn live_and_ready_are_two_questions() {
    let objects = render(&[]);
    let container = &one(&objects, "Deployment")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/livez");
    assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz");
}

#[test]
fn service_and_monitor_select_what_the_pods_carry() {
    let objects = render(&[
        "metrics.serviceMonitor.enabled=true",
        "podLabels.team=video",
    ]);
    let pod_labels = &one(&objects, "Deployment")["spec"]["template"]["metadata"]["labels"];
    assert_eq!(pod_labels["team"], "video");
    let service = one(&objects, "Service");
    for (label, value) in service["spec"]["selector"]
        .as_mapping()
        .expect("a selector")
    {
        assert_eq!(&pod_labels[label], value);
    }
    let monitor = one(&objects, "ServiceMonitor");
    for (label, value) in monitor["spec"]["selector"]["matchLabels"]
        .as_mapping()
        .expect("a selector")
    {
        assert_eq!(&service["metadata"]["labels"][label], value);
    }
    assert_eq!(
        monitor["metadata"]["labels"]["release"],
        "kube-prometheus-stack"
    );
    assert_eq!(
        monitor["spec"]["endpoints"][0]["port"],
        service["spec"]["ports"][0]["name"]
    );
    assert!(
        of_kind(&render(&[]), "ServiceMonitor").is_empty(),
        "asked for, never by default"
    );
}

#[test]
fn the_operators_own_alerts_come_on_request_and_select_its_service() {
    let objects = render(&["metrics.prometheusRule.enabled=true"]);
    let rule = one(&objects, "PrometheusRule");
    let rules = rule["spec"]["groups"][0]["rules"]
        .as_sequence()
        .expect("rules");
    assert!(!rules.is_empty());
    for rule in rules {
        let expr = rule["expr"].as_str().expect("an expression");
        assert!(
            expr.contains("{namespace=\"ops\",job=\"mediaservice-operator\"}"),
            "{expr}"
        );
        let description = rule["annotations"]["description"].as_str().expect("words");
        assert!(
            description.contains("{{ $labels.namespace }}"),
            "{description}"
        );
    }
    assert!(of_kind(&render(&[]), "PrometheusRule").is_empty());
}

#[test]
fn rights_and_account_can_be_brought_along() {
    let objects = render(&[
        "rbac.create=false",
        "serviceAccount.create=false",
        "serviceAccount.name=mine",
    ]);
    for absent in [
        "Role",
        "ClusterRole",
        "RoleBinding",
        "ClusterRoleBinding",
        "ServiceAccount",
    ] {
        assert!(of_kind(&objects, absent).is_empty(), "{absent}");
    }
    assert_eq!(
        one(&objects, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"],
        "mine"
    );
}

#[test]
fn images_follow_the_values_and_else_the_chart() {
    let container = |objects: &[Value]| {
        one(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0].clone()
    };
    let version = {
        let text =
            std::fs::read_to_string(chart().join("Chart.yaml")).expect("Chart.yaml is there");
        let chart: Value = serde_yaml::from_str(&text).expect("YAML");
        chart["appVersion"].as_str().expect("a version").to_owned()
    };
    assert_eq!(
        version,
        env!("CARGO_PKG_VERSION"),
        "chart and workspace have one version"
    );
    assert_eq!(
        container(&render(&[]))["image"],
        format!("mediaservice-operator:{version}").as_str()
    );
    let set = render(&[
        "image.repository=r.example/op",
        "image.tag=v2",
        "mediaServer.image.repository=r.example/ms",
        "mediaServer.image.tag=v3",
    ]);
    assert_eq!(container(&set)["image"], "r.example/op:v2");
    assert!(strings(&container(&set)["args"]).contains(&"--media-image=r.example/ms:v3"));
}

#[test]
fn wrong_values_are_refused_by_name() {
    for (setting, word) in [
        ("replicas=-1", "replicas"),
        ("replica=2", "replica"),
        ("watchNamespaces={Media}", "watchNamespaces"),
        ("crds.enabled=maybe", "enabled"),
    ] {
        let output = render_output(&[setting]);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && message.contains(word),
            "{setting}: {message}"
        );
    }
}
