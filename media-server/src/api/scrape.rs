//! The text of `/metrics` on its way to who asked for it.
//!
//! It is large with thousands of sessions, and who asks may take its time, so places bound how many such texts
//! there are, and the time each may take. Called by `admin.rs`.

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Texts at a time: Prometheus, a second one, and a person.
pub const PLACES: usize = 3;
/// Time for all of it. Prometheus waits no longer, unless it is told to.
const WITHIN: Duration = Duration::from_secs(10);
/// What is handed on at once: a copy, or the last part of a text would hold all of it.
const PART: usize = 64 * 1024;

/// A body that holds its place until it was read, its time is over, or nobody wants it.
pub struct Scrape {
    held: Arc<Mutex<Option<Held>>>,
    left: usize,
    deadline: AbortHandle,
}

struct Held {
    text: String,
    _place: OwnedSemaphorePermit,
}

impl Scrape {
    /// Called on the runtime, whose time counts from now on.
    pub fn new(text: String, place: OwnedSemaphorePermit) -> Scrape {
        let left = text.len();
        let held = Arc::new(Mutex::new(Some(Held {
            text,
            _place: place,
        })));
        let late = held.clone();
        // A body is not asked while its client takes nothing, so it can't see for itself.
        let until = Instant::now() + WITHIN;
        let deadline = tokio::spawn(async move {
            tokio::time::sleep_until(until).await;
            lock(&late).take();
        });
        Scrape {
            held,
            left,
            deadline: deadline.abort_handle(),
        }
    }
}

impl Body for Scrape {
    type Data = Bytes;
    type Error = Late;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Late>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let part = {
            let mut held = lock(&self.held);
            let Some(Held { text, .. }) = &*held else {
                return Poll::Ready(Some(Err(Late)));
            };
            let rest = &text.as_bytes()[text.len() - self.left..];
            let part = Bytes::copy_from_slice(&rest[..rest.len().min(PART)]);
            if part.len() == rest.len() {
                held.take();
            }
            part
        };
        self.left -= part.len();
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}

impl Drop for Scrape {
    fn drop(&mut self) {
        self.deadline.abort();
        lock(&self.held).take();
    }
}

/// The client did not take it in time.
#[derive(Debug, thiserror::Error)]
#[error("the text was not read in time")]
pub struct Late;

fn lock(held: &Mutex<Option<Held>>) -> MutexGuard<'_, Option<Held>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
