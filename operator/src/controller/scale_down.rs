//! Has a pod drain before the StatefulSet is told of fewer.
//!
//! The StatefulSet takes the pod with the highest number, so that one is told to take no new session; the
//! number of pods stays until it has none left, or `drainTimeoutSeconds` are over. Asked for more pods again
//! meanwhile, the pod stays, and `replace` takes the drain back. Called by the controller before `build`,
//! which writes the number of pods.

use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::Context;
use super::apply::{self, is_status};
use super::build::GOODBYE_SECONDS;
use super::drain::{self, DrainError, Draining, Hearing, SOON, Step, is_made_by, is_of, ordinal};
use super::fetch::Fetched;
use super::validate::ValidService;

/// What can fail while stopping.
#[derive(Debug, thiserror::Error)]
pub enum ScaleDownError {
    #[error("failed to scale StatefulSet {name} to {replicas}")]
    Scale {
        name: String,
        replicas: i32,
        source: kube::Error,
    },
    #[error(transparent)]
    Drain(#[from] DrainError),
}

impl ScaleDownError {
    /// Condition reason, event reason and `reason` label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Scale { .. } => "ApplyRejected",
            Self::Drain(error) => error.reason(),
        }
    }
}

/// How many pods there shall be for now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScaleDown {
    /// What the spec asks for, and more while a pod drains.
    pub replicas: i32,
    /// The pod that drains.
    pub draining: Option<Draining>,
    /// When to look again, if nothing else happens.
    pub look_again: Option<Duration>,
}

impl ScaleDown {
    /// What to go on with after an error: no pod goes.
    pub fn none(fetched: &Fetched, service: &ValidService) -> Self {
        let spec = fetched.stateful_set().and_then(|set| set.spec.as_ref());
        let live = spec.and_then(|spec| spec.replicas).unwrap_or_default();
        Self {
            replicas: live.max(service.spec.replicas),
            ..Self::default()
        }
    }
}

/// Does what can be done now for the pod that is too much.
///
/// # Errors
/// If a write is refused for another reason than that the pod is gone.
pub async fn advance(
    context: &Context,
    fetched: &Fetched,
    service: &ValidService,
) -> Result<ScaleDown, ScaleDownError> {
    let wanted = service.spec.replicas;
    if let Some(set) = fetched.stateful_set() {
        for pod in lingering(set, &fetched.pods, wanted) {
            drain::delete(context, pod).await?;
        }
    }
    let found = fetched.stateful_set().and_then(|set| {
        let (pod, number) = victim(set, &fetched.pods, wanted)?;
        Some((set, pod, number))
    });
    let Some((set, pod, number)) = found else {
        return Ok(ScaleDown {
            replicas: wanted,
            ..ScaleDown::default()
        });
    };
    let load = context.loads.of(pod).await;
    let within = drain::before_stop(&service.spec.rollout);
    let name = pod.name_any();
    let because = format!("spec.replicas is {wanted}");
    let (look_again, hearing, within) =
        match drain::step(pod, load.as_ref(), Timestamp::now(), within) {
            Step::Drain => {
                drain::begin(context, fetched, pod, &because).await?;
                (SOON, Hearing::Follows, within)
            }
            Step::Wait {
                look_again,
                hearing,
                within,
            } => (look_again, hearing, within),
            Step::Go => {
                if stop(context, set, number).await? {
                    let note = format!("pod {name} goes, because {because}");
                    drain::tell(context, fetched, "StoppingPod", note).await;
                }
                return Ok(ScaleDown {
                    replicas: number,
                    ..ScaleDown::default()
                });
            }
        };
    Ok(ScaleDown {
        replicas: number + 1,
        draining: Some(Draining {
            pod: name,
            hearing,
            within,
        }),
        look_again: Some(look_again),
    })
}

