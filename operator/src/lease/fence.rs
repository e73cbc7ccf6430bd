//! Lets writes to the API server through only while the Lease is held.
//!
//! A layer around the client that the controller works with. Ending the process when leadership is lost
//! is not enough: one that was stopped for a while (a frozen machine, SIGSTOP) goes on where it was, and
//! its next write may come before its timers. Reads pass always. Made by the contender.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use tower::{BoxError, Service};

/// Cheap to clone; all clones are one fence.
#[derive(Clone)]
pub struct Fence {
    /// Since then writes may pass, for `valid`.
    renewed: Arc<Mutex<Option<Instant>>>,
    valid: Duration,
}

/// Why a write was not sent.
#[derive(Debug, thiserror::Error)]
#[error("not sent: this operator does not hold the Lease now")]
pub struct NotLeading;

impl Fence {
    pub(super) fn new(valid: Duration) -> Self {
        Self {
            renewed: Arc::default(),
            valid,
        }
    }

    pub(super) fn open(&self, renewed: Instant) {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = Some(renewed);
    }

    pub(super) fn shut(&self) {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn is_open(&self) -> bool {
        let renewed = *self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        renewed.is_some_and(|renewed| renewed.elapsed() < self.valid)
    }

    /// The same client, behind the fence.
    pub fn around(&self, client: Client) -> Client {
        let namespace = client.default_namespace().to_owned();
        let fenced = Fenced {
            inner: client,
            fence: self.clone(),
        };
        Client::new(fenced, namespace)
    }
}

#[derive(Clone)]
struct Fenced {
    inner: Client,
    fence: Fence,
}

impl Service<Request<Body>> for Fenced {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // The client waits by itself.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.method() != Method::GET && !self.fence.is_open() {
            return Box::pin(async { Err(NotLeading.into()) });
        }
        let inner = self.inner.clone();
        Box::pin(async move { inner.send(request).await.map_err(Into::into) })
    }
}
