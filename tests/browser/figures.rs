//! What metrics say of Chromium's sessions beside what Chromium says itself (`getStats`), over a link with delay,
//! jitter and loss: one table. The other families, and other truths, are in `tests/media/truth.rs`.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};
use tests::browser::Options;
use tests::link::{Conditions, Direction, Fate, Jitter, Kind, Link, Seen};
use tests::truth::{Row, check, measure, settle};
use tests::{Browser, Connections, MediaServer, Metrics, wait_for};

const SOON: Duration = Duration::from_secs(90);

const FRAME_RATE: &str = "media_video_frame_rate";
const BITRATE: &str = "media_video_bitrate_bps";
const LOSS: &str = "media_packet_loss_ratio";
const TRIP: &str = "media_rtt_milliseconds";
const JITTER: &str = "media_jitter_milliseconds";

/// Publishes noise, of which every second has as many bits, with its media led through a link.
const PUBLISH: &str = r"
const [url, ip, port] = arguments;
return (async () => {
  const canvas = Object.assign(document.createElement('canvas'), {width: 320, height: 180});
  document.body.append(canvas);
  const context = canvas.getContext('2d');
  const picture = context.createImageData(320, 180);
  setInterval(() => {
    for (let at = 0; at < picture.data.length; at += 1) picture.data[at] = Math.random() * 256;
    context.putImageData(picture, 0, 0);
  }, 50);
  const stream = canvas.captureStream(20);
  const pc = new RTCPeerConnection({bundlePolicy: 'max-bundle'});
  pc.addTransceiver(stream.getVideoTracks()[0],
    {direction: 'sendonly', sendEncodings: [{maxBitrate: 1_000_000}]});
  return negotiate('publisher', pc, url, led(ip, port));
})();";

const WATCH: &str = r"
const [url, ip, port] = arguments;
const pc = new RTCPeerConnection({bundlePolicy: 'max-bundle'});
pc.addTransceiver('video', {direction: 'recvonly'});
const video = Object.assign(document.createElement('video'), {muted: true, autoplay: true});
document.body.append(video);
pc.ontrack = ({track}) => { video.srcObject = new MediaStream([track]); };
return negotiate('viewer', pc, url, led(ip, port));";

/// Changes an answer so that media goes to another address.
const LED: &str = r"
window.led = (ip, port) => sdp => sdp.replace(/a=candidate:.*\r\n/g, '')
  .replace(/a=end-of-candidates/,
    `a=candidate:1 1 udp 2130706431 ${ip} ${port} typ host\r\na=end-of-candidates`);";

/// What Chromium has counted of a connection since its beginning, and what it says of now.
#[derive(Debug, Clone, Copy)]
struct Counted {
    at: Instant,
    frames: f64,
    bytes: f64,
    /// That came; of a publisher, that were sent.
    packets: f64,
    lost: f64,
    trip_ms: f64,
}

/// One of the two sessions.
struct Side<'a> {
    page: &'a Connections<'a>,
    name: &'static str,
    session: String,
    /// Names of Chromium's counts: the type, then frames, bytes and packets; and the type that has the lost ones.
    counts: [&'static str; 5],
    /// Of a publisher: Chromium does not see what comes out of its link.
    at_link: Option<AtLink>,
}

const PUBLISHED: [&str; 5] = [
    "outbound-rtp",
    "framesSent",
    "bytesSent",
    "packetsSent",
    "remote-inbound-rtp",
];
const WATCHED: [&str; 5] = [
    "inbound-rtp",
    "framesReceived",
    "bytesReceived",
    "packetsReceived",
    "inbound-rtp",
];

impl Side<'_> {
    async fn counted(&self) -> anyhow::Result<Counted> {
        let [media, frames, bytes, packets, report] = self.counts;
        let pairs = ["nominated", "currentRoundTripTime"];
        let pairs = self
            .page
            .statistics(self.name, "candidate-pair", &pairs)
            .await?;
        let pair = pairs.into_iter().find(|pair| pair["nominated"] == true);
        let pair = pair.context("no path yet")?;
        let at = Instant::now();
        let media = self.first(media, &[frames, bytes, packets]).await?;
        let report = self.first(report, &["packetsLost"]).await?;
        Ok(Counted {
            at,
            frames: number(&media, frames)?,
            bytes: number(&media, bytes)?,
            packets: number(&media, packets)?,
            lost: number(&report, "packetsLost")?,
            trip_ms: number(&pair, "currentRoundTripTime")? * 1e3,
        })
    }

    async fn jitter_ms(&self) -> anyhow::Result<f64> {
        match &self.at_link {
            Some(link) => link.jitter_ms().context("nothing was sent"),
            None => Ok(number(&self.first("inbound-rtp", &["jitter"]).await?, "jitter")? * 1e3),
        }
    }

    async fn first(&self, of_type: &str, fields: &[&str]) -> anyhow::Result<Value> {
        let list = self.page.statistics(self.name, of_type, fields).await?;
        let first = list.into_iter().next();
        first.with_context(|| format!("no {of_type} of the {}", self.name))
    }

    fn read(&self, metrics: &Metrics, family: &str) -> Option<f64> {
        metrics.value(family, &[("session_id", &*self.session)])
    }

    fn truth(&self, what: &str) -> String {
        format!("{}: {what}", self.name)
    }
}

