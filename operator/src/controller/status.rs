//! Last step: says in `.status` what was found and done.
//!
//! `describe` is pure. Written by server-side apply under its own field manager, and only if it
//! differs from what is there, so that a status never causes the next one.

mod addresses;
mod monitoring;
mod signalling;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt};
use serde_json::json;

use self::addresses::AddressesReady;
use super::build::meta;
use super::drain::{Draining, Hearing, ordinal};
use super::fetch::{Fetched, is_ready};
use super::replace::{self, Wanted};
use super::scale_down::ScaleDown;
use super::trouble::{self, Trouble};
use super::validate::ValidService;
use crate::crd::{MediaService, MediaServiceStatus, Rollout, RolloutPhase};

pub const FIELD_MANAGER: &str = "mediaservice-operator-status";

/// The status could not be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to write the status")]
pub struct StatusError {
    source: kube::Error,
}

impl StatusError {
    /// Event reason and `reason` label.
    pub fn reason(&self) -> &'static str {
        "StatusFailed"
    }
}

/// How far the earlier steps came.
pub enum Outcome<'a> {
    /// Everything is applied; pods may still have to be replaced.
    Applied {
        service: &'a ValidService,
        replaced: &'a replace::Rollout,
        scaling: &'a ScaleDown,
    },
    /// The spec is good, but something was refused.
    Refused {
        service: &'a ValidService,
        replaced: &'a replace::Rollout,
        scaling: &'a ScaleDown,
        trouble: Trouble,
    },
    /// Nothing was done, because the spec says so.
    Paused { service: &'a ValidService },
    /// Nothing could be built.
    Invalid { trouble: Trouble },
}

/// The status that belongs to what was fetched and done. Times of conditions that keep their status
/// are those of `fetched`.
pub fn describe(fetched: &Fetched, outcome: &Outcome<'_>, now: Timestamp) -> MediaServiceStatus {
    let spec = &fetched.service.spec;
    let ready = fetched.pods.iter().filter(|pod| is_ready(pod)).count();
    let idle = (replace::Rollout::default(), ScaleDown::default());
    let (service, replaced, scaling) = match outcome {
        Outcome::Applied {
            service,
            replaced,
            scaling,
        }
        | Outcome::Refused {
            service,
            replaced,
            scaling,
            ..
        } => (Some(*service), *replaced, *scaling),
        Outcome::Paused { service } => (Some(*service), &idle.0, &idle.1),
        Outcome::Invalid { .. } => (None, &idle.0, &idle.1),
    };
    let trouble = match outcome {
        Outcome::Applied { service, .. } | Outcome::Paused { service } => {
            let of_pods = (spec.replicas > 0).then(|| trouble::find(fetched, service));
            of_pods.flatten().or_else(|| trouble::missing_api(service))
        }
        Outcome::Refused { trouble, .. } | Outcome::Invalid { trouble } => Some(trouble.clone()),
    };
    let trouble = trouble.map(|trouble| steady(fetched, trouble));
    let addresses_known = service.map(|service| addresses::ready(fetched, service));
    let mut conditions = vec![
        ready_condition(
            is_stopped(fetched),
            ready,
            &trouble,
            addresses_known.as_ref(),
            signalling::unrouted(fetched, outcome),
        ),
        progressing(
            fetched,
            replaced,
            scaling,
            ready,
            matches!(outcome, Outcome::Applied { .. }),
        ),
        degraded(trouble),
    ];
    conditions.extend(addresses_known.map(|known| known.condition));
    let applied = matches!(outcome, Outcome::Applied { .. });
    conditions.extend(service.map(|service| monitoring::ready(fetched, service, applied)));
    conditions.push(paused(fetched));
    let old = fetched.service.status.as_ref();
    for condition in &mut conditions {
        date(condition, &fetched.service, now);
    }
    MediaServiceStatus {
        observed_generation: fetched.service.metadata.generation,
        replicas: count(fetched.pods.len()),
        ready_replicas: count(ready),
        desired_replicas: spec.replicas,
        selector: meta::pod_selector(&fetched.service.name_any()),
        addresses: service
            .map(|service| addresses::of_clients(fetched, service))
            .unwrap_or_default(),
        // Written by another.
        sessions: old.map(|old| old.sessions.clone()).unwrap_or_default(),
        rollout: rollout(fetched, service, replaced, now),
        // The same.
        pods: old.map(|old| old.pods.clone()).unwrap_or_default(),
        conditions,
    }
}

/// The status where nothing could be read: what it said before, but for what can be known.
pub fn describe_unread(
    service: &MediaService,
    trouble: Trouble,
    now: Timestamp,
) -> MediaServiceStatus {
    let mut status = service.status.clone().unwrap_or_default();
    let mut known = vec![degraded(Some(trouble))];
    if !service.spec.paused {
        known.push(stalled());
    }
    for mut condition in known {
        date(&mut condition, service, now);
        let mut conditions = status.conditions.iter_mut();
        match conditions.find(|before| before.type_ == condition.type_) {
            Some(before) => *before = condition,
            None => status.conditions.push(condition),
        }
    }
    status
}

