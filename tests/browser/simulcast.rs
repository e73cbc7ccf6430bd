//! Chromium publishes three simulcast layers; three viewers each get the one that they ask for.

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::json;
use tests::browser::Options;
use tests::{Browser, Connections, MediaServer, wait_for};

const SOON: Duration = Duration::from_secs(90);

/// RID, how much smaller than the camera's picture, and its width then. The order is a browser's usual
/// one, the least first; which layer is the best must not be read from it.
const LAYERS: [(&str, u32, u64); 3] = [("q", 4, 320), ("h", 2, 640), ("f", 1, 1280)];

/// Publishes the camera. Few pictures a second, and never fewer pixels: the machine may be busy. A
/// browser begins with little bitrate, which would be some time without the upper layers.
const PUBLISH: &str = r"
const [url, layers] = arguments;
return (async () => {
  const stream = await navigator.mediaDevices.getUserMedia(
    {video: {width: {exact: 1280}, height: {exact: 720}, frameRate: {max: 10}}});
  const pc = new RTCPeerConnection({bundlePolicy: 'max-bundle'});
  const {sender} = pc.addTransceiver(stream.getVideoTracks()[0], {
    direction: 'sendonly',
    sendEncodings: layers.map(([rid, scaleResolutionDownBy]) => ({rid, scaleResolutionDownBy})),
  });
  const parameters = sender.getParameters();
  parameters.degradationPreference = 'maintain-resolution';
  await sender.setParameters(parameters);
  return negotiate('publisher', pc, url, sdp => {
    const vp8 = /a=rtpmap:(\d+) VP8/.exec(sdp)[1];
    return sdp.replace(`a=rtpmap:${vp8} VP8/90000\r\n`,
      line => `${line}a=fmtp:${vp8} x-google-start-bitrate=3000\r\n`);
  });
})();";

/// Opens a viewer under a name.
const WATCH: &str = r"
const [url, name] = arguments;
return (async () => {
  const pc = new RTCPeerConnection({bundlePolicy: 'max-bundle'});
  pc.addTransceiver('video', {direction: 'recvonly'});
  const video = Object.assign(document.createElement('video'), {muted: true, autoplay: true});
  document.body.append(video);
  pc.ontrack = ({track}) => { video.srcObject = new MediaStream([track]); };
  const {link} = await negotiate(name, pc, url);
  pc.layer = /<([^>]+)>; rel=.urn:ietf:params:whep:ext:core:layer/.exec(link)[1];
})();";

/// Pins a viewer to a layer.
const SELECT: &str = r"
const [name, encodingId] = arguments;
return fetch(connections[name].layer, {
  method: 'POST',
  headers: {'content-type': 'application/json'},
  body: JSON.stringify({mediaId: '0', encodingId}),
}).then(response => response.status);";

/// What each layer sends.
const SENT: &[&str] = &[
    "rid",
    "frameWidth",
    "framesSent",
    "pliCount",
    "qualityLimitationReason",
];

/// Waits until a viewer decodes pictures of that width; returns how many it has decoded.
async fn shows(
    sender: &Connections<'_>,
    receiver: &Connections<'_>,
    name: &str,
    width: u64,
) -> u64 {
    let what = format!("{name} to show pictures {width} wide");
    wait_for(&what, SOON, || async {
        let seen = receiver.received(name).await?;
        if seen["frameWidth"] == json!(width) {
            return seen["framesDecoded"].as_u64().context("no frames");
        }
        let sent = sender.statistics("publisher", "outbound-rtp", SENT).await?;
        bail!("{seen}, sent {sent:?}")
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn three_viewers_of_a_browser_that_sends_three_layers_get_one_each() {
    let server = MediaServer::open(&[]).await;
    let (sending, watching) = tokio::join!(
        Browser::start(Options::default()),
        Browser::start(Options::default())
    );
    let sender = Connections::open(&sending, &server.url("/health")).await;
    let receiver = Connections::open(&watching, &server.url("/health")).await;
    let layers: Vec<_> = LAYERS.iter().map(|(rid, scale, _)| (rid, scale)).collect();
    let url = json!(server.url("/whip/cam-1"));
    let negotiated = sender.run(PUBLISH, vec![url, json!(layers)]).await;
    let answer = negotiated["answer"].as_str().unwrap_or_default();
    assert!(answer.contains("a=simulcast:recv q;h;f"), "{answer}");

    wait_for("the browser to send every layer", SOON, || async {
        let sent = sender.statistics("publisher", "outbound-rtp", SENT).await?;
        let all = sent.len() == 3 && sent.iter().all(|l| l["framesSent"].as_u64() > Some(5));
        if all { Ok(()) } else { bail!("{sent:?}") }
    })
    .await;

    for (rid, ..) in LAYERS {
        let url = json!(server.url("/whep/cam-1"));
        receiver.run(WATCH, vec![url, json!(rid)]).await;
        let status = receiver.run(SELECT, vec![json!(rid), json!(rid)]).await;
        assert_eq!(status, json!(200), "{rid}");
    }
    for (rid, _, width) in LAYERS {
        shows(&sender, &receiver, rid, width).await;
    }
    // Each goes on to the next layer, and its pictures go on too.
    for (at, (name, ..)) in LAYERS.iter().enumerate() {
        let (rid, _, width) = LAYERS[(at + 1) % LAYERS.len()];
        let status = receiver.run(SELECT, vec![json!(name), json!(rid)]).await;
        assert_eq!(status, json!(200), "{name} to {rid}");
        let before = shows(&sender, &receiver, name, width).await;
        wait_for("pictures to go on after the change", SOON, || async {
            let seen = receiver.received(name).await?;
            match seen["framesDecoded"].as_u64() {
                Some(now) if now >= before + 20 && seen["frameWidth"] == json!(width) => Ok(()),
                _ => bail!("{seen}, {before} frames at the change"),
            }
        })
        .await;
    }
    tokio::join!(sending.close(), watching.close());
}
