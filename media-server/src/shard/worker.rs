//! The shard thread: its socket, its sessions, its timers, and nothing that waits but one epoll.
//!
//! One turn: commands and notices, datagrams (in batches of 64, media fanned out once per batch),
//! timers, and the events that these led to. Started by `Shards::start`.

mod bandwidth;
mod control;
mod demux;
mod fan_out;
mod moving;
mod recording;
mod tcp;

use super::admission::Admission;
use super::away::Away;
use super::bounds::{Bound, BoundHits};
use super::connections::Connections;
use super::control::ControlCounts;
use super::devices::Devices;
use super::heartbeat::Heartbeat;
use super::link::{Inbox, Link, Notice, Parcel};
use super::placement::Placement;
use super::routes::Routes;
use super::table::{Index, Peer, Table};
use super::{CloseReason, Command, Event, OpenSession};
use media_core::cells::{Drop, KeyframeCause, ShardCells};
use media_core::clock::WallClock;
use media_core::dtls::Identity;
use media_core::flow::{Flow, Local};
use media_core::negotiated::Role;
use media_core::output::{Output, SessionEvent};
use media_core::ring::Ring;
use media_core::session::SessionConfig;
use media_wire::{Message, Receiver, TcpListener, UdpSocket, Waiter};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use tcp::Tcp;

/// Batches received before timers get their turn: under flood they run every 512 datagrams.
const BATCHES_PER_TURN: usize = 8;
/// Longest sleep: events that found no room are tried again this often.
const IDLE: Duration = Duration::from_millis(500);

pub(super) struct Worker {
    pub(super) shard: u8,
    pub(super) socket: UdpSocket,
    /// For those who can reach TCP alone, where it is served.
    pub(super) listener: Option<TcpListener>,
    pub(super) admission: Arc<Admission>,
    pub(super) waiter: Waiter,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) inbox: Inbox,
    /// To every shard, this one included.
    pub(super) links: Vec<Link>,
    pub(super) events: tokio::sync::mpsc::Sender<Event>,
    pub(super) placement: Arc<Placement>,
    pub(super) cells: Arc<ShardCells>,
    /// Those of every shard, this one included.
    pub(super) all_cells: Arc<[Arc<ShardCells>]>,
    pub(super) bounds: Arc<BoundHits>,
    pub(super) control: Arc<ControlCounts>,
    pub(super) heartbeat: Arc<Heartbeat>,
    pub(super) identity: Identity,
    pub(super) clock: WallClock,
    pub(super) ufrag_key: [u8; 16],
    /// Payload bytes that all rings of the shard may hold.
    pub(super) cache_bytes: usize,
    /// Bits per second that a publisher is asked for at most.
    pub(super) video_limit: u64,
    /// The same for one that nobody watches; `None`: it is left alone.
    pub(super) idle_limit: Option<u64>,
}

struct State {
    worker: Worker,
    out: Output,
    table: Table,
    devices: Devices,
    connections: Connections,
    tcp: Tcp,
    timers: BinaryHeap<Reverse<(Instant, Index, u64)>>,
    /// Publishers with media to fan out.
    ready: Vec<Index>,
    /// Events that the HTTP side has no room for yet; at most three per session.
    events: VecDeque<Event>,
    /// Addresses whose sessions are on another shard.
    routes: Routes,
    /// Sessions of ours on other shards.
    away: Away,
    /// No timer is set before: a session that is always due cannot keep the thread from its socket.
    earliest_timer: Instant,
    cache_looked_at: Instant,
}

