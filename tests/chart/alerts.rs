//! Every alert with promtool: silent until it is due, firing with its labels and words then, and over
//! after its cause; and that Prometheus has nothing to say against the rules.
//!
//! The rules are those that the chart and the operator render; `tests/src/alerts` has the cases. promtool
//! is of the Prometheus that the local cluster runs.

use std::path::Path;
use std::process::Command;

use catalogue::dashboard::{dashboards, of_operator};
use catalogue::rules::Selector;
use catalogue::rules::slo::SLIS;
use serde_json::{Value, json};
use tests::alerts::{BURN_CASES, CASES, Case, OPERATOR_CASES, QUIET, Quiet, Rules};
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
fn hold(rule: &serde_yaml::Value, target: &str, other: &str, cases: &[Case], quiet: &[Quiet]) {
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
    write("cases.json", &rules.document("rules.json", cases, quiet));
    let check = ["check", "rules", "--lint=all", "--lint-fatal", "rules.json"];
    promtool(&folder, &check);
    promtool(&folder, &["test", "rules", "cases.json"]);
}

/// The PrometheusRule of a MediaService in the namespace `media`.
fn rule_of(name: &str) -> serde_yaml::Value {
    let folder = TempDir::new("service");
    let manifest = folder.path().join("service.yaml");
    let text = format!(
        "apiVersion: mediaservice.io/v1alpha1\nkind: MediaService\nmetadata: {{name: {name}, namespace: media}}\nspec: {{}}\n"
    );
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
    rules[0].clone()
}

#[test]
fn every_alert_of_a_media_service_fires_when_it_is_due_and_ends_with_its_cause() {
    hold(
        &rule_of("cam"),
        r#"namespace="media",mediaservice="cam",job="media-server""#,
        r#"namespace="media",mediaservice="other",job="media-server""#,
        &[CASES, BURN_CASES].concat(),
        QUIET,
    );
}

/// Queries that people are given: of panels, and of pages.
fn queries() -> Vec<String> {
    let cam = Selector {
        namespace: "media",
        service: "cam",
    };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut queries = Vec::new();
    for dashboard in [dashboards(&cam), vec![of_operator()]].concat() {
        for panel in list(&dashboard.json["panels"]) {
            let targets = list(&panel["targets"]).into_iter();
            let asked = targets.filter(|target| target["datasource"]["type"] == "prometheus");
            queries.extend(asked.map(|target| {
                let query = target["expr"].as_str().expect("an expression");
                query.replace("$__rate_interval", "5m")
            }));
        }
    }
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let runbooks = std::fs::read_dir(docs.join("runbooks")).expect("docs/runbooks is there");
    let pages = runbooks.map(|entry| entry.expect("a readable folder").path());
    for page in pages.chain([docs.join("monitoring.md"), docs.join("metrics.md")]) {
        let text = std::fs::read_to_string(&page).expect("a page");
        for block in text.split("```promql\n").skip(1) {
            let (block, _) = block.split_once("```").expect("it ends");
            queries.extend(block.lines().map(str::to_owned));
        }
    }
    queries
}

#[test]
fn every_query_of_a_panel_and_of_a_page_is_one_that_prometheus_reads() {
    let queries = queries();
    assert!(queries.len() > 250, "{}", queries.len());
    let folder = TempDir::new("queries");
    let rules: Vec<Value> = (0..)
        .zip(&queries)
        .map(|(number, query)| json!({"record": format!("query:{number}"), "expr": query}))
        .collect();
    let document = json!({"groups": [{"name": "queries", "rules": rules}]});
    let file = folder.path().join("queries.json");
    std::fs::write(file, document.to_string()).expect("can be written");
    promtool(&folder, &["check", "rules", "--lint=none", "queries.json"]);
}

#[test]
fn two_media_services_of_one_namespace_never_mix_in_a_rule() {
    let folder = TempDir::new("two");
    let services = ["cam", "other"];
    let file = |name: &str| format!("{name}.json");
    for name in services {
        let spec = serde_json::to_value(&rule_of(name)["spec"]).expect("as YAML, so JSON");
        std::fs::write(folder.path().join(file(name)), spec.to_string()).expect("can be written");
    }
    // What fails of a hundred a minute.
    let failing = [("cam", 1), ("other", 50)];
    let mut series = Vec::new();
    for (service, bad) in failing {
        let good = 100 - bad;
        for (family, labels, each) in [
            ("media_setup_total", r#"result="failed""#, bad),
            ("media_setup_total", r#"result="connected""#, good),
            ("media_setup_seconds_bucket", r#"le="10.0""#, good),
            ("media_first_media_seconds_bucket", r#"le="1.0""#, good),
            ("media_first_media_seconds_count", r#"pod="0""#, 100),
            ("media_viewers_without_media_total", r#"pod="0""#, 0),
            ("media_viewer_seconds_total", r#"quality="gap""#, bad),
            ("media_viewer_seconds_total", r#"quality="good""#, 20),
            (
                "media_viewer_seconds_total",
                r#"quality="still""#,
                good - 20,
            ),
            ("media_signalling_total", r#"result="failed""#, bad),
            ("media_signalling_total", r#"result="ok""#, good),
        ] {
            let target = format!(r#"namespace="media",mediaservice="{service}""#);
            let series_of = format!("{family}{{{target},{labels}}}");
            series.push(json!({"series": series_of, "values": format!("0+{each}x30")}));
        }
    }
    let samples = failing.map(|(service, bad)| {
        let labels = format!(r#"{{mediaservice="{service}",namespace="media"}}"#);
        json!({"labels": labels, "value": f64::from(bad) / 100.0})
    });
    let recorded = SLIS.iter().map(|sli| {
        // Shares are differences of others, and no exact hundredths.
        let expr = format!("round({}, 1e-6)", sli.series("5m"));
        json!({"expr": expr, "eval_time": "20m", "exp_samples": samples})
    });
    let document = json!({
        "rule_files": services.map(file),
        "evaluation_interval": "1m",
        "tests": [{
            "interval": "1m",
            "input_series": series,
            "promql_expr_test": recorded.collect::<Vec<_>>(),
        }],
    });
    std::fs::write(folder.path().join("two.json"), document.to_string()).expect("can be written");
    promtool(&folder, &["test", "rules", "two.json"]);
}

#[test]
fn every_alert_of_the_operator_fires_when_it_is_due_and_ends_with_its_cause() {
    let objects = render(&["metrics.prometheusRule.enabled=true"]);
    hold(
        one(&objects, "PrometheusRule"),
        r#"namespace="ops",job="mediaservice-operator""#,
        r#"namespace="other",job="mediaservice-operator""#,
        OPERATOR_CASES,
        &[],
    );
}
