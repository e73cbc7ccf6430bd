//! Tokens: who asks, and what they may do.
//!
//! Owns the keys (the file's re-read every 5 s, the provider's in `auth/jwks.rs`) and the rules of a valid token. Never logs a
//! token or a key, and never decides on a status: it answers with [`Principal`] or [`AuthError`]. Called by the API for
//! every request that needs a token, and by `media-server token`.

pub mod jwks;

use self::jwks::Jwks;
use crate::config::{JwtConfig, KeySource};
use crate::devices::is_name;
use crate::outbound::{self, OutboundError};
use clap::ValueEnum;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest lifetime of a token, from `iat` or from now where there is none. A stolen token is worth
/// this long at most.
pub const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Clock difference to the token's maker that is tolerated.
const SKEW: u64 = 30;
/// The algorithms of the key file. Never those of [`jwks::ALGORITHMS`]: a public key is no secret.
const HMAC: [Algorithm; 3] = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
/// Longest token looked at; headers are bounded by hyper as well.
const MAX_TOKEN_BYTES: usize = 8192;

/// A kind of grant, as `media-server token` is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Grant {
    Publish,
    View,
    /// What its viewers ask of the device, see docs/publish-and-watch.md.
    Control,
    /// Record the device, and use its recordings.
    Record,
    Admin,
}

/// What a token grants, per kind a list of devices: exact names, or a start followed by `*`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Grants {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub view: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub control: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub record: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub admin: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Claims {
    sub: String,
    iss: String,
    aud: Audience,
    #[serde(
        default,
        deserialize_with = "whole_seconds",
        skip_serializing_if = "Option::is_none"
    )]
    exp: Option<u64>,
    #[serde(
        default,
        deserialize_with = "whole_seconds",
        skip_serializing_if = "Option::is_none"
    )]
    iat: Option<u64>,
    /// [`Grants`], where they count.
    #[serde(default)]
    media: Value,
    /// The tenant is in one of them.
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// A time, which may have a fraction (NumericDate, RFC 7519 §2).
fn whole_seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match Option::<f64>::deserialize(deserializer)? {
        Some(seconds) if seconds < 0.0 => Err(D::Error::custom("a time before 1970")),
        seconds => Ok(seconds.map(|seconds| seconds as u64)),
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// `None` where no token is asked for: everybody is the same.
    pub subject: Option<String>,
    /// `Some` where there are tenants.
    tenant: Option<String>,
    grants: Grants,
    everything: bool,
}

/// Devices are named by their keys, see `devices.rs`. Nothing is granted of another tenant's.
impl Principal {
    fn anybody() -> Principal {
        Principal {
            subject: None,
            tenant: None,
            grants: Grants::default(),
            everything: true,
        }
    }

    /// The key of the device that this one calls `name`.
    pub fn key_of(&self, name: &str) -> Arc<str> {
        match &self.tenant {
            Some(tenant) => format!("{tenant}/{name}").into(),
            None => name.into(),
        }
    }

    /// What tells this one from all others, of other tenants too; `None` where everybody is the same.
    pub fn holder(&self) -> Option<Arc<str>> {
        self.subject.as_deref().map(|subject| self.key_of(subject))
    }

    /// Whether publishing as some device or watching one is granted.
    pub fn may_use_something(&self) -> bool {
        let Grants { publish, view, .. } = &self.grants;
        self.everything || self.grants.admin || !publish.is_empty() || !view.is_empty()
    }

    /// Whether publishing as the device is granted.
    pub fn may_publish(&self, key: &str) -> bool {
        self.has(key, &self.grants.publish)
    }

    /// Whether it may call itself `user` in a request of the older API.
    pub fn is_user(&self, user: &str) -> bool {
        self.everything || self.grants.admin || self.subject.as_deref() == Some(user)
    }

    /// Whether watching the device is granted.
    pub fn may_view(&self, key: &str) -> bool {
        self.has(key, &self.grants.view) || self.grants.admin && self.name(key).is_some()
    }

    /// Whether a viewer of the device may control it.
    pub fn may_control(&self, key: &str) -> bool {
        self.has(key, &self.grants.control)
    }

    /// Whether the device may be recorded, and its recordings used.
    pub fn may_record(&self, key: &str) -> bool {
        self.has(key, &self.grants.record) || self.grants.admin && self.name(key).is_some()
    }

