//! TCP in the shard's turn: accepts connections, reads datagrams off them, hands them to the shard whose
//! session they are for, and sends what waits.
//!
//! Never waits: what a connection does not take is kept up to a bound, and what is beyond it is dropped.

use super::State;
use crate::shard::bounds::Bound;
use crate::shard::link::{Moved, Parcel};
use crate::shard::table::{Index, Peer};
use media_core::cells::{Drop, KeyframeCause};
use media_core::flow::Flow;
use media_core::framing::{self, Framed};
use media_core::ids::Ufrag;
use media_core::stun::{self, BindingRequest};
use media_wire::{Ready, Receiver};
use std::time::{Duration, Instant};

/// Token of the listener; connections have theirs behind it.
pub(super) const LISTENER: u64 = 0;
/// Connections accepted in one turn.
const ACCEPTS_PER_TURN: usize = 16;
/// The listener rests for this long when the process has no descriptor or memory left.
const REST: Duration = Duration::from_secs(1);
/// How often idle connections are looked for.
const SWEEP: Duration = Duration::from_secs(1);
/// Read at once from one connection, so that none keeps others waiting; what is more comes next turn.
pub(super) const READ_BYTES: usize = 16 * 1024;

fn token(number: u64) -> u64 {
    LISTENER + 1 + number
}

/// Where a connection that proved nothing may go on.
enum Verdict {
    Here,
    /// It is for a session of this shard.
    Elsewhere(u8),
    /// It is for no session.
    Nowhere,
}

impl State {
    /// Begins to accept connections, if the shard has a listener.
    pub(super) fn listen(&mut self) {
        if let Some(listener) = &self.worker.listener
            && self.worker.waiter.watch(listener, LISTENER).is_err()
        {
            self.tcp.rests_until = Some(Instant::now() + REST);
        }
    }

    /// Deals with everything that is ready, and with what is over.
    pub(super) fn handle_tcp(&mut self, ready: &[Ready], buffer: &mut [u8]) {
        let now = Instant::now();
        for ready in ready {
            let Some(number) = ready.token.checked_sub(LISTENER + 1) else {
                self.accept(now);
                continue;
            };
            if ready.output {
                self.send_waiting(now, number);
            }
            if ready.input {
                self.worker.heartbeat.beat(Instant::now());
                self.read(now, number, buffer);
            }
        }
        if self.tcp.rests_until.is_some_and(|until| now >= until) {
            self.tcp.rests_until = None;
            self.listen();
        }
        if now >= self.tcp.sweep_at {
            self.tcp.sweep_at = now + SWEEP;
            let late = self.connections.close_late(now);
            self.worker.bounds.count_all(Bound::TcpLate, late);
            let idle = self.connections.close_idle(now);
            self.worker.bounds.count_all(Bound::TcpIdle, idle);
            self.count_connections();
        }
    }

    fn count_connections(&self) {
        let open = self.connections.len() as u64;
        self.worker.cells.set_tcp_connections(open);
    }

