//! How long the steps of a session's set-up took, and the clock that tells. `publisher` and `viewer` use it.

use std::time::{Duration, Instant};

use crate::peer::Peer;

/// How long the steps of a set-up took, each from the start.
#[derive(Debug, Clone, Copy, Default)]
pub struct SetupTimes {
    /// The offer was ready and the POST began.
    pub offered: Duration,
    /// The answer came.
    pub answered: Duration,
    /// ICE and DTLS were done: when the last datagram of them arrived, on the clock of
    /// [`crate::ReceivedPacket::at`].
    pub connected: Duration,
}

/// Times the steps of a set-up.
pub(crate) struct SetupClock {
    start: Instant,
    pub times: SetupTimes,
}

impl SetupClock {
    pub fn start() -> Self {
        Self {
            start: Instant::now(),
            times: SetupTimes::default(),
        }
    }

    /// A clock that started that long ago.
    pub fn started(ago: Duration) -> Self {
        let now = Instant::now();
        Self {
            start: now.checked_sub(ago).unwrap_or(now),
            times: SetupTimes::default(),
        }
    }

    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    pub fn since_start(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.start)
    }

    /// Notes that the set-up is done.
    pub fn connected(&mut self, peer: &Peer) {
        let at = peer.connected_at();
        self.times.connected = at.map_or_else(|| self.elapsed(), |at| self.since_start(at));
    }
}
