//! Places for connections, and who gives up its own when all are taken.
//!
//! A connection can be asked to go while nothing is done for it: one that never sent a request before one
//! that rests between two, and that before one whose client holds up a request of its own, because the body
//! does not come or the answer is not taken; of each kind the one that has done so for longest. So whoever
//! sends a request at once gets in, however many others only hold their connections open, and from whatever
//! address. One that the server works for is never asked. Knows no socket; the listener closes.

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
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
    /// By kind, and in the order in which they began to wait.
    connections: BTreeMap<(Idle, u64), Arc<Notify>>,
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

/// Why nothing is done for a connection. The first go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Idle {
    NoRequest,
    AtRest,
    HeldUp,
}

/// The place of one connection; free again when dropped.
pub(super) struct Place {
    places: Arc<Places>,
    goes: Arc<Notify>,
    state: Mutex<State>,
    _permit: OwnedSemaphorePermit,
}

#[derive(Default)]
struct State {
    requested: bool,
    /// From the head of a request to the end of its answer.
    works: bool,
    body_awaited: bool,
    write_stalled: bool,
    /// It is a WebSocket, which has its own bounds: nobody would hear that it should go.
    upgraded: bool,
    /// As it is listed, unless it was asked already.
    listed: Option<(Idle, u64)>,
}

impl State {
    fn idle(&self) -> Option<Idle> {
        match self {
            State { upgraded: true, .. } => None,
            State {
                requested: false, ..
            } => Some(Idle::NoRequest),
            State { works: false, .. } => Some(Idle::AtRest),
            _ => (self.body_awaited || self.write_stalled).then_some(Idle::HeldUp),
        }
    }
}

impl Place {
    fn new(places: Arc<Places>, permit: OwnedSemaphorePermit) -> Arc<Place> {
        let place = Place {
            places,
            goes: Arc::default(),
            state: Mutex::default(),
            _permit: permit,
        };
        place.change(|_| ());
        Arc::new(place)
    }

    /// Returns when the connection should make room.
    pub(super) async fn crowded_out(&self) {
        self.goes.notified().await;
    }

    #[cfg(test)]
    pub(super) fn ask(&self) {
        self.goes.notify_one();
    }

    /// Whether a request ever came.
    pub(super) fn has_requested(&self) -> bool {
        self.state().requested
    }

    /// Whether nobody would wait for the end of what it does.
    pub(super) fn may_break_off(&self) -> bool {
        let state = self.state();
        !state.requested || state.body_awaited || state.write_stalled
    }

    /// The head of a request came.
    pub(super) fn begin<B>(self: &Arc<Self>, request: hyper::Request<B>) -> Request
    where
        B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<axum::BoxError>,
    {
        let body_awaited = !request.body().is_end_stream();
        self.change(|state| {
            state.requested = true;
            state.works = true;
            state.body_awaited = body_awaited;
        });
        request.map(|body| {
            if !body_awaited {
                return Body::new(body);
            }
            let received = Ends(self.clone(), |state| state.body_awaited = false);
            Body::new(Watched {
                body,
                ends: Some(received),
            })
        })
    }

    /// The response to the request that began; the connection rests once all of it is sent.
    pub(super) fn answer(self: &Arc<Self>, response: Response) -> Response {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            self.change(|state| state.upgraded = true);
            return response;
        }
        let sent = Ends(self.clone(), |state| state.works = false);
        response.map(|body| {
            Body::new(Watched {
                body,
                ends: Some(sent),
            })
        })
    }

    /// The client takes nothing of what is written, or takes it again.
    pub(super) fn write_stalls(&self, stalled: bool) {
        self.change(|state| state.write_stalled = stalled);
    }

    /// Lists the connection as what it is then.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        let before = state.idle();
        change(&mut state);
        let idle = state.idle();
        if before == idle && (state.listed.is_some() || idle.is_none()) {
            return;
        }
        let mut waiting = self.places.lock();
        if let Some(listed) = state.listed.take() {
            waiting.connections.remove(&listed);
        }
        if let Some(idle) = idle {
            let key = (idle, waiting.next);
            waiting.next += 1;
            waiting.connections.insert(key, self.goes.clone());
            state.listed = Some(key);
            drop(waiting);
            self.places.more.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(listed) = self.state().listed.take() {
            self.places.lock().connections.remove(&listed);
        }
    }
}

/// Changes a connection's state once, when dropped.
struct Ends(Arc<Place>, fn(&mut State));

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.change(self.1);
    }
}

/// A body that tells of its end.
struct Watched<B> {
    body: B,
    ends: Option<Ends>,
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for Watched<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() {
            self.ends = None;
        }
        Poll::Ready(frame)
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

    fn request(body: Body) -> hyper::Request<Body> {
        hyper::Request::new(body)
    }

    /// Who is asked for a place, one after the other, until nobody is.
    async fn asked(places: &Arc<Places>, all: &[Arc<Place>]) -> Vec<usize> {
        let mut asked = Vec::new();
        loop {
            newcomer(places).await;
            let before = asked.len();
            for (at, place) in all.iter().enumerate() {
                if is_asked_to_go(place).await {
                    asked.push(at);
                }
            }
            if asked.len() == before {
                return asked;
            }
        }
    }

    #[tokio::test]
    async fn those_without_a_request_go_first_then_those_at_rest_then_those_that_hold_theirs_up() {
        let places = Places::new(7);
        let all: Vec<_> = (0..7).map(|_| places.try_take().expect("free")).collect();
        assert!(places.try_take().is_none());
        // The first works, the second takes nothing of its answer, the third's body does not come, the
        // fourth rests, the fifth takes its answer again.
        let mut works = Vec::new();
        for place in &all[..5] {
            works.push(place.begin(request(Body::empty())));
        }
        let answer = all[1].answer(Response::new(Body::empty()));
        all[1].write_stalls(true);
        let awaited = all[2].begin(request(Body::from("an offer")));
        drop(all[3].answer(Response::new(Body::empty())));
        all[4].write_stalls(true);
        all[4].write_stalls(false);
        for (at, may) in [false, true, true, false, false, true, true]
            .iter()
            .enumerate()
        {
            assert_eq!(all[at].may_break_off(), *may, "{at}");
        }
        assert_eq!(asked(&places, &all).await, [5, 6, 3, 1, 2]);
        drop((answer, awaited));
    }

    #[tokio::test]
    async fn a_request_whose_body_has_come_is_worked_for() {
        let places = Places::new(1);
        let place = places.try_take().expect("free");
        let request = place.begin(request(Body::from("an offer")));
        assert!(place.may_break_off());
        let body = axum::body::to_bytes(request.into_body(), 100)
            .await
            .expect("a body");
        assert_eq!(body, "an offer");
        assert!(!place.may_break_off());
        assert!(asked(&places, &[place]).await.is_empty());
    }

    #[tokio::test]
    async fn a_websocket_is_not_asked_to_go_however_long_it_is_open() {
        let places = Places::new(2);
        let all = [(); 2].map(|()| places.try_take().expect("free"));
        let mut upgraded = Response::new(Body::empty());
        *upgraded.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        for (place, response) in all.iter().zip([upgraded, Response::new(Body::empty())]) {
            place.begin(request(Body::empty()));
            drop(place.answer(response));
        }
        all[0].write_stalls(true);
        assert_eq!(asked(&places, &all).await, [1], "the other one rests");
    }

    #[tokio::test]
    async fn a_newcomer_gets_the_place_of_one_that_goes_or_begins_to_rest() {
        let places = Places::new(1);
        let first = places.try_take().expect("free");
        first.begin(request(Body::empty()));
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
