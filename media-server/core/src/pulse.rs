//! Signs of a device: when it was last heard, and when it sent pictures.
//!
//! Written by the publisher's session, read by those of its viewers, which may be on other shards. Tells a
//! screen that stands still, of which a device sends nothing, from a device that is out of reach.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// So long without a picture is a pause of the device. Less than what is one for a viewer: the packets of a
/// picture, and its layers, come one after the other, and a viewer gets the first of them.
const PAUSE: Duration = Duration::from_millis(900);

/// Times in microseconds since `epoch`; 0 is never. All have one writer.
#[derive(Debug)]
pub struct Pulse {
    epoch: Instant,
    heard: AtomicU64,
    pictured: AtomicU64,
    /// The last picture that ended a pause, and the last for which the device was not the cause of it.
    resumed: AtomicU64,
    cut_off: AtomicU64,
}

impl Pulse {
    pub(crate) fn new(now: Instant) -> Pulse {
        Pulse {
            epoch: now,
            heard: AtomicU64::new(0),
            pictured: AtomicU64::new(0),
            resumed: AtomicU64::new(0),
            cut_off: AtomicU64::new(0),
        }
    }

    /// The device was there at that time: something authentic came.
    pub(crate) fn hear(&self, at: Instant) {
        let last = self.heard.load(Relaxed);
        self.heard.store(self.micros(at).max(last), Relaxed);
    }

    /// A packet of a picture came. If it ends a pause, `cut_off` says of its length whether the device sent
    /// more meanwhile than what came.
    pub(crate) fn picture(&self, now: Instant, cut_off: impl FnOnce(Duration) -> bool) {
        let at = self.micros(now);
        let before = self.pictured.load(Relaxed);
        let pause = Duration::from_micros(at.saturating_sub(before));
        if before > 0 && pause >= PAUSE {
            if cut_off(pause) {
                self.cut_off.store(at, Relaxed);
            }
            self.resumed.store(at, Relaxed);
        }
        self.pictured.store(at, Relaxed);
    }

    /// When the device was last heard.
    pub(crate) fn heard(&self) -> Instant {
        let last = self.heard.load(Relaxed).max(self.pictured.load(Relaxed));
        self.epoch + Duration::from_micros(last)
    }

    /// Whether no picture came at the end of the time from `since` to `now`, or one that ended a pause.
    pub(crate) fn paused(&self, since: Instant, now: Instant) -> bool {
        let last = self.pictured.load(Relaxed);
        let pause = Duration::from_micros(self.micros(now).saturating_sub(last));
        last > 0 && (pause >= PAUSE || self.resumed.load(Relaxed) > self.micros(since))
    }

    /// Whether a pause ended since then, for which the device was not the cause.
    pub(crate) fn was_cut_off(&self, since: Instant) -> bool {
        self.cut_off.load(Relaxed) > self.micros(since)
    }

    fn micros(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.epoch).as_micros() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_ends_with_a_picture_and_is_known_to_whoever_looks_in_between_or_right_after() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let pulse = Pulse::new(start);
        assert!(!pulse.paused(at(0), at(5_000)), "it never sent a picture");
        pulse.picture(at(5_000), |_| unreachable!("the first ends no pause"));
        pulse.picture(at(5_800), |_| unreachable!("no pause"));
        assert!(!pulse.paused(at(5_000), at(6_000)));
        assert!(pulse.paused(at(6_000), at(7_000)));
        pulse.hear(at(7_100));
        pulse.hear(at(7_050));
        assert_eq!(pulse.heard(), at(7_100));
        pulse.picture(at(7_300), |pause| pause != Duration::from_millis(1_500));
        assert_eq!(pulse.heard(), at(7_300));
        pulse.picture(at(7_900), |_| unreachable!("no pause"));
        assert!(pulse.paused(at(7_000), at(8_000)), "it ended meanwhile");
        assert!(!pulse.was_cut_off(at(7_000)));
        assert!(!pulse.paused(at(8_000), at(8_500)));
        pulse.picture(at(9_000), |_| true);
        assert!(pulse.was_cut_off(at(8_500)) && !pulse.was_cut_off(at(9_000)));
    }
}
