//! `status`: what the operator reports. Types only; `sessions` and `pods` are written by
//! `controller::sessions`, all else by `controller::status`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
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
    /// Sessions of all pods. Written at most every 30 s, and when a number has changed by 5 % or more; also with
    /// another state in `pods`.
    pub sessions: Sessions,
    /// Where clients connect.
    pub addresses: Addresses,
    /// Replacement of pods that are not as they should be, and the end of pods that are too many.
    pub rollout: Rollout,
    /// What each pod does, by its number: those that are there, and those that `spec.replicas` asks for. Written
    /// when a pod comes, goes or changes its state, and with `sessions`: numbers alone are as old as those.
    #[schemars(length(max = 65), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub pods: Vec<PodReport>,
    /// Ready, Progressing, Degraded, AddressesReady, MonitoringReady, Paused.
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// Where clients connect.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(default)]
pub struct Addresses {
    /// Base URL of the API and the pages; empty without an Ingress or HTTPRoute.
    pub signalling: String,
    /// `host:port/udp` and `host:port/tcp` of the pods that run, UDP first. A host is an IP address or a
    /// name, which pods resolve.
    pub media: Vec<String>,
}

/// Sessions of all pods.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq, Default)]
#[serde(default)]
pub struct Sessions {
    /// Devices that publish.
    pub publishers: i32,
    /// Sessions that watch.
    pub viewers: i32,
}

/// What one pod says of itself.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct PodReport {
    /// Name of the pod.
    pub name: String,
    /// Accepting: it takes new sessions, once it is ready. Draining: it takes none, and waits for the end of those it has.
    /// Drained: it takes none and has none. Unknown: it does not answer, as while it starts. Absent: it should
    /// be there and is not.
    pub state: PodState,
    /// Devices that publish to it; missing if it did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publishers: Option<i32>,
    /// Its sessions that watch; missing if it did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub viewers: Option<i32>,
    /// Stands for the spec that it was made from: pods with the same have the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec_hash: Option<String>,
}

/// What a pod does.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodState {
    Accepting,
    Draining,
    Drained,
    Unknown,
    Absent,
}

/// Replacement of pods that are not as they should be, and the end of pods that are too many.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Rollout {
    /// Idle, Rolling until the pods with the present spec are ready, or ScalingDown until the pods that are
    /// too many are gone.
    pub phase: RolloutPhase,
    /// Pods that have the present spec, and with `onOperatorUpgrade: Roll` the operator's present template.
    pub updated: i32,
    /// The pod that is being replaced, or that goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Since when it is Rolling or ScalingDown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
}

/// What happens to the pods.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum RolloutPhase {
    #[default]
    Idle,
    Rolling,
    ScalingDown,
}
