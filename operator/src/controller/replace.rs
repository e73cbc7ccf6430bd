//! Replaces pods that are not as they should be: has them drain, deletes them, and the StatefulSet makes the
//! next.
//!
//! The StatefulSet is `OnDelete`, so nobody else does this. The annotation `mediaservice.io/drain` tells a
//! pod to take no new session; it is deleted once none is left, or when the time is over. A pod that
//! never became ready is deleted at once: a wrong spec must not stand in the way of its correction. The
//! decisions are pure; each write names the pod's uid, so a successor of the same name is never hit.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::build::{self, meta, template_hash};
use super::drain::{self, DrainError, Draining, Hearing, SOON, Step, is_of, ordinal};
use super::fetch::Fetched;
use super::validate::ValidService;
use super::{Context, live};
use crate::crd::OnOperatorUpgrade;

/// How far the replacement of outdated pods is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rollout {
    /// Pods that are not as they should be, those that were just deleted among them.
    pub outdated: usize,
    /// A pod that takes no new session, and waits for the end of those that it has.
    pub draining: Option<Draining>,
    /// A pod is as the spec wants it, and this version of the operator would make it differently.
    pub update_pending: bool,
    /// When to look again, if nothing else happens.
    pub look_again: Option<Duration>,
}

/// What pods are compared with.
#[derive(Debug, Clone)]
pub struct Wanted {
    spec_hashes: Vec<String>,
    template_hash: String,
    /// Whether another template of the same spec is a reason to replace a pod.
    roll: bool,
    /// Pods with this number and above are not replaced: they go.
    replicas: i32,
    /// What the pods run.
    run: Value,
    /// Of the StatefulSet, as its controller has seen it.
    revision: Option<String>,
}

/// What the StatefulSet controller writes on each pod.
const REVISION: &str = "controller-revision-hash";

impl Wanted {
    /// `set` is the StatefulSet, if there is one.
    pub fn by(service: &ValidService, set: Option<&StatefulSet>) -> Self {
        Self {
            spec_hashes: [
                std::slice::from_ref(&service.spec_hash),
                &service.spec_hashes_of_other_levels,
            ]
            .concat(),
            template_hash: template_hash(service),
            roll: service.spec.rollout.on_operator_upgrade == OnOperatorUpgrade::Roll,
            replicas: service.spec.replicas,
            run: what_runs(&build::container(service)),
            revision: set.and_then(|set| set.status.as_ref()?.update_revision.clone()),
        }
    }

    /// Whether the pod may stay as it is.
    pub fn is_current(&self, pod: &Pod) -> bool {
        self.are_current(pod.annotations()) && !self.is_edited(pod)
    }

    /// Whether the pod came of a template of ours in which somebody had written what to run. What else changes
    /// pods, as a webhook does, changes those of the present revision too.
    fn is_edited(&self, pod: &Pod) -> bool {
        let revisions = pod.labels().get(REVISION).zip(self.revision.as_ref());
        let is_of_another = revisions.is_some_and(|(its, present)| its != present);
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let mut ours = containers.filter(|container| container.name == meta::APP);
        is_of_another
            && self.have_template(pod.annotations())
            && ours.any(|container| !live::covers(&what_runs(container), &self.run))
    }

    /// Whether `set` makes such pods.
    fn is_made_by(&self, set: &StatefulSet) -> bool {
        let template = set.spec.as_ref().map(|spec| &spec.template);
        let metadata = template.and_then(|template| template.metadata.as_ref());
        let annotations = metadata.and_then(|metadata| metadata.annotations.as_ref());
        annotations.is_some_and(|annotations| self.are_current(annotations))
    }

    fn are_current(&self, annotations: &BTreeMap<String, String>) -> bool {
        self.have_spec(annotations) && (self.have_template(annotations) || !self.roll)
    }

    fn have_spec(&self, annotations: &BTreeMap<String, String>) -> bool {
        let hash = annotations.get(meta::SPEC_HASH);
        hash.is_some_and(|hash| self.spec_hashes.contains(hash))
    }

    fn have_template(&self, annotations: &BTreeMap<String, String>) -> bool {
        annotations.get(meta::TEMPLATE_HASH) == Some(&self.template_hash)
    }

    fn is_pending(&self, pod: &Pod) -> bool {
        self.is_current(pod) && !self.have_template(pod.annotations())
    }

    /// Whether `set` made the pod, and the spec asks for as many.
    fn has_place(&self, pod: &Pod, set: &StatefulSet) -> bool {
        is_of(pod, set) && ordinal(pod).is_some_and(|number| number < self.replicas)
    }

    /// Why it may not, to complete a sentence.
    fn what_is_wrong(&self, pod: &Pod) -> &'static str {
        if !self.have_spec(pod.annotations()) {
            return "its spec is not the current one";
        }
        match self.is_edited(pod) {
            true => "it runs what somebody wrote into the StatefulSet",
            false => "this version of the operator makes it differently",
        }
    }
}

