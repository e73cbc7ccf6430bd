//! Which sessions exist: id → record, device → publisher and viewers.
//!
//! Owns admission (limits), superseding and the totals that metrics and the API show. Holds no media
//! and waits for nothing. Whoever looks for a session takes a lock of `sharded.rs`; one lock on devices
//! makes admission and end a step each. Called by the API to admit and find, and by the app with the
//! shards' events.

mod protocol;
mod record;
pub(crate) mod sharded;
mod viewing;

pub use protocol::{Protocol, role_name};
pub use record::{Ice, MediaLine, NewSession, Offered, Older, Record};

use crate::metrics::totals::Totals;
use media_core::ids::SessionId;
use media_core::negotiated::{Codec, Role};
use sharded::Sharded;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Viewers that may wait for devices which are not there, of all devices together: each holds a session's
/// memory for a minute at most.
const MAX_WAITING: usize = 500;
/// From an offer of ours to its answer. A client answers within a second or two, behind a slow gateway in 15.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// Without media, control messages and requests about it a session has no use, though its peer is there.
pub const INACTIVE_AFTER: Duration = Duration::from_secs(30 * 60);

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
    sessions: Sharded<Arc<Record>>,
    devices: Mutex<HashMap<Arc<str>, Device>>,
    /// Sessions that have the name of another whose place they took.
    named: Mutex<HashMap<SessionId, SessionId>>,
    /// Ended sessions whose series are still shown.
    ended: Mutex<Vec<(Instant, Arc<Record>)>>,
    /// What all ended sessions amount to. Changed under the lock of `devices`, as the session leaves.
    totals_ended: Mutex<EndedTotals>,
    publishers: AtomicU32,
    viewers: AtomicU32,
    /// Sessions that have series, open ones and those of `ended`.
    with_series: AtomicUsize,
    /// Sessions that there were no series for, since the start.
    folded: AtomicU64,
    max_sessions: u32,
    max_viewers: u32,
    max_with_series: usize,
}

/// Of ended sessions.
#[derive(Debug, Default)]
struct EndedTotals {
    all: Totals,
    folded: Totals,
}

