//! What every viewer's packets say about the server: how long forwarding took, and when a viewer
//! saw its first whole keyframe. Fed on the packet path, so it counts and does nothing else.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use client::{KeyframeWatch, PacketSink, ReceivedPacket, Stamp};

use crate::layers::Layers;
use crate::report::{Percentiles, milliseconds};

/// The clock that publishers stamp by, and the latencies of all viewers while it is recording.
pub struct Meter {
    start: Instant,
    recording: AtomicBool,
    latency: Histogram,
}

impl Meter {
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
            recording: AtomicBool::new(false),
            latency: Histogram::default(),
        }
    }

    /// Now, on the clock of the stamps.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Whether latencies are kept from now on, and layers counted.
    pub fn record(&self, on: bool) {
        self.recording.store(on, Ordering::Relaxed);
    }

    pub fn is_recording(&self) -> bool {
        self.recording.load(Ordering::Relaxed)
    }

    /// The latencies so far; `None` if no stamped packet came.
    pub fn latency(&self) -> Option<(Percentiles, u64)> {
        let samples = self.latency.len();
        (samples > 0).then(|| (self.latency.percentiles(), samples))
    }
}

/// What one viewer sees.
pub struct Eye {
    meter: Arc<Meter>,
    layers: Arc<Layers>,
    choice: usize,
    /// When its first packet came, on the clock of the stamps.
    began: OnceLock<Duration>,
    seen: Mutex<Seen>,
    picture: OnceLock<Instant>,
}

/// Until there is a picture.
#[derive(Default)]
struct Seen {
    first: Option<Stamp>,
    keyframe: KeyframeWatch,
}

impl Eye {
    /// The eye of a viewer with that choice of a layer.
    pub fn new(meter: Arc<Meter>, layers: Arc<Layers>, choice: usize) -> Self {
        Self {
            meter,
            layers,
            choice,
            began: OnceLock::new(),
            seen: Mutex::default(),
            picture: OnceLock::new(),
        }
    }

    /// Which of the choices of a layer its viewer has.
    pub fn choice(&self) -> usize {
        self.choice
    }

    /// When the first keyframe was whole.
    pub fn picture(&self) -> Option<Instant> {
        self.picture.get().copied()
    }

