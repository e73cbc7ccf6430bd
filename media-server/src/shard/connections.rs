//! The TCP connections of one shard (RFC 6544, framed as RFC 4571 says): what of a datagram has
//! arrived, and what waits to be sent.
//!
//! A connection is nobody's until an authentic check came over it; which session's it is then, the
//! table knows by its flow. Bounded in number, in time and in bytes. Owned by one shard.

use super::admission::Permit;
use media_core::flow::{Flow, Local};
use media_core::framing;
use media_wire::TcpStream;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// From the connection to an authentic check.
const PROVE_WITHIN: Duration = Duration::from_secs(5);
/// Without a check for a session, or anything for the one that has it: consent has ended by then.
const IDLE: Duration = Duration::from_secs(30);
/// Connections that one session proved. A client opens one for each pair of its and our addresses.
const MAX_PER_SESSION: usize = 8;
/// What may wait to be sent: two seconds of video at 1 Mbit/s. Whole datagrams beyond it are dropped.
const QUEUE_BYTES: usize = 256 * 1024;
/// From so much on video is withheld, so that checks and sound still find room; the batch on its way
/// (64 packets) fits too.
const CONGESTED_BYTES: usize = 128 * 1024;
/// With no more than this the connection has caught up.
const RELIEVED_BYTES: usize = 16 * 1024;
/// What an empty queue keeps of its memory.
const KEPT_BYTES: usize = 8 * 1024;

pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) flow: Flow,
    pub(super) permit: Permit,
    /// What arrived of a datagram that is not all there.
    pub(super) received: Vec<u8>,
    queue: VecDeque<u8>,
    /// The kernel took no more; it will say when it does.
    pub(super) blocked: bool,
    /// Video for it is withheld.
    pub(super) congested: bool,
    heard: Instant,
}

/// What became of datagrams that were to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Queued {
    pub(super) datagrams: u64,
    pub(super) bytes: u64,
    /// Datagrams that found no room.
    pub(super) dropped: u64,
}

