//! `spec.recording`: whether devices can be recorded, and where recordings are kept. Types only.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rule;

/// Whether devices can be recorded, and where recordings are kept.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Recording {
    /// Whether `/api/media/recordings` records. Default false. A change replaces the pod. True needs a media
    /// server of the operator's version: one that does not know it ends at once, so where the pod has an
    /// older image yet, set `image` or `rollout.onOperatorUpgrade: Roll` with it.
    pub enabled: bool,

    /// PersistentVolumeClaim in the namespace that recordings are kept on; the pod's group 65532 must be
    /// able to write to it. Default "": an emptyDir, whose recordings end with the pod. A change replaces the
    /// pod and moves no recording.
    #[schemars(length(max = 253))]
    #[schemars(extend("x-kubernetes-validations" = rule("self == '' || self.matches('^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$')", "recording.claimName must be the name of a PersistentVolumeClaim, or empty")))]
    pub claim_name: String,

    /// Bytes that all recordings may take, such as 500Mi or 10Gi. Default 10Gi. One that reaches it ends as
    /// failed, and none starts while it is reached; a fifth more is the limit of the emptyDir. A change
    /// replaces the pod.
    #[schemars(length(max = 20))]
    #[schemars(extend("x-kubernetes-validations" = rule("self.matches('^[1-9][0-9]{0,11}(k|M|G|T|Ki|Mi|Gi|Ti)?$')", "recording.sizeLimit must be a whole number of bytes with k, M, G, T, Ki, Mi, Gi, Ti or nothing behind it, such as 10Gi")))]
    pub size_limit: String,

    /// Seconds that one recording may last, 0-31536000. Default 14400; 0 is for ever. A change replaces the
    /// pod.
    #[schemars(extend("x-kubernetes-validations" = rule("self >= 0 && self <= 31536000", "recording.maxSeconds must be 0 to 31536000, in seconds; 0 is for ever")))]
    pub max_seconds: i32,
}

impl Default for Recording {
    fn default() -> Self {
        Self {
            enabled: false,
            claim_name: String::new(),
            size_limit: "10Gi".into(),
            max_seconds: 14_400,
        }
    }
}
