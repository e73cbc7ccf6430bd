//! The sessions of one shard and the ways to find them: by id, by user fragment, by flow.

use super::OpenSession;
use super::control::Control;
use media_core::flow::Flow;
use media_core::ids::{IcePwd, SessionId, Ufrag};
use media_core::negotiated::Role;
use media_core::publisher::Publisher;
use media_core::session::{Credentials, Session, SessionConfig};
use media_core::stun::BindingRequest;
use media_core::viewer::Viewer;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a closed session answers checks with 403: long enough for two of them.
const GRAVE: Duration = Duration::from_secs(10);
/// Closed sessions remembered; beyond, the oldest is forgotten and its checks go unanswered.
const MAX_GRAVES: usize = 4096;
/// Between two keyframes that a viewer gets asked for because its connection has room again.
const RELIEF_INTERVAL: Duration = Duration::from_secs(2);

/// Index of a session in its table; re-used after the session ended.
pub(super) type Index = usize;

/// A session by its role, boxed, because a table mostly of viewers should not pay for publishers.
pub(super) enum Peer {
    Publisher(Box<Publisher>),
    Viewer(Box<Viewer>),
}

impl Peer {
    pub(super) fn session(&mut self) -> &mut dyn Session {
        match self {
            Peer::Publisher(publisher) => &mut **publisher,
            Peer::Viewer(viewer) => &mut **viewer,
        }
    }
}

pub(super) struct Entry {
    pub(super) id: SessionId,
    pub(super) role: Role,
    pub(super) device: Arc<str>,
    pub(super) peer: Peer,
    pub(super) flow: Option<Flow>,
    /// The shard whose socket the flow's datagrams arrive at, if it is another.
    pub(super) via: Option<u8>,
    /// Tells apart sessions that had the same index.
    pub(super) generation: u64,
    /// Earliest timer set for the session.
    pub(super) scheduled: Option<Instant>,
    /// TCP connections that it proved, the oldest first, and maybe some closed since.
    pub(super) connections: Vec<u64>,
    pub(super) may_control: bool,
    /// Once it spoke on its data channel, or was spoken to.
    pub(super) control: Option<Box<Control>>,
    /// When a keyframe was last asked for because its connection had room again.
    relieved: Option<Instant>,
    ufrag: Ufrag,
    pwd: IcePwd,
    /// Those before the ICE restart that is under way; they still lead here.
    previous: Option<(Ufrag, IcePwd)>,
}

impl Entry {
    /// The user fragment that the next check should come with.
    pub(super) fn ufrag(&self) -> Ufrag {
        self.ufrag
    }

    pub(super) fn control(&mut self, now: Instant) -> &mut Control {
        let role = self.role;
        self.control.get_or_insert_with(|| {
            Box::new(match role {
                Role::Publisher => Control::of_device(now),
                Role::Viewer => Control::of_viewer(now),
            })
        })
    }

    /// All that checks may come with.
    fn credentials(&self) -> impl Iterator<Item = (Ufrag, IcePwd)> + use<> {
        let current = Some((self.ufrag, self.pwd));
        [current, self.previous].into_iter().flatten()
    }

    /// Whether a keyframe may be asked for because its connection has room again; if so, not again for
    /// two seconds. In between it goes on as every viewer does that waits, see its tick.
    pub(super) fn may_be_relieved(&mut self, now: Instant) -> bool {
        let due = self.relieved.is_none_or(|at| now >= at + RELIEF_INTERVAL);
        if due {
            self.relieved = Some(now);
        }
        due
    }
}

#[derive(Default)]
pub(super) struct Table {
    entries: Vec<Option<Entry>>,
    free: Vec<Index>,
    by_id: HashMap<SessionId, Index>,
    by_ufrag: HashMap<[u8; 16], Index>,
    /// By what tells senders apart, see [`Flow::sender`].
    by_sender: HashMap<Flow, Index>,
    generations: u64,
    graves: HashMap<[u8; 16], IcePwd>,
    burials: VecDeque<(Instant, [u8; 16])>,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn open(
        &mut self,
        now: Instant,
        open: OpenSession,
        config: impl FnOnce(OpenSession) -> SessionConfig,
    ) -> Index {
        let (id, ufrag, pwd, role) = (open.id, open.ufrag, open.pwd, open.negotiated.role);
        let (device, may_control) = (open.device.clone(), open.may_control);
        let config = config(open);
        let peer = match role {
            Role::Publisher => Peer::Publisher(Box::new(Publisher::new(now, config))),
            Role::Viewer => Peer::Viewer(Box::new(Viewer::new(now, config))),
        };
        self.put(Entry {
            id,
            role,
            device,
            peer,
            flow: None,
            via: None,
            generation: 0,
            scheduled: None,
            connections: Vec::new(),
            may_control,
            control: None,
            relieved: None,
            ufrag,
            pwd,
            previous: None,
        })
    }