fn what_runs(container: &Container) -> Value {
    json!({"image": container.image, "args": container.args, "env": container.env})
}

/// Does what can be done now for the pods of `set`, the StatefulSet as applied.
///
/// # Errors
/// If a write is refused for another reason than that the pod is gone.
pub async fn advance(
    context: &Context,
    fetched: &Fetched,
    set: &StatefulSet,
    service: &ValidService,
) -> Result<Rollout, DrainError> {
    let wanted = Wanted::by(service, Some(set));
    let (outdated, seen) = match plan(set, &fetched.pods, &wanted) {
        Plan::Resume(pods) => {
            for pod in pods {
                drain::end(context, pod).await?;
            }
            return Ok(Rollout {
                update_pending: fetched
                    .pods
                    .iter()
                    .any(|pod| is_of(pod, set) && wanted.is_pending(pod)),
                ..Rollout::default()
            });
        }
        Plan::TemplateNotSeen(pods) => (pods, false),
        Plan::Replace(pods) => (pods, true),
    };
    let mut rollout = Rollout {
        outdated: outdated.len(),
        // Until the StatefulSet controller has seen a new template, and while a pod drains.
        look_again: Some(SOON),
        ..Rollout::default()
    };
    let within = drain::before_restart(&service.spec.rollout);
    for pod in outdated.into_iter().filter(|_| seen) {
        let load = context.loads.of(pod).await;
        let name = pod.name_any();
        let because = wanted.what_is_wrong(pod);
        match drain::step(pod, load.as_ref(), Timestamp::now(), within) {
            Step::Drain => {
                drain::begin(context, fetched, pod, because).await?;
                rollout.draining = Some(Draining {
                    pod: name,
                    hearing: Hearing::Follows,
                    within,
                });
            }
            Step::Wait {
                hearing, within, ..
            } => {
                rollout.draining = Some(Draining {
                    pod: name,
                    hearing,
                    within,
                });
            }
            Step::Go => {
                if drain::delete(context, pod).await? {
                    let note = format!("replacing pod {name}, because {because}");
                    drain::tell(context, fetched, "ReplacingPod", note).await;
                }
            }
        }
    }
    Ok(rollout)
}

