//! How many TCP connections there may be: of all shards together, and of one source as long as they
//! have proved nothing.
//!
//! Counted when a connection is accepted, proved and closed; never on a packet's path.

use super::bounds::Bound;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Of one source, without an authentic check. A client opens one for each pair of its and our
/// addresses, a page for each of its viewers, all at once; each proves itself within two round trips.
const UNPROVEN_PER_SOURCE: u32 = 64;

/// Without an authentic check, of one shard; the oldest makes room for the next.
const UNPROVEN_PER_SHARD: usize = 512;

#[derive(Debug)]
pub(super) struct Admission {
    max: usize,
    /// Of all that may be, those that prove nothing may hold a quarter: the oldest of them makes room
    /// before everybody else is refused.
    pub(super) unproven_per_shard: usize,
    open: AtomicUsize,
    /// No larger than the number of unproven connections.
    unproven: Mutex<HashMap<IpAddr, u32>>,
}

impl Admission {
    /// `max` connections in all.
    pub(super) fn new(max: usize, shards: u8) -> Arc<Self> {
        let share = max / 4 / usize::from(shards).max(1);
        Arc::new(Admission {
            max,
            unproven_per_shard: share.clamp(1, UNPROVEN_PER_SHARD),
            open: AtomicUsize::new(0),
            unproven: Mutex::new(HashMap::new()),
        })
    }

    /// A place for one more connection, for as long as the permit lives.
    ///
    /// # Errors
    /// The bound that leaves none.
    pub(super) fn admit(self: &Arc<Self>, from: IpAddr) -> Result<Permit, Bound> {
        if self.open.fetch_add(1, Relaxed) >= self.max {
            self.open.fetch_sub(1, Relaxed);
            return Err(Bound::TcpConnections);
        }
        let mut permit = Permit {
            admission: self.clone(),
            source: None,
        };
        let source = source(from);
        let mut unproven = self.unproven.lock().unwrap_or_else(PoisonError::into_inner);
        let count = unproven.entry(source).or_default();
        if *count >= UNPROVEN_PER_SOURCE {
            return Err(Bound::TcpSource);
        }
        *count += 1;
        permit.source = Some(source);
        Ok(permit)
    }
}

/// An open connection, as far as it counts.
#[derive(Debug)]
pub(super) struct Permit {
    admission: Arc<Admission>,
    /// Where it is from, until that is proven to be a peer.
    source: Option<IpAddr>,
}

impl Permit {
    /// Counts for its source no longer. `false` if it did not before.
    pub(super) fn prove(&mut self) -> bool {
        let Some(source) = self.source.take() else {
            return false;
        };
        let unproven = self.admission.unproven.lock();
        let mut unproven = unproven.unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = unproven.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                unproven.remove(&source);
            }
        }
        true
    }

    pub(super) fn is_proven(&self) -> bool {
        self.source.is_none()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.prove();
        self.admission.open.fetch_sub(1, Relaxed);
    }
}

/// What one party can be expected to have: an IPv4 address, or the 64 bits in front of an IPv6 one.
fn source(from: IpAddr) -> IpAddr {
    match from {
        IpAddr::V4(_) => from,
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (!0 << 64))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    #[test]
    fn one_source_has_so_many_unproven_and_any_number_of_proven_connections() {
        let admission = Admission::new(1_000, 1);
        let mut held: Vec<Permit> = (0..UNPROVEN_PER_SOURCE)
            .map(|n| {
                let from = ip(&format!("2001:db8::{n:x}"));
                admission.admit(from).expect("room")
            })
            .collect();
        assert_eq!(
            admission.admit(ip("2001:db8::ffff")).err(),
            Some(Bound::TcpSource),
            "all of a /64 is one source"
        );
        held.push(admission.admit(ip("2001:db8:0:1::1")).expect("another"));
        held.push(admission.admit(ip("192.0.2.1")).expect("another"));
        assert!(held[0].prove());
        assert!(!held[0].prove(), "once");
        held.push(admission.admit(ip("2001:db8::1")).expect("room again"));
        held.clear();
        assert!(admission.unproven.lock().expect("lock").is_empty());
        assert_eq!(admission.open.load(Relaxed), 0);
    }

    #[test]
    fn strangers_hold_a_quarter_of_the_connections_at_most() {
        let share = |max, shards| Admission::new(max, shards).unproven_per_shard;
        assert_eq!(share(8_192, 1), 512);
        assert_eq!(share(8_192, 4), 512);
        assert_eq!(share(8_192, 64), 32);
        assert_eq!(share(512, 1), 128, "where few files may be open");
        assert_eq!(share(10, 4), 1);
    }

    #[test]
    fn all_together_have_a_bound_too() {
        let admission = Admission::new(2, 1);
        let mut held: Vec<Permit> = (1..3)
            .map(|n| admission.admit(ip(&format!("192.0.2.{n}"))).expect("room"))
            .collect();
        held.iter_mut().for_each(|permit| assert!(permit.prove()));
        let refused = admission.admit(ip("192.0.2.9")).err();
        assert_eq!(refused, Some(Bound::TcpConnections));
        held.pop();
        admission.admit(ip("192.0.2.9")).expect("room again");
    }
}
