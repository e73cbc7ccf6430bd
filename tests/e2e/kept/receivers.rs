//! A webhook and a RabbitMQ beyond the nodes, and the Secrets with which a pod reaches them. Each Secret changes once: what the
//! webhook's events are signed with, and the password for the broker, which is wrong at first.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{bail, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tests::https::{Answer, Https, Request};
use tests::process::TempDir;
use tests::rabbit::Rabbit;
use tests::recordings::{Asks, id};
use tests::webhook::{is_signed, secret, taken};
use tests::{Kubectl, operator, wait_for};
use tokio::sync::Mutex;

use super::{DEVICE, Outside};
use tests::cluster;

/// The machine beyond the nodes, where tests run; see `cluster/cluster`.
const OUTSIDE: &str = "198.18.0.1";
const SECRET: &str = "receivers";
const FIRST: &[u8] = b"what events are signed with once";
const SECOND: &[u8] = b"what they are signed with later.";
const IMAGE: &str = "local/media-server-e2e:1";
/// The kubelet's look at Secrets, and the broker's longest pause by then, on a busy machine.
const REREAD: Duration = Duration::from_secs(90);
const SOON: Duration = Duration::from_secs(60);
/// An offer to watch, as Chromium writes it.
const VIEW: &str = include_str!("../../../media-server/core/src/sdp/data/chromium-view.sdp");

pub struct Receivers {
    webhook: Https,
    broker: Rabbit,
    /// What the broker has got.
    got: Mutex<Vec<Event>>,
    /// Sessions that were only made to be told of.
    probes: Mutex<BTreeSet<String>>,
    _dir: TempDir,
}

/// An event, as both receivers have it.
#[derive(Debug, Clone, PartialEq)]
struct Event {
    id: String,
    body: Value,
}

impl Event {
    fn text(&self, field: &str) -> &str {
        self.body[field].as_str().unwrap_or_default()
    }
}

impl Receivers {
    pub async fn start() -> Self {
        let dir = TempDir::new("rabbit");
        let broker = Rabbit::start_at(dir.path(), OUTSIDE).await;
        broker.bind().await;
        Self {
            webhook: Https::start(OUTSIDE, Answer::status("204 No Content")).await,
            broker,
            got: Mutex::default(),
            probes: Mutex::default(),
            _dir: dir,
        }
    }

