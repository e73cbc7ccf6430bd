//! Which sessions exist: id → record, device → publisher and viewers.
//!
//! Owns admission (limits), superseding and the totals that metrics and the API show. Holds no media
//! and waits for nothing: every call is a short lock of one of a few maps. Called by the API to admit
//! and find, and by the app with the shards' events.

mod protocol;

use crate::devices::name_of;
use crate::limits::Handshake;
use crate::metrics::OTHER;
use crate::metrics::totals::Totals;
use media_core::cells::SessionCells;
use media_core::ids::{IcePwd, SessionId, Ufrag};
use media_core::negotiated::{Codec, Role};
use media_core::sdp::{Bundle, Proposal};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

pub use protocol::{Protocol, role_name};

/// Locks of the session map. Requests of different sessions rarely meet; more buys nothing on the
/// two threads that serve HTTP.
const SLOTS: usize = 16;
/// Viewers that may wait for devices which are not there, of all devices together: each holds a session's
/// memory for a minute at most.
const MAX_WAITING: usize = 500;
/// From an offer of ours to its answer. A client answers within a second or two, behind a slow gateway in 15.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Without media, control messages and requests about it a session has no use, though its peer is there.
pub const INACTIVE_AFTER: Duration = Duration::from_secs(30 * 60);

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
    activity: Mutex<Activity>,
    /// Its place among the set-ups, until it has keys or is gone.
    handshake: Mutex<Option<Handshake>>,
    connected: AtomicBool,
    /// Set when its end was asked for: from then on nobody finds it.
    ending: AtomicBool,
    /// It came before its device, which has not come yet.
    waiting: AtomicBool,
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
            activity: Mutex::new(Activity {
                at: created,
                seen: 0,
            }),
            handshake: Mutex::new(new.handshake),
            connected: AtomicBool::new(false),
            ending: AtomicBool::new(false),
            waiting: AtomicBool::new(false),
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
        match self.waiting.load(Relaxed) {
            true => OTHER,
            false => &self.device,
        }
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
        now.saturating_duration_since(*lock(&self.asked))
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

/// Why a session is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AdmitError {
    #[error("the server has {0} sessions, which is its limit")]
    Sessions(u32),
    #[error("the device has {0} viewers, which is the limit")]
    Viewers(u32),
    #[error("the device has no live publisher")]
    NoPublisher,
    #[error("{0} viewers wait for devices that are not there, which is the limit")]
    Waiting(usize),
}

#[derive(Debug, Default)]
struct Device {
    publisher: Option<Arc<Record>>,
    viewers: HashSet<SessionId>,
    /// Those of the viewers that came before it.
    waiting: HashMap<SessionId, Arc<Record>>,
}

impl Device {
    fn is_live(&self) -> bool {
        self.publisher.as_ref().is_some_and(|p| p.connected())
    }
}

/// A device as the API shows it.
#[derive(Debug)]
pub struct DeviceView {
    pub device: Arc<str>,
    pub publisher: Option<Arc<Record>>,
    pub viewers: usize,
}

/// All sessions of the process.
#[derive(Debug)]
pub struct Registry {
    sessions: [Mutex<HashMap<SessionId, Arc<Record>>>; SLOTS],
    devices: Mutex<HashMap<Arc<str>, Device>>,
    /// Sessions that have the name of another whose place they took.
    named: Mutex<HashMap<SessionId, SessionId>>,
    /// Ended sessions whose series are still shown.
    ended: Mutex<Vec<(Instant, Arc<Record>)>>,
    /// Ended sessions that there was no room to remember.
    forgotten: AtomicU64,
    /// What all ended sessions amount to. Changed under the lock of `devices`, as the session leaves.
    totals_ended: Mutex<Totals>,
    publishers: AtomicU32,
    viewers: AtomicU32,
    max_sessions: u32,
    max_viewers: u32,
    max_ended: usize,
}

