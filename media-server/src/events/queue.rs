//! Events that wait for one receiver, and the order in which they get there.
//!
//! Owns the bounds: 10 000 events and an hour; beyond either the oldest that is not under way is dropped and counted, so that
//! what is counted as dropped never arrives. What is at the front is delivered
//! again and again, after longer and longer pauses, before the next one is tried: so order is kept, and each event arrives at
//! least once. [`Queue::follow`] runs as a task; [`Queue::push`] never waits.

use super::Message;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Events of one receiver. 500 bytes each: 5 MB.
const MAX_WAITING: usize = 10_000;
/// Older ones tell nobody anything new.
const MAX_AGE: Duration = Duration::from_secs(3600);
/// Pauses between attempts: the first, doubled each time up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(30);

/// Why an event was dropped; value of the `reason` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dropped {
    /// There were 10 000 younger ones.
    Full,
    /// It had waited for an hour.
    Old,
    /// Its receiver does not take this one.
    Refused,
}

impl Dropped {
    pub const ALL: [Dropped; 3] = [Dropped::Full, Dropped::Old, Dropped::Refused];

    pub fn as_str(self) -> &'static str {
        match self {
            Dropped::Full => "full",
            Dropped::Old => "old",
            Dropped::Refused => "refused",
        }
    }
}

/// Why an event was not delivered.
#[derive(Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// Trying again may help.
    Failed(String),
    /// This event will never be taken.
    Refused(String),
}

/// Who takes events to a receiver.
pub trait Sink: Send {
    /// Events that are handed over at once.
    const BATCH: usize;

    /// Delivers events in order. Returns how many of them, from the first on, were taken, and what kept the next one.
    fn deliver(
        &mut self,
        batch: &[Arc<Message>],
    ) -> impl Future<Output = (usize, Result<(), Undelivered>)> + Send;
}

/// The events that wait for one receiver.
#[derive(Default)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    changed: Notify,
    closed: AtomicBool,
    delivered: AtomicU64,
    retries: AtomicU64,
    dropped: [AtomicU64; Dropped::ALL.len()],
}

#[derive(Default)]
struct Waiting {
    events: VecDeque<Arc<Message>>,
    /// So many of them, from the first on, are with the sink, which may deliver them yet.
    under_way: usize,
}

impl Queue {
    /// Adds an event behind all others.
    pub fn push(&self, message: Arc<Message>) {
        let mut waiting = self.lock();
        if waiting.events.len() == MAX_WAITING {
            let oldest = waiting.under_way;
            waiting.events.remove(oldest);
            self.count_dropped(Dropped::Full);
        }
        waiting.events.push_back(message);
        drop(waiting);
        self.changed.notify_one();
    }

    pub fn waiting(&self) -> usize {
        self.lock().events.len()
    }

    pub fn delivered(&self) -> u64 {
        self.delivered.load(Relaxed)
    }

    /// Attempts after a failed one.
    pub fn retries(&self) -> u64 {
        self.retries.load(Relaxed)
    }

    pub fn dropped(&self, reason: Dropped) -> u64 {
        self.dropped[reason as usize].load(Relaxed)
    }

    /// No event comes any more: [`Self::follow`] returns when the last one is delivered, and pauses no longer than at first.
    pub fn close(&self) {
        self.closed.store(true, Relaxed);
        self.changed.notify_one();
    }

    /// Delivers what comes until the queue is closed and empty.
    pub async fn follow<S: Sink>(&self, name: &str, mut sink: S) {
        let mut pause = FIRST_PAUSE;
        loop {
            let batch = self.begin(S::BATCH);
            if batch.is_empty() {
                if self.closed.load(Relaxed) {
                    return;
                }
                self.changed.notified().await;
                continue;
            }
            let (taken, result) = sink.deliver(&batch).await;
            self.delivered.fetch_add(taken as u64, Relaxed);
            let refused = matches!(result, Err(Undelivered::Refused(_)));
            self.end(taken + usize::from(refused));
            if taken > 0 || result.is_ok() {
                pause = FIRST_PAUSE;
            }
            match result {
                Ok(()) => {}
                Err(Undelivered::Refused(why)) => {
                    self.count_dropped(Dropped::Refused);
                    tracing::warn!(sink = name, event = batch[taken].key, why, "event refused");
                }
                Err(Undelivered::Failed(why)) => {
                    let waiting = self.waiting();
                    tracing::warn!(
                        sink = name,
                        waiting,
                        why,
                        "events not delivered, tried again"
                    );
                    self.pause(pause).await;
                    pause = (pause * 2).min(LAST_PAUSE);
                    self.retries.fetch_add(1, Relaxed);
                }
            }
        }
    }

