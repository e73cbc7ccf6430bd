//! What crosses the sockets of sessions, and what of it is dropped there on purpose, at random from a seed.
//!
//! `in_order` asks it about every datagram; it never looks behind the bytes that tell what one is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// A share of a session's datagrams that gets lost each way, handshakes among them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Loss {
    /// 0 to 1.
    pub ratio: f64,
    /// The same seed drops the datagrams at the same places. What is there depends on time too.
    pub seed: u64,
}

impl Loss {
    /// The same for a session of its own among many.
    pub fn of(self, session: u64) -> Self {
        let seed = mix(self.seed ^ mix(session.wrapping_add(STEP)));
        Self { seed, ..self }
    }
}

/// Counts over all sessions whose [`crate::Options`] share it. Any thread may write.
#[derive(Debug, Default)]
pub struct Traffic {
    pub(crate) sent: Way,
    pub(crate) received: Way,
    pub(crate) asked_again: AtomicU64,
    pub(crate) received_again: AtomicU64,
}

#[derive(Debug, Default)]
pub(crate) struct Way {
    datagrams: AtomicU64,
    bytes: AtomicU64,
    dropped: AtomicU64,
    dropped_media: AtomicU64,
}

/// [`Traffic`] at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TrafficCounts {
    pub sent: WayCounts,
    pub received: WayCounts,
    /// Packets that viewers asked for again (NACK), each as often as they asked.
    pub asked_again: u64,
    /// Packets that came on a stream of retransmissions (RTX).
    pub received_again: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct WayCounts {
    /// That passed, with what is no media.
    pub datagrams: u64,
    /// In them, without the headers below.
    pub bytes: u64,
    /// Dropped on purpose, beside those.
    pub dropped: u64,
    /// Of these, RTP packets, retransmissions among them.
    pub dropped_media: u64,
}

impl Traffic {
    pub fn counts(&self) -> TrafficCounts {
        TrafficCounts {
            sent: self.sent.counts(),
            received: self.received.counts(),
            asked_again: self.asked_again.load(Ordering::Relaxed),
            received_again: self.received_again.load(Ordering::Relaxed),
        }
    }
}

impl Way {
    fn counts(&self) -> WayCounts {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        WayCounts {
            datagrams: load(&self.datagrams),
            bytes: load(&self.bytes),
            dropped: load(&self.dropped),
            dropped_media: load(&self.dropped_media),
        }
    }

    pub(crate) fn passed(&self, datagrams: usize, bytes: usize) {
        self.datagrams
            .fetch_add(datagrams as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

/// The line between one session's sockets and the network: drops and counts.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) traffic: Arc<Traffic>,
    loss: Option<f64>,
    // Each way has its own, so that what comes does not move the luck of what goes.
    sending: Chance,
    receiving: Chance,
}

impl Line {
    pub fn new(traffic: Arc<Traffic>, loss: Option<Loss>) -> Self {
        let seed = loss.map_or(0, |loss| loss.seed);
        Self {
            traffic,
            loss: loss.map(|loss| loss.ratio),
            sending: Chance::new(seed),
            receiving: Chance::new(!seed),
        }
    }

    pub fn is_lossy(&self) -> bool {
        self.loss.is_some()
    }

    /// Whether a datagram that is to be sent gets lost; it is counted then.
    pub fn loses_sent(&self, datagram: &[u8]) -> bool {
        self.loses(&self.sending, &self.traffic.sent, datagram)
    }

    /// Takes away what gets lost of datagrams of `stride` bytes, of which the last may be shorter; returns
    /// the bytes that are left, at the start of `datagrams`.
    pub fn thin_received(&self, datagrams: &mut [u8], stride: usize) -> usize {
        let (len, mut kept) = (datagrams.len(), 0);
        for start in (0..len).step_by(stride.max(1)) {
            let end = (start + stride).min(len);
            let lost = self.loses(
                &self.receiving,
                &self.traffic.received,
                &datagrams[start..end],
            );
            if !lost {
                datagrams.copy_within(start..end, kept);
                kept += end - start;
            }
        }
        kept
    }

    fn loses(&self, chance: &Chance, way: &Way, datagram: &[u8]) -> bool {
        let lost = self.loss.is_some_and(|ratio| chance.draw() < ratio);
        if lost {
            way.dropped.fetch_add(1, Ordering::Relaxed);
            let media = u64::from(is_media(datagram));
            way.dropped_media.fetch_add(media, Ordering::Relaxed);
        }
        lost
    }
}

/// RTP by its first two bytes (RFC 7983 §7, RFC 5761 §4).
fn is_media(datagram: &[u8]) -> bool {
    matches!(datagram, [128..=191, second, ..] if !(64..=95).contains(&(second & 0x7f)))
}

/// Numbers at random from a seed (SplitMix64).
#[derive(Debug)]
struct Chance(AtomicU64);

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

impl Chance {
    fn new(seed: u64) -> Self {
        // Seeds that are neighbours would give the same numbers, one place apart.
        Self(AtomicU64::new(mix(seed)))
    }

    /// 0 to 1, without 1.
    fn draw(&self) -> f64 {
        let state = self.0.fetch_add(STEP, Ordering::Relaxed);
        (mix(state.wrapping_add(STEP)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(ratio: f64, seed: u64) -> Line {
        Line::new(Arc::default(), Some(Loss { ratio, seed }))
    }

    #[test]
    fn as_many_are_lost_as_were_asked_for_and_the_same_ones_with_the_same_seed() {
        let lost = |seed: u64| -> Vec<usize> {
            let line = line(0.05, seed);
            (0..20_000).filter(|_| line.loses_sent(&[128])).collect()
        };
        let first = lost(7);
        assert!((900..1_100).contains(&first.len()), "{}", first.len());
        assert_eq!(first, lost(7));
        assert_ne!(first, lost(8));
    }

    #[test]
    fn what_is_received_in_one_piece_loses_single_datagrams_and_keeps_its_order() {
        let line = line(0.5, 1);
        let sent: Vec<u8> = (0..10)
            .flat_map(|n| [128, 96, n])
            .chain([128, 96])
            .collect();
        let mut datagrams = sent.clone();
        let left = line.thin_received(&mut datagrams, 3);
        let counts = line.traffic.counts().received;
        assert!((1..11).contains(&counts.dropped), "{counts:?}");
        assert_eq!(counts.dropped_media, counts.dropped);
        let kept: Vec<&[u8]> = datagrams[..left].chunks(3).collect();
        assert_eq!(kept.len() as u64, 11 - counts.dropped);
        let mut all = sent.chunks(3);
        assert!(
            kept.iter().all(|kept| all.any(|sent| sent == *kept)),
            "{kept:?}"
        );
    }

    #[test]
    fn nothing_is_lost_unless_it_is_asked_for() {
        let line = Line::new(Arc::default(), None);
        assert!((0..1_000).all(|_| !line.loses_sent(&[128])));
        assert_eq!(line.traffic.counts(), TrafficCounts::default());
    }

    #[test]
    fn reports_checks_and_handshakes_are_no_media() {
        for (datagram, media) in [
            ([128, 96], true),
            ([144, 96 | 128], true),
            ([128, 200], false),
            ([0, 1], false),
            ([22, 254], false),
        ] {
            assert_eq!(is_media(&datagram), media, "{datagram:?}");
        }
    }
}
