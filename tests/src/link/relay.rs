//! The thread of a link: its sockets, and moving datagrams between them when they are due.
//!
//! It owns one socket that clients send to and one for each client towards the server, so that the
//! server tells clients apart as it would without the link. It decides nothing: that is `path`'s.
//! `Link` starts it and shares its state.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeSpec;

use super::path::Path;

/// Clients behind one link. Datagrams of further ones are counted as overflow.
const MAX_LEGS: usize = 64;
/// Sockets of addresses given up by a rebind, kept open so that the server's datagrams to them vanish,
/// as behind a NAT, and cause no ICMP error. Beyond, the oldest is closed.
const MAX_RETIRED: usize = 16;
/// Datagrams read from a socket before the others get their turn.
const READ_AT_ONCE: usize = 256;
/// Receive buffers in bytes, where the kernel allows: a thread that has to wait for a core must not
/// lose what the link does not.
const BUFFER: usize = 4 << 20;
/// Longest sleep, so that a missed wake-up delays a test and does not hang it.
const IDLE: Duration = Duration::from_secs(1);

pub(super) struct State {
    pub to_server: Path,
    pub to_client: Path,
    pub legs: Vec<Leg>,
    pub stop: bool,
    server: SocketAddr,
    retired: Vec<Arc<UdpSocket>>,
}

/// One client's way through the link.
pub(super) struct Leg {
    client: SocketAddr,
    /// What the server sees the client as.
    pub upstream: Arc<UdpSocket>,
}

impl State {
    pub fn new(server: SocketAddr, seed: u64) -> Self {
        Self {
            to_server: Path::new(seed),
            to_client: Path::new(!seed),
            legs: Vec::new(),
            stop: false,
            server,
            retired: Vec::new(),
        }
    }

    /// Gives every client another address towards the server.
    pub fn rebind(&mut self) -> io::Result<()> {
        for leg in &mut self.legs {
            let fresh = Arc::new(upstream(self.server)?);
            self.retired
                .push(std::mem::replace(&mut leg.upstream, fresh));
        }
        let excess = self.retired.len().saturating_sub(MAX_RETIRED);
        self.retired.drain(..excess);
        Ok(())
    }

    fn leg_of(&mut self, client: SocketAddr) -> Option<usize> {
        if let Some(index) = self.legs.iter().position(|leg| leg.client == client) {
            return Some(index);
        }
        if self.legs.len() >= MAX_LEGS {
            return None;
        }
        let upstream = Arc::new(upstream(self.server).ok()?);
        self.legs.push(Leg { client, upstream });
        Some(self.legs.len() - 1)
    }
}

/// A loopback socket, bound and not blocking.
pub(super) fn socket() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.set_nonblocking(true)?;
    // The first needs a right that not every user has; the second is capped by a sysctl.
    if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &BUFFER)?;
    }
    Ok(socket)
}

fn upstream(server: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket()?;
    socket.connect(server)?;
    Ok(socket)
}

pub(super) struct Relay {
    pub state: Arc<Mutex<State>>,
    /// What clients send to.
    pub front: Arc<UdpSocket>,
    /// Readable when the state has changed.
    pub woken: UnixDatagram,
}

impl Relay {
    /// Runs until [`State::stop`].
    pub fn run(self) {
        let mut buffer = vec![0; 65_536];
        loop {
            let (upstreams, due) = {
                let state = lock(&self.state);
                if state.stop {
                    return;
                }
                let upstreams: Vec<_> = state.legs.iter().map(|l| l.upstream.clone()).collect();
                let due = [state.to_server.next_due(), state.to_client.next_due()];
                (upstreams, due.into_iter().flatten().min())
            };
            let ready = self.wait(&upstreams, due);
            while self.woken.recv(&mut buffer).is_ok() {}
            let mut state = lock(&self.state);
            if ready.front {
                self.read_front(&mut state, &mut buffer);
            }
            for (leg, upstream) in upstreams.iter().enumerate() {
                if ready.upstreams[leg] {
                    read_upstream(&mut state, leg, upstream, &mut buffer);
                }
            }
            self.send_due(&mut state);
        }
    }

    fn wait(&self, upstreams: &[Arc<UdpSocket>], due: Option<Instant>) -> Ready {
        let sockets = upstreams.iter().map(|socket| socket.as_fd());
        let mut polled: Vec<PollFd<'_>> = [self.woken.as_fd(), self.front.as_fd()]
            .into_iter()
            .chain(sockets)
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        let until_due = due.map(|due| due.saturating_duration_since(Instant::now()));
        let timeout = until_due.map_or(IDLE, |time| time.min(IDLE));
        // A signal only makes a turn without work.
        let _ = ppoll(&mut polled, Some(TimeSpec::from_duration(timeout)), None);
        let ready: Vec<bool> = polled[1..]
            .iter()
            .map(|fd| fd.any().unwrap_or(true))
            .collect();
        Ready {
            front: ready[0],
            upstreams: ready[1..].to_vec(),
        }
    }

    fn read_front(&self, state: &mut State, buffer: &mut [u8]) {
        for _ in 0..READ_AT_ONCE {
            let Ok((length, client)) = self.front.recv_from(buffer) else {
                return;
            };
            let now = Instant::now();
            match state.leg_of(client) {
                Some(leg) => state.to_server.enter(now, leg, &buffer[..length]),
                None => state.to_server.overflow(now, &buffer[..length]),
            }
        }
    }

    /// Sends what is due. A datagram that the kernel refuses is lost at the other end: delivered.
    fn send_due(&self, state: &mut State) {
        while let Some(held) = state.to_server.leave(Instant::now()) {
            let _ = state.legs[held.leg].upstream.send(&held.bytes);
            state.to_server.delivered(Instant::now(), &held);
        }
        while let Some(held) = state.to_client.leave(Instant::now()) {
            let _ = self.front.send_to(&held.bytes, state.legs[held.leg].client);
            state.to_client.delivered(Instant::now(), &held);
        }
    }
}

struct Ready {
    front: bool,
    upstreams: Vec<bool>,
}

fn read_upstream(state: &mut State, leg: usize, upstream: &UdpSocket, buffer: &mut [u8]) {
    for _ in 0..READ_AT_ONCE {
        match upstream.recv(buffer) {
            Ok(length) => state
                .to_client
                .enter(Instant::now(), leg, &buffer[..length]),
            // Nobody listens at the server's port: an error of a datagram sent before, reported once.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(_) => return,
        }
    }
}

/// A test that panics while it holds the state fails anyway.
pub(super) fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