impl Registry {
    /// `max_ended` bounds the ended sessions that are remembered for their series.
    pub fn new(max_sessions: u32, max_viewers: u32, max_ended: usize) -> Registry {
        Registry {
            sessions: std::array::from_fn(|_| Mutex::default()),
            devices: Mutex::default(),
            named: Mutex::default(),
            ended: Mutex::default(),
            forgotten: AtomicU64::new(0),
            totals_ended: Mutex::default(),
            publishers: AtomicU32::new(0),
            viewers: AtomicU32::new(0),
            max_sessions,
            max_viewers,
            max_ended,
        }
    }

    /// Admits a session. A publisher takes its device over; the one that it supersedes is returned,
    /// and is the caller's to close.
    ///
    /// # Errors
    /// [`AdmitError`]; nothing has changed.
    pub fn admit(&self, record: &Arc<Record>) -> Result<Option<Arc<Record>>, AdmitError> {
        // The lock on devices also makes the check of the totals and their change one step.
        let mut devices = lock(&self.devices);
        let total = self.publishers.load(Relaxed) + self.viewers.load(Relaxed);
        if total >= self.max_sessions {
            return Err(AdmitError::Sessions(self.max_sessions));
        }
        let superseded = match record.role() {
            Role::Publisher => {
                self.publishers.fetch_add(1, Relaxed);
                devices
                    .entry(record.device.clone())
                    .or_default()
                    .publisher
                    .replace(record.clone())
            }
            Role::Viewer => {
                let known = devices.get(&record.device);
                let waits = !known.is_some_and(Device::is_live);
                if waits {
                    if !record.protocol.waits() {
                        return Err(AdmitError::NoPublisher);
                    }
                    if waiting(&devices) >= MAX_WAITING {
                        return Err(AdmitError::Waiting(MAX_WAITING));
                    }
                }
                if known.is_some_and(|d| d.viewers.len() >= self.max_viewers as usize) {
                    return Err(AdmitError::Viewers(self.max_viewers));
                }
                let device = devices.entry(record.device.clone()).or_default();
                device.viewers.insert(record.id);
                if waits {
                    record.waiting.store(true, Relaxed);
                    device.waiting.insert(record.id, record.clone());
                }
                self.viewers.fetch_add(1, Relaxed);
                None
            }
        };
        if let Some(older) = record.older.as_ref().filter(|o| o.name != record.id) {
            lock(&self.named).insert(older.name, record.id);
        }
        lock(self.slot(record.id)).insert(record.id, record.clone());
        Ok(superseded)
    }

    /// Puts a superseded publisher back: its successor could not be opened.
    pub fn reinstate(&self, old: Arc<Record>) {
        let mut devices = lock(&self.devices);
        if !lock(self.slot(old.id)).contains_key(&old.id) {
            return;
        }
        let device = devices.entry(old.device.clone()).or_default();
        if device.publisher.is_none() {
            device.publisher = Some(old);
        }
    }

    /// The session, unless its end was asked for.
    pub fn find(&self, id: SessionId) -> Option<Arc<Record>> {
        lock(self.slot(id))
            .get(&id)
            .filter(|record| !record.ending.load(Relaxed))
            .cloned()
    }

    /// The session of the older API that clients call so.
    pub fn find_named(&self, name: SessionId) -> Option<Arc<Record>> {
        let id = lock(&self.named).get(&name).copied();
        let record = self.find(id.unwrap_or(name))?;
        let is_named = record.older.as_ref().is_some_and(|o| o.name == name);
        is_named.then_some(record)
    }

    /// Whether the device has a publisher whose media can flow.
    pub fn is_live(&self, device: &str) -> bool {
        lock(&self.devices).get(device).is_some_and(Device::is_live)
    }

    /// What the device sends, while it is live.
    pub fn codecs(&self, device: &str) -> Option<Vec<Codec>> {
        let devices = lock(&self.devices);
        let device = devices.get(device).filter(|d| d.is_live())?;
        device.publisher.as_ref().map(|p| p.codecs.clone())
    }

    /// Viewers that came before their device, which has not come yet.
    pub fn waiting(&self) -> usize {
        waiting(&lock(&self.devices))
    }

