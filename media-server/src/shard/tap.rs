//! The way of a device's media from its shard to the writer of a recording.
//!
//! The shard offers batches and never waits: what finds no room is left out, which the writer is told
//! with the next batch. Nor does it wake the writer, which looks by itself: that would cost a system call
//! for every batch. Beside them it is told whether the device publishes: one whose picture does not move may
//! send nothing for long. The other way there is one wish: a keyframe.

use media_core::media::MediaBatch;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Packets that wait for the writer: a second and a half at 12 Mbit/s, so that a disk may pause.
pub const ROOM: usize = 2048;

/// A batch of the recorded device.
pub struct Tapped {
    pub batch: Arc<MediaBatch>,
    /// The simulcast layer whose video is to be recorded.
    pub layer: u8,
    /// Some before it found no room.
    pub after_gap: bool,
}

/// The shards' end; each has one of its own.
#[derive(Clone)]
pub struct Tap {
    queue: SyncSender<Tapped>,
    shared: Arc<Shared>,
}

/// The writer's end.
pub struct Tapping {
    queue: Receiver<Tapped>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Packets in the queue.
    waiting: AtomicUsize,
    /// Set while what comes finds no room.
    gap: AtomicBool,
    gaps: AtomicU64,
    keyframe_wanted: AtomicBool,
    /// Shards that have a publisher of the device: for a moment two, while one takes over from another.
    publishers: AtomicUsize,
}

/// Both ends.
pub fn tap() -> (Tap, Tapping) {
    // No batch is without a packet.
    let (sender, receiver) = sync_channel(ROOM);
    let shared = Arc::<Shared>::default();
    let tap = Tap {
        queue: sender,
        shared: shared.clone(),
    };
    let tapping = Tapping {
        queue: receiver,
        shared,
    };
    (tap, tapping)
}

impl Tap {
    /// Gives the writer a batch, if it has room for it.
    pub(super) fn offer(&self, batch: &Arc<MediaBatch>, layer: u8) {
        let shared = &self.shared;
        let packets = batch.packets().len();
        let waiting = shared.waiting.fetch_add(packets, Relaxed) + packets;
        let tapped = Tapped {
            batch: batch.clone(),
            layer,
            after_gap: shared.gap.load(Relaxed),
        };
        if waiting <= ROOM && self.queue.try_send(tapped).is_ok() {
            shared.gap.store(false, Relaxed);
            return;
        }
        shared.waiting.fetch_sub(packets, Relaxed);
        if !shared.gap.swap(true, Relaxed) {
            shared.gaps.fetch_add(1, Relaxed);
        }
    }

    /// Whether the writer asked for a keyframe since the last time.
    pub(super) fn takes_keyframe_wish(&self) -> bool {
        self.shared.keyframe_wanted.swap(false, Relaxed)
    }

    /// Notes that this shard has a publisher of the device from now on, or no more.
    pub(super) fn set_publisher(&self, there: bool) {
        let publishers = &self.shared.publishers;
        match there {
            true => publishers.fetch_add(1, Relaxed),
            false => publishers.fetch_sub(1, Relaxed),
        };
    }

    /// Whether both are of one recording.
    pub(super) fn is(&self, other: &Tap) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl Tapping {
    /// The next batch, if one is there.
    pub fn next(&self) -> Option<Tapped> {
        let tapped = self.queue.try_recv().ok()?;
        let packets = tapped.batch.packets().len();
        self.shared.waiting.fetch_sub(packets, Relaxed);
        Some(tapped)
    }

    /// Asks the device for a keyframe, with the next media that comes of it.
    pub fn want_keyframe(&self) {
        self.shared.keyframe_wanted.store(true, Relaxed);
    }

    /// Whether the device publishes.
    pub fn has_publisher(&self) -> bool {
        self.shared.publishers.load(Relaxed) > 0
    }

    /// How often the writer did not keep up.
    pub fn gaps(&self) -> u64 {
        self.shared.gaps.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recording::testing::video;
    use std::time::Instant;

    #[test]
    fn what_finds_no_room_is_left_out_and_told_with_the_next_batch() {
        let (tap, tapping) = tap();
        let batch = |seq| video(Instant::now(), seq, 0, &[1]);
        for seq in 0..ROOM as u64 + 100 {
            tap.offer(&batch(seq), 0);
        }
        assert_eq!(tapping.gaps(), 1, "one gap of 100");
        let first = tapping.next().expect("the oldest stays");
        assert_eq!((first.batch.packets()[0].seq, first.after_gap), (0, false));
        tap.offer(&batch(9_000), 0);
        tap.offer(&batch(9_001), 0);
        let rest: Vec<Tapped> = std::iter::from_fn(|| tapping.next()).collect();
        assert_eq!(rest.len(), ROOM);
        assert!(rest.last().expect("some").after_gap);
        assert_eq!(tapping.gaps(), 2, "the second found none again");
        tap.offer(&batch(9_002), 0);
        assert!(tapping.next().expect("there is room").after_gap);
    }

    #[test]
    fn a_keyframe_is_asked_for_once() {
        let (tap, tapping) = tap();
        assert!(!tap.takes_keyframe_wish());
        tapping.want_keyframe();
        assert!(tap.clone().takes_keyframe_wish());
        assert!(!tap.takes_keyframe_wish());
    }
}
