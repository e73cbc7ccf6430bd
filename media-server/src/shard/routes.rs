//! Addresses whose datagrams arrive here and belong to another shard's sessions.
//!
//! Bounded; changed only by notices of the shards that own the sessions. Owned by one shard.

use std::collections::HashMap;
use std::net::SocketAddr;

/// As many clients as can stand behind one socket before the memory matters (40 B each).
const MAX_ROUTES: usize = 65_536;

#[derive(Default)]
pub(super) struct Routes {
    map: HashMap<SocketAddr, u8>,
}

impl Routes {
    pub(super) fn find(&self, addr: &SocketAddr) -> Option<u8> {
        self.map.get(addr).copied()
    }

    /// The newest owner has the address. `false` if there is no room.
    pub(super) fn add(&mut self, addr: SocketAddr, shard: u8) -> bool {
        let room = self.map.len() < MAX_ROUTES || self.map.contains_key(&addr);
        if room {
            self.map.insert(addr, shard);
        }
        room
    }

    /// Ends a shard's own route. If another has the address by now, its route stays.
    pub(super) fn remove(&mut self, addr: &SocketAddr, shard: u8) {
        if self.find(addr) == Some(shard) {
            self.map.remove(addr);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn a_shard_that_lets_go_late_does_not_take_the_route_of_the_next_owner() {
        let mut routes = Routes::default();
        assert!(routes.add(addr(1), 2));
        assert!(routes.add(addr(1), 3), "the client moved to shard 3");
        routes.remove(&addr(1), 2);
        assert_eq!(routes.find(&addr(1)), Some(3));
        routes.remove(&addr(1), 3);
        assert_eq!(routes.find(&addr(1)), None);
    }

    #[test]
    fn a_full_table_takes_no_new_address_and_says_so() {
        let mut routes = Routes::default();
        for n in 0..MAX_ROUTES as u32 {
            let addr = SocketAddr::from((n.to_be_bytes(), 9));
            assert!(routes.add(addr, 1));
        }
        assert!(!routes.add(addr(1), 1));
        let known = SocketAddr::from(([0, 0, 0, 1], 9));
        assert!(routes.add(known, 2), "a known one may change hands");
        assert_eq!(routes.map.len(), MAX_ROUTES);
    }
}