    /// Whether a session of the device that `owner` made may be asked about and ended: by its maker, by an administrator of
    /// its tenant, and by anybody where no token is asked for.
    pub fn owns(&self, key: &str, owner: Option<&str>) -> bool {
        let made = self.subject.is_none() && self.everything
            || self.subject.is_some() && self.subject.as_deref() == owner;
        self.name(key).is_some() && (made || self.grants.admin)
    }

    /// What this one calls the device; `None` if it is another tenant's.
    fn name<'a>(&self, key: &'a str) -> Option<&'a str> {
        match &self.tenant {
            Some(tenant) => key.strip_prefix(&**tenant)?.strip_prefix('/'),
            None => Some(key),
        }
    }

    fn has(&self, key: &str, granted: &[String]) -> bool {
        self.name(key)
            .is_some_and(|name| self.everything || covers(granted, name))
    }
}

fn covers(patterns: &[String], device: &str) -> bool {
    patterns
        .iter()
        .any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => device.starts_with(start),
            None => pattern == device,
        })
}

/// Why a token is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("this needs a token; send it as Authorization: Bearer <token>")]
    Missing,
    #[error("the Authorization header is not of the form Bearer <token>, or the token is no JWT")]
    Malformed,
    #[error("the token's algorithm is none that this server has keys for")]
    Algorithm,
    #[error("the token does not say by its kid which key it is signed with")]
    KeyId,
    #[error("the token is not signed with a key of this server")]
    Signature,
    #[error("the token has expired, or is not valid yet")]
    Expired,
    #[error("the token lacks iss, aud, sub or exp, or names another issuer or audience")]
    Claims,
    #[error("the token's sub is empty")]
    Subject,
    #[error("the token lives longer than 24 hours; make one that expires sooner")]
    Lifetime,
    #[error(
        "the token names no tenant, or one that is not 1 to 128 of the characters A-Z a-z 0-9 . _ -"
    )]
    Tenant,
    #[error("the identity provider's keys can't be had now; try again")]
    NoKeys,
    #[error("the token names a key that can't be looked up now; try again")]
    UnknownKey,
}

impl AuthError {
    /// The token may be good: who sent it comes again.
    pub fn may_be_good(self) -> bool {
        matches!(self, AuthError::NoKeys | AuthError::UnknownKey)
    }

    /// Value of the `reason` label.
    pub fn reason(self) -> &'static str {
        match self {
            AuthError::Missing => "missing",
            AuthError::Malformed => "malformed",
            AuthError::Algorithm => "algorithm",
            AuthError::Signature => "signature",
            AuthError::Expired => "expired",
            AuthError::Claims | AuthError::Subject => "claims",
            AuthError::Lifetime => "lifetime",
            AuthError::KeyId | AuthError::UnknownKey => "key_id",
            AuthError::Tenant => "tenant",
            AuthError::NoKeys => "no_keys",
        }
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("failed to read the token key {path}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the token key {path} is empty; 32 random bytes are right")]
    Empty { path: PathBuf },
    #[error("failed to sign the token: {0}")]
    Sign(String),
    #[error("there is no key to sign with; those of an identity provider only check tokens")]
    None,
    #[error("the server reads a tenant from the claim {claim}; give --tenant")]
    Tenant { claim: String },
    #[error("failed to prepare asking for keys")]
    Outbound(#[from] OutboundError),
}

/// Checks tokens. Shared by all handlers.
pub struct Authorizer {
    jwt: Option<Jwt>,
}

struct Jwt {
    config: JwtConfig,
    /// The current key of the file, and the previous one while it is being replaced; none without a file.
    hmac: RwLock<Vec<Vec<u8>>>,
    jwks: Option<Jwks>,
}

impl Authorizer {
    /// Reads the key file; the provider's keys come with [`Jwks::follow`]. `ca_file` as in [`outbound::client`].
    ///
    /// # Errors
    /// [`KeyError`] when the file's key can't be had: a server that could check no token must not start.
    pub fn new(config: Option<JwtConfig>, ca_file: Option<&Path>) -> Result<Authorizer, KeyError> {
        let Some(config) = config else {
            return Ok(Authorizer { jwt: None });
        };
        let keys = config.hmac.as_ref().map_or(Ok(Vec::new()), read_keys)?;
        if keys.iter().any(|key| key.len() < 32) {
            // RFC 7518 §3.2 asks for as many bits as the hash has.
            tracing::warn!("the token key is shorter than 32 bytes; use a longer one");
        }
        let jwks = match &config.jwks_url {
            Some(url) => Some(Jwks::new(url.clone(), outbound::client(ca_file)?)),
            None => None,
        };
        let jwt = Some(Jwt {
            config,
            hmac: RwLock::new(keys),
            jwks,
        });
        Ok(Authorizer { jwt })
    }