impl Connection {
    pub(super) fn hear(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Puts datagrams of `segment` bytes, the last one maybe shorter, behind what waits.
    pub(super) fn queue(&mut self, bytes: &[u8], segment: usize) -> Queued {
        let mut queued = Queued::default();
        for datagram in bytes.chunks(segment.max(1)) {
            let room = QUEUE_BYTES - self.queue.len().min(QUEUE_BYTES);
            let prefix =
                framing::prefix(datagram).filter(|prefix| prefix.len() + datagram.len() <= room);
            let Some(prefix) = prefix else {
                queued.dropped += 1;
                continue;
            };
            self.queue.extend(prefix);
            self.queue.extend(datagram);
            queued.datagrams += 1;
            queued.bytes += datagram.len() as u64;
        }
        queued
    }

    /// Sends what the kernel takes of what waits.
    ///
    /// # Errors
    /// The connection is broken.
    pub(super) fn send(&mut self) -> io::Result<()> {
        self.blocked = false;
        while !self.queue.is_empty() {
            let (front, _) = self.queue.as_slices();
            match self.stream.write(front)? {
                Some(len) if len > 0 => drop(self.queue.drain(..len)),
                _ => {
                    self.blocked = true;
                    return Ok(());
                }
            }
        }
        self.queue.shrink_to(KEPT_BYTES);
        Ok(())
    }

    /// Whether video should be withheld by now, or no longer; `None` if that has not changed.
    pub(super) fn turn(&mut self) -> Option<bool> {
        let congested = self.queue.len() > CONGESTED_BYTES
            || self.congested && self.queue.len() > RELIEVED_BYTES;
        (std::mem::replace(&mut self.congested, congested) != congested).then_some(congested)
    }
}

pub(super) struct Connections {
    map: HashMap<u64, Connection>,
    next: u64,
    max_unproven: usize,
    /// In the order in which they were accepted, with the time they have. Those proven or closed since
    /// are skipped, and cleared away when they are too many.
    unproven: VecDeque<(Instant, u64)>,
    unproven_count: usize,
}

impl Connections {
    pub(super) fn new(max_unproven: usize) -> Self {
        Connections {
            map: HashMap::new(),
            next: 0,
            max_unproven,
            unproven: VecDeque::new(),
            unproven_count: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    /// Takes a connection in; returns its number.
    pub(super) fn add(
        &mut self,
        now: Instant,
        stream: TcpStream,
        remote: SocketAddr,
        permit: Permit,
    ) -> u64 {
        if self.unproven.len() >= 2 * self.max_unproven {
            let mut unproven = std::mem::take(&mut self.unproven);
            unproven.retain(|(_, number)| self.is_unproven(*number));
            self.unproven = unproven;
        }
        let number = self.next;
        self.next += 1;
        self.unproven.push_back((now + PROVE_WITHIN, number));
        self.unproven_count += 1;
        let connection = Connection {
            stream,
            flow: Flow {
                remote,
                local: Local::Tcp(number),
            },
            permit,
            received: Vec::new(),
            queue: VecDeque::new(),
            blocked: false,
            congested: false,
            heard: now,
        };
        self.map.insert(number, connection);
        number
    }

    pub(super) fn find(&mut self, number: u64) -> Option<&mut Connection> {
        self.map.get_mut(&number)
    }

    /// An authentic check came over it, for a session that proved those of `held` before and `uses` one.
    /// If it holds too many now, the oldest that it does not use is closed; returns whether.
    pub(super) fn prove(
        &mut self,
        now: Instant,
        number: u64,
        held: &mut Vec<u64>,
        uses: Option<u64>,
    ) -> bool {
        let Some(connection) = self.map.get_mut(&number) else {
            return false;
        };
        connection.hear(now);
        if !connection.permit.prove() {
            return false;
        }
        self.unproven_count -= 1;
        held.retain(|number| self.map.contains_key(number));
        held.push(number);
        if held.len() <= MAX_PER_SESSION {
            return false;
        }
        let oldest = held.iter().position(|number| Some(*number) != uses);
        oldest.is_some_and(|at| self.remove(held.remove(at)).is_some())
    }

    /// Takes a connection out; it ends with the value.
    pub(super) fn remove(&mut self, number: u64) -> Option<Connection> {
        let connection = self.map.remove(&number)?;
        if !connection.permit.is_proven() {
            self.unproven_count -= 1;
        }
        Some(connection)
    }

    /// Whether more wait for a proof than may.
    pub(super) fn has_too_many_unproven(&self) -> bool {
        self.unproven_count > self.max_unproven
    }

    /// Closes the one that has waited longest for its proof.
    pub(super) fn close_oldest_unproven(&mut self) {
        while let Some((_, number)) = self.unproven.pop_front() {
            if self.is_unproven(number) {
                self.remove(number);
                return;
            }
        }
    }

    fn is_unproven(&self, number: u64) -> bool {
        self.map
            .get(&number)
            .is_some_and(|connection| !connection.permit.is_proven())
    }

    /// Closes those whose time to prove themselves is over; returns how many.
    pub(super) fn close_late(&mut self, now: Instant) -> usize {
        let before = self.map.len();
        while let Some((until, number)) = self.unproven.front().copied() {
            if until > now {
                break;
            }
            self.unproven.pop_front();
            if self.is_unproven(number) {
                self.remove(number);
            }
        }
        before - self.map.len()
    }

    /// Closes those that nothing useful came over for long; returns how many.
    pub(super) fn close_idle(&mut self, now: Instant) -> usize {
        let before = self.map.len();
        // An unproven one has less time than that.
        self.map
            .retain(|_, c| !c.permit.is_proven() || now < c.heard + IDLE);
        before - self.map.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::admission::Admission;
    use super::*;
    use media_wire::TcpListener;
    use std::io::Read;
    use std::net::TcpStream as StdStream;

    struct Pairs {
        listener: TcpListener,
        at: SocketAddr,
    }

    impl Pairs {
        fn new() -> Self {
            let any = "127.0.0.1:0".parse().expect("address");
            let listener = TcpListener::bind(any, false).expect("bind");
            let at = listener.local_addr().expect("address");
            Pairs { listener, at }
        }

        fn connect(&self) -> (StdStream, TcpStream, SocketAddr) {
            let peer = StdStream::connect(self.at).expect("connect");
            loop {
                if let Some((stream, from)) = self.listener.accept().expect("accept") {
                    return (peer, stream, from);
                }
            }
        }
    }

    #[test]
    fn a_slow_peer_gets_whole_datagrams_and_its_queue_stays_bounded() {
        let (pairs, admission) = (Pairs::new(), Admission::new(100, 1));
        let (mut peer, stream, from) = pairs.connect();
        let mut connections = Connections::new(admission.unproven_per_shard);
        let permit = admission.admit(from.ip()).expect("room");
        let now = Instant::now();
        let number = connections.add(now, stream, from, permit);
        let connection = connections.find(number).expect("added");
        let datagrams: Vec<u8> = (0..64 * 1200).map(|at| (at / 1200) as u8).collect();
        let mut queued = Queued::default();
        // Nobody reads: first the kernel is full, then the queue.
        let mut turns = Vec::new();
        while queued.dropped == 0 {
            let more = connection.queue(&datagrams, 1200);
            queued.datagrams += more.datagrams;
            queued.dropped += more.dropped;
            connection.send().expect("open");
            turns.extend(connection.turn());
        }
        assert_eq!(turns, [true], "congested before anything is dropped");
        assert!(connection.blocked);
        assert!(connection.queue.len() <= QUEUE_BYTES);

        let mut read = vec![0; (queued.datagrams * 1202) as usize];
        let mut at = 0;
        while at < read.len() {
            at += peer.read(&mut read[at..]).expect("open");
            connection.send().expect("open");
            turns.extend(connection.turn());
        }
        assert_eq!(turns, [true, false], "and relieved once it is read");
        assert!(!connection.blocked);
        for (index, frame) in read.chunks(1202).enumerate() {
            assert_eq!(frame[..2], 1200u16.to_be_bytes());
            assert_eq!(frame[2], frame[1201], "datagram {index} is whole");
        }
    }

    #[test]
    fn what_proves_nothing_goes_after_five_seconds_or_for_the_next_and_the_rest_when_idle() {
        let (pairs, admission) = (Pairs::new(), Admission::new(100, 1));
        let mut connections = Connections::new(admission.unproven_per_shard);
        let start = Instant::now();
        let mut peers = Vec::new();
        let mut add = |connections: &mut Connections| {
            let (peer, stream, from) = pairs.connect();
            peers.push(peer);
            let permit = admission.admit(from.ip()).expect("room");
            connections.add(start, stream, from, permit)
        };
        let (silent, proven) = (add(&mut connections), add(&mut connections));
        connections.prove(start, proven, &mut Vec::new(), None);
        let soon = Duration::from_millis(1);
        assert_eq!(connections.close_late(start + PROVE_WITHIN - soon), 0);
        assert_eq!(connections.len(), 2);
        assert_eq!(connections.close_late(start + PROVE_WITHIN), 1);
        assert!(connections.find(silent).is_none());
        assert_eq!(connections.close_idle(start + IDLE - soon), 0);
        assert!(connections.find(proven).is_some());
        assert_eq!(connections.close_idle(start + IDLE), 1);
        assert_eq!(connections.len(), 0);

        let (first, second) = (add(&mut connections), add(&mut connections));
        connections.close_oldest_unproven();
        assert!(connections.find(first).is_none());
        assert!(connections.find(second).is_some());
        assert_eq!(connections.unproven_count, 1);
    }

    #[test]
    fn a_session_that_proves_too_many_loses_the_oldest_that_it_does_not_use() {
        let (pairs, admission) = (Pairs::new(), Admission::new(100, 1));
        let mut connections = Connections::new(admission.unproven_per_shard);
        let now = Instant::now();
        let (mut peers, mut held) = (Vec::new(), Vec::new());
        let mut closed = Vec::new();
        for _ in 0..MAX_PER_SESSION + 3 {
            let (peer, stream, from) = pairs.connect();
            peers.push(peer);
            let permit = admission.admit(from.ip()).expect("room");
            let number = connections.add(now, stream, from, permit);
            if number == 4 {
                connections.remove(2);
            }
            closed.push(connections.prove(now, number, &mut held, Some(0)));
            assert!(!connections.prove(now, number, &mut held, Some(0)), "once");
        }
        let count = closed.iter().filter(|closed| **closed).count();
        assert_eq!(count, 2, "one had closed by itself: {closed:?}");
        let open = |number| connections.map.contains_key(&number);
        let open: Vec<u64> = (0..11).filter(|number| open(*number)).collect();
        assert_eq!(open, [0, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(held, open);
        assert_eq!(connections.unproven_count, 0);
    }
}
