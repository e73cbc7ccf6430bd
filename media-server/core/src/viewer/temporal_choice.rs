//! Which temporal layers a viewer's way has room for, once there is no lesser simulcast layer to go to.
//!
//! Pure. Decides by the rates that the stream has; the track leaves the pictures out, and takes them back
//! where they can be decoded, see `thinning`.

use super::layer_choice::{LayerChoice, lower};
use crate::stats::TemporalRates;
use std::time::{Duration, Instant};

/// A stream that runs this late is sent with fewer pictures, even if it nearly fits. Half of what ends
/// a group of pictures early: that comes last.
const MAX_LAG: Duration = Duration::from_millis(500);
/// A picture that more can follow comes soon in most streams. Where it does not, or never does, the device
/// is asked for a keyframe this long after, and as often at most.
const SYNC_WITHIN: Duration = Duration::from_secs(2);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct TemporalChoice {
    /// Of that simulcast layer.
    rates: (u8, TemporalRates),
    /// The highest id that there is room for, if not for all.
    highest: Option<u8>,
    choice: LayerChoice,
    /// When that changed last. What came before was late already.
    changed: Option<Instant>,
    /// Since when there is room for more, or when the device was asked for a keyframe since.
    rose: Option<Instant>,
}

impl TemporalChoice {
    /// Takes note of the rates of the stream that the viewer is on: of that simulcast layer.
    pub(super) fn note(&mut self, layer: u8, rates: TemporalRates) {
        self.rates = (layer, rates);
    }

    /// The highest id of a layer that there is room for; `None` is all. `wanted` is the highest that the
    /// viewer takes itself; `room` is in bits per second, `None` for any.
    pub(super) fn next(
        &mut self,
        now: Instant,
        layer: u8,
        wanted: u8,
        room: Option<u64>,
    ) -> Option<u8> {
        // Otherwise the viewer has only gone there.
        if layer == self.rates.0 {
            let (rates, place) = self.ranked(wanted);
            if let Some(place) = self.choice.step(now, &rates, place, room) {
                self.go_to(now, &rates, place);
            }
        }
        self.highest
    }

    /// Whether what should have gone out at `due` is so late that fewer pictures should go, if there are
    /// fewer.
    pub(super) fn is_late(&self, now: Instant, due: Instant) -> bool {
        let known = self.changed.is_some_and(|changed| due < changed);
        let fewer = self.highest != Some(0) && self.rates.1.by_layer().len() > 1;
        fewer && !known && now.saturating_duration_since(due) > MAX_LAG
    }

    /// Goes lower, to what there is room for.
    pub(super) fn hurry(&mut self, now: Instant, layer: u8, wanted: u8, room: u64) {
        let (rates, place) = self.ranked(wanted);
        if let Some(place) = lower(&rates, place, room).filter(|_| layer == self.rates.0) {
            self.choice = LayerChoice::default();
            self.go_to(now, &rates, place);
        }
    }

    /// There is no choice: all goes.
    pub(super) fn reset(&mut self) {
        (self.highest, self.choice) = (None, LayerChoice::default());
    }

    pub(super) fn highest(&self) -> Option<u8> {
        self.highest
    }

    /// Each second: whether the device should be asked for a keyframe, because there is room for pictures
    /// that would come else, and which `waits` for one to begin with.
    pub(super) fn wants_keyframe(&mut self, now: Instant, waits: bool) -> bool {
        let due = self.rose.as_mut();
        due.filter(|at| waits && now >= **at + SYNC_WITHIN)
            .map(|at| *at = now)
            .is_some()
    }

    /// The rates that the viewer can have, from the best to the least, and which of them it has.
    fn ranked(&self, wanted: u8) -> (Vec<u64>, usize) {
        let rates = self.rates.1.by_layer().iter().take(usize::from(wanted) + 1);
        let mut rates: Vec<u64> = rates.copied().collect();
        rates.reverse();
        let top = rates.len().saturating_sub(1);
        let place = self.highest.map_or(0, |id| top.saturating_sub(id.into()));
        (rates, place)
    }

