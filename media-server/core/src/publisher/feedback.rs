//! What a publisher is told about its bandwidth: which of its packets arrived when (transport-wide
//! congestion control), and the limit that its viewers set (REMB).
//!
//! Decides what is due and writes it; the publisher's session sends it.

use super::stream::extend;
use crate::rtcp::{self, twcc};
use std::time::{Duration, Instant};

/// Senders expect 50 to 250 ms: the sooner, the faster they react.
const INTERVAL: Duration = Duration::from_millis(50);
/// Arrivals between two feedbacks: 240 Mbit/s of full packets. Beyond, packets go unreported.
const MAX_ARRIVALS: usize = 1024;
/// A sender that leaps over more numbers than this begins anew: nothing is said of those between.
const MAX_GAP: u64 = 512;
/// The limit is told this often at most, and only if it moved by a tenth: each one moves the encoder.
const LIMIT_INTERVAL: Duration = Duration::from_secs(1);
/// One that holds is said again: the last one may be lost, and a device would keep to the one before.
const LIMIT_REPEATED: Duration = Duration::from_secs(5);
/// Less than this is no picture worth its viewers' while; those that can't take it get a part.
const MIN_LIMIT: u64 = 300_000;

/// Arrivals by transport-wide sequence number.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    /// Extended number, and microseconds since the first of all. Ascending.
    waiting: Vec<(u64, i64)>,
    /// One behind the last packet that was reported on.
    next: u64,
    highest: u64,
    epoch: Option<Instant>,
    due: Option<Instant>,
    count: u8,
}

impl Arrivals {
    /// Notes a packet; `false` if there is no room.
    pub(super) fn note(&mut self, now: Instant, seq: u16) -> bool {
        if self.waiting.len() == MAX_ARRIVALS {
            return false;
        }
        let epoch = *self.epoch.get_or_insert_with(|| {
            // Far enough from zero for a packet that was sent before.
            self.highest = 1 << 16 | u64::from(seq);
            self.next = self.highest;
            now
        });
        let seq = extend(self.highest, seq);
        self.highest = self.highest.max(seq);
        let micros = now.saturating_duration_since(epoch).as_micros() as i64;
        match self.waiting.last() {
            Some((last, _)) if *last >= seq => {
                if let Err(at) = self.waiting.binary_search_by_key(&seq, |(seq, _)| *seq) {
                    self.waiting.insert(at, (seq, micros));
                }
            }
            _ => self.waiting.push((seq, micros)),
        }
        self.due.get_or_insert(now + INTERVAL);
        true
    }

    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Writes all that waits, in as many feedbacks as it takes.
    pub(super) fn write(&mut self, ssrcs: [u32; 2], mut send: impl FnMut(&rtcp::Writer)) {
        self.due = None;
        let mut rest = &self.waiting[..];
        while let Some((first, _)) = rest.first() {
            // One that was said to be missing gets a feedback of its own.
            let late = *first < self.next;
            let (base, part) = match late {
                true => (*first, &rest[..1]),
                false if first - self.next > MAX_GAP => (*first, rest),
                false => (self.next, rest),
            };
            let mut writer = rtcp::Writer::default();
            let written = twcc::write(&mut writer, ssrcs, self.count, base, part);
            send(&writer);
            self.count = self.count.wrapping_add(1);
            if !late {
                self.next = part[written - 1].0 + 1;
            }
            rest = &rest[written..];
        }
        self.waiting.clear();
    }
}

/// What those who watch a device have a use for, in bits per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Whatever the device sends.
    Any,
    /// What most of them can take.
    AtMost(u64),
    /// Nobody watches: so much is enough to have a picture for whoever comes.
    Idle(u64),
}

/// The bandwidth that a publisher is asked to keep.
#[derive(Debug, Default)]
pub(super) struct Limit {
    told: Option<Told>,
}

#[derive(Debug)]
struct Told {
    limit: u64,
    at: Instant,
    idle: bool,
}

