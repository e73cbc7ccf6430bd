//! Notices that the server is gone, long before ICE would: nothing comes from it any more, and its session
//! resource is gone or out of reach.
//!
//! A server reports each second what it received (RFC 3550 §6.2), answers checks of ICE, and acknowledges.
//! Called by `device` beside a session.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::error::with_causes;
use crate::{Publisher, Traffic};

/// Without a datagram for so long, the session resource is asked for. Longer than the time between two
/// reports, so that a server that is well is seldom asked, and so short that the device is back before its
/// viewers ask again, which players do after 2 s without media.
const SILENCE: Duration = Duration::from_millis(1_200);
const LOOK: Duration = Duration::from_millis(100);
/// A server that is alive answers within this, or it is taken for dead: its media is missing too.
const ANSWER: Duration = Duration::from_secs(2);
/// Between two questions to a server whose media path alone is down: ICE decides about that.
const AGAIN: Duration = Duration::from_secs(2);

/// Waits until the server is gone; says what shows it.
pub(super) async fn lost(publisher: &Publisher, traffic: &Traffic) -> String {
    let mut heard = Heard::new(Instant::now());
    loop {
        sleep(LOOK).await;
        if !heard.is_silent(Instant::now(), traffic.counts().received.datagrams) {
            continue;
        }
        match timeout(ANSWER, publisher.exists()).await {
            Ok(Ok(true)) => sleep(AGAIN).await,
            Ok(Ok(false)) => return "the server no longer has the session".to_owned(),
            Ok(Err(error)) => return format!("the server is gone ({})", with_causes(&error)),
            Err(_) => return "the server neither receives nor answers".to_owned(),
        }
    }
}

/// When something last came.
#[derive(Debug)]
struct Heard {
    datagrams: u64,
    at: Instant,
}

impl Heard {
    fn new(at: Instant) -> Self {
        Self { datagrams: 0, at }
    }

    fn is_silent(&mut self, now: Instant, datagrams: u64) -> bool {
        if datagrams != self.datagrams {
            *self = Self { datagrams, at: now };
        }
        now.duration_since(self.at) >= SILENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_silent_once_nothing_came_for_longer_than_between_two_reports() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut heard = Heard::new(start);
        assert!(!heard.is_silent(at(1_000), 5));
        assert!(!heard.is_silent(at(2_100), 5));
        assert!(heard.is_silent(at(2_200), 5));
        assert!(!heard.is_silent(at(2_300), 6), "it is back");
        assert!(!heard.is_silent(at(3_400), 6));
    }
}
