//! What an upgrade and an uninstall of the chart leave alone: the definition, and media that runs.

use std::process::Command;
use std::time::Duration;

use anyhow::{bail, ensure};
use tests::process::{Process, program};
use tests::{Kubectl, Metrics, wait_for};

use crate::{CRD, Clean, MEDIA, NAMESPACE, START, install, kubectl, ok, ready, uninstall};

/// A scrape of a pod, and some hundred packets more.
const FLOWS: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn upgrade_and_uninstall_keep_the_definition_and_a_stream_that_runs() {
    let _clean = Clean::start();
    ok(install("install", "one", &[]));
    let cam = Kubectl::new(MEDIA);
    cam.apply(&crate::media_service("{}"))
        .expect("the manifest is right");
    ready(&cam).await;
    let stream = Stream::start(&cam).await;

    ok(install(
        "upgrade",
        "one",
        &[
            "replicas=2",
            "log.level=debug",
            "resources.requests.cpu=25m",
        ],
    ));
    ok(kubectl(&[
        "rollout",
        "status",
        "deployment/one-mediaservice-operator",
        "--namespace",
        NAMESPACE,
        "--timeout=180s",
    ]));
    stream.goes_on("after the upgrade").await;

    ok(uninstall("one"));
    ok(kubectl(&["get", "crd", CRD]));
    cam.get(&["mediaservice", "cam"])
        .expect("the MediaService stays");
    cam.get(&[
        "statefulset,service,secret",
        "--selector=app.kubernetes.io/instance=cam",
    ])
    .expect("so do its children");
    stream.goes_on("without a chart").await;

    ok(install("install", "one", &[]));
    let change = r#"{"spec":{"monitoring":{"serviceMonitor":{"intervalSeconds":30}}}}"#;
    cam.merge(&["mediaservice", "cam"], change)
        .expect("the patch is right");
    wait_for("the new operator to take up a change", START, || async {
        let monitor = cam.get(&["servicemonitor", "cam"])?;
        let interval = &monitor["spec"]["endpoints"][0]["interval"];
        ensure!(interval == "30s", "{interval}");
        Ok::<_, anyhow::Error>(())
    })
    .await;
    ready(&cam).await;
    stream.goes_on("with the chart again").await;
}

/// One publisher and one viewer, and the pod that they had at the start.
struct Stream<'a> {
    kubectl: &'a Kubectl,
    uid: String,
    load: Process,
}

impl<'a> Stream<'a> {
    async fn start(kubectl: &'a Kubectl) -> Self {
        let token = kubectl
            .run(&[
                "exec",
                "cam-0",
                "--",
                "media-server",
                "token",
                "--device",
                "load",
                "--grant",
                "publish,view",
                "--ttl",
                "1h",
            ])
            .expect("a token can be made in the pod");
        let service = kubectl.get(&["service", "cam"]).expect("it is there");
        let address = service["spec"]["clusterIP"].as_str().expect("an address");
        let mut load = Command::new(program("MEDIA_LOAD", "media-load"));
        load.args(["--whip", &format!("http://{address}/whip")])
            .args(["--whep", &format!("http://{address}/whep")])
            .args(["--token", token.trim()])
            // Longer than the test; it ends with its value.
            .args(["--duration", "900"]);
        let stream = Self {
            kubectl,
            uid: uid(kubectl).expect("the pod is there"),
            load: Process::start("load", &mut load),
        };
        stream.goes_on("at the start").await;
        stream
    }

    /// The same pod carries the same two sessions, and packets flow.
    async fn goes_on(&self, when: &str) {
        let first = wait_for(&format!("two sessions {when}"), FLOWS, || async {
            match self.packets() {
                Err(error) => bail!("{error:#}; {}", self.load.log()),
                found => found,
            }
        })
        .await;
        wait_for(&format!("packets {when}"), FLOWS, || async {
            let now = self.packets()?;
            ensure!(now >= first + 300.0, "{first}, then {now}");
            Ok::<_, anyhow::Error>(())
        })
        .await;
        assert_eq!(
            uid(self.kubectl).expect("the pod is there"),
            self.uid,
            "{when}"
        );
    }

    /// Packets sent until now, if two sessions were ever made and both are open.
    fn packets(&self) -> anyhow::Result<f64> {
        let path = format!("/api/v1/namespaces/{MEDIA}/pods/cam-0:9090/proxy/metrics");
        let metrics = Metrics::parse(&self.kubectl.run(&["get", "--raw", &path])?)?;
        let created = metrics.sum("media_sessions_created_total", &[]);
        let open = metrics.sum("media_active_sessions", &[]);
        ensure!((created, open) == (2.0, 2.0), "{created} made, {open} open");
        Ok(metrics.sum("media_packets_total", &[("direction", "out")]))
    }
}

fn uid(kubectl: &Kubectl) -> anyhow::Result<String> {
    let pod = kubectl.get(&["pod", "cam-0"])?;
    Ok(pod["metadata"]["uid"].to_string())
}
