//! Chromium publishes, and Chromium watches behind a narrow link: the publisher is asked for less, and the
//! picture goes on without a break.

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::json;
use tests::browser::Options;
use tests::link::{Conditions, Direction, Link};
use tests::{Browser, Connections, MediaServer, wait_for};

const SOON: Duration = Duration::from_secs(90);

/// Publishes noise, which takes all the bandwidth that there may be: 1.5 Mbit/s.
const PUBLISH: &str = r"
const [url] = arguments;
return (async () => {
  const canvas = Object.assign(document.createElement('canvas'), {width: 320, height: 180});
  document.body.append(canvas);
  const context = canvas.getContext('2d');
  const picture = context.createImageData(320, 180);
  setInterval(() => {
    for (let at = 0; at < picture.data.length; at += 1) picture.data[at] = Math.random() * 256;
    context.putImageData(picture, 0, 0);
  }, 66);
  const stream = canvas.captureStream(15);
  const pc = new RTCPeerConnection({bundlePolicy: 'max-bundle'});
  pc.addTransceiver(stream.getVideoTracks()[0], {direction: 'sendonly'});
  return negotiate('publisher', pc, url, sdp => sdp.replace('b=AS:12000', 'b=AS:1500'));
})();";

/// Watches with its media led to another address.
const WATCH: &str = r"
const [url, ip, port] = arguments;
const pc = new RTCPeerConnection({bundlePolicy: 'max-bundle'});
pc.addTransceiver('video', {direction: 'recvonly'});
const video = Object.assign(document.createElement('video'), {muted: true, autoplay: true});
document.body.append(video);
pc.ontrack = ({track}) => { video.srcObject = new MediaStream([track]); };
return negotiate('viewer', pc, url, sdp => sdp.replace(/a=candidate:.*\r\n/g, '')
  .replace(/a=end-of-candidates/,
    `a=candidate:1 1 udp 2130706431 ${ip} ${port} typ host\r\na=end-of-candidates`));";

/// What the publisher's encoder is told to send.
const SENT: &[&str] = &[
    "targetBitrate",
    "framesSent",
    "qualityLimitationReason",
    "pliCount",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_sends_what_its_viewer_behind_a_narrow_link_can_take_and_more_when_it_can() {
    let server = MediaServer::open(&[]).await;
    let link = Link::start(server.media, 1);
    let (sending, watching) = tokio::join!(
        Browser::start(Options::default()),
        Browser::start(Options::default())
    );
    let sender = Connections::open(&sending, &server.url("/health")).await;
    let receiver = Connections::open(&watching, &server.url("/health")).await;
    let url = json!(server.url("/whip/cam-1"));
    let negotiated = sender.run(PUBLISH, vec![url]).await;
    let answer = negotiated["answer"].as_str().unwrap_or_default();
    for agreed in ["goog-remb", "transport-cc", "transport-wide-cc"] {
        assert!(answer.contains(agreed), "{agreed} in {answer}");
    }
    let (url, led) = (server.url("/whep/cam-1"), link.address());
    wait_for("the viewer to be let in", SOON, || async {
        let args = vec![json!(url), json!(led.ip()), json!(led.port())];
        watching.run(WATCH, args).await
    })
    .await;
    let target = |within: std::ops::Range<f64>| {
        let (sender, receiver) = (&sender, &receiver);
        async move {
            let what = format!("the publisher to send {within:?} bits per second");
            wait_for(&what, SOON, || async {
                let sent = sender.statistics("publisher", "outbound-rtp", SENT).await?;
                let sent = sent.first().context("nothing is sent")?;
                match sent["targetBitrate"].as_f64() {
                    Some(bits) if within.contains(&bits) => Ok(()),
                    _ => bail!("{sent}, seen {}", receiver.received("viewer").await?),
                }
            })
            .await;
        }
    };
    let frames = |more: u64| {
        let receiver = &receiver;
        async move {
            let before = receiver.received("viewer").await;
            let before = before.ok().and_then(|seen| seen["framesDecoded"].as_u64());
            wait_for(&format!("{more} more pictures"), SOON, || async {
                let seen = receiver.received("viewer").await?;
                match seen["framesDecoded"].as_u64() {
                    Some(now) if now >= before.unwrap_or(0) + more => Ok(()),
                    _ => bail!("{seen}, {before:?} before"),
                }
            })
            .await;
        }
    };
    frames(30).await;
    target(1_000_000.0..f64::MAX).await;

    link.set(Direction::ToClient, Conditions::narrow(600_000, 40_000));
    target(1.0..620_000.0).await;
    frames(100).await;

    let wide = Conditions {
        rate: None,
        ..Conditions::narrow(600_000, 40_000)
    };
    link.set(Direction::ToClient, wide);
    target(1_000_000.0..f64::MAX).await;
    frames(30).await;
    tokio::join!(sending.close(), watching.close());
}
