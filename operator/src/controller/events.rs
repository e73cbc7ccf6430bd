//! What a person reads below `Events:` in `kubectl describe`.
//!
//! `of_change` is pure: a condition is told when its word changes, and so nothing is told while nothing
//! changes. The same word again within six minutes is counted on the same event by the recorder.

use kube::Resource;
use kube::runtime::events::{Event, EventType};

use super::Context;
use crate::crd::MediaServiceStatus;

/// One event: its type, the reason that the condition has too, and words.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    pub type_: EventType,
    pub reason: String,
    pub note: String,
}

/// An event for each condition whose status or reason is another than before.
pub fn of_change(old: Option<&MediaServiceStatus>, new: &MediaServiceStatus) -> Vec<Told> {
    let mut told = Vec::new();
    for condition in &new.conditions {
        let before = old.and_then(|old| old.conditions.iter().find(|c| c.type_ == condition.type_));
        let same = before.is_some_and(|before| {
            before.status == condition.status && before.reason == condition.reason
        });
        let bad = match condition.type_.as_str() {
            "Degraded" => condition.status == "True",
            // Told by Ready or Degraded already, or not worth a line.
            "Progressing" => continue,
            // What somebody asked for.
            "Paused" => false,
            _ => condition.status != "True",
        };
        // Not yet ready is no event, and neither is well from the start.
        if same || (before.is_none() && (!bad || condition.type_ == "Ready")) {
            continue;
        }
        let type_ = if bad && condition.reason != "Stopped" {
            EventType::Warning
        } else {
            EventType::Normal
        };
        told.push(Told {
            type_,
            reason: condition.reason.clone(),
            note: condition.message.clone(),
        });
    }
    told
}

/// Events help people; failing to write one is no reason to stop.
pub async fn publish(
    context: &Context,
    service: &impl Resource<DynamicType = ()>,
    type_: EventType,
    reason: &str,
    note: String,
) {
    // The API takes 1024 bytes.
    let note: String = note.chars().take(500).collect();
    let event = Event {
        type_,
        reason: reason.into(),
        note: Some(note),
        action: "Reconcile".into(),
        secondary: None,
    };
    if let Err(error) = context
        .recorder
        .publish(&event, &service.object_ref(&()))
        .await
    {
        tracing::warn!(%error, reason, "can't write an event");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn status(conditions: &[(&str, &str, &str)]) -> MediaServiceStatus {
        let conditions: Vec<Value> = conditions
            .iter()
            .map(|(type_, status, reason)| {
                json!({
                    "type": type_, "status": status, "reason": reason, "message": format!("words of {reason}"),
                    "lastTransitionTime": "2024-01-01T00:00:00Z",
                })
            })
            .collect();
        serde_json::from_value(json!({"conditions": conditions})).expect("a status")
    }

    fn told(type_: EventType, reason: &str) -> Told {
        Told {
            type_,
            reason: reason.into(),
            note: format!("words of {reason}"),
        }
    }

    #[test]
    fn a_new_service_tells_only_what_is_wrong_with_it() {
        let starting = status(&[
            ("Ready", "False", "NoPods"),
            ("Progressing", "True", "StartingPods"),
            ("Degraded", "False", "AsExpected"),
            ("AddressesReady", "False", "NodeAddressMissing"),
        ]);
        assert_eq!(
            of_change(None, &starting),
            [told(EventType::Warning, "NodeAddressMissing")]
        );
    }

    #[test]
    fn a_word_that_changes_is_told_once_and_other_words_for_it_are_not() {
        let bad = status(&[
            ("Ready", "False", "NoPods"),
            ("Degraded", "True", "ImagePullFailed"),
        ]);
        let good = status(&[
            ("Ready", "True", "Accepting"),
            ("Degraded", "False", "AsExpected"),
        ]);
        assert_eq!(
            of_change(Some(&bad), &good),
            [
                told(EventType::Normal, "Accepting"),
                told(EventType::Normal, "AsExpected")
            ]
        );
        let mut other_words = bad.clone();
        other_words.conditions[1].message = "the kubelet says it differently".into();
        assert_eq!(of_change(Some(&bad), &other_words), []);
    }

    #[test]
    fn what_somebody_asked_for_is_no_warning() {
        let up = status(&[("Ready", "True", "Accepting")]);
        let stopped = status(&[("Ready", "False", "Stopped")]);
        assert_eq!(
            of_change(Some(&up), &stopped),
            [told(EventType::Normal, "Stopped")]
        );
    }
}