    /// What came before a picture: the first packet, and how much of a keyframe, as
    /// [`KeyframeWatch::most`] has it.
    pub fn seen(&self) -> (Option<Stamp>, Option<(u32, u32)>) {
        let seen = self.lock();
        (seen.first, seen.keyframe.most())
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PacketSink for Eye {
    fn packet(&self, packet: &ReceivedPacket<'_>) {
        let Some(stamp) = Stamp::read(packet.payload) else {
            return;
        };
        let at = packet.at.saturating_duration_since(self.meter.start);
        // What was sent before comes from a server's cache: how old it is says nothing of forwarding.
        let is_forwarded = stamp.sent >= *self.began.get_or_init(|| at);
        if self.meter.is_recording() {
            if is_forwarded {
                self.meter.latency.add(at.saturating_sub(stamp.sent));
            }
            self.layers
                .got(self.choice, stamp.layer, packet.payload.len());
        }
        if self.picture.get().is_none() {
            let mut seen = self.lock();
            seen.first.get_or_insert(stamp);
            if seen.keyframe.add(&stamp) {
                // Lost only to itself: one task drives a viewer.
                let _ = self.picture.set(packet.at);
            }
        }
    }
}

/// Durations by buckets: exact below 64 µs, then 32 to an octave, so at most 3 % off. The last
/// bucket takes what is longer than a minute.
struct Histogram {
    buckets: Box<[AtomicU64]>,
    max_us: AtomicU64,
}

const EXACT: u64 = 64;
const PER_OCTAVE: u64 = 32;
/// 2²⁶ µs are 67 s.
const OCTAVES: u64 = 21;

impl Default for Histogram {
    fn default() -> Self {
        let buckets = EXACT + OCTAVES * PER_OCTAVE;
        Self {
            buckets: (0..buckets).map(|_| AtomicU64::new(0)).collect(),
            max_us: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    fn add(&self, value: Duration) {
        let us = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        let last = self.buckets.len() - 1;
        self.buckets[bucket(us).min(last)].fetch_add(1, Ordering::Relaxed);
        self.max_us.fetch_max(us, Ordering::Relaxed);
    }

    fn len(&self) -> u64 {
        self.buckets
            .iter()
            .map(|bucket| bucket.load(Ordering::Relaxed))
            .sum()
    }

    fn percentiles(&self) -> Percentiles {
        let max = self.max_us.load(Ordering::Relaxed);
        let total = self.len();
        let rank = |part: f64| {
            let rank = (part * total as f64).ceil() as u64;
            let mut seen = 0;
            for (index, bucket) in self.buckets.iter().enumerate() {
                seen += bucket.load(Ordering::Relaxed);
                if seen >= rank.max(1) {
                    return milliseconds(Duration::from_micros(middle(index).min(max)));
                }
            }
            0.0
        };
        Percentiles {
            p50: rank(0.5),
            p99: rank(0.99),
            max: milliseconds(Duration::from_micros(max)),
        }
    }
}

fn bucket(us: u64) -> usize {
    if us < EXACT {
        return us as usize;
    }
    let octave = u64::from(us.ilog2()) - u64::from(EXACT.ilog2());
    let step = us >> (octave + 1);
    (EXACT + octave * PER_OCTAVE + step - PER_OCTAVE) as usize
}

/// The middle of a bucket, in µs.
fn middle(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < EXACT {
        return bucket;
    }
    let (octave, step) = ((bucket - EXACT) / PER_OCTAVE, (bucket - EXACT) % PER_OCTAVE);
    ((PER_OCTAVE + step) << (octave + 1)) + (1 << octave)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bucket_lies_within_three_percent_of_what_falls_into_it() {
        let mut before = 0;
        for us in (0..200_000u64).chain([1 << 25, (1 << 26) - 1]) {
            let index = bucket(us);
            assert!(index >= before, "{us} falls back");
            before = index;
            let off = middle(index).abs_diff(us) as f64;
            assert!(
                off <= us as f64 * 0.03,
                "{us} is taken for {}",
                middle(index)
            );
        }
        assert!(bucket((1 << 26) - 1) < (EXACT + OCTAVES * PER_OCTAVE) as usize);
    }

    #[test]
    fn percentiles_come_from_the_counts_and_the_longest_is_exact() {
        let histogram = Histogram::default();
        for us in 1..=100 {
            histogram.add(Duration::from_micros(us * 10));
        }
        histogram.add(Duration::from_secs(400));
        let percentiles = histogram.percentiles();
        assert!((percentiles.p50 - 0.51).abs() < 0.02, "{percentiles:?}");
        assert!((percentiles.p99 - 1.0).abs() < 0.04, "{percentiles:?}");
        assert_eq!(percentiles.max, 400_000.0);
        assert_eq!(histogram.len(), 101);
    }

    #[test]
    fn what_a_viewer_gets_from_a_cache_is_no_latency() {
        let meter = Arc::new(Meter::new());
        meter.record(true);
        let layers = Arc::new(Layers::new(1, &[]));
        let eye = Eye::new(meter.clone(), layers, 0);
        let arrives = |at: u64, sent: u64| {
            let stamp = Stamp {
                frame: 0,
                index: 0,
                last: 9,
                keyframe: false,
                layer: 0,
                sent: Duration::from_millis(sent),
            };
            let mut payload = vec![0; Stamp::LEN];
            assert!(stamp.write(&mut payload));
            eye.packet(&ReceivedPacket {
                at: meter.start + Duration::from_millis(at),
                codec: None,
                payload_type: 96,
                ssrc: 1,
                sequence: 1,
                timestamp: 1,
                marker: false,
                payload: &payload.into(),
            });
        };
        // Two of the cache, of which the later is read behind the first one that was forwarded.
        for (at, sent) in [(1_000, 100), (1_010, 1_005), (1_020, 900)] {
            arrives(at, sent);
        }
        let (percentiles, samples) = meter.latency().expect("one was forwarded");
        assert_eq!((samples, percentiles.max), (1, 5.0));
    }
}
