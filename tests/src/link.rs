//! A bad network on loopback: carries UDP between clients and a server with delay, jitter, loss,
//! reordering and a narrow place, each direction by itself.
//!
//! A [`Link`] owns a thread and its sockets, and counts what became of every datagram, so that a test
//! compares what the product says with what happened. It never looks into a datagram further than to
//! tell its kind, and knows nothing of the product. Tests start one per client (`client::Options::
//! media_address` leads media there), or one for a server (`--advertise` its address).

mod path;
mod relay;
#[cfg(test)]
mod tests;

use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use path::Path;
pub use path::{Conditions, Datagram, Fate, Jitter, Kind, Rate, Reorder, Seen, Tally};
use relay::{Relay, State, lock};

/// Which way datagrams go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
}

/// See the module. Ends with its value.
pub struct Link {
    state: Arc<Mutex<State>>,
    front: Arc<UdpSocket>,
    wake: UnixDatagram,
    thread: Option<JoinHandle<()>>,
}

impl Link {
    /// A link to `server` that does nothing yet but carry. The same `seed` loses and delays the same
    /// datagrams of a direction, by their numbers.
    ///
    /// # Panics
    /// If loopback has no free port.
    pub fn start(server: SocketAddr, seed: u64) -> Self {
        let front = Arc::new(relay::socket().expect("loopback has a free port"));
        let (wake, woken) = UnixDatagram::pair().expect("a pair of sockets");
        for end in [&wake, &woken] {
            end.set_nonblocking(true).expect("a socket can be set");
        }
        let state = Arc::new(Mutex::new(State::new(server, seed)));
        let relay = Relay {
            state: state.clone(),
            front: front.clone(),
            woken,
        };
        let thread = std::thread::Builder::new()
            .name("link".to_owned())
            .spawn(move || relay.run())
            .expect("a thread can be started");
        Self {
            state,
            front,
            wake,
            thread: Some(thread),
        }
    }

    /// Where clients send to.
    ///
    /// # Panics
    /// Never: the socket is bound.
    pub fn address(&self) -> SocketAddr {
        self.front
            .local_addr()
            .expect("a bound socket has an address")
    }

    /// Changes a direction from now on.
    pub fn set(&self, direction: Direction, conditions: Conditions) {
        self.change(|state| path(state, direction).conditions = conditions);
    }

    pub fn set_both(&self, conditions: Conditions) {
        self.set(Direction::ToServer, conditions);
        self.set(Direction::ToClient, conditions);
    }

    /// Drops what `rule` returns true for, from now on; it takes the place of the rule before. It is
    /// called for every datagram on the link's thread, and must not use the link.
    pub fn drop_when(
        &self,
        direction: Direction,
        rule: impl FnMut(&Datagram<'_>) -> bool + Send + 'static,
    ) {
        self.change(|state| path(state, direction).rule = Some(Box::new(rule)));
    }

    /// Tells `watcher` the fate of every datagram from now on: when it left for its receiver, or when
    /// it was dropped. Called on the link's thread; it must not use the link.
    pub fn watch(&self, direction: Direction, watcher: impl FnMut(&Seen<'_>) + Send + 'static) {
        self.change(|state| path(state, direction).watcher = Some(Box::new(watcher)));
    }

    /// What became of the datagrams so far.
    pub fn tally(&self, direction: Direction) -> Tally {
        path(&mut lock(&self.state), direction).tally()
    }

    /// Gives every client another source port towards the server, as a NAT does that forgot its
    /// mapping. What the server still sends to the old one is gone.
    ///
    /// # Panics
    /// If loopback has no free port.
    pub fn rebind(&self) {
        self.change(|state| state.rebind().expect("loopback has free ports"));
    }

    /// While dark, nothing enters in either direction; what is on its way still arrives.
    pub fn set_dark(&self, dark: bool) {
        self.change(|state| {
            state.to_server.dark = dark;
            state.to_client.dark = dark;
        });
    }

    /// The addresses that the server sees, in the order in which the clients came.
    ///
    /// # Panics
    /// Never: the sockets are bound.
    pub fn server_side(&self) -> Vec<SocketAddr> {
        let state = lock(&self.state);
        let legs = state.legs.iter();
        legs.map(|leg| leg.upstream.local_addr().expect("it is bound"))
            .collect()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut lock(&self.state));
        // Full means that the thread has a wake-up to read already.
        let _ = self.wake.send(&[0]);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.change(|state| state.stop = true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn path(state: &mut State, direction: Direction) -> &mut Path {
    match direction {
        Direction::ToServer => &mut state.to_server,
        Direction::ToClient => &mut state.to_client,
    }
}
