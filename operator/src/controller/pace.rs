//! How often: the pause after a watch that failed, the next look at what has no watch, and the status
//! writes for other words.
//!
//! Knows nothing of what is watched or written. Called by the controller.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::utils::Backoff;

use crate::crd::{MediaService, MediaServiceStatus};

/// While pods start or go, or something is wrong: events of mounts and refusals have no watch.
const PROGRESS: Duration = Duration::from_secs(5);

/// The same for what has been so for minutes: a hundred services that wait for somebody must not keep
/// the API server busy.
const LONG_PROGRESS: Duration = Duration::from_secs(30);

/// A sixth of the time for which all conditions have been as they are, within the two bounds. `None` if
/// nothing is under way or wrong.
pub fn next_look(status: &MediaServiceStatus, now: Timestamp) -> Option<Duration> {
    if !is_true(status, "Progressing") && !is_true(status, "Degraded") {
        return None;
    }
    let changes = status.conditions.iter().map(|c| c.last_transition_time.0);
    let age = changes.max().map(|last| now.duration_since(last));
    let age = age.and_then(|age| Duration::try_from(age).ok());
    Some((age.unwrap_or_default() / 6).clamp(PROGRESS, LONG_PROGRESS))
}

fn is_true(status: &MediaServiceStatus, type_: &str) -> bool {
    status
        .conditions
        .iter()
        .any(|condition| condition.type_ == type_ && condition.status == "True")
}

/// Messages carry words of the kubelet and of crashed programs, which may be other ones each time.
pub const WORDS: Duration = Duration::from_secs(10);

/// When each status was written last.
#[derive(Default)]
pub struct Reports(Mutex<HashMap<(String, String), Instant>>);

impl Reports {
    /// Whether a status that differs in nothing but words may be written.
    pub fn words_are_due(&self, service: &MediaService, now: Instant) -> bool {
        let reported = self.0.lock().expect("no panic while it is held");
        let last = reported.get(&name_of(service));
        last.is_none_or(|last| now.duration_since(*last) >= WORDS)
    }

    /// It was written now.
    pub fn note(&self, service: &MediaService, now: Instant) {
        let mut reported = self.0.lock().expect("no panic while it is held");
        // Those of deleted objects may not pile up.
        reported.retain(|_, last| now.duration_since(*last) < WORDS);
        reported.insert(name_of(service), now);
    }
}

fn name_of(service: &MediaService) -> (String, String) {
    (service.namespace().unwrap_or_default(), service.name_any())
}

/// After a watch that failed. While it lasts no watch is heard, so it is short; for all of them together
/// there is one new try in this time, which spares an API server in trouble.
#[derive(Default)]
pub struct Pause {
    last: Duration,
}

impl Pause {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(1);
}

impl Iterator for Pause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.last = (self.last * 2).clamp(Self::FIRST, Self::LONGEST);
        Some(self.last)
    }
}

impl Backoff for Pause {
    fn reset(&mut self) {
        self.last = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_has_been_wrong_for_minutes_is_looked_at_less_often_than_what_just_changed() {
        let start = Timestamp::UNIX_EPOCH;
        let condition = |kind: &str, seconds: i64| {
            serde_json::from_value(json!({
                "type": kind, "status": "True", "reason": "R", "message": "",
                "lastTransitionTime": start + k8s_openapi::jiff::SignedDuration::from_secs(seconds),
            }))
            .unwrap()
        };
        let status = MediaServiceStatus {
            conditions: vec![condition("Degraded", 100), condition("Progressing", 0)],
            ..MediaServiceStatus::default()
        };
        let after = |seconds| {
            let now = start + k8s_openapi::jiff::SignedDuration::from_secs(seconds);
            next_look(&status, now).map(|wait| wait.as_secs())
        };
        assert_eq!([after(99), after(101), after(130)], [Some(5); 3]);
        assert_eq!([after(220), after(10_000)], [Some(20), Some(30)]);
        assert_eq!(next_look(&MediaServiceStatus::default(), start), None);
    }

    #[test]
    fn other_words_are_due_ten_seconds_after_the_last_status_of_that_service() {
        let service = |name: &str| -> MediaService {
            serde_json::from_value(
                json!({"metadata": {"namespace": "media", "name": name}, "spec": {}}),
            )
            .unwrap()
        };
        let (cam, other) = (service("cam"), service("other"));
        let (reports, start) = (Reports::default(), Instant::now());
        let due = |service: &MediaService, ms: u64| {
            reports.words_are_due(service, start + Duration::from_millis(ms))
        };
        assert!(due(&cam, 0), "nothing was written yet");
        reports.note(&cam, start);
        assert_eq!(
            [due(&cam, 0), due(&cam, 9_999), due(&cam, 10_000)],
            [false, false, true]
        );
        assert!(due(&other, 0));
        reports.note(&other, start + Duration::from_secs(9));
        assert_eq!([due(&cam, 9_999), due(&other, 18_999)], [false, false]);
        reports.note(&other, start + Duration::from_secs(19));
        assert_eq!(
            reports.0.lock().unwrap().len(),
            1,
            "what is over is forgotten"
        );
    }
}
