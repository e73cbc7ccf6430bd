//! How much one subject, one device and all set-ups together may ask for (design §10).
//!
//! Owns the rates and the places for handshakes, all of fixed size. Decides on no status and knows no
//! request: the API asks it, and says no in its own words.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests that one subject may make each second, and at once after a pause.
const SUBJECT: (u32, u32) = (5, 20);
/// Sessions that one device may publish each second, and at once: a device whose network comes and
/// goes is back at the first try, and one in a loop doesn't take its viewers through it.
const DEVICE: (u32, u32) = (1, 4);
/// Cells of a rate, 8 bytes each. Names that fall into one cell share its rate: with 1 000 of them
/// one in 65 has a neighbour, and a burst for both.
const CELLS: usize = 1 << 16;
/// Sessions that may be between their POST and their keys at once. Each costs about 1 ms of a core.
const HANDSHAKES: usize = 200;
/// Those that may wait for a place, and for how long: a wave of viewers gets through, a client that
/// would have given up by then is told to come back.
const WAITING: usize = 2_000;
const WAIT: Duration = Duration::from_secs(10);

/// All limits on what is asked for.
pub struct Limiter {
    pub subjects: Rate,
    pub devices: Rate,
    pub handshakes: Handshakes,
}

impl Limiter {
    pub fn new(now: Instant) -> Limiter {
        Limiter {
            subjects: Rate::new(now, SUBJECT, CELLS),
            devices: Rate::new(now, DEVICE, CELLS),
            handshakes: Handshakes::new(HANDSHAKES, WAITING, WAIT),
        }
    }
}

/// A rate for each of any number of names, in a table that never grows.
///
/// The generic cell rate algorithm (ITU-T I.371): a cell holds the time at which its name has
/// nothing left to make up for, in microseconds since the start.
pub struct Rate {
    cells: Box<[AtomicU64]>,
    /// Keyed at random, so that nobody can choose whom to share a cell with.
    hasher: RandomState,
    start: Instant,
    interval_us: u64,
    burst_us: u64,
}

impl Rate {
    pub fn new(start: Instant, (per_second, burst): (u32, u32), cells: usize) -> Rate {
        let interval_us = 1_000_000 / u64::from(per_second);
        Rate {
            cells: (0..cells).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
            start,
            interval_us,
            burst_us: interval_us * u64::from(burst - 1),
        }
    }

    /// Counts one request of `name`.
    ///
    /// # Errors
    /// The time until the next one is due; this one is not counted.
    pub fn take(&self, now: Instant, name: &str) -> Result<(), Duration> {
        self.take_many(now, name, 1)
    }

    /// Counts what is worth so many requests of `name`; it is let in whenever one is.
    ///
    /// # Errors
    /// The time until the next one is due; this one is not counted.
    pub fn take_many(&self, now: Instant, name: &str, count: usize) -> Result<(), Duration> {
        let now_us = now.saturating_duration_since(self.start).as_micros() as u64;
        let cell = &self.cells[self.hasher.hash_one(name) as usize % self.cells.len()];
        cell.fetch_update(Relaxed, Relaxed, |due| {
            let due = due.max(now_us);
            (due - now_us <= self.burst_us).then_some(due + self.interval_us * count as u64)
        })
        .map(drop)
        .map_err(|due| Duration::from_micros(due.saturating_sub(now_us + self.burst_us)))
    }
}

/// Places for sessions that have no keys yet.
pub struct Handshakes {
    free: Arc<Semaphore>,
    places: usize,
    waiting: AtomicUsize,
    max_waiting: usize,
    wait: Duration,
}

/// A place; free again when dropped.
pub type Handshake = OwnedSemaphorePermit;

/// No place became free in time, or too many wait for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoPlace;

impl Handshakes {
    fn new(places: usize, max_waiting: usize, wait: Duration) -> Handshakes {
        Handshakes {
            free: Arc::new(Semaphore::new(places)),
            places,
            waiting: AtomicUsize::new(0),
            max_waiting,
            wait,
        }
    }

