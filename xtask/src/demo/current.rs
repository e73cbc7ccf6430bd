//! The demo on the cluster of `$KUBECONFIG`: it changes nothing there before the images are settled.

use std::process::Command;

use anyhow::{Context, bail};

use super::{NAMESPACE, OPERATOR_NAMESPACE, Stages, example, machine};
use crate::{image, sh};

/// Builds and pushes the images where asked to, installs the chart and applies the example.
///
/// # Errors
/// Before anything is touched: if it was not said how the cluster gets the images, or kubectl or
/// helm is missing. Later: if a stage fails.
pub fn up(push: Option<&str>, images_present: bool) -> anyhow::Result<()> {
    if push.is_none() && !images_present {
        bail!(
            "nothing was touched: the nodes of the current cluster can't load images from here\n    \
             fix: --push REGISTRY/PREFIX pushes both to a registry that they read, \
             --images-present says that they have {} and {}",
            image::IMAGES[0].reference(),
            image::IMAGES[1].reference(),
        );
    }
    let pusher = push.map(|_| image::pusher()).transpose()?;
    for (program, argument) in [("kubectl", "--client=true"), ("helm", "--short")] {
        let mut version = Command::new(program);
        sh::output(version.args(["version", argument])).with_context(|| {
            format!("{program} is missing\n    fix: install it, or use the local cluster's: eval \"$(cargo xtask cluster env)\"")
        })?;
    }
    let mut stages = Stages::start();
    let mut values = vec![
        "--set".to_owned(),
        "metrics.serviceMonitor.enabled=false".to_owned(),
    ];
    if let (Some(prefix), Some(pusher)) = (push, pusher) {
        stages.begin("images");
        let archives = image::build()?;
        image::push(pusher, prefix, &archives)?;
        stages.ready("both images are built and pushed");
        let prefix = prefix.trim_end_matches('/');
        for (key, image) in ["image", "mediaServer.image"].iter().zip(&image::IMAGES) {
            values.push("--set".to_owned());
            values.push(format!("{key}.repository={prefix}/{}", image.name));
        }
    }

    stages.begin("operator");
    let mut helm = Command::new("helm");
    helm.args(["upgrade", "--install", "mediaservice-operator"])
        .arg(sh::root().join("charts/mediaservice-operator"))
        .args(["--namespace", OPERATOR_NAMESPACE, "--create-namespace"])
        .args(&values)
        .args(["--wait", "--timeout", "180s"]);
    sh::output(&mut helm)?;
    stages.ready("the operator runs");

    stages.begin("MediaService");
    let namespace = serde_json::json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "privileged"}},
    });
    for object in [namespace.to_string(), example(&serde_json::json!({}))?] {
        let mut kubectl = Command::new("kubectl");
        kubectl.args(["-n", NAMESPACE, "apply", "--server-side", "-f", "-"]);
        machine::feed(&mut kubectl, &object)?;
    }
    let mut wait = Command::new("kubectl");
    wait.args(["-n", NAMESPACE, "wait", "--for=condition=Ready"])
        .args(["mediaservice/cam", "--timeout=180s"]);
    sh::output(&mut wait)?;
    stages.ready("crds/examples/minimal.yaml is applied and Ready");

    let mut show = Command::new("kubectl");
    show.args([
        "-n",
        NAMESPACE,
        "get",
        "mediaservice,ingress,pods",
        "-o",
        "wide",
    ]);
    println!("{}", sh::output(&mut show)?);
    println!("A token for a device:");
    println!(
        "    kubectl -n {NAMESPACE} exec cam-0 -- media-server token --device cam-1 --grant publish,view --ttl 24h"
    );
    println!(
        "Then the page at the Ingress's host, with #token=…; `cargo xtask demo --cluster current --down` removes it."
    );
    Ok(())
}

/// Removes the MediaService, its namespace and the operator; the CRD stays, for other resources.
///
/// # Errors
/// If kubectl or helm fails.
pub fn down() -> anyhow::Result<()> {
    let mut kubectl = Command::new("kubectl");
    kubectl.args(["-n", NAMESPACE, "delete", "mediaservice", "cam"]);
    sh::output(kubectl.args(["--ignore-not-found", "--timeout=120s"]))?;
    let mut kubectl = Command::new("kubectl");
    kubectl.args(["delete", "namespace", NAMESPACE]);
    sh::output(kubectl.args(["--ignore-not-found", "--timeout=120s"]))?;
    let mut helm = Command::new("helm");
    helm.args(["uninstall", "mediaservice-operator", "--ignore-not-found"]);
    sh::output(helm.args(["--namespace", OPERATOR_NAMESPACE]))?;
    println!("removed; the CustomResourceDefinition stays");
    Ok(())
}
