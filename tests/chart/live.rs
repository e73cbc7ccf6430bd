//! The operator's chart against a real API server: every object is accepted, the definition may come
//! from kubectl, from this release or from another one, in either order, an operator for one namespace
//! keeps to it, and what runs is kept.
//!
//! What a MediaService brings to Prometheus is asked of a real one, at PROMETHEUS_URL.
//!
//! Needs `helm` and `kubectl` on PATH and KUBECONFIG of a cluster whose MediaServices may go: the
//! definition is deleted between tests. Run by the stage `chart on the cluster` of `cargo xtask test`.
#![forbid(unsafe_code)]

mod kept;
mod scoped;
mod upgraded;
mod variants;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use tests::process::{piped, program};
use tests::{Kubectl, Prometheus, wait_for};

use variants::VARIANTS;

const CRD: &str = "mediaservices.mediaservice.io";
const NAMESPACE: &str = "chart-live";
/// Where MediaServices are made.
const MEDIA: &str = "chart-media";
/// Enough for images that are there to start on a busy machine.
const START: Duration = Duration::from_secs(180);

/// There is one definition in a cluster, so these tests take turns.
static TURN: Mutex<()> = Mutex::new(());

/// Everything a test here makes, gone before and after it.
struct Clean<'a>(#[allow(dead_code, reason = "held until the test ends")] MutexGuard<'a, ()>);

impl Clean<'_> {
    fn start() -> Self {
        let clean = Clean(
            TURN.lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        clean.sweep();
        for namespace in [NAMESPACE, MEDIA] {
            ok(kubectl(&["create", "namespace", namespace]));
        }
        clean
    }

    fn sweep(&self) {
        for release in ["one", "two", scoped::RELEASE] {
            uninstall(release);
        }
        ok(kubectl(&[
            "delete",
            "crd",
            CRD,
            "--ignore-not-found",
            "--wait",
        ]));
        ok(kubectl(&[
            "delete",
            "namespace",
            NAMESPACE,
            MEDIA,
            "--ignore-not-found",
            "--wait",
        ]));
    }
}

impl Drop for Clean<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.sweep();
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn helm(args: &[&str]) -> Output {
    Command::new("helm")
        .args(args)
        .current_dir(root())
        .output()
        .expect("helm is on PATH")
}

fn kubectl(args: &[&str]) -> Output {
    Command::new("kubectl")
        .args(args)
        .current_dir(root())
        .output()
        .expect("kubectl is on PATH")
}

fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[track_caller]
fn ok(output: Output) -> String {
    assert!(output.status.success(), "{}", text(&output));
    text(&output)
}

fn install(verb: &str, release: &str, settings: &[&str]) -> Output {
    let mut args = vec![
        verb,
        release,
        "charts/mediaservice-operator",
        "--namespace",
        NAMESPACE,
    ];
    for setting in settings {
        args.extend(["--set", setting]);
    }
    helm(&args)
}

/// Harmless when there is no such release.
fn uninstall(release: &str) -> Output {
    helm(&[
        "uninstall",
        release,
        "--namespace",
        NAMESPACE,
        "--ignore-not-found",
        "--wait",
    ])
}

/// A MediaService `cam` that an operator for one namespace can run too.
fn media_service(signalling: &str) -> String {
    format!(
        "apiVersion: mediaservice.io/v1alpha1\nkind: MediaService\nmetadata: {{name: cam}}\n\
         spec: {{media: {{exposure: HostPort, externalAddresses: [{}]}}, signalling: {signalling}}}\n",
        std::env::var("NODE_ADDRESS").unwrap_or_else(|_| "198.18.0.11".into())
    )
}

/// Waits until `cam` is ready and nothing is under way.
async fn ready(kubectl: &Kubectl) {
    wait_for("the MediaService to be Ready", START, || async {
        let service = kubectl.get(&["mediaservice", "cam"])?;
        let status = &service["status"];
        let is = |kind: &str, wanted: &str| {
            let conditions = status["conditions"].as_array().into_iter().flatten();
            conditions
                .filter(|condition| condition["type"] == kind)
                .any(|condition| condition["status"] == wanted)
        };
        let current = status["observedGeneration"] == service["metadata"]["generation"];
        ensure!(
            current && is("Ready", "True") && is("Progressing", "False"),
            "{status}"
        );
        Ok::<_, anyhow::Error>(())
    })
    .await;
}

fn apply_definition() -> Output {
    kubectl(&["apply", "--server-side", "-f", "crds/mediaservices.yaml"])
}

/// Runs the commands that a message shows: its indented lines that begin with `kubectl`.
fn follow(message: &str) {
    let commands: Vec<&str> = message
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("kubectl "))
        .collect();
    assert!(!commands.is_empty(), "no command in: {message}");
    for command in commands {
        let words: Vec<&str> = command.split_whitespace().skip(1).collect();
        ok(kubectl(&words));
    }
}

/// Every string under a key `expr`, in rules and in panels; but for what a Loki is asked.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) if value["datasource"]["type"] != "loki" => {
            for (key, inner) in map {
                match inner {
                    Value::String(text) if key == "expr" => found.push(text.clone()),
                    inner => expressions(inner, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|inner| expressions(inner, found)),
        _ => {}
    }
}

