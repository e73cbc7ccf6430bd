//! The PodDisruptionBudget of the media pods.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::meta;
use crate::controller::validate::ValidService;

/// One pod at a time, so that a drain of nodes goes on by itself: an eviction is a SIGTERM, which
/// drains. A pod that is not healthy stands in nobody's way.
pub fn build_disruption_budget(service: &ValidService) -> PodDisruptionBudget {
    PodDisruptionBudget {
        metadata: meta::object(service, &service.name),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(LabelSelector {
                match_labels: Some(meta::selector(service)),
                match_expressions: None,
            }),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".into()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    }
}
