//! How a pod is told to take no new session, and for how long its sessions are waited for.
//!
//! The decisions are pure; each write names the pod's uid, so a successor of the same name is never
//! hit. Called by `replace` and `scale_down`, which say why a pod has to go.

use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::events::EventType;
use serde_json::{Value, json};

use super::apply::{self, is_status};
use super::build::{GOODBYE_SECONDS, POD_VOLUME, meta};
use super::fetch::{Fetched, is_ready};
use super::load::Load;
use super::{Context, publish};
use crate::crd::RolloutPolicy;

/// What can fail on a pod that has to go.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    #[error("failed to write the drain annotation of pod {name}")]
    Annotate { name: String, source: kube::Error },
    #[error("failed to delete pod {name}")]
    Delete { name: String, source: kube::Error },
}

impl DrainError {
    /// Condition reason, event reason and `reason` label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Annotate { .. } => "PodDrainFailed",
            Self::Delete { .. } => "PodDeleteFailed",
        }
    }
}

/// Longest wait for a pod that another follows. There is no other pod to move to, so all that waiting brings
/// is that short sessions end by themselves, and all that time nobody new is served.
const TO_RESTART: Duration = Duration::from_secs(30);

/// Longest wait before a pod is replaced.
pub fn before_restart(policy: &RolloutPolicy) -> Duration {
    before_stop(policy).min(TO_RESTART)
}

/// Longest wait before a pod goes for good.
pub fn before_stop(policy: &RolloutPolicy) -> Duration {
    let seconds = u64::try_from(policy.drain_timeout_seconds);
    Duration::from_secs(seconds.unwrap_or_default())
}

/// What comes next for a pod that has to go.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Tell it to take no new session.
    Drain,
    Wait {
        look_again: Duration,
        hearing: Hearing,
        /// The longest wait of this pod.
        within: Duration,
    },
    /// Nobody is left, or the time is over.
    Go,
}

/// What a pod makes of being told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hearing {
    /// It takes no new session, or will hear of it within a minute.
    Follows,
    /// It goes on as before: its template has no file of the annotation, or its server does not read it.
    Deaf,
    /// It does not say what it does.
    Silent,
}

/// A pod that drains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draining {
    pub pod: String,
    pub hearing: Hearing,
    /// The longest wait, from when it was told.
    pub within: Duration,
}

/// The kubelet writes an annotation into the pod's file at once, or at its next sync, which is each minute.
const HEARD_WITHIN: Duration = Duration::from_secs(60);

/// While sessions may end within a second or two.
pub const SOON: Duration = Duration::from_secs(1);
/// While a pod drains for longer than [`TO_RESTART`]: each look reads all that belongs to the service.
const LATER: Duration = Duration::from_secs(5);

/// `within` is the longest wait.
pub fn step(pod: &Pod, load: Option<&Load>, now: Timestamp, within: Duration) -> Step {
    let Some(since) = pod.annotations().get(meta::DRAIN_SINCE) else {
        // One that is not ready and has no session, or does not answer, never started, has crashed or
        // hangs: nobody would notice its drain.
        let used = is_ready(pod) || load.is_some_and(|load| load.sessions() > 0);
        return if used { Step::Drain } else { Step::Go };
    };
    // What somebody else wrote there is no time, and then it has been long enough.
    let waited = since.parse().map_or(within, |since: Timestamp| {
        Duration::try_from(now.duration_since(since)).unwrap_or_default()
    });
    // Where new sessions come all the time there is no end to wait for.
    let (hearing, within) = match load {
        None if !can_hear(pod) => (Hearing::Silent, within.min(TO_RESTART)),
        None => (Hearing::Silent, within),
        Some(load) if !load.is_accepting() => (Hearing::Follows, within),
        Some(_) if !can_hear(pod) => (Hearing::Deaf, within.min(TO_RESTART)),
        Some(_) if waited >= HEARD_WITHIN => (Hearing::Deaf, within.min(HEARD_WITHIN + TO_RESTART)),
        Some(_) => (Hearing::Follows, within),
    };
    let nobody = |load: &Load| match hearing {
        Hearing::Deaf => load.sessions() == 0,
        Hearing::Follows | Hearing::Silent => load.is_drained(),
    };
    if waited >= within || load.is_some_and(nobody) {
        return Step::Go;
    }
    let look_again = if waited < TO_RESTART { SOON } else { LATER };
    Step::Wait {
        look_again: look_again.min(within - waited),
        hearing,
        within,
    }
}

