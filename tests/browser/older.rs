//! Pages of the service before in Chromium, unchanged: each dialect that its clients speak gets a picture, and
//! its touch reaches the device.

use std::time::Duration;

use anyhow::bail;
use serde_json::{Value, json};
use tests::browser::Options;
use tests::{Browser, Connections, MediaServer, wait_for};

const SOON: Duration = Duration::from_secs(60);

/// Publishes the camera, keeps what comes on `control`, and says that it has.
const PUBLISH: &str = r"
const [url] = arguments;
return (async () => {
  const stream = await navigator.mediaDevices.getUserMedia({video: {width: 320, height: 240}, audio: true});
  const pc = new RTCPeerConnection({bundlePolicy: 'max-bundle'});
  stream.getTracks().forEach(track => pc.addTransceiver(track, {direction: 'sendonly'}));
  const control = pc.createDataChannel('control');
  window.orders = [];
  control.onmessage = ({data}) => {
    const {viewer, ...order} = JSON.parse(data);
    orders.push(order);
    control.send(JSON.stringify({type: 'ack', viewer}));
  };
  await negotiate('publisher', pc, url);
  await new Promise((resolve, reject) => { control.onopen = resolve; control.onclose = reject; });
})();";

/// Dialect D, as the screen mirror of the admin pages speaks it; a second argument adds to the connection's
/// configuration.
pub const MIRROR: &str = r"
const [device, forced] = arguments;
const post = async (path, body) => {
  const headers = {'content-type': 'application/json'};
  const response = await fetch('/api/media' + path, {method: 'POST', headers, body: JSON.stringify(body)});
  return {status: response.status, body: await response.json()};
};
return (async () => {
  const created = await post('/sessions', {deviceId: device, userId: 'ann'});
  const {sessionId, offer, iceServers} = created.body;
  const pc = new RTCPeerConnection({iceServers, ...forced});
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
  window.heard = [];
  control.onmessage = ({data}) => heard.push(JSON.parse(data));
  window.control = control;
  window.session = sessionId;
  return {
    statuses: [created.status, early.status, answered.status], early: early.body,
    channel: {label, ordered, maxRetransmits, id}, offer: offer.sdp, answer: pc.localDescription.sdp,
    tracks: video.srcObject.getTracks().map(track => track.kind).sort(),
    stream: video.srcObject.id, iceServers,
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

    async fn sees_a_picture(&self) {
        sees_a_picture(&Connections(&self.watching)).await;
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

    /// Waits until the watching page has heard these and nothing else, in any order.
    async fn page_hears(&self, answers: &[Value]) {
        let sorted = |answers: &[Value]| {
            let mut sorted: Vec<String> = answers.iter().map(Value::to_string).collect();
            sorted.sort();
            sorted
        };
        wait_for("the page to hear every answer", SOON, || async {
            let heard = self.watching.run("return heard", vec![]).await?;
            let all = heard.as_array().cloned().unwrap_or_default();
            if sorted(&all) == sorted(answers) {
                return Ok(());
            }
            bail!("{heard}")
        })
        .await;
    }

    async fn end(self) {
        tokio::join!(self.sending.close(), self.watching.close());
    }
}

/// Waits until the connection `viewer` of the page has decoded some pictures.
pub async fn sees_a_picture(watcher: &Connections<'_>) {
    wait_for("pictures to be decoded", SOON, || async {
        let list = watcher
            .statistics("viewer", "inbound-rtp", &["kind", "framesDecoded"])
            .await?;
        let decoded = |seen: &Value| seen["framesDecoded"].as_u64() > Some(10);
        if list.iter().any(decoded) {
            return Ok(());
        }
        bail!("{list:?}")
    })
    .await;
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
    scene.page_hears(&[json!({"type": "ack"})]).await;

    let script = "return (async () => {
        const url = `/api/media/sessions/${session}`;
        const state = (await (await fetch(url)).json()).state;
        const {totalSessions, activeSessions} = await (await fetch('/api/media/stats')).json();
        const ends = [await fetch(url, {method: 'DELETE'}), await fetch(url, {method: 'DELETE'})];
        return [state, totalSessions, activeSessions, ...ends.map(({status}) => status)];
    })()";
    let ended = watcher.run(script, vec![]).await;
    assert_eq!(ended, json!(["connected", 1, 1, 200, 404]));
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

/// What the pages with a WebSocket have in common: a connection that shows what comes, and a list of what the
/// server said.
const SOCKET: &str = r"
window.player = () => {
  const pc = new RTCPeerConnection();
  connections.viewer = pc;
  window.video = document.body.appendChild(document.createElement('video'));
  video.muted = true;
  pc.ontrack = ({streams}) => { video.srcObject = streams[0]; video.play(); };
  return pc;
};
window.dial = (url, hear) => new Promise((resolve, reject) => {
  const socket = new WebSocket(url.replace('http', 'ws'));
  window.socket = socket;
  window.heard = [];
  socket.onmessage = ({data}) => { const message = JSON.parse(data); heard.push(message); hear?.(message); };
  socket.onopen = () => resolve(socket);
  socket.onerror = reject;
});
window.say = message => socket.send(JSON.stringify(message));";

/// Dialect A, as the players of the admin pages speak it.
const PLAYER: &str = r"
const [base, deviceId] = arguments;
return (async () => {
  const pc = player();
  pc.onicecandidate = ({candidate}) => { if (candidate) say({type: 'ice-candidate', candidate}); };
  const answered = new Promise((resolve, reject) => dial(`${base}/ws/device/${deviceId}`, async message => {
    if (message.type === 'offer') {
      await pc.setRemoteDescription({type: 'offer', sdp: message.sdp});
      await pc.setLocalDescription(await pc.createAnswer());
      say({type: 'answer', sdp: pc.localDescription.sdp});
      resolve(message.sessionId);
    } else if (message.type === 'error') reject(new Error(message.error));
  }).then(() => say({type: 'start-stream', deviceId}), reject));
  return await answered;
})();";

/// Dialect B, as the user's player speaks it: it offers by REST, and hears the answer on its WebSocket.
const USER: &str = r"
const [base, deviceId] = arguments;
return (async () => {
  const pc = player();
  pc.addTransceiver('video', {direction: 'recvonly'});
  await pc.setLocalDescription(await pc.createOffer());
  const body = JSON.stringify({deviceId, offer: pc.localDescription.sdp});
  const headers = {'content-type': 'application/json'};
  const session = await (await fetch('/api/media/sessions', {method: 'POST', headers, body})).json();
  pc.onicecandidate = ({candidate}) => { if (candidate) say({type: 'ice-candidate', candidate}); };
  const answered = new Promise((resolve, reject) => dial(`${base}/api/media/ws?sessionId=${session.id}`,
    async message => {
      if (message.type !== 'answer' || pc.remoteDescription) return;
      await pc.setRemoteDescription({type: 'answer', sdp: message.answer});
      resolve();
    }).then(() => say({type: 'join', sessionId: session.id}), reject));
  await answered;
  return session.id;
})();";

/// Dialect C, as the manual has it: a session by REST, its answer by WebSocket, and control as well.
const MANUAL: &str = r"
const [base, deviceId] = arguments;
return (async () => {
  const pc = player();
  const headers = {'content-type': 'application/json'};
  const body = JSON.stringify({deviceId, userId: 'ann'});
  const {sessionId, offer} = await (await fetch('/api/media/sessions', {method: 'POST', headers, body})).json();
  await dial(`${base}/api/media/ws?userId=ann&deviceId=${deviceId}`);
  pc.onicecandidate = ({candidate}) => { if (candidate) say({type: 'ice-candidate', sessionId, candidate}); };
  await pc.setRemoteDescription(offer);
  await pc.setLocalDescription(await pc.createAnswer());
  say({type: 'answer', sessionId, sdp: pc.localDescription});
  return sessionId;
})();";

#[tokio::test(flavor = "multi_thread")]
async fn players_with_a_websocket_get_a_picture_and_one_controls_the_device_over_it() {
    let scene = Scene::set().await;
    let base = scene.server.url("");
    for dialect in [PLAYER, USER, MANUAL] {
        let watcher = Connections::open(&scene.watching, &scene.server.url("/health")).await;
        watcher.run(SOCKET, vec![]).await;
        let session = watcher
            .run(dialect, vec![json!(base), json!("cam-1")])
            .await;
        assert!(session.is_string(), "{session}");
        scene.sees_a_picture().await;
    }
    let watcher = Connections(&scene.watching);
    // The manual's control names no session: it means the one that the page has answered.
    let script = "say({type: 'control', action: 'touch', deviceId: 'cam-1', x: 5, y: 6});
        say({type: 'control', action: 'key', deviceId: 'cam-2', keyCode: 4});";
    watcher.run(script, vec![]).await;
    let tap = json!({"type": "touch", "deviceId": "cam-1", "action": "tap", "x": 5, "y": 6});
    scene.device_gets(&json!([tap])).await;
    let answers = [
        json!({"type": "ack"}),
        json!({"type": "error", "code": "forbidden"}),
    ];
    scene.page_hears(&answers).await;
    scene.end().await;
}
