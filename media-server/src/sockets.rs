//! WebSockets of the process: how many there may be, and their end with it.
//!
//! Holds no socket: `api/media/ws.rs` runs each in a task of its own, and holds a place here meanwhile.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Those that one subject may have: a page needs one.
const MAX_OF_SUBJECT: u32 = 16;
/// Time to say goodbye to all of them at the end.
pub const GOODBYE_WITHIN: Duration = Duration::from_secs(2);

/// All WebSockets.
pub struct Sockets {
    free: Arc<Semaphore>,
    max: u32,
    subjects: Subjects,
    stop: watch::Sender<bool>,
}

/// How many each subject has, where tokens are asked for.
type Subjects = Arc<Mutex<HashMap<String, u32>>>;

/// The place of one socket; free again when dropped.
pub struct SocketPlace {
    stopped: watch::Receiver<bool>,
    _permit: OwnedSemaphorePermit,
    _of_subject: Option<OfSubject>,
}

/// One among those of its subject; no more when dropped.
struct OfSubject {
    subjects: Subjects,
    subject: String,
}

impl Sockets {
    pub fn new(max: u32) -> Sockets {
        Sockets {
            free: Arc::new(Semaphore::new(max as usize)),
            max,
            subjects: Subjects::default(),
            stop: watch::Sender::new(false),
        }
    }

    /// A place, if one is free and the subject, of whatever tenant, has not too many.
    pub fn try_take(&self, subject: Option<&str>) -> Option<SocketPlace> {
        let permit = self.free.clone().try_acquire_owned().ok()?;
        let of_subject = match subject {
            Some(subject) => Some(OfSubject::take(&self.subjects, subject)?),
            None => None,
        };
        Some(SocketPlace {
            stopped: self.stop.subscribe(),
            _permit: permit,
            _of_subject: of_subject,
        })
    }

    /// Sockets open now.
    pub fn open(&self) -> usize {
        self.max as usize - self.free.available_permits()
    }

    /// Those of subjects whose names begin so, as the subjects of a tenant do.
    pub fn open_of(&self, subjects: &str) -> u32 {
        let counts = lock(&self.subjects);
        let of_them = counts.iter().filter(|(name, _)| name.starts_with(subjects));
        of_them.map(|(_, count)| count).sum()
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

impl OfSubject {
    fn take(subjects: &Subjects, subject: &str) -> Option<OfSubject> {
        let mut counts = lock(subjects);
        let count = counts.entry(subject.to_owned()).or_default();
        if *count == MAX_OF_SUBJECT {
            return None;
        }
        *count += 1;
        Some(OfSubject {
            subjects: subjects.clone(),
            subject: subject.to_owned(),
        })
    }
}

impl Drop for OfSubject {
    fn drop(&mut self) {
        let mut counts = lock(&self.subjects);
        if let Some(count) = counts.get_mut(&self.subject) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.subject);
            }
        }
    }
}

/// Poisoned, the counts are still right: no call leaves them half changed.
fn lock(subjects: &Subjects) -> MutexGuard<'_, HashMap<String, u32>> {
    subjects.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn a_subject_has_16_and_no_more_while_others_find_room() {
        let sockets = Sockets::new(100);
        let mut of_ann: Vec<_> = (0..16).map(|_| sockets.try_take(Some("ann"))).collect();
        assert!(of_ann.iter().all(Option::is_some));
        assert!(sockets.try_take(Some("ann")).is_none());
        assert_eq!(sockets.open(), 16, "a place that was not given is free");
        assert_eq!((sockets.open_of("an"), sockets.open_of("bob")), (16, 0));
        assert!(sockets.try_take(Some("bob")).is_some());
        of_ann.pop();
        assert!(sockets.try_take(Some("ann")).is_some());
        drop(of_ann);
        assert!(
            lock(&sockets.subjects).is_empty(),
            "nothing is left of them"
        );
    }

    #[tokio::test]
    async fn sockets_have_a_bound_and_end_with_the_process() {
        let sockets = Sockets::new(2);
        let mut first = sockets.try_take(None).expect("room");
        let second = sockets.try_take(None);
        assert!(sockets.try_take(None).is_none(), "and no more");
        assert_eq!(sockets.open(), 2);
        drop(second);
        assert_eq!(sockets.open(), 1);
        let ends = async move {
            let told = tokio::time::timeout(Duration::from_secs(1), first.stopped());
            assert!(told.await.is_ok(), "nobody told it");
        };
        let (closed, ()) = tokio::join!(
            tokio::time::timeout(Duration::from_secs(1), sockets.close()),
            ends
        );
        assert!(closed.is_ok(), "as soon as the last is gone");
        assert!(sockets.try_take(None).is_none());
    }
}