/// The same where not all could be applied. If the StatefulSet has what is wanted nevertheless, its pods are
/// replaced as ever. If not, nobody can make the next pod, and those that drain take sessions again.
///
/// # Errors
/// As [`advance`].
pub async fn advance_unapplied(
    context: &Context,
    fetched: &Fetched,
    service: &ValidService,
) -> Result<Rollout, DrainError> {
    let Some(set) = fetched.stateful_set() else {
        return Ok(Rollout::default());
    };
    let wanted = Wanted::by(service, Some(set));
    if wanted.is_made_by(set) {
        return advance(context, fetched, set, service).await;
    }
    let drains = |pod: &&Pod| pod.annotations().contains_key(meta::DRAIN_SINCE);
    let pods = fetched.pods.iter().filter(drains);
    for pod in pods.filter(|pod| wanted.has_place(pod, set)) {
        drain::end(context, pod).await?;
    }
    Ok(Rollout::default())
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

fn plan<'a>(set: &StatefulSet, pods: &'a [Pod], wanted: &Wanted) -> Plan<'a, Pod> {
    let here = |pod: &&Pod| wanted.has_place(pod, set);
    let is_current = |pod: &&Pod| wanted.is_current(pod);
    let (current, outdated): (Vec<&Pod>, Vec<&Pod>) =
        pods.iter().filter(here).partition(is_current);
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(generation: i64, observed: i64) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "cam", "uid": "set", "generation": generation},
            "status": {"replicas": 1, "observedGeneration": observed, "updateRevision": "cam-1"},
        }))
        .unwrap()
    }

    fn pod(hash: &str, owner: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {
            "name": "cam-0",
            "annotations": {"mediaservice.io/spec-hash": hash, "mediaservice.io/template-hash": "of-n"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "cam", "uid": owner}],
        }}))
        .unwrap()
    }

    /// It runs this, and was made from the template of that revision.
    fn running(revision: &str, container: Value) -> Pod {
        let mut pod = pod("new", "set");
        let labels = pod.labels_mut();
        labels.insert(REVISION.into(), revision.into());
        pod.spec = Some(serde_json::from_value(json!({"containers": [container]})).unwrap());
        pod
    }

    fn wanted() -> Wanted {
        Wanted {
            spec_hashes: vec!["new".into()],
            template_hash: "of-n".into(),
            roll: false,
            replicas: 1,
            run: json!({"image": "i:1", "args": ["serve"], "env": [{"name": "A", "value": "b"}]}),
            revision: Some("cam-1".into()),
        }
    }

    fn drains(mut pod: Pod) -> Pod {
        let annotations = pod.annotations_mut();
        annotations.insert(meta::DRAIN.into(), "true".into());
        annotations.insert(meta::DRAIN_SINCE.into(), "2026-01-01T00:00:00Z".into());
        pod
    }

    #[test]
    fn nothing_happens_to_a_pod_before_the_new_template_was_seen() {
        let pods = [pod("old", "set")];
        let found = plan(&set(2, 1), &pods, &wanted());
        assert_eq!(found, Plan::TemplateNotSeen(vec![&pods[0]]));
        let found = plan(&set(2, 2), &pods, &wanted());
        assert_eq!(found, Plan::Replace(vec![&pods[0]]));
    }

    #[test]
    fn a_pod_of_another_log_level_stays() {
        let of_levels = Wanted {
            spec_hashes: vec!["new".into(), "new at debug".into()],
            ..wanted()
        };
        let pods = [pod("new at debug", "set")];
        assert_eq!(plan(&set(2, 2), &pods, &of_levels), Plan::Resume(vec![]));
        assert_eq!(
            plan(&set(2, 2), &pods, &wanted()),
            Plan::Replace(vec![&pods[0]])
        );
    }

    #[test]
    fn pods_of_others_and_current_pods_stay_and_a_drain_for_a_spec_that_was_taken_back_ends() {
        let pods = [pod("old", "other"), pod("new", "set")];
        let found = plan(&set(2, 2), &pods, &wanted());
        assert_eq!(found, Plan::Resume(vec![]));
        let pods = [drains(pod("new", "set"))];
        let found = plan(&set(2, 2), &pods, &wanted());
        assert_eq!(found, Plan::Resume(vec![&pods[0]]));
    }

    #[test]
    fn a_pod_of_another_version_of_the_operator_is_replaced_only_where_it_shall_roll() {
        let next = Wanted {
            template_hash: "of-n+1".into(),
            ..wanted()
        };
        let pods = [pod("new", "set")];
        assert!(!wanted().is_pending(&pods[0]) && next.is_pending(&pods[0]));
        assert_eq!(plan(&set(2, 2), &pods, &next), Plan::Resume(vec![]));
        let roll = Wanted { roll: true, ..next };
        let found = plan(&set(2, 2), &pods, &roll);
        assert_eq!(found, Plan::Replace(vec![&pods[0]]));
        assert!(!roll.is_pending(&pods[0]), "it does not wait");
    }

    #[test]
    fn a_pod_of_a_template_that_was_edited_is_replaced_and_one_that_a_webhook_changes_is_not() {
        let ours = json!({"name": "media-server", "image": "i:1", "args": ["serve"], "tty": true,
            "env": [{"name": "A", "value": "b"}]});
        let replaces = |revision: &str, field: &str, value: Value| {
            let mut container = ours.clone();
            container[field] = value;
            let pods = [running(revision, container)];
            matches!(plan(&set(2, 2), &pods, &wanted()), Plan::Replace(_))
        };
        let other_env =
            json!([{"name": "A", "value": "b"}, {"name": "MEDIA_AUTH", "value": "none"}]);
        for (field, value) in [
            ("image", json!("other:1")),
            ("args", json!(["serve", "--insecure-no-auth"])),
            ("env", other_env),
        ] {
            assert!(replaces("cam-2", field, value.clone()), "{field}");
            assert!(!replaces("cam-1", field, value), "{field} of each pod");
        }
        assert!(!replaces("cam-2", "image", json!("i:1")), "another field");
        // A template of another version of the operator is no template of ours.
        let mut older = running(
            "cam-2",
            json!({"name": "media-server", "image": "mirror/i:1"}),
        );
        let annotations = older.annotations_mut();
        annotations.insert(meta::TEMPLATE_HASH.into(), "of-n-1".into());
        assert!(wanted().is_current(&older));
        let pods = [running(
            "cam-2",
            json!({"name": "media-server", "image": "other:1"}),
        )];
        assert_eq!(
            wanted().what_is_wrong(&pods[0]),
            "it runs what somebody wrote into the StatefulSet"
        );
        let unseen = plan(&set(3, 2), &pods, &wanted());
        assert_eq!(unseen, Plan::TemplateNotSeen(vec![&pods[0]]));
    }

    #[test]
    fn a_pod_that_is_too_much_is_not_replaced_and_its_drain_goes_on() {
        let none = Wanted {
            replicas: 0,
            ..wanted()
        };
        let pods = [drains(pod("old", "set"))];
        assert_eq!(plan(&set(2, 2), &pods, &none), Plan::Resume(vec![]));
        let pods = [drains(pod("new", "set"))];
        assert_eq!(plan(&set(2, 2), &pods, &none), Plan::Resume(vec![]));
    }

    #[test]
    fn a_person_who_has_a_pod_drain_by_hand_is_not_overruled() {
        let mut by_hand = pod("new", "set");
        let annotations = by_hand.annotations_mut();
        annotations.insert(meta::DRAIN.into(), "true".into());
        let found = [by_hand];
        assert_eq!(plan(&set(2, 2), &found, &wanted()), Plan::Resume(vec![]));
    }
}
