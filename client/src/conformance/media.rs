//! Rows 2, 7 and 9 with real connections: ICE, DTLS, media, an ICE restart on a new socket, an end.
//!
//! Uses the client as a device and a player would.

use super::{Level, Outcome, Protocol, Report};
use crate::error::with_causes;
use crate::synthetic::FrameSource;
use crate::{Codec, Http, Options, Publisher, Viewer};
use reqwest::Url;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, timeout};

const CODEC: Codec = Codec::Vp8;
/// Time between frames: 30 a second.
const FRAME: Duration = Duration::from_millis(33);
/// A keyframe every two seconds, for servers that ask for none.
const KEYFRAME_EVERY: Duration = Duration::from_secs(2);
/// Packets of a frame, and their payload in bytes.
const FRAME_PACKETS: usize = 3;
const PACKET_BYTES: usize = 700;
/// Longest wait for media.
const MEDIA_WITHIN: Duration = Duration::from_secs(10);
/// Longest wait for a server that has just connected to say so to viewers.
const LIVE_WITHIN: Duration = Duration::from_secs(5);

/// Before requests of a connected client, which waits out no 429 as the other checks do: a server that limits
/// rates to some a second has room for them again.
const REST: Duration = Duration::from_secs(2);

/// A publisher that sends until it is dropped.
pub(super) struct Live {
    publisher: Arc<Publisher>,
    sending: JoinHandle<()>,
}

/// Row 2: connects a publisher and keeps it sending.
pub(super) async fn publish(report: &mut Report, http: &Http, url: &Url) -> Option<Live> {
    let name = "a publisher connects (ICE, DTLS)";
    let options = Options::default();
    let connected =
        patient(|| Publisher::connect(url.as_str(), http, &options, &[CODEC, Codec::Opus])).await;
    match connected {
        Ok(publisher) => {
            let seen = format!("after {:?}", publisher.setup_times().connected);
            report.add(2, Protocol::Whip, Level::Must, name, Outcome::Pass, seen);
            let publisher = Arc::new(publisher);
            let sending = tokio::spawn(send(publisher.clone()));
            Some(Live { publisher, sending })
        }
        Err(error) => {
            let seen = with_causes(&error);
            report.add(2, Protocol::Whip, Level::Must, name, Outcome::Fail, seen);
            None
        }
    }
}

/// Rows 2, 7 and 9 of a viewer.
pub(super) async fn watch(report: &mut Report, http: &Http, url: &Url) {
    let mut add = |row, level, name, right: bool, seen: String| {
        let outcome = if right { Outcome::Pass } else { Outcome::Fail };
        report.add(row, Protocol::Whep, level, name, outcome, seen);
    };
    let options = Options::default();
    let connected =
        patient(|| Viewer::connect(url.as_str(), http, &options, &[CODEC, Codec::Opus], None))
            .await;
    let name = "a viewer connects and gets media";
    let mut viewer = match connected {
        Ok(viewer) => viewer,
        Err(error) => return add(2, Level::Must, name, false, with_causes(&error)),
    };
    let first = timeout(MEDIA_WITHIN, viewer.first_packet()).await;
    let seen = match &first {
        Ok(after) => format!(
            "connected after {:?}, media after {after:?}",
            viewer.setup_times().connected
        ),
        Err(_) => format!("connected, but no media within {MEDIA_WITHIN:?}"),
    };
    add(2, Level::Must, name, first.is_ok(), seen);
    if first.is_ok() {
        let name = "a viewer goes on from another port after an ICE restart";
        tokio::time::sleep(REST).await;
        let before = viewer.resource().etag.clone();
        match viewer.restart_ice().await {
            Ok(()) => {
                let counted = viewer.packets();
                let more = more_packets(&viewer, counted).await;
                let seen = format!(
                    "{more} packets more, {} streams; ETag {before:?}, then {:?}",
                    viewer.reception().streams().len(),
                    viewer.resource().etag
                );
                add(7, Level::Must, name, more > 0, seen);
            }
            Err(error) if matches!(error.status(), Some(405 | 422 | 501)) => {
                let seen = format!("not supported: {}", with_causes(&error));
                report.add(7, Protocol::Whep, Level::Must, name, Outcome::Skip, seen);
            }
            Err(error) => add(7, Level::Must, name, false, with_causes(&error)),
        }
    }
    let closed = viewer.close().await;
    let seen = closed
        .as_ref()
        .err()
        .map_or("2xx".to_owned(), |error| with_causes(error));
    let outcome = if closed.is_ok() {
        Outcome::Pass
    } else {
        Outcome::Fail
    };
    report.add(
        9,
        Protocol::Whep,
        Level::Must,
        "a connected viewer leaves by DELETE",
        outcome,
        seen,
    );
}

