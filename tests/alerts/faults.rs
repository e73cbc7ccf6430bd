//! The faults: each breaks one thing of a MediaService, or the operator, that worked, and mends it as its
//! runbook says.

use std::time::Duration;

use anyhow::{Context, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Kubectl, cluster, operator, wait_for};
use tokio::task::JoinHandle;
use tokio::time::interval;

use crate::firing::Breakable;
use crate::network::Network;
use crate::service::{DEVICE, Service, namespace};
use crate::stream::{self, Stream};

const FIRST: &str = "node1";
const SECOND: &str = "node2";

/// Longest wait for something that takes seconds.
const SOON: Duration = Duration::from_secs(120);

/// A device in a network of its own, and a viewer in the cluster's.
pub struct PublisherNetwork {
    service: Service,
    viewers: Stream,
    network: Network,
}

/// The fault is 30 s of one viewer. That is little of what these watch in a quarter of an hour, so the
/// slower pair of windows, whose alert is due then, has nothing to say.
const CROWD: usize = 15;

impl PublisherNetwork {
    pub async fn ready(name: &str) -> Self {
        let service = Service::ready(&namespace(name), "cam", FIRST, 8443, json!({})).await;
        let (signalling, http) = (service.signalling.clone(), service.http());
        let network = Network::of(move || stream::publish(signalling, http));
        Self {
            viewers: Stream::of_viewer(&service),
            service,
            network,
        }
    }
}

impl Breakable for PublisherNetwork {
    async fn breaks(&mut self) {
        self.network.stop();
    }

    async fn is_mended(&mut self) {
        self.network.go_on();
        self.viewers.add_viewers(&self.service, CROWD);
    }
}

/// The only pod, alone on a node.
pub struct Pod {
    service: Service,
    _stream: Stream,
}

impl Pod {
    pub async fn ready(name: &str) -> Self {
        let service = Service::ready(&namespace(name), "cam", SECOND, 8444, json!({})).await;
        Self {
            _stream: Stream::start(&service),
            service,
        }
    }
}

impl Breakable for Pod {
    /// As a power cut: nobody says goodbye, and nobody starts it again.
    async fn breaks(&mut self) {
        run(&["stop", "2"]).await;
    }

    async fn is_mended(&mut self) {
        run(&["node", "2"]).await;
        self.service.is_ready().await;
    }
}

/// A command of the cluster's script, which takes its time; the other faults go on meanwhile.
async fn run(args: &'static [&'static str]) {
    let done = tokio::task::spawn_blocking(|| cluster::run(args)).await;
    done.expect("it does not panic")
        .expect("the node can be stopped and started");
}

/// A recording on a claim whose disk is small.
pub struct Disk {
    service: Service,
    recording: String,
    _stream: Stream,
}

/// Half a minute of what the device sends.
const DISK_BYTES: &str = "4m";
const DISK_FOLDER: &str = "/var/lib/alerts-disk";

impl Disk {
    pub async fn ready(name: &str) -> Self {
        let kubectl = namespace(name);
        let mount = format!(
            "mkdir -p {DISK_FOLDER} && mount -t tmpfs -o size={DISK_BYTES},mode=0777 disk {DISK_FOLDER}"
        );
        cluster::run(&["in", FIRST, "sh", "-c", &mount]).expect("the node gets a disk");
        let volume = json!({"apiVersion": "v1", "kind": "List", "items": [
            {
                "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
                "spec": {
                    "capacity": {"storage": "4Mi"}, "accessModes": ["ReadWriteMany"],
                    "storageClassName": "", "hostPath": {"path": DISK_FOLDER},
                },
            },
            {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "recordings"},
                "spec": {
                    "resources": {"requests": {"storage": "4Mi"}}, "accessModes": ["ReadWriteMany"],
                    "storageClassName": "", "volumeName": name,
                },
            },
        ]});
        kubectl
            .apply(&volume.to_string())
            .expect("a claim can be made");
        let recording = json!({"recording": {"enabled": true, "claimName": "recordings"}});
        let service = Service::ready(&kubectl, "cam", FIRST, 8445, recording).await;
        Self {
            _stream: Stream::start(&service),
            service,
            recording: String::new(),
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.service.signalling);
        let mut request = reqwest::Client::new()
            .request(method, url)
            .bearer_auth(&self.service.token);
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let response = request.send().await?;
        let (status, text) = (response.status(), response.text().await?);
        ensure!(status.is_success(), "{path}: {status} {text}");
        Ok(serde_json::from_str(&text)?)
    }

    async fn start(&self) -> anyhow::Result<String> {
        let all = self.ask(Method::GET, "/api/v1/sessions", None).await?;
        let sessions = all["sessions"].as_array().context("a list")?;
        let device = sessions
            .iter()
            .find(|session| session["role"] == "publisher" && session["connected"] == true);
        let session = &device.with_context(|| all.to_string())?["id"];
        let body = json!({"sessionId": session, "deviceId": DEVICE});
        let answer = self
            .ask(Method::POST, "/api/media/recordings", Some(body))
            .await?;
        let id = answer["recording"]["id"].as_str().context("an id")?;
        Ok(id.to_owned())
    }

    /// Waits until the server says that of the recording.
    async fn says(&self, id: &str, what: &str, is: impl Fn(&Value) -> bool) {
        wait_for(what, SOON, || async {
            let path = format!("/api/media/recordings/{id}");
            let now = self.ask(Method::GET, &path, None).await?["recording"].take();
            ensure!(is(&now), "{now}");
            anyhow::Ok(())
        })
        .await;
    }
}

