//! What shards tell each other: datagrams that arrived at the wrong one, media for viewers on
//! another one, and who has what.
//!
//! Each shard has one inbox. Media and datagrams are dropped and counted when it is full; notices,
//! of which there are a few per session, are not.

use media_core::media::MediaBatch;
use media_wire::Waker;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

/// Datagrams and batches that wait for one shard: about a second of the traffic that one shard
/// can handle.
const INBOX: usize = 1024;

/// Lost when the receiver does not keep up.
pub(super) enum Parcel {
    /// A datagram for one of your sessions, received by shard `via`.
    Datagram {
        from: SocketAddr,
        via: u8,
        bytes: Box<[u8]>,
    },
    /// Media for your viewers of a device.
    Media {
        device: Arc<str>,
        batch: Arc<MediaBatch>,
    },
    /// A viewer here waits for your publisher's keyframe.
    KeyframeWanted { device: Arc<str> },
}

/// Never lost. Sent when sessions open, connect, move or close.
#[derive(Clone)]
pub(super) enum Notice {
    /// The first viewer of a device is here, or the last one left.
    Viewers {
        device: Arc<str>,
        shard: u8,
        any: bool,
    },
    /// The device's publisher is here, or gone.
    Publisher {
        device: Arc<str>,
        shard: u8,
        live: bool,
    },
    /// Datagrams from this address are for me; or no longer.
    Route { addr: SocketAddr, shard: Option<u8> },
}

/// The sending half of a shard's inbox.
#[derive(Clone)]
pub(super) struct Link {
    parcels: SyncSender<Parcel>,
    notices: Sender<Notice>,
    waker: Waker,
}

pub(super) struct Inbox {
    pub(super) parcels: Receiver<Parcel>,
    pub(super) notices: Receiver<Notice>,
}

pub(super) fn link(waker: Waker) -> (Link, Inbox) {
    let (parcels, parcels_in) = sync_channel(INBOX);
    let (notices, notices_in) = channel();
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

    pub(super) fn notify(&self, notice: Notice) {
        // A shard that is gone needs no notice.
        let _ = self.notices.send(notice);
        self.waker.wake();
    }
}