impl Limit {
    /// The limit to tell now, if `wanted` is worth it. `most` holds without viewers that need less; the answer
    /// said so, and a device that `exceeds` it is told again.
    pub(super) fn next(
        &mut self,
        now: Instant,
        wanted: Wanted,
        most: u64,
        exceeds: bool,
    ) -> Option<u64> {
        let (limit, idle) = match wanted {
            Wanted::Any => (most, false),
            Wanted::AtMost(limit) => (limit.max(MIN_LIMIT).min(most), false),
            Wanted::Idle(limit) => (limit.min(most), true),
        };
        let tell = match &self.told {
            // Nothing was limited yet, and nothing need be.
            None => limit < most || exceeds,
            // Somebody has come, and each second of a poor picture is one that they see.
            Some(told) if told.idle && !idle => true,
            Some(told) => {
                let changed = limit.abs_diff(told.limit) * 10 >= told.limit;
                now >= told.at
                    + if changed {
                        LIMIT_INTERVAL
                    } else {
                        LIMIT_REPEATED
                    }
            }
        };
        tell.then(|| {
            self.told = Some(Told {
                limit,
                at: now,
                idle,
            });
            limit
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn reported(arrivals: &mut Arrivals) -> Vec<(u16, Option<i64>)> {
        let mut all = Vec::new();
        arrivals.write([1, 2], |compound| {
            twcc::read(compound.bytes(), |feedback| {
                feedback
                    .for_each(|seq, at| all.push((seq, at)))
                    .expect("well-formed");
            });
        });
        all
    }

    #[test]
    fn each_packet_is_reported_once_and_what_lies_between_as_missing() {
        let (start, mut arrivals) = (Instant::now(), Arrivals::default());
        assert_eq!(arrivals.due(), None);
        for (at, seq) in [(0, 65_534), (1, 65_535), (3, 2), (2, 1)] {
            assert!(arrivals.note(start + ms(at), seq));
        }
        assert_eq!(arrivals.due(), Some(start + ms(50)));
        let micros = |ms: i64| Some(ms * 1_000);
        assert_eq!(
            reported(&mut arrivals),
            [
                (65_534, micros(0)),
                (65_535, micros(1)),
                (0, None),
                (1, micros(2)),
                (2, micros(3))
            ]
        );
        assert_eq!(arrivals.due(), None);
        // The missing one comes late.
        arrivals.note(start + ms(60), 3);
        arrivals.note(start + ms(61), 0);
        assert_eq!(reported(&mut arrivals), [(0, micros(61)), (3, micros(60))]);
    }

    #[test]
    fn a_flood_and_a_leap_are_bounded() {
        let (start, mut arrivals) = (Instant::now(), Arrivals::default());
        let noted = (0..5_000).filter(|i| arrivals.note(start, *i as u16));
        assert_eq!(noted.count(), MAX_ARRIVALS);
        assert_eq!(reported(&mut arrivals).len(), MAX_ARRIVALS);
        arrivals.note(start + ms(10), 30_000);
        assert_eq!(reported(&mut arrivals).len(), 1);
    }

    #[test]
    fn the_limit_is_told_when_it_moved_by_a_tenth_and_a_second_has_passed() {
        let (start, mut limit) = (Instant::now(), Limit::default());
        let most = 12_000_000;
        let mut next = |at: u64, wanted| limit.next(start + ms(at), wanted, most, false);
        assert_eq!(next(0, Wanted::Any), None, "nothing is limited");
        assert_eq!(next(0, Wanted::AtMost(2_000_000)), Some(2_000_000));
        assert_eq!(next(999, Wanted::AtMost(900_000)), None);
        assert_eq!(next(2_000, Wanted::AtMost(1_900_000)), None);
        assert_eq!(next(2_000, Wanted::AtMost(10_000)), Some(MIN_LIMIT));
        assert_eq!(next(4_000, Wanted::Any), Some(most), "the last one left");
        assert_eq!(next(8_999, Wanted::Any), None);
        assert_eq!(next(9_000, Wanted::Any), Some(most));
    }

    #[test]
    fn an_idle_publisher_is_told_its_own_limit_and_is_released_from_it_at_once() {
        let (start, mut limit) = (Instant::now(), Limit::default());
        let most = 12_000_000;
        let mut next = |at: u64, wanted| limit.next(start + ms(at), wanted, most, false);
        assert_eq!(next(0, Wanted::Idle(100_000)), Some(100_000), "no floor");
        assert_eq!(next(4_999, Wanted::Idle(100_000)), None);
        assert_eq!(next(5_000, Wanted::Idle(100_000)), Some(100_000));
        assert_eq!(next(5_001, Wanted::AtMost(90_000)), Some(MIN_LIMIT));
        assert_eq!(next(7_000, Wanted::Idle(100_000)), Some(100_000));
        assert_eq!(next(7_001, Wanted::Any), Some(most), "the cap is back");
        assert_eq!(
            next(9_000, Wanted::Idle(most * 2)),
            None,
            "as much as it has"
        );
    }
}
