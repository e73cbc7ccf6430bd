//! A node that is drained: its sessions end within the drain's bound, and clients that POST again are
//! served from the other node.
//!
//! The test brings a second node and takes it away again. What the other tests need stays on the first;
//! on the second are the media pod and, so that nobody can help, the operator itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use client::synthetic::FrameSource;
use client::{Codec, Http, PeerState, Publisher, Transport, Viewer};
use serde_json::Value;
use tests::operator::NAMESPACE;
use tests::{Kubectl, cluster, wait_for};
use tokio::task::JoinHandle;

use crate::exposures::{Candidates, candidates, http, over, signalling, told_addresses};
use crate::service::{START, Service, condition};

const FIRST: &str = "node1";
const SECOND: &str = "node2";
const DEVICE: &str = "cam-1";
const CODEC: Codec = Codec::Vp8;

/// What SIGTERM leaves sessions to end by themselves, as the operator has it.
const DRAIN: Duration = Duration::from_secs(5);
/// For the eviction, the kubelet's SIGTERM and the server's goodbye; well below the pod's grace period,
/// after which nobody says goodbye.
const SLACK: Duration = Duration::from_secs(10);
/// From the end of the sessions to a pod that serves on the other node.
const BACK: Duration = Duration::from_secs(90);
const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_ends_its_sessions_within_the_bound_and_the_other_serves_who_posts_again() {
    let nodes = SecondNode::join();
    nodes.run(&["cordon", FIRST]);
    let service = Service::apply("e2e-nodes", None);
    nodes.takes_the_operator().await;
    service.ready().await;
    nodes.run(&["uncordon", FIRST]);
    let of_first = nodes.addresses(FIRST);
    let of_second = nodes.addresses(SECOND);
    assert_ne!(of_first, of_second);
    is_served_at(&service, SECOND, &of_second).await;
    let first = uid(&service.kubectl).expect("the pod is there");

    let clients = Clients::of(&service);
    let stream = clients.served(SOON).await;
    assert_eq!(
        stream.candidates(),
        [of_second.clone(), of_second.clone(), of_second]
    );
    stream.flows().await;

    let begun = Instant::now();
    let drain = tokio::task::spawn_blocking(|| {
        Kubectl::new("default").run(&["drain", SECOND, "--ignore-daemonsets", "--timeout=120s"])
    });
    wait_for("all sessions to end", DRAIN + SLACK, || async {
        let states = stream.states();
        ensure!(states.iter().all(|state| state.is_over()), "{states:?}");
        Ok::<_, anyhow::Error>(())
    })
    .await;
    let ended = begun.elapsed();
    // A goodbye, and not the silence of a process that was killed; and not before its time.
    assert_eq!(stream.states(), [PeerState::Closed; 3]);
    assert!(ended >= DRAIN, "they were cut off after {ended:?}");
    for last in stream.last_packets() {
        let last = last.duration_since(begun);
        assert!(
            last + Duration::from_secs(1) >= DRAIN,
            "no packet after {last:?}"
        );
    }

    let stream = clients.served(BACK).await;
    let served = begun.elapsed();
    assert_eq!(
        stream.candidates(),
        [of_first.clone(), of_first.clone(), of_first.clone()]
    );
    stream.flows().await;
    let said = drain.await.expect("it does not panic");
    said.expect("the drain ends by itself");
    is_served_at(&service, FIRST, &of_first).await;
    let told = begun.elapsed();
    println!(
        "from the drain on: sessions ended {ended:?}, served again {served:?}, in the status {told:?}"
    );
    assert_ne!(uid(&service.kubectl).expect("the pod is there"), first);
    stream.flows().await;
    stream.end(&clients.http).await;
}

/// The pod runs on that node, and the operator knows it.
async fn is_served_at(service: &Service, node: &str, addresses: &Candidates) {
    let told = [&addresses.0[..], &addresses.1[..]].concat();
    let told = told.iter().zip(["udp", "tcp"]);
    let told: Vec<String> = told
        .map(|(at, protocol)| format!("{at}/{protocol}"))
        .collect();
    wait_for(&format!("a ready pod on {node}"), START, || async {
        let pod = service.kubectl.get(&["pod", "cam-0"])?;
        let found = &pod["spec"]["nodeName"];
        ensure!(found == node, "{found}");
        ensure!(is(&pod, "Ready", "True"), "{}", pod["status"]);
        let resource = service.kubectl.get(&["mediaservice", "cam"])?;
        let settled = is(&resource, "Ready", "True") && is(&resource, "Progressing", "False");
        ensure!(settled, "{}", resource["status"]);
        let found = told_addresses(&service.kubectl);
        ensure!(found == told, "{found:?}");
        Ok(())
    })
    .await;
}

fn is(object: &Value, kind: &str, status: &str) -> bool {
    condition(&object["status"], kind).as_deref() == Some(status)
}

fn uid(kubectl: &Kubectl) -> anyhow::Result<String> {
    let pod = kubectl.get(&["pod", "cam-0"])?;
    Ok(pod["metadata"]["uid"].as_str().context("a uid")?.to_owned())
}

/// Whoever publishes and watches, with the token of the beginning.
struct Clients {
    signalling: String,
    http: Http,
}

impl Clients {
    fn of(service: &Service) -> Self {
        Self {
            signalling: signalling(&service.kubectl).expect("there is a Service"),
            http: http(service, DEVICE).expect("there is a token"),
        }
    }