/// Whether the annotation is a file in the pod, which it is not in pods of the first releases.
fn can_hear(pod: &Pod) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| &spec.volumes).flatten();
    volumes.into_iter().any(|volume| volume.name == POD_VOLUME)
}

/// Tells a pod to drain, and people that it does; `because` completes the sentence.
pub async fn begin(
    context: &Context,
    fetched: &Fetched,
    pod: &Pod,
    because: &str,
) -> Result<(), DrainError> {
    let since = Timestamp::now().to_string();
    if annotate(context, pod, json!("true"), json!(since)).await? {
        let note = format!("pod {} drains, because {because}", pod.name_any());
        tell(context, fetched, "DrainingPod", note).await;
    }
    Ok(())
}

/// Takes that back.
pub async fn end(context: &Context, pod: &Pod) -> Result<(), DrainError> {
    tracing::info!(pod = pod.name_any(), "taking the drain back");
    annotate(context, pod, json!(null), json!(null)).await?;
    Ok(())
}

pub async fn tell(context: &Context, fetched: &Fetched, reason: &str, note: String) {
    publish(context, &*fetched.service, EventType::Normal, reason, note).await;
}

/// Writes, or with nulls removes, the two annotations of a drain. Returns whether the pod was there.
async fn annotate(
    context: &Context,
    pod: &Pod,
    drain: Value,
    since: Value,
) -> Result<bool, DrainError> {
    let name = pod.name_any();
    let client = context.reader.client.clone();
    let api: Api<Pod> = Api::namespaced(client, &pod.namespace().unwrap_or_default());
    let patch = json!({"metadata": {
        "uid": pod.uid(),
        "annotations": {meta::DRAIN: drain, meta::DRAIN_SINCE: since},
    }});
    let params = PatchParams {
        field_manager: Some(apply::FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    match api
        .patch_metadata(&name, &params, &Patch::Merge(&patch))
        .await
    {
        Ok(_) => {
            context.metrics.wrote("Pod");
            Ok(true)
        }
        // Gone, or of another uid, which can't be changed.
        Err(error) if is_status(&error, 404) || is_status(&error, 422) => Ok(false),
        Err(source) => Err(DrainError::Annotate { name, source }),
    }
}

/// It was waited for as long as it may, so what is left is the goodbye: a process that hangs must not have
/// all of the pod's grace period. One that goes already has its period shortened. Returns whether the pod was there.
pub async fn delete(context: &Context, pod: &Pod) -> Result<bool, DrainError> {
    let name = pod.name_any();
    let client = context.reader.client.clone();
    let api: Api<Pod> = Api::namespaced(client, &pod.namespace().unwrap_or_default());
    let params = DeleteParams {
        grace_period_seconds: Some(GOODBYE_SECONDS),
        preconditions: Some(Preconditions {
            uid: pod.uid(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match api.delete(&name, &params).await {
        Ok(_) => {
            context.metrics.wrote("Pod");
            Ok(true)
        }
        Err(error) if is_status(&error, 404) || is_status(&error, 409) => Ok(false),
        Err(source) => Err(DrainError::Delete { name, source }),
    }
}

/// Number of a pod in its StatefulSet.
pub fn ordinal(pod: &Pod) -> Option<i32> {
    number(pod.metadata.name.as_deref()?)
}

/// The same for a pod of that name.
pub fn number(name: &str) -> Option<i32> {
    name.rsplit_once('-')?.1.parse().ok()
}

/// Whether `set` made the pod, and nobody has asked it to go.
pub fn is_of(pod: &Pod, set: &StatefulSet) -> bool {
    pod.metadata.deletion_timestamp.is_none() && is_made_by(pod, set)
}

pub fn is_made_by(pod: &Pod, set: &StatefulSet) -> bool {
    let owned = |owner: &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference| {
        Some(&owner.uid) == set.metadata.uid.as_ref()
    };
    pod.owner_references().iter().any(owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pod, which may be ready and may have been told to drain at some time.
    fn pod(ready: bool, since: Option<&str>) -> Pod {
        let annotations = since.map(
            |since| json!({"mediaservice.io/drain": "true", "mediaservice.io/drain-since": since}),
        );
        serde_json::from_value(json!({
            "metadata": {"name": "cam-0", "annotations": annotations},
            "spec": {"containers": [], "volumes": [{"name": "pod"}]},
            "status": {"conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
        }))
        .unwrap()
    }

    fn load(state: &str, viewers: u32) -> Load {
        Load {
            state: state.into(),
            publishers: 0,
            viewers,
        }
    }

    fn policy(drain_timeout_seconds: i32) -> RolloutPolicy {
        RolloutPolicy {
            drain_timeout_seconds,
            ..RolloutPolicy::default()
        }
    }

    #[test]
    fn a_pod_that_goes_for_good_has_all_the_time_and_one_that_another_follows_half_a_minute() {
        let seconds =
            |policy| [before_stop(&policy), before_restart(&policy)].map(|wait| wait.as_secs());
        assert_eq!(seconds(RolloutPolicy::default()), [540, 30]);
        assert_eq!(seconds(policy(86_400)), [86_400, 30]);
        assert_eq!(seconds(policy(30)), [30, 30]);
    }

    #[test]
    fn a_pod_drains_until_no_session_is_left_or_the_time_is_over() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let within = Duration::from_secs(100);
        let busy = load("Accepting", 3);
        assert_eq!(
            step(&pod(true, None), Some(&busy), start, within),
            Step::Drain
        );
        assert_eq!(step(&pod(true, None), None, start, within), Step::Drain);
        let draining = pod(false, Some("2026-01-01T00:00:00Z"));
        let at = |load: Option<&Load>, seconds| {
            let now = start + k8s_openapi::jiff::SignedDuration::from_secs(seconds);
            step(&draining, load, now, within)
        };
        let wait = |seconds| waits(seconds, Hearing::Follows, 100);
        let busy = load("Draining", 3);
        assert_eq!(at(Some(&busy), 29), wait(1));
        assert_eq!(at(Some(&busy), 30), wait(5));
        assert_eq!(at(Some(&busy), 98), wait(2));
        assert_eq!(
            at(None, 99),
            waits(1, Hearing::Silent, 100),
            "an unknown load is not none"
        );
        assert_eq!(at(Some(&load("Drained", 0)), 1), Step::Go);
        assert_eq!(at(Some(&busy), 100), Step::Go);
        assert_eq!(at(None, 100), Step::Go);
        let forged = pod(false, Some("yesterday"));
        assert_eq!(step(&forged, Some(&busy), start, within), Step::Go);
    }

    fn waits(look_again: u64, hearing: Hearing, within: u64) -> Step {
        Step::Wait {
            look_again: Duration::from_secs(look_again),
            hearing,
            within: Duration::from_secs(within),
        }
    }

    #[test]
    fn a_pod_that_does_not_hear_of_its_drain_goes_when_it_serves_nobody_and_after_half_a_minute() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let hears = pod(true, Some("2026-01-01T00:00:00Z"));
        let mut of_old = hears.clone();
        of_old.spec.as_mut().unwrap().volumes = None;
        let at = |pod: &Pod, sessions: u32, seconds| {
            let now = start + k8s_openapi::jiff::SignedDuration::from_secs(seconds);
            let load = load("Accepting", sessions);
            step(pod, Some(&load), now, Duration::from_secs(540))
        };
        assert_eq!(at(&of_old, 0, 0), Step::Go);
        assert_eq!(at(&of_old, 3, 29), waits(1, Hearing::Deaf, 30));
        assert_eq!(at(&of_old, 3, 30), Step::Go);
        // The kubelet has a minute to tell one that can hear.
        assert_eq!(at(&hears, 0, 59), waits(5, Hearing::Follows, 540));
        assert_eq!(at(&hears, 0, 60), Step::Go);
        assert_eq!(at(&hears, 3, 60), waits(5, Hearing::Deaf, 90));
        assert_eq!(at(&hears, 3, 90), Step::Go);
    }

    #[test]
    fn a_pod_that_never_was_ready_goes_at_once_and_one_that_is_not_ready_any_more_drains() {
        let step = |load: Option<&Load>| {
            step(
                &pod(false, None),
                load,
                Timestamp::UNIX_EPOCH,
                Duration::MAX,
            )
        };
        assert_eq!(step(None), Step::Go);
        assert_eq!(step(Some(&load("Accepting", 0))), Step::Go);
        assert_eq!(step(Some(&load("Accepting", 1))), Step::Drain);
    }
}
