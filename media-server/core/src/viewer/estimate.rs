//! How much there is room for on the way to a viewer, from its feedback on each packet
//! (draft-ietf-rmcat-gcc-02): less when a queue grows or packets are lost, slowly more otherwise.
//!
//! A viewer whose way shows no congestion has room for half as much again as the stream brings: what is
//! not sent can't be measured, and must not hold a stream down that grows.

use super::trend::{Trend, Usage};
use std::time::{Duration, Instant};

/// Bounds of an estimate, in bits per second. The lower one is below what video is sent for at all.
pub(super) const MIN_ESTIMATE: f64 = 30_000.0;
pub(super) const MAX_ESTIMATE: f64 = 1e9;
/// What is supposed of a way without congestion, in parts of the stream.
pub(super) const HEADROOM: f64 = 1.5;
/// Congestion is over once there is room for so much of the stream: with a margin, or it would come and go.
pub(super) const RECOVERED: f64 = 1.2;
/// Part of what arrived that is sent after a queue grew, so that it can empty.
const BACK_OFF: f64 = 0.85;
/// Growth in a second while nothing is known of a limit.
const GROWTH: f64 = 1.08;
/// Near the limit a packet more for each response (§5.5): this many bits.
const PACKET_BITS: f64 = 9_600.0;
/// The estimate stays below what arrives by this much, and a little for the start.
const ABOVE_DELIVERED: f64 = 1.5;
const ABOVE_DELIVERED_BITS: f64 = 10_000.0;
/// A shorter queue is let be.
const QUEUE_MS: f64 = 100.0;
const EMPTYING: Duration = Duration::from_secs(5);
/// Losses beyond this mean congestion (§6).
const MAX_LOSS: f64 = 0.1;
/// A share of losses is told from no fewer packets, and after no shorter a time.
const LOSS_PACKETS: u32 = 20;
const LOSS_TIME: Duration = Duration::from_millis(200);

/// Where deliveries are counted: ten buckets of 50 ms.
const BUCKETS: usize = 10;
const BUCKET_MICROS: i64 = 50_000;

/// Bytes that arrived lately, by the receiver's clock.
#[derive(Debug, Default)]
struct Delivered {
    buckets: [u32; BUCKETS],
    first: Option<i64>,
    newest: i64,
}

impl Delivered {
    fn add(&mut self, at: i64, bytes: u32) {
        let bucket = at.div_euclid(BUCKET_MICROS);
        let newest = self.newest.div_euclid(BUCKET_MICROS);
        if self.first.is_none() || bucket > newest + 100 || bucket < newest - 100 {
            *self = Delivered {
                first: Some(at),
                newest: at,
                ..Delivered::default()
            };
        } else {
            (newest + 1..=bucket)
                .take(BUCKETS)
                .for_each(|b| self.buckets[slot(b)] = 0);
            self.newest = self.newest.max(at);
        }
        let newest = self.newest.div_euclid(BUCKET_MICROS);
        if bucket > newest - BUCKETS as i64 {
            let held = &mut self.buckets[slot(bucket)];
            *held = held.saturating_add(bytes);
        }
    }

    /// Bits per second over the newest `buckets`.
    fn rate(&self, buckets: i64) -> Option<f64> {
        let newest = self.newest.div_euclid(BUCKET_MICROS);
        let start = ((newest - buckets + 1) * BUCKET_MICROS).max(self.first?);
        let span = self.newest - start;
        if span < BUCKET_MICROS {
            return None;
        }
        let bytes: u64 = (newest - buckets + 1..=newest)
            .map(|b| u64::from(self.buckets[slot(b)]))
            .sum();
        Some(bytes as f64 * 8e6 / span as f64)
    }

    /// What the way carries when a queue grows on it. The last moments tell; before them less may have
    /// been sent.
    fn peak(&self) -> Option<f64> {
        let rates = [self.rate(3), self.rate(BUCKETS as i64)];
        rates.into_iter().flatten().reduce(f64::max)
    }
}

fn slot(bucket: i64) -> usize {
    bucket.rem_euclid(BUCKETS as i64) as usize
}

/// See the module.
#[derive(Debug)]
pub(super) struct Estimator {
    rate: f64,
    /// Whether the rate comes from congestion that was seen.
    congested: bool,
    trend: Trend,
    delivered: Delivered,
    /// Rate at which a queue grew last, and how far it varies.
    limit: Option<(f64, f64)>,
    updated: Instant,
    decreased: Option<Instant>,
    /// Packets reported on, and lost, since a share was told last.
    packets: (u32, u32),
    packets_since: Instant,
}