    /// The oldest events, once those that are too old are gone; they are under way until [`Self::end`].
    fn begin(&self, most: usize) -> Vec<Arc<Message>> {
        let mut waiting = self.lock();
        let is_old = |message: &Arc<Message>| message.at.elapsed() >= MAX_AGE;
        while waiting.events.front().is_some_and(is_old) {
            waiting.events.pop_front();
            self.count_dropped(Dropped::Old);
        }
        waiting.under_way = waiting.events.len().min(most);
        waiting
            .events
            .iter()
            .take(waiting.under_way)
            .cloned()
            .collect()
    }

    /// None is under way any more, and so many of those that were are done with.
    fn end(&self, done: usize) {
        let mut waiting = self.lock();
        waiting.under_way = 0;
        waiting.events.drain(..done);
    }

    /// Waits; once the queue is closed only as long as at first.
    async fn pause(&self, pause: Duration) {
        let end = Instant::now() + pause;
        loop {
            let end = match self.closed.load(Relaxed) {
                true => end.min(Instant::now() + FIRST_PAUSE),
                false => end,
            };
            tokio::select! {
                () = tokio::time::sleep_until(end) => return,
                () = self.changed.notified() => {}
            }
        }
    }

    fn count_dropped(&self, reason: Dropped) {
        self.dropped[reason as usize].fetch_add(1, Relaxed);
    }