impl Registry {
    /// Of at most `max_with_series` sessions there are series: open ones, and ended ones until
    /// [`Self::expire`].
    pub fn new(max_sessions: u32, max_viewers: u32, max_with_series: usize) -> Registry {
        Registry {
            sessions: Sharded::default(),
            devices: Mutex::default(),
            named: Mutex::default(),
            ended: Mutex::default(),
            totals_ended: Mutex::default(),
            publishers: AtomicU32::new(0),
            viewers: AtomicU32::new(0),
            with_series: AtomicUsize::new(0),
            folded: AtomicU64::new(0),
            max_sessions,
            max_viewers,
            max_with_series,
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
                    record.viewing.waits();
                    device.waiting.insert(record.id, record.clone());
                }
                self.viewers.fetch_add(1, Relaxed);
                None
            }
        };
        if let Some(older) = record.older.as_ref().filter(|o| o.name != record.id) {
            lock(&self.named).insert(older.name, record.id);
        }
        // Decided once, or its counts would move to and fro between its series and the others'.
        if self.with_series.load(Relaxed) < self.max_with_series {
            self.with_series.fetch_add(1, Relaxed);
        } else {
            record.folded.store(true, Relaxed);
            self.folded.fetch_add(1, Relaxed);
        }
        self.sessions.insert(record.id, record.clone());
        Ok(superseded)
    }

    /// Puts a superseded publisher back: its successor could not be opened.
    pub fn reinstate(&self, old: Arc<Record>) {
        let mut devices = lock(&self.devices);
        if !self.sessions.contains(old.id) {
            return;
        }
        let device = devices.entry(old.device.clone()).or_default();
        if device.publisher.is_none() {
            device.publisher = Some(old);
        }
    }

    /// The session, unless its end was asked for.
    pub fn find(&self, id: SessionId) -> Option<Arc<Record>> {
        self.sessions
            .find(id)
            .filter(|record| !record.ending.load(Relaxed))
    }

    /// The same, also if its end was asked for: its shard may have something to tell of it until it has ended.
    pub fn of_shard(&self, id: SessionId) -> Option<Arc<Record>> {
        self.sessions.find(id)
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
        let record = self.sessions.find(id)?;
        record.end_handshake();
        let first = !record.connected.swap(true, Relaxed);
        if record.role() == Role::Publisher {
            let mut devices = lock(&self.devices);
            let device = devices.get_mut(&record.device);
            for (_, viewer) in device.into_iter().flat_map(|d| d.waiting.drain()) {
                viewer.viewing.device_came();
            }
        }
        first.then_some(record)
    }

    /// Notes that publishers of devices with viewers, and of those that are `recorded`, are of use, though nothing
    /// may move before their cameras.
    pub fn note_watched(&self, recorded: &[Arc<str>], now: Instant) {
        let devices = lock(&self.devices);
        let watched = devices.values().filter(|d| !d.viewers.is_empty());
        let recorded = recorded.iter().filter_map(|name| devices.get(name));
        let publishers = watched.chain(recorded).filter_map(|d| d.publisher.as_ref());
        publishers.for_each(|publisher| publisher.called(now));
    }

    /// Forgets a session that has ended, and remembers it for its series until [`Self::expire`].
    pub fn remove(&self, id: SessionId) -> Option<Arc<Record>> {
        let mut devices = lock(&self.devices);
        let record = self.sessions.find(id)?;
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
        let mut totals = lock(&self.totals_ended);
        totals.all.add(&record.cells);
        if record.is_folded() {
            totals.folded.add(&record.cells);
        } else {
            // Before it goes: a scrape finds it in one of the two, or in both.
            lock(&self.ended).push((Instant::now(), record.clone()));
        }
        self.sessions.remove(id);
        Some(record)
    }

    /// Forgets ended sessions that ended before `limit`.
    pub fn expire(&self, limit: Instant) {
        let mut ended = lock(&self.ended);
        let before = ended.len();
        ended.retain(|(at, _)| *at >= limit);
        self.with_series.fetch_sub(before - ended.len(), Relaxed);
    }

    /// Open sessions, in no order.
    pub fn sessions(&self) -> Vec<Arc<Record>> {
        self.sessions.values()
    }

    /// Sessions that have series, open ones and those that ended lately, in the order of their ids.
    pub fn with_series(&self) -> Vec<Arc<Record>> {
        let mut records = self.sessions();
        records.retain(|record| !record.is_folded());
        records.extend(lock(&self.ended).iter().map(|(_, record)| record.clone()));
        records.sort_unstable_by_key(|record| record.id);
        records.dedup_by_key(|record| record.id);
        records
    }

    /// What all sessions amount to, ended ones included: never less than the last time.
    pub fn session_totals(&self) -> Totals {
        self.totals_with(|ended| &ended.all, |_| true)
    }

    /// The same of those without series, and how many they are.
    pub fn folded(&self) -> (u64, Totals) {
        match self.folded.load(Relaxed) {
            0 => (0, Totals::default()),
            count => {
                let totals = self.totals_with(|ended| &ended.folded, Record::is_folded);
                (count, totals)
            }
        }
    }

    fn totals_with(
        &self,
        ended: impl Fn(&EndedTotals) -> &Totals,
        counts: impl Fn(&Record) -> bool,
    ) -> Totals {
        // Sessions come and go under this lock, so none is missed or seen twice.
        let _still = lock(&self.devices);
        let mut totals = ended(&lock(&self.totals_ended)).clone();
        let open = self.sessions();
        let open = open.iter().filter(|record| counts(record));
        open.for_each(|record| totals.add(&record.cells));
        totals
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
    use crate::metrics::OTHER;
    use media_core::cells::SessionCells;
    use media_core::ids::{IcePwd, Ufrag};
    use media_core::negotiated::Kind;
    use media_core::sdp::{Bundle, Proposal, Proposed};

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
    fn a_publisher_that_sends_nothing_is_of_use_while_somebody_watches_or_records_it() {
        let registry = Registry::new(10, 10, 10);
        let publisher = live(&registry, 1, "cam");
        let viewer = record(2, Protocol::Whep, "cam");
        registry.admit(&viewer).expect("live");
        let at = |minutes: u64| publisher.created + Duration::from_secs(60 * minutes);
        registry.note_watched(&[], at(60));
        assert_eq!(publisher.look(at(60)), Duration::ZERO);
        assert!(viewer.look(at(60)) > INACTIVE_AFTER, "it sees nothing");
        registry.remove(viewer.id).expect("known");
        registry.note_watched(&["door".into()], at(90));
        assert_eq!(publisher.look(at(90)), INACTIVE_AFTER, "from then on");
        registry.note_watched(&["cam".into()], at(120));
        assert_eq!(publisher.look(at(120)), Duration::ZERO, "it is recorded");
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
    fn ended_sessions_have_series_until_they_expire() {
        let registry = Registry::new(10, 10, 2);
        for n in 1..=3 {
            let publisher = live(&registry, n, "cam");
            assert_eq!(publisher.is_folded(), n == 3, "two have series");
            registry.remove(publisher.id).expect("known");
        }
        assert_eq!(registry.with_series().len(), 2);
        registry.expire(Instant::now() + Duration::from_secs(1));
        assert!(registry.with_series().is_empty());
        assert!(
            !live(&registry, 4, "cam").is_folded(),
            "there is room again"
        );
    }

    #[test]
    fn a_session_without_series_counts_among_the_others_beyond_its_end() {
        let registry = Registry::new(10, 10, 1);
        let [shown, folded] = [1, 2].map(|n| live(&registry, n, &format!("cam-{n}")));
        shown.cells.add_candidates(3);
        folded.cells.add_candidates(2);
        let others = || {
            let (count, totals) = registry.folded();
            (count, totals.candidates())
        };
        assert_eq!(others(), (1, 2));
        registry.remove(shown.id).expect("known");
        registry.expire(Instant::now() + Duration::from_secs(1));
        assert!(folded.is_folded(), "though there is room now");
        assert_eq!(others(), (1, 2));
        registry.remove(folded.id).expect("known");
        assert_eq!(others(), (1, 2), "a counter never goes down");
        assert_eq!(registry.session_totals().candidates(), 5);
    }
}
