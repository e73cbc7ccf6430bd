//! Tokens: who asks, and what they may do.
//!
//! Owns the keys (re-read every 5 s) and the rules of a valid token. Never logs a token or a key, and
//! never decides on a status: it answers with [`Principal`] or [`AuthError`]. Called by the API for
//! every request that needs a token, and by `media-server token`.

use crate::config::{JwtConfig, KeySource};
use clap::ValueEnum;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest lifetime of a token, from `iat` or from now where there is none. A stolen token is worth
/// this long at most.
pub const MAX_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// Clock difference to the token's maker that is tolerated.
const SKEW: u64 = 30;
/// Only HMAC: a key file is never taken for a public key.
const ALGORITHMS: [Algorithm; 3] = [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512];
/// Longest token looked at; headers are bounded by hyper as well.
const MAX_TOKEN_BYTES: usize = 8192;

/// A kind of grant, as `media-server token` is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Grant {
    Publish,
    View,
    /// What its viewers ask of the device, see docs/publish-and-watch.md.
    Control,
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
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub admin: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Claims {
    sub: String,
    iss: String,
    aud: Audience,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exp: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iat: Option<u64>,
    #[serde(default)]
    media: Grants,
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
    grants: Grants,
    everything: bool,
}

impl Principal {
    fn anybody() -> Principal {
        Principal {
            subject: None,
            grants: Grants::default(),
            everything: true,
        }
    }

    /// Whether publishing as `device` is granted.
    pub fn may_publish(&self, device: &str) -> bool {
        self.everything || covers(&self.grants.publish, device)
    }

    /// Whether watching `device` is granted.
    pub fn may_view(&self, device: &str) -> bool {
        self.everything || self.grants.admin || covers(&self.grants.view, device)
    }

    /// Whether a viewer of `device` may control it.
    pub fn may_control(&self, device: &str) -> bool {
        self.everything || covers(&self.grants.control, device)
    }

    /// Whether it may call itself `user` in a request of the older API.
    pub fn is_user(&self, user: &str) -> bool {
        self.everything || self.grants.admin || self.subject.as_deref() == Some(user)
    }

    /// Whether a session that `owner` made may be asked about and ended: by its maker, by an
    /// administrator, and by anybody where no token is asked for.
    pub fn owns(&self, owner: Option<&str>) -> bool {
        self.everything && self.subject.is_none()
            || self.grants.admin
            || self.subject.is_some() && self.subject.as_deref() == owner
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
    #[error("the token's algorithm is not HS256, HS384 or HS512")]
    Algorithm,
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
}

impl AuthError {
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
}

/// Checks tokens. Shared by all handlers.
pub struct Authorizer {
    jwt: Option<Jwt>,
}

struct Jwt {
    config: JwtConfig,
    /// The current key, and the previous one while it is being replaced.
    keys: RwLock<Vec<Vec<u8>>>,
}

impl Authorizer {
    /// Reads the keys.
    ///
    /// # Errors
    /// [`KeyError`] when the key can't be had: a server that could check no token must not start.
    pub fn new(config: Option<JwtConfig>) -> Result<Authorizer, KeyError> {
        let jwt = match config {
            None => None,
            Some(config) => {
                let keys = read_keys(&config.key)?;
                if keys.iter().any(|key| key.len() < 32) {
                    // RFC 7518 §3.2 asks for as many bits as the hash has.
                    tracing::warn!("the token key is shorter than 32 bytes; use a longer one");
                }
                Some(Jwt {
                    config,
                    keys: RwLock::new(keys),
                })
            }
        };
        Ok(Authorizer { jwt })
    }

    /// Whether requests need a token.
    pub fn asks_for_tokens(&self) -> bool {
        self.jwt.is_some()
    }

