//! What the clock of a device says → time on ours, as its sender reports tell.
//!
//! One for all tracks, or sound and picture would drift apart. A clock that is set while the device sends
//! (by NTP after a start, say) moves nothing: what was known before goes on.

/// A report further off than that is of a clock that was set, or came very late: those that follow tell.
const SET: u64 = 1 << 32;
/// Reports that seem late by the same all this time were not held up together: a network that stood still gives them
/// out at once.
const LATE_FOR: u64 = 5 * SET;
/// A clock that is further off drifts, if it was not set. Less is how reports are delayed.
const DRIFTED: u64 = SET / 10;
/// How much a report moves what is known, a millisecond: 200 ppm at a report each 5 s.
const STEP: i64 = (SET / 1_000) as i64;

/// See the module. In NTP units.
#[derive(Debug, Default)]
pub(super) struct DeviceClock {
    /// Our clock less the device's.
    offset: Option<u64>,
    /// Reports that were not believed.
    doubted: Option<Doubted>,
}

#[derive(Debug)]
struct Doubted {
    /// How far off they are.
    off: i64,
    /// When the first of them came.
    since: u64,
}

impl DeviceClock {
    /// Whether a report has come.
    pub(super) fn is_known(&self) -> bool {
        self.offset.is_some()
    }

    /// The time of a report that comes now, on our clock; `None` if it is not believed yet.
    pub(super) fn handle_report(&mut self, now: u64, reported: u64) -> Option<u64> {
        let measured = now.wrapping_sub(reported);
        let known = *self.offset.get_or_insert(measured);
        let off = measured.wrapping_sub(known).cast_signed();
        let doubted = self.doubted.take();
        let by = if off.unsigned_abs() <= DRIFTED {
            0
        } else if off.unsigned_abs() <= SET {
            off.signum() * STEP
        } else {
            match doubted.filter(|before| before.off.signum() == off.signum()) {
                // None can come early, so the clock was set; what is less was delayed less.
                Some(before) if off < 0 => off.min(before.off),
                Some(before) if off - before.off >= -(DRIFTED as i64) => {
                    let agrees = off - before.off <= DRIFTED as i64;
                    if !agrees || now.wrapping_sub(before.since) < LATE_FOR {
                        self.doubted = Some(before);
                        return None;
                    }
                    off.min(before.off)
                }
                _ => {
                    self.doubted = Some(Doubted { off, since: now });
                    return None;
                }
            }
        };
        let offset = known.wrapping_add_signed(by);
        self.offset = Some(offset);
        Some(reported.wrapping_add(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1 << 32;
    const START: u64 = 4_000_000_000 * SECOND;

    /// Milliseconds that a report of the device's clock at `device` is from our time, both in milliseconds.
    fn off(clock: &mut DeviceClock, ours: u64, device: i64) -> Option<i64> {
        let at = |ms: i64| START.wrapping_add_signed(((i128::from(ms) << 32) / 1_000) as i64);
        // Its clock is an hour behind ours.
        let reported = at(device - 3_600_000);
        let now = at(ours as i64);
        let on_ours = clock.handle_report(now, reported)?;
        let off = on_ours.wrapping_sub(now).cast_signed();
        Some(((i128::from(off) * 1_000 + (1 << 31)) >> 32) as i64)
    }

    #[test]
    fn a_clock_that_is_set_moves_nothing() {
        for by in [-3_000, 3_000, 40_000] {
            let clock = &mut DeviceClock::default();
            assert_eq!(off(clock, 1_000, 1_000), Some(0));
            assert_eq!(off(clock, 2_050, 2_000), Some(-50), "it was on its way");
            assert_eq!(off(clock, 4_000, 4_000 + by), None, "of the picture");
            let sound = off(clock, 5_000, 5_000 + by);
            if by < 0 {
                // It seems late, as if the network had stood still.
                assert_eq!(sound, None);
                assert_eq!(off(clock, 8_400, 6_000 + by), None, "and one is");
            } else {
                assert!(sound.is_some_and(|off| off.abs() <= 1), "{by}: {sound:?}");
            }
            let next = off(clock, 9_000, 9_000 + by);
            assert!(next.is_some_and(|off| off.abs() <= 1), "{by}: {next:?}");
            let later = off(clock, 10_030, 10_000 + by);
            assert!(
                later.is_some_and(|off| (off + 30).abs() <= 1),
                "{by}: {later:?}"
            );
        }
    }

    #[test]
    fn one_report_that_comes_very_late_changes_nothing() {
        let clock = &mut DeviceClock::default();
        assert_eq!(off(clock, 1_000, 1_000), Some(0));
        assert_eq!(off(clock, 4_000, 2_000), None);
        assert_eq!(off(clock, 4_100, 4_100), Some(0));
        assert_eq!(off(clock, 8_000, 6_000), None, "nor does another, later");
        assert_eq!(off(clock, 9_000, 9_000), Some(0));
    }

    #[test]
    fn reports_that_a_network_held_up_together_change_nothing() {
        let clock = &mut DeviceClock::default();
        assert_eq!(off(clock, 1_000, 1_000), Some(0));
        for device in [1_700, 2_200, 2_700] {
            assert_eq!(off(clock, 4_000, device), None, "{device}");
        }
        assert_eq!(off(clock, 5_000, 5_000), Some(0));
    }

    #[test]
    fn of_two_reports_of_a_clock_that_was_set_the_one_that_came_sooner_tells() {
        for (delays, on_its_way) in [([400, 0], 0), ([0, 400], 400)] {
            let clock = &mut DeviceClock::default();
            assert_eq!(off(clock, 1_000, 1_000), Some(0));
            assert_eq!(off(clock, 4_000 + delays[0], 7_000), None);
            let told = off(clock, 5_000 + delays[1], 8_000);
            assert!(
                told.is_some_and(|off| (off + on_its_way).abs() <= 1),
                "{delays:?}: {told:?}"
            );
        }
    }

    #[test]
    fn a_late_report_is_no_reason_to_believe_one_that_is_off_the_other_way() {
        let clock = &mut DeviceClock::default();
        assert_eq!(off(clock, 1_000, 1_000), Some(0));
        assert_eq!(off(clock, 6_000, 4_000), None, "two seconds late");
        assert_eq!(off(clock, 7_000, 10_000), None, "three seconds ahead");
        assert_eq!(off(clock, 7_100, 7_100), Some(0), "neither was so");
    }

    #[test]
    fn a_clock_that_drifts_is_followed() {
        let clock = &mut DeviceClock::default();
        let mut worst = 0;
        // Two days at 100 ppm, a report each 5 s.
        for n in 0..34_560u64 {
            let ours = n * 5_000;
            let device = ours + ours / 10_000;
            worst = worst.max(off(clock, ours, device as i64).map_or(i64::MAX, i64::abs));
        }
        assert!(worst <= 102, "{worst} ms");
    }
}