    fn go_to(&mut self, now: Instant, rates: &[u64], place: usize) {
        let id = (rates.len() - 1 - place) as u8;
        let before = std::mem::replace(&mut self.highest, (place > 0).then_some(id));
        let more = before.is_some_and(|before| before < id);
        self.changed = Some(now);
        self.rose = more.then_some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::TemporalCount;

    const ALL: u8 = u8::MAX;

    /// Three layers, of 300, 600 and 1 000 kbit/s.
    fn choice(now: Instant) -> TemporalChoice {
        let (mut count, mut choice) = (TemporalCount::default(), TemporalChoice::default());
        count.roll(now);
        for (id, kilobits) in [(0, 300), (1, 300), (2, 400)] {
            count.add(id, kilobits * 125);
        }
        count.roll(now + Duration::from_secs(1));
        choice.note(0, count.rates());
        choice
    }

    #[test]
    fn as_many_pictures_go_as_there_is_room_for() {
        let now = Instant::now();
        let next = |room| choice(now).next(now, 0, ALL, Some(room));
        assert_eq!(next(910_000), None, "nine tenths are enough");
        assert_eq!(next(890_000), Some(1));
        assert_eq!(next(590_000), Some(0));
        assert_eq!(next(90_000), Some(0), "there are no fewer");
        assert_eq!(choice(now).next(now, 0, 1, Some(550_000)), None);
        assert_eq!(choice(now).next(now, 0, 1, Some(530_000)), Some(0));
    }

    #[test]
    fn more_come_back_after_three_seconds_of_room() {
        let (start, at) = (Instant::now(), Duration::from_secs);
        let mut choice = choice(start);
        assert_eq!(choice.next(start, 0, ALL, Some(400_000)), Some(0));
        assert_eq!(choice.next(start + at(1), 0, ALL, Some(730_000)), Some(0));
        assert_eq!(choice.next(start + at(4), 0, ALL, Some(730_000)), Some(1));
        assert_eq!(choice.next(start + at(5), 0, ALL, None), Some(1));
        assert_eq!(choice.next(start + at(8), 0, ALL, None), None);
    }

    #[test]
    fn one_layer_alone_leaves_no_choice() {
        let (now, mut count) = (Instant::now(), TemporalCount::default());
        count.roll(now);
        count.add(0, 100_000);
        count.roll(now + Duration::from_secs(1));
        let mut choice = TemporalChoice::default();
        assert_eq!(choice.next(now, 0, ALL, Some(1)), None, "nothing is known");
        choice.note(0, count.rates());
        assert_eq!(choice.next(now, 0, ALL, Some(1)), None);
        assert!(!choice.is_late(now + 2 * MAX_LAG, now));
    }

    #[test]
    fn rates_of_the_layer_before_say_nothing() {
        let now = Instant::now();
        let mut choice = choice(now);
        assert_eq!(choice.next(now, 1, ALL, Some(1)), None);
        choice.hurry(now, 1, ALL, 1);
        assert_eq!(choice.highest(), None);
    }

    #[test]
    fn what_is_late_makes_one_step_and_not_another_until_what_comes_after_is_late_too() {
        let (start, at) = (Instant::now(), Duration::from_millis);
        let mut choice = choice(start);
        assert!(!choice.is_late(start + at(400), start));
        assert!(choice.is_late(start + at(600), start));
        choice.hurry(start + at(600), 0, ALL, 950_000);
        assert_eq!(choice.highest(), Some(1));
        assert!(!choice.is_late(start + at(1_190), start + at(580)));
        assert!(choice.is_late(start + at(1_200), start + at(650)));
        choice.hurry(start + at(1_200), 0, ALL, 950_000);
        assert_eq!(choice.highest(), Some(0));
        assert!(
            !choice.is_late(start + at(9_000), start + at(2_000)),
            "none are fewer"
        );
    }

    #[test]
    fn a_keyframe_is_asked_for_where_nothing_else_lets_more_begin() {
        let (start, at) = (Instant::now(), Duration::from_secs);
        let mut choice = choice(start);
        choice.next(start, 0, ALL, Some(400_000));
        assert!(
            !choice.wants_keyframe(start + at(9), false),
            "there is no room"
        );
        choice.next(start + at(10), 0, ALL, None);
        choice.next(start + at(13), 0, ALL, None);
        assert!(!choice.wants_keyframe(start + at(14), true));
        assert!(choice.wants_keyframe(start + at(15), true));
        assert!(!choice.wants_keyframe(start + at(16), true));
        assert!(choice.wants_keyframe(start + at(17), true), "it was lost");
        assert!(!choice.wants_keyframe(start + at(19), false), "it came");
    }
}
