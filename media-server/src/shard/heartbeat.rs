//! When a shard thread last got on with its work, so that "busy" and "stuck" can be told apart.
//!
//! Written by the thread with every batch, read by whoever asks for liveness; nobody waits.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

pub(super) struct Heartbeat {
    start: Instant,
    /// Of the last beat, since `start`.
    millis: AtomicU64,
}

impl Heartbeat {
    pub(super) fn new(now: Instant) -> Self {
        Heartbeat {
            start: now,
            millis: AtomicU64::new(0),
        }
    }

    pub(super) fn beat(&self, now: Instant) {
        let millis = now.saturating_duration_since(self.start).as_millis() as u64;
        self.millis.store(millis, Relaxed);
    }

    /// How long ago the last beat was.
    pub(super) fn age(&self, now: Instant) -> Duration {
        let last = Duration::from_millis(self.millis.load(Relaxed));
        now.saturating_duration_since(self.start)
            .saturating_sub(last)
    }
}