impl Worker {
    /// Runs until [`Command::Shutdown`], or until every handle is gone.
    pub(super) fn run(self) {
        let mut state = State {
            out: Output::new(self.cells.clone()),
            table: Table::default(),
            devices: Devices::default(),
            connections: Connections::new(self.admission.unproven_per_shard),
            tcp: Tcp::new(Instant::now()),
            timers: BinaryHeap::new(),
            ready: Vec::new(),
            events: VecDeque::new(),
            routes: Routes::default(),
            away: Away::default(),
            earliest_timer: Instant::now(),
            cache_looked_at: Instant::now(),
            worker: self,
        };
        let mut receiver = Receiver::new();
        let mut buffer = vec![0; tcp::READ_BYTES];
        let mut ready = Vec::new();
        let mut more = false;
        state.listen();
        loop {
            let timeout = if more {
                Duration::ZERO
            } else {
                state.until_next_timer(Instant::now())
            };
            // Whether it was woken for mail does not matter: looking for it costs less than a system call.
            let woken = state.worker.waiter.wait(timeout, &mut ready);
            let input = woken.is_ok_and(|woken| woken.socket);
            let start = Instant::now();
            state.worker.heartbeat.beat(start);
            if !state.handle_mail(start) {
                return;
            }
            more = input && state.handle_input(&mut receiver);
            state.handle_tcp(&ready, &mut buffer);
            state.handle_timers();
            state.bound_cache(start);
            state.flush();
            state.deliver_events();
            state.worker.cells.add_busy(start.elapsed());
        }
    }
}

impl State {
    fn until_next_timer(&self, now: Instant) -> Duration {
        let due = self
            .timers
            .peek()
            .map(|Reverse((at, ..))| at.saturating_duration_since(now));
        due.map_or(IDLE, |due| due.min(IDLE))
    }

    /// Commands, notices and parcels; `false` once it is time to stop.
    fn handle_mail(&mut self, now: Instant) -> bool {
        loop {
            let command = match self.worker.commands.try_recv() {
                Ok(command) => command,
                Err(mpsc::TryRecvError::Empty) => break,
                // Every handle is gone, so nobody can want anything of these sessions any more.
                Err(mpsc::TryRecvError::Disconnected) => return false,
            };
            let reply = match command {
                Command::Open(open, reply) => {
                    self.open(now, *open);
                    let _ = reply.send(());
                    continue;
                }
                Command::Call(id, call, reply) => {
                    self.handle_call(now, id, call, reply);
                    continue;
                }
                Command::Record(change) => {
                    self.change_recording(now, change);
                    continue;
                }
                Command::Shutdown(reply) => reply,
            };
            self.take_last_sessions();
            for index in self.table.indices() {
                self.close(now, index, CloseReason::Drained);
            }
            self.flush();
            for event in self.events.drain(..) {
                // The thread has nothing else to do any more, so it may wait; an error means
                // that nobody listens.
                let _ = self.worker.events.blocking_send(event);
            }
            let _ = reply.send(());
            return false;
        }
        while let Ok(notice) = self.worker.inbox.notices.try_recv() {
            self.handle_notice(now, notice);
        }
        for count in 1.. {
            let Ok(parcel) = self.worker.inbox.parcels.try_recv() else {
                break;
            };
            self.worker.heartbeat.beat(Instant::now());
            match parcel {
                Parcel::Datagram {
                    from,
                    via,
                    mut bytes,
                } => self.handle_datagram(now, from, &mut bytes, Some(via)),
                Parcel::Connection(moved) => self.take_over(now, *moved),
                Parcel::Session { flow, entry } => self.take_session(flow, *entry),
                Parcel::Call { id, call, reply } => self.handle_call(now, id, call, reply),
                Parcel::Media { device, batch } => self.forward(now, &device, &batch),
                Parcel::Cache { device, batches } => self.keep_all(now, &device, &batches),
                Parcel::KeyframeWanted {
                    device,
                    layer,
                    cause,
                } => self.request_keyframe(now, &device, layer, cause),
                Parcel::Order { device, order } => self.take_order(now, &device, order),
                Parcel::Answer {
                    device,
                    viewer,
                    bytes,
                } => self.take_answer(now, &device, viewer, bytes),
                Parcel::Bandwidth {
                    device,
                    shard,
                    wanted,
                } => self.note_bandwidth(&device, shard, wanted),
            }
            // As often as datagrams from the socket: a batch must fit the slab.
            if count % Receiver::BATCH == 0 {
                self.fan_out_ready(now);
            }
        }
        self.fan_out_ready(now);
        true
    }

