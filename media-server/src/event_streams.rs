//! Event streams that viewers' sessions opened: who may listen to what, within a bound.
//!
//! Holds no connection and sends nothing: `api/events.rs` looks here what a stream is for, and that it
//! is still wanted.

use media_core::ids::SessionId;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Streams of one session: one, and another while a page that was left is not forgotten yet.
const MAX_OF_SESSION: usize = 2;

/// What a stream can tell of (draft-ietf-wish-whep-04, "Server Sent Events").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Active,
    Inactive,
    Layers,
    ViewerCount,
}

impl Kind {
    pub const ALL: [Kind; 4] = [
        Kind::Active,
        Kind::Inactive,
        Kind::Layers,
        Kind::ViewerCount,
    ];

    /// Its name in the protocol.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Active => "active",
            Kind::Inactive => "inactive",
            Kind::Layers => "layers",
            Kind::ViewerCount => "viewercount",
        }
    }
}

/// One stream as its listener needs to know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    pub session: SessionId,
    pub kinds: Vec<Kind>,
    /// Counts who listens: the newest does, and those before stop.
    pub listener: u64,
}

/// All streams of the process, by their unguessable names.
#[derive(Debug)]
pub struct EventStreams {
    map: Mutex<HashMap<String, Opened>>,
    max: usize,
}

impl EventStreams {
    /// None, of so many that there may be.
    pub fn new(max: usize) -> EventStreams {
        EventStreams {
            map: Mutex::default(),
            max,
        }
    }

    /// Opens a stream under a name; `false` if there is no room.
    #[must_use]
    pub fn open(&self, name: String, session: SessionId, kinds: Vec<Kind>) -> bool {
        let mut map = self.lock();
        let own = map.values().filter(|s| s.session == session).count();
        let room = map.len() < self.max && own < MAX_OF_SESSION;
        if room {
            let listener = 0;
            map.insert(
                name,
                Opened {
                    session,
                    kinds,
                    listener,
                },
            );
        }
        room
    }

    /// Begins to listen; `None` if the session has no such stream.
    pub fn listen(&self, name: &str, session: SessionId) -> Option<Opened> {
        let mut map = self.lock();
        let stream = map.get_mut(name).filter(|s| s.session == session)?;
        stream.listener += 1;
        Some(stream.clone())
    }

    /// Whether nobody listens to the stream since, and it is still open.
    pub fn is_listener(&self, name: &str, listener: u64) -> bool {
        self.lock()
            .get(name)
            .is_some_and(|stream| stream.listener == listener)
    }

    /// Ends a stream; `false` if the session has none of that name.
    pub fn close(&self, name: &str, session: SessionId) -> bool {
        let mut map = self.lock();
        let known = map.get(name).is_some_and(|s| s.session == session);
        known && map.remove(name).is_some()
    }

    /// Ends all streams of a session that has ended.
    pub fn close_session(&self, session: SessionId) {
        self.lock().retain(|_, stream| stream.session != session);
    }

    /// A poisoned map is still right: no call leaves it half changed.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Opened>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(n: usize) -> SessionId {
        let mut random = [0; 16];
        random[8..].copy_from_slice(&n.to_be_bytes());
        SessionId::new(0, 0, random)
    }

    #[test]
    fn a_session_and_the_process_have_a_bound_and_room_again_after_an_end() {
        let streams = EventStreams::new(100);
        let open = |n: usize| streams.open(format!("s{n}"), session(n / 2), vec![Kind::Layers]);
        assert!((0..100).all(open));
        assert!(!streams.open("more".into(), session(9_999), Vec::new()));
        streams.close_session(session(0));
        assert!(streams.open("more".into(), session(9_999), Vec::new()));
        assert!(streams.close("s2", session(1)));
        assert!(!streams.close("s2", session(1)), "closed already");
        assert!(!streams.open("third".into(), session(2), Vec::new()));
    }

    #[test]
    fn the_newest_listener_takes_over_and_only_of_its_own_session() {
        let streams = EventStreams::new(10);
        assert!(streams.open("s".into(), session(1), vec![Kind::Active]));
        assert_eq!(streams.listen("s", session(2)), None);
        let first = streams.listen("s", session(1)).expect("open");
        assert!(streams.is_listener("s", first.listener));
        let second = streams.listen("s", session(1)).expect("open");
        assert!(!streams.is_listener("s", first.listener));
        assert!(streams.is_listener("s", second.listener));
        streams.close_session(session(1));
        assert!(!streams.is_listener("s", second.listener));
    }
}