impl Breakable for Disk {
    async fn breaks(&mut self) {
        let id = self.start().await.expect("there is room at first");
        let full = |now: &Value| now["reason"] == "the disk is full";
        self.says(&id, "the disk to be full", full).await;
        self.recording = id;
    }

    /// As the runbook says: what is old is deleted, and then there is room.
    async fn is_mended(&mut self) {
        let path = format!("/api/media/recordings/{}", self.recording);
        let deleted = self.ask(Method::DELETE, &path, None).await;
        deleted.expect("it can be deleted");
        let id = self.start().await.expect("there is room again");
        let written = |now: &Value| now["durationSeconds"].as_f64() > Some(1.0);
        self.says(&id, "something to be recorded", written).await;
        let stop = format!("/api/media/recordings/{id}/stop");
        let stopped = self.ask(Method::POST, &stop, None).await;
        let stopped = stopped.expect("it ends when it is told to");
        assert_eq!(stopped["recording"]["state"], "completed", "{stopped}");
    }
}

/// One that is flooded, and one beside it in the same namespace, where all is well.
pub struct Flood {
    flooded: Service,
    _streams: [Stream; 2],
    _door: Service,
    flood: Vec<JoinHandle<()>>,
}

/// Requests in a second, of all that flood.
const FLOOD: u32 = 50;

impl Flood {
    pub async fn ready(name: &str) -> Self {
        let kubectl = namespace(name);
        let (flooded, door) = tokio::join!(
            Service::ready(&kubectl, "cam", FIRST, 8446, json!({})),
            Service::ready(&kubectl, "door", FIRST, 8447, json!({})),
        );
        Self {
            _streams: [Stream::start(&flooded), Stream::start(&door)],
            flooded,
            _door: door,
            flood: Vec::new(),
        }
    }
}

impl Breakable for Flood {
    /// Tokens that are none, and good ones with one letter of the signature changed.
    async fn breaks(&mut self) {
        let (rest, last) = self.flooded.token.split_at(self.flooded.token.len() - 20);
        let changed = if last.starts_with('A') { 'B' } else { 'A' };
        let forged = format!("{rest}{changed}{}", &last[1..]);
        for token in [forged, "guess".to_owned()] {
            let url = format!("{}/whip/{DEVICE}", self.flooded.signalling);
            self.flood.push(tokio::spawn(async move {
                let client = reqwest::Client::new();
                let mut tick = interval(Duration::from_secs(1) * 2 / FLOOD);
                loop {
                    tick.tick().await;
                    let answer = client.post(&url).bearer_auth(&token).send().await;
                    let status = answer.expect("the server answers").status();
                    assert_eq!(status, 401);
                }
            }));
        }
    }

    async fn is_mended(&mut self) {
        for flood in self.flood.drain(..) {
            assert!(!flood.is_finished(), "it was let in, or not answered");
            flood.abort();
        }
    }
}

/// The operator runs; Prometheus is told of it no more.
pub struct Operator;

/// The label by which Prometheus selects.
const SELECTED: &str = "release=kube-prometheus-stack";

impl Operator {
    fn label(label: &str) {
        Kubectl::new(operator::NAMESPACE)
            .run(&["label", "servicemonitor", "mediaservice-operator", label])
            .expect("the chart made it");
    }
}

impl Breakable for Operator {
    async fn breaks(&mut self) {
        Self::label("release-");
    }

    async fn is_mended(&mut self) {
        Self::label(SELECTED);
    }
}
