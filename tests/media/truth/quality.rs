//! What the network does to media: the link is set, and the devices count what they send.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use client::Resource;
use tests::link::{Conditions, Direction, Fate, Jitter, Kind, Seen};
use tests::truth::{Row, measure, settle};
use tests::{Link, MediaServer, wait_for};

use super::{VP8, through};
use crate::device::{Device, session_id};
use crate::media::{PATIENCE, publish, publish_with, watch_with};

const ROLES: [&str; 2] = ["publisher", "viewer"];
const JITTER: Jitter = Jitter::Alternating(Duration::from_millis(30));
const LOSS: f64 = 0.05;
/// Packets until loss is read: more than the ten seconds that the figure looks back on.
const WINDOW: usize = 4_500;
/// Packets that a mean is over: four seconds.
const MEASURED: usize = 1_600;
/// Until the estimate of jitter has settled: it halves its distance to the truth every eleven packets.
const SETTLED: usize = 80;
/// Figures are of windows of a second: two looks so far apart are at two of them.
const APART: Duration = Duration::from_millis(1_200);
/// Until a figure is right for two windows: on a machine that has much else to do, links and clients are late.
const WITHIN: Duration = Duration::from_secs(60);
/// Between a datagram's passing the link and its being seen by the server's thread, on a busy machine.
const SCHEDULING_MS: f64 = 20.0;

pub async fn rows() -> Vec<Row> {
    let server = MediaServer::open(&[]).await;
    let link = |seed| Link::start(server.media, seed);
    let (far, lossy, shaky) = (
        [link(41), link(42)],
        [link(43), link(44)],
        [link(45), link(46)],
    );
    far.iter().for_each(|link| link.set_both(delayed(50)));
    let firsts = far.each_ref().map(Firsts::at);
    let publisher = publish_with(&server, "far", VP8, &through(&far[0])).await;
    let viewer = watch_with(&server, "far", VP8, &through(&far[1])).await;
    let unlucky = watch_with(&server, "far", VP8, &through(&lossy[1])).await;
    let losing = publish_with(&server, "lossy", VP8, &through(&lossy[0])).await;
    let shaken = publish_with(&server, "shaky", VP8, &through(&shaky[0])).await;
    let steady = publish(&server, "steady", VP8).await;
    let shaken_viewer = watch_with(&server, "steady", VP8, &through(&shaky[1])).await;
    let directions = [Direction::ToServer, Direction::ToClient];
    for ((direction, lossy), shaky) in directions.into_iter().zip(&lossy).zip(&shaky) {
        let loss = Conditions {
            loss: LOSS,
            ..Conditions::default()
        };
        lossy.set(direction, loss);
        let jitter = Conditions {
            jitter: JITTER,
            ..Conditions::default()
        };
        shaky.set(direction, jitter);
    }

    let devices = [
        Device::new(&publisher, 100, 4),
        Device::new(&losing, 100, 4),
    ];
    // Packets lie further apart than the jitter.
    let slow = [Device::new(&shaken, 25, 1), Device::new(&steady, 25, 1)];
    let of_far = async {
        let both = [publisher.resource(), viewer.viewer.resource()];
        // The first window of the gauges is over then.
        devices[0].sends(800).await;
        let mut rows = measure(3, async || rates(&server, &devices[0], both).await).await;
        rows.extend(round_trips(&server, both, 50).await);
        // Not what the handshake took: what it is now.
        far.iter().for_each(|link| link.set_both(delayed(20)));
        rows.extend(round_trips(&server, both, 20).await);
        let sent = devices[0].packets();
        devices[0].sends(WINDOW.saturating_sub(sent)).await;
        let truth = told(&lossy[1], Direction::ToClient, "viewer");
        rows.push(loss(&server, unlucky.viewer.resource(), LOSS, &truth).await);
        let truth = "viewer: a link that loses nothing";
        rows.push(loss(&server, viewer.viewer.resource(), 0.0, truth).await);
        rows
    };
    let of_lossy = async {
        devices[1].sends(WINDOW).await;
        let truth = told(&lossy[0], Direction::ToServer, "publisher");
        loss(&server, losing.resource(), LOSS, &truth).await
    };
    let of_shaken = async {
        slow[0].sends(SETTLED).await;
        jitter(&server, shaken.resource(), JITTER, "publisher").await
    };
    let of_steady = async {
        slow[1].sends(SETTLED).await;
        let calm = steady.resource();
        [
            jitter(&server, shaken_viewer.viewer.resource(), JITTER, "viewer").await,
            jitter(&server, calm, Jitter::None, "publisher").await,
        ]
    };
    let (mut rows, lost, of_shaken, of_steady) = tokio::join!(
        devices[0].while_sending(of_far),
        devices[1].while_sending(of_lossy),
        slow[0].while_sending(of_shaken),
        slow[1].while_sending(of_steady),
    );
    rows.extend([lost, of_shaken]);
    rows.extend(of_steady);
    let sessions = [publisher.resource(), viewer.viewer.resource()];
    for ((firsts, resource), role) in firsts.iter().zip(sessions).zip(ROLES) {
        rows.push(connection_time(&server, resource, firsts, role).await);
    }
    rows
}

fn delayed(ms: u64) -> Conditions {
    Conditions {
        delay: Duration::from_millis(ms),
        ..Conditions::default()
    }
}