    /// The server's image with the webhook's certificate for its roots of trust.
    pub fn image(&self) -> &'static str {
        let images = operator::root().join("target/images");
        let at = |name: &str| images.join(name).display().to_string();
        let program = "/usr/local/bin/media-server";
        let roots = "/etc/ssl/certs/ca-certificates.crt";
        let config = json!({
            "User": "65532:65532", "Entrypoint": [program], "Env": [format!("SSL_CERT_FILE={roots}")],
        });
        let args = [
            "image",
            IMAGE,
            &config.to_string(),
            &format!("{}:/", at("base")),
            &format!("{}:{roots}", self.webhook.ca_file().display()),
            &format!("{}:{program}", at("media-server")),
        ]
        .map(str::to_owned);
        cluster::run(&args.each_ref().map(String::as_str)).expect("the image can be made");
        IMAGE
    }

    /// `spec.events`.
    pub fn spec(&self) -> Value {
        json!({
            "webhookURL": self.webhook.url("/events"),
            "webhookSecretRef": {"name": SECRET, "key": "webhook"},
            "amqpURLSecretRef": {"name": SECRET, "key": "amqp"},
        })
    }

    pub fn make_secrets(&self, kubectl: &Kubectl) {
        let right = self.broker.url();
        let wrong = right.replace("guest:guest", "guest:wrong");
        assert_ne!(wrong, right);
        let webhook = format!("--from-literal=webhook={}", secret(FIRST));
        let amqp = format!("--from-literal=amqp={wrong}");
        let create = ["create", "secret", "generic", SECRET, &webhook, &amqp];
        kubectl.run(&create).expect("the Secret can be made");
    }

    pub fn change_secrets(&self, kubectl: &Kubectl) {
        let data = json!({"webhook": secret(SECOND), "amqp": self.broker.url()});
        kubectl
            .merge(
                &["secret", SECRET],
                &json!({"stringData": data}).to_string(),
            )
            .expect("the Secret can be changed");
    }

    /// The webhook is told of the device, with the Secret that the pod began with.
    pub async fn trust_the_first_secret(&self) {
        wait_for("an event at the webhook", SOON, || async {
            match taken(&self.webhook).first() {
                None => bail!("none of {:?}", self.webhook.requests()),
                Some(first) => {
                    ensure!(is_signed(first, FIRST), "{first:?}");
                    Ok(())
                }
            }
        })
        .await;
        let first = &self.told()[0];
        assert_eq!(
            (first.text("event_type"), first.text("device_id")),
            ("session.created", DEVICE)
        );
    }

    /// Viewers come and go until the webhook is told of one with the changed Secret.
    pub async fn trust_the_second_secret(&self, outside: &Outside) {
        wait_for("an event that is signed anew", REREAD, || async {
            let requests = taken(&self.webhook);
            let last = requests.last().expect("there were some");
            if is_signed(last, SECOND) {
                return Ok(());
            }
            self.probe(outside).await?;
            bail!("{last:?}")
        })
        .await;
    }

    /// The broker has all that the webhook was told, in the same order, though nothing went there at first.
    pub async fn broker_has_all(&self) {
        let told = self.told();
        wait_for("the broker to have all", REREAD, || async {
            let mut got = self.got.lock().await;
            for message in self.broker.take().await {
                let event = Event {
                    id: message.id,
                    body: message.body,
                };
                // A connection that broke may bring some again.
                if !got.contains(&event) {
                    got.push(event);
                }
            }
            ensure!(got.len() >= told.len(), "{} of {}", got.len(), told.len());
            assert_eq!(got[..told.len()], told);
            Ok(())
        })
        .await;
    }

    /// Both have been told of everything that became of the device and its recordings, each in order.
    pub async fn have_the_story(&self, recordings: [&Value; 2]) {
        let probes = self.probes.lock().await.clone();
        let story = |told: &[Event]| -> Vec<(String, String)> {
            let of_device = told
                .iter()
                .filter(|event| !probes.contains(event.text("session_id")));
            of_device
                .map(|event| {
                    let kind = event.text("event_type");
                    let about = match kind {
                        // It may not know the format yet.
                        "recording.started" => event.text("recording_path").split('.').next(),
                        "recording.stopped" => Some(event.text("recording_path")),
                        _ => Some(event.text("reason")),
                    };
                    (kind.to_owned(), about.unwrap_or_default().to_owned())
                })
                .collect()
        };
        let [first, second] = recordings.map(id);
        let expected = [
            ("session.created", String::new()),
            ("recording.started", first.to_owned()),
            ("recording.stopped", format!("{first}.mp4")),
            ("recording.started", second.to_owned()),
            ("session.closed", "drained".to_owned()),
            ("recording.stopped", format!("{second}.mp4")),
            ("session.created", String::new()),
        ];
        let expected = expected.map(|(kind, about)| (kind.to_owned(), about));
        wait_for("the device to be told of again", SOON, || async {
            let found = story(&self.told());
            ensure!(found.len() >= expected.len(), "{found:?}");
            Ok(())
        })
        .await;
        assert_eq!(story(&self.told()), expected);
        let requests = taken(&self.webhook);
        let anew = requests
            .iter()
            .position(|request| is_signed(request, SECOND))
            .expect("the Secret changed");
        let (old, new) = requests.split_at(anew);
        assert!(old.iter().all(|request| is_signed(request, FIRST)));
        assert!(new.iter().all(|request| is_signed(request, SECOND)));
        self.broker_has_all().await;
    }

    /// A viewer comes, never connects and goes.
    async fn probe(&self, outside: &Outside) -> anyhow::Result<()> {
        let offer = outside.request(Method::POST, &format!("/whep/{DEVICE}"));
        let offer = offer.header("content-type", "application/sdp").body(VIEW);
        let opened = offer.send().await?;
        ensure!(opened.status() == 201, "{}", opened.status());
        let path = opened.headers()["location"].to_str()?.to_owned();
        let session = path.rsplit('/').next().unwrap_or_default().to_owned();
        self.probes.lock().await.insert(session);
        // A subject may ask so often and no more.
        wait_for("the viewer to be gone", SOON, || async {
            let deleted = outside.request(Method::DELETE, &path).send().await?;
            ensure!(deleted.status() == 200, "{}", deleted.status());
            Ok::<_, anyhow::Error>(())
        })
        .await;
        Ok(())
    }

    /// What the webhook has taken.
    fn told(&self) -> Vec<Event> {
        let requests = taken(&self.webhook);
        let event = |request: &Request| Event {
            id: request.headers["webhook-id"].clone(),
            body: serde_json::from_str(&request.body).expect("JSON"),
        };
        requests.iter().map(event).collect()
    }
}
