//! Retransmissions to a viewer: their stream, and how much of it there may be (RFC 4588).
//!
//! Decides and counts; the viewer writes and seals. A retransmission has an SSRC and a counter of its
//! own, because an index of an SSRC is sealed once.

use super::track::MAX_FIRST_SEQ;
use std::collections::VecDeque;

/// Times that one packet is sent again. A viewer that lost it as often will get a keyframe earlier.
const MAX_TIMES: u8 = 3;
/// Packets whose count is remembered, the newest: what a viewer that loses a tenth asks for in seconds.
const MAX_COUNTED: usize = 256;
/// Bytes at hand at first and at most: two frames of 10 Mbit/s.
const MAX_ALLOWANCE: usize = 64 * 1024;
/// One byte may be sent again for so many sent: more would feed the congestion that lost them.
const SHARE: usize = 5;

pub(super) struct Repair {
    pub(super) ssrc: u32,
    next_seq: u64,
    allowance: usize,
    /// Index of the packet, in order, and how often it was sent again.
    counted: VecDeque<(u64, u8)>,
    /// The count of a packet before this one is forgotten, so it is not sent again.
    oldest: u64,
}

impl Repair {
    pub(super) fn new(ssrc: u32, random: u64) -> Self {
        Repair {
            ssrc,
            next_seq: random % MAX_FIRST_SEQ,
            allowance: MAX_ALLOWANCE,
            counted: VecDeque::new(),
            oldest: 0,
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
        if bytes > self.allowance || index < self.oldest {
            return None;
        }
        match self
            .counted
            .binary_search_by_key(&index, |(known, _)| *known)
        {
            Ok(at) if self.counted[at].1 >= MAX_TIMES => return None,
            Ok(at) => self.counted[at].1 += 1,
            Err(at) => {
                self.counted.insert(at, (index, 1));
                if self.counted.len() > MAX_COUNTED
                    && let Some((forgotten, _)) = self.counted.pop_front()
                {
                    self.oldest = forgotten + 1;
                }
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
    fn no_packet_is_sent_again_more_often_however_many_others_are_asked_for() {
        let mut repair = Repair::new(1, 7);
        let mut sent = vec![0; 3 * MAX_COUNTED];
        for _ in 0..10 {
            for index in (0..sent.len()).chain((0..sent.len()).rev()) {
                repair.earn(1_000);
                sent[index] += usize::from(repair.spend(index as u64, 100).is_some());
            }
        }
        assert!(sent.iter().all(|times| *times <= 3), "{sent:?}");
        let newest = &sent[sent.len() - MAX_COUNTED..];
        assert!(newest.iter().all(|times| *times == 3), "{newest:?}");
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
