//! Wall-clock time for sender reports, computed from the monotonic time that core is told.

use std::time::{Duration, Instant};

/// Seconds from 1900, NTP's epoch, to 1970.
const NTP_TO_UNIX: u64 = 2_208_988_800;

/// What sessions do each second they do at one of 32 times in it: a shard with a thousand viewers at rest
/// wakes for many of them at once.
const SLOT: Duration = Duration::from_nanos(1_000_000_000 / 32);

/// Ties one monotonic instant to the time of day. One for the whole process, so that all sessions
/// share a time line.
#[derive(Debug, Clone, Copy)]
pub struct WallClock {
    at: Instant,
    since_unix_epoch: Duration,
}

impl WallClock {
    pub fn new(at: Instant, since_unix_epoch: Duration) -> Self {
        WallClock {
            at,
            since_unix_epoch,
        }
    }

    /// NTP timestamp, 32.32 bits (RFC 3550 §4).
    pub fn ntp(&self, now: Instant) -> u64 {
        let time = self.since_unix_epoch + now.saturating_duration_since(self.at);
        let fraction = (u64::from(time.subsec_nanos()) << 32) / 1_000_000_000;
        (time.as_secs() + NTP_TO_UNIX) << 32 | fraction
    }

    /// The time since the Unix epoch that an NTP timestamp stands for, in whole seconds.
    pub fn unix_seconds(ntp: u64) -> Duration {
        Duration::from_secs((ntp >> 32).saturating_sub(NTP_TO_UNIX))
    }

    /// The slot nearest to `at`.
    pub(crate) fn slot(&self, at: Instant) -> Instant {
        let since = at.saturating_duration_since(self.at) + SLOT / 2;
        let beyond = since.as_nanos() % SLOT.as_nanos();
        self.at + since - Duration::from_nanos(beyond as u64)
    }
}

/// The middle 32 bits, in which reports are quoted.
pub fn compact(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

/// A difference of compact timestamps as a duration.
pub fn from_compact(units: u32) -> Duration {
    Duration::from_nanos((u64::from(units) * 1_000_000_000) >> 16)
}

/// Round trip from a report block or a DLRR block: both quote a compact timestamp of ours and how
/// long the peer held it (RFC 3550 §6.4.1). `None` if nothing was quoted or the sum is absurd.
pub fn round_trip(now_ntp: u64, last: u32, delay: u32) -> Option<Duration> {
    if last == 0 {
        return None;
    }
    let units = compact(now_ntp).wrapping_sub(last).wrapping_sub(delay);
    // A peer that rounds up may end just below zero.
    let units = if units > u32::MAX - 65_536 { 0 } else { units };
    Some(from_compact(units)).filter(|rtt| *rtt < Duration::from_secs(60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_each_second_falls_into_a_few_slots_and_stays_there() {
        let start = Instant::now();
        let clock = WallClock::new(start, Duration::from_secs(1_700_000_000));
        let at = |micros| start + Duration::from_micros(micros);
        let slots: std::collections::BTreeSet<Instant> =
            (0..1_000).map(|ms| clock.slot(at(ms * 1_000))).collect();
        assert_eq!(slots.len(), 33);
        let slot = clock.slot(at(5_010_000));
        assert_eq!(slot, at(5_000_000));
        // The timer is late by a little.
        let next = clock.slot(slot + Duration::from_micros(1_000_900));
        assert_eq!(next, at(6_000_000));
    }

    #[test]
    fn a_round_trip_is_what_passed_less_what_the_peer_held() {
        let start = Instant::now();
        let clock = WallClock::new(start, Duration::from_secs(1_700_000_000));
        let sent = compact(clock.ntp(start));
        let back = clock.ntp(start + Duration::from_millis(350));
        let rtt = round_trip(back, sent, 65_536 / 4).expect("quoted");
        assert!(
            rtt.abs_diff(Duration::from_millis(100)) < Duration::from_millis(1),
            "{rtt:?}"
        );
        assert_eq!(round_trip(back, 0, 0), None);
    }
}
