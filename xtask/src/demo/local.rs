//! The demo on the local cluster: its stages, and the processes that stay.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use super::picture::{self, HOST, PUBLISHER, Summary, Way};
use super::processes::Processes;
use super::{NAMESPACE, OPERATOR_NAMESPACE, Stages, example, machine};
use crate::cluster::{Cluster, NODE_ADDRESS, PROMETHEUS, Wanted};
use crate::{image, sh};

/// An address for the MediaService's pod on its own ports, inside the cluster: see [`overlay`].
const OVERLAY_ADDRESS: &str = "198.18.1.80";

/// The process that carries this machine's ports into the cluster.
const FORWARD: &str = "forward";

/// Ends the cluster, and with it everything of the demo.
///
/// # Errors
/// If something of it can't be ended.
pub fn down() -> anyhow::Result<()> {
    Cluster::here().down()?;
    println!("nothing of the demo is left; what was built stays in the cache");
    Ok(())
}

/// Runs all stages; those whose result is there already take seconds.
///
/// # Errors
/// Before anything is built: if the machine lacks something. Later: if a stage fails.
pub fn up(address: IpAddr, hold: bool) -> anyhow::Result<()> {
    let cluster = Cluster::here();
    cluster.prepare(Wanted::Cluster)?;
    let mut stages = Stages::start();

    stages.begin("Kubernetes");
    cluster.up(1)?;
    stages.ready("Kubernetes is up");

    stages.begin("images");
    let archives = image::build()?;
    cluster.load(&archives)?;
    stages.ready("both images are built and loaded");

    stages.begin("operator");
    cluster.add("tools")?;
    install_chart(&cluster)?;
    stages.ready("the operator runs");

    stages.begin("MediaService");
    let demo = Demo::start(cluster, address)?;
    demo.apply()?;
    stages.ready("crds/examples/minimal.yaml is applied and Ready");

    stages.begin("picture");
    picture::build()?;
    let token = picture::token(|| demo.kubectl())?;
    demo.forward()?;
    demo.way().publish_and_watch(&demo.processes, &token)?;
    stages.ready("the picture is live, and 100 frames of it were watched");
    let origin = demo.origin();
    let summary = demo.summary(&origin, &token);
    if demo.https.is_none() {
        println!("    {}", summary.page());
    }

    stages.begin("ingress");
    demo.cluster.add("ingress")?;
    demo.through_ingress()?;
    demo.way().publish_and_watch(&demo.processes, &token)?;
    stages.ready("the device publishes through the ingress, and 100 frames were watched");

    stages.begin("Prometheus");
    demo.cluster.add("monitoring")?;
    let query = picture::query();
    let live = demo.scraped(&query)?;
    stages.ready(&format!("Prometheus found the pod: {query} is {live}"));

    summary.print();
    println!("`cargo xtask demo --down` removes all of it.");
    if hold {
        demo.processes.hold(&[PUBLISHER, FORWARD])?;
    }
    Ok(())
}

fn install_chart(cluster: &Cluster) -> anyhow::Result<()> {
    let mut helm = cluster.outside("helm")?;
    helm.args(["upgrade", "--install", "mediaservice-operator"])
        .arg(sh::root().join("charts/mediaservice-operator"))
        .args(["--namespace", OPERATOR_NAMESPACE, "--create-namespace"])
        .args(["--set", "metrics.serviceMonitor.enabled=false"])
        // The tag stays while the image changes, so that pods are told apart by its time.
        .arg("--set-string")
        .arg(format!("podAnnotations.images={}", image_stamp()?))
        .args(["--wait", "--timeout", "180s"]);
    sh::output(&mut helm)?;
    Ok(())
}

