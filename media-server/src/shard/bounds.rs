//! How often a bounded table of a shard had no room. Written by its thread, read at each scrape.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A table with a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Bound {
    /// Addresses of other shards' sessions: one more was not noted, and its datagrams are dropped.
    Routes,
    /// Sessions closed lately: the oldest was forgotten early, and its checks go unanswered.
    ClosedSessions,
    /// Notices to another shard: one was lost, because that shard hangs.
    Notices,
}

impl Bound {
    pub const ALL: [Bound; 3] = [Bound::Routes, Bound::ClosedSessions, Bound::Notices];

    /// Value of the label `bound`.
    pub fn as_str(self) -> &'static str {
        match self {
            Bound::Routes => "routes",
            Bound::ClosedSessions => "closed_sessions",
            Bound::Notices => "notices",
        }
    }
}

/// Counts of one shard.
#[derive(Debug, Default)]
pub struct BoundHits([AtomicU64; Bound::ALL.len()]);

impl BoundHits {
    pub(super) fn count(&self, bound: Bound) {
        self.0[bound as usize].fetch_add(1, Relaxed);
    }

    pub fn hits(&self, bound: Bound) -> u64 {
        self.0[bound as usize].load(Relaxed)
    }
}
