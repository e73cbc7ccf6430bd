//! `spec.turn`: STUN and TURN servers that clients are told of. Types only.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BoundedString, SecretKeyRef, rule};

/// STUN and TURN servers of yours that clients are told of, for networks that let no UDP through.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rule("self.urls.all(u, !u.startsWith('turn')) || has(self.secretRef)", "a TURN server takes nobody without credentials: set turn.secretRef")))]
pub struct Turn {
    /// Addresses such as `turn:turn.example.com:3478?transport=udp` or `stun:stun.example.com`, at
    /// most 8. Default: none. A change replaces the pod.
    #[schemars(length(max = 8))]
    #[schemars(extend("x-kubernetes-validations" = rule("self.all(u, u.matches('^(stun|stuns|turn|turns):[!-~]+$') && !u.matches('[<>\"]'))", "each of turn.urls must be stun:, stuns:, turn: or turns: with a host, such as turn:turn.example.com:3478")))]
    pub urls: Vec<BoundedString>,

    /// Secret shared with the TURN server (coturn: static-auth-secret), which credentials are made
    /// with. Needed for TURN. A change of the reference replaces the pod; one of the Secret doesn't.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKeyRef>,

    /// Lifetime of credentials in seconds, 600-86400. Default 21600. Sessions that last longer have
    /// to get new ones. A change replaces the pod.
    #[schemars(extend("x-kubernetes-validations" = rule("self >= 600 && self <= 86400", "turn.ttlSeconds must be 600 to 86400")))]
    pub ttl_seconds: i32,
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            secret_ref: None,
            ttl_seconds: 21_600,
        }
    }
}
