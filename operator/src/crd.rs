//! The MediaService resource: its types, defaults, CEL rules and printer columns.
//!
//! The field docs are the user's reference (`kubectl explain`), so they say default, unit and what
//! a change does to running sessions. A field is here only once it works. No I/O; read by every
//! step of the controller and by `operator crd`.

mod auth;
mod events;
mod limits;
mod media;
mod monitoring;
mod network_policy;
mod observability;
mod pod;
mod recording;
mod rollout;
mod signalling;
mod status;
mod text;
mod turn;

use kube::{CustomResource, CustomResourceExt, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use auth::{Auth, SecretKeyRef};
pub use events::Events;
pub use limits::Limits;
pub use media::{Exposure, Media};
pub use monitoring::{Monitoring, SloTargets};
pub use network_policy::NetworkPolicy;
pub use observability::{LOG_LEVELS, Observability};
pub use pod::Pod;
pub use recording::Recording;
pub use rollout::{OnOperatorUpgrade, RolloutPolicy};
pub use signalling::Signalling;
pub use status::{
    Addresses, MediaServiceStatus, PodReport, PodState, Rollout, RolloutPhase, Sessions,
};
pub use text::BoundedString;
pub use turn::Turn;

/// What a MediaService shall be.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "mediaservice.io",
    version = "v1alpha1",
    kind = "MediaService",
    plural = "mediaservices",
    shortname = "msvc",
    category = "media",
    namespaced,
    status = "MediaServiceStatus",
    derive = "PartialEq",
    doc = "A WebRTC media service: devices publish to it with WHIP, viewers watch with WHEP.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".status.desiredReplicas"),
    printcolumn(name = "Publishers", type_ = "integer", json_path = ".status.sessions.publishers"),
    printcolumn(name = "Viewers", type_ = "integer", json_path = ".status.sessions.viewers"),
    printcolumn(name = "Address", type_ = "string", json_path = ".status.addresses.media[0]"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        priority = 1,
        json_path = ".status.conditions[?(@.type=='Ready')].reason"
    ),
    printcolumn(
        name = "Signalling",
        type_ = "string",
        priority = 1,
        json_path = ".status.addresses.signalling"
    ),
    printcolumn(name = "Rollout", type_ = "string", priority = 1, json_path = ".status.rollout.phase"),
    printcolumn(name = "Exposure", type_ = "string", priority = 1, json_path = ".spec.media.exposure"),
    validation = Rule::new("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name must be at most 40 characters of a-z, 0-9 and '-', start with a letter and end with a letter or digit: it begins the name of every object made for this MediaService")
)]
#[serde(rename_all = "camelCase")]
pub struct MediaServiceSpec {
    /// Image of the media server. Default "": the image that the pods have already, and at
    /// creation, or with `rollout.onOperatorUpgrade: Roll`, the operator's default. A change replaces
    /// the pod; its sessions end and clients connect again.
    #[serde(default)]
    #[x_kube(validation = Rule::new("!self.matches('\\\\s')").message("image must not contain white space"))]
    pub image: String,

    /// Number of media pods, 0 or 1. Default 1. 0 stops the service: no new session is taken, those that
    /// run have `rollout.drainTimeoutSeconds` to end, then the pod goes; addresses and keys stay. 1 again
    /// in that time keeps the pod and its sessions.
    #[serde(default = "one")]
    #[schemars(default = "one")]
    #[x_kube(validation = Rule::new("self >= 0 && self <= 1")
        .message("replicas can be 0 or 1 for now: every device and viewer of a MediaService meet in one pod; for more capacity raise spec.pod.resources, or make one MediaService per group of devices"))]
    pub replicas: i32,

    /// True: the operator writes nothing but the status; what it would do waits, and what runs goes on.
    /// Default false. Touches no session. A pod that drains meanwhile takes no session either, and the time of its
    /// drain runs on, because its sessions have that time too: it may be over when this ends.
    #[serde(default)]
    pub paused: bool,

    /// Where the root of all internal keys is: at least 32 random bytes. Default: a Secret
    /// `<name>-generated` that the operator makes and never reads. A change replaces the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_key_secret_ref: Option<SecretKeyRef>,

    /// Who may publish and view. Default: tokens signed with HS256 and a generated key.
    #[serde(default)]
    pub auth: Auth,

    /// How clients reach the HTTP side: WHIP, WHEP and the pages.
    #[serde(default)]
    pub signalling: Signalling,

    /// How media packets reach the pod.
    #[serde(default)]
    pub media: Media,

    /// What one pod and one device may use.
    #[serde(default)]
    pub limits: Limits,

    /// How pods are replaced and stopped.
    #[serde(default)]
    pub rollout: RolloutPolicy,

    /// STUN and TURN servers that clients are told of. Default: none.
    #[serde(default)]
    pub turn: Turn,

    /// Who is told of sessions and recordings. Default: nobody.
    #[serde(default)]
    pub events: Events,

    /// Whether devices can be recorded, and where recordings are kept. Default: they can't.
    #[serde(default)]
    pub recording: Recording,

    /// Narrow changes to the media pod. Any change replaces the pod.
    #[serde(default)]
    pub pod: Pod,

    /// Objects for Prometheus and Grafana, and what pods expose.
    #[serde(default)]
    pub monitoring: Monitoring,

    /// What the pods tell of themselves beside metrics.
    #[serde(default)]
    pub observability: Observability,

    /// Who may reach the pod.
    #[serde(default)]
    pub network_policy: NetworkPolicy,
}

fn one() -> i32 {
    1
}

/// The CRD as `operator crd` prints it and `crds/mediaservices.yaml` holds it.
pub fn definition()
-> k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition {
    MediaService::crd()
}

/// A CEL rule as the schema's extension; `#[x_kube(validation)]` can't be used on types that take
/// their defaults from `Default`.
pub fn rule(rule: &str, message: &str) -> serde_json::Value {
    serde_json::json!([{"rule": rule, "message": message}])
}

/// A field whose content is a part of a pod's spec: the API server keeps every key below it and looks
/// at none. Spelling these types out would take most of the CRD's size. Its Rust type must be
/// [`serde_json::Value`]: one object that can't be decoded keeps the watch from every other. What it
/// holds is decoded by `validate`.
pub fn opaque_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// A list of [`opaque_object`].
pub fn opaque_list(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "maxItems": 32,
        "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    })
}

/// Name of a Kubernetes object given by the user.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq)]
pub struct LocalRef {
    /// Name of an object in the namespace of the MediaService.
    pub name: String,
}

#[cfg(test)]
mod tests;