    /// Reads the key file again. A file that can't be read leaves the old keys in force.
    pub fn reload(&self) {
        let Some(jwt) = &self.jwt else { return };
        match read_keys(&jwt.config.key) {
            Ok(keys) => {
                let mut known = jwt.keys.write().unwrap_or_else(PoisonError::into_inner);
                if *known != keys {
                    *known = keys;
                    tracing::info!("token keys changed");
                }
            }
            Err(error) => tracing::warn!(%error, "token key unreadable, the last one stays"),
        }
    }

    /// Checks the value of an `Authorization` header.
    ///
    /// # Errors
    /// [`AuthError`]; nothing of the token is in it.
    pub fn check(&self, authorization: Option<&str>) -> Result<Principal, AuthError> {
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
        let claims = jwt.verify(token)?;
        jwt.check_lifetime(&claims)?;
        Ok(Principal {
            subject: Some(claims.sub),
            grants: claims.media,
            everything: !jwt.config.enforce_grants,
        })
    }
}

impl Jwt {
    fn verify(&self, token: &str) -> Result<Claims, AuthError> {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.algorithms = ALGORITHMS.to_vec();
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
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let mut error = AuthError::Signature;
        for key in keys.iter() {
            let key = DecodingKey::from_secret(key);
            match jsonwebtoken::decode::<Claims>(token, &key, &validation) {
                Ok(data) if data.claims.sub.is_empty() => return Err(AuthError::Subject),
                Ok(data) => return Ok(data.claims),
                Err(e) => error = reason(e.kind()),
            }
            if error != AuthError::Signature {
                break;
            }
        }
        Err(error)
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

/// Makes a token that expires `ttl` from now.
///
/// # Errors
/// [`KeyError`] when there is no key to sign with.
pub fn mint(
    config: &JwtConfig,
    subject: &str,
    devices: &[String],
    grants: &[Grant],
    ttl: Duration,
) -> Result<String, KeyError> {
    let granted = |grant: Grant| {
        if grants.contains(&grant) {
            devices.to_vec()
        } else {
            Vec::new()
        }
    };
    let now = unix_now();
    let claims = Claims {
        sub: subject.to_owned(),
        iss: config.issuer.clone(),
        aud: Audience::One(config.audience.clone()),
        exp: Some(now + ttl.min(MAX_LIFETIME).as_secs()),
        iat: Some(now),
        media: Grants {
            publish: granted(Grant::Publish),
            view: granted(Grant::View),
            control: granted(Grant::Control),
            admin: grants.contains(&Grant::Admin),
        },
    };
    let keys = read_keys(&config.key)?;
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
mod tests {
    use super::*;

    const KEY: &str = "a key of at least thirty-two bytes";

    fn config() -> JwtConfig {
        JwtConfig {
            key: KeySource::Text(KEY.to_owned()),
            issuer: "i".to_owned(),
            audience: "a".to_owned(),
            enforce_grants: true,
        }
    }

    fn check(token: &str) -> Result<Principal, AuthError> {
        Authorizer::new(Some(config()))
            .expect("a key")
            .check(Some(&format!("Bearer {token}")))
    }

    fn signed(claims: &serde_json::Value, algorithm: Algorithm) -> String {
        let key = EncodingKey::from_secret(KEY.as_bytes());
        jsonwebtoken::encode(&Header::new(algorithm), claims, &key).expect("signs")
    }

    fn claims() -> serde_json::Value {
        serde_json::json!({
            "sub": "alice", "iss": "i", "aud": ["x", "a"], "exp": unix_now() + 600,
            "media": {"publish": ["cam-1"], "view": ["cam-*"], "control": ["cam-2"]},
        })
    }

    #[test]
    fn grants_cover_exact_names_and_starts() {
        let principal = check(&signed(&claims(), Algorithm::HS256)).expect("a right token");
        assert!(principal.may_publish("cam-1") && !principal.may_publish("cam-10"));
        assert!(principal.may_view("cam-10") && !principal.may_view("door"));
        assert!(principal.may_control("cam-2") && !principal.may_control("cam-1"));
        assert!(principal.owns(Some("alice")) && !principal.owns(Some("bob")));
        assert!(!principal.owns(None));
    }

    #[test]
    fn the_longer_hmac_algorithms_are_taken_too() {
        for algorithm in ALGORITHMS {
            assert!(
                check(&signed(&claims(), algorithm)).is_ok(),
                "{algorithm:?}"
            );
        }
    }

    #[test]
    fn every_wrong_token_is_refused_for_its_reason() {
        let with = |key: &str, value: serde_json::Value| {
            let mut claims = claims();
            claims[key] = value;
            signed(&claims, Algorithm::HS256)
        };
        let without = |key: &str| {
            let mut claims = claims();
            claims.as_object_mut().expect("an object").remove(key);
            signed(&claims, Algorithm::HS256)
        };
        let good = signed(&claims(), Algorithm::HS256);
        let unsigned = format!(
            "eyJhbGciOiJub25lIn0.{}.",
            good.split('.').nth(1).expect("claims")
        );
        let cases = [
            (with("iss", "z".into()), AuthError::Claims),
            (with("aud", "z".into()), AuthError::Claims),
            (with("sub", "".into()), AuthError::Subject),
            (without("exp"), AuthError::Claims),
            (without("aud"), AuthError::Claims),
            (with("exp", (unix_now() - 60).into()), AuthError::Expired),
            (with("nbf", (unix_now() + 60).into()), AuthError::Expired),
            (
                with("exp", (unix_now() + 100_000).into()),
                AuthError::Lifetime,
            ),
            (
                signed(
                    &serde_json::json!({
                        "sub": "alice", "iss": "i", "aud": "a",
                        "iat": unix_now() + 1_000_000, "exp": unix_now() + 1_000_600,
                    }),
                    Algorithm::HS256,
                ),
                AuthError::Lifetime,
            ),
            (format!("{good}x"), AuthError::Signature),
            ("x.y.z".to_owned(), AuthError::Malformed),
            (String::new(), AuthError::Malformed),
        ];
        for (token, wanted) in cases {
            assert_eq!(check(&token), Err(wanted), "{token}");
        }
        assert!(check(&unsigned).is_err(), "alg none must never do");
    }

    #[test]
    fn a_missing_or_odd_header_is_told_apart() {
        let authorizer = Authorizer::new(Some(config())).expect("a key");
        assert_eq!(authorizer.check(None), Err(AuthError::Missing));
        assert_eq!(
            authorizer.check(Some("Basic eDp5")),
            Err(AuthError::Malformed)
        );
    }

    #[test]
    fn a_minted_token_is_taken_and_holds_what_was_asked() {
        let token = mint(
            &config(),
            "me",
            &["cam-1".to_owned()],
            &[Grant::View],
            Duration::from_secs(60),
        )
        .expect("a key");
        let principal = check(&token).expect("a right token");
        assert!(principal.may_view("cam-1") && !principal.may_publish("cam-1"));
        assert!(!principal.may_control("cam-1"));
    }

    #[test]
    fn without_tokens_everything_is_allowed() {
        let principal = Authorizer::new(None)
            .expect("no key needed")
            .check(None)
            .expect("no token needed");
        assert!(principal.may_publish("x") && principal.may_view("x") && principal.owns(None));
    }

    #[test]
    fn a_text_key_loses_its_newline_and_a_binary_one_keeps_every_byte() {
        let dir = std::env::temp_dir().join(format!("media-server-keys-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a directory");
        let path = dir.join("key");
        std::fs::write(&path, b"text\n").expect("written");
        assert_eq!(read_key(&path).expect("read"), b"text");
        std::fs::write(&path, b"\xff\x00\n").expect("written");
        assert_eq!(read_key(&path).expect("read"), b"\xff\x00\n");
        std::fs::write(&path, b"\n").expect("written");
        assert!(matches!(read_key(&path), Err(KeyError::Empty { .. })));
        std::fs::remove_dir_all(&dir).expect("removed");
    }
}
