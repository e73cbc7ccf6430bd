//! The operator on a cluster, installed from the chart as the README says.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Once;

use crate::Kubectl;

/// Where the chart is installed.
pub const NAMESPACE: &str = "mediaservice-system";

/// Every kind that a MediaService owns on a cluster without Gateway API and cert-manager, as kubectl
/// takes a list of them.
pub const CHILD_KINDS: &str = "statefulsets,services,configmaps,secrets,serviceaccounts,ingresses,networkpolicies,\
    poddisruptionbudgets,servicemonitors,prometheusrules";

/// Installs the chart once for each test binary. Harmless when the release is there already.
///
/// # Panics
/// With helm's words if it can't.
pub fn install() {
    install_with(&[]);
}

/// The same, with values that differ from the defaults, as `name=value`.
///
/// # Panics
/// With helm's words if it can't.
pub fn install_with(values: &[&str]) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let chart = root().join("charts/mediaservice-operator");
        let output = Command::new("helm")
            .args(["upgrade", "--install", "mediaservice-operator"])
            .arg(chart)
            .args([
                "--namespace",
                NAMESPACE,
                "--create-namespace",
                "--wait",
                "--timeout",
                "3m",
            ])
            .args(values.iter().flat_map(|value| ["--set", value]))
            .output()
            .expect("helm can be started");
        assert!(
            output.status.success(),
            "helm: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    });
}

/// Deletes the namespace, and waits until what only one test can have is free: ports of the node and hosts
/// of the Ingress. The rest takes the namespace controller another ten seconds and more, in which the next
/// test can go on; nothing can be made in the namespace meanwhile.
///
/// # Errors
/// What kubectl wrote to stderr.
pub fn leave(kubectl: &Kubectl) -> anyhow::Result<()> {
    kubectl.run(&["delete", "namespace", &kubectl.namespace, "--wait=false"])?;
    let free = "mediaservices,services,ingresses,pods";
    kubectl.run(&["delete", free, "--all", "--timeout=120s"])?;
    Ok(())
}

/// The workspace.
pub fn root() -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("the tests lie in the workspace")
        .to_owned()
}
