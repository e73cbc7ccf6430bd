//! Places for connections, and who gives up its own when all are taken.
//!
//! A connection that waits for a request can be asked to go: one that never sent any before one that rests
//! between two, and of each kind the one that has waited longest. So whoever sends a request at once gets
//! in, however many others only hold their connections open, and from whatever address. One with a request
//! under way is never asked. Knows no socket; the listener closes.

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// One that was asked to go, and had just begun with a request, ends with that. Meanwhile another is asked.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// See the module.
pub(super) struct Places {
    free: Arc<Semaphore>,
    max: u32,
    waiting: Mutex<Waiting>,
    /// Another one waits.
    more: Notify,
}

#[derive(Default)]
struct Waiting {
    /// Those without any request first, then in the order in which they began to wait.
    connections: BTreeMap<(bool, u64), Arc<Notify>>,
    next: u64,
}

impl Places {
    pub(super) fn new(max: u32) -> Arc<Places> {
        Arc::new(Places {
            free: Arc::new(Semaphore::new(max as usize)),
            max,
            waiting: Mutex::default(),
            more: Notify::new(),
        })
    }

    /// A place, if one is free.
    pub(super) fn try_take(self: &Arc<Self>) -> Option<Arc<Place>> {
        let permit = self.free.clone().try_acquire_owned().ok()?;
        Some(Place::new(self.clone(), permit))
    }

    /// A place, as soon as one is free. Asks others to go.
    pub(super) async fn take(self: &Arc<Self>) -> Arc<Place> {
        loop {
            let asked = self.ask_one();
            tokio::select! {
                biased;
                permit = self.free.clone().acquire_owned() => {
                    let permit = permit.expect("nobody closes it");
                    return Place::new(self.clone(), permit);
                }
                () = self.more.notified(), if !asked => {}
                () = tokio::time::sleep(ASK_AGAIN), if asked => {}
            }
        }
    }

    /// Returns when all places are free.
    pub(super) async fn all_free(&self) {
        let _ = self.free.acquire_many(self.max).await;
    }

    fn ask_one(&self) -> bool {
        let first = self.lock().connections.pop_first();
        first.inspect(|(_, goes)| goes.notify_one()).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one connection; free again when dropped.
pub(super) struct Place {
    places: Arc<Places>,
    goes: Arc<Notify>,
    /// As it is listed while it waits.
    key: Mutex<Option<(bool, u64)>>,
    requested: AtomicBool,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    fn new(places: Arc<Places>, permit: OwnedSemaphorePermit) -> Arc<Place> {
        let place = Place {
            places,
            goes: Arc::default(),
            key: Mutex::default(),
            requested: AtomicBool::new(false),
            _permit: permit,
        };
        place.rest();
        Arc::new(place)
    }

    /// Returns when the connection should make room.
    pub(super) async fn crowded_out(&self) {
        self.goes.notified().await;
    }

    /// Whether a request ever came.
    pub(super) fn has_requested(&self) -> bool {
        self.requested.load(Relaxed)
    }

    /// The head of a request came.
    pub(super) fn begin(&self) {
        self.requested.store(true, Relaxed);
        self.forget();
    }

    /// It waits for a request now.
    fn rest(&self) {
        let mut waiting = self.places.lock();
        let key = (self.has_requested(), waiting.next);
        waiting.next += 1;
        waiting.connections.insert(key, self.goes.clone());
        *self.key.lock().unwrap_or_else(PoisonError::into_inner) = Some(key);
        drop(waiting);
        self.places.more.notify_one();
    }

    fn forget(&self) {
        let key = self
            .key
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(key) = key {
            self.places.lock().connections.remove(&key);
        }
    }

    /// The response to the request that began; the connection rests once all of it is sent.
    pub(super) fn answer(self: &Arc<Self>, response: Response) -> Response {
        let rests = Rests(self.clone());
        response.map(|body| {
            Body::new(Answer {
                body,
                _rests: rests,
            })
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.forget();
    }
}

struct Rests(Arc<Place>);

impl Drop for Rests {
    fn drop(&mut self) {
        self.0.rest();
    }
}

/// A body that tells of its end.
struct Answer {
    body: Body,
    _rests: Rests,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{Future as _, poll_fn};
    use std::pin::pin;

    async fn is_asked_to_go(place: &Place) -> bool {
        let mut goes = pin!(place.crowded_out());
        poll_fn(|cx| Poll::Ready(goes.as_mut().poll(cx).is_ready())).await
    }

    /// Lets a newcomer wait until it has asked somebody, if it can.
    async fn newcomer(places: &Arc<Places>) {
        let mut take = pin!(places.take());
        let came = poll_fn(|cx| Poll::Ready(take.as_mut().poll(cx).is_ready())).await;
        assert!(!came, "there was a free place");
    }

    #[tokio::test]
    async fn the_oldest_without_a_request_goes_first_then_the_longest_at_rest_and_none_that_works()
    {
        let places = Places::new(4);
        let all: Vec<_> = (0..4).map(|_| places.try_take().expect("free")).collect();
        assert!(places.try_take().is_none());
        // The first works, the second rests.
        all[0].begin();
        all[1].begin();
        drop(all[1].answer(Response::new(Body::empty())));
        for expected in [2, 3, 1] {
            newcomer(&places).await;
            for (at, place) in all.iter().enumerate() {
                assert_eq!(is_asked_to_go(place).await, at == expected, "{at}");
            }
        }
        newcomer(&places).await;
        assert!(!is_asked_to_go(&all[0]).await, "it works");
    }

    #[tokio::test]
    async fn a_newcomer_gets_the_place_of_one_that_goes_or_begins_to_rest() {
        let places = Places::new(1);
        let first = places.try_take().expect("free");
        first.begin();
        let answer = first.answer(Response::new(Body::empty()));
        let goes = tokio::spawn(async move {
            first.crowded_out().await;
        });
        let waits = tokio::spawn({
            let places = places.clone();
            async move { places.take().await }
        });
        drop(answer);
        goes.await.expect("it is asked once it rests");
        let second = waits.await.expect("it has the place");
        assert!(places.try_take().is_none());
        drop(second);
        places.all_free().await;
    }
}
