//! Sessions by their id, with a lock for each part of them, so that those who ask for different ones rarely meet.
//!
//! `docs/benchmarks.md` has it beside one lock for all. Nobody holds a lock for longer than a look-up: values are
//! cloned out.

use media_core::ids::SessionId;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A map from ids, under `LOCKS` locks. Those who hold one at a time are as many as there are cores: more buys
/// little.
#[derive(Debug)]
pub struct Sharded<V, const LOCKS: usize = 16> {
    parts: [Part<V>; LOCKS],
}

/// On cache lines of its own: a lock that is taken would slow down its neighbours'.
#[derive(Debug)]
#[repr(align(128))]
struct Part<V>(Mutex<Map<V>>);

type Map<V> = HashMap<SessionId, V, BuildHasherDefault<RandomBits>>;

impl<V: Clone, const LOCKS: usize> Default for Sharded<V, LOCKS> {
    fn default() -> Self {
        Sharded {
            parts: std::array::from_fn(|_| Part(Mutex::default())),
        }
    }
}

impl<V: Clone, const LOCKS: usize> Sharded<V, LOCKS> {
    pub fn insert(&self, id: SessionId, value: V) {
        self.part(id).insert(id, value);
    }

    pub fn find(&self, id: SessionId) -> Option<V> {
        self.part(id).get(&id).cloned()
    }

    pub fn contains(&self, id: SessionId) -> bool {
        self.part(id).contains_key(&id)
    }

    pub fn remove(&self, id: SessionId) -> Option<V> {
        self.part(id).remove(&id)
    }

    /// All values, in no order. Those of a part are as they were at one moment.
    pub fn values(&self) -> Vec<V> {
        let mut values = Vec::new();
        for part in &self.parts {
            values.extend(lock(part).values().cloned());
        }
        values
    }

    fn part(&self, id: SessionId) -> MutexGuard<'_, Map<V>> {
        // Of the random bits, some that the map uses neither for the place nor for the tag of an entry.
        lock(&self.parts[usize::from(id.0[9]) % LOCKS])
    }
}

/// A poisoned part is still right: no call leaves it half changed.
fn lock<V>(part: &Part<V>) -> MutexGuard<'_, Map<V>> {
    part.0.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The last 8 bytes of an id, 62 bits of which are random and the server's own: nobody chooses ids that are put in,
/// so hashing them would spread them no better.
#[derive(Debug, Default)]
struct RandomBits(u64);

impl Hasher for RandomBits {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last_chunk() {
            self.0 = u64::from_be_bytes(*last);
        }
    }

    /// The length of the id, which is always the same.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> impl Iterator<Item = SessionId> {
        (0..1_000).map(|_| SessionId::new(0, 0, crate::app::random()))
    }

    #[test]
    fn what_was_put_in_is_found_until_it_is_taken_out() {
        let map = Sharded::<SessionId>::default();
        let ids: Vec<SessionId> = ids().collect();
        ids.iter().for_each(|id| map.insert(*id, *id));
        assert!(ids.iter().all(|id| map.find(*id) == Some(*id)));
        assert_eq!(map.values().len(), ids.len());
        assert_eq!(
            (map.remove(ids[7]), map.remove(ids[7])),
            (Some(ids[7]), None)
        );
        assert!(!map.contains(ids[7]) && map.contains(ids[8]));
    }

    #[test]
    fn who_holds_one_lock_holds_up_few() {
        let map = Sharded::<()>::default();
        let ids: Vec<SessionId> = ids().collect();
        ids.iter().for_each(|id| map.insert(*id, ()));
        let held = lock(&map.parts[0]);
        assert!((1..200).contains(&held.len()), "{} of 1000", held.len());
        let others = ids.iter().filter(|id| !held.contains_key(id));
        assert!(others.map(|id| map.find(*id)).all(|found| found.is_some()));
    }

    #[test]
    fn ids_are_spread_over_the_places_of_a_map() {
        use std::hash::{BuildHasher as _, BuildHasherDefault};
        let hasher = BuildHasherDefault::<RandomBits>::default();
        let hashes: std::collections::HashSet<u64> =
            ids().map(|id| hasher.hash_one(id) % 4096).collect();
        // Of a thousand at random in 4096 places some 110 meet.
        assert!(hashes.len() > 800, "{}", hashes.len());
    }
}