    /// A device, if it has a session.
    pub fn device(&self, device: &str) -> Option<DeviceView> {
        let devices = lock(&self.devices);
        let (name, known) = devices.get_key_value(device)?;
        Some(DeviceView {
            device: name.clone(),
            publisher: known.publisher.clone(),
            viewers: known.viewers.len(),
        })
    }

    /// RIDs of the simulcast layers that a device is published in; none without simulcast.
    pub fn layers(&self, device: &str) -> Vec<Box<str>> {
        let publisher = lock(&self.devices)
            .get(device)
            .and_then(|d| d.publisher.clone());
        publisher.map_or_else(Vec::new, |publisher| publisher.rids.clone())
    }

    /// Notes that a session's keys exist. Returns it the first time.
    pub fn connected(&self, id: SessionId) -> Option<Arc<Record>> {
        let record = lock(self.slot(id)).get(&id).cloned()?;
        record.end_handshake();
        let first = !record.connected.swap(true, Relaxed);
        if record.role() == Role::Publisher {
            let mut devices = lock(&self.devices);
            let device = devices.get_mut(&record.device);
            for (_, viewer) in device.into_iter().flat_map(|d| d.waiting.drain()) {
                viewer.waiting.store(false, Relaxed);
            }
        }
        first.then_some(record)
    }

    /// Notes that publishers with viewers are of use, though nothing may move before their cameras.
    pub fn note_watched(&self, now: Instant) {
        let devices = lock(&self.devices);
        let watched = devices.values().filter(|d| !d.viewers.is_empty());
        let publishers = watched.filter_map(|device| device.publisher.as_ref());
        publishers.for_each(|publisher| publisher.called(now));
    }

    /// Forgets a session that has ended, and remembers it for its series until [`Self::expire`].
    pub fn remove(&self, id: SessionId) -> Option<Arc<Record>> {
        let mut devices = lock(&self.devices);
        let record = lock(self.slot(id)).remove(&id)?;
        record.ending.store(true, Relaxed);
        record.end_handshake();
        if let Some(older) = &record.older {
            let mut named = lock(&self.named);
            if named.get(&older.name) == Some(&id) {
                named.remove(&older.name);
            }
        }
        match record.role() {
            Role::Publisher => self.publishers.fetch_sub(1, Relaxed),
            Role::Viewer => self.viewers.fetch_sub(1, Relaxed),
        };
        if let Some(device) = devices.get_mut(&record.device) {
            device.viewers.remove(&id);
            device.waiting.remove(&id);
            if device.publisher.as_ref().is_some_and(|p| p.id == id) {
                device.publisher = None;
            }
            if device.publisher.is_none() && device.viewers.is_empty() {
                devices.remove(&record.device);
            }
        }
        lock(&self.totals_ended).add(&record.cells);
        drop(devices);
        let mut ended = lock(&self.ended);
        if ended.len() < self.max_ended {
            ended.push((Instant::now(), record.clone()));
        } else {
            self.forgotten.fetch_add(1, Relaxed);
        }
        Some(record)
    }

    /// Forgets ended sessions that ended before `limit`.
    pub fn expire(&self, limit: Instant) {
        lock(&self.ended).retain(|(at, _)| *at >= limit);
    }

    /// Open sessions, in no order.
    pub fn sessions(&self) -> Vec<Arc<Record>> {
        self.sessions
            .iter()
            .flat_map(|slot| lock(slot).values().cloned().collect::<Vec<_>>())
            .collect()
    }

    /// Sessions that ended lately.
    pub fn ended(&self) -> Vec<Arc<Record>> {
        lock(&self.ended).iter().map(|(_, r)| r.clone()).collect()
    }

    /// What all sessions amount to, ended ones included: never less than the last time.
    pub fn session_totals(&self) -> Totals {
        // Sessions come and go under this lock, so none is missed or seen twice.
        let _still = lock(&self.devices);
        let mut totals = lock(&self.totals_ended).clone();
        self.sessions()
            .iter()
            .for_each(|record| totals.add(&record.cells));
        totals
    }

