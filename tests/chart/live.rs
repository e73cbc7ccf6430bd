//! The operator's chart against a real API server: every object is accepted, and the definition may
//! come from kubectl, from this release or from another one, in either order.
//!
//! Needs `helm` and `kubectl` on PATH and KUBECONFIG of a cluster whose MediaServices may go: the
//! definition is deleted between tests. Run by the stage `chart on the cluster` of `cargo xtask test`.
#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard};

const CRD: &str = "mediaservices.mediaservice.io";
const NAMESPACE: &str = "chart-live";

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
        ok(kubectl(&["create", "namespace", NAMESPACE]));
        clean
    }

    fn sweep(&self) {
        for release in ["one", "two"] {
            helm(&[
                "uninstall",
                release,
                "--namespace",
                NAMESPACE,
                "--ignore-not-found",
                "--wait",
            ]);
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

#[test]
fn every_object_is_accepted_by_the_api_server() {
    let _clean = Clean::start();
    ok(apply_definition());
    ok(kubectl(&[
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        &format!("crd/{CRD}"),
    ]));
    for settings in [
        &["replicas=2"][..],
        &["watchNamespaces={chart-live}"],
        &[
            "podLabels.a=b",
            "priorityClassName=system-cluster-critical",
            "nodeSelector.a=b",
        ],
    ] {
        let mut args = vec![
            "template",
            "one",
            "charts/mediaservice-operator",
            "--namespace",
            NAMESPACE,
            "--kube-version",
            "1.33.0",
        ];
        for setting in settings {
            args.extend(["--set", setting]);
        }
        let manifests = ok(helm(&args));
        let mut apply = Command::new("kubectl")
            .args([
                "apply",
                "--server-side",
                "--force-conflicts",
                "--dry-run=server",
                "--validate=strict",
                "-f",
                "-",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("kubectl is on PATH");
        apply
            .stdin
            .take()
            .expect("piped")
            .write_all(manifests.as_bytes())
            .expect("kubectl reads its input");
        ok(apply.wait_with_output().expect("kubectl ends"));
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
    ok(helm(&[
        "uninstall",
        "one",
        "--namespace",
        NAMESPACE,
        "--wait",
    ]));
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