    /// Takes a session in, new or from another shard.
    pub(super) fn put(&mut self, mut entry: Entry) -> Index {
        self.generations += 1;
        entry.generation = self.generations;
        entry.scheduled = None;
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() - 1
        });
        self.by_id.insert(entry.id, index);
        for (ufrag, _) in entry.credentials() {
            self.by_ufrag.insert(ufrag.0, index);
        }
        self.entries[index] = Some(entry);
        index
    }

    /// Takes a session out that goes on elsewhere.
    pub(super) fn take(&mut self, index: Index) -> Option<Entry> {
        let entry = self.entries.get_mut(index)?.take()?;
        self.free.push(index);
        self.by_id.remove(&entry.id);
        for (ufrag, _) in entry.credentials() {
            self.by_ufrag.remove(&ufrag.0);
        }
        if let Some(flow) = entry.flow {
            self.release(flow, index);
        }
        Some(entry)
    }

    /// Gives a session new ICE credentials. The user fragment of the last ones that a check came with
    /// leads to it too, until [`restarted`](Self::restarted).
    pub(super) fn restart(&mut self, index: Index, credentials: Credentials) {
        let Some(entry) = self.entries.get_mut(index).and_then(Option::as_mut) else {
            return;
        };
        let before = (entry.ufrag, entry.pwd);
        (entry.ufrag, entry.pwd) = (credentials.ufrag, credentials.pwd);
        if entry.previous.is_none() {
            entry.previous = Some(before);
        } else {
            self.by_ufrag.remove(&before.0.0);
        }
        entry.peer.session().restart(credentials);
        self.by_ufrag.insert(entry.ufrag.0, index);
    }

    /// A check came with the credentials of the last restart.
    pub(super) fn restarted(&mut self, index: Index) {
        let entry = self.entries.get_mut(index).and_then(Option::as_mut);
        if let Some((ufrag, _)) = entry.and_then(|entry| entry.previous.take()) {
            self.by_ufrag.remove(&ufrag.0);
        }
    }

    /// Takes a session out that has ended. Its user fragments are remembered for a while, see
    /// [`forbid`](Self::forbid); `true` if another had to be forgotten early for it.
    pub(super) fn remove(&mut self, now: Instant, index: Index) -> (Option<Entry>, bool) {
        let Some(entry) = self.take(index) else {
            return (None, false);
        };
        self.forget_over(now);
        let mut early = false;
        for (ufrag, pwd) in entry.credentials() {
            if self.burials.len() >= MAX_GRAVES {
                early = true;
                self.forget_oldest();
            }
            self.graves.insert(ufrag.0, pwd);
            self.burials.push_back((now + GRAVE, ufrag.0));
        }
        (Some(entry), early)
    }

    pub(super) fn entry(&mut self, index: Index) -> Option<&mut Entry> {
        self.entries.get_mut(index)?.as_mut()
    }

    pub(super) fn by_id(&self, id: SessionId) -> Option<Index> {
        self.by_id.get(&id).copied()
    }

    pub(super) fn by_ufrag(&self, ufrag: &[u8]) -> Option<Index> {
        self.by_ufrag.get(ufrag).copied()
    }

    pub(super) fn by_flow(&self, flow: Flow) -> Option<Index> {
        self.by_sender.get(&flow.sender()).copied()
    }

    pub(super) fn indices(&self) -> Vec<Index> {
        self.by_id.values().copied().collect()
    }

    /// Gives a session a flow, whose datagrams arrive at the socket of shard `via` if not here. Returns
    /// the address and the shard of the route that it had, if it has no use for that any more.
    pub(super) fn bind(
        &mut self,
        index: Index,
        flow: Flow,
        via: Option<u8>,
    ) -> Option<(SocketAddr, u8)> {
        let entry = self.entries.get_mut(index)?.as_mut()?;
        let before = entry.flow.replace(flow);
        let via_before = std::mem::replace(&mut entry.via, via);
        if let Some(before) = before.filter(|before| before.sender() != flow.sender()) {
            self.release(before, index);
        }
        self.by_sender.insert(flow.sender(), index);
        // A peer that sends to another address of ours arrives at another socket, as the same sender.
        let (before, shard) = (before?, via_before?);
        let over = before.remote != flow.remote || via != Some(shard);
        over.then_some((before.remote, shard))
    }

    /// Unless another session has it by now.
    fn release(&mut self, flow: Flow, index: Index) {
        if self.by_flow(flow) == Some(index) {
            self.by_sender.remove(&flow.sender());
        }
    }

    /// The answer to a check of a session that closed a moment ago; returns its length.
    pub(super) fn forbid(
        &mut self,
        now: Instant,
        request: &BindingRequest<'_>,
        answer: &mut [u8; media_core::stun::MAX_ANSWER],
    ) -> Option<usize> {
        self.forget_over(now);
        let pwd = self.graves.get(request.local_ufrag)?;
        request
            .is_authentic(&pwd.0)
            .then(|| request.write_forbidden(&pwd.0, answer))
    }

    fn forget_over(&mut self, now: Instant) {
        while self.burials.front().is_some_and(|(until, _)| *until <= now) {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, ufrag)) = self.burials.pop_front() {
            self.graves.remove(&ufrag);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use media_core::cells::SessionCells;
    use media_core::clock::WallClock;
    use media_core::dtls::Identity;
    use media_core::flow::Local;
    use media_core::negotiated::Negotiated;

    struct Bench {
        table: Table,
        identity: Identity,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Bench {
                table: Table::default(),
                identity: Identity::generate().expect("an identity"),
                now: Instant::now(),
            }
        }

        fn open(&mut self, number: u16) -> Index {
            let [high, low] = number.to_be_bytes();
            let mut id = [0; 16];
            id[14..].copy_from_slice(&[high, low]);
            let open = OpenSession {
                id: SessionId::new(0, 0, id),
                ufrag: Ufrag::new(&[0; 16], 0, 0, [0, 0, 0, 0, high, low]),
                pwd: IcePwd::new([1; 24]),
                device: "cam".into(),
                negotiated: Negotiated {
                    role: Role::Viewer,
                    remote_ufrag: "peer".to_owned(),
                    remote_pwd: "password of the peer..".to_owned(),
                    fingerprint: [0; 32],
                    tracks: Vec::new(),
                    data_channels: None,
                    cname: "media".to_owned(),
                    remb: false,
                },
                may_control: false,
                cells: Arc::new(SessionCells::new()),
            };
            let (now, identity) = (self.now, self.identity.clone());
            self.table.open(now, open, |open| SessionConfig {
                id: open.id,
                ufrag: open.ufrag,
                pwd: open.pwd,
                negotiated: open.negotiated,
                cells: open.cells,
                identity,
                clock: WallClock::new(now, Duration::ZERO),
            })
        }

        /// A session that lived for a moment; returns whether another was forgotten for it.
        fn open_and_remove(&mut self, number: u16) -> bool {
            let index = self.open(number);
            let (entry, early) = self.table.remove(self.now, index);
            assert!(entry.is_some());
            early
        }
    }

    #[test]
    fn no_route_is_left_behind_whichever_end_of_the_flow_changes() {
        let mut bench = Bench::new();
        let index = bench.open(1);
        let remote = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let flow = |port, ours: [u8; 4]| Flow {
            remote: remote(port),
            local: Local::Udp(Some(ours.into())),
        };
        let (here, there) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        let mut bind = |flow, via| bench.table.bind(index, flow, via);
        assert_eq!(bind(flow(1, here), Some(1)), None, "the first");
        assert_eq!(bind(flow(1, there), Some(1)), None, "the same socket");
        assert_eq!(
            bind(flow(1, here), Some(2)),
            Some((remote(1), 1)),
            "the same sender at another socket"
        );
        assert_eq!(bind(flow(2, here), Some(2)), Some((remote(1), 2)));
        assert_eq!(bind(flow(2, there), None), Some((remote(2), 2)), "our own");
        assert_eq!(bind(flow(3, there), None), None, "no route is needed here");
    }

    #[test]
    fn a_connection_that_has_room_again_gets_a_keyframe_every_two_seconds_at_most() {
        let mut bench = Bench::new();
        let index = bench.open(1);
        let entry = bench.table.entry(index).expect("open");
        assert!(entry.may_be_relieved(bench.now));
        let soon = bench.now + RELIEF_INTERVAL - Duration::from_millis(1);
        assert!(!entry.may_be_relieved(soon));
        assert!(entry.may_be_relieved(bench.now + RELIEF_INTERVAL));
    }

    #[test]
    fn a_closed_session_is_remembered_for_ten_seconds() {
        let mut bench = Bench::new();
        assert!(!bench.open_and_remove(1));
        bench.now += GRAVE - Duration::from_millis(1);
        bench.table.forget_over(bench.now);
        assert_eq!(bench.table.graves.len(), 1);
        bench.now += Duration::from_millis(1);
        bench.table.forget_over(bench.now);
        assert_eq!(bench.table.graves.len(), 0);
    }

    #[test]
    fn of_too_many_closed_sessions_the_oldest_is_forgotten() {
        let mut bench = Bench::new();
        for number in 0..MAX_GRAVES as u16 {
            assert!(!bench.open_and_remove(number));
        }
        assert!(bench.open_and_remove(MAX_GRAVES as u16), "and it is said");
        assert_eq!(bench.table.graves.len(), MAX_GRAVES);
        let first = Ufrag::new(&[0; 16], 0, 0, [0; 6]);
        assert!(!bench.table.graves.contains_key(&first.0));
    }
}
