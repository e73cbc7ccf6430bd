//! Whether new sessions are taken: no more of them after SIGTERM, and none while the pod's annotation
//! `mediaservice.io/drain` is `"true"`.
//!
//! Owns the states and reads the annotation, which the kubelet keeps as a file of a downward-API volume:
//! so a pod needs no access to the API. Never closes a session. Asked by the API and the probes; the
//! app says when the signal came and when all is over.

use crate::app::App;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often the file is looked at. The kubelet writes it within a second or two of the annotation.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Whether new sessions are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum DrainState {
    Accepting = 0,
    Draining = 1,
    /// No session is left, and none is taken.
    Drained = 2,
}

impl DrainState {
    pub fn as_str(self) -> &'static str {
        match self {
            DrainState::Accepting => "Accepting",
            DrainState::Draining => "Draining",
            DrainState::Drained => "Drained",
        }
    }
}

/// Who asked for the drain, and since when.
#[derive(Debug, Default)]
pub struct Drain {
    /// Bits of [`ANNOTATION`] and [`SIGNAL`].
    asked: AtomicU8,
    since: Mutex<Option<Instant>>,
}

/// Asked for by the annotation, which may be taken back.
const ANNOTATION: u8 = 1;
/// Asked for by a signal; the process ends.
const SIGNAL: u8 = 2;

impl Drain {
    /// The state while `sessions` are open.
    pub fn state(&self, sessions: u32) -> DrainState {
        match (self.asked.load(Relaxed), sessions) {
            (0, _) => DrainState::Accepting,
            (_, 0) => DrainState::Drained,
            _ => DrainState::Draining,
        }
    }

    /// Whether the process is about to end.
    pub fn is_stopping(&self) -> bool {
        self.asked.load(Relaxed) & SIGNAL != 0
    }

    /// The process ends. Returns since when no session is taken: what was waited before the signal need
    /// not be waited again.
    pub fn stop(&self, now: Instant) -> Instant {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        self.asked.fetch_or(SIGNAL, Relaxed);
        *since.get_or_insert(now)
    }

    /// The annotation is there, or is not. Returns whether that is new.
    fn ask(&self, asked: bool, now: Instant) -> bool {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let before = if asked {
            self.asked.fetch_or(ANNOTATION, Relaxed)
        } else {
            self.asked.fetch_and(!ANNOTATION, Relaxed)
        };
        match before & !ANNOTATION {
            0 if !asked => *since = None,
            _ if asked => {
                since.get_or_insert(now);
            }
            _ => {}
        }
        (before & ANNOTATION != 0) != asked
    }
}

/// Follows the annotation for ever.
pub async fn follow_annotation(app: Arc<App>) {
    let mut every = tokio::time::interval(LOOK_EVERY);
    loop {
        every.tick().await;
        // One small file in memory: the kubelet's volume is a tmpfs.
        let asked = match is_asked(&app.config.drain_file) {
            Ok(asked) => asked,
            Err(error) => {
                tracing::warn!(%error, "the drain annotation is unreadable, the last one stays");
                continue;
            }
        };
        if app.drain.ask(asked, Instant::now()) {
            let (publishers, viewers) = app.registry.totals();
            if asked {
                tracing::info!(
                    publishers,
                    viewers,
                    "draining, as the pod's annotation says"
                );
            } else {
                tracing::info!(publishers, viewers, "the drain was taken back");
            }
        }
    }
}

/// Whether the file says `true`. Outside of a pod there is none; without the annotation it is empty.
fn is_asked(file: &Path) -> std::io::Result<bool> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(text.trim() == "true"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_that_was_taken_back_takes_sessions_again_and_a_signal_is_not_taken_back() {
        let (drain, start) = (Drain::default(), Instant::now());
        assert_eq!(drain.state(3), DrainState::Accepting);
        assert!(drain.ask(true, start));
        assert!(!drain.ask(true, start), "it is not new any more");
        assert_eq!(drain.state(3), DrainState::Draining);
        assert_eq!(drain.state(0), DrainState::Drained);
        assert!(drain.ask(false, start));
        assert_eq!(drain.state(0), DrainState::Accepting);
        drain.stop(start);
        drain.ask(true, start);
        drain.ask(false, start);
        assert_eq!(drain.state(1), DrainState::Draining);
    }

    #[test]
    fn the_time_of_a_drain_counts_from_the_annotation_and_anew_after_it_was_taken_back() {
        let (drain, start) = (Drain::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        drain.ask(true, at(0));
        drain.ask(true, at(1));
        drain.ask(false, at(2));
        drain.ask(true, at(3));
        drain.ask(true, at(4));
        assert_eq!(drain.stop(at(9)), at(3));
        assert_eq!(Drain::default().stop(at(9)), at(9));
    }
}