/// Says of which spec the condition is, and since when it has its status.
fn date(condition: &mut Condition, service: &MediaService, now: Timestamp) {
    condition.observed_generation = service.metadata.generation;
    let mut before = service.status.iter().flat_map(|status| &status.conditions);
    let before =
        before.find(|before| before.type_ == condition.type_ && before.status == condition.status);
    condition.last_transition_time =
        before.map_or(Time(now), |before| before.last_transition_time.clone());
}

fn rollout(
    fetched: &Fetched,
    service: Option<&ValidService>,
    replaced: &replace::Rollout,
    now: Timestamp,
) -> Rollout {
    let old = fetched.service.status.as_ref().map(|old| &old.rollout);
    let Some(service) = service else {
        return old.cloned().unwrap_or_default();
    };
    let wanted = Wanted::by(service, fetched.stateful_set());
    let updated = fetched
        .pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none() && wanted.is_current(pod));
    let (mut all, mut ready) = (0, 0);
    for pod in updated {
        all += 1;
        ready += i32::from(is_ready(pod));
    }
    let since = |phase: RolloutPhase| {
        let before = old.filter(|old| old.phase == phase);
        before.map_or(Some(Time(now)), |before| before.started_at.clone())
    };
    let number = |pod: &&Pod| ordinal(pod).unwrap_or_default();
    let last = fetched.pods.iter().max_by_key(number);
    let surplus = last.filter(|pod| number(pod) >= service.spec.replicas);
    if let Some(pod) = surplus.filter(|_| !service.spec.paused) {
        return Rollout {
            phase: RolloutPhase::ScalingDown,
            updated: all,
            pod: Some(pod.name_any()),
            started_at: since(RolloutPhase::ScalingDown),
        };
    }
    let before = old.filter(|old| old.phase == RolloutPhase::Rolling);
    // It is over when the new pods are ready, and not when the old ones are gone.
    let goes_on = before.is_some() && ready < fetched.service.spec.replicas;
    if replaced.outdated == 0 && !goes_on {
        return Rollout {
            updated: all,
            ..Rollout::default()
        };
    }
    let first_outdated = || {
        let mut pods = fetched.pods.iter();
        let outdated = pods.find(|pod| !wanted.is_current(pod));
        outdated.map(ResourceExt::name_any)
    };
    let draining = replaced.draining.as_ref().map(|drain| drain.pod.clone());
    Rollout {
        phase: RolloutPhase::Rolling,
        updated: all,
        pod: draining.or_else(first_outdated),
        started_at: since(RolloutPhase::Rolling),
    }
}

/// Writes `status` if it differs from the one that was fetched. Returns whether it wrote.
///
/// # Errors
/// If the API server refuses; the next reconciliation tries again.
pub async fn write(
    client: &Client,
    service: &MediaService,
    status: &MediaServiceStatus,
) -> Result<bool, StatusError> {
    if service.status.as_ref() == Some(status) {
        return Ok(false);
    }
    let name = service.name_any();
    let mut patch = json!({
        "apiVersion": MediaService::api_version(&()),
        "kind": MediaService::kind(&()),
        "metadata": {"name": name},
        "status": status,
    });
    if let Some(status) = patch["status"].as_object_mut() {
        // Written by `sessions`, under a field manager of its own.
        for of_sessions in ["sessions", "pods"] {
            status.remove(of_sessions);
        }
    }
    let api: Api<MediaService> =
        Api::namespaced(client.clone(), &service.namespace().unwrap_or_default());
    let params = PatchParams::apply(FIELD_MANAGER).force();
    match api
        .patch_status(&name, &params, &Patch::Apply(&patch))
        .await
    {
        Ok(_) => Ok(true),
        // Deleted meanwhile.
        Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(false),
        Err(source) => Err(StatusError { source }),
    }
}

/// Whether nothing but messages of conditions, of the same reasons, differs.
pub fn differs_in_words_only(old: &MediaServiceStatus, new: &MediaServiceStatus) -> bool {
    let mut reworded = new.clone();
    for (condition, old) in reworded.conditions.iter_mut().zip(&old.conditions) {
        condition.message.clone_from(&old.message);
    }
    reworded == *old && new != old
}

/// Whether no pod is wanted, and none is kept because nothing is done.
fn is_stopped(fetched: &Fetched) -> bool {
    let spec = &fetched.service.spec;
    spec.replicas == 0 && (!spec.paused || fetched.pods.is_empty())
}

