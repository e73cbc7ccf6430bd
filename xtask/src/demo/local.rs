//! The demo on the local cluster: its stages, and the processes that stay.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::{DEVICE, NAMESPACE, OPERATOR_NAMESPACE, Stages, example, machine};
use crate::cluster::{Cluster, NODE_ADDRESS, PROMETHEUS, Wanted};
use crate::{image, sh};

/// An address for the MediaService's pod on its own ports, inside the cluster: see [`overlay`].
const OVERLAY_ADDRESS: &str = "198.18.1.80";

/// Host name of the example's Ingress.
const HOST: &str = "media.example.com";

/// Frames that must arrive before the picture counts as live.
const FRAMES: u64 = 100;

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
    let secure = !address.is_loopback();

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
    build_client()?;
    let token = demo.token()?;
    demo.forward()?;
    demo.publish_and_watch(&token)?;
    stages.ready("the picture is live, and 100 frames of it were watched");
    if !secure {
        println!("    {}", demo.page(&token));
    }

    stages.begin("ingress");
    demo.cluster.add("ingress")?;
    demo.through_ingress()?;
    demo.publish_and_watch(&token)?;
    stages.ready("the device publishes through the ingress, and 100 frames were watched");

    stages.begin("Prometheus");
    demo.cluster.add("monitoring")?;
    let query = format!("media_active_sessions{{namespace=\"{NAMESPACE}\"}}");
    let live = demo.scraped(&query)?;
    stages.ready(&format!("Prometheus found the pod: {query} is {live}"));

    demo.summary(&token, &query);
    println!("`cargo xtask demo --down` removes all of it.");
    if hold {
        demo.hold()?;
    }
    Ok(())
}

/// Compiles the test device and the headless viewer, as a developer's builds do: what they depend on is
/// optimised there too, and is likely there already.
fn build_client() -> anyhow::Result<()> {
    let mut cargo = sh::cargo([
        "build",
        "--locked",
        "--target-dir",
        "target",
        "-p",
        "client",
    ]);
    cargo.args(["--bins", "--features", "test-picture"]);
    sh::run(&mut cargo, &mut sh::Counts::default())
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
    folder: PathBuf,
}

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

impl Demo {
    /// Ends what an earlier run left and picks ports of this machine.
    fn start(cluster: Cluster, address: IpAddr) -> anyhow::Result<Self> {
        let folder = cluster.state().join("demo");
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("can't make {}", folder.display()))?;
        let mut demo = Self {
            cluster,
            address,
            http: 0,
            https: None,
            metrics: 0,
            prometheus: 0,
            media: 0,
            folder,
        };
        for name in ["publisher", "forward"] {
            demo.end(name)?;
        }
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