async fn round_trips(server: &MediaServer, both: [&Resource; 2], delay_ms: u64) -> [Row; 2] {
    let of = |at: usize| {
        settled(server, both[at], move || {
            let truth = format!("{}: a link of {delay_ms} ms each way", ROLES[at]);
            let trip = 2.0 * delay_ms as f64;
            Row::new("media_rtt_milliseconds", truth, trip, 10.0, None)
        })
    };
    tokio::join!(of(0), of(1)).into()
}

/// The mean of the gauges over some seconds beside what the device counts in them.
async fn rates(server: &MediaServer, device: &Device<'_>, both: [&Resource; 2]) -> Vec<Row> {
    const FRAME_RATE: &str = "media_video_frame_rate";
    const BITRATE: &str = "media_video_bitrate_bps";
    let sessions = both.map(session_id);
    let looks = RefCell::new(Vec::new());
    let (mark, until) = (device.mark(), device.packets() + MEASURED);
    wait_for("the device to send", PATIENCE, || async {
        let metrics = server.metrics().await;
        let read = |session: &String| {
            [FRAME_RATE, BITRATE].map(|family| metrics.value(family, &[("session_id", &**session)]))
        };
        looks.borrow_mut().push(sessions.each_ref().map(read));
        match device.packets() {
            sent if sent >= until => Ok(()),
            sent => Err(format!("{sent} of {until} packets")),
        }
    })
    .await;
    let sent = device.rates_since(mark);
    let looks = looks.into_inner();
    let mean = |role: usize, family: usize| {
        let sum: Option<f64> = looks.iter().map(|look| look[role][family]).sum();
        sum.map(|sum| sum / looks.len() as f64)
    };
    let mut rows = Vec::new();
    for (at, role) in ROLES.into_iter().enumerate() {
        let truth = format!("{role}: frames that the device sends");
        let (expected, allowed) = (sent.frames, 0.05 * sent.frames);
        rows.push(Row::new(FRAME_RATE, truth, expected, allowed, mean(at, 0)));
        let truth = format!("{role}: bits of payload that the device sends");
        let (expected, allowed) = (sent.bits, 0.05 * sent.bits);
        rows.push(Row::new(BITRATE, truth, expected, allowed, mean(at, 1)));
    }
    rows
}

async fn loss(server: &MediaServer, resource: &Resource, share: f64, truth: &str) -> Row {
    let row = || Row::new("media_packet_loss_ratio", truth, share, 0.01, None);
    settled(server, resource, row).await
}

async fn jitter(server: &MediaServer, resource: &Resource, jitter: Jitter, role: &str) -> Row {
    let millis = |jitter: Jitter| jitter.interarrival().as_secs_f64() * 1e3;
    let truth = match jitter {
        Jitter::None => format!("{role}: a link without jitter"),
        _ => format!("{role}: every other datagram 30 ms later"),
    };
    let (expected, allowed) = (millis(jitter), 0.2 * millis(JITTER));
    let row = || {
        Row::new(
            "media_jitter_milliseconds",
            &*truth,
            expected,
            allowed,
            None,
        )
    };
    settled(server, resource, row).await
}

/// A row with a session's figure once it is right for two windows.
async fn settled(server: &MediaServer, resource: &Resource, row: impl Fn() -> Row) -> Row {
    let session = session_id(resource);
    settle(WITHIN, APART, async || {
        let metrics = server.metrics().await;
        let row = row();
        let read = metrics.value(row.family, &[("session_id", &*session)]);
        Row { read, ..row }
    })
    .await
}

/// What the link lost of the media that it carried.
fn told(link: &Link, direction: Direction, role: &str) -> String {
    let tally = link.tally(direction);
    let lost = tally.of(Kind::Rtp, Fate::Lost);
    let all = lost + tally.of(Kind::Rtp, Fate::Delivered);
    format!("{role}: a link that loses 5 % ({lost} of {all})")
}

async fn connection_time(
    server: &MediaServer,
    resource: &Resource,
    firsts: &Firsts,
    role: &str,
) -> Row {
    let family = "media_ice_connection_time_milliseconds";
    let session = session_id(resource);
    let metrics = server.metrics().await;
    let of_session = [("session_id", &*session)];
    let read = |part: &str| metrics.value(&format!("{family}{part}"), &of_session);
    let sum = read("_sum").filter(|_| read("_count") == Some(1.0));
    let truth = format!("{role}: first check to first DTLS at the far end of the link");
    let passed = firsts.between().as_secs_f64() * 1e3;
    // The peer heard the answer and said so: it can't have taken less than there and back, 50 ms each.
    assert!(passed >= 100.0, "{passed} ms");
    Row::new(family, truth, passed, SCHEDULING_MS, sum)
}

/// When the first datagram of a kind arrived at the server's end: a check, DTLS.
#[derive(Clone, Default)]
struct Firsts(Arc<Mutex<[Option<Instant>; 2]>>);

impl Firsts {
    fn at(link: &Link) -> Self {
        let firsts = Self::default();
        let noted = firsts.clone();
        link.watch(Direction::ToServer, move |seen: &Seen<'_>| {
            let index = match seen.datagram.kind {
                Kind::Stun => 0,
                Kind::Dtls => 1,
                _ => return,
            };
            noted.lock()[index].get_or_insert(seen.at);
        });
        firsts
    }

    fn between(&self) -> Duration {
        match *self.lock() {
            [Some(check), Some(dtls)] => dtls - check,
            other => panic!("a session that connected has both: {other:?}"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, [Option<Instant>; 2]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
