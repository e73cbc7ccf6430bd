//! The operator's chart, rendered: what each set of values makes, and what it must never make.
//!
//! Needs `helm`, kubeconform and promtool on PATH and no cluster. `live.rs` beside it is the same chart
//! against a real API server. Run by the stage `chart` of `cargo xtask test`.
#![forbid(unsafe_code)]

mod alerts;
mod rights;
mod schemas;
mod variants;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_yaml::Value;
use tests::process::program;

use variants::VARIANTS;

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

fn render_text(settings: &[&str]) -> String {
    let output = render_output(settings);
    assert!(
        output.status.success(),
        "{settings:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn render(settings: &[&str]) -> Vec<Value> {
    let text = render_text(settings);
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

#[test]
fn lint_finds_nothing_to_complain_about() {
    let chart = chart();
    for (what, settings) in VARIANTS {
        let mut args = vec!["lint", "--strict", "--kube-version", "1.33.0"];
        for setting in *settings {
            args.extend(["--set", setting]);
        }
        args.push(chart.to_str().expect("UTF-8"));
        let output = helm(&args);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{what}: {said}");
        for word in ["[WARNING]", "[ERROR]"] {
            assert!(!said.contains(word), "{what}: {said}");
        }
    }
}

#[test]
fn every_object_of_the_chart_conforms_to_the_schema_of_its_kind() {
    for (what, settings) in VARIANTS {
        schemas::conform(what, &render_text(settings));
    }
}

#[test]
fn every_child_of_the_examples_and_they_themselves_conform_to_the_schema_of_their_kind() {
    let folder = tests::operator::root().join("crds/examples");
    for entry in std::fs::read_dir(folder).expect("the examples are there") {
        let path = entry.expect("a readable folder").path();
        let what = path.display().to_string();
        schemas::conform(&what, &std::fs::read_to_string(&path).expect("can be read"));
        let output = Command::new(program("OPERATOR", "operator"))
            .arg("render")
            .arg("--file")
            .arg(&path)
            .output()
            .expect("the operator can be started");
        assert!(
            output.status.success(),
            "{what}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let manifests = String::from_utf8(output.stdout).expect("UTF-8");
        schemas::conform(&what, manifests.trim_start_matches("---\n"));
    }
}

/// Dotted names of what a schema knows, down to where keys are the user's own.
fn known(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    let Some(properties) = schema["properties"].as_mapping() else {
        found.insert(path.to_owned());
        return;
    };
    assert_eq!(
        schema["additionalProperties"], false,
        "{path} takes any name"
    );
    for (name, inner) in properties {
        let name = name.as_str().expect("a name");
        known(inner, &format!("{path}.{name}"), found);
    }
}

#[test]
fn values_and_their_schema_know_the_same_names() {
    let read = |name: &str| -> Value {
        let text = std::fs::read_to_string(chart().join(name)).expect("it is there");
        serde_yaml::from_str(&text).expect("YAML")
    };
    let values = read("values.yaml");
    let mut names = BTreeSet::new();
    known(&read("values.schema.json"), "", &mut names);
    // Helm hands it to every chart.
    assert!(names.remove(".global"));
    for name in &names {
        let parts = name.split('.').skip(1);
        let value = parts.fold(&values, |value, part| &value[part]);
        assert!(!value.is_null(), "values.yaml has no {name}");
    }
    fn leaves(value: &Value, path: &str, names: &BTreeSet<String>) {
        if names.contains(path) {
            return;
        }
        let map = value
            .as_mapping()
            .unwrap_or_else(|| panic!("the schema has no {path}"));
        for (name, inner) in map {
            leaves(
                inner,
                &format!("{path}.{}", name.as_str().expect("a name")),
                names,
            );
        }
    }
    leaves(&values, "", &names);
}

#[test]
fn only_the_port_of_metrics_and_probes_takes_traffic_from_whom_the_values_name() {
    let objects = render(&["networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.team=ops"]);
    let policy = &one(&objects, "NetworkPolicy")["spec"];
    let pods = &one(&objects, "Deployment")["spec"]["template"];
    for (label, value) in policy["podSelector"]["matchLabels"]
        .as_mapping()
        .expect("labels")
    {
        assert_eq!(&pods["metadata"]["labels"][label], value);
    }
    let rules = policy["ingress"].as_sequence().expect("rules");
    assert_eq!(rules.len(), 1);
    let ports = pods["spec"]["containers"][0]["ports"]
        .as_sequence()
        .expect("ports");
    assert_eq!(ports.len(), 1, "a port that no policy knows");
    assert_eq!(rules[0]["ports"][0]["port"], ports[0]["name"]);
    assert_eq!(
        rules[0]["from"][0]["namespaceSelector"]["matchLabels"]["team"],
        "ops"
    );
    assert_eq!(strings(&policy["policyTypes"]), ["Ingress"]);
    let open = render(&[]);
    assert!(one(&open, "NetworkPolicy")["spec"]["ingress"][0]["from"].is_null());
    assert!(of_kind(&render(&["networkPolicy.enabled=false"]), "NetworkPolicy").is_empty());
}

#[test]
fn several_replicas_have_a_budget_and_spread_and_a_single_one_blocks_no_drain() {
    let objects = render(&["replicas=3"]);
    let budget = &one(&objects, "PodDisruptionBudget")["spec"];
    assert_eq!(budget["maxUnavailable"], 1);
    assert_eq!(budget["unhealthyPodEvictionPolicy"], "AlwaysAllow");
    let deployment = one(&objects, "Deployment");
    assert_eq!(budget["selector"], deployment["spec"]["selector"]);
    let spread = &deployment["spec"]["template"]["spec"]["topologySpreadConstraints"][0];
    assert_eq!(spread["whenUnsatisfiable"], "ScheduleAnyway");
    assert_eq!(spread["labelSelector"], deployment["spec"]["selector"]);
    for settings in [
        &[][..],
        &["replicas=3", "podDisruptionBudget.enabled=false"],
    ] {
        assert!(
            of_kind(&render(settings), "PodDisruptionBudget").is_empty(),
            "{settings:?}"
        );
    }
}

#[test]
fn the_alerts_link_below_the_base_that_the_values_name() {
    let link = |settings: &[&str]| {
        let objects = render(settings);
        let rule = &one(&objects, "PrometheusRule")["spec"]["groups"][0]["rules"][0];
        let text = rule["annotations"]["runbook_url"].as_str().expect("a link");
        text.to_owned()
    };
    let on = "metrics.prometheusRule.enabled=true";
    let base = "metrics.prometheusRule.runbookBaseURL=https://example.com/media/";
    let page = "docs/runbooks/MediaOperatorNoLeader.md";
    assert_eq!(link(&[on]), page);
    assert_eq!(
        link(&[on, base]),
        format!("https://example.com/media/{page}")
    );
}

#[test]
fn the_dashboard_of_the_operator_comes_on_request_as_the_catalogue_has_it() {
    let objects = render(&["metrics.dashboard.enabled=true"]);
    let map = one(&objects, "ConfigMap");
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
    let text = map["data"]["mediaservice-operator.json"]
        .as_str()
        .expect("a file");
    let model: serde_json::Value = serde_json::from_str(text).expect("JSON");
    assert_eq!(model, catalogue::dashboard::of_operator().json);
    assert!(of_kind(&render(&[]), "ConfigMap").is_empty());
}

#[test]
fn helm_test_checks_with_the_operators_account_and_its_pod_takes_no_scrape() {
    let objects = render(&["watchNamespaces={media,lab}"]);
    let pod = one(&objects, "Pod");
    assert_eq!(pod["metadata"]["annotations"]["helm.sh/hook"], "test");
    let deployment = one(&objects, "Deployment");
    let of_operator = &deployment["spec"]["template"]["spec"];
    for field in ["serviceAccountName", "securityContext"] {
        assert_eq!(pod["spec"][field], of_operator[field], "{field}");
    }
    let (container, operator) = (&pod["spec"]["containers"][0], &of_operator["containers"][0]);
    for field in ["image", "securityContext"] {
        assert_eq!(container[field], operator[field], "{field}");
    }
    assert_eq!(
        strings(&container["args"]),
        [
            "check",
            "--leader",
            "--namespace=ops",
            "--watch-namespaces=media,lab"
        ]
    );
    for object in [
        one(&objects, "Service"),
        deployment,
        one(&objects, "NetworkPolicy"),
    ] {
        let spec = &object["spec"];
        let selector = [
            &spec["selector"]["matchLabels"],
            &spec["podSelector"]["matchLabels"],
            &spec["selector"],
        ]
        .into_iter()
        .find(|selector| selector.is_mapping())
        .expect("it selects");
        let labels = &pod["metadata"]["labels"];
        let all = selector.as_mapping().expect("labels");
        assert!(
            all.iter().any(|(label, value)| &labels[label] != value),
            "{}",
            kind(object)
        );
    }
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
    }
    assert!(of_kind(&render(&[]), "PrometheusRule").is_empty());
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