fn ready_condition(
    stopped: bool,
    ready: usize,
    trouble: &Option<Trouble>,
    addresses: Option<&AddressesReady>,
    unrouted: Option<String>,
) -> Condition {
    let because = |text: &str| match trouble {
        Some(trouble) => format!("{text}: {}", trouble.message),
        None => text.to_owned(),
    };
    if stopped {
        return condition("Ready", false, "Stopped", "spec.replicas is 0".into());
    }
    if addresses.is_some_and(|addresses| !addresses.known) {
        return condition(
            "Ready",
            false,
            "AddressesPending",
            "no address to give to clients; see AddressesReady".into(),
        );
    }
    if ready == 0 {
        return condition("Ready", false, "NoPods", because("no pod is ready"));
    }
    if let Some(missing) = unrouted {
        return condition("Ready", false, "SignallingNotReady", because(&missing));
    }
    condition("Ready", true, "Accepting", "new sessions are taken".into())
}

fn progressing(
    fetched: &Fetched,
    replaced: &replace::Rollout,
    scaling: &ScaleDown,
    ready: usize,
    applied: bool,
) -> Condition {
    let wanted = usize::try_from(fetched.service.spec.replicas).unwrap_or(0);
    let going = fetched
        .pods
        .iter()
        .any(|pod| pod.metadata.deletion_timestamp.is_some());
    if fetched.service.spec.paused {
        return condition("Progressing", false, "Paused", "spec.paused is true".into());
    }
    if let Some(draining) = &scaling.draining {
        let message = format!(
            "{}; one more in spec.replicas keeps it",
            of_drain(draining, "goes")
        );
        return condition("Progressing", true, "Draining", message);
    }
    if let Some(draining) = &replaced.draining {
        let message = of_drain(draining, "is replaced by a new one");
        return condition("Progressing", true, "Draining", message);
    }
    if !applied {
        return stalled();
    }
    if replaced.outdated > 0 {
        return condition(
            "Progressing",
            true,
            "RollingOut",
            "the pod is replaced by a new one".into(),
        );
    }
    if going {
        return condition("Progressing", true, "Draining", "a pod is going".into());
    }
    if ready != wanted || fetched.pods.len() != wanted {
        let message = format!("{ready} of {wanted} pods ready");
        return condition("Progressing", true, "StartingPods", message);
    }
    if replaced.update_pending {
        let message = "this version of the operator makes pods differently; that takes effect when the pod restarts, or at once with spec.rollout.onOperatorUpgrade: Roll";
        return condition(
            "Progressing",
            false,
            "OperatorUpdatePending",
            message.into(),
        );
    }
    condition(
        "Progressing",
        false,
        "UpToDate",
        "nothing is under way".into(),
    )
}

/// What the pod does, and until when; `end` is what becomes of it.
fn of_drain(draining: &Draining, end: &str) -> String {
    let (pod, seconds) = (&draining.pod, draining.within.as_secs());
    match draining.hearing {
        Hearing::Follows => format!(
            "pod {pod} takes no new sessions, and {end} once it has none left, after {seconds} s at the latest"
        ),
        Hearing::Deaf => format!(
            "pod {pod} goes on taking sessions, because its image or template is from before the drain; it {end} once it has none, after {seconds} s at the latest"
        ),
        Hearing::Silent => format!(
            "pod {pod} was told to take no new sessions, and does not answer how many it has; it {end} after {seconds} s at the latest"
        ),
    }
}

fn stalled() -> Condition {
    condition("Progressing", false, "Stalled", "see Degraded".into())
}

fn degraded(trouble: Option<Trouble>) -> Condition {
    match trouble {
        Some(trouble) => condition("Degraded", true, trouble.reason, trouble.message),
        None => condition(
            "Degraded",
            false,
            "AsExpected",
            "nothing that was asked for is missing".into(),
        ),
    }
}

fn paused(fetched: &Fetched) -> Condition {
    if !fetched.service.spec.paused {
        return condition("Paused", false, "Running", "spec.paused is false".into());
    }
    let mut message = "spec.paused is true: nothing is written but this status".to_owned();
    let drains = |pod: &&Pod| pod.annotations().contains_key(meta::DRAIN);
    for pod in fetched.pods.iter().filter(drains) {
        message += &format!(
            "; pod {} was told before to take no new sessions, and does so until this ends",
            pod.name_any()
        );
    }
    condition("Paused", true, "Paused", message)
}

/// The kubelet alternates between two wordings of one failed pull; the first stays, so that the
/// status is not written at each change.
fn steady(fetched: &Fetched, mut trouble: Trouble) -> Trouble {
    if trouble.reason == "ImagePullFailed" {
        let conditions = fetched
            .service
            .status
            .iter()
            .flat_map(|status| &status.conditions);
        let before = conditions.into_iter().find(|c| {
            c.type_ == "Degraded"
                && c.reason == trouble.reason
                && image_part(&c.message) == image_part(&trouble.message)
        });
        if let Some(before) = before {
            trouble.message.clone_from(&before.message);
        }
    }
    trouble
}

fn image_part(message: &str) -> &str {
    message.split_once(": ").map_or(message, |(part, _)| part)
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn condition(type_: &str, status: bool, reason: &str, message: String) -> Condition {
    Condition {
        type_: type_.into(),
        status: if status { "True" } else { "False" }.into(),
        reason: reason.into(),
        message,
        observed_generation: None,
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
    }
}

#[cfg(test)]
mod tests;