impl Estimator {
    pub(super) fn new(now: Instant, rate: u64) -> Self {
        Estimator {
            rate: (rate as f64).clamp(MIN_ESTIMATE, MAX_ESTIMATE),
            congested: false,
            trend: Trend::new(),
            delivered: Delivered::default(),
            limit: None,
            updated: now,
            decreased: None,
            packets: (0, 0),
            packets_since: now,
        }
    }

    pub(super) fn rate(&self) -> u64 {
        self.rate as u64
    }

    pub(super) fn is_congested(&self) -> bool {
        self.congested
    }

    /// Whether a queue stands on the way, even if it grows no more: then it should empty. One that does
    /// not, whatever this viewer is sent, is somebody else's.
    pub(super) fn is_queued(&self, now: Instant) -> bool {
        self.trend.queue() > QUEUE_MS && self.decreased.is_some_and(|at| now < at + EMPTYING)
    }

    /// When the rate last went down.
    pub(super) fn decreased(&self) -> Option<Instant> {
        self.decreased
    }

    /// A packet arrived. Times are microseconds, each of its own clock.
    pub(super) fn delivered(&mut self, sent: i64, arrived: i64, bytes: u32) {
        self.packets.0 += 1;
        self.trend.add(sent, arrived);
        self.delivered.add(arrived, bytes);
    }

    pub(super) fn lost(&mut self) {
        self.packets.0 += 1;
        self.packets.1 += 1;
    }

    /// Concludes, after the packets of a feedback. `stream` is what the source brings.
    pub(super) fn update(&mut self, now: Instant, round_trip: Duration, stream: u64) {
        let stream = stream as f64;
        let passed = now.saturating_duration_since(self.updated);
        self.updated = now;
        let response = round_trip.max(LOSS_TIME);
        let rested = self.decreased.is_none_or(|at| now >= at + response);
        let loss = self.take_loss(now);
        match self.trend.usage {
            Usage::Over if rested => self.back_off(now),
            Usage::Over | Usage::Under => {}
            Usage::Normal if self.is_queued(now) => {}
            Usage::Normal => self.grow(passed, round_trip),
        }
        // Once for each response, whatever shows it.
        let rested = rested && self.decreased != Some(now);
        if let Some(loss) = loss.filter(|loss| *loss > MAX_LOSS && rested) {
            let arrived = self.delivered.peak().map_or(0.0, |rate| rate * BACK_OFF);
            let less = self.rate * (1.0 - loss / 2.0);
            self.decrease(now, less.max(arrived.min(self.rate)));
        }
        self.congested &= self.rate < RECOVERED * stream;
        if !self.congested && stream > 0.0 {
            self.rate = HEADROOM * stream;
        }
        self.rate = self.rate.clamp(MIN_ESTIMATE, MAX_ESTIMATE);
    }

    /// A probe has shown that there is room for so much.
    pub(super) fn raise(&mut self, rate: f64) {
        if rate > self.rate {
            self.rate = rate.min(MAX_ESTIMATE);
            self.limit = None;
        }
    }

    fn back_off(&mut self, now: Instant) {
        let Some(arrived) = self.delivered.peak() else {
            return;
        };
        let limit = self.limit.get_or_insert((arrived, arrived * 0.1));
        let off = (arrived - limit.0).abs();
        limit.0 += (arrived - limit.0) * 0.1;
        limit.1 = (limit.1 * 0.9 + off * 0.1).max(arrived * 0.02);
        self.decrease(now, arrived * BACK_OFF);
    }

    fn decrease(&mut self, now: Instant, rate: f64) {
        if rate < self.rate {
            self.rate = rate;
            self.congested = true;
        }
        self.decreased = Some(now);
    }

    fn grow(&mut self, passed: Duration, round_trip: Duration) {
        let Some(arrived) = self.delivered.rate(BUCKETS as i64) else {
            return;
        };
        // What arrives beyond the limit shows that it is no longer one.
        if self
            .limit
            .is_some_and(|(limit, varies)| arrived > limit + 3.0 * varies)
        {
            self.limit = None;
        }
        let most = ABOVE_DELIVERED * arrived + ABOVE_DELIVERED_BITS;
        if self.rate >= most {
            return;
        }
        let seconds = passed.as_secs_f64().min(1.0);
        let grown = match self.limit {
            Some(_) => {
                let response = round_trip.as_secs_f64() + 0.1;
                self.rate + PACKET_BITS * seconds / response
            }
            None => self.rate * GROWTH.powf(seconds),
        };
        self.rate = grown.min(most);
    }

    fn take_loss(&mut self, now: Instant) -> Option<f64> {
        let (packets, lost) = self.packets;
        if packets < LOSS_PACKETS || now < self.packets_since + LOSS_TIME {
            return None;
        }
        self.packets = (0, 0);
        self.packets_since = now;
        Some(f64::from(lost) / f64::from(packets))
    }
}