    /// A poisoned queue is still right: no call leaves it half changed.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(number: u64) -> Arc<Message> {
        Arc::new(Message {
            id: number.to_string(),
            key: "media.session.created",
            body: String::new(),
            at: Instant::now(),
        })
    }

    fn number(message: &Message) -> u64 {
        message.id.parse().expect("a number")
    }

    /// Takes events as a script says: `Ok` one, `Failed` and `Refused`; all of them once the script is over.
    struct Scripted {
        script: VecDeque<Result<(), Undelivered>>,
        took: Arc<Mutex<Vec<u64>>>,
        times: Arc<Mutex<Vec<Instant>>>,
    }

    impl Sink for Scripted {
        const BATCH: usize = 4;

        async fn deliver(&mut self, batch: &[Arc<Message>]) -> (usize, Result<(), Undelivered>) {
            self.times.lock().expect("no panic").push(Instant::now());
            for (taken, message) in batch.iter().enumerate() {
                match self.script.pop_front() {
                    None | Some(Ok(())) => {
                        self.took.lock().expect("no panic").push(number(message))
                    }
                    Some(Err(error)) => return (taken, Err(error)),
                }
            }
            (batch.len(), Ok(()))
        }
    }

    type Seen<T> = Arc<Mutex<Vec<T>>>;

    fn scripted(script: Vec<Result<(), Undelivered>>) -> (Scripted, Seen<u64>, Seen<Instant>) {
        let (took, times) = (Seen::default(), Seen::default());
        let sink = Scripted {
            script: script.into(),
            took: took.clone(),
            times: times.clone(),
        };
        (sink, took, times)
    }

    fn failed() -> Result<(), Undelivered> {
        Err(Undelivered::Failed(String::new()))
    }

    #[tokio::test(start_paused = true)]
    async fn order_is_kept_over_failures_and_a_refused_event_holds_nobody_up() {
        let queue = Queue::default();
        (1..=6).for_each(|number| queue.push(message(number)));
        queue.close();
        let refused = Err(Undelivered::Refused(String::new()));
        let (sink, took, _) = scripted(vec![
            Ok(()),
            failed(),
            failed(),
            Ok(()),
            refused,
            Ok(()),
            failed(),
        ]);
        queue.follow("test", sink).await;
        assert_eq!(*took.lock().expect("no panic"), [1, 2, 4, 5, 6]);
        assert_eq!(
            (queue.delivered(), queue.retries(), queue.waiting()),
            (5, 3, 0)
        );
        assert_eq!(queue.dropped(Dropped::Refused), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_to_half_a_minute_and_begin_anew_after_a_delivery() {
        let queue = Arc::new(Queue::default());
        queue.push(message(1));
        let mut script: Vec<_> = (0..9).map(|_| failed()).collect();
        script.extend([Ok(()), failed()]);
        let (sink, _, times) = scripted(script);
        let following = tokio::spawn({
            let queue = queue.clone();
            async move { queue.follow("test", sink).await }
        });
        tokio::time::sleep(Duration::from_secs(600)).await;
        queue.push(message(2));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let times = times.lock().expect("no panic").clone();
        let pauses: Vec<u64> = times
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).as_millis() as u64)
            .collect();
        assert_eq!(
            pauses[..9],
            [
                500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000
            ]
        );
        assert_eq!(pauses[10], 500);
        following.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_events_go_when_there_are_too_many_or_an_hour_has_passed() {
        let queue = Queue::default();
        (0..MAX_WAITING as u64 + 3).for_each(|number| queue.push(message(number)));
        assert_eq!(queue.waiting(), MAX_WAITING);
        assert_eq!(queue.dropped(Dropped::Full), 3);
        tokio::time::advance(MAX_AGE).await;
        queue.push(message(20_000));
        queue.close();
        let (sink, took, _) = scripted(Vec::new());
        queue.follow("test", sink).await;
        assert_eq!(*took.lock().expect("no panic"), [20_000]);
        assert_eq!(queue.dropped(Dropped::Old), MAX_WAITING as u64 - 1);
        assert_eq!(queue.dropped(Dropped::Full), 4);
    }

    /// Takes one once it is told to, and all of them after that.
    struct Slow {
        go: Arc<Notify>,
        took: Arc<Mutex<Vec<u64>>>,
    }

    impl Sink for Slow {
        const BATCH: usize = 4;

        async fn deliver(&mut self, batch: &[Arc<Message>]) -> (usize, Result<(), Undelivered>) {
            self.go.notified().await;
            self.go.notify_one();
            let mut took = self.took.lock().expect("no panic");
            if took.is_empty() {
                took.push(number(&batch[0]));
                return (1, failed());
            }
            took.extend(batch.iter().map(|message| number(message)));
            (batch.len(), Ok(()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_under_way_is_not_dropped_so_that_none_is_counted_twice() {
        let queue = Arc::new(Queue::default());
        (0..4).for_each(|number| queue.push(message(number)));
        let (go, took) = (Arc::new(Notify::new()), Seen::default());
        let sink = Slow {
            go: go.clone(),
            took: took.clone(),
        };
        let following = tokio::spawn({
            let queue = queue.clone();
            async move { queue.follow("test", sink).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        let all = MAX_WAITING as u64 + 3;
        (4..all).for_each(|number| queue.push(message(number)));
        assert_eq!(queue.waiting(), MAX_WAITING);
        queue.close();
        go.notify_one();
        following.await.expect("no panic");
        let expected: Vec<u64> = (0..4).chain(7..all).collect();
        assert_eq!(*took.lock().expect("no panic"), expected);
        let (delivered, dropped) = (queue.delivered(), queue.dropped(Dropped::Full));
        assert_eq!((delivered, dropped), (all - 3, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_cuts_a_long_pause_short() {
        let queue = Arc::new(Queue::default());
        queue.push(message(1));
        let (sink, took, _) = scripted((0..9).map(|_| failed()).collect());
        let following = tokio::spawn({
            let queue = queue.clone();
            async move { queue.follow("test", sink).await }
        });
        // In the first pause of 30 s.
        tokio::time::sleep(Duration::from_secs(40)).await;
        let closed = Instant::now();
        queue.close();
        following.await.expect("no panic");
        assert_eq!(*took.lock().expect("no panic"), [1]);
        assert!(
            closed.elapsed() < Duration::from_secs(3),
            "{:?}",
            closed.elapsed()
        );
    }
}
