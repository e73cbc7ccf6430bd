//! Replaces pods whose spec hash is not the wanted one: has them drain, deletes them, and the StatefulSet
//! makes the next.
//!
//! The StatefulSet is `OnDelete`, so nobody else does this. The annotation `mediaservice.io/drain` tells a
//! pod to take no new session; it is deleted once none is left, or when the time is over. A pod that
//! never became ready is deleted at once: a wrong spec must not stand in the way of its correction. The
//! decisions are pure; each write names the pod's uid, so a successor of the same name is never hit.

use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::events::EventType;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::apply::{self, is_status};
use super::build::meta;
use super::fetch::{Fetched, is_ready};
use super::load::Load;
use super::{Context, publish};
use crate::metrics::Metrics;

/// What can fail while replacing.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError {
    #[error("failed to delete outdated pod {name}")]
    Delete { name: String, source: kube::Error },
    #[error("failed to write the drain annotation of pod {name}")]
    Annotate { name: String, source: kube::Error },
}

impl ReplaceError {
    /// Condition reason, event reason and `reason` label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Delete { .. } => "PodDeleteFailed",
            Self::Annotate { .. } => "PodDrainFailed",
        }
    }
}

/// How far the replacement of outdated pods is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rollout {
    /// Pods without the wanted spec, those that were just deleted among them.
    pub outdated: usize,
    /// A pod that takes no new session, and waits for the end of those that it has.
    pub draining: Option<String>,
    /// When to look again, if nothing else happens.
    pub look_again: Option<Duration>,
}

/// Longest wait for the sessions of a pod. There is no other pod to move to, so all that waiting brings is
/// that short sessions end by themselves, and all that time nobody new is served.
pub const DRAIN_BOUND: Duration = Duration::from_secs(30);

/// Until the StatefulSet controller has seen a new template, and while a pod drains.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Does what can be done now for the pods of `set`, the StatefulSet as applied.
///
/// # Errors
/// If a write is refused for another reason than that the pod is gone.
pub async fn advance(
    context: &Context,
    fetched: &Fetched,
    set: &StatefulSet,
    spec_hash: &str,
) -> Result<Rollout, ReplaceError> {
    let client = &context.reader.client;
    let metrics = &context.metrics;
    let (outdated, seen) = match plan(set, &fetched.pods, spec_hash) {
        Plan::Resume(pods) => {
            for pod in pods {
                tracing::info!(pod = pod.name_any(), "taking the drain back");
                annotate(client, metrics, pod, json!(null), json!(null)).await?;
            }
            return Ok(Rollout::default());
        }
        Plan::TemplateNotSeen(pods) => (pods, false),
        Plan::Replace(pods) => (pods, true),
    };
    let mut rollout = Rollout {
        outdated: outdated.len(),
        draining: None,
        look_again: Some(LOOK_AGAIN),
    };
    for pod in outdated.into_iter().filter(|_| seen) {
        let load = context.loads.of(pod).await;
        let name = pod.name_any();
        match step(pod, load.as_ref(), Timestamp::now()) {
            Step::Drain => {
                let note = format!("pod {name} drains, because its spec is not the current one");
                tell(context, fetched, "DrainingPod", note).await;
                let since = Timestamp::now().to_string();
                annotate(client, metrics, pod, json!("true"), json!(since)).await?;
                rollout.draining = Some(name);
            }
            Step::Wait => rollout.draining = Some(name),
            Step::Delete => {
                let note = format!("replacing pod {name}, whose spec is not the current one");
                tell(context, fetched, "ReplacingPod", note).await;
                delete(client, metrics, pod).await?;
            }
        }
    }
    Ok(rollout)
}

async fn tell(context: &Context, fetched: &Fetched, reason: &str, note: String) {
    publish(context, &*fetched.service, EventType::Normal, reason, note).await;
}

/// What has to happen to the pods.
#[derive(Debug, PartialEq, Eq)]
enum Plan<'a, P> {
    /// Every pod is as wanted; these were told to drain before the spec was changed back.
    Resume(Vec<&'a P>),
    /// The StatefulSet controller has not seen the template yet and would make the old pod again.
    TemplateNotSeen(Vec<&'a P>),
    Replace(Vec<&'a P>),
}

fn plan<'a>(set: &StatefulSet, pods: &'a [Pod], spec_hash: &str) -> Plan<'a, Pod> {
    let here = |pod: &&Pod| pod.metadata.deletion_timestamp.is_none() && owned_by(pod, set);
    let current =
        |pod: &&Pod| pod.annotations().get(meta::SPEC_HASH).map(String::as_str) == Some(spec_hash);
    let (current, outdated): (Vec<&Pod>, Vec<&Pod>) = pods.iter().filter(here).partition(current);
    let observed = set
        .status
        .as_ref()
        .and_then(|status| status.observed_generation);
    match (outdated.is_empty(), observed >= set.metadata.generation) {
        (true, _) => Plan::Resume(
            current
                .into_iter()
                .filter(|pod| pod.annotations().contains_key(meta::DRAIN_SINCE))
                .collect(),
        ),
        (false, false) => Plan::TemplateNotSeen(outdated),
        (false, true) => Plan::Replace(outdated),
    }
}

/// What comes next for an outdated pod.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Tell it to take no new session.
    Drain,
    Wait,
    Delete,
}

