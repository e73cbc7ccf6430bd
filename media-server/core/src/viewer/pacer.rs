//! How much a viewer is sent at once: a little, and then its share each 5 ms.
//!
//! Counts bytes, sends nothing. What it refuses stays in the ring until a later slot.

use std::time::{Duration, Instant};

/// The shorter, the smoother, and the more timers.
pub(super) const SLOT: Duration = Duration::from_millis(5);
/// What a viewer gets at once while nothing is known of its bandwidth: the keyframe, as a rule.
pub(super) const BURST_BYTES: usize = 64 * 1024;
/// Then at least this fast, in bits per second, and several times as fast as the stream.
pub(super) const CATCH_UP_RATE: u64 = 20_000_000;
pub(super) const CATCH_UP_FACTOR: u64 = 4;
/// With a known bandwidth: sixteen packets at once, a frame as a rule.
pub(super) const FRAME_BYTES: usize = 16 * 1_200;
/// Larger frames go this much faster than the bandwidth, in tenths: late frames are worse than a short
/// queue.
pub(super) const PACE_TENTHS: u64 = 25;
/// And no slower than this, in bits per second, where no limit was seen.
pub(super) const WIDE_RATE: u64 = 10_000_000;
/// But no more is sent ahead of the bandwidth than what passes in this time, and four packets.
pub(super) const AHEAD: Duration = Duration::from_millis(150);
pub(super) const AHEAD_BYTES: usize = 4 * 1_200;
/// Bytes that are sent with a payload: IPv4, UDP, RTP and an extension, tag.
pub(super) const OVERHEAD: usize = 28 + 20 + 16;

/// A bucket that fills at a rate, up to a size.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    bytes: i64,
    size: i64,
    bits_per_second: u64,
}

impl Bucket {
    fn set(&mut self, size: usize, bits_per_second: u64) {
        self.size = size as i64;
        self.bits_per_second = bits_per_second;
        self.bytes = self.bytes.min(self.size);
    }

    fn fill(&mut self, micros: u64) {
        let earned = micros * self.bits_per_second / 8_000_000;
        self.bytes = (self.bytes + earned as i64).min(self.size);
    }

    fn has(&self, bytes: i64) -> bool {
        self.bytes >= bytes.min(self.size)
    }

    fn spend(&mut self, bytes: i64) {
        // What can't wait may run up a debt, of one more bucket.
        self.bytes = (self.bytes - bytes).max(-self.size);
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Pacer {
    /// What goes at once.
    burst: Bucket,
    /// What goes ahead of the bandwidth, if it is known.
    ahead: Option<Bucket>,
    at: Instant,
}

impl Pacer {
    pub(super) fn new(now: Instant) -> Self {
        Pacer {
            burst: Bucket {
                bytes: BURST_BYTES as i64,
                size: BURST_BYTES as i64,
                bits_per_second: CATCH_UP_RATE,
            },
            ahead: None,
            at: now,
        }
    }

    /// Nothing is known of the bandwidth; the stream has so many bits per second.
    pub(super) fn set_unknown(&mut self, stream: u64) {
        self.ahead = None;
        let rate = CATCH_UP_RATE.max(CATCH_UP_FACTOR.saturating_mul(stream));
        self.burst.set(BURST_BYTES, rate);
    }

    /// The bandwidth is this, in bits per second.
    pub(super) fn set_bandwidth(&mut self, bits_per_second: u64) {
        self.burst
            .set(FRAME_BYTES, bits_per_second * PACE_TENTHS / 10);
        let size = bits_per_second * AHEAD.as_millis() as u64 / 8_000;
        let size = AHEAD_BYTES.max(size as usize);
        let ahead = self.ahead.get_or_insert(Bucket {
            bytes: size as i64,
            size: 0,
            bits_per_second,
        });
        ahead.set(size, bits_per_second);
    }

    /// The bandwidth is no limit as far as is known: large frames are paced, and that is all.
    pub(super) fn set_wide(&mut self, bits_per_second: u64) {
        self.ahead = None;
        let pace = (bits_per_second * PACE_TENTHS / 10).max(WIDE_RATE);
        self.burst.set(FRAME_BYTES, pace);
    }

    /// What was earned since the last call.
    pub(super) fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at);
        self.at = now;
        let micros = passed.min(Duration::from_secs(1)).as_micros() as u64;
        self.burst.fill(micros);
        if let Some(ahead) = self.ahead.as_mut() {
            ahead.fill(micros);
        }
    }

    /// Whether a packet may go now.
    pub(super) fn has(&self, bytes: usize) -> bool {
        let bytes = bytes as i64;
        self.burst.has(bytes) && self.ahead.is_none_or(|ahead| ahead.has(bytes))
    }

    /// Notes a packet that goes now.
    pub(super) fn spend(&mut self, bytes: usize) {
        self.burst.spend(bytes as i64);
        if let Some(ahead) = self.ahead.as_mut() {
            ahead.spend(bytes as i64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends all it may in each slot; returns the bytes of each.
    fn slots(pacer: &mut Pacer, start: Instant, count: u32, packet: usize) -> Vec<usize> {
        let slot = |slot| {
            pacer.fill(start + SLOT * slot);
            let mut sent = 0;
            while pacer.has(packet) {
                pacer.spend(packet);
                sent += packet;
            }
            sent
        };
        (1..=count).map(slot).collect()
    }

    #[test]
    fn no_slot_exceeds_its_share_and_all_together_not_the_bandwidth() {
        for bandwidth in [50_000u64, 300_000, 1_000_000, 2_500_000, 20_000_000] {
            for packet in [100, 700, 1_264] {
                let start = Instant::now();
                let mut pacer = Pacer::new(start);
                pacer.set_bandwidth(bandwidth);
                let sent = slots(&mut pacer, start, 400, packet);
                let share = (bandwidth * PACE_TENTHS / 10 / 8 / 200) as usize;
                assert!(sent[0] <= FRAME_BYTES + share, "{}", sent[0]);
                for slot in &sent[1..] {
                    // What was left of the slots before is less than a packet.
                    assert!(*slot <= share + packet, "{slot} of {share} at {bandwidth}");
                }
                let ahead = AHEAD_BYTES.max(bandwidth as usize * 150 / 8_000);
                let carried = bandwidth as usize / 8 * 2;
                let total: usize = sent.iter().sum();
                assert!(total <= ahead + carried + packet, "{total} at {bandwidth}");
                assert!(total + packet >= carried, "{total} at {bandwidth}");
            }
        }
    }

    #[test]
    fn what_does_not_wait_is_made_up_for() {
        let start = Instant::now();
        let mut pacer = Pacer::new(start);
        pacer.set_bandwidth(1_000_000);
        pacer.fill(start);
        pacer.spend(1_000_000);
        assert!(!pacer.has(1));
        let sent: usize = slots(&mut pacer, start, 400, 500).iter().sum();
        let carried = 250_000;
        assert!((carried - 30_000..carried).contains(&sent), "{sent}");
    }

    #[test]
    fn an_unknown_bandwidth_is_no_less_than_before() {
        let start = Instant::now();
        let mut pacer = Pacer::new(start);
        pacer.set_unknown(10_000_000);
        let sent = slots(&mut pacer, start, 10, 1_000);
        assert_eq!(sent[0], BURST_BYTES / 1_000 * 1_000);
        assert!(
            sent[1..]
                .iter()
                .all(|slot| (24_000..=26_000).contains(slot))
        );
    }
}
