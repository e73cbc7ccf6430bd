//! `spec.auth`: which tokens the media server takes. Types only.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rule;

/// Who may publish and view: tokens (JWT) with the claims named here.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Auth {
    /// The `iss` that a token must have. Default "cloudphone-platform". A change replaces the pod.
    #[schemars(extend("x-kubernetes-validations" = rule("self.size() >= 1 && self.size() <= 253", "issuer must be 1 to 253 characters: the iss claim of your tokens")))]
    pub issuer: String,

    /// What the token's `aud` must contain. Default "cloudphone-users". A change replaces the pod.
    #[schemars(extend("x-kubernetes-validations" = rule("self.size() >= 1 && self.size() <= 253", "audience must be 1 to 253 characters: a member of the aud claim of your tokens")))]
    pub audience: String,

    /// Secret with the key that tokens are signed with (HS256). Default: a generated one, in the
    /// Secret `<name>-generated` under `jwt-hmac`. A change replaces the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hmac_secret_ref: Option<SecretKeyRef>,

    /// Whether a token's `media` claim says which devices it may publish and view. Default true. False:
    /// any valid token may use any device. A change replaces the pod.
    pub enforce_grants: bool,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            issuer: "cloudphone-platform".into(),
            audience: "cloudphone-users".into(),
            hmac_secret_ref: None,
            enforce_grants: true,
        }
    }
}

/// One key of a Secret in the namespace of the MediaService.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(extend("x-kubernetes-validations" = rule("self.size() <= 253 && self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')", "name must be the name of a Secret: a-z, 0-9, '-' and '.'")))]
    pub name: String,
    /// Key in it.
    #[schemars(extend("x-kubernetes-validations" = rule("self.size() <= 253 && self.matches('^[-._a-zA-Z0-9]+$')", "key must be a key of that Secret: letters, digits, '-', '_' and '.'")))]
    pub key: String,
}