fn step(pod: &Pod, load: Option<&Load>, now: Timestamp) -> Step {
    let Some(since) = pod.annotations().get(meta::DRAIN_SINCE) else {
        // One that is not ready and has no session, or does not answer, never started, has crashed or
        // hangs: nobody would notice its drain.
        let used = is_ready(pod) || load.is_some_and(|load| load.sessions() > 0);
        return if used { Step::Drain } else { Step::Delete };
    };
    // What somebody else wrote there is no time, and then it has been long enough.
    let waited = since.parse().map_or(DRAIN_BOUND, |since: Timestamp| {
        Duration::try_from(now.duration_since(since)).unwrap_or_default()
    });
    if waited >= DRAIN_BOUND || load.is_some_and(Load::is_drained) {
        Step::Delete
    } else {
        Step::Wait
    }
}

/// Writes, or with nulls removes, the two annotations of a drain.
async fn annotate(
    client: &Client,
    metrics: &Metrics,
    pod: &Pod,
    drain: Value,
    since: Value,
) -> Result<(), ReplaceError> {
    let name = pod.name_any();
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
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
        Ok(_) => metrics.wrote("Pod"),
        // Gone, or of another uid, which can't be changed.
        Err(error) if is_status(&error, 404) || is_status(&error, 422) => {}
        Err(source) => return Err(ReplaceError::Annotate { name, source }),
    }
    Ok(())
}

async fn delete(client: &Client, metrics: &Metrics, pod: &Pod) -> Result<(), ReplaceError> {
    let name = pod.name_any();
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: pod.uid(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match api.delete(&name, &params).await {
        Ok(_) => metrics.wrote("Pod"),
        Err(error) if is_status(&error, 404) || is_status(&error, 409) => {}
        Err(source) => return Err(ReplaceError::Delete { name, source }),
    }
    Ok(())
}

fn owned_by(pod: &Pod, set: &StatefulSet) -> bool {
    pod.owner_references()
        .iter()
        .any(|owner| Some(&owner.uid) == set.metadata.uid.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(generation: i64, observed: i64) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "cam", "uid": "set", "generation": generation},
            "status": {"replicas": 1, "observedGeneration": observed},
        }))
        .unwrap()
    }

    fn pod(hash: &str, owner: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {
            "name": "cam-0",
            "annotations": {"mediaservice.io/spec-hash": hash},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "cam", "uid": owner}],
        }}))
        .unwrap()
    }

    fn ready(mut pod: Pod) -> Pod {
        let status = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        pod.status = Some(serde_json::from_value(status).unwrap());
        pod
    }

    fn drains_since(mut pod: Pod, since: &str) -> Pod {
        let annotations = pod.annotations_mut();
        annotations.insert(meta::DRAIN.into(), "true".into());
        annotations.insert(meta::DRAIN_SINCE.into(), since.into());
        pod
    }

    fn load(state: &str, viewers: u32) -> Load {
        Load {
            state: state.into(),
            publishers: 0,
            viewers,
        }
    }

    #[test]
    fn nothing_happens_to_a_pod_before_the_new_template_was_seen() {
        let pods = [pod("old", "set")];
        let found = plan(&set(2, 1), &pods, "new");
        assert_eq!(found, Plan::TemplateNotSeen(vec![&pods[0]]));
        let found = plan(&set(2, 2), &pods, "new");
        assert_eq!(found, Plan::Replace(vec![&pods[0]]));
    }

    #[test]
    fn pods_of_others_and_current_pods_stay_and_a_drain_for_a_spec_that_was_taken_back_ends() {
        let pods = [pod("old", "other"), pod("new", "set")];
        assert_eq!(plan(&set(2, 2), &pods, "new"), Plan::Resume(vec![]));
        let pods = [drains_since(pod("new", "set"), "2026-01-01T00:00:00Z")];
        assert_eq!(plan(&set(2, 2), &pods, "new"), Plan::Resume(vec![&pods[0]]));
    }

    #[test]
    fn a_person_who_has_a_pod_drain_by_hand_is_not_overruled() {
        let mut by_hand = pod("new", "set");
        let annotations = by_hand.annotations_mut();
        annotations.insert(meta::DRAIN.into(), "true".into());
        assert_eq!(plan(&set(2, 2), &[by_hand], "new"), Plan::Resume(vec![]));
    }

    #[test]
    fn a_pod_drains_until_no_session_is_left_or_half_a_minute_is_over() {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let after = |seconds| start + k8s_openapi::jiff::SignedDuration::from_secs(seconds);
        let busy = load("Accepting", 3);
        assert_eq!(
            step(&ready(pod("old", "set")), Some(&busy), start),
            Step::Drain
        );
        assert_eq!(step(&ready(pod("old", "set")), None, start), Step::Drain);
        let draining = drains_since(pod("old", "set"), &start.to_string());
        let at = |load: Option<&Load>, seconds| step(&draining, load, after(seconds));
        assert_eq!(at(Some(&load("Draining", 3)), 29), Step::Wait);
        assert_eq!(at(None, 29), Step::Wait, "an unknown load is not none");
        assert_eq!(at(Some(&load("Drained", 0)), 1), Step::Delete);
        assert_eq!(at(Some(&load("Draining", 3)), 30), Step::Delete);
        assert_eq!(at(None, 30), Step::Delete);
    }

    #[test]
    fn a_pod_that_never_was_ready_is_deleted_at_once_and_one_that_is_not_ready_any_more_drains() {
        let now = Timestamp::UNIX_EPOCH;
        let unready = pod("old", "set");
        assert_eq!(step(&unready, None, now), Step::Delete);
        assert_eq!(
            step(&unready, Some(&load("Accepting", 0)), now),
            Step::Delete
        );
        assert_eq!(
            step(&unready, Some(&load("Accepting", 1)), now),
            Step::Drain
        );
    }
}