    /// Whether requests need a token.
    pub fn asks_for_tokens(&self) -> bool {
        self.jwt.is_some()
    }

    /// Keys of an identity provider, where it is asked for some.
    pub fn jwks(&self) -> Option<&Jwks> {
        self.jwt.as_ref()?.jwks.as_ref()
    }

    /// Reads the key file again. A file that can't be read leaves the old keys in force.
    pub fn reload(&self) {
        let Some(jwt) = &self.jwt else { return };
        let Some(source) = &jwt.config.hmac else {
            return;
        };
        match read_keys(source) {
            Ok(keys) => {
                let mut known = jwt.hmac.write().unwrap_or_else(PoisonError::into_inner);
                if *known != keys {
                    *known = keys;
                    tracing::info!("token keys changed");
                }
            }
            Err(error) => tracing::warn!(%error, "token key unreadable, the last one stays"),
        }
    }

    /// Checks the value of an `Authorization` header. Waits only for the key of a token that names a new one.
    ///
    /// # Errors
    /// [`AuthError`]; nothing of the token is in it.
    pub async fn check(&self, authorization: Option<&str>) -> Result<Principal, AuthError> {
        let Some(jwt) = &self.jwt else {
            return Ok(Principal::anybody());
        };
        let header = authorization.ok_or(AuthError::Missing)?;
        let token = header
            .split_once(' ')
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim())
            .filter(|token| token.len() <= MAX_TOKEN_BYTES)
            .ok_or(AuthError::Malformed)?;
        let claims = jwt.verify(token).await?;
        jwt.check_lifetime(&claims)?;
        Ok(Principal {
            tenant: jwt.tenant(&claims)?,
            grants: jwt.grants(&claims)?,
            subject: Some(claims.sub),
            everything: !jwt.config.enforce_grants,
        })
    }
}

impl Jwt {
    /// The token's algorithm chooses where its key is looked for, and is the only one that the key is used with.
    async fn verify(&self, token: &str) -> Result<Claims, AuthError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| AuthError::Malformed)?;
        match (&self.config.hmac, &self.jwks) {
            (Some(_), _) if HMAC.contains(&header.alg) => self.verify_hmac(token, header.alg),
            (_, Some(jwks)) if jwks::ALGORITHMS.contains(&header.alg) => {
                let id = header.kid.filter(|id| !id.is_empty());
                let key = jwks.key(&id.ok_or(AuthError::KeyId)?, header.alg).await?;
                self.decode(token, &key, header.alg)
            }
            _ => Err(AuthError::Algorithm),
        }
    }

    fn verify_hmac(&self, token: &str, algorithm: Algorithm) -> Result<Claims, AuthError> {
        let keys = self.hmac.read().unwrap_or_else(PoisonError::into_inner);
        let mut tried = keys
            .iter()
            .map(|key| self.decode(token, &DecodingKey::from_secret(key), algorithm));
        tried
            .find(|result| !matches!(result, Err(AuthError::Signature)))
            .unwrap_or(Err(AuthError::Signature))
    }

    fn decode(
        &self,
        token: &str,
        key: &DecodingKey,
        algorithm: Algorithm,
    ) -> Result<Claims, AuthError> {
        let mut validation = Validation::new(algorithm);
        validation.leeway = SKEW;
        validation.validate_nbf = true;
        validation.validate_exp = true;
        validation.set_issuer(&[&self.config.issuer]);
        validation.set_audience(&[&self.config.audience]);
        let mut required = vec!["iss", "aud", "sub"];
        if self.config.enforce_grants {
            required.push("exp");
        }
        validation.set_required_spec_claims(&required);
        match jsonwebtoken::decode::<Claims>(token, key, &validation) {
            Ok(data) if data.claims.sub.is_empty() => Err(AuthError::Subject),
            Ok(data) => Ok(data.claims),
            Err(error) => Err(reason(error.kind())),
        }
    }

    fn check_lifetime(&self, claims: &Claims) -> Result<(), AuthError> {
        let Some(exp) = claims.exp else { return Ok(()) };
        // A time of issue in the future would make the lifetime look short.
        let now = unix_now();
        let from = claims.iat.map_or(now, |iat| iat.min(now));
        if exp.saturating_sub(from) > MAX_LIFETIME.as_secs() + SKEW && self.config.enforce_grants {
            return Err(AuthError::Lifetime);
        }
        Ok(())
    }

    /// Where they don't count, the claim may be somebody else's, of any shape.
    fn grants(&self, claims: &Claims) -> Result<Grants, AuthError> {
        match Option::<Grants>::deserialize(&claims.media) {
            Ok(grants) => Ok(grants.unwrap_or_default()),
            Err(_) if self.config.enforce_grants => Err(AuthError::Claims),
            Err(_) => Ok(Grants::default()),
        }
    }

    fn tenant(&self, claims: &Claims) -> Result<Option<String>, AuthError> {
        let Some(claim) = &self.config.tenant_claim else {
            return Ok(None);
        };
        let tenant = claims.others.get(claim).and_then(Value::as_str);
        let tenant = tenant.filter(|tenant| is_name(tenant));
        Ok(Some(tenant.ok_or(AuthError::Tenant)?.to_owned()))
    }
}

