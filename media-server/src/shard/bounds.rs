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
    /// TCP connections of the process: one more was refused.
    TcpConnections,
    /// TCP connections of one source that have not proved to be a peer's: one more was refused.
    TcpSource,
    /// TCP connections of all sources that have not: the oldest was closed.
    TcpUnproven,
    /// TCP connections that one session proved: its oldest was closed.
    TcpSession,
    /// Time of a TCP connection to prove itself: it was closed.
    TcpLate,
    /// Time of a TCP connection without anything for a session: it was closed.
    TcpIdle,
}

impl Bound {
    pub const ALL: [Bound; 9] = [
        Bound::Routes,
        Bound::ClosedSessions,
        Bound::Notices,
        Bound::TcpConnections,
        Bound::TcpSource,
        Bound::TcpUnproven,
        Bound::TcpSession,
        Bound::TcpLate,
        Bound::TcpIdle,
    ];

    /// Value of the label `bound`.
    pub fn as_str(self) -> &'static str {
        match self {
            Bound::Routes => "routes",
            Bound::ClosedSessions => "closed_sessions",
            Bound::Notices => "notices",
            Bound::TcpConnections => "tcp_connections",
            Bound::TcpSource => "tcp_source",
            Bound::TcpUnproven => "tcp_unproven",
            Bound::TcpSession => "tcp_session",
            Bound::TcpLate => "tcp_late",
            Bound::TcpIdle => "tcp_idle",
        }
    }
}

/// Counts of one shard.
#[derive(Debug, Default)]
pub struct BoundHits([AtomicU64; Bound::ALL.len()]);

impl BoundHits {
    pub(super) fn count(&self, bound: Bound) {
        self.count_all(bound, 1);
    }

    pub(super) fn count_all(&self, bound: Bound, hits: usize) {
        self.0[bound as usize].fetch_add(hits as u64, Relaxed);
    }

    pub fn hits(&self, bound: Bound) -> u64 {
        self.0[bound as usize].load(Relaxed)
    }
}
