//! How well a viewer is served, second by second, and when it was sent the first of what it watches. Pure;
//! told the time.
//!
//! Video counts where the viewer takes some: sound goes on while a picture stands still.
//!
//! A second in which the viewer has all that its device sent, and the device sent no picture, is one of a
//! screen that stands still, if the device was there. Whether it was shows only when it is heard again: such
//! seconds stay undecided until then, and are gaps if it is not.

use super::Viewer;
use crate::cells::{IceState, ShardCells, Watched};
use crate::output::Output;
use crate::pulse::Pulse;
use crate::session::DISCONNECTED_AFTER;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A pause that people take for one.
const GAP: Duration = Duration::from_secs(1);
/// Share of what was sent that may be lost: repair hides less than this.
const MAX_LOSS: f64 = 0.05;
/// A device that is silent for longer is out of reach: its session is shown as disconnected.
const OUT_OF_REACH: Duration = DISCONNECTED_AFTER;

impl Viewer {
    /// The signs of its publisher. Told before [`set_publisher_live`](Self::set_publisher_live), and when
    /// another session takes over.
    pub fn set_pulse(&mut self, pulse: &Arc<Pulse>) {
        self.quality.set_pulse(pulse);
    }

    /// Counts the second that ends now.
    pub(super) fn count_second(&mut self, now: Instant, out: &mut Output) {
        if self.orphaned.is_some() {
            self.quality.end(out.cells());
        } else if !self.tracks.is_empty() {
            // What is sent reaches nobody then, though nothing says so but the silence.
            self.quality.paused |= self.is_cut_off();
            let (lost, has_all) = (self.loss.ratio(now), self.has_all());
            self.quality.second(now, lost, has_all, out.cells());
        }
    }

    /// Whether no picture of its device is kept from it.
    fn has_all(&self) -> bool {
        let is_held_up = self.is_behind() || self.congestion.is_cut() || self.needs_keyframe();
        self.is_ready() && !self.is_cut_off() && !is_held_up
    }