    /// Takes a place, in the order of asking.
    ///
    /// # Errors
    /// [`NoPlace`]
    pub async fn begin(&self) -> Result<Handshake, NoPlace> {
        if let Ok(place) = self.free.clone().try_acquire_owned() {
            return Ok(place);
        }
        let _waiting = Waiting::enter(self).ok_or(NoPlace)?;
        match tokio::time::timeout(self.wait, self.free.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => Err(NoPlace),
        }
    }

    /// Places taken.
    pub fn in_flight(&self) -> usize {
        self.places - self.free.available_permits().min(self.places)
    }

    /// Requests that wait for a place.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }
}

/// Counts a request while it waits, also when its client goes away.
struct Waiting<'a>(&'a AtomicUsize);

impl Waiting<'_> {
    fn enter(handshakes: &Handshakes) -> Option<Waiting<'_>> {
        handshakes
            .waiting
            .fetch_update(Relaxed, Relaxed, |waiting| {
                (waiting < handshakes.max_waiting).then_some(waiting + 1)
            })
            .ok()?;
        Some(Waiting(&handshakes.waiting))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::task::Poll;

    #[test]
    fn a_burst_is_let_through_and_then_one_for_each_interval() {
        let start = Instant::now();
        let rate = Rate::new(start, (5, 20), 1);
        for _ in 0..20 {
            assert_eq!(rate.take(start, "ann"), Ok(()));
        }
        let wait = rate.take(start, "ann").expect_err("the burst is used up");
        assert_eq!(wait, Duration::from_millis(200));
        assert_eq!(rate.take(start + wait, "ann"), Ok(()));
        assert!(rate.take(start + wait, "ann").is_err());
        let later = start + Duration::from_secs(60);
        for n in 0..20 {
            assert_eq!(rate.take(later, "ann"), Ok(()), "{n} after a pause");
        }
        assert!(rate.take(later, "ann").is_err(), "a pause saves no more");
    }

    #[test]
    fn what_is_worth_several_is_let_in_like_one_and_made_up_for_like_several() {
        let start = Instant::now();
        let rate = Rate::new(start, (5, 1), 1);
        assert_eq!(rate.take_many(start, "ann", 10), Ok(()));
        assert_eq!(rate.take(start, "ann"), Err(Duration::from_secs(2)));
        assert_eq!(rate.take(start + Duration::from_secs(2), "ann"), Ok(()));
    }

    #[test]
    fn names_do_not_pay_for_each_other() {
        let now = Instant::now();
        let rate = Rate::new(now, (1, 4), CELLS);
        while rate.take(now, "loud").is_ok() {}
        // One in 65 536 of them is the neighbour of the loud one.
        let refused = (0..1_000)
            .filter(|n| rate.take(now, &format!("viewer-{n}")).is_err())
            .count();
        assert!(refused <= 3, "{refused} of 1000");
    }

    #[tokio::test]
    async fn a_handshake_waits_for_a_place_and_no_longer_than_its_time() {
        let wait = Duration::from_millis(300);
        let handshakes = Handshakes::new(1, 1, wait);
        let first = handshakes.begin().await.expect("a free place");
        assert_eq!(handshakes.in_flight(), 1);
        let mut second = Box::pin(handshakes.begin());
        let early = poll_fn(|cx| Poll::Ready(second.as_mut().poll(cx).is_ready())).await;
        assert!(!early && handshakes.waiting() == 1);
        assert_eq!(
            handshakes.begin().await.err(),
            Some(NoPlace),
            "no room to wait"
        );
        drop(first);
        // Granted when the first was dropped, however late this looks at it.
        let second = second.await.expect("its turn");
        assert_eq!(handshakes.waiting(), 0);
        let asked = Instant::now();
        assert_eq!(handshakes.begin().await.err(), Some(NoPlace));
        assert!(asked.elapsed() >= wait, "{:?}", asked.elapsed());
        drop(second);
        assert_eq!((handshakes.in_flight(), handshakes.waiting()), (0, 0));
    }
}
