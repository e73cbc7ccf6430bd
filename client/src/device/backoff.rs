//! The pauses between attempts to reach a server or a source, so that a fleet that lost its server does not
//! come back all at once.
//!
//! Pure: it is told how long things lasted and says how long to wait. `device` and `feed` have one each.

use std::time::Duration;

/// Full jitter: each pause is chosen evenly from nothing to a bound that doubles.
#[derive(Debug)]
pub(super) struct Backoff {
    failures: u32,
    /// An even choice from 0 to 1.
    random: fn() -> f64,
}

/// Bound of the first pause: what was lost is most often back, or was only restarted.
const FIRST: Duration = Duration::from_millis(250);
/// Bound of the second, which doubles from there.
const SECOND: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// What lasted this long was a success, and the pauses begin small again. Less, and two devices that take
/// the same name from each other would do so without a pause.
const HEALTHY: Duration = Duration::from_secs(10);
/// Longest that a server is obeyed: what is in front of it may say a day.
const LONGEST_ASKED: Duration = Duration::from_secs(5 * 60);
/// Spread behind the time that a server asks for: it says the same to all.
const SPREAD: Duration = Duration::from_secs(1);

impl Backoff {
    pub fn new(random: fn() -> f64) -> Self {
        let failures = 0;
        Self { failures, random }
    }

    /// How long to wait after what lasted for `lasted`, and whose end asked for `retry_after`.
    pub fn pause(&mut self, lasted: Duration, retry_after: Option<Duration>) -> Duration {
        if lasted >= HEALTHY {
            self.failures = 0;
        }
        let bound = match self.failures {
            0 => FIRST,
            // 2⁵ s are beyond the longest.
            n => (SECOND * 2u32.pow((n - 1).min(5))).min(LONGEST),
        };
        self.failures = self.failures.saturating_add(1);
        match retry_after {
            Some(asked) => asked.min(LONGEST_ASKED) + SPREAD.mul_f64((self.random)()),
            None => bound.mul_f64((self.random)()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Duration = Duration::ZERO;

    /// The pauses while nothing answers, and when each attempt is made.
    fn attempts(random: fn() -> f64, count: usize) -> Vec<Duration> {
        let mut backoff = Backoff::new(random);
        let mut now = Duration::ZERO;
        let pauses = (0..count).map(|_| {
            now += backoff.pause(NONE, None);
            now
        });
        pauses.collect()
    }

    #[test]
    fn pauses_double_from_a_second_to_thirty_behind_a_short_first_one() {
        let at_most = attempts(|| 1.0, 9).into_iter().map(|at| at.as_millis());
        let expected = [
            250, 1_250, 3_250, 7_250, 15_250, 31_250, 61_250, 91_250, 121_250,
        ];
        assert!(
            at_most.clone().eq(expected),
            "{:?}",
            at_most.collect::<Vec<_>>()
        );
        assert_eq!(attempts(|| 0.0, 9), [NONE; 9], "full jitter");
    }

    #[test]
    fn attempts_go_on_for_ever() {
        let mut backoff = Backoff::new(|| 0.5);
        backoff.failures = u32::MAX;
        assert_eq!(backoff.pause(NONE, None), LONGEST / 2);
        assert_eq!(backoff.pause(NONE, None), LONGEST / 2);
    }

    #[test]
    fn what_lasted_is_tried_again_at_once_and_what_did_not_is_not() {
        let mut backoff = Backoff::new(|| 1.0);
        for _ in 0..3 {
            backoff.pause(NONE, None);
        }
        let short = Duration::from_secs(9);
        assert_eq!(backoff.pause(short, None), 4 * SECOND);
        assert_eq!(backoff.pause(HEALTHY, None), FIRST);
        assert_eq!(backoff.pause(NONE, None), SECOND);
    }

    #[test]
    fn a_server_that_says_when_is_asked_no_earlier() {
        let asked = Duration::from_secs(60);
        let mut backoff = Backoff::new(|| 0.0);
        assert_eq!(backoff.pause(NONE, Some(asked)), asked);
        let mut backoff = Backoff::new(|| 1.0);
        assert_eq!(backoff.pause(NONE, Some(asked)), asked + SPREAD);
        let pause = backoff.pause(NONE, Some(Duration::from_secs(u64::MAX)));
        assert_eq!(pause, LONGEST_ASKED + SPREAD, "but not for a day");
    }
}
