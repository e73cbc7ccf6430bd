//! Packets of one stream in the order in which they were sent.
//!
//! A lost packet comes again within a second, or not at all: what follows it waits that long.

use media_core::media::{MediaBatch, MediaPacket};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a missing packet is waited for: as long as the publisher is asked for it.
const WAIT: Duration = Duration::from_secs(1);
/// Packets that wait behind a missing one at most: as many as the tap holds.
const MOST: usize = 2048;

/// A packet in its batch.
#[derive(Clone)]
pub struct Held {
    pub batch: Arc<MediaBatch>,
    pub index: usize,
}

impl Held {
    pub fn packet(&self) -> &MediaPacket {
        &self.batch.packets()[self.index]
    }

    /// The payload without the padding that may follow it (RFC 3550 §5.1).
    pub fn payload(&self) -> &[u8] {
        let payload = self.batch.payload(self.packet());
        let padding = match (self.packet().padding, payload.last()) {
            (true, Some(bytes)) => usize::from(*bytes),
            _ => 0,
        };
        &payload[..payload.len().saturating_sub(padding)]
    }
}

/// What comes next.
pub enum Next {
    Packet(Held),
    /// Packets are missing for good.
    Gap,
}

/// See the module.
#[derive(Default)]
pub struct Order {
    source: Option<u64>,
    /// Sequence number that comes next; `None` until the first packet.
    next: Option<u64>,
    waiting: BTreeMap<u64, (Instant, Held)>,
}

impl Order {
    /// The stream that is followed.
    pub fn source(&self) -> Option<u64> {
        self.source
    }

    /// Follows another stream; what waits of this one is let go of.
    pub fn follow(&mut self, source: u64) {
        *self = Order {
            source: Some(source),
            ..Order::default()
        };
    }

    /// Takes a packet of the stream.
    pub fn push(&mut self, now: Instant, held: Held) {
        let seq = held.packet().seq;
        if self.next.is_none_or(|next| seq >= next) {
            self.next.get_or_insert(seq);
            self.waiting.entry(seq).or_insert((now, held));
        }
    }

    /// The next packet, if it is there or no longer waited for. `end`: nothing more will come.
    pub fn pop(&mut self, now: Instant, end: bool) -> Option<Next> {
        let first = self.waiting.first_entry()?;
        let (seq, next) = (*first.key(), self.next?);
        if seq == next {
            self.next = Some(next + 1);
            return Some(Next::Packet(first.remove().1));
        }
        let late = now.saturating_duration_since(first.get().0) > WAIT;
        if !(late || end || self.waiting.len() > MOST) {
            return None;
        }
        self.next = Some(seq);
        Some(Next::Gap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::testing::{batch, packet, video};
    use media_core::negotiated::Kind;

    fn seqs(order: &mut Order, now: Instant) -> Vec<Option<u64>> {
        let next = std::iter::from_fn(|| order.pop(now, false));
        next.map(|next| match next {
            Next::Packet(held) => Some(held.packet().seq),
            Next::Gap => None,
        })
        .collect()
    }

    fn push(order: &mut Order, now: Instant, seq: u64) {
        let batch = video(now, seq, 0, &[1]);
        order.push(now, Held { batch, index: 0 });
    }

    #[test]
    fn a_packet_that_comes_late_takes_its_place_and_one_that_does_not_is_a_gap() {
        let start = Instant::now();
        let mut order = Order::default();
        order.follow(1);
        for seq in [10, 12, 13] {
            push(&mut order, start, seq);
        }
        assert_eq!(seqs(&mut order, start), [Some(10)]);
        push(&mut order, start, 11);
        push(&mut order, start, 11);
        assert_eq!(seqs(&mut order, start), [Some(11), Some(12), Some(13)]);
        push(&mut order, start, 9);
        push(&mut order, start, 16);
        let soon = start + WAIT;
        assert_eq!(seqs(&mut order, soon), []);
        let late = soon + Duration::from_millis(1);
        assert_eq!(seqs(&mut order, late), [None, Some(16)]);
    }

    #[test]
    fn padding_is_no_payload() {
        let now = Instant::now();
        let mut order = Order::default();
        order.follow(1);
        // The last byte says how many there are, itself among them.
        for (seq, padding, payload, expected) in [
            (1, true, &[7, 0, 2][..], &[7][..]),
            (2, false, &[7, 0, 2], &[7, 0, 2]),
            (3, true, &[7, 9], &[]),
        ] {
            let packet = MediaPacket {
                padding,
                ..packet(Kind::Video, seq, 0)
            };
            let batch = batch(now, packet, payload);
            order.push(now, Held { batch, index: 0 });
            let Some(Next::Packet(held)) = order.pop(now, false) else {
                panic!("it is there");
            };
            assert_eq!(held.payload(), expected);
        }
    }
}