    /// A token to publish and to watch, minted in the pod with the key that the operator made.
    fn token(&self) -> anyhow::Result<String> {
        let mint = || {
            let mut kubectl = self.kubectl()?;
            kubectl.args(["exec", "cam-0", "--", "media-server", "token"]);
            kubectl.args(["--device", "*", "--grant", "publish,view", "--ttl", "24h"]);
            Ok(kubectl)
        };
        let out = machine::until("minting a token", Duration::from_secs(60), mint, |out| {
            !out.trim().is_empty()
        })?;
        Ok(out.trim().to_owned())
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
        self.spawn("forward", &mut program)?;
        let log = self.log("forward");
        machine::until(
            "carrying ports into the cluster",
            Duration::from_secs(10),
            || {
                let mut cat = Command::new("cat");
                cat.arg(&log);
                Ok(cat)
            },
            |out| out.contains("carrying"),
        )?;
        Ok(())
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

    /// Starts the test device anew, and watches it with a headless viewer.
    fn publish_and_watch(&self, token: &str) -> anyhow::Result<()> {
        self.end("publisher")?;
        let mut publisher = self.client("media-test-publisher");
        publisher
            .args(["--whip", &format!("http://{HOST}/whip/{DEVICE}")])
            .env("MEDIA_PUBLISH_TOKEN", token);
        self.spawn("publisher", &mut publisher)?;
        let watch = || {
            let mut viewer = self.client("media-load");
            viewer
                .args(["--whep", &format!("http://{HOST}/whep/{DEVICE}")])
                .args(["--publishers", "0", "--viewers", "1", "--duration", "6"])
                .args(["--device", DEVICE, "--codec", "h264"])
                .env("MEDIA_LOAD_TOKEN", token);
            Ok(viewer)
        };
        let frames = |out: &str| {
            serde_json::from_str::<serde_json::Value>(out)
                .ok()
                .and_then(|report| report["video_frames"].as_u64())
                .unwrap_or(0)
        };
        let out = machine::until(
            "watching the picture",
            Duration::from_secs(60),
            watch,
            |out| frames(out) >= FRAMES,
        )
        .with_context(|| format!("the device's log is {}", self.log("publisher").display()))?;
        println!("watched {} frames", frames(&out));
        Ok(())
    }

    /// A program of the client that reaches the example's host at this machine's port.
    fn client(&self, name: &str) -> Command {
        let mut command = Command::new(sh::root().join("target/debug").join(name));
        command
            .arg(format!("--resolve={HOST}={LOOPBACK}:{}", self.http))
            .arg(format!("--bind={}", self.address));
        command
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

    fn page(&self, token: &str) -> String {
        let origin = match self.https {
            Some(https) => format!("https://{}:{https}", host(self.address)),
            None => format!("http://{LOOPBACK}:{}", self.http),
        };
        format!("{origin}/#token={token}&device={DEVICE}")
    }

    fn summary(&self, token: &str, query: &str) {
        println!("\nThe page, with a token to publish and to watch for 24 hours:");
        println!("    {}", self.page(token));
        if self.https.is_some() {
            println!("    Its certificate is self-signed: the browser asks once.");
        }
        println!("The metrics of the pod:");
        println!("    curl http://{LOOPBACK}:{}/metrics", self.metrics);
        println!(
            "Prometheus is at http://{LOOPBACK}:{}; sessions, by promql:",
            self.prometheus
        );
        println!("    {query}");
        println!("kubectl and helm for the cluster:");
        println!(
            "    eval \"$(cargo xtask cluster env)\"; $IN_CLUSTER kubectl -n {NAMESPACE} get mediaservice,pods"
        );
    }

    /// Stays until interrupted, or until a process of the demo ends.
    fn hold(&self) -> anyhow::Result<()> {
        println!("holding; Ctrl-C leaves everything running");
        loop {
            for name in ["publisher", "forward"] {
                if self.running(name).is_none() {
                    bail!("{name} has ended; its log is {}", self.log(name).display());
                }
            }
            std::thread::sleep(Duration::from_secs(2));
        }
    }

    /// Which address the HTTP port leads to.
    fn target_file(&self) -> PathBuf {
        self.folder.join("http-target")
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}.log"))
    }

    /// Starts a process that stays after this one and ends with the cluster.
    fn spawn(&self, name: &str, command: &mut Command) -> anyhow::Result<()> {
        let log = File::create(self.log(name))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .env(Cluster::MARK, self.cluster.state())
            .process_group(0)
            .spawn()
            .with_context(|| format!("can't start {}", command.get_program().display()))?;
        std::fs::write(
            self.folder.join(format!("{name}.pid")),
            child.id().to_string(),
        )?;
        Ok(())
    }

    /// The process of that name, if it runs; a number that is another's by now is not it.
    fn running(&self, name: &str) -> Option<String> {
        let pid = std::fs::read_to_string(self.folder.join(format!("{name}.pid"))).ok()?;
        self.cluster.owns(&pid).then_some(pid)
    }

    /// Ends a process that [`Self::spawn`] started, in this run or an earlier one.
    fn end(&self, name: &str) -> anyhow::Result<()> {
        let Some(pid) = self.running(name) else {
            return Ok(());
        };
        sh::output(Command::new("kill").arg(&pid))?;
        let asked = Instant::now();
        while self.cluster.owns(&pid) {
            if asked.elapsed() > Duration::from_secs(10) {
                bail!("{name}, process {pid}, does not end");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
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

/// An address as a URL has it.
fn host(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}
