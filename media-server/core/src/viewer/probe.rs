//! Finding out whether there is room for more than is sent: a short run of padding on top of the media,
//! and how fast it arrives.
//!
//! Decides when and how much, and judges the result. The viewer writes the padding. A run is 60 ms at
//! twice the estimate, so it lengthens a queue by as much at most.

use super::pacer::SLOT;
use std::time::{Duration, Instant};

const SLOTS: u8 = 12;
/// Packets of padding in a slot at most: more than 16 Mbit/s of them prove nothing that matters.
const MAX_PACKETS: u64 = 32;
/// Padding of one packet: its last byte counts it (RFC 3550 §5.1).
pub(super) const PADDING: usize = 255;
/// So long after congestion was seen the first run begins, and so long after one that failed the next:
/// at first, and at most.
const AFTER_CONGESTION: Duration = Duration::from_secs(2);
const INTERVAL: Duration = Duration::from_secs(1);
const MAX_INTERVAL: Duration = Duration::from_secs(4);
/// What is not reported within this is lost.
const PATIENCE: Duration = Duration::from_secs(1);
/// Fewer packets tell nothing.
const MIN_PACKETS: u32 = 5;

/// The packets of a run, media among them, as far as they were reported.
#[derive(Debug)]
struct Run {
    /// Its first packet, and how many there are.
    first: u16,
    packets: u16,
    slots_left: u8,
    /// Next slot, then the end of patience.
    at: Instant,
    packets_each: u64,
    received: u32,
    bytes: u64,
    sent: (i64, i64),
    arrived: (i64, i64),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Probe {
    run: Option<Box<Run>>,
    not_before: Option<Instant>,
    interval: Duration,
}

impl Probe {
    pub(super) fn new() -> Self {
        Probe {
            run: None,
            not_before: None,
            interval: INTERVAL,
        }
    }

    /// Begins a run at `rate` bits per second, if it is time; `next` is the number of the next packet.
    pub(super) fn begin(&mut self, now: Instant, decreased: Option<Instant>, rate: u64, next: u16) {
        let rested = decreased.is_none_or(|at| now >= at + AFTER_CONGESTION)
            && self.not_before.is_none_or(|at| now >= at);
        if self.run.is_some() || !rested {
            return;
        }
        let bytes = rate * SLOT.as_millis() as u64 / 8_000;
        let packet = (PADDING + super::pacer::OVERHEAD) as u64;
        self.run = Some(Box::new(Run {
            first: next,
            packets: 0,
            slots_left: SLOTS,
            at: now,
            packets_each: bytes.div_ceil(packet).clamp(1, MAX_PACKETS),
            received: 0,
            bytes: 0,
            sent: (i64::MAX, i64::MIN),
            arrived: (i64::MAX, i64::MIN),
        }));
    }

    /// When the next padding is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let run = self.run.as_ref()?;
        (run.slots_left > 0).then_some(run.at)
    }

    /// Packets of padding to send now.
    pub(super) fn take(&mut self, now: Instant) -> u64 {
        let Some(run) = self
            .run
            .as_mut()
            .filter(|r| r.slots_left > 0 && now >= r.at)
        else {
            return 0;
        };
        run.slots_left -= 1;
        run.at = now + if run.slots_left > 0 { SLOT } else { PATIENCE };
        run.packets_each
    }

    /// The number of the next packet, after what [`take`](Self::take) said was sent.
    pub(super) fn sent_up_to(&mut self, next: u16) {
        if let Some(run) = self.run.as_mut() {
            run.packets = next.wrapping_sub(run.first);
        }
    }

    /// A packet arrived.
    pub(super) fn delivered(&mut self, seq: u16, sent: i64, arrived: i64, bytes: u32) {
        if let Some(run) = self.run.as_mut()
            && seq.wrapping_sub(run.first) < run.packets
        {
            run.received += 1;
            run.bytes += u64::from(bytes);
            run.sent = (run.sent.0.min(sent), run.sent.1.max(sent));
            run.arrived = (run.arrived.0.min(arrived), run.arrived.1.max(arrived));
        }
    }