    /// Ended sessions whose series could not be shown to their end.
    pub fn forgotten(&self) -> u64 {
        self.forgotten.load(Relaxed)
    }

    /// Devices with a session, in the order of their names.
    pub fn devices(&self) -> Vec<DeviceView> {
        let mut views: Vec<DeviceView> = lock(&self.devices)
            .iter()
            .map(|(name, device)| DeviceView {
                device: name.clone(),
                publisher: device.publisher.clone(),
                viewers: device.viewers.len(),
            })
            .collect();
        views.sort_by(|a, b| a.device.cmp(&b.device));
        views
    }

    /// Open publishers and viewers.
    pub fn totals(&self) -> (u32, u32) {
        (self.publishers.load(Relaxed), self.viewers.load(Relaxed))
    }

    fn slot(&self, id: SessionId) -> &Mutex<HashMap<SessionId, Arc<Record>>> {
        // The last byte is random.
        &self.sessions[usize::from(id.0[15]) % SLOTS]
    }
}

fn waiting(devices: &HashMap<Arc<str>, Device>) -> usize {
    devices.values().map(|device| device.waiting.len()).sum()
}

/// A poisoned map is still right: no call leaves it half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use media_core::negotiated::Kind;
    use media_core::sdp::Proposed;
    use std::time::Duration;

    pub(crate) fn record(n: u8, protocol: Protocol, device: &str) -> Arc<Record> {
        Arc::new(Record::new(NewSession {
            id: SessionId::new(0, 0, [n; 16]),
            protocol,
            device: device.into(),
            subject: None,
            asked: Instant::now(),
            ice: Ice {
                etag: String::new(),
                remote_ufrag: String::new(),
                remote_pwd: String::new(),
                candidates: 0,
            },
            bundle: Bundle {
                kind: Some(Kind::Video),
                mids: "0".into(),
            },
            video: None,
            rids: Vec::new(),
            codecs: Vec::new(),
            older: None,
            cells: Arc::new(SessionCells::new()),
            handshake: None,
        }))
    }

    /// A session of the older API that has been answered.
    pub(crate) fn older(n: u8, protocol: Protocol, device: &str, name: u8) -> Arc<Record> {
        let mut record = Arc::into_inner(record(n, protocol, device)).expect("the only one");
        record.older = Some(Older {
            user: "ann".to_owned(),
            name: SessionId::new(0, 0, [name; 16]),
            publisher: None,
            answer: None,
            offered: tokio::sync::Mutex::new(None),
        });
        Arc::new(record)
    }

    /// One that waits for the answer to our offer.
    pub(crate) fn unanswered(n: u8, device: &str) -> Arc<Record> {
        let mut record = Arc::into_inner(older(n, Protocol::Session, device, n)).expect("one");
        let proposed = Proposed {
            video: vec![Codec::Vp8],
            audio: false,
            control: true,
            stream: "screen".to_owned(),
        };
        let proposal = Proposal::new(proposed, [1, 2, 3], "cname".to_owned());
        let offered = Offered {
            proposal: proposal.expect("a track"),
            ufrag: Ufrag::new(&[0; 16], 0, 0, [0; 6]),
            pwd: IcePwd::new([0; 24]),
            may_control: false,
        };
        let older = record.older.as_mut().expect("of the older API");
        older.offered = tokio::sync::Mutex::new(Some(Box::new(offered)));
        Arc::new(record)
    }

    fn live(registry: &Registry, n: u8, device: &str) -> Arc<Record> {
        let publisher = record(n, Protocol::Whip, device);
        registry.admit(&publisher).expect("room");
        registry.connected(publisher.id).expect("known");
        publisher
    }

    #[test]
    fn a_viewer_is_admitted_only_once_the_publisher_is_connected() {
        let registry = Registry::new(10, 10, 10);
        let viewer = record(1, Protocol::Whep, "cam");
        assert_eq!(registry.admit(&viewer).err(), Some(AdmitError::NoPublisher));
        let publisher = record(2, Protocol::Whip, "cam");
        registry.admit(&publisher).expect("room");
        assert_eq!(registry.admit(&viewer).err(), Some(AdmitError::NoPublisher));
        registry.connected(publisher.id).expect("known");
        assert!(registry.connected(publisher.id).is_none(), "only once");
        registry.admit(&viewer).expect("a live publisher");
        assert_eq!(registry.totals(), (1, 1));
    }

    #[test]
    fn viewers_of_the_older_api_may_come_before_their_device_up_to_a_bound() {
        let registry = Registry::new(2_000, 2_000, 10);
        for n in 0..MAX_WAITING {
            let mut id = [1; 16];
            id[8..].copy_from_slice(&n.to_be_bytes());
            let mut viewer = Arc::into_inner(record(1, Protocol::Session, "cam")).expect("one");
            viewer.id = SessionId::new(0, 0, id);
            registry.admit(&Arc::new(viewer)).expect("room");
        }
        assert_eq!(registry.waiting(), MAX_WAITING);
        let more = record(2, Protocol::SfuSubscriber, "door");
        let refused = registry.admit(&more).err();
        assert_eq!(refused, Some(AdmitError::Waiting(MAX_WAITING)));
        assert_eq!(registry.devices().len(), 1, "nothing is left of it");
        let publisher = live(&registry, 3, "cam");
        assert_eq!(registry.waiting(), 0, "they wait no longer");
        registry.remove(publisher.id).expect("known");
        assert_eq!(registry.waiting(), 0, "a device that came back has viewers");
        registry.admit(&more).expect("room");
    }

    #[test]
    fn a_device_that_has_not_come_has_no_series_until_it_comes() {
        let registry = Registry::new(10, 10, 10);
        let [early, never] = [(1, "cam"), (2, "nobody")].map(|(n, device)| {
            let viewer = record(n, Protocol::Session, device);
            registry.admit(&viewer).expect("room");
            viewer
        });
        assert_eq!((early.device_label(), never.device_label()), (OTHER, OTHER));
        live(&registry, 3, "cam");
        assert_eq!((early.device_label(), never.device_label()), ("cam", OTHER));
        registry.remove(never.id).expect("known");
        assert_eq!(never.device_label(), OTHER, "at its end too");
        assert_eq!(registry.waiting(), 0);
    }

    #[test]
    fn a_publisher_that_sends_nothing_is_of_use_while_somebody_watches() {
        let registry = Registry::new(10, 10, 10);
        let publisher = live(&registry, 1, "cam");
        let viewer = record(2, Protocol::Whep, "cam");
        registry.admit(&viewer).expect("live");
        let at = |minutes: u64| publisher.created + Duration::from_secs(60 * minutes);
        registry.note_watched(at(60));
        assert_eq!(publisher.look(at(60)), Duration::ZERO);
        assert!(viewer.look(at(60)) > INACTIVE_AFTER, "it sees nothing");
        registry.remove(viewer.id).expect("known");
        registry.note_watched(at(90));
        assert_eq!(publisher.look(at(90)), INACTIVE_AFTER, "from then on");
    }

    #[test]
    fn a_session_that_takes_the_place_of_another_has_its_name() {
        let registry = Registry::new(10, 10, 10);
        let first = older(1, Protocol::SfuPublisher, "cam", 1);
        registry.admit(&first).expect("room");
        let named = |registry: &Registry| registry.find_named(first.id).map(|r| r.id);
        assert_eq!(named(&registry), Some(first.id));
        let second = older(2, Protocol::SfuPublisher, "cam", 1);
        registry.admit(&second).expect("room");
        registry.remove(first.id).expect("known");
        assert_eq!(named(&registry), Some(second.id));
        assert!(
            registry.find_named(second.id).is_none(),
            "by its name alone"
        );
        registry.remove(second.id).expect("known");
        assert_eq!(named(&registry), None);
        assert!(lock(&registry.named).is_empty());
        let other = live(&registry, 3, "cam");
        assert!(registry.find_named(other.id).is_none(), "of no older API");
    }

    #[test]
    fn a_device_has_codecs_while_it_is_live() {
        let registry = Registry::new(10, 10, 10);
        let mut publisher = Arc::into_inner(record(1, Protocol::Whip, "cam")).expect("one");
        publisher.codecs = vec![Codec::Vp8];
        registry.admit(&Arc::new(publisher)).expect("room");
        assert_eq!(registry.codecs("cam"), None);
        registry
            .connected(SessionId::new(0, 0, [1; 16]))
            .expect("known");
        assert_eq!(registry.codecs("cam"), Some(vec![Codec::Vp8]));
    }

    #[test]
    fn a_second_publisher_supersedes_the_first_and_viewers_stay() {
        let registry = Registry::new(10, 10, 10);
        let old = live(&registry, 1, "cam");
        registry
            .admit(&record(2, Protocol::Whep, "cam"))
            .expect("live");
        let new = record(3, Protocol::Whip, "cam");
        let superseded = registry.admit(&new).expect("room").expect("an old one");
        assert_eq!(superseded.id, old.id);
        registry.remove(old.id).expect("known");
        let devices = registry.devices();
        assert_eq!(devices.len(), 1);
        assert_eq!(devices[0].viewers, 1);
        assert_eq!(
            devices[0].publisher.as_ref().map(|p| p.id),
            Some(new.id),
            "the old one's end does not take the new one away"
        );
    }

    #[test]
    fn a_publisher_whose_successor_could_not_open_is_put_back() {
        let registry = Registry::new(10, 10, 10);
        let old = live(&registry, 1, "cam");
        let new = record(2, Protocol::Whip, "cam");
        let superseded = registry.admit(&new).expect("room").expect("an old one");
        registry.remove(new.id).expect("known");
        registry.reinstate(superseded);
        assert!(registry.is_live("cam"));
        assert_eq!(registry.totals(), (1, 0));
        registry.remove(old.id).expect("known");
        assert!(registry.devices().is_empty(), "nothing is left behind");
    }

    #[test]
    fn limits_refuse_one_beyond_them() {
        let registry = Registry::new(3, 1, 10);
        live(&registry, 1, "cam");
        registry
            .admit(&record(2, Protocol::Whep, "cam"))
            .expect("room");
        assert_eq!(
            registry.admit(&record(3, Protocol::Whep, "cam")).err(),
            Some(AdmitError::Viewers(1))
        );
        live(&registry, 4, "door");
        assert_eq!(
            registry.admit(&record(5, Protocol::Whip, "gate")).err(),
            Some(AdmitError::Sessions(3))
        );
        assert_eq!(registry.totals(), (2, 1));
    }

    #[test]
    fn a_session_whose_end_was_asked_for_is_not_found_again() {
        let registry = Registry::new(10, 10, 10);
        let publisher = live(&registry, 1, "cam");
        let found = registry.find(publisher.id).expect("there");
        assert!(found.begin_ending());
        assert!(!found.begin_ending());
        assert!(registry.find(publisher.id).is_none());
        found.resume();
        assert!(registry.find(publisher.id).is_some());
    }

    #[test]
    fn the_totals_of_sessions_never_go_down() {
        let registry = Registry::new(10, 10, 1);
        for n in 1..=3 {
            let publisher = live(&registry, n, "cam");
            publisher.cells.add_candidates(2);
            let open = registry.session_totals().candidates();
            assert_eq!(open, u64::from(n) * 2);
            registry.remove(publisher.id).expect("known");
            assert_eq!(registry.session_totals().candidates(), open, "ended");
            registry.expire(Instant::now() + Duration::from_secs(1));
            assert_eq!(registry.session_totals().candidates(), open, "forgotten");
        }
    }

    #[test]
    fn ended_sessions_are_remembered_up_to_a_bound_and_expire() {
        let registry = Registry::new(10, 10, 2);
        for n in 1..=3 {
            let publisher = live(&registry, n, "cam");
            registry.remove(publisher.id).expect("known");
        }
        assert_eq!(registry.ended().len(), 2);
        assert_eq!(registry.forgotten(), 1);
        registry.expire(Instant::now() + Duration::from_secs(1));
        assert!(registry.ended().is_empty());
    }
}
