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

    /// Secret with the key that tokens are signed with (HS256, HS384, HS512). Default: with `jwksURL` none, else a
    /// generated one, in the Secret `<name>-generated` under `jwt-hmac`. A change replaces the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hmac_secret_ref: Option<SecretKeyRef>,

    /// https address of an identity provider's keys (JWKS), for tokens signed with RS256, ES256 or EdDSA. They are
    /// fetched every 10 minutes and when a token names a new one; while the provider can't be reached the last
    /// ones stay for a day. Redirects are not followed. Default "": none. A change replaces the pod. It needs a
    /// media server of the operator's version: where the pod has an older image, set `image` or
    /// `rollout.onOperatorUpgrade: Roll` with it.
    #[serde(rename = "jwksURL")]
    #[schemars(extend("x-kubernetes-validations" = rule("self == '' || (self.size() <= 2048 && self.matches('^https://[^@ ]+$'))", "jwksURL must start with https:// and have no user name, such as https://login.example.com/jwks.json")))]
    pub jwks_url: String,

    /// Claim of tokens that names their tenant, such as tenantId. Each tenant then has devices, sessions and lists of
    /// its own; the tenant is never a part of a URL, and metrics name devices as `<tenant>/<device>`. Default
    /// "": there are no tenants. A change replaces the pod, and needs a media server of the operator's version as
    /// `jwksURL` does.
    #[schemars(extend("x-kubernetes-validations" = rule("self.size() <= 253 && !(self in ['sub', 'iss', 'aud', 'exp', 'iat', 'nbf', 'jti', 'media'])", "tenantClaim must be a claim of its own, such as tenantId, of at most 253 characters")))]
    pub tenant_claim: String,

    /// Whether a token's `media` claim says what it may do with which devices. Default true. False: any valid
    /// token may use any device, of its tenant where there are tenants, and need not expire. A change replaces
    /// the pod.
    pub enforce_grants: bool,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            issuer: "cloudphone-platform".into(),
            audience: "cloudphone-users".into(),
            hmac_secret_ref: None,
            jwks_url: String::new(),
            tenant_claim: String::new(),
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