fn number(stat: &Value, field: &str) -> anyhow::Result<f64> {
    let number = stat[field].as_f64();
    number.with_context(|| format!("no {field} in {stat}"))
}

/// Interarrival jitter (RFC 3550 A.8) of what leaves a link for the server, by SSRC.
#[derive(Clone, Default)]
struct AtLink(Arc<Mutex<HashMap<[u8; 4], Estimate>>>);

#[derive(Default)]
struct Estimate {
    last: Option<(Instant, u32)>,
    ms: f64,
    packets: u64,
}

impl AtLink {
    fn of(link: &Link) -> Self {
        let at_link = Self::default();
        let noted = at_link.clone();
        link.watch(Direction::ToServer, move |seen: &Seen<'_>| {
            let bytes = seen.datagram.bytes;
            let is_media = seen.fate == Fate::Delivered && seen.datagram.kind == Kind::Rtp;
            if let Some([.., t0, t1, t2, t3, s0, s1, s2, s3]) = bytes.get(..12).filter(|_| is_media)
            {
                let timestamp = u32::from_be_bytes([*t0, *t1, *t2, *t3]);
                let mut estimates = noted.0.lock().unwrap_or_else(PoisonError::into_inner);
                let estimate = estimates.entry([*s0, *s1, *s2, *s3]).or_default();
                estimate.add(seen.at, timestamp);
            }
        });
        at_link
    }

    /// Of the stream with the most packets, which is the video.
    fn jitter_ms(&self) -> Option<f64> {
        let estimates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let video = estimates.values().max_by_key(|estimate| estimate.packets)?;
        Some(video.ms)
    }
}