fn reason(kind: &ErrorKind) -> AuthError {
    match kind {
        ErrorKind::InvalidSignature => AuthError::Signature,
        ErrorKind::ExpiredSignature | ErrorKind::ImmatureSignature => AuthError::Expired,
        ErrorKind::InvalidAlgorithm
        | ErrorKind::InvalidAlgorithmName
        | ErrorKind::UnsupportedAlgorithm => AuthError::Algorithm,
        ErrorKind::InvalidIssuer
        | ErrorKind::InvalidAudience
        | ErrorKind::InvalidSubject
        | ErrorKind::InvalidClaimFormat(_)
        | ErrorKind::MissingRequiredClaim(_)
        // The payload is signed, and lacks a field or has one of another type.
        | ErrorKind::Json(_) => AuthError::Claims,
        _ => AuthError::Malformed,
    }
}

/// Whom a token is made for, and what it grants.
#[derive(Debug, Clone, Copy)]
pub struct Holder<'a> {
    pub subject: &'a str,
    /// Where there are tenants.
    pub tenant: Option<&'a str>,
    pub devices: &'a [String],
    pub grants: &'a [Grant],
}

/// Makes a token that expires `ttl` from now.
///
/// # Errors
/// [`KeyError`] when there is no key to sign with, or no tenant where the server would ask for one.
pub fn mint(config: &JwtConfig, holder: Holder, ttl: Duration) -> Result<String, KeyError> {
    let granted = |grant: Grant| {
        if holder.grants.contains(&grant) {
            holder.devices.to_vec()
        } else {
            Vec::new()
        }
    };
    let mut others = Map::new();
    if let Some(claim) = &config.tenant_claim {
        let tenant = holder.tenant.ok_or_else(|| KeyError::Tenant {
            claim: claim.clone(),
        })?;
        others.insert(claim.clone(), tenant.into());
    }
    let now = unix_now();
    let media = Grants {
        publish: granted(Grant::Publish),
        view: granted(Grant::View),
        control: granted(Grant::Control),
        record: granted(Grant::Record),
        admin: holder.grants.contains(&Grant::Admin),
    };
    let claims = Claims {
        sub: holder.subject.to_owned(),
        iss: config.issuer.clone(),
        aud: Audience::One(config.audience.clone()),
        exp: Some(now + ttl.min(MAX_LIFETIME).as_secs()),
        iat: Some(now),
        media: serde_json::to_value(media).map_err(|e| KeyError::Sign(e.to_string()))?,
        others,
    };
    let keys = read_keys(config.hmac.as_ref().ok_or(KeyError::None)?)?;
    let key = EncodingKey::from_secret(&keys[0]);
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)
        .map_err(|e| KeyError::Sign(e.to_string()))
}

/// The current key, first, and the previous one where there is a file for it.
fn read_keys(source: &KeySource) -> Result<Vec<Vec<u8>>, KeyError> {
    let path = match source {
        KeySource::Text(text) => return Ok(vec![text.as_bytes().to_vec()]),
        KeySource::File(path) => path,
    };
    let mut keys = vec![read_key(path)?];
    let mut previous = path.clone().into_os_string();
    previous.push("-previous");
    if let Ok(key) = read_key(Path::new(&previous)) {
        keys.push(key);
    }
    Ok(keys)
}

/// A key is the file's bytes; of a text file, without the newline that editors put at its end.
fn read_key(path: &Path) -> Result<Vec<u8>, KeyError> {
    let mut bytes = std::fs::read(path).map_err(|source| KeyError::Read {
        path: path.to_owned(),
        source,
    })?;
    if std::str::from_utf8(&bytes).is_ok() && bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    if bytes.is_empty() {
        return Err(KeyError::Empty {
            path: path.to_owned(),
        });
    }
    Ok(bytes)
}

fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
