//! The demo on the cluster of `$KUBECONFIG`: it changes nothing there before the images are settled, and
//! nothing at any time that it did not make.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::Command;

use anyhow::{Context, bail};

use super::made::{self, DEFINITION, Found, MARK, Maker, RELEASE, RELEASE_MARK, SERVICE, kubectl};
use super::picture::{self, PUBLISHER, Summary, Way};
use super::processes::Processes;
use super::{NAMESPACE, OPERATOR_NAMESPACE, Stages, example, machine};
use crate::cluster::{Cluster, Wanted};
use crate::{image, sh};

/// Builds and pushes the images where asked to, installs the chart, applies the example and publishes the
/// picture to it.
///
/// # Errors
/// Before anything is touched: if it was not said how the cluster gets the images, this machine lacks
/// something, or a release or MediaService of somebody else is where the demo's would go. Later: if a
/// stage fails.
pub fn up(push: Option<&str>, images_present: bool, hold: bool) -> anyhow::Result<()> {
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

    stages.begin("picture");
    picture::build()?;
    let token = picture::token(|| Ok(kubectl([])))?;
    let processes = processes()?;
    let (http, metrics) = forward(&processes)?;
    let media = status("{.status.addresses.media[0]}")?;
    let way = Way {
        http,
        bind: towards(&media)?,
    };
    way.publish_and_watch(&processes, &token)
        .with_context(|| format!("media goes to {media}, which this machine must reach"))?;
    stages.ready("the picture is live, and 100 frames of it were watched");

    let shown = "mediaservice,ingress,pods";
    println!(
        "{}",
        sh::output(&mut kubectl(["get", shown, "-o", "wide"]))?
    );
    let summary = Summary {
        origin: &format!("http://{http}"),
        token: &token,
        metrics,
        prometheus: None,
        kubectl: "",
    };
    summary.print();
    println!("Through the Ingress, where its name leads to the cluster:");
    let signalling = status("{.status.addresses.signalling}")?;
    let ingress = Summary {
        origin: signalling.trim(),
        ..summary
    };
    println!("    {}", ingress.page());
    println!(
        "`cargo xtask demo --cluster current --down` removes all of it but what was there before."
    );
    if hold {
        processes.hold(&[PUBLISHER, FORWARD])?;
    }
    Ok(())
}

/// The process that carries this machine's ports to the pod.
const FORWARD: &str = "forward";

fn processes() -> anyhow::Result<Processes> {
    let folder = sh::cache()?.join("demo-current");
    Processes::at(folder.clone(), "MEDIASERVICE_DEMO", &folder)
}

/// Starts to carry ports of this machine to the pod: its page and API, and its metrics. So the page is
/// at an address to which browsers give cameras, wherever the cluster's Ingress is.
fn forward(processes: &Processes) -> anyhow::Result<(SocketAddr, SocketAddr)> {
    processes.end(FORWARD)?;
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let http = machine::free_tcp(loopback, 8080)?;
    let metrics = machine::free_tcp(loopback, http + 1)?;
    let pod = format!("pod/{SERVICE}-0");
    let mut carry = kubectl(["port-forward", "--address=127.0.0.1", &pod]);
    carry.args([format!("{http}:8080"), format!("{metrics}:9090")]);
    processes.spawn(FORWARD, &mut carry)?;
    processes.says(FORWARD, &format!("127.0.0.1:{metrics}"))?;
    Ok(((loopback, http).into(), (loopback, metrics).into()))
}

/// This machine's address on the way to one that is written as `ip:port/udp`. Nothing is sent.
fn towards(media: &str) -> anyhow::Result<IpAddr> {
    let target: SocketAddr = media
        .trim_end_matches("/udp")
        .parse()
        .with_context(|| format!("{media} is no address for media"))?;
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket
        .connect(target)
        .with_context(|| format!("this machine has no way to {target}, where media goes"))?;
    Ok(socket.local_addr()?.ip())
}

fn status(path: &str) -> anyhow::Result<String> {
    let path = format!("jsonpath={path}");
    sh::output(&mut kubectl(["get", "mediaservice", SERVICE, "-o", &path]))
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
    machine::feed(&mut kubectl(["create", "-f", "-"]), &namespace.to_string())?;
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
    let processes = processes()?;
    for name in [PUBLISHER, FORWARD] {
        processes.end(name)?;
    }
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
            left.push(format!(
                "the namespace {name}: it has {}",
                guests.join(", ")
            ));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_leaves_by_the_address_that_leads_to_the_node() {
        let loopback: IpAddr = Ipv4Addr::LOCALHOST.into();
        assert_eq!(towards("127.0.0.1:8443/udp").expect("is there"), loopback);
        assert!(towards("").is_err());
    }
}