impl Estimate {
    fn add(&mut self, at: Instant, timestamp: u32) {
        self.packets += 1;
        if let Some((then, before)) = self.last.replace((at, timestamp)) {
            let sent = f64::from(timestamp.wrapping_sub(before).cast_signed()) / 90.0;
            let came = (at - then).as_secs_f64() * 1e3;
            self.ms += ((came - sent).abs() - self.ms) / 16.0;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_of_chromiums_sessions_are_those_that_chromium_has() {
    let server = MediaServer::open(&[]).await;
    let links = [Link::start(server.media, 51), Link::start(server.media, 52)];
    let conditions = Conditions {
        delay: Duration::from_millis(50),
        jitter: Jitter::Uniform(Duration::from_millis(30)),
        ..Conditions::default()
    };
    links.iter().for_each(|link| link.set_both(conditions));
    let at_link = Some(AtLink::of(&links[0]));
    let browser = Browser::start(Options::default()).await;
    let page = Connections::open(&browser, &server.url("/health")).await;
    page.run(LED, vec![]).await;
    let led = |path: &str, link: &Link| {
        let at = link.address();
        vec![json!(server.url(path)), json!(at.ip()), json!(at.port())]
    };
    page.run(PUBLISH, led("/whip/cam-1", &links[0])).await;
    let publisher = Side {
        page: &page,
        name: "publisher",
        session: other_session(&server, &[]).await,
        counts: PUBLISHED,
        at_link,
    };
    wait_for("the viewer to be let in", SOON, || async {
        browser.run(WATCH, led("/whep/cam-1", &links[1])).await
    })
    .await;
    let viewer = Side {
        page: &page,
        name: "viewer",
        session: other_session(&server, &[&publisher.session]).await,
        counts: WATCHED,
        at_link: None,
    };
    let sides = [publisher, viewer];
    let (sending, receiving) = tokio::join!(
        measure(3, async || steady(&server, &sides[0]).await),
        measure(3, async || steady(&server, &sides[1]).await),
    );
    let lossy = Conditions {
        loss: 0.05,
        ..conditions
    };
    links[0].set(Direction::ToServer, lossy);
    links[1].set(Direction::ToClient, lossy);
    let (sent, received) = tokio::join!(loss(&server, &sides[0]), loss(&server, &sides[1]));
    browser.close().await;
    let rows = [sending, receiving, vec![sent, received]].concat();
    check(&[FRAME_RATE, BITRATE, LOSS, TRIP, JITTER], &rows);
}

/// The session that there is beside those.
async fn other_session(server: &MediaServer, known: &[&str]) -> String {
    wait_for("the session", SOON, || async {
        let metrics = server.metrics().await;
        let series = metrics.matching("media_ice_connection_state", &[]);
        let mut ids = series.map(|sample| sample.labels["session_id"].clone());
        ids.find(|id| !known.contains(&&**id)).ok_or("none")
    })
    .await
}

const LOOKED_AT: [&str; 4] = [FRAME_RATE, BITRATE, TRIP, JITTER];

/// What the server and Chromium say at one time.
struct Look {
    gauges: [Option<f64>; 4],
    trip_ms: f64,
    jitter_ms: f64,
}

/// What does not need loss, over a hundred frames: counts, and means of what moves from look to look.
async fn steady(server: &MediaServer, side: &Side<'_>) -> Vec<Row> {
    let first = wait_for("the encoder to use what it may", SOON, || async {
        let fields = ["targetBitrate"];
        let sent = side.page.statistics("publisher", "outbound-rtp", &fields);
        match sent.await?.first() {
            Some(sent) if number(sent, "targetBitrate")? > 900_000.0 => side.counted().await,
            other => bail!("{other:?}"),
        }
    })
    .await;
    let looks = RefCell::new(Vec::new());
    let last = wait_for("a hundred more frames", SOON, || async {
        let metrics = server.metrics().await;
        let gauges = LOOKED_AT.map(|family| side.read(&metrics, family));
        let now = side.counted().await?;
        let jitter_ms = side.jitter_ms().await?;
        let trip_ms = now.trip_ms;
        looks.borrow_mut().push(Look {
            gauges,
            trip_ms,
            jitter_ms,
        });
        match now.frames - first.frames {
            more if more >= 100.0 => Ok(now),
            more => bail!("{more}"),
        }
    })
    .await;
    let looks = looks.into_inner();
    let passed = (last.at - first.at).as_secs_f64();
    let mean = |of: &dyn Fn(&Look) -> Option<f64>| {
        let sum: Option<f64> = looks.iter().map(of).sum();
        sum.map(|sum| sum / looks.len() as f64)
    };
    let trip = mean(&|look| Some(look.trip_ms)).unwrap_or(f64::NAN);
    let jitter = mean(&|look| Some(look.jitter_ms)).unwrap_or(f64::NAN);
    let of_jitter = match side.at_link {
        Some(_) => "jitter (RFC 3550 A.8) behind its link",
        None => "jitter of Chromium",
    };
    let truths = [
        (
            "frames per second of Chromium",
            (last.frames - first.frames) / passed,
            0.1,
        ),
        (
            "payload bits per second of Chromium",
            (last.bytes - first.bytes) * 8.0 / passed,
            0.1,
        ),
        ("currentRoundTripTime of Chromium", trip, 0.1),
        // Each looks at an estimate that jumps with each packet.
        (of_jitter, jitter, 0.25),
    ];
    let rows = (0_usize..).zip(LOOKED_AT).zip(truths);
    rows.map(|((at, family), (what, expected, share))| {
        let read = mean(&|look| look.gauges[at]);
        Row::new(family, side.truth(what), expected, share * expected, read)
    })
    .collect()
}

/// Over the last ten seconds, as the figure is.
async fn loss(server: &MediaServer, side: &Side<'_>) -> Row {
    let mut counts: VecDeque<Counted> = VecDeque::new();
    settle(SOON, Duration::from_secs(1), async || {
        let now = side.counted().await.expect("statistics");
        counts.push_back(now);
        while counts
            .get(1)
            .is_some_and(|next| now.at - next.at >= Duration::from_secs(10))
        {
            counts.pop_front();
        }
        let first = counts[0];
        let is_whole = now.at - first.at >= Duration::from_secs(10);
        let (lost, packets) = (now.lost - first.lost, now.packets - first.packets);
        // Those that a publisher sent have its lost ones among them.
        let all = if side.name == "viewer" {
            packets + lost
        } else {
            packets
        };
        let truth = side.truth(&format!("packetsLost of Chromium, {lost} of {all}"));
        let read = side
            .read(&server.metrics().await, LOSS)
            .filter(|_| is_whole);
        Row::new(LOSS, truth, lost / all, 0.01, read)
    })
    .await
}
