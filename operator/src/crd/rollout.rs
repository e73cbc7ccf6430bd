//! `spec.rollout`: how pods are replaced and stopped. Types only.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rule;

/// How pods are replaced and stopped.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutPolicy {
    /// Longest wait for the sessions of a pod that goes, 30-86400, in seconds. Default 540. It is the time
    /// that `replicas: 0` leaves sessions to end by themselves; those that are left then are closed, and
    /// no session is taken meanwhile. A pod that another follows has no more than 30 s of it, because the next
    /// one starts only when it is gone, and 5 s after SIGTERM, as when its node is drained. A change touches
    /// no session: it holds for drains from now on, also for one that is under way; the pod's grace period,
    /// which is 30 s longer, follows when it restarts.
    #[schemars(extend("x-kubernetes-validations" = rule("self >= 30 && self <= 86400", "drainTimeoutSeconds must be 30 to 86400, in seconds")))]
    pub drain_timeout_seconds: i32,

    /// What a new version of the operator does to pods that it would make differently. Default Wait: they stay,
    /// with their image, until they restart for another reason, and Progressing says OperatorUpdatePending.
    /// Roll: they drain for 30 s at the most and are replaced, and where `image` is empty the operator's
    /// default is taken. A change to Roll replaces the pod if there is something new for it.
    pub on_operator_upgrade: OnOperatorUpgrade,
}

impl Default for RolloutPolicy {
    fn default() -> Self {
        Self {
            drain_timeout_seconds: 540,
            on_operator_upgrade: OnOperatorUpgrade::Wait,
        }
    }
}

/// What becomes of pods that a new version of the operator would make differently.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOperatorUpgrade {
    Wait,
    Roll,
}