/// When the images were made, in seconds; changes when one of them does.
fn image_stamp() -> anyhow::Result<u64> {
    let mut newest = 0;
    for image in &image::IMAGES {
        let program = sh::root().join(image::file_list(image)[0].0);
        let changed = std::fs::metadata(&program)?.modified()?;
        newest = newest.max(changed.duration_since(std::time::UNIX_EPOCH)?.as_secs());
    }
    Ok(newest)
}

/// What one run of the demo has chosen, and the cluster that it is on.
struct Demo {
    cluster: Cluster,
    address: IpAddr,
    /// Plain HTTP, always at 127.0.0.1.
    http: u16,
    /// HTTPS at the address, where that is not loopback.
    https: Option<u16>,
    metrics: u16,
    prometheus: u16,
    media: u16,
    processes: Processes,
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

impl Demo {
    /// Ends what an earlier run left and picks ports of this machine.
    fn start(cluster: Cluster, address: IpAddr) -> anyhow::Result<Self> {
        let folder = cluster.state().join("demo");
        let processes = Processes::at(folder, Cluster::MARK, cluster.state())?;
        for name in [PUBLISHER, FORWARD] {
            processes.end(name)?;
        }
        let mut demo = Self {
            cluster,
            address,
            http: 0,
            https: None,
            metrics: 0,
            prometheus: 0,
            media: 0,
            processes,
        };
        demo.http = machine::free_tcp(LOOPBACK, 8080)?;
        demo.metrics = machine::free_tcp(LOOPBACK, demo.http + 1)?;
        demo.prometheus = machine::free_tcp(LOOPBACK, 9090)?;
        demo.media = machine::free_udp(address, 8443)?;
        if !address.is_loopback() {
            demo.https = Some(machine::free_tcp(address, 8443)?);
        }
        Ok(demo)
    }

    fn kubectl(&self) -> anyhow::Result<Command> {
        let mut kubectl = self.cluster.outside("kubectl")?;
        kubectl.args(["-n", NAMESPACE]);
        Ok(kubectl)
    }