    fn is_cut_off(&self) -> bool {
        self.transport.cells.ice_state() == IceState::Disconnected
    }
}

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
    /// That of the device, if one was ever there.
    pulse: Option<Arc<Pulse>>,
    /// When the last second ended.
    looked_at: Instant,
    /// Seconds without a picture from the device since it was last heard, and when the last of them ended.
    undecided: u64,
    until: Instant,
    /// The device has another session now, and had not said that the one before is over.
    replaced: bool,
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
            pulse: None,
            looked_at: now,
            undecided: 0,
            until: now,
            replaced: false,
        }
    }

    /// From now on there can be media: keys exist, or the device is back.
    pub(super) fn begin(&mut self, now: Instant) {
        self.last = now;
        self.looked_at = now;
        self.paused = false;
    }

    /// The device that it watches from now on, or another session of it.
    pub(super) fn set_pulse(&mut self, pulse: &Arc<Pulse>) {
        let before = self.pulse.replace(pulse.clone());
        self.replaced |= before.is_some_and(|before| !Arc::ptr_eq(&before, pulse));
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

    /// Counts the second that ends now, and those before it that are decided by now. `lost` is the share of
    /// what was sent; `has_all`: nothing that its device sent is kept from the viewer.
    pub(super) fn second(
        &mut self,
        now: Instant,
        lost: Option<f64>,
        has_all: bool,
        cells: &ShardCells,
    ) {
        let since = std::mem::replace(&mut self.looked_at, now);
        let paused = std::mem::take(&mut self.paused) || self.is_paused(now);
        let lossy = lost.is_some_and(|lost| lost >= MAX_LOSS);
        let pulse = self.pulse.as_ref();
        let stands_still =
            self.has_video && has_all && pulse.is_some_and(|pulse| pulse.paused(since, now));
        match (paused, lossy) {
            (true, _) if !stands_still => cells.count_watched(Watched::Gap, 1),
            (_, true) => cells.count_watched(Watched::Loss, 1),
            (true, false) => {
                self.undecided += 1;
                self.until = now;
            }
            (false, false) => cells.count_watched(Watched::Good, 1),
        }
        let Some(pulse) = pulse else {
            return;
        };
        let heard = pulse.heard();
        let out_of_reach = now.saturating_duration_since(heard) >= OUT_OF_REACH;
        if std::mem::take(&mut self.replaced) || out_of_reach || pulse.was_cut_off(since) {
            self.decide(Watched::Gap, 0, cells);
        } else {
            // As many of them ended after it was heard.
            let open = self.until.saturating_duration_since(heard);
            self.decide(
                Watched::Still,
                open.as_millis().div_ceil(1_000) as u64,
                cells,
            );
        }
    }

    /// The device has left, or the viewer does. Neither says that the device was out of reach.
    pub(super) fn end(&mut self, cells: &ShardCells) {
        self.decide(Watched::Still, 0, cells);
    }

    /// Counts the undecided seconds but for the last `open`.
    fn decide(&mut self, how: Watched, open: u64, cells: &ShardCells) {
        let decided = self.undecided.saturating_sub(open);
        self.undecided -= decided;
        cells.count_watched(how, decided);
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
    use Watched::{Gap, Good, Loss};

    /// A viewer, and signs of its device, on a clock that is told.
    struct Scene {
        start: Instant,
        seconds: u64,
        cells: ShardCells,
        pulse: Arc<Pulse>,
        quality: Quality,
    }

    impl Scene {
        fn new() -> Self {
            let start = Instant::now();
            let mut scene = Scene {
                start,
                seconds: 0,
                cells: ShardCells::default(),
                pulse: Arc::new(Pulse::new(start)),
                quality: Quality::new(start, true),
            };
            scene.quality.set_pulse(&scene.pulse);
            scene
        }

        /// One whose viewer was sent a picture, after 500 ms of the second that is over.
        fn watched() -> Self {
            let mut scene = Self::new();
            scene.picture(500, false);
            scene.second();
            assert_eq!(scene.counted(), [1, 0, 0, 0]);
            scene
        }

        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        /// The device sends a picture, and so does the viewer's session.
        fn picture(&mut self, ms: u64, cut_off: bool) {
            self.pulse.picture(self.at(ms), |_| cut_off);
            self.quality.sent(self.at(ms), true);
        }

        fn hear(&self, ms: u64) {
            self.pulse.hear(self.at(ms));
        }

        /// The next second ends, of a viewer who lacks nothing.
        fn second(&mut self) {
            self.second_of(None, true);
        }

        fn second_of(&mut self, lost: Option<f64>, has_all: bool) {
            self.seconds += 1;
            let now = self.at(self.seconds * 1_000);
            self.quality.second(now, lost, has_all, &self.cells);
        }

        /// Good, gap, loss, still.
        fn counted(&self) -> [u64; 4] {
            Watched::ALL.map(|how| self.cells.watched(how))
        }
    }

    /// Seconds of a viewer that is sent a packet at each of these times, in milliseconds, of a device of
    /// which nothing is known.
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
                let cells = ShardCells::default();
                quality.second(at(second * 1000), lost, true, &cells);
                let mut counted = Watched::ALL.into_iter();
                let how = counted.find(|how| cells.watched(*how) == 1);
                how.expect("the second is counted")
            })
            .collect()
    }

    #[test]
    fn a_pause_of_a_second_is_seen_wherever_it_begins() {
        let even = [100, 600, 1100, 1600, 2100, 2600];
        assert_eq!(seconds(3, &even, &[], None), [Good, Good, Good]);
        // 0.9 s and 1.1 s, neither with a whole second of the count in it.
        assert_eq!(seconds(2, &[600, 1500], &[], None), [Good, Good]);
        assert_eq!(seconds(2, &[600, 1700], &[], None), [Good, Gap]);
        assert_eq!(seconds(3, &[100], &[], None), [Good, Gap, Gap]);
    }

    #[test]
    fn sound_does_not_hide_a_picture_that_stands_still_but_is_enough_where_there_is_no_other() {
        let sound: Vec<u64> = (0..150).map(|n| n * 20).collect();
        assert_eq!(seconds(3, &[], &sound, None), [Good, Good, Good]);
        assert_eq!(seconds(3, &[500], &sound, None), [Good, Gap, Gap]);
    }

    #[test]
    fn loss_counts_from_five_percent_and_a_pause_before_loss() {
        assert_eq!(seconds(1, &[500], &[], Some(0.049)), [Good]);
        assert_eq!(seconds(1, &[500], &[], Some(0.05)), [Loss]);
        assert_eq!(seconds(2, &[500], &[], Some(0.2)), [Loss, Gap]);
    }

    #[test]
    fn seconds_without_a_picture_of_a_device_that_is_heard_again_are_still() {
        let mut scene = Scene::watched();
        scene.second();
        scene.second();
        assert_eq!(scene.counted(), [1, 0, 0, 0], "nobody knows yet");
        scene.hear(3_500);
        scene.second();
        // The fourth second ended after it was heard.
        assert_eq!(scene.counted(), [1, 0, 0, 2]);
        scene.hear(4_900);
        scene.second();
        assert_eq!(scene.counted(), [1, 0, 0, 3]);
        scene.picture(5_200, false);
        scene.second();
        scene.picture(6_050, false);
        scene.second();
        // The pause ended in the sixth, and the seventh had none.
        assert_eq!(scene.counted(), [2, 0, 0, 5]);
    }

    #[test]
    fn all_seconds_since_a_device_was_last_heard_are_gaps_once_it_is_out_of_reach() {
        let mut scene = Scene::watched();
        scene.hear(2_000);
        (0..15).for_each(|_| scene.second());
        assert_eq!(scene.counted(), [1, 0, 0, 1], "the last was heard 14 s ago");
        scene.second();
        assert_eq!(scene.counted(), [1, 15, 0, 1]);
        scene.second();
        assert_eq!(scene.counted(), [1, 16, 0, 1]);
    }

    #[test]
    fn a_pause_that_the_device_did_not_make_is_a_gap_however_short() {
        let mut scene = Scene::watched();
        (0..3).for_each(|_| scene.second());
        scene.picture(4_100, true);
        scene.second();
        assert_eq!(scene.counted(), [1, 4, 0, 0]);
        scene.picture(5_010, false);
        scene.second();
        assert_eq!(scene.counted(), [2, 4, 0, 0]);
    }

    #[test]
    fn a_pause_that_the_server_made_or_a_viewer_that_lacks_something_is_a_gap() {
        let mut scene = Scene::watched();
        for ms in [1_000, 1_500, 2_000, 2_500] {
            scene
                .pulse
                .picture(scene.at(ms), |_| unreachable!("no pause"));
        }
        scene.second();
        scene.second();
        assert_eq!(scene.counted(), [1, 2, 0, 0], "the device sends");
        scene.second_of(None, false);
        scene.hear(4_500);
        scene.second_of(None, false);
        assert_eq!(scene.counted(), [1, 4, 0, 0], "it waits for a keyframe");
        let mut scene = Scene::new();
        scene.pulse.picture(scene.at(100), |_| false);
        scene.hear(2_900);
        (0..3).for_each(|_| scene.second());
        assert_eq!(scene.counted(), [0, 3, 0, 0], "it never had a picture");
    }

    #[test]
    fn a_still_screen_hides_no_loss() {
        let mut scene = Scene::watched();
        scene.hear(3_500);
        scene.second_of(Some(0.05), true);
        scene.second_of(Some(0.04), true);
        assert_eq!(scene.counted(), [1, 0, 1, 1]);
    }

    #[test]
    fn what_is_undecided_is_still_when_somebody_leaves_and_a_gap_when_the_device_begins_anew() {
        let mut scene = Scene::watched();
        scene.second();
        scene.second();
        scene.quality.end(&scene.cells);
        assert_eq!(scene.counted(), [1, 0, 0, 2]);

        let mut scene = Scene::watched();
        scene.second();
        scene.second();
        scene.pulse = Arc::new(Pulse::new(scene.at(3_500)));
        scene.quality.set_pulse(&scene.pulse);
        scene.second();
        assert_eq!(scene.counted(), [1, 3, 0, 0]);
        scene.picture(4_200, false);
        scene.second();
        // The gap ended in it.
        assert_eq!(scene.counted(), [1, 4, 0, 0]);
        scene.hear(6_500);
        scene.second();
        scene.second();
        assert_eq!(scene.counted(), [1, 4, 0, 1]);
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
        let cells = ShardCells::default();
        quality.second(at(10_000), None, true, &cells);
        assert_eq!(cells.watched(Good), 1);
        let mut hearing = Quality::new(start, false);
        hearing.sent(at(20), false);
        assert_eq!(hearing.take_first(), Some(at(20)));
    }
}