    fn open(&mut self, now: Instant, open: OpenSession) {
        let (role, device) = (open.negotiated.role, open.device.clone());
        let (identity, clock) = (self.worker.identity.clone(), self.worker.clock);
        let index = self.table.open(now, open, |open| SessionConfig {
            id: open.id,
            ufrag: open.ufrag,
            pwd: open.pwd,
            negotiated: open.negotiated,
            cells: open.cells,
            identity,
            clock,
        });
        self.worker
            .placement
            .opened(role, &device, self.worker.shard);
        self.worker.cells.set_sessions(self.table.len() as u64);
        let entry = self.devices.make(&device);
        match role {
            Role::Publisher => entry.publishers += 1,
            Role::Viewer => {
                entry.viewers.push(index);
                entry.watched(now);
                let (live, first) = (entry.has_publisher(), entry.viewers.len() == 1);
                if let Some(Peer::Viewer(viewer)) = self.table.entry(index).map(|e| &mut e.peer) {
                    entry.pulse.iter().for_each(|pulse| viewer.set_pulse(pulse));
                    viewer.set_publisher_live(now, live);
                    viewer.set_layers(entry.layers.as_ref());
                }
                if first {
                    self.notify_others(Notice::Viewers {
                        device,
                        shard: self.worker.shard,
                        any: true,
                    });
                }
            }
        }
        self.schedule(index);
    }

    fn close(&mut self, now: Instant, index: Index, reason: CloseReason) {
        if let Some(entry) = self.table.entry(index) {
            entry.peer.session().close(now, &mut self.out);
            let mut events = self.out.events.drain(..);
            let began = events.find_map(SessionEvent::media_began);
            self.events
                .extend(began.map(|at| Event::MediaBegan { id: entry.id, at }));
        }
        let (removed, early) = self.table.remove(now, index);
        if early {
            self.worker.bounds.count(Bound::ClosedSessions);
        }
        let Some(mut entry) = removed else {
            return;
        };
        let shard = self.worker.shard;
        if let (Some(flow), Some(via)) = (entry.flow, entry.via) {
            self.notify_route(via, flow.remote, false);
        }
        self.ready.retain(|i| *i != index);
        let device = self.devices.make(&entry.device);
        let mut last_publisher = false;
        match entry.role {
            Role::Publisher => {
                device.publishers = device.publishers.saturating_sub(1);
                last_publisher = device.publishers == 0;
                if device.publisher == Some(index) {
                    device.set_publisher(None);
                    device.clear();
                    self.set_publisher_live(now, &entry.device, false);
                    self.notify_others(Notice::Publisher {
                        device: entry.device.clone(),
                        shard,
                        pulse: None,
                    });
                }
            }
            Role::Viewer => {
                device.viewers.retain(|i| *i != index);
                device.watched(now);
                if device.viewers.is_empty() {
                    self.notify_others(Notice::Viewers {
                        device: entry.device.clone(),
                        shard,
                        any: false,
                    });
                }
            }
        }
        self.devices.tidy(&entry.device);
        if let (Role::Publisher, Some(control)) = (entry.role, entry.control.take()) {
            self.refuse_waiting(now, &entry.device, *control);
        }
        self.worker
            .placement
            .closed(entry.role, &entry.device, shard, last_publisher);
        self.worker.cells.set_sessions(self.table.len() as u64);
        self.forget_away(entry.id);
        self.events.push_back(Event::Closed {
            id: entry.id,
            reason,
        });
    }

