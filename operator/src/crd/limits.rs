//! `spec.limits`: what one pod and one device may use. Types only.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rule;

/// What one pod and one device may use.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Publishers and viewers of one pod, 1-100000. Default 2000. Beyond it a new session gets 503
    /// with Retry-After. A change replaces the pod.
    #[schemars(extend("x-kubernetes-validations" = rule("self >= 1 && self <= 100000", "sessionsPerPod must be 1 to 100000")))]
    pub sessions_per_pod: i32,

    /// Viewers of one device, 1-100000. Default 8000. Beyond it a new viewer gets 503. A change
    /// replaces the pod.
    #[schemars(extend("x-kubernetes-validations" = rule("self >= 1 && self <= 100000", "viewersPerDevice must be 1 to 100000")))]
    pub viewers_per_device: i32,

    /// Bandwidth of one video that publishers are asked to keep, in kbit/s, 100-50000. Default
    /// 12000. A change replaces the pod.
    #[schemars(extend("x-kubernetes-validations" = rule("self >= 100 && self <= 50000", "videoKbps must be 100 to 50000, in kbit/s")))]
    pub video_kbps: i32,

    /// Bandwidth of all video that a publisher is asked to keep to once nobody has watched it for 30 s, in
    /// kbit/s, 0-50000. Default 0: it is left alone. The next viewer ends that at once: the picture that it
    /// starts with is as poor as this, and is the usual one some seconds later. It reaches devices that
    /// take REMB, as browsers do; one with simulcast layers leaves out the upper ones. A change replaces the
    /// pod. Any but 0 needs a media server of the operator's version: one that does not know it ends at once,
    /// so where the pod has an older image yet, set `image` or `rollout.onOperatorUpgrade: Roll` with it.
    #[schemars(extend("x-kubernetes-validations" = rule("self >= 0 && self <= 50000", "idlePublisherKbps must be 0 to 50000, in kbit/s; 0 leaves publishers alone")))]
    pub idle_publisher_kbps: i32,

    /// Seconds that a session may last, 0-31536000. Default 0: for ever. A session that is older is
    /// closed, and its client may open another. A change replaces the pod.
    #[schemars(extend("x-kubernetes-validations" = rule("self >= 0 && self <= 31536000", "maxSessionSeconds must be 0 to 31536000, in seconds; 0 is for ever")))]
    pub max_session_seconds: i32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions_per_pod: 2000,
            viewers_per_device: 8000,
            video_kbps: 12000,
            idle_publisher_kbps: 0,
            max_session_seconds: 0,
        }
    }
}
