//! WebSockets of the process: how many there may be, and their end with it.
//!
//! Holds no socket: `api/media/ws.rs` runs each in a task of its own, and holds a place here meanwhile.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Time to say goodbye to all of them at the end.
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);

/// All WebSockets.
pub struct Sockets {
    free: Arc<Semaphore>,
    max: u32,
    stop: watch::Sender<bool>,
}

/// The place of one socket; free again when dropped.
pub struct SocketPlace {
    stopped: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
}

impl Sockets {
    pub fn new(max: u32) -> Sockets {
        Sockets {
            free: Arc::new(Semaphore::new(max as usize)),
            max,
            stop: watch::Sender::new(false),
        }
    }

    /// A place, if one is free.
    pub fn try_take(&self) -> Option<SocketPlace> {
        let permit = self.free.clone().try_acquire_owned().ok()?;
        Some(SocketPlace {
            stopped: self.stop.subscribe(),
            _permit: permit,
        })
    }

    /// Sockets open now.
    pub fn open(&self) -> usize {
        self.max as usize - self.free.available_permits()
    }

    /// Tells all of them to end, and waits for it a while. There are no more after it.
    pub async fn close(&self) {
        self.stop.send_replace(true);
        let all = tokio::time::timeout(GOODBYE_WITHIN, self.free.acquire_many(self.max)).await;
        self.free.close();
        if all.is_err() {
            tracing::warn!(left = self.open(), "WebSockets were still open at the end");
        }
    }
}

impl SocketPlace {
    /// Returns when the process ends.
    pub async fn stopped(&mut self) {
        // A sender that is gone means the same.
        let _ = self.stopped.wait_for(|stop| *stop).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sockets_have_a_bound_and_end_with_the_process() {
        let sockets = Sockets::new(2);
        let mut first = sockets.try_take().expect("room");
        let second = sockets.try_take();
        assert!(sockets.try_take().is_none(), "and no more");
        assert_eq!(sockets.open(), 2);
        drop(second);
        assert_eq!(sockets.open(), 1);
        let ends = async move {
            first.stopped().await;
        };
        let (closed, ()) = tokio::join!(
            tokio::time::timeout(Duration::from_secs(1), sockets.close()),
            ends
        );
        assert!(closed.is_ok(), "as soon as the last is gone");
        assert!(sockets.try_take().is_none());
    }
}