/// What the operator would make for the minimal example: its rules and its dashboards.
fn monitoring_objects() -> Vec<Value> {
    let operator = program("OPERATOR", "operator");
    let output = Command::new(operator)
        .args(["render", "--file", "crds/examples/minimal.yaml"])
        .current_dir(root())
        .output()
        .expect("the operator can be started");
    let manifests = ok(output);
    let objects = manifests
        .split("\n---\n")
        .map(|text| serde_yaml::from_str(text).expect("YAML"));
    let mut found = Vec::new();
    for object in objects.filter(|object: &Value| !object.is_null()) {
        match object["kind"].as_str() {
            Some("PrometheusRule") => found.push(object["spec"].clone()),
            Some("ConfigMap") => {
                let files = object["data"].as_object().into_iter().flatten();
                let json =
                    files.filter(|(name, _)| name.ends_with(".json") && *name != "addresses.json");
                found.extend(json.map(|(_, text)| {
                    serde_json::from_str::<Value>(text.as_str().expect("text"))
                        .expect("a dashboard is JSON")
                }));
            }
            _ => {}
        }
    }
    assert_eq!(found.len(), 7, "rules and six dashboards");
    found
}

#[tokio::test]
async fn every_expression_of_rules_and_panels_is_understood_by_prometheus() {
    let address = std::env::var("PROMETHEUS_URL").expect("PROMETHEUS_URL says where Prometheus is");
    let prometheus = Prometheus::new(&address);
    let mut found = Vec::new();
    for object in monitoring_objects() {
        expressions(&object, &mut found);
    }
    expressions(&catalogue::dashboard::of_operator().json, &mut found);
    for alert in catalogue::rules::OPERATOR_ALERTS {
        found.push(
            alert
                .expr
                .replace("$S", "namespace=\"ops\",job=\"mediaservice-operator\""),
        );
    }
    assert!(found.len() > 50, "{} expressions", found.len());
    for expression in found {
        let filled = expression
            .replace("$__rate_interval", "1m")
            .replace("$namespace", "media")
            .replace("$service", "cam")
            .replace("$pod", ".*");
        if let Err(error) = prometheus.query(&filled).await {
            panic!("{expression}: {error:#}");
        }
    }
}

#[test]
fn every_object_is_accepted_by_the_api_server() {
    let _clean = Clean::start();
    ok(apply_definition());
    let served = Kubectl::new(NAMESPACE).established(&["crd", CRD]);
    served.expect("the definition is served");
    for (what, settings) in VARIANTS {
        let mut args = vec![
            "template",
            "one",
            "charts/mediaservice-operator",
            "--namespace",
            NAMESPACE,
            "--kube-version",
            "1.33.0",
            // Its account is made by the release, and a pod without one is refused.
            "--skip-tests",
        ];
        for setting in *settings {
            args.extend(["--set", setting]);
        }
        let manifests = ok(helm(&args));
        let mut apply = Command::new("kubectl");
        apply.args([
            "apply",
            "--server-side",
            "--force-conflicts",
            "--dry-run=server",
            "--validate=strict",
            "-f",
            "-",
        ]);
        let output = piped(&mut apply, &manifests).expect("kubectl reads its input");
        let said = text(&output);
        assert!(output.status.success(), "{what}: {said}");
        assert!(!said.contains("Warning:"), "{what}: {said}");
    }
}

#[test]
fn a_definition_from_kubectl_stops_the_install_with_commands_that_help() {
    let _clean = Clean::start();
    ok(apply_definition());
    let refused = install("install", "one", &[]);
    assert!(!refused.status.success(), "{}", text(&refused));
    let message = text(&refused);
    assert!(
        message.contains("is already there; it was made by kubectl"),
        "{message}"
    );
    assert!(message.contains("--set crds.enabled=false"), "{message}");
    ok(install("install", "two", &["crds.enabled=false"]));
    follow(&message);
    ok(install("install", "one", &[]));
}

#[test]
fn kubectl_may_apply_the_definition_after_the_chart() {
    let _clean = Clean::start();
    ok(install("install", "one", &[]));
    ok(kubectl(&[
        "apply",
        "--server-side",
        "--force-conflicts",
        "-f",
        "crds/mediaservices.yaml",
    ]));
    ok(install("upgrade", "one", &[]));
    ok(kubectl(&["apply", "-f", "crds/mediaservices.yaml"]));
    ok(install("upgrade", "one", &["replicas=2"]));
}

#[test]
fn the_definition_outlives_its_release_and_another_is_told_whose_it_is() {
    let _clean = Clean::start();
    ok(install("install", "one", &[]));
    ok(uninstall("one"));
    ok(kubectl(&["get", "crd", CRD]));
    let refused = install("install", "two", &[]);
    assert!(!refused.status.success(), "{}", text(&refused));
    assert!(
        text(&refused).contains("the release one in the namespace chart-live"),
        "{}",
        text(&refused)
    );
    ok(install("install", "one", &[]));
}
