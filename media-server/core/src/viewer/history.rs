//! When each of a viewer's last packets was sent, by its transport-wide sequence number, until the
//! viewer reports on it.

/// Packets remembered, a power of two: two seconds of 10 Mbit/s, at 8 bytes each. Feedback comes within
/// 250 ms and a round trip.
pub(super) const CAPACITY: usize = 2048;

#[derive(Debug, Clone, Copy, Default)]
struct Sent {
    /// Microseconds, wrapping.
    at: u32,
    /// 0 once reported on.
    bytes: u16,
    seq: u16,
}

/// See the module. Takes its memory with the first packet.
#[derive(Debug, Default)]
pub(super) struct History {
    sent: Box<[Sent]>,
    next: u16,
}

impl History {
    /// Whether nothing was sent yet.
    pub(super) fn is_empty(&self) -> bool {
        self.sent.is_empty()
    }

    /// The number of the next packet.
    pub(super) fn next(&self) -> u16 {
        self.next
    }

    /// Notes that the next packet was sent.
    pub(super) fn push(&mut self, at: u32, bytes: usize) {
        if self.sent.is_empty() {
            self.sent = vec![Sent::default(); CAPACITY].into();
        }
        let seq = self.next;
        self.sent[usize::from(seq) % CAPACITY] = Sent {
            at,
            bytes: bytes.min(usize::from(u16::MAX)) as u16,
            seq,
        };
        self.next = seq.wrapping_add(1);
    }

    /// When a packet was sent, and its size; once, and not after many more.
    pub(super) fn take(&mut self, seq: u16) -> Option<(u32, u32)> {
        let sent = self.sent.get_mut(usize::from(seq) % CAPACITY)?;
        let known = sent.seq == seq && sent.bytes > 0;
        known.then(|| (sent.at, u32::from(std::mem::take(&mut sent.bytes))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_known_once_and_until_two_thousand_others_were_sent() {
        let mut history = History::default();
        assert_eq!(history.take(0), None);
        for i in 0..70_000u32 {
            history.push(i, 100);
        }
        assert_eq!(history.next(), 70_000u32 as u16);
        let newest = 69_999u32;
        let oldest = newest - CAPACITY as u32 + 1;
        assert_eq!(history.take(newest as u16), Some((newest, 100)));
        assert_eq!(history.take(newest as u16), None);
        assert_eq!(history.take(oldest as u16), Some((oldest, 100)));
        assert_eq!(history.take((oldest - 1) as u16), None);
        assert_eq!(history.take(history.next()), None, "not sent yet");
    }
}
