//! Pages of the service before in Chromium, unchanged: each dialect that its clients speak gets a picture, and
//! its touch reaches the device.

use std::time::Duration;

use anyhow::bail;
use serde_json::{Value, json};
use tests::browser::Options;
use tests::{Browser, Connections, MediaServer, wait_for};

const SOON: Duration = Duration::from_secs(60);

/// Publishes the camera and keeps what comes on `control`.
const PUBLISH: &str = r"
const [url] = arguments;
return (async () => {
  const stream = await navigator.mediaDevices.getUserMedia({video: {width: 320, height: 240}, audio: true});
  const pc = new RTCPeerConnection({bundlePolicy: 'max-bundle'});
  stream.getTracks().forEach(track => pc.addTransceiver(track, {direction: 'sendonly'}));
  const control = pc.createDataChannel('control');
  window.orders = [];
  control.onmessage = ({data}) => { const {viewer, ...order} = JSON.parse(data); orders.push(order); };
  await negotiate('publisher', pc, url);
  await new Promise((resolve, reject) => { control.onopen = resolve; control.onclose = reject; });
})();";

/// Dialect D, as the screen mirror of the admin pages speaks it.
const MIRROR: &str = r"
const [device] = arguments;
const post = async (path, body) => {
  const headers = {'content-type': 'application/json'};
  const response = await fetch('/api/media' + path, {method: 'POST', headers, body: JSON.stringify(body)});
  return {status: response.status, body: await response.json()};
};
return (async () => {
  const created = await post('/sessions', {deviceId: device, userId: 'ann'});
  const {sessionId, offer, iceServers} = created.body;
  const pc = new RTCPeerConnection({iceServers});
  connections.viewer = pc;
  window.video = document.body.appendChild(document.createElement('video'));
  video.muted = true;
  pc.ontrack = ({streams}) => { video.srcObject = streams[0]; video.play(); };
  const channel = new Promise(resolve => { pc.ondatachannel = ({channel}) => resolve(channel); });
  const candidates = [];
  pc.onicecandidate = ({candidate}) => { if (candidate) candidates.push(candidate.toJSON()); };
  await pc.setRemoteDescription(offer);
  await pc.setLocalDescription(await pc.createAnswer());
  await new Promise(resolve => setTimeout(resolve, 100));
  const early = await post('/sessions/ice-candidates', {sessionId, candidates});
  const answered = await post('/sessions/answer', {sessionId, answer: pc.localDescription});
  const control = await channel;
  if (control.readyState !== 'open') await new Promise(resolve => { control.onopen = resolve; });
  const {label, ordered, maxRetransmits, id} = control;
  window.control = control;
  window.session = sessionId;
  return {
    statuses: [created.status, early.status, answered.status], early: early.body,
    channel: {label, ordered, maxRetransmits, id}, offer: offer.sdp, answer: pc.localDescription.sdp,
    tracks: video.srcObject.getTracks().map(track => track.kind).sort(),
    stream: video.srcObject.id,
  };
})();";

/// A server, a page that publishes a device, and a page that is to watch it.
struct Scene {
    server: MediaServer,
    sending: Browser,
    watching: Browser,
}

impl Scene {
    async fn set() -> Scene {
        let server = MediaServer::open(&[]).await;
        let (sending, watching) = tokio::join!(
            Browser::start(Options::default()),
            Browser::start(Options::default())
        );
        let sender = Connections::open(&sending, &server.url("/health")).await;
        let url = json!(server.url("/whip/cam-1"));
        sender.run(PUBLISH, vec![url]).await;
        Scene {
            server,
            sending,
            watching,
        }
    }

