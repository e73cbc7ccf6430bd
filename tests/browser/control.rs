//! A touch in one page of Chromium reaches the page that publishes, and its answer comes back.

use std::time::Duration;

use anyhow::bail;
use serde_json::json;
use tests::browser::Options;
use tests::{Browser, Connections, MediaServer, wait_for};

const SOON: Duration = Duration::from_secs(60);

/// Publishes the camera, and answers what comes on `control`: with an error where it knows no such key.
const PUBLISH: &str = r"
const [url] = arguments;
return (async () => {
  const stream = await navigator.mediaDevices.getUserMedia({video: {width: 320, height: 240}});
  const pc = new RTCPeerConnection({bundlePolicy: 'max-bundle'});
  pc.addTransceiver(stream.getVideoTracks()[0], {direction: 'sendonly'});
  const control = pc.createDataChannel('control');
  window.orders = [];
  control.onmessage = ({data}) => {
    const {viewer, id, ...order} = JSON.parse(data);
    orders.push(order);
    const answer = order.type === 'key' ? {type: 'error', code: 'unknown_key'} : {type: 'ack'};
    control.send(JSON.stringify({...answer, id, viewer}));
  };
  const {answer} = await negotiate('publisher', pc, url);
  await new Promise((resolve, reject) => { control.onopen = resolve; control.onclose = reject; });
  return answer;
})();";

/// Watches, sends what it is given once its channel is open, and keeps what comes.
const WATCH: &str = r"
const [url, messages] = arguments;
return (async () => {
  const pc = new RTCPeerConnection({bundlePolicy: 'max-bundle'});
  pc.addTransceiver('video', {direction: 'recvonly'});
  const control = pc.createDataChannel('control');
  window.answers = [];
  control.onmessage = ({data}) => answers.push(JSON.parse(data));
  const {answer} = await negotiate('viewer', pc, url);
  await new Promise((resolve, reject) => { control.onopen = resolve; control.onclose = reject; });
  messages.forEach(message => control.send(JSON.stringify(message)));
  return {answer, id: control.id, max: pc.sctp.maxMessageSize};
})();";

/// Opens a channel of another name on the viewer's connection; true once the server has closed it.
const OTHER: &str = r"
const channel = connections.viewer.createDataChannel('chat');
return new Promise(resolve => { channel.onclose = () => resolve(true); });";

#[tokio::test(flavor = "multi_thread")]
async fn a_touch_in_a_browser_reaches_the_page_that_publishes_and_its_answer_comes_back() {
    let server = MediaServer::open(&[]).await;
    let (sending, watching) = tokio::join!(
        Browser::start(Options::default()),
        Browser::start(Options::default())
    );
    let sender = Connections::open(&sending, &server.url("/health")).await;
    let receiver = Connections::open(&watching, &server.url("/health")).await;
    let url = json!(server.url("/whip/cam-1"));
    let answer = sender.run(PUBLISH, vec![url]).await;
    let line = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel";
    assert!(
        answer.as_str().unwrap_or_default().contains(line),
        "{answer}"
    );

    let touch = json!({"type": "touch", "deviceId": "cam-1", "action": "tap", "x": 12.5, "y": 9});
    let mut sent = touch.clone();
    sent["id"] = json!(1);
    let key =
        json!({"type": "key", "deviceId": "cam-1", "action": "press", "keyCode": 999, "id": 2});
    let elsewhere = json!({"type": "text", "deviceId": "cam-2", "text": "hello", "id": 3});
    let url = json!(server.url("/whep/cam-1"));
    let watched = receiver
        .run(WATCH, vec![url, json!([sent, key, elsewhere])])
        .await;
    assert_eq!(watched["max"], json!(16_384), "{watched}");
    assert_eq!(watched["id"], json!(0), "the client's numbers are even");

    let mut expected = vec![
        json!({"type": "ack", "id": 1}),
        json!({"type": "error", "code": "unknown_key", "id": 2}),
        json!({"type": "error", "code": "forbidden"}),
    ];
    expected.sort_by_key(ToString::to_string);
    wait_for("every answer to come back", SOON, || async {
        let answers = receiver.0.run("return answers", vec![]).await?;
        let mut sorted = answers.as_array().cloned().unwrap_or_default();
        sorted.sort_by_key(ToString::to_string);
        if sorted == expected {
            return Ok(());
        }
        bail!("{answers}")
    })
    .await;
    let orders = sender.run("return orders", vec![]).await;
    assert_eq!(orders[0], touch);
    assert_eq!(orders.as_array().map(Vec::len), Some(2), "{orders}");

    let closed = receiver.run(OTHER, vec![]).await;
    assert_eq!(closed, json!(true), "only one channel is taken");
    wait_for("pictures to go on", SOON, || async {
        let seen = receiver.received("viewer").await?;
        if seen["framesDecoded"].as_u64() > Some(10) {
            return Ok(());
        }
        bail!("{seen}")
    })
    .await;
    tokio::join!(sending.close(), watching.close());
}