    /// Applies the example with this machine's address for media, and waits until it is Ready.
    fn apply(&self) -> anyhow::Result<()> {
        let text = example(&serde_json::json!({
            "media": {"port": self.media, "externalAddresses": [self.address]},
            // The tag stays while the image changes: another stamp replaces the pod.
            "pod": {"annotations": {"mediaservice-demo/images": image_stamp()?.to_string()}},
        }))?;
        let namespace = serde_json::json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "privileged"}},
        });
        for object in [namespace.to_string(), text, overlay().to_string()] {
            let mut kubectl = self.kubectl()?;
            kubectl.args(["apply", "--server-side", "--force-conflicts", "-f", "-"]);
            kubectl.args(["--field-manager", "demo"]);
            machine::feed(&mut kubectl, &object)?;
        }
        let mut wait = self.kubectl()?;
        wait.args(["wait", "--for=condition=Ready", "mediaservice/cam"])
            .arg("--timeout=180s");
        if let Err(error) = sh::output(&mut wait) {
            for what in [
                &["get", "mediaservice", "cam", "-o", "yaml"][..],
                &["get", "pods"],
                &["get", "events"],
            ] {
                let _ = self.kubectl()?.args(what).status();
            }
            return Err(error.context("the MediaService did not become Ready; see above"));
        }
        Ok(())
    }

    /// Starts to carry this machine's ports into the cluster.
    fn forward(&self) -> anyhow::Result<()> {
        std::fs::write(self.target_file(), format!("{OVERLAY_ADDRESS}:80"))?;
        let mut program = Command::new(std::env::current_exe()?);
        program.args(["forward", "--control", &self.cluster.control()?]);
        let file = self.target_file();
        let prometheus = PROMETHEUS.trim_start_matches("http://");
        program.arg(format!("--tcp={LOOPBACK}:{}={}", self.http, file.display()));
        program.arg(format!(
            "--tcp={LOOPBACK}:{}={OVERLAY_ADDRESS}:9090",
            self.metrics
        ));
        program.arg(format!("--tcp={LOOPBACK}:{}={prometheus}", self.prometheus));
        if let Some(https) = self.https {
            program.arg(format!("--tcp={}:{https}={NODE_ADDRESS}:443", self.address));
        }
        program.arg(format!(
            "--udp={}:{media}={NODE_ADDRESS}:{media}",
            self.address,
            media = self.media
        ));
        self.processes.spawn(FORWARD, &mut program)?;
        self.processes.says(FORWARD, "carrying")
    }

    /// From now on what comes to the HTTP port goes through the ingress.
    fn through_ingress(&self) -> anyhow::Result<()> {
        let url = format!("http://{NODE_ADDRESS}/");
        let ask = || {
            let mut curl = self.cluster.outside("curl")?;
            curl.args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "-m", "5"]);
            curl.args(["-H", &format!("Host: {HOST}"), &url]);
            Ok(curl)
        };
        machine::until(
            "the ingress leads to the pod",
            Duration::from_secs(60),
            ask,
            |out| out.starts_with('2') || out.starts_with('4') && out != "404",
        )?;
        std::fs::write(self.target_file(), format!("{NODE_ADDRESS}:80"))?;
        Ok(())
    }

    fn way(&self) -> Way {
        Way {
            http: SocketAddr::new(LOOPBACK, self.http),
            bind: self.address,
        }
    }

    /// Waits until Prometheus has a value above 0 for the query, and returns it.
    fn scraped(&self, query: &str) -> anyhow::Result<String> {
        let ask = || {
            let mut curl = self.cluster.outside("curl")?;
            curl.args(["-sS", "-m", "5", "-G"])
                .arg(format!("{PROMETHEUS}/api/v1/query"))
                .arg("--data-urlencode")
                .arg(format!("query=sum({query})"));
            Ok(curl)
        };
        let value = |out: &str| {
            let answer: serde_json::Value = serde_json::from_str(out).ok()?;
            let value = answer["data"]["result"][0]["value"][1].as_str()?.to_owned();
            (value != "0").then_some(value)
        };
        // The operator looks for the API once a minute, and pods see a changed configuration late.
        let out = machine::until(
            "Prometheus scrapes the pod",
            Duration::from_secs(240),
            ask,
            |out| value(out).is_some(),
        )?;
        value(&out).context("Prometheus has a value")
    }

    /// Where a browser finds the page.
    fn origin(&self) -> String {
        match self.https {
            Some(https) => format!("https://{}", SocketAddr::new(self.address, https)),
            None => format!("http://{LOOPBACK}:{}", self.http),
        }
    }

    fn summary<'a>(&self, origin: &'a str, token: &'a str) -> Summary<'a> {
        Summary {
            origin,
            token,
            metrics: SocketAddr::new(LOOPBACK, self.metrics),
            prometheus: Some(SocketAddr::new(LOOPBACK, self.prometheus)),
            kubectl: "eval \"$(cargo xtask cluster env)\"; $IN_CLUSTER ",
        }
    }

    /// Which address the HTTP port leads to.
    fn target_file(&self) -> PathBuf {
        self.processes.file("http-target")
    }
}

/// What carrying to one machine's address needs beside the example: fixed addresses for the pod's own
/// ports, and an Ingress without a host, because the browser's address bar holds this machine's.
fn overlay() -> serde_json::Value {
    let name = "cam-on-this-machine";
    serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {
                "clusterIP": OVERLAY_ADDRESS,
                "selector": {"statefulset.kubernetes.io/pod-name": "cam-0"},
                "ports": [
                    {"name": "http", "port": 80, "targetPort": "http"},
                    {"name": "metrics", "port": 9090, "targetPort": "metrics"},
                ],
            },
        },
        {
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name},
            "spec": {"ingressClassName": "skipper", "rules": [{"http": {"paths": [
                {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": name, "port": {"name": "http"}}}},
            ]}}]},
        },
    ]})
}
