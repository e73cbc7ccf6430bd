//! The demo on the cluster of `$KUBECONFIG`: it changes nothing there before the images are settled, and
//! nothing at any time that it did not make.

use std::process::Command;

use anyhow::{Context, bail};

use super::made::{self, DEFINITION, Found, MARK, Maker, RELEASE, RELEASE_MARK, SERVICE, kubectl};
use super::{NAMESPACE, OPERATOR_NAMESPACE, Stages, example, machine};
use crate::cluster::{Cluster, Wanted};
use crate::{image, sh};

/// Builds and pushes the images where asked to, installs the chart and applies the example.
///
/// # Errors
/// Before anything is touched: if it was not said how the cluster gets the images, this machine lacks
/// something, or a release or MediaService of somebody else is where the demo's would go. Later: if a
/// stage fails.
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
    programs()?;
    Cluster::here().prepare(Wanted::Images)?;
    let found = Found::look()?;
    found.refuse()?;
    for what in found.others() {
        println!("{what} was there before: it is used, and stays as it is");
    }
    let mut stages = Stages::start();
    let mut values = vec![
        "metrics.serviceMonitor.enabled=false".to_owned(),
        format!("crds.enabled={}", found.definition != Maker::Other),
    ];
    if let (Some(prefix), Some(pusher)) = (push, pusher) {
        stages.begin("images");
        let archives = image::build()?;
        image::push(pusher, prefix, &archives)?;
        stages.ready("both images are built and pushed");
        let prefix = prefix.trim_end_matches('/');
        for (key, image) in ["image", "mediaServer.image"].iter().zip(&image::IMAGES) {
            values.push(format!("{key}.repository={prefix}/{}", image.name));
        }
    }

    stages.begin("operator");
    if found.operator_namespace == Maker::Nobody {
        make_namespace(OPERATOR_NAMESPACE, serde_json::json!({}))?;
    }
    install_chart(&values)?;
    if found.definition == Maker::Nobody {
        let mark = format!("{MARK}=true");
        sh::output(&mut kubectl([
            "annotate",
            "customresourcedefinition",
            DEFINITION,
            &mark,
        ]))?;
    }
    stages.ready("the operator runs");

    stages.begin("MediaService");
    if found.namespace == Maker::Nobody {
        let labels = serde_json::json!({"pod-security.kubernetes.io/enforce": "privileged"});
        make_namespace(NAMESPACE, labels)?;
    }
    apply()?;
    stages.ready("crds/examples/minimal.yaml is applied and Ready");

    let shown = "mediaservice,ingress,pods";
    println!(
        "{}",
        sh::output(&mut kubectl(["get", shown, "-o", "wide"]))?
    );
    println!("A token for a device:");
    println!(
        "    kubectl -n {NAMESPACE} exec cam-0 -- media-server token --device cam-1 --grant publish,view --ttl 24h"
    );
    println!(
        "Then the page at the Ingress's host, with #token=…; `cargo xtask demo --cluster current --down` removes it."
    );
    Ok(())
}

fn programs() -> anyhow::Result<()> {
    for (program, argument) in [("kubectl", "--client=true"), ("helm", "--short")] {
        let mut version = Command::new(program);
        sh::output(version.args(["version", argument])).with_context(|| {
            format!("{program} is missing\n    fix: install it, or use the local cluster's: eval \"$(cargo xtask cluster env)\"")
        })?;
    }
    Ok(())
}

/// Makes a namespace with the demo's mark. One that somebody else makes meanwhile is not taken over.
fn make_namespace(name: &str, labels: serde_json::Value) -> anyhow::Result<()> {
    let namespace = serde_json::json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": labels, "annotations": {MARK: "true"}},
    });
    machine::feed(
        &mut kubectl(["create", "-f", "-"]),
        &namespace.to_string(),
    )?;
    Ok(())
}

