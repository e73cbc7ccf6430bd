//! Every alert with promtool: silent until it is due, firing with its labels and words then, and over
//! after its cause; and that Prometheus has nothing to say against the rules.
//!
//! The rules are those that the chart and the operator render; `tests/src/alerts` has the cases. promtool
//! is of the Prometheus that the local cluster runs.

use std::process::Command;

use serde_json::Value;
use tests::alerts::{CASES, Case, OPERATOR_CASES, Rules};
use tests::process::{TempDir, program};

use super::{of_kind, one, render};

fn promtool(folder: &TempDir, args: &[&str]) {
    let output = Command::new("promtool")
        .args(args)
        .current_dir(folder.path())
        .output()
        .expect("promtool is on PATH");
    assert!(
        output.status.success(),
        "promtool {}: {}{}",
        args.join(" "),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// `rule` is the PrometheusRule. Two rules with the same name and labels would be one alert to
/// Alertmanager, ended by whichever ends first: that too is an error.
fn hold(rule: &serde_yaml::Value, target: &str, other: &str, cases: &[Case]) {
    let folder = TempDir::new("alerts");
    let spec = serde_json::to_value(&rule["spec"]).expect("as YAML, so JSON");
    let rules = Rules {
        groups: &spec["groups"],
        target,
        other,
    };
    let write = |name: &str, value: &Value| {
        std::fs::write(folder.path().join(name), value.to_string()).expect("can be written");
    };
    write("rules.json", &spec);
    write("cases.json", &rules.document("rules.json", cases));
    let check = ["check", "rules", "--lint=all", "--lint-fatal", "rules.json"];
    promtool(&folder, &check);
    promtool(&folder, &["test", "rules", "cases.json"]);
}

#[test]
fn every_alert_of_a_media_service_fires_when_it_is_due_and_ends_with_its_cause() {
    let folder = TempDir::new("service");
    let manifest = folder.path().join("cam.yaml");
    let text = "apiVersion: mediaservice.io/v1alpha1\nkind: MediaService\nmetadata: {name: cam, namespace: media}\nspec: {}\n";
    std::fs::write(&manifest, text).expect("can be written");
    let output = Command::new(program("OPERATOR", "operator"))
        .arg("render")
        .arg("--file")
        .arg(&manifest)
        .output()
        .expect("the operator can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let children: Vec<serde_yaml::Value> = String::from_utf8(output.stdout)
        .expect("UTF-8")
        .trim_start_matches("---\n")
        .split("\n---\n")
        .map(|document| serde_yaml::from_str(document).expect("YAML"))
        .collect();
    let rules = of_kind(&children, "PrometheusRule");
    assert_eq!(rules.len(), 1);
    hold(
        rules[0],
        r#"namespace="media",mediaservice="cam",job="media-server""#,
        r#"namespace="media",mediaservice="other",job="media-server""#,
        CASES,
    );
}

#[test]
fn every_alert_of_the_operator_fires_when_it_is_due_and_ends_with_its_cause() {
    let objects = render(&["metrics.prometheusRule.enabled=true"]);
    hold(
        one(&objects, "PrometheusRule"),
        r#"namespace="ops",job="mediaservice-operator""#,
        r#"namespace="other",job="mediaservice-operator""#,
        OPERATOR_CASES,
    );
}
