//! What the synthetic publisher writes into the end of each payload: which packet of which frame it
//! is and when it was sent, so that a viewer in the same process can tell latency and whole frames.
//!
//! It lies behind what servers look at, is encrypted with the payload, and no decoder reads it.
//! `synthetic` writes it, the load tool and the tests read it.

use std::time::Duration;

/// Facts about one packet of a made-up frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Counts the frames of a source, from 0.
    pub frame: u32,
    /// Place of the packet in its frame, from 0.
    pub index: u16,
    /// Place of the frame's last packet.
    pub last: u16,
    pub keyframe: bool,
    /// Which simulcast layer it is of, as its sender counts them; 0 without.
    pub layer: u8,
    /// When the packet was sent, on a clock that sender and receiver share. Microseconds and less
    /// are kept; the wrap is after 584 years.
    pub sent: Duration,
}

/// Tells a stamp from noise: one payload in 2⁵⁶ has it by chance.
const MAGIC: [u8; 7] = *b"mlstamp";

impl Stamp {
    /// Bytes at the end of a payload.
    pub const LEN: usize = 24;

    /// Writes the stamp over the last bytes of `payload`, which must have [`Self::LEN`] of them.
    /// Returns whether it had.
    pub fn write(&self, payload: &mut [u8]) -> bool {
        let Some(at) = payload.last_chunk_mut::<{ Self::LEN }>() else {
            return false;
        };
        at[..7].copy_from_slice(&MAGIC);
        at[7] = u8::from(self.keyframe) | self.layer << 1;
        at[8..12].copy_from_slice(&self.frame.to_be_bytes());
        at[12..14].copy_from_slice(&self.index.to_be_bytes());
        at[14..16].copy_from_slice(&self.last.to_be_bytes());
        at[16..24].copy_from_slice(&(self.sent.as_nanos() as u64).to_be_bytes());
        true
    }

    /// Reads the stamp of a payload; `None` if it has none.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let at = payload.last_chunk::<{ Self::LEN }>()?;
        if at[..7] != MAGIC {
            return None;
        }
        Some(Self {
            keyframe: at[7] & 1 != 0,
            layer: at[7] >> 1,
            frame: u32::from_be_bytes(*at[8..].first_chunk()?),
            index: u16::from_be_bytes(*at[12..].first_chunk()?),
            last: u16::from_be_bytes(*at[14..].first_chunk()?),
            sent: Duration::from_nanos(u64::from_be_bytes(*at[16..].first_chunk()?)),
        })
    }
}

/// Notices when a keyframe is there from its first packet to its last.
///
/// Looks at two keyframes at a time: packets of one that began before may come after packets of the
/// next. Bounded by the 65 536 packets that a frame can have.
#[derive(Debug, Default)]
pub struct KeyframeWatch {
    newest: Option<Partial>,
    before: Option<Partial>,
}

#[derive(Debug)]
struct Partial {
    frame: u32,
    layer: u8,
    seen: Vec<u64>,
    all: u32,
    missing: u32,
}

impl KeyframeWatch {
    /// Takes the stamp of a packet that arrived; returns whether a keyframe became whole by it.
    pub fn add(&mut self, stamp: &Stamp) -> bool {
        if !stamp.keyframe || stamp.index > stamp.last {
            return false;
        }
        let is = |partial: &Option<Partial>| {
            partial
                .as_ref()
                .is_some_and(|partial| (partial.frame, partial.layer) == (stamp.frame, stamp.layer))
        };
        if !is(&self.newest) && !is(&self.before) {
            self.before = self.newest.replace(Partial {
                frame: stamp.frame,
                layer: stamp.layer,
                seen: vec![0; usize::from(stamp.last) / 64 + 1],
                all: u32::from(stamp.last) + 1,
                missing: u32::from(stamp.last) + 1,
            });
        }
        let slot = if is(&self.newest) {
            &mut self.newest
        } else {
            &mut self.before
        };
        let Some(partial) = slot else {
            return false;
        };
        let (word, bit) = (usize::from(stamp.index) / 64, 1 << (stamp.index % 64));
        match partial.seen.get_mut(word) {
            Some(seen) if *seen & bit == 0 => *seen |= bit,
            _ => return false,
        }
        partial.missing = partial.missing.saturating_sub(1);
        partial.missing == 0
    }

    /// Packets that came of the keyframe of which most came, and how many it has; `None` if nothing came
    /// of any. Of the two that are looked at.
    pub fn most(&self) -> Option<(u32, u32)> {
        let both = self.newest.iter().chain(&self.before);
        both.map(|partial| (partial.all - partial.missing, partial.all))
            .max_by(|(a, of_a), (b, of_b)| {
                (u64::from(*a) * u64::from(*of_b)).cmp(&(u64::from(*b) * u64::from(*of_a)))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(frame: u32, index: u16, last: u16) -> Stamp {
        Stamp {
            frame,
            index,
            last,
            keyframe: true,
            layer: 2,
            sent: Duration::from_nanos(1_234_567_890_123),
        }
    }

    #[test]
    fn a_stamp_reads_back_from_the_end_of_a_payload_and_noise_has_none() {
        let mut payload = vec![7; 100];
        assert!(stamp(70_000, 3, 9).write(&mut payload));
        assert_eq!(Stamp::read(&payload), Some(stamp(70_000, 3, 9)));
        assert_eq!(payload[..76], [7; 76]);
        assert_eq!(Stamp::read(&[7; 100]), None);
        assert_eq!(Stamp::read(&payload[80..]), None, "cut short");
        assert!(!stamp(0, 0, 0).write(&mut [0; 23]));
    }

    #[test]
    fn a_keyframe_is_whole_with_its_last_missing_packet_in_any_order() {
        let mut watch = KeyframeWatch::default();
        assert_eq!(watch.most(), None);
        assert!(!watch.add(&stamp(5, 2, 2)));
        assert!(!watch.add(&stamp(5, 0, 2)));
        assert!(!watch.add(&stamp(5, 0, 2)), "a duplicate");
        assert!(!watch.add(&stamp(6, 0, 2)), "of the next keyframe");
        assert_eq!(watch.most(), Some((2, 3)), "of the one before");
        assert!(watch.add(&stamp(5, 1, 2)));
        assert!(!watch.add(&stamp(5, 1, 2)), "only once");
    }

    #[test]
    fn deltas_and_impossible_places_make_no_keyframe_whole() {
        let mut watch = KeyframeWatch::default();
        let delta = Stamp {
            keyframe: false,
            ..stamp(1, 0, 0)
        };
        assert!(!watch.add(&delta));
        assert!(!watch.add(&stamp(1, 3, 2)));
        assert!(watch.add(&stamp(1, 0, 0)));
    }
}
