//! Sessions looked for by many threads at once, while some come and go: the registry's map with its
//! locks, and the same map with one. Admission, end and the names of the older API take a lock of the registry besides,
//! which this is not about.

use crate::by_turns;
use media_core::ids::SessionId;
use media_server::measured::Sharded;
use serde_json::{Value, json};
use std::sync::{Arc, Barrier};
use std::time::Instant;

const SESSIONS: u64 = 10_000;
const THREADS: [usize; 4] = [1, 2, 8, 32];
/// Of all threads together, in a turn.
const CALLS: u64 = 400_000;
/// One call of so many takes a session out and puts it in again: most requests are about sessions that exist.
const CHANGES: u64 = 20;

/// Millions of calls a second.
pub fn measure() -> Value {
    let (sharded, one) = (Sharded::<_>::default(), Sharded::<_, 1>::default());
    for n in 0..SESSIONS {
        sharded.insert(id(n), Arc::new(n));
        one.insert(id(n), Arc::new(n));
    }
    let of_threads = THREADS.map(|threads| {
        let [sharded, one] = by_turns([&mut || nanos(threads, &sharded), &mut || {
            nanos(threads, &one)
        }]);
        json!({"threads": threads, "sharded": 1e3 / sharded, "one_lock": 1e3 / one})
    });
    json!(of_threads)
}

fn id(n: u64) -> SessionId {
    let mut random = [0; 16];
    random[8..].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
    SessionId::new(0, 0, random)
}

/// For a call, of all threads together.
fn nanos<const LOCKS: usize>(threads: usize, sessions: &Sharded<Arc<u64>, LOCKS>) -> f64 {
    let each = CALLS / threads as u64;
    let begin = &Barrier::new(threads);
    let spells = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads as u64)
            .map(|thread| {
                scope.spawn(move || {
                    begin.wait();
                    let start = Instant::now();
                    let mut found = 0;
                    let mut next = thread + 1;
                    for call in 0..each {
                        // A generator of its own (Knuth's), so that choosing costs next to nothing.
                        next = next
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695_040_888_963_407);
                        let id = id((next >> 33) % SESSIONS);
                        if call % CHANGES != 0 {
                            found += u64::from(sessions.find(id).is_some());
                        } else if let Some(record) = sessions.remove(id) {
                            sessions.insert(id, record);
                        }
                    }
                    assert!(found > 0, "most are there");
                    (start, Instant::now())
                })
            })
            .collect();
        let spells = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"));
        spells.collect::<Vec<_>>()
    });
    // From the first that began to the last that was done.
    let begun = spells.iter().map(|(start, _)| *start).min();
    let done = spells.iter().map(|(_, end)| *end).max();
    let took = begun
        .zip(done)
        .map_or(0.0, |(begun, done)| (done - begun).as_secs_f64());
    took * 1e9 / (each * threads as u64) as f64
}
