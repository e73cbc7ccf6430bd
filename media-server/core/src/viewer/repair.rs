//! Retransmissions to a viewer: their stream, and how much of it there may be (RFC 4588).
//!
//! Decides and counts; the viewer writes and seals. A retransmission has an SSRC and a counter of its
//! own, because an index of an SSRC is sealed once.

use super::track::MAX_FIRST_SEQ;
use std::collections::VecDeque;

/// Times that one packet is sent again. A viewer that lost it as often will get a keyframe earlier.
const MAX_TIMES: u8 = 3;
/// Packets whose count is remembered: what a viewer that loses a tenth asks for in a second.
const MAX_COUNTED: usize = 64;
/// Bytes at hand at first and at most: two frames of 10 Mbit/s.
const MAX_ALLOWANCE: usize = 64 * 1024;
/// One byte may be sent again for so many sent: more would feed the congestion that lost them.
const SHARE: usize = 5;

pub(super) struct Repair {
    pub(super) ssrc: u32,
    next_seq: u64,
    allowance: usize,
    /// Index of the packet, and how often it was sent again.
    counted: VecDeque<(u64, u8)>,
}

impl Repair {
    pub(super) fn new(ssrc: u32, random: u64) -> Self {
        Repair {
            ssrc,
            next_seq: random % MAX_FIRST_SEQ,
            allowance: MAX_ALLOWANCE,
            counted: VecDeque::new(),
        }
    }

    /// Packets whose count is remembered, and how many they may be.
    #[cfg(test)]
    pub(super) fn held(&self) -> (&'static str, usize, usize) {
        ("counted", self.counted.len(), MAX_COUNTED)
    }

    /// Notes media sent for the first time.
    pub(super) fn earn(&mut self, bytes: usize) {
        self.allowance = (self.allowance + bytes / SHARE).min(MAX_ALLOWANCE);
    }

    /// The index to send the packet of `index` under, if it may be sent again.
    pub(super) fn spend(&mut self, index: u64, bytes: usize) -> Option<u64> {
        let known = self.counted.iter().position(|(known, _)| *known == index);
        if bytes > self.allowance || known.is_some_and(|at| self.counted[at].1 >= MAX_TIMES) {
            return None;
        }
        match known {
            Some(at) => self.counted[at].1 += 1,
            None => {
                if self.counted.len() == MAX_COUNTED {
                    self.counted.pop_front();
                }
                self.counted.push_back((index, 1));
            }
        }
        self.allowance -= bytes;
        Some(self.next())
    }

    /// The index of a packet that goes out in this stream and is no retransmission.
    pub(super) fn next(&mut self) -> u64 {
        let own = self.next_seq;
        self.next_seq += 1;
        own
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_packet_is_sent_again_three_times_at_most() {
        let mut repair = Repair::new(1, 7);
        let own: Vec<_> = (0..5).map(|_| repair.spend(9, 100)).collect();
        assert_eq!(own, [Some(7), Some(8), Some(9), None, None]);
        assert_eq!(repair.spend(10, 100), Some(10), "another one may");
    }

    #[test]
    fn a_fifth_of_what_was_sent_may_be_sent_again() {
        let mut repair = Repair::new(1, 0);
        let burst = (0..).take_while(|i| repair.spend(*i, 1_000).is_some());
        assert_eq!(burst.count(), MAX_ALLOWANCE / 1_000);
        (0..100).for_each(|_| repair.earn(1_000));
        let more = (1_000..).take_while(|i| repair.spend(*i, 1_000).is_some());
        assert_eq!(more.count(), 20);
        assert!(repair.counted.len() <= MAX_COUNTED);
    }
}
