//! What sessions produce: datagrams to send, grouped for the kernel, and events for the shard.
//!
//! One per shard, shared by its sessions, so that a session at rest holds no buffer.

use crate::cells::{Drop, KeyframeCause, ShardCells};
use crate::channel::Message;
use crate::flow::Flow;
use std::sync::Arc;
use std::time::Instant;

/// Bytes that wait to be sent, at most: room for what many sessions say in one turn, beside media, which the
/// shard sends earlier.
const SLAB: usize = 512 * 1024;
/// Datagrams per GSO message; the kernel takes 64 and, with headers, 65 507 bytes.
const MAX_SEGMENTS: usize = 64;
const MAX_RUN_BYTES: usize = 65_000;
/// Packets that one datagram can ask for again; receivers ask for fewer.
pub(crate) const MAX_LOST: usize = 256;

/// Datagrams of one flow that lie behind each other in the slab: all of `segment` bytes but for
/// the last, which may be shorter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub to: Flow,
    pub offset: usize,
    pub len: usize,
    pub segment: usize,
}

/// Datagrams in the order they were written.
#[derive(Debug)]
pub struct Slab {
    bytes: Box<[u8]>,
    used: usize,
    runs: Vec<Run>,
}

impl Slab {
    fn new() -> Self {
        Slab {
            bytes: vec![0; SLAB].into_boxed_slice(),
            used: 0,
            runs: Vec::with_capacity(256),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.used]
    }

    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// Bytes that still fit.
    pub fn room(&self) -> usize {
        self.bytes.len() - self.used
    }

    pub fn clear(&mut self) {
        self.used = 0;
        self.runs.clear();
    }

    /// Lets `fill` write one datagram of at most `max` bytes and say how long it became. `None`
    /// from `fill`, or no room, and nothing is sent.
    pub fn write(
        &mut self,
        to: Flow,
        max: usize,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Option<usize> {
        let len = fill(self.bytes.get_mut(self.used..self.used + max)?)?;
        if len == 0 || len > max {
            return None;
        }
        let offset = self.used;
        self.used += len;
        match self.runs.last_mut() {
            Some(run)
                if run.to == to
                    && len <= run.segment
                    && run.len % run.segment == 0
                    && run.len < run.segment * MAX_SEGMENTS
                    && run.len + len <= MAX_RUN_BYTES =>
            {
                run.len += len;
            }
            _ => self.runs.push(Run {
                to,
                offset,
                len,
                segment: len,
            }),
        }
        Some(len)
    }

    pub fn push(&mut self, to: Flow, datagram: &[u8]) -> Option<usize> {
        self.write(to, datagram.len(), |room| {
            room.copy_from_slice(datagram);
            Some(datagram.len())
        })
    }
}

/// What a session tells its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEvent {
    /// Datagrams of this flow are the session's from now on, and those of its former no longer.
    Bound(Flow),
    /// An authentic check came over TCP: the connection is a peer's.
    Checked(Flow),
    /// Keys exist.
    Connected,
    /// A check came with the credentials of the last restart; those before are worth nothing now.
    Restarted,
    /// A viewer cannot go on without a keyframe, or a session's path has moved.
    KeyframeWanted(KeyframeCause),
    /// The data channel takes what it had no room for, or is gone.
    ChannelRoom,
    /// Media flows since then: the first packet came of a publisher, or went to a viewer. Told within a second
    /// of it, once.
    MediaBegan(Instant),
    /// The session is over; nothing more comes from it.
    Ended(End),
}

impl SessionEvent {
    /// Since when media flows, if it tells that.
    pub fn media_began(self) -> Option<Instant> {
        match self {
            SessionEvent::MediaBegan(at) => Some(at),
            _ => None,
        }
    }
}

/// Why a session ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The peer said goodbye (DTLS close_notify).
    PeerClosed,
    /// No authenticated check for 30 s.
    IceFailed,
    /// No keys 15 s after it was opened.
    SetupTimeout,
    /// A viewer without publisher for 30 s.
    PublisherGone,
    /// The handshake cannot succeed: wrong certificate, or no common profile.
    Failed,
}

/// Where a session's calls leave their results.
#[derive(Debug)]
pub struct Output {
    pub slab: Slab,
    pub events: Vec<SessionEvent>,
    /// Sequence numbers that the viewer last called asks for again; the shard gives them back to it
    /// with its ring.
    pub lost: Vec<u16>,
    /// Messages from the data channel of the session last called.
    pub messages: Vec<Message>,
    cells: Arc<ShardCells>,
}

impl Output {
    pub fn new(cells: Arc<ShardCells>) -> Self {
        Output {
            slab: Slab::new(),
            events: Vec::new(),
            lost: Vec::new(),
            messages: Vec::new(),
            cells,
        }
    }

    pub(crate) fn note_lost(&mut self, seq: u16) {
        self.cells.count_nacked_in(1);
        if self.lost.len() < MAX_LOST {
            self.lost.push(seq);
        } else {
            self.drop(Drop::RetransmissionLimit);
        }
    }

    pub fn drop(&self, reason: Drop) {
        self.cells.count_drops(reason, 1);
    }

    pub fn cells(&self) -> &ShardCells {
        &self.cells
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn flow(addr: &str) -> Flow {
        Flow::from(addr.parse::<SocketAddr>().expect("address"))
    }

    #[test]
    fn equal_datagrams_to_one_address_form_a_run_that_a_shorter_one_ends() {
        let mut slab = Slab::new();
        let (a, b) = (flow("192.0.2.1:1"), flow("192.0.2.1:2"));
        for (to, len) in [(a, 100), (a, 100), (a, 40), (a, 40), (b, 40), (b, 60)] {
            slab.push(to, &vec![1; len]).expect("room");
        }
        let runs: Vec<_> = slab
            .runs()
            .iter()
            .map(|r| (r.to, r.offset, r.len, r.segment))
            .collect();
        assert_eq!(
            runs,
            [
                (a, 0, 240, 100),
                (a, 240, 40, 40),
                (b, 280, 40, 40),
                (b, 320, 60, 60)
            ]
        );
    }

    #[test]
    fn a_run_stays_within_what_the_kernel_takes() {
        let mut slab = Slab::new();
        let to = flow("192.0.2.1:1");
        (0..200).for_each(|_| assert!(slab.push(to, &[0; 1200]).is_some()));
        assert!(
            slab.runs()
                .iter()
                .all(|r| r.len <= MAX_RUN_BYTES && r.len <= r.segment * MAX_SEGMENTS)
        );
        assert_eq!(slab.runs().iter().map(|r| r.len).sum::<usize>(), 200 * 1200);
        assert_eq!(slab.push(to, &vec![0; SLAB]), None, "no room");
    }
}
