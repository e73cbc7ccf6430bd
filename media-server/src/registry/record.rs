//! One session, as signalling knows it: what it was made with, and what became of it so far.
//!
//! Marks are flipped by the registry and by who ends or answers the session; nothing here knows of other
//! sessions.

use super::viewing::Viewing;
use super::{Protocol, lock};
use crate::devices::name_of;
use crate::limits::Handshake;
use crate::trace::SessionTrace;
use media_core::cells::SessionCells;
use media_core::ids::{IcePwd, SessionId, Ufrag};
use media_core::negotiated::{Codec, Role};
use media_core::sdp::{Bundle, Proposal};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime};

/// One session, as signalling knows it.
#[derive(Debug)]
pub struct Record {
    pub id: SessionId,
    pub protocol: Protocol,
    /// The device's key, see `devices.rs`.
    pub device: Arc<str>,
    /// Who made it, where tokens are asked for.
    pub subject: Option<String>,
    /// When its POST came; of an offer of ours, the answer.
    asked: Mutex<Instant>,
    pub created: Instant,
    pub created_at: SystemTime,
    /// Held while an ICE restart is under way, so that of two at once the second sees the first.
    pub ice: tokio::sync::Mutex<Ice>,
    pub bundle: Bundle,
    /// Where its video stands in the SDP, if it has some.
    pub video: Option<MediaLine>,
    /// Publisher: RIDs of its simulcast layers, in the order of its offer.
    pub rids: Vec<Box<str>>,
    /// What it may send, or is sent, in the order of preference.
    pub codecs: Vec<Codec>,
    /// What a session of the older API has beyond others.
    pub older: Option<Older>,
    pub cells: Arc<SessionCells>,
    /// Where there are traces.
    pub trace: OnceLock<SessionTrace>,
    activity: Mutex<Activity>,
    /// Its place among the set-ups, until it has keys or is gone.
    handshake: Mutex<Option<Handshake>>,
    pub(super) connected: AtomicBool,
    /// Set when its end was asked for: from then on nobody finds it.
    pub(super) ending: AtomicBool,
    pub viewing: Viewing,
    /// There were no series left for it: all its life it counts among the others.
    pub(super) folded: AtomicBool,
}

/// What the older API knows of a session.
#[derive(Debug)]
pub struct Older {
    /// The `userId` that it was made with.
    pub user: String,
    /// What clients call it: its id, or that of the session whose place it took.
    pub name: SessionId,
    /// Subscriber: the name of the publisher that it was made for.
    pub publisher: Option<SessionId>,
    /// Our answer, to a client that offered: its WebSocket may ask for it once more.
    pub answer: Option<String>,
    /// Our offer, until its answer has come and the session is on its shard.
    pub offered: tokio::sync::Mutex<Option<Box<Offered>>>,
}

/// An offer of ours, and what its session will be made with.
#[derive(Debug)]
pub struct Offered {
    pub proposal: Proposal,
    pub ufrag: Ufrag,
    pub pwd: IcePwd,
    pub may_control: bool,
}

/// When a session was last of use.
#[derive(Debug)]
struct Activity {
    at: Instant,
    /// Packets and messages until then.
    seen: u64,
}

/// An m-line of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaLine {
    pub index: usize,
    pub mid: String,
}

impl MediaLine {
    /// Whether it goes by that name: its index, or its MID.
    pub fn is(&self, name: &str) -> bool {
        self.mid == name || self.index.to_string() == name
    }
}

/// The ICE generation of a session.
#[derive(Debug)]
pub struct Ice {
    /// Value of the `ETag` header, with its quotes.
    pub etag: String,
    pub remote_ufrag: String,
    pub remote_pwd: String,
    /// Remote candidates of this generation that were counted.
    pub candidates: u32,
}

/// What a record is made from.
pub struct NewSession {
    pub id: SessionId,
    pub protocol: Protocol,
    pub device: Arc<str>,
    pub subject: Option<String>,
    pub asked: Instant,
    pub ice: Ice,
    pub bundle: Bundle,
    pub video: Option<MediaLine>,
    pub rids: Vec<Box<str>>,
    pub codecs: Vec<Codec>,
    pub older: Option<Older>,
    pub cells: Arc<SessionCells>,
    pub handshake: Option<Handshake>,
}

impl Record {
    pub fn new(new: NewSession) -> Record {
        let created = Instant::now();
        Record {
            id: new.id,
            protocol: new.protocol,
            device: new.device,
            subject: new.subject,
            asked: Mutex::new(new.asked),
            created,
            created_at: SystemTime::now(),
            ice: tokio::sync::Mutex::new(new.ice),
            bundle: new.bundle,
            video: new.video,
            rids: new.rids,
            codecs: new.codecs,
            older: new.older,
            cells: new.cells,
            trace: OnceLock::new(),
            activity: Mutex::new(Activity {
                at: created,
                seen: 0,
            }),
            handshake: Mutex::new(new.handshake),
            connected: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            viewing: Viewing::default(),
            folded: AtomicBool::new(false),
        }
    }

    pub fn role(&self) -> Role {
        self.protocol.role()
    }

    /// What clients call its device.
    pub fn device_name(&self) -> &str {
        name_of(&self.device)
    }

    /// Whether its keys exist.
    pub fn connected(&self) -> bool {
        self.connected.load(Relaxed)
    }

    /// Value of its `device_id` label. A device that has not come has no series: names are easily made up.
    pub fn device_label(&self) -> &str {
        self.viewing.label(&self.device)
    }

    /// Whether it counts among the others, without series of its own.
    pub fn is_folded(&self) -> bool {
        self.folded.load(Relaxed)
    }

    /// Marks the end as asked for; `false` if somebody has done so before.
    pub fn begin_ending(&self) -> bool {
        !self.ending.swap(true, Relaxed)
    }

    /// Its set-up begins, later than it was admitted: with an answer that came at `asked`.
    pub fn begin_handshake(&self, place: Handshake, asked: Instant) {
        *lock(&self.handshake) = Some(place);
        *lock(&self.asked) = asked;
    }

    /// How long the set-up takes by now. What a client did before it answered is no part of it.
    pub fn setting_up(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.asked())
    }

    /// When its POST came; of an offer of ours, the answer.
    pub fn asked(&self) -> Instant {
        *lock(&self.asked)
    }

    /// Its set-up is over, or did not begin.
    pub fn end_handshake(&self) {
        lock(&self.handshake).take();
    }

    /// Whether it waits for the answer to our offer. One that is being dealt with has come.
    pub fn is_unanswered(&self) -> bool {
        let offered = self.older.as_ref().map(|older| older.offered.try_lock());
        offered.is_some_and(|offered| offered.is_ok_and(|offered| offered.is_some()))
    }

    /// Notes a request about it.
    pub fn called(&self, now: Instant) {
        lock(&self.activity).at = now;
    }

    /// When it last had media, a control message or a request, as far as [`Self::look`] saw.
    pub fn last_active(&self) -> SystemTime {
        let at = lock(&self.activity).at;
        self.created_at + at.saturating_duration_since(self.created)
    }

    /// Looks for media and messages since the last time; returns for how long there was nothing.
    pub fn look(&self, now: Instant) -> Duration {
        let seen = self.cells.packets() + self.cells.messages();
        let mut activity = lock(&self.activity);
        if std::mem::replace(&mut activity.seen, seen) != seen {
            activity.at = now;
        }
        now.saturating_duration_since(activity.at)
    }

    /// Takes the mark back: the shard did not take the order, and the session lives on.
    pub fn resume(&self) {
        self.ending.store(false, Relaxed);
    }
}