    /// POSTs until a device and two viewers are served.
    async fn served(&self, within: Duration) -> Stream {
        let url = format!("{}/whip/{DEVICE}", self.signalling);
        let udp = over(Transport::Udp);
        let publisher = wait_for("the device to be served", within, || {
            Publisher::connect(&url, &self.http, &udp, &[CODEC])
        })
        .await;
        let publisher = Arc::new(publisher);
        let publishing = tokio::spawn(send(publisher.clone()));
        let url = format!("{}/whep/{DEVICE}", self.signalling);
        let mut viewers = Vec::new();
        for transport in [Transport::Udp, Transport::Tcp] {
            let options = over(transport);
            let viewer = wait_for("a viewer to be served", SOON, || {
                Viewer::connect(&url, &self.http, &options, &[CODEC], None)
            });
            viewers.push(viewer.await);
        }
        Stream {
            publisher,
            publishing,
            viewers,
        }
    }
}

/// Frames until the session is over.
async fn send(publisher: Arc<Publisher>) {
    let track = publisher.track(CODEC).expect("it has one");
    let mut source = FrameSource::new(CODEC, 3, 700, 1);
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let mut index: u32 = 0;
    while !publisher.state().is_over() {
        tick.tick().await;
        let payloads = source.frame(index.is_multiple_of(50));
        let last = payloads.len() - 1;
        for (position, payload) in payloads.into_iter().enumerate() {
            let timestamp = (CODEC.clock_rate() / 50).wrapping_mul(index);
            if let Err(error) = track.send(timestamp, position == last, payload).await {
                // That and why it is over is for the session's state to tell.
                eprintln!("the device: {error:#}");
                return;
            }
        }
        index += 1;
    }
}

/// A device, and a viewer over UDP and one over TCP.
struct Stream {
    publisher: Arc<Publisher>,
    publishing: JoinHandle<()>,
    viewers: Vec<Viewer>,
}

impl Stream {
    /// Where the answers say that media goes.
    fn candidates(&self) -> Vec<Candidates> {
        let viewers = self.viewers.iter().map(Viewer::answer);
        let answers = [self.publisher.answer()].into_iter().chain(viewers);
        answers.map(candidates).collect()
    }

    fn states(&self) -> Vec<PeerState> {
        let viewers = self.viewers.iter().map(Viewer::state);
        [self.publisher.state()]
            .into_iter()
            .chain(viewers)
            .collect()
    }

    /// Each viewer gets a second of packets more.
    async fn flows(&self) {
        for viewer in &self.viewers {
            let before = viewer.packets();
            wait_for("media", SOON, || async {
                let got = viewer.packets() - before;
                ensure!(got >= 150, "{got} packets, {:?}", self.states());
                Ok::<_, anyhow::Error>(())
            })
            .await;
        }
    }

    /// Ends the sessions, so that the pod has none to wait for.
    async fn end(self, http: &Http) {
        let viewers = self.viewers.iter().map(Viewer::resource);
        for resource in [self.publisher.resource()].into_iter().chain(viewers) {
            http.delete(resource).await.expect("the session is there");
        }
    }

    fn last_packets(&self) -> Vec<Instant> {
        let last = |viewer: &Viewer| {
            let reception = viewer.reception();
            reception
                .streams()
                .iter()
                .map(|stream| stream.last_at)
                .max()
        };
        let all = self.viewers.iter().map(last);
        all.map(|last| last.expect("it got packets")).collect()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.publishing.abort();
    }
}

/// The second node of the cluster, until the test ends.
struct SecondNode(Kubectl);

impl SecondNode {
    fn join() -> Self {
        let node = Self(Kubectl::new("default"));
        cluster::run(&["node", "2"]).expect("a second node can join");
        node
    }

    fn run(&self, args: &[&str]) {
        self.0.run(args).expect("the node is there");
    }

    /// The operator's pod goes, and comes back here: the first node takes none.
    async fn takes_the_operator(&self) {
        let operator = Kubectl::new(NAMESPACE);
        let selector = "--selector=app.kubernetes.io/component=operator";
        operator
            .run(&["delete", "pods", selector])
            .expect("the operator's pod can be deleted");
        wait_for("the operator on the second node", START, || async {
            let pods = operator.get(&["pods", selector])?;
            let pod = &pods["items"][0];
            let node = &pod["spec"]["nodeName"];
            ensure!(node == SECOND && is(pod, "Ready", "True"), "{pods}");
            Ok::<_, anyhow::Error>(())
        })
        .await;
    }

    /// Where media of a pod with a port of that node goes, over UDP and over TCP.
    fn addresses(&self, node: &str) -> Candidates {
        let node = self.0.get(&["node", node]).expect("it is there");
        let addresses = node["status"]["addresses"].as_array();
        let mut addresses = addresses.into_iter().flatten();
        let address = addresses
            .find(|address| address["type"] == "InternalIP")
            .and_then(|address| address["address"].as_str())
            .expect("a node has an address");
        let at = vec![format!("{address}:8443")];
        (at.clone(), at)
    }
}

impl Drop for SecondNode {
    fn drop(&mut self) {
        let first = self.0.run(&["uncordon", FIRST]).map(drop);
        let stopped = cluster::run(&["stop", "2"]);
        let gone = self
            .0
            .run(&["delete", "node", SECOND, "--ignore-not-found"])
            .map(drop);
        for error in [first, stopped, gone].into_iter().filter_map(Result::err) {
            eprintln!("{error:#}");
        }
    }
}