    fn handle_notice(&mut self, now: Instant, notice: Notice) {
        match notice {
            Notice::Viewers { device, shard, any } => {
                let entry = self.devices.make(&device);
                let bit = 1 << shard;
                entry.subscribers = if any {
                    entry.subscribers | bit
                } else {
                    entry.subscribers & !bit
                };
                entry.watched(now);
                if !any {
                    entry.bandwidth.forget(shard);
                }
                let batches: Vec<_> = entry.rings.iter().flat_map(Ring::batches).collect();
                if any && entry.publisher.is_some() && !batches.is_empty() {
                    let device = device.clone();
                    self.parcel(shard, Parcel::Cache { device, batches });
                }
                self.devices.tidy(&device);
            }
            Notice::Publisher {
                device,
                shard,
                pulse,
            } => {
                let entry = self.devices.make(&device);
                if let Some(pulse) = pulse {
                    entry.publish_elsewhere(shard, pulse);
                } else if entry.remote_publisher == Some(shard) {
                    entry.remote_publisher = None;
                }
                let live = entry.has_publisher();
                self.set_publisher_live(now, &device, live);
                self.devices.tidy(&device);
            }
            Notice::Route {
                addr,
                shard,
                live: true,
            } => {
                if !self.routes.add(addr, shard) {
                    self.worker.bounds.count(Bound::Routes);
                }
            }
            Notice::Route { addr, shard, .. } => self.routes.remove(&addr, shard),
            Notice::Over(id) => self.away.remove(id),
        }
    }

    /// Tells the viewers here, and asks for a keyframe for those that will need one.
    fn set_publisher_live(&mut self, now: Instant, device: &str, live: bool) {
        let Some(entry) = self.devices.find(device) else {
            return;
        };
        let mut wanted = false;
        let layers = entry.layers.clone();
        let pulse = entry.pulse.clone();
        for index in entry.viewers.clone() {
            if let Some(Peer::Viewer(viewer)) = self.table.entry(index).map(|e| &mut e.peer) {
                pulse.iter().for_each(|pulse| viewer.set_pulse(pulse));
                viewer.set_publisher_live(now, live);
                // A successor may have others, or none.
                viewer.set_layers(layers.as_ref());
                wanted |= live && viewer.wants_keyframe();
            }
            self.schedule(index);
        }
        if wanted {
            // Which layers it has shows with its first packets.
            self.request_keyframe(now, device, 0, KeyframeCause::Start);
        }
    }

    /// Receives and handles datagrams; returns whether more wait.
    fn handle_input(&mut self, receiver: &mut Receiver) -> bool {
        for _ in 0..BATCHES_PER_TURN {
            let (received, dropped) = receiver.receive(&self.worker.socket);
            self.worker
                .cells
                .count_drops(Drop::ReceiveOverflow, u64::from(dropped));
            if received == 0 {
                return false;
            }
            let now = Instant::now();
            self.worker.heartbeat.beat(now);
            let mut bytes = 0;
            for datagram in receiver.datagrams() {
                bytes += datagram.bytes.len() as u64;
                let from = Flow {
                    remote: datagram.from,
                    local: Local::Udp(datagram.to),
                };
                self.handle_datagram(now, from, datagram.bytes, None);
            }
            self.worker.cells.count_in(received as u64, bytes);
            self.fan_out_ready(now);
            if received < Receiver::BATCH {
                return false;
            }
        }
        true
    }

    /// Deals with what the session said in its last call.
    fn handle_session_events(&mut self, now: Instant, index: Index, via: Option<u8>) {
        let (mut ended, mut moves, mut has_room) = (None, None, false);
        let messages = std::mem::take(&mut self.out.messages);
        for event in std::mem::take(&mut self.out.events) {
            match event {
                SessionEvent::Bound(flow) => {
                    match via.filter(|via| self.should_move(index, flow, *via)) {
                        Some(to) => moves = Some((flow, to)),
                        None => self.bind(index, flow, via),
                    }
                }
                SessionEvent::Checked(flow) => {
                    if let Some(number) = flow.connection() {
                        self.prove(now, index, number);
                    }
                }
                SessionEvent::Connected => self.connected(now, index),
                SessionEvent::MediaBegan(at) => self.media_began(index, at),
                SessionEvent::Restarted => self.table.restarted(index),
                SessionEvent::KeyframeWanted(cause) => self.keyframe_wanted(now, index, cause),
                SessionEvent::ChannelRoom => has_room = true,
                SessionEvent::Ended(end) => ended = Some(end),
            }
        }
        if ended.is_none() {
            self.handle_channel(now, index, messages, has_room);
        }
        match (ended, moves) {
            (Some(end), _) => self.close(now, index, end.into()),
            (None, Some((flow, to))) => self.move_session(index, flow, to),
            (None, None) => self.schedule(index),
        }
    }

