//! Which layer a viewer's way has room for: less at once, more when there was room for a while.
//!
//! Pure. Decides between layers as their publisher sends them, simulcast ones and, see `temporal_choice`,
//! temporal ones; the viewer goes over where it can.

use crate::layers::Layers;
use std::time::{Duration, Instant};

/// A layer is left when there is room for less than this of it, in tenths.
const LEAVE: u64 = 9;
/// A better one is taken after there was room for so much of it, in tenths, for so long: the margin and
/// the time keep a viewer from going to and fro.
const TAKE: u64 = 12;
const TAKE_AFTER: Duration = Duration::from_secs(3);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct LayerChoice {
    /// Since when there is room for a better one.
    room_since: Option<Instant>,
}

impl LayerChoice {
    /// The layer to go to from `current`, if it is another. `room` is in bits per second, `None` for any.
    pub(super) fn next(
        &mut self,
        now: Instant,
        layers: &Layers,
        current: u8,
        room: Option<u64>,
    ) -> Option<u8> {
        let ranked = layers.ranked();
        let place = ranked.iter().position(|layer| *layer == current)?;
        let rate = |layer: &u8| {
            let layer = layers.all.get(usize::from(*layer));
            layer.map_or(0, |layer| layer.bits_per_second)
        };
        let rates: Vec<u64> = ranked.iter().map(rate).collect();
        let place = self.step(now, &rates, place, room)?;
        ranked.get(place).copied()
    }

    /// The same for the place in `rates`, which go from the best layer to the least.
    pub(super) fn step(
        &mut self,
        now: Instant,
        rates: &[u64],
        place: usize,
        room: Option<u64>,
    ) -> Option<usize> {
        let current = rates.get(place)?;
        if let Some(room) = room
            && room * 10 < current * LEAVE
        {
            self.room_since = None;
            return lower(rates, place, room);
        }
        let fits = |rate: &u64| {
            // Of one that has only begun nothing is known.
            room.is_none_or(|room| *rate > 0 && room * 10 >= rate * TAKE)
        };
        let Some(better) = rates[..place].iter().position(fits) else {
            self.room_since = None;
            return None;
        };
        let since = *self.room_since.get_or_insert(now);
        let taken = now >= since + TAKE_AFTER;
        taken.then(|| {
            self.room_since = None;
            better
        })
    }
}

/// The best place behind this one that there is room for, or the last; `None` if this is the last.
pub(super) fn lower(rates: &[u64], place: usize, room: u64) -> Option<usize> {
    let behind = place + 1..rates.len();
    let fits = behind.clone().find(|place| rates[*place] <= room);
    fits.or(behind.last())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::Layer;

    /// Full, half and quarter size, of 2, 0.6 and 0.15 Mbit/s.
    fn layers() -> Layers {
        let layer = |(width, bits_per_second): (u16, u64)| Layer {
            rid: width.to_string().into(),
            live: true,
            width,
            height: width,
            bits_per_second,
        };
        Layers {
            publisher: 1,
            all: [(1280, 2_000_000), (640, 600_000), (320, 150_000)]
                .map(layer)
                .into(),
        }
    }

    #[test]
    fn a_layer_without_room_is_left_at_once_for_the_best_that_fits() {
        let (now, layers) = (Instant::now(), layers());
        let next = |current, room| LayerChoice::default().next(now, &layers, current, Some(room));
        assert_eq!(next(0, 1_900_000), None, "nine tenths are enough");
        assert_eq!(next(0, 1_700_000), Some(1));
        assert_eq!(next(0, 400_000), Some(2));
        assert_eq!(next(0, 40_000), Some(2), "there is none less");
        assert_eq!(next(2, 40_000), None);
    }

    #[test]
    fn a_better_layer_is_taken_after_three_seconds_of_room() {
        let (start, layers) = (Instant::now(), layers());
        let mut choice = LayerChoice::default();
        let mut next = |seconds: f64, room| {
            let now = start + Duration::from_secs_f64(seconds);
            choice.next(now, &layers, 2, Some(room))
        };
        assert_eq!(next(0.0, 800_000), None);
        assert_eq!(next(2.0, 700_000), None, "too little");
        assert_eq!(next(2.5, 800_000), None);
        assert_eq!(next(5.4, 800_000), None);
        assert_eq!(next(5.5, 800_000), Some(1));
        let mut choice = LayerChoice::default();
        assert_eq!(choice.next(start, &layers, 2, None), None);
        let later = start + TAKE_AFTER;
        assert_eq!(
            choice.next(later, &layers, 2, None),
            Some(0),
            "room for any"
        );
    }

    #[test]
    fn a_layer_that_stopped_is_neither_chosen_nor_compared_with() {
        let (now, mut layers) = (Instant::now(), layers());
        layers.all[1].live = false;
        let mut choice = LayerChoice::default();
        assert_eq!(choice.next(now, &layers, 0, Some(1_000_000)), Some(2));
        assert_eq!(choice.next(now, &layers, 1, Some(1_000_000)), None);
    }
}