    /// Waits until the watching page has decoded some pictures and plays them.
    async fn sees_a_picture(&self) {
        let watcher = Connections(&self.watching);
        wait_for("pictures to be decoded", SOON, || async {
            let list = watcher
                .statistics("viewer", "inbound-rtp", &["kind", "framesDecoded"])
                .await?;
            let decoded = |seen: &&Value| seen["framesDecoded"].as_u64() > Some(10);
            if list.iter().any(|seen| decoded(&seen)) {
                return Ok(());
            }
            bail!("{list:?}")
        })
        .await;
    }

    /// Waits until the device has got these orders.
    async fn device_gets(&self, orders: &Value) {
        wait_for("the device to get every order", SOON, || async {
            let got = self.sending.run("return orders", vec![]).await?;
            if got == *orders {
                return Ok(());
            }
            bail!("{got}")
        })
        .await;
    }

    async fn end(self) {
        tokio::join!(self.sending.close(), self.watching.close());
    }
}

fn touch() -> Value {
    json!({"type": "touch", "deviceId": "cam-1", "action": "tap", "x": 12.5, "y": 9, "timestamp": 1_700_000_000_000_u64})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_screen_mirror_gets_picture_and_sound_and_its_touch_reaches_the_device() {
    let scene = Scene::set().await;
    let watcher = Connections::open(&scene.watching, &scene.server.url("/health")).await;
    let mirrored = watcher.run(MIRROR, vec![json!("cam-1")]).await;
    assert_eq!(mirrored["statuses"], json!([200, 200, 200]), "{mirrored}");
    let early = &mirrored["early"];
    assert_eq!(early["added"], early["total"], "{mirrored}");
    assert!(early["added"].as_u64() > Some(0), "{mirrored}");
    let channel = json!({"label": "control", "ordered": true, "maxRetransmits": null, "id": 1});
    assert_eq!(mirrored["channel"], channel, "{mirrored}");
    assert_eq!(mirrored["tracks"], json!(["audio", "video"]), "{mirrored}");
    assert_eq!(mirrored["stream"], "cloudphone-video");
    let answer = mirrored["answer"].as_str().unwrap_or_default();
    assert!(answer.contains("a=setup:active"), "{answer}");
    scene.sees_a_picture().await;

    let script = "control.send(JSON.stringify(arguments[0]))";
    watcher.run(script, vec![touch()]).await;
    scene.device_gets(&json!([touch()])).await;

    let script = "return (async () => {
        const url = `/api/media/sessions/${session}`;
        const state = (await (await fetch(url)).json()).state;
        const ends = [await fetch(url, {method: 'DELETE'}), await fetch(url, {method: 'DELETE'})];
        return [state, ...ends.map(({status}) => status)];
    })()";
    let ended = watcher.run(script, vec![]).await;
    assert_eq!(ended, json!(["connected", 200, 404]));
    wait_for("the page to notice the end", SOON, || async {
        let state = watcher.run("return control.readyState", vec![]).await;
        if state == "closed" {
            Ok(())
        } else {
            Err(state)
        }
    })
    .await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_comes_before_its_device_gets_the_picture_when_it_is_there() {
    let server = MediaServer::open(&[]).await;
    let (sending, watching) = tokio::join!(
        Browser::start(Options::default()),
        Browser::start(Options::default())
    );
    let sender = Connections::open(&sending, &server.url("/health")).await;
    let watcher = Connections::open(&watching, &server.url("/health")).await;
    let mirrored = watcher.run(MIRROR, vec![json!("cam-1")]).await;
    assert_eq!(mirrored["statuses"], json!([200, 200, 200]), "{mirrored}");
    let metrics = server.metrics().await;
    assert_eq!(metrics.value("media_waiting_viewers", &[]), Some(1.0));
    let url = json!(server.url("/whip/cam-1"));
    sender.run(PUBLISH, vec![url]).await;
    let scene = Scene {
        server,
        sending,
        watching,
    };
    scene.sees_a_picture().await;
    let metrics = scene.server.metrics().await;
    assert_eq!(metrics.value("media_waiting_viewers", &[]), Some(0.0));
    scene.end().await;
}
