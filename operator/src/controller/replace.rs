//! Replaces pods whose spec hash is not the wanted one: deletes them, and SIGTERM drains them.
//!
//! The StatefulSet is `OnDelete`, so nobody else does this. A pod that never became ready is replaced
//! like any other: a wrong spec must not stand in the way of its correction. The decision is pure;
//! the write names the pod's uid, so a successor of the same name is never hit.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Preconditions};
use kube::{Client, ResourceExt};

use super::apply::is_status;
use super::build::meta;
use crate::metrics::Metrics;

/// What can fail while replacing.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError {
    #[error("failed to delete outdated pod {name}")]
    Delete { name: String, source: kube::Error },
}

impl ReplaceError {
    /// Condition reason, event reason and `reason` label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Delete { .. } => "PodDeleteFailed",
        }
    }
}

/// What has to happen to the pods.
#[derive(Debug, PartialEq, Eq)]
pub enum Plan<'a, P> {
    /// Every pod is as wanted.
    UpToDate,
    /// The StatefulSet controller has not seen the template yet and would make the old pod again.
    TemplateNotSeen,
    Replace(Vec<&'a P>),
}

/// Decides; `set` is the StatefulSet as applied.
pub fn plan<'a>(set: &StatefulSet, pods: &'a [Pod], spec_hash: &str) -> Plan<'a, Pod> {
    let outdated: Vec<&Pod> = pods
        .iter()
        .filter(|pod| {
            pod.metadata.deletion_timestamp.is_none()
                && pod.annotations().get(meta::SPEC_HASH).map(String::as_str) != Some(spec_hash)
                && owned_by(pod, set)
        })
        .collect();
    let seen = set
        .status
        .as_ref()
        .and_then(|status| status.observed_generation)
        >= set.metadata.generation;
    match (outdated.is_empty(), seen) {
        (true, _) => Plan::UpToDate,
        (false, false) => Plan::TemplateNotSeen,
        (false, true) => Plan::Replace(outdated),
    }
}

/// Deletes `pod`; its StatefulSet makes the next one.
///
/// # Errors
/// If it is refused for another reason than that the pod is gone.
pub async fn replace(client: &Client, metrics: &Metrics, pod: &Pod) -> Result<(), ReplaceError> {
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
    use serde_json::json;

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

    #[test]
    fn an_outdated_pod_is_replaced_also_if_it_never_became_ready() {
        let pods = [pod("old", "set")];
        assert_eq!(
            plan(&set(2, 2), &pods, "new"),
            Plan::Replace(vec![&pods[0]])
        );
    }

    #[test]
    fn nothing_is_deleted_before_the_new_template_was_seen() {
        assert_eq!(
            plan(&set(2, 1), &[pod("old", "set")], "new"),
            Plan::TemplateNotSeen
        );
    }

    #[test]
    fn pods_of_others_and_current_pods_stay() {
        assert_eq!(
            plan(&set(2, 2), &[pod("old", "other"), pod("new", "set")], "new"),
            Plan::UpToDate
        );
    }
}
