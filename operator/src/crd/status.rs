//! `status`: what the operator reports. Types only; written by `controller::status` alone.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator found.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct MediaServiceStatus {
    /// Generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Pods that exist.
    pub replicas: i32,
    /// Pods that take sessions.
    pub ready_replicas: i32,
    /// Pods that there should be.
    pub desired_replicas: i32,
    /// Label selector of the pods.
    pub selector: String,
    /// Where clients connect.
    pub addresses: Addresses,
    /// Ready, Progressing, Degraded, AddressesReady, MonitoringReady.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Where clients connect.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(default)]
pub struct Addresses {
    /// Base URL of the API and the pages; empty without an Ingress.
    pub signalling: String,
    /// `ip:port/udp` of the pods that run.
    pub media: Vec<String>,
}
