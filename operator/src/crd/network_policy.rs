//! `spec.networkPolicy`: who may reach the pod. Types only.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A NetworkPolicy for the media pod: HTTP and metrics from where they are used, media from anywhere,
/// nothing else. A network plugin that enforces none ignores it, and so does a pod with exposure
/// HostNetwork, for which none is made. Changes touch no session.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicy {
    /// Whether to make it. Default true.
    pub enabled: bool,

    /// Namespaces whose pods may reach the HTTP side, at most 8 selectors: that of the ingress
    /// controller, for instance. Default: none, which is no restriction. An ingress controller on the
    /// host network is in no namespace and matches none.
    #[schemars(length(max = 8))]
    pub signalling_from: Vec<LabelSelector>,

    /// Namespaces whose pods may scrape metrics, at most 8 selectors; the operator's own may always.
    /// Default: none, which is no restriction.
    #[schemars(length(max = 8))]
    pub monitoring_from: Vec<LabelSelector>,
}

impl Default for NetworkPolicy {
    fn default() -> Self {
        Self {
            enabled: true,
            signalling_from: Vec::new(),
            monitoring_from: Vec::new(),
        }
    }
}
