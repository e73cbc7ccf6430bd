//! A service that records onto a claim and tells of it: from the claim that is missing, over Secrets that change under a running
//! pod, to a pod that is replaced in the middle of a recording.
//!
//! One test, because a pod takes as long to come and go as all that is asked of it.

mod receivers;
mod volume;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tests::ffmpeg;
use tests::process::{Process, TempDir, program};
use tests::recordings::{Asks, ask, becomes, id, lasts, start, stop};
use tests::wait_for;

use crate::exposures::{condition, pod_uid};
use crate::service::{HOST, START, Service, node};
use receivers::Receivers;
use volume::LocalVolume;

const NAMESPACE: &str = "e2e-kept";
const CLAIM: &str = "recordings";
const DEVICE: &str = "cam-1";

#[tokio::test(flavor = "multi_thread")]
async fn recordings_outlive_their_pod_and_receivers_are_told_of_all_with_the_secrets_of_the_day() {
    let receivers = Receivers::start().await;
    let disk = LocalVolume::new(NAMESPACE, CLAIM);
    let patch = json!({"spec": {
        "image": receivers.image(),
        "recording": {"enabled": true, "claimName": CLAIM, "sizeLimit": "1Gi"},
        "events": receivers.spec(),
    }});
    let service = Service::apply_in(NAMESPACE, Some(&patch.to_string()), &|kubectl| {
        receivers.make_secrets(kubectl);
    });
    wait_for("the operator to miss the claim", START, || async {
        let degraded = condition(&service.kubectl, "Degraded")?;
        let message = degraded["message"].as_str().unwrap_or_default();
        let named = message.contains(&format!("persistentvolumeclaim \"{CLAIM}\" not found"));
        ensure!(
            degraded["reason"] == "PodUnschedulable" && named,
            "{degraded}"
        );
        Ok::<_, anyhow::Error>(())
    })
    .await;
    disk.make(&service.kubectl);
    service.reachable().await;
    let pod = pod_uid(&service.kubectl);

    let outside = Outside::new(&service);
    let folder = TempDir::new("kept");
    let mut device = outside.device(folder.path());
    let first = start(&outside, DEVICE, json!({})).await;
    receivers.trust_the_first_secret().await;
    receivers.change_secrets(&service.kubectl);
    lasts(&outside, &first, 2.0).await;
    let first = stop(&outside, &first).await;
    let before = outside.download(&first, folder.path()).await;
    plays(&before, &first);

    // The pod is the same, and has read both Secrets anew.
    receivers.trust_the_second_secret(&outside).await;
    receivers.broker_has_all().await;
    assert_eq!(pod_uid(&service.kubectl), pod, "nothing was restarted");

    // Under way when its pod goes.
    let second = start(&outside, DEVICE, json!({})).await;
    lasts(&outside, &second, 2.0).await;
    let gone = ["delete", "pod", "cam-0", "--timeout=60s"];
    service.kubectl.run(&gone).expect("the pod can be deleted");
    service.reachable().await;
    assert_ne!(pod_uid(&service.kubectl), pod);
    let bytes = std::fs::read(&before).expect("it is there");
    let after = outside.download(&first, folder.path()).await;
    assert!(bytes == std::fs::read(after).expect("it is there"));
    let second = becomes(&outside, &second, "what was under way", |_| true).await;
    assert_eq!(second["state"], "completed", "{second}");
    plays(&outside.download(&second, folder.path()).await, &second);

    receivers.have_the_story([&first, &second]).await;
    device.signal("TERM");
    wait_for("the device to end", START, || {
        let ended = device.ended();
        async move { ended.ok_or("it publishes") }
    })
    .await;
}

/// A file that ffprobe and ffmpeg have nothing against, as long as the server says.
fn plays(file: &Path, recording: &Value) {
    let probed = ffmpeg::probe(file);
    let stream = &probed["streams"][0];
    assert_eq!(
        (&stream["codec_name"], &stream["width"]),
        (&json!("h264"), &json!(320)),
        "{probed}"
    );
    let told = recording["durationSeconds"].as_f64().expect("a number");
    let found = ffmpeg::seconds(&probed).expect("a length");
    assert!((told - found).abs() <= 0.1, "{told} s, ffprobe: {found} s");
    assert!(found >= 2.0, "{found} s");
    ffmpeg::decode(file);
}

/// Who comes from beyond the nodes, through the Ingress.
struct Outside {
    client: Client,
    url: String,
    token: String,
}

impl Outside {
    fn new(service: &Service) -> Self {
        let at = format!("{}:443", node()).parse().expect("an address");
        let client = Client::builder()
            .danger_accept_invalid_certs(true)
            .resolve(HOST, at);
        Self {
            client: client.build().expect("a client"),
            url: service.url(),
            token: service.token_with(DEVICE, "publish,view,record,admin"),
        }
    }

    /// `media-device` with a file of H.264, which finds the server by the same way.
    fn device(&self, folder: &Path) -> Process {
        let input = folder.join("video.h264");
        std::fs::write(&input, ffmpeg::h264(4).concat()).expect("room");
        let mut command = Command::new(program("MEDIA_DEVICE_BIN", "media-device"));
        command
            .args(["--whip", &format!("{}/whip", self.url), "--insecure"])
            .args(["--resolve", &format!("{HOST}={}:443", node())])
            .args(["--device", DEVICE, "--token", &self.token])
            .args(["--loop", "--fps", "25", "--input"])
            .arg(input);
        Process::start("media-device", &mut command)
    }

    async fn download(&self, recording: &Value, folder: &Path) -> PathBuf {
        let path = format!("/{}/download", id(recording));
        let answer = ask(self, Method::GET, &path, None).await;
        assert_eq!(answer.status(), 200, "{path}");
        let bytes = answer.bytes().await.expect("a whole body");
        let file = folder.join(format!("{}.mp4", id(recording)));
        std::fs::write(&file, bytes).expect("room");
        file
    }
}

impl Asks for Outside {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.url);
        self.client.request(method, url).bearer_auth(&self.token)
    }
}
