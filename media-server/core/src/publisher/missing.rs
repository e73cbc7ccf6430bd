//! Packets of one stream that have not come, and when to ask for them (RFC 4585 §6.2.1).
//!
//! Sends nothing: the publisher's session asks what is due and writes the NACK.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// First asked this long after the gap was seen: networks reorder within some milliseconds.
const REORDER: Duration = Duration::from_millis(20);
/// Asked again this often at most, and at least one round trip after the last time.
const MIN_INTERVAL: Duration = Duration::from_millis(20);
const MAX_TRIES: u8 = 5;
/// Later a packet is of no use: its frame was due long ago.
const GIVE_UP: Duration = Duration::from_secs(1);
/// Packets waited for: a quarter of a second of 20 Mbit/s. Beyond, the oldest are given up.
const MAX_MISSING: usize = 512;

#[derive(Debug)]
struct Entry {
    seq: u64,
    seen: Instant,
    due: Instant,
    tries: u8,
}

/// See the module. Entries are in the order of their sequence numbers.
#[derive(Debug, Default)]
pub(super) struct Missing {
    entries: VecDeque<Entry>,
}

impl Missing {
    /// Notes what lies between the newest packet before and the one that came now; returns how many
    /// had to be given up for it.
    pub(super) fn gap(&mut self, now: Instant, seqs: std::ops::Range<u64>) -> u64 {
        let count = (seqs.end - seqs.start) as usize;
        let excess = (self.entries.len() + count).saturating_sub(MAX_MISSING);
        self.entries.drain(..excess.min(self.entries.len()));
        let fits = seqs.end - count.min(MAX_MISSING) as u64..seqs.end;
        self.entries.extend(fits.map(|seq| Entry {
            seq,
            seen: now,
            due: now + REORDER,
            tries: 0,
        }));
        excess as u64
    }

    /// If the packet was waited for, how often it was asked for; it is waited for no longer.
    pub(super) fn arrived(&mut self, seq: u64) -> Option<u8> {
        let found = self.entries.binary_search_by_key(&seq, |e| e.seq).ok()?;
        self.entries.remove(found).map(|entry| entry.tries)
    }

    /// Packets waited for, and how many they may be.
    #[cfg(test)]
    pub(super) fn held(&self) -> (&'static str, usize, usize) {
        ("missing", self.entries.len(), MAX_MISSING)
    }

    /// When to ask next.
    pub(super) fn due(&self) -> Option<Instant> {
        self.entries.iter().map(|e| e.due).min()
    }

    /// What to ask for now. What is too old is given up; what was asked for often enough is waited for
    /// until then, because a round trip may be longer than the last one was.
    pub(super) fn ask(&mut self, now: Instant, round_trip: Duration) -> Vec<u16> {
        self.entries.retain(|e| now < e.seen + GIVE_UP);
        let due = self.entries.iter_mut().filter(|e| now >= e.due);
        due.map(|entry| {
            entry.tries += 1;
            entry.due = if entry.tries < MAX_TRIES {
                now + round_trip.max(MIN_INTERVAL)
            } else {
                entry.seen + GIVE_UP
            };
            entry.seq as u16
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_gap_is_asked_for_after_a_while_then_each_round_trip_and_at_most_five_times() {
        let (start, mut missing) = (Instant::now(), Missing::default());
        missing.gap(start, 65_535..65_538);
        assert!(missing.ask(start + ms(19), ms(60)).is_empty());
        assert_eq!(missing.due(), Some(start + ms(20)));
        assert_eq!(missing.ask(start + ms(20), ms(60)), [65_535, 0, 1]);
        assert_eq!(missing.arrived(65_536), Some(1));
        assert_eq!(missing.arrived(65_536), None, "only once");
        assert!(missing.ask(start + ms(79), ms(60)).is_empty());
        for at in [80, 140, 200, 260] {
            assert_eq!(missing.ask(start + ms(at), ms(60)), [65_535, 1]);
        }
        assert!(missing.ask(start + ms(320), ms(60)).is_empty());
        assert_eq!(
            missing.arrived(65_535),
            Some(5),
            "later than five round trips"
        );
        assert_eq!(missing.due(), Some(start + ms(1_000)));
        assert!(missing.ask(start + ms(1_000), ms(60)).is_empty());
        assert_eq!(missing.due(), None, "given up");
    }

    #[test]
    fn after_a_second_nothing_is_asked_for() {
        let (start, mut missing) = (Instant::now(), Missing::default());
        missing.gap(start, 1..2);
        assert_eq!(missing.ask(start + ms(900), ms(300)), [1]);
        assert!(missing.ask(start + ms(1_200), ms(300)).is_empty());
        assert_eq!(missing.due(), None);
    }

    #[test]
    fn the_oldest_give_way_and_are_counted() {
        let (start, mut missing) = (Instant::now(), Missing::default());
        assert_eq!(missing.gap(start, 0..500), 0);
        assert_eq!(missing.gap(start, 600..700), 88);
        let arrived = [87, 88, 699].map(|seq| missing.arrived(seq));
        assert_eq!(arrived, [None, Some(0), Some(0)]);
        assert_eq!(missing.gap(start, 1_000..11_000), 510 + 9_488);
        assert_eq!(missing.entries.len(), MAX_MISSING);
        assert_eq!(missing.arrived(10_999), Some(0));
    }
}
