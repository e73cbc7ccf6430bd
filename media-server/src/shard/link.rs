//! What shards tell each other: datagrams and connections that arrived at the wrong one, sessions that
//! move, media for viewers on another one, and who has what.
//!
//! Each shard has one inbox. Media and datagrams are dropped and counted when it is full. Notices, of
//! which there are a few per session, have so much room that only a shard that hangs lets it fill.

use super::Call;
use super::admission::Permit;
use super::control::{Order, ViewerNumber};
use super::table::Entry;
use media_core::cells::KeyframeCause;
use media_core::flow::Flow;
use media_core::ids::SessionId;
use media_core::media::MediaBatch;
use media_core::pulse::Pulse;
use media_wire::{TcpStream, Waker};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use tokio::sync::oneshot;

/// Datagrams and batches that wait for one shard: about a second of the traffic that one shard
/// can handle.
const INBOX: usize = 1024;
/// Notices that wait for one shard (48 B each): several for each session that a pod may have. Beyond,
/// the shard has done nothing for long, `/livez` says so, and the notice is lost and counted.
const NOTICES: usize = 65_536;

/// Lost when the receiver does not keep up.
pub(super) enum Parcel {
    /// A datagram for one of your sessions, received by shard `via`.
    Datagram {
        from: Flow,
        via: u8,
        bytes: Box<[u8]>,
    },
    /// A TCP connection whose first check is for one of your sessions, and what arrived of it.
    Connection(Box<Moved>),
    /// A device's session that goes on with you, and its first flow.
    Session { flow: Flow, entry: Box<Entry> },
    /// A call about a session that was moved to you.
    Call {
        id: SessionId,
        call: Call,
        reply: oneshot::Sender<bool>,
    },
    /// Media for your viewers of a device.
    Media {
        device: Arc<str>,
        batch: Arc<MediaBatch>,
    },
    /// What your new viewers of a device can start from.
    Cache {
        device: Arc<str>,
        batches: Vec<Arc<MediaBatch>>,
    },
    /// A viewer here waits for a keyframe of that layer of your publisher.
    KeyframeWanted {
        device: Arc<str>,
        layer: u8,
        cause: KeyframeCause,
    },
    /// A viewer here asks something of your publisher.
    Order { device: Arc<str>, order: Order },
    /// The publisher here of one of your viewers' device answers it, or the server does.
    Answer {
        device: Arc<str>,
        viewer: ViewerNumber,
        bytes: Box<[u8]>,
    },
    /// What each viewer of your publisher on `shard` has room for, see `bandwidth.rs`.
    Bandwidth {
        device: Arc<str>,
        shard: u8,
        wanted: Box<[u64]>,
    },
}

/// A connection between two shards.
pub(super) struct Moved {
    pub(super) stream: TcpStream,
    pub(super) remote: SocketAddr,
    pub(super) permit: Permit,
    pub(super) received: Vec<u8>,
}

/// Lost only by a shard that hangs. Sent when sessions open, connect, move or close.
#[derive(Clone)]
pub(super) enum Notice {
    /// The first viewer of a device is here, or the last one left.
    Viewers {
        device: Arc<str>,
        shard: u8,
        any: bool,
    },
    /// The device's publisher is here, with these signs, or gone.
    Publisher {
        device: Arc<str>,
        shard: u8,
        pulse: Option<Arc<Pulse>>,
    },
    /// Datagrams from this address are for `shard`, or no longer. Notices of two shards can overtake
    /// each other, so the end of one's route says nothing about another's.
    Route {
        addr: SocketAddr,
        shard: u8,
        live: bool,
    },
    /// A session that you moved away has ended.
    Over(SessionId),
}

/// The sending half of a shard's inbox.
#[derive(Clone)]
pub(super) struct Link {
    parcels: SyncSender<Parcel>,
    notices: SyncSender<Notice>,
    waker: Waker,
}

pub(super) struct Inbox {
    pub(super) parcels: Receiver<Parcel>,
    pub(super) notices: Receiver<Notice>,
}

pub(super) fn link(waker: Waker) -> (Link, Inbox) {
    let (parcels, parcels_in) = sync_channel(INBOX);
    let (notices, notices_in) = sync_channel(NOTICES);
    (
        Link {
            parcels,
            notices,
            waker,
        },
        Inbox {
            parcels: parcels_in,
            notices: notices_in,
        },
    )
}

impl Link {
    /// `false` if the inbox is full.
    pub(super) fn send(&self, parcel: Parcel) -> bool {
        let sent = self.parcels.try_send(parcel).is_ok();
        self.waker.wake();
        sent
    }

    /// Gives the session back if the inbox is full or its shard gone.
    pub(super) fn move_session(&self, flow: Flow, entry: Box<Entry>) -> Result<(), Box<Entry>> {
        match self.parcels.try_send(Parcel::Session { flow, entry }) {
            Err(
                TrySendError::Full(Parcel::Session { entry, .. })
                | TrySendError::Disconnected(Parcel::Session { entry, .. }),
            ) => Err(entry),
            _ => {
                self.waker.wake();
                Ok(())
            }
        }
    }

    /// `false` if there is no room. A shard that is gone needs no notice.
    pub(super) fn notify(&self, notice: Notice) -> bool {
        let full = matches!(self.notices.try_send(notice), Err(TrySendError::Full(_)));
        self.waker.wake();
        !full
    }
}