fn install_chart(values: &[String]) -> anyhow::Result<()> {
    let mut helm = Command::new("helm");
    helm.args(["upgrade", "--install", RELEASE])
        .arg(sh::root().join("charts/mediaservice-operator"))
        .args(["--namespace", OPERATOR_NAMESPACE])
        .args(["--set-string", RELEASE_MARK])
        .args(values.iter().flat_map(|value| ["--set", value]))
        .args(["--wait", "--timeout", "180s"]);
    sh::output(&mut helm)?;
    Ok(())
}

/// Applies the example with the demo's mark, and waits until it is Ready.
fn apply() -> anyhow::Result<()> {
    let mut object: serde_json::Value = serde_json::from_str(&example(&serde_json::json!({}))?)?;
    object["metadata"]["annotations"] = serde_json::json!({MARK: "true"});
    let mut apply = kubectl(["apply", "--server-side", "--field-manager=demo", "-f", "-"]);
    machine::feed(&mut apply, &object.to_string())?;
    let service = format!("mediaservice/{SERVICE}");
    let ready = ["wait", "--for=condition=Ready", &service, "--timeout=180s"];
    sh::output(&mut kubectl(ready)).map_err(|error| {
        let _ = kubectl(["describe", &service]).status();
        let _ = kubectl(["get", "pods"]).status();
        error.context("the MediaService did not become Ready; see above")
    })?;
    Ok(())
}

/// Removes what the demo made and says what it leaves.
///
/// # Errors
/// If kubectl or helm fails; another run goes on with what is there.
pub fn down() -> anyhow::Result<()> {
    programs()?;
    let found = Found::look()?;
    let left: Vec<String> = found
        .others()
        .into_iter()
        .map(|what| format!("{what}: the demo did not make it"))
        .collect();
    if found.is_nothing() {
        println!("nothing of the demo is on this cluster");
    }
    let left = [left, remove(found)?].concat();
    for what in left {
        println!("left as it is: {what}");
    }
    Ok(())
}

/// Returns what could not go, and why.
fn remove(found: Found) -> anyhow::Result<Vec<String>> {
    let mut left = Vec::new();
    if found.service == Maker::Demo {
        // Its children go before it does, so that the next step finds none of them.
        let delete = ["delete", "mediaservice", SERVICE, "--cascade=foreground"];
        sh::output(kubectl(delete).arg("--timeout=180s"))?;
        println!("removed: the MediaService {SERVICE}");
    }
    if found.release == Maker::Demo {
        let mut helm = Command::new("helm");
        helm.args(["uninstall", RELEASE, "--ignore-not-found"])
            .args(["--namespace", OPERATOR_NAMESPACE])
            .args(["--cascade", "foreground", "--wait", "--timeout", "120s"]);
        sh::output(&mut helm)?;
        println!("removed: the release {RELEASE}");
    }
    for (name, maker) in [
        (NAMESPACE, found.namespace),
        (OPERATOR_NAMESPACE, found.operator_namespace),
    ] {
        if maker != Maker::Demo {
            continue;
        }
        let guests = made::guests(name, found.definition)?;
        if !guests.is_empty() {
            left.push(format!("the namespace {name}: it has {}", guests.join(", ")));
            continue;
        }
        sh::output(&mut kubectl([
            "delete",
            "namespace",
            name,
            "--timeout=120s",
        ]))?;
        println!("removed: the namespace {name}");
    }
    if found.definition == Maker::Demo {
        let all = ["get", "mediaservices", "--all-namespaces", "-o", "name"];
        let services = sh::output(&mut kubectl(all))?;
        match services.lines().count() {
            0 => {
                let delete = ["delete", "customresourcedefinition", DEFINITION];
                sh::output(&mut kubectl(delete))?;
                println!("removed: the CustomResourceDefinition {DEFINITION}");
            }
            n => left.push(format!(
                "the CustomResourceDefinition {DEFINITION}: {n} MediaServices would go with it"
            )),
        }
    }
    Ok(left)
}
