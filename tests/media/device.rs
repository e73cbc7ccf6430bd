//! A device that goes on sending while a test looks, and knows what it sent.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use client::synthetic::FrameSource;
use client::{Codec, Publisher, Resource};
use tests::{MediaServer, wait_for};
use tokio::time::MissedTickBehavior;

use crate::media::{PATIENCE, Watching};

const CODEC: Codec = Codec::Vp8;

/// Bytes of a payload.
const PAYLOAD: usize = 300;

/// See the module. Sends VP8, with a keyframe at first and whenever it is asked for one.
pub struct Device<'a> {
    publisher: &'a Publisher,
    pace: Duration,
    source: Mutex<FrameSource>,
    sent: Mutex<Sent>,
    began: Instant,
    /// Requests for keyframes that were answered; none at first.
    answered: AtomicU64,
    stop: AtomicBool,
}

#[derive(Default)]
struct Sent {
    payloads: Vec<Vec<u8>>,
    frames: u64,
}

/// Per second.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    pub frames: f64,
    pub bits: f64,
}

impl<'a> Device<'a> {
    pub fn new(publisher: &'a Publisher, frames_per_second: u32, packets_per_frame: usize) -> Self {
        Self {
            publisher,
            pace: Duration::from_secs(1) / frames_per_second,
            source: Mutex::new(FrameSource::new(CODEC, packets_per_frame, PAYLOAD, 1)),
            sent: Mutex::default(),
            began: Instant::now(),
            answered: AtomicU64::new(u64::MAX),
            stop: AtomicBool::new(false),
        }
    }

    /// Sends at its pace until `looking` is done. A frame that is late is sent as soon as it can be.
    pub async fn while_sending<T>(&self, looking: impl Future<Output = T>) -> T {
        self.stop.store(false, Relaxed);
        let looking = async {
            let seen = looking.await;
            self.stop.store(true, Relaxed);
            seen
        };
        let sending = async {
            let mut tick = tokio::time::interval(self.pace);
            // On a busy machine frames come later, not in bursts, which have jitter of their own.
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while !self.stop.load(Relaxed) {
                tick.tick().await;
                self.send_frame().await;
            }
        };
        tokio::join!(looking, sending).0
    }

    async fn send_frame(&self) {
        let asked = self.publisher.keyframe_requests();
        let keyframe = self.answered.swap(asked, Relaxed) != asked;
        let track = self.publisher.track(CODEC).expect("it has a VP8 track");
        let payloads = lock(&self.source).frame(keyframe);
        let last = payloads.len() - 1;
        // The true time, so that what is told from it is the network's doing.
        let passed = self.began.elapsed().as_secs_f64();
        let timestamp = (passed * f64::from(CODEC.clock_rate())) as u32;
        lock(&self.sent).frames += 1;
        for (position, payload) in payloads.into_iter().enumerate() {
            lock(&self.sent).payloads.push(payload.to_vec());
            track
                .send(timestamp, position == last, payload)
                .await
                .unwrap_or_else(|error| panic!("a packet cannot be sent: {error:?}"));
        }
    }

    /// Packets sent so far.
    pub fn packets(&self) -> usize {
        lock(&self.sent).payloads.len()
    }

    pub fn payloads(&self) -> Vec<Vec<u8>> {
        lock(&self.sent).payloads.clone()
    }

    /// What it sent a second since that many packets and frames.
    pub fn rates_since(&self, mark: Mark) -> Rates {
        let seconds = mark.at.elapsed().as_secs_f64();
        let now = self.mark();
        let bits = (now.packets - mark.packets) * PAYLOAD * 8;
        Rates {
            frames: (now.frames - mark.frames) as f64 / seconds,
            bits: bits as f64 / seconds,
        }
    }

    pub fn mark(&self) -> Mark {
        let sent = lock(&self.sent);
        Mark {
            at: Instant::now(),
            packets: sent.payloads.len(),
            frames: sent.frames,
        }
    }

    /// Waits until it has sent so many packets more.
    pub async fn sends(&self, more: usize) {
        let until = self.packets() + more;
        // At its pace, and as long again for a machine that has other work.
        let within = PATIENCE + self.pace * more as u32;
        wait_for("the device to send", within, || async {
            match self.packets() {
                sent if sent >= until => Ok(()),
                sent => Err(format!("{sent} of {until} packets")),
            }
        })
        .await;
    }

    /// Waits until the viewer has all that was sent but for `tolerated` packets of it.
    pub async fn arrived(&self, what: &str, watching: &Watching, tolerated: usize) {
        wait_for(what, PATIENCE, || async {
            let missing = self.missing(watching);
            if missing <= tolerated {
                return Ok(());
            }
            let sent = self.packets();
            let reception = watching.viewer.reception();
            Err(format!("{missing} of {sent} missing, {reception:?}"))
        })
        .await;
    }

    /// Packets that the viewer does not have.
    pub fn missing(&self, watching: &Watching) -> usize {
        let got: HashSet<Vec<u8>> = watching.record.payloads(CODEC).into_iter().collect();
        let sent = lock(&self.sent);
        sent.payloads
            .iter()
            .filter(|sent| !got.contains(*sent))
            .count()
    }

    /// Waits until the viewer has one of the packets that are sent from now on.
    pub async fn gets_through(&self, watching: &Watching) {
        let mark = self.packets();
        wait_for("something new to arrive", PATIENCE, || async {
            let got = watching.record.payloads(CODEC);
            let sent = lock(&self.sent);
            let fresh = |payload: &Vec<u8>| sent.payloads[mark..].contains(payload);
            if got.last().is_some_and(fresh) {
                return Ok(());
            }
            let sent = sent.payloads.len();
            Err(format!("{} of {sent} packets, {mark} before", got.len()))
        })
        .await;
    }
}

/// A moment of a device's sending.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    at: Instant,
    packets: usize,
    frames: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until a figure of a session is right.
pub async fn figure_is(
    server: &MediaServer,
    name: &str,
    resource: &Resource,
    right: impl Fn(f64) -> bool,
) {
    let session = session_id(resource);
    wait_for(
        &format!("{name} of {session} to be right"),
        PATIENCE,
        || async {
            let metrics = server.metrics().await;
            match metrics.value(name, &[("session_id", session.as_str())]) {
                Some(value) if right(value) => Ok(()),
                seen => Err(format!("{seen:?}")),
            }
        },
    )
    .await;
}

/// The session's label in metrics.
pub fn session_id(resource: &Resource) -> String {
    let mut segments = resource.url.path_segments().expect("a URL with a path");
    segments.next_back().expect("a session").to_owned()
}
