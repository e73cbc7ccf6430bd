//! Sessions that were opened on this shard and live on another since their first check. Their ids and
//! user fragments name this one, so calls and checks that come here are passed on.
//!
//! One entry for each such session; the other shard says when it is over. Owned by one shard.

use media_core::ids::{SessionId, Ufrag};
use std::collections::HashMap;

/// User fragments that lead to one session: that of its last check, and those of restarts since.
const MAX_UFRAGS: usize = 4;

struct Session {
    shard: u8,
    ufrags: Vec<Ufrag>,
}

#[derive(Default)]
pub(super) struct Away {
    by_id: HashMap<SessionId, Session>,
    by_ufrag: HashMap<[u8; 16], u8>,
}

impl Away {
    pub(super) fn add(&mut self, id: SessionId, ufrag: Ufrag, shard: u8) {
        self.by_ufrag.insert(ufrag.0, shard);
        let ufrags = vec![ufrag];
        self.by_id.insert(id, Session { shard, ufrags });
    }

    /// The shard that has the session.
    pub(super) fn by_id(&self, id: SessionId) -> Option<u8> {
        self.by_id.get(&id).map(|session| session.shard)
    }

    /// The shard that has the session which checks with this user fragment are for.
    pub(super) fn by_ufrag(&self, ufrag: &[u8]) -> Option<u8> {
        self.by_ufrag.get(ufrag).copied()
    }

    /// Its ICE restarts with another user fragment.
    pub(super) fn restart(&mut self, id: SessionId, ufrag: Ufrag) {
        let Some(session) = self.by_id.get_mut(&id) else {
            return;
        };
        if session.ufrags.len() == MAX_UFRAGS {
            // The second is of a restart that newer ones replaced; the first may still be in use.
            self.by_ufrag.remove(&session.ufrags.remove(1).0);
        }
        session.ufrags.push(ufrag);
        self.by_ufrag.insert(ufrag.0, session.shard);
    }

    /// It is over.
    pub(super) fn remove(&mut self, id: SessionId) {
        for ufrag in self.by_id.remove(&id).into_iter().flat_map(|s| s.ufrags) {
            self.by_ufrag.remove(&ufrag.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_found_by_its_id_and_its_user_fragments_until_it_is_over() {
        let mut away = Away::default();
        let id = SessionId::new(0, 1, [1; 16]);
        let ufrag = |number| Ufrag::new(&[0; 16], 0, 1, [number; 6]);
        away.add(id, ufrag(0), 2);
        for number in 1..=9 {
            away.restart(id, ufrag(number));
        }
        assert_eq!(away.by_id(id), Some(2));
        let known = |away: &Away| {
            (0..=9)
                .filter(|number| away.by_ufrag(&ufrag(*number).0) == Some(2))
                .collect::<Vec<u8>>()
        };
        assert_eq!(known(&away), [0, 7, 8, 9], "the first and the last");
        away.remove(id);
        assert_eq!(away.by_id(id), None);
        assert_eq!(known(&away), [0u8; 0]);
        assert!(away.by_ufrag.is_empty());
    }
}