    /// The rate that a run has shown, once all of it is reported on up to the packet before `reported`.
    pub(super) fn result(&mut self, now: Instant, reported: u16, estimate: u64) -> Option<f64> {
        let run = self.run.as_ref().filter(|run| run.slots_left == 0)?;
        let all = reported.wrapping_sub(run.first) >= run.packets
            && reported.wrapping_sub(run.first) < 1 << 15;
        if !all && now < run.at {
            return None;
        }
        let shown = run.rate();
        let found = shown.is_some_and(|rate| rate > estimate as f64 * 1.1);
        self.interval = if found {
            INTERVAL
        } else {
            (self.interval * 2).min(MAX_INTERVAL)
        };
        self.not_before = Some(now + self.interval);
        self.run = None;
        shown.filter(|_| found)
    }
}

impl Run {
    fn rate(&self) -> Option<f64> {
        let enough = self.received >= MIN_PACKETS
            && u64::from(self.received) * 10 >= u64::from(self.packets) * 8;
        let span = |(first, last): (i64, i64)| (last - first) as f64 / 1e6;
        if !enough || self.sent.1 - self.sent.0 < SLOT.as_micros() as i64 {
            return None;
        }
        // The packets of one slot do not count: they only begin the time.
        let each = f64::from(SLOTS - 1) / f64::from(SLOTS);
        let bits = self.bytes as f64 * 8.0 * each;
        let (sent, arrived) = (bits / span(self.sent), bits / span(self.arrived).max(1e-3));
        // Arrived slower than sent, it shows what the way carries, and a little less keeps it empty.
        Some(if arrived < 0.9 * sent {
            0.9 * arrived
        } else {
            arrived.min(sent)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run at 2 Mbit/s over a way of so many bits per second; what it shows.
    fn run(capacity: f64, lost: u64) -> Option<f64> {
        let start = Instant::now();
        let mut probe = Probe::new();
        probe.begin(start, None, 2_000_000, 7);
        let (mut seq, mut free) = (7u16, 0.0f64);
        while let Some(due) = probe.due() {
            let first = seq;
            let sent = (due - start).as_micros() as i64;
            let count = probe.take(due);
            assert!(count <= MAX_PACKETS);
            seq += count as u16;
            probe.sent_up_to(seq);
            for seq in first..seq {
                let bytes = (PADDING + super::super::pacer::OVERHEAD) as u32;
                free = free.max(sent as f64) + f64::from(bytes) * 8e6 / capacity;
                if u64::from(seq) % 10 >= lost {
                    probe.delivered(seq, sent, free as i64 + 20_000, bytes);
                }
            }
        }
        let last = start + SLOT * u32::from(SLOTS);
        assert_eq!(probe.result(last, seq - 1, 1_000_000), None, "not all told");
        probe.result(last, seq, 1_000_000)
    }

    #[test]
    fn a_run_shows_what_was_sent_or_what_the_way_carries() {
        let wide = run(50e6, 0).expect("there is room");
        assert!((1.8e6..=2.2e6).contains(&wide), "{wide}");
        let narrow = run(1.5e6, 0).expect("there is some");
        assert!((1.15e6..=1.5e6).contains(&narrow), "{narrow}");
        assert_eq!(run(0.9e6, 0), None, "no more than was known");
        assert_eq!(run(50e6, 3), None, "losses prove nothing");
    }

    #[test]
    fn runs_that_fail_come_less_often_and_none_right_after_congestion() {
        let start = Instant::now();
        let mut probe = Probe::new();
        probe.begin(start, Some(start), 1_000_000, 0);
        assert_eq!(probe.due(), None);
        let mut now = start + AFTER_CONGESTION;
        let mut begun = Vec::new();
        while begun.len() < 5 {
            let idle = probe.run.is_none();
            probe.begin(now, Some(start), 1_000_000, 0);
            if idle && probe.run.is_some() {
                begun.push(now);
            }
            probe.take(now);
            probe.sent_up_to(60);
            assert_eq!(probe.result(now, 0, 1_000_000), None, "nothing is reported");
            now += SLOT;
        }
        let waits: Vec<_> = begun.windows(2).map(|w| w[1] - w[0]).collect();
        assert!(waits[0] >= Duration::from_secs(2), "{waits:?}");
        assert!(
            waits[2] >= MAX_INTERVAL && waits[3] <= 2 * MAX_INTERVAL,
            "{waits:?}"
        );
    }
}