    fn accept(&mut self, now: Instant) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(listener) = &self.worker.listener else {
                return;
            };
            let (stream, remote) = match listener.accept() {
                Ok(Some(accepted)) => accepted,
                Ok(None) => break,
                Err(_) => {
                    // It would be ready all the time.
                    let _ = self.worker.waiter.unwatch(listener);
                    self.tcp.rests_until = Some(now + REST);
                    self.worker.bounds.count(Bound::TcpConnections);
                    break;
                }
            };
            match self.worker.admission.admit(remote.ip()) {
                Ok(permit) => {
                    let moved = Moved {
                        stream,
                        remote,
                        permit,
                        received: Vec::new(),
                    };
                    self.take_in(now, moved);
                }
                Err(bound) => self.worker.bounds.count(bound),
            }
        }
        self.count_connections();
    }

    /// Returns the number of the connection, unless it could not be watched.
    fn take_in(&mut self, now: Instant, moved: Moved) -> Option<u64> {
        let Moved {
            stream,
            remote,
            permit,
            ..
        } = moved;
        let number = self.connections.add(now, stream, remote, permit);
        let connection = self.connections.find(number)?;
        let waiter = &self.worker.waiter;
        if waiter.watch(&connection.stream, token(number)).is_err() {
            self.worker.bounds.count(Bound::TcpConnections);
            self.connections.remove(number);
            return None;
        }
        if self.connections.has_too_many_unproven() {
            self.worker.bounds.count(Bound::TcpUnproven);
            self.connections.close_oldest_unproven();
        }
        Some(number)
    }

    /// A connection that another shard accepted.
    pub(super) fn take_over(&mut self, now: Instant, mut moved: Moved) {
        let mut received = std::mem::take(&mut moved.received);
        if let Some(number) = self.take_in(now, moved) {
            self.handle_stream(now, number, &mut received);
        }
        self.count_connections();
    }

    fn read(&mut self, now: Instant, number: u64, buffer: &mut [u8]) {
        let Some(connection) = self.connections.find(number) else {
            return;
        };
        let held = connection.received.len();
        buffer[..held].copy_from_slice(&connection.received);
        match connection.stream.read(&mut buffer[held..]) {
            Ok(None) => {}
            Ok(Some(0)) | Err(_) => self.close_connection(number),
            Ok(Some(len)) => self.handle_stream(now, number, &mut buffer[..held + len]),
        }
    }

    /// Handles every whole datagram of a connection and keeps the rest.
    fn handle_stream(&mut self, now: Instant, number: u64, stream: &mut [u8]) {
        let total = stream.len();
        let mut rest = &mut *stream;
        let (mut datagrams, mut bytes) = (0, 0);
        loop {
            let at = total - rest.len();
            let (datagram, after) = match framing::split(std::mem::take(&mut rest)) {
                Framed::Datagram(datagram, after) => (datagram, after),
                Framed::Incomplete => {
                    // Shorter than a datagram with its length.
                    if let Some(connection) = self.connections.find(number) {
                        connection.received = stream[at..].to_vec();
                    }
                    break;
                }
                Framed::TooLong => {
                    self.out.drop(Drop::Malformed);
                    self.close_connection(number);
                    break;
                }
            };
            rest = after;
            if datagram.is_empty() {
                continue;
            }
            let Some(connection) = self.connections.find(number) else {
                break;
            };
            let (flow, proven) = (connection.flow, connection.permit.is_proven());
            if !proven {
                match self.verdict(datagram) {
                    Verdict::Here => {}
                    Verdict::Elsewhere(shard) => {
                        self.move_connection(shard, number, &stream[at..]);
                        break;
                    }
                    Verdict::Nowhere => {
                        self.out.drop(Drop::StunUnauthenticated);
                        self.close_connection(number);
                        break;
                    }
                }
            }
            datagrams += 1;
            bytes += datagram.len() as u64;
            let checks = stun::is_stun(datagram);
            self.handle_datagram(now, flow, datagram, None);
            // A check says by an event of its own whether it was authentic.
            if !checks
                && self.table.by_flow(flow).is_some()
                && let Some(connection) = self.connections.find(number)
            {
                connection.hear(now);
            }
            // As often as datagrams from the socket: a batch must fit the slab.
            if datagrams % Receiver::BATCH as u64 == 0 {
                self.fan_out_ready(now);
            }
        }
        self.worker.cells.count_in(datagrams, bytes);
        self.fan_out_ready(now);
    }

    /// What a connection begins with must be a check, for a session that may exist.
    fn verdict(&self, datagram: &[u8]) -> Verdict {
        let request = BindingRequest::parse(datagram);
        let ufrag = request.and_then(|r| Ufrag::verify(&self.worker.ufrag_key, r.local_ufrag));
        let owner = ufrag.map(|ufrag| match self.table.by_ufrag(&ufrag.0) {
            Some(_) => self.worker.shard,
            None => self.away.by_ufrag(&ufrag.0).unwrap_or(ufrag.shard()),
        });
        match owner {
            None => Verdict::Nowhere,
            Some(shard) if shard == self.worker.shard => Verdict::Here,
            Some(shard) if usize::from(shard) < self.worker.links.len() => {
                Verdict::Elsewhere(shard)
            }
            Some(_) => Verdict::Nowhere,
        }
    }

    /// An authentic check for a session came over a connection.
    pub(super) fn prove(&mut self, now: Instant, index: Index, number: u64) {
        let Some(entry) = self.table.entry(index) else {
            return;
        };
        let uses = entry.flow.and_then(Flow::connection);
        let held = &mut entry.connections;
        if self.connections.prove(now, number, held, uses) {
            self.worker.bounds.count(Bound::TcpSession);
            self.count_connections();
        }
    }

    fn move_connection(&mut self, shard: u8, number: u64, received: &[u8]) {
        let Some(connection) = self.connections.remove(number) else {
            return;
        };
        let _ = self.worker.waiter.unwatch(&connection.stream);
        let moved = Moved {
            stream: connection.stream,
            remote: connection.flow.remote,
            permit: connection.permit,
            received: received.to_vec(),
        };
        self.count_connections();
        self.parcel(shard, Parcel::Connection(Box::new(moved)));
    }

    pub(super) fn close_connection(&mut self, number: u64) {
        self.connections.remove(number);
        self.count_connections();
    }

    /// Queues and sends what the slab has for TCP.
    pub(super) fn flush_tcp(&mut self) {
        let mut touched: Vec<u64> = Vec::new();
        for run in self.out.slab.runs() {
            let Some(number) = run.to.connection() else {
                continue;
            };
            let bytes = &self.out.slab.bytes()[run.offset..run.offset + run.len];
            let Some(connection) = self.connections.find(number) else {
                let lost = run.len.div_ceil(run.segment.max(1)) as u64;
                self.worker.cells.count_drops(Drop::TcpClosed, lost);
                continue;
            };
            let queued = connection.queue(bytes, run.segment);
            let cells = &self.worker.cells;
            cells.count_out(queued.datagrams, queued.bytes);
            cells.count_drops(Drop::TcpFull, queued.dropped);
            if touched.last() != Some(&number) {
                touched.push(number);
            }
        }
        for number in touched {
            self.send_queue(number);
            if let Some(connection) = self.connections.find(number)
                && let Some(congested) = connection.turn()
            {
                let flow = connection.flow;
                self.set_congested(flow, congested);
            }
        }
    }

    /// The kernel has room again.
    fn send_waiting(&mut self, now: Instant, number: u64) {
        if let Some(connection) = self.connections.find(number) {
            connection.blocked = false;
        }
        self.send_queue(number);
        let Some(connection) = self.connections.find(number) else {
            return;
        };
        if !connection.blocked {
            let watched = self
                .worker
                .waiter
                .watch_output(&connection.stream, token(number), false);
            if watched.is_err() {
                return self.close_connection(number);
            }
        }
        let Some(connection) = self.connections.find(number) else {
            return;
        };
        let flow = connection.flow;
        if let Some(congested) = connection.turn() {
            self.set_congested(flow, congested);
            if !congested {
                self.relieved(now, flow);
            }
        }
    }

    fn send_queue(&mut self, number: u64) {
        let Some(connection) = self.connections.find(number) else {
            return;
        };
        if connection.blocked {
            return;
        }
        let sent = connection.send();
        let waits = connection.blocked;
        let watched = sent.and_then(|()| match waits {
            true => self
                .worker
                .waiter
                .watch_output(&connection.stream, token(number), true),
            false => Ok(()),
        });
        if watched.is_err() {
            self.close_connection(number);
        }
    }

    /// Tells the viewer that has the flow.
    fn set_congested(&mut self, flow: Flow, congested: bool) {
        if let Some(index) = self.table.by_flow(flow)
            && let Some(Peer::Viewer(viewer)) = self.table.entry(index).map(|e| &mut e.peer)
        {
            viewer.set_congested(congested);
        }
    }

    /// The viewer that has the flow goes on, where it was in the ring or at the next keyframe.
    fn relieved(&mut self, now: Instant, flow: Flow) {
        let Some(index) = self.table.by_flow(flow) else {
            return;
        };
        let Some(entry) = self.table.entry(index) else {
            return;
        };
        let wanted = match &entry.peer {
            Peer::Viewer(viewer) if viewer.wants_keyframe() => Some(viewer.target_layer()),
            _ => None,
        };
        if let Some(layer) = wanted
            && entry.may_be_relieved(now)
        {
            // The last one in the ring would put it as far behind as it was.
            let device = entry.device.clone();
            self.request_keyframe(now, &device, layer, KeyframeCause::Room);
        }
        self.schedule(index);
    }

    /// Whether video for a session that now has the flow would be withheld.
    pub(super) fn is_congested(&mut self, flow: Flow) -> bool {
        let connection = flow.connection().and_then(|n| self.connections.find(n));
        connection.is_some_and(|connection| connection.congested)
    }
}

/// What the turn keeps about TCP as a whole.
pub(super) struct Tcp {
    sweep_at: Instant,
    /// The listener is not watched before.
    rests_until: Option<Instant>,
}

impl Tcp {
    pub(super) fn new(now: Instant) -> Self {
        Tcp {
            sweep_at: now + SWEEP,
            rests_until: None,
        }
    }
}