/// Tells the StatefulSet at once, and not with all that `apply` writes: an object before it that is refused
/// would keep the pod. Returns whether the StatefulSet was there.
async fn stop(context: &Context, set: &StatefulSet, replicas: i32) -> Result<bool, ScaleDownError> {
    let name = set.name_any();
    let client = context.reader.client.clone();
    let api: Api<StatefulSet> = Api::namespaced(client, &set.namespace().unwrap_or_default());
    let patch = json!({"metadata": {"uid": set.uid()}, "spec": {"replicas": replicas}});
    let params = PatchParams {
        field_manager: Some(apply::FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    match api.patch(&name, &params, &Patch::Merge(&patch)).await {
        Ok(_) => {
            context.metrics.wrote("StatefulSet");
            Ok(true)
        }
        // Gone, or another one: then there is nothing to stop.
        Err(error) if is_status(&error, 404) || is_status(&error, 409) => Ok(false),
        Err(source) => Err(ScaleDownError::Scale {
            name,
            replicas,
            source,
        }),
    }
}

/// The pod with the highest number of those that `set` still wants and the spec does not, with its number.
fn victim<'a>(set: &StatefulSet, pods: &'a [Pod], wanted: i32) -> Option<(&'a Pod, i32)> {
    let live = set.spec.as_ref()?.replicas?;
    let numbered = |pod: &'a Pod| Some((pod, ordinal(pod)?));
    let pods = pods.iter().filter(|pod| is_of(pod, set));
    pods.filter_map(numbered)
        .filter(|(_, number)| (wanted..live).contains(number))
        .max_by_key(|(_, number)| *number)
}

/// Pods that go because the StatefulSet wants fewer. Its controller gave them their own grace period, which is
/// for the wait that is over, and the kubelet does not probe what it ends.
fn lingering<'a>(
    set: &'a StatefulSet,
    pods: &'a [Pod],
    wanted: i32,
) -> impl Iterator<Item = &'a Pod> {
    let live = set.spec.as_ref().and_then(|spec| spec.replicas);
    let first = live.unwrap_or(wanted).max(wanted);
    pods.iter().filter(move |pod| {
        let grace = pod.metadata.deletion_grace_period_seconds;
        let too_long = grace.is_some_and(|grace| grace > GOODBYE_SECONDS.into());
        let is_surplus = ordinal(pod).is_some_and(|number| number >= first);
        too_long && is_surplus && is_made_by(pod, set)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(replicas: i32) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "cam", "uid": "set"},
            "spec": {"replicas": replicas, "serviceName": "", "selector": {}, "template": {}},
        }))
        .unwrap()
    }

    fn pod(name: &str, owner: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {
            "name": name,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "cam", "uid": owner}],
        }}))
        .unwrap()
    }

    #[test]
    fn the_victim_is_the_highest_pod_that_the_set_has_and_nobody_wants_any_more() {
        let pods = [pod("cam-0", "set"), pod("cam-1", "set")];
        let found = |live, wanted| victim(&set(live), &pods, wanted).map(|(_, number)| number);
        assert_eq!(found(2, 0), Some(1));
        assert_eq!(found(1, 0), Some(0), "cam-1 is on its way already");
        assert_eq!(found(0, 0), None, "both are");
        assert_eq!(found(2, 2), None);
        assert_eq!(found(1, 2), None, "one more is wanted");
    }

    #[test]
    fn only_a_pod_that_goes_because_there_are_to_be_fewer_is_hurried() {
        let going = |name: &str, owner: &str, grace: Option<i64>| {
            let mut pod = pod(name, owner);
            pod.metadata.deletion_grace_period_seconds = grace;
            pod
        };
        let hurried = |live, wanted, pod: Pod| lingering(&set(live), &[pod], wanted).count() == 1;
        assert!(hurried(0, 0, going("cam-0", "set", Some(570))));
        assert!(!hurried(0, 0, going("cam-0", "set", Some(30))), "it was");
        assert!(!hurried(0, 0, going("cam-0", "set", None)), "it stays");
        assert!(!hurried(0, 0, going("cam-0", "another", Some(570))));
        assert!(!hurried(1, 1, going("cam-0", "set", Some(570))), "evicted");
        assert!(!hurried(0, 1, going("cam-0", "set", Some(570))), "by hand");
        assert!(!hurried(1, 0, going("cam-0", "set", Some(570))), "by hand");
    }

    #[test]
    fn pods_of_others_and_pods_that_go_anyway_are_no_victims() {
        let mut going = pod("cam-0", "set");
        going.metadata.deletion_timestamp =
            Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        for other in [going, pod("cam-0", "another"), pod("cam-x", "set")] {
            assert_eq!(victim(&set(1), &[other], 0), None);
        }
    }
}
