//! How well a viewer is served, second by second, and when it was sent the first of what it watches. Pure;
//! told the time.
//!
//! Video counts where the viewer takes some: sound goes on while a picture stands still.

use crate::cells::Watched;
use std::time::{Duration, Instant};

/// A pause that people take for one.
const GAP: Duration = Duration::from_secs(1);
/// Share of what was sent that may be lost: repair hides less than this.
const MAX_LOSS: f64 = 0.05;

#[derive(Debug)]
pub(super) struct Quality {
    takes_video: bool,
    /// Some video was sent: from then on, sound alone is a pause.
    has_video: bool,
    /// When the last packet that counts was sent; before, when it could have been.
    last: Instant,
    /// A pause ended in this second.
    paused: bool,
    /// When the first packet was sent, until somebody was told.
    first: Option<Instant>,
    begun: bool,
}

impl Quality {
    pub(super) fn new(now: Instant, takes_video: bool) -> Self {
        Quality {
            takes_video,
            has_video: false,
            last: now,
            paused: false,
            first: None,
            begun: false,
        }
    }

    /// From now on there can be media: keys exist, or the device is back.
    pub(super) fn begin(&mut self, now: Instant) {
        self.last = now;
        self.paused = false;
    }

    /// A packet was sent.
    pub(super) fn sent(&mut self, now: Instant, is_video: bool) {
        if !is_video && self.has_video {
            return;
        }
        self.has_video = is_video;
        self.paused |= self.is_paused(now);
        self.last = now;
        if !self.begun && is_video == self.takes_video {
            self.begun = true;
            self.first = Some(now);
        }
    }

    /// The second that ends now; `lost` is the share of what was sent.
    pub(super) fn second(&mut self, now: Instant, lost: Option<f64>) -> Watched {
        let paused = std::mem::take(&mut self.paused) || self.is_paused(now);
        if paused {
            Watched::Gap
        } else if lost.is_some_and(|lost| lost >= MAX_LOSS) {
            Watched::Loss
        } else {
            Watched::Good
        }
    }

    /// When the first packet of what it watches was sent. Told once.
    pub(super) fn take_first(&mut self) -> Option<Instant> {
        self.first.take()
    }

    fn is_paused(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= GAP
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds of a viewer that is sent a packet at each of these times, in milliseconds.
    fn seconds(count: u64, video: &[u64], sound: &[u64], lost: Option<f64>) -> Vec<Watched> {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut quality = Quality::new(start, true);
        let mut sent: Vec<(u64, bool)> = video.iter().map(|ms| (*ms, true)).collect();
        sent.extend(sound.iter().map(|ms| (*ms, false)));
        sent.sort_unstable();
        (1..=count)
            .map(|second| {
                let due = (second - 1) * 1000..second * 1000;
                for (ms, is_video) in sent.iter().filter(|(ms, _)| due.contains(ms)) {
                    quality.sent(at(*ms), *is_video);
                }
                quality.second(at(second * 1000), lost)
            })
            .collect()
    }

    #[test]
    fn a_pause_of_a_second_is_seen_wherever_it_begins() {
        use Watched::{Gap, Good};
        let even = [100, 600, 1100, 1600, 2100, 2600];
        assert_eq!(seconds(3, &even, &[], None), [Good, Good, Good]);
        // 0.9 s and 1.1 s, neither with a whole second of the count in it.
        assert_eq!(seconds(2, &[600, 1500], &[], None), [Good, Good]);
        assert_eq!(seconds(2, &[600, 1700], &[], None), [Good, Gap]);
        assert_eq!(seconds(3, &[100], &[], None), [Good, Gap, Gap]);
    }

    #[test]
    fn sound_does_not_hide_a_picture_that_stands_still_but_is_enough_where_there_is_no_other() {
        use Watched::{Gap, Good};
        let sound: Vec<u64> = (0..150).map(|n| n * 20).collect();
        assert_eq!(seconds(3, &[], &sound, None), [Good, Good, Good]);
        assert_eq!(seconds(3, &[500], &sound, None), [Good, Gap, Gap]);
    }

    #[test]
    fn loss_counts_from_five_percent_and_a_pause_before_loss() {
        use Watched::{Gap, Good, Loss};
        assert_eq!(seconds(1, &[500], &[], Some(0.049)), [Good]);
        assert_eq!(seconds(1, &[500], &[], Some(0.05)), [Loss]);
        assert_eq!(seconds(2, &[500], &[], Some(0.2)), [Loss, Gap]);
    }

    #[test]
    fn the_first_packet_that_counts_is_told_once_and_a_device_that_was_away_is_no_pause() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut quality = Quality::new(start, true);
        quality.sent(at(20), false);
        assert_eq!(quality.take_first(), None, "it waits for a picture");
        quality.sent(at(40), true);
        quality.sent(at(60), true);
        assert_eq!(quality.take_first(), Some(at(40)));
        assert_eq!(quality.take_first(), None);
        quality.begin(at(9_000));
        quality.sent(at(9_500), true);
        assert_eq!(quality.second(at(10_000), None), Watched::Good);
        let mut hearing = Quality::new(start, false);
        hearing.sent(at(20), false);
        assert_eq!(hearing.take_first(), Some(at(20)));
    }
}