/// Rows 7 and 9 of the publisher, which ends with it.
pub(super) async fn restart_publisher(report: &mut Report, live: Live) {
    live.sending.abort();
    // The task's share of the publisher goes with it.
    let _ = live.sending.await;
    let Ok(mut publisher) = Arc::try_unwrap(live.publisher) else {
        return;
    };
    let name = "a publisher stays connected through an ICE restart";
    tokio::time::sleep(REST).await;
    let (outcome, seen) = match publisher.restart_ice().await {
        Ok(()) => (Outcome::Pass, format!("{:?}", publisher.state())),
        Err(error) if matches!(error.status(), Some(405 | 422 | 501)) => (
            Outcome::Skip,
            format!("not supported: {}", with_causes(&error)),
        ),
        Err(error) => (Outcome::Fail, with_causes(&error)),
    };
    report.add(7, Protocol::Whip, Level::Must, name, outcome, seen);
    let closed = publisher.close().await;
    let seen = closed
        .as_ref()
        .err()
        .map_or("2xx".to_owned(), |error| with_causes(error));
    let outcome = if closed.is_ok() {
        Outcome::Pass
    } else {
        Outcome::Fail
    };
    let name = "a connected publisher leaves by DELETE";
    report.add(9, Protocol::Whip, Level::Must, name, outcome, seen);
}

/// Tries again while the server says 409, 429 or 503: it limits rates, or is about to be ready.
async fn patient<T, F>(connect: impl Fn() -> F) -> Result<T, crate::ClientError>
where
    F: Future<Output = Result<T, crate::ClientError>>,
{
    let until = Instant::now() + LIVE_WITHIN;
    loop {
        match connect().await {
            Err(error)
                if matches!(error.status(), Some(409 | 429 | 503)) && Instant::now() < until =>
            {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            result => return result,
        }
    }
}

async fn send(publisher: Arc<Publisher>) {
    let Ok(track) = publisher.track(CODEC) else {
        return;
    };
    let mut source = FrameSource::new(CODEC, FRAME_PACKETS, PACKET_BYTES, 1);
    let mut tick = tokio::time::interval(FRAME);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let started = Instant::now();
    let mut keyframe_sent: Option<Instant> = None;
    loop {
        let asked = tokio::select! {
            _ = tick.tick() => false,
            () = publisher.keyframe_requested() => true,
        };
        let due = keyframe_sent.is_none_or(|at| at.elapsed() >= KEYFRAME_EVERY);
        if asked || due {
            keyframe_sent = Some(Instant::now());
        }
        let ticks = started.elapsed().as_secs_f64() * f64::from(CODEC.clock_rate());
        let payloads = source.frame(asked || due);
        let last = payloads.len() - 1;
        for (index, payload) in payloads.into_iter().enumerate() {
            // The timestamp wraps.
            let sent = track
                .send(ticks as u64 as u32, index == last, payload)
                .await;
            if sent.is_err() {
                return;
            }
        }
    }
}

/// Waits until some packets more than `counted` are there; returns how many more.
async fn more_packets(viewer: &Viewer, counted: u64) -> u64 {
    let until = Instant::now() + MEDIA_WITHIN;
    while viewer.packets() < counted + 10 && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    viewer.packets() - counted
}