    fn connected(&mut self, now: Instant, index: Index) {
        let Some(entry) = self.table.entry(index) else {
            return;
        };
        self.events.push_back(Event::Connected { id: entry.id });
        if let Peer::Publisher(publisher) = &entry.peer {
            let (device, pulse) = (entry.device.clone(), publisher.pulse().clone());
            let known = self.devices.make(&device);
            known.publish(now, index, pulse.clone());
            self.set_publisher_live(now, &device, true);
            self.notify_others(Notice::Publisher {
                device,
                shard: self.worker.shard,
                pulse: Some(pulse),
            });
        }
    }

    fn handle_timers(&mut self) {
        let now = Instant::now();
        self.earliest_timer = now + Duration::from_millis(1);
        while let Some(Reverse((at, index, generation))) = self.timers.peek().copied() {
            if at > now {
                return;
            }
            self.timers.pop();
            let Some(entry) = self
                .table
                .entry(index)
                .filter(|e| e.generation == generation)
            else {
                continue;
            };
            if entry.scheduled != Some(at) {
                continue;
            }
            entry.scheduled = None;
            if entry.peer.session().poll_timeout() <= now {
                entry.peer.session().handle_timeout(now, &mut self.out);
                self.send_from_ring(now, index);
            }
            self.handle_session_events(now, index, None);
            if self.out.slab.room() < 64 * 1024 {
                self.flush();
            }
        }
    }

    /// Sets a timer if the session needs one earlier than any set before. A timer that turns out to
    /// be early sets the next.
    fn schedule(&mut self, index: Index) {
        let Some(entry) = self.table.entry(index) else {
            return;
        };
        let due = entry.peer.session().poll_timeout().max(self.earliest_timer);
        if entry.scheduled.is_none_or(|at| due < at) {
            entry.scheduled = Some(due);
            self.timers.push(Reverse((due, index, entry.generation)));
        }
    }

    fn flush(&mut self) {
        if self.out.slab.is_empty() {
            return;
        }
        let runs = self.out.slab.runs().iter();
        let messages = runs
            .filter(|run| run.to.connection().is_none())
            .map(|run| Message {
                to: run.to.remote,
                from: run.to.local.address(),
                offset: run.offset,
                len: run.len,
                segment: run.segment,
            });
        let sent = self.worker.socket.send(self.out.slab.bytes(), messages);
        self.worker.cells.count_out(sent.datagrams, sent.bytes);
        self.worker
            .cells
            .count_drops(Drop::SocketFull, sent.dropped);
        self.flush_tcp();
        self.out.slab.clear();
    }

    fn deliver_events(&mut self) {
        while let Some(event) = self.events.front() {
            match self.worker.events.try_send(*event) {
                Err(tokio::sync::mpsc::error::TrySendError::Full(_)) => return,
                // Nobody listens any more: the process is ending.
                Ok(()) | Err(tokio::sync::mpsc::error::TrySendError::Closed(_)) => {
                    self.events.pop_front()
                }
            };
        }
    }

    fn notify_others(&self, notice: Notice) {
        for shard in (0..self.worker.links.len() as u8).filter(|s| *s != self.worker.shard) {
            self.notify(shard, notice.clone());
        }
    }

    /// Tells the shard whose socket an address's datagrams arrive at that they are ours, or no longer.
    fn notify_route(&self, to: u8, addr: SocketAddr, live: bool) {
        let shard = self.worker.shard;
        self.notify(to, Notice::Route { addr, shard, live });
    }

    fn notify(&self, to: u8, notice: Notice) {
        if !self.worker.links[usize::from(to)].notify(notice) {
            self.worker.bounds.count(Bound::Notices);
        }
    }
}
