//! The public keys of an identity provider (a JSON Web Key Set, RFC 7517), fetched from the URL of the configuration.
//!
//! Owns the last good set and when the next one is fetched: every 10 min, and when a token names a key that is not in it. Takes
//! RS256, ES256 and EdDSA keys that have a `kid`, and nothing else; a key with the secret of an HMAC is not looked at. Checks no
//! token: `auth.rs` asks for the key that one names. [`Jwks::follow`] runs as a task of the app.

use super::AuthError;
use crate::outbound::{self, Failure};
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use reqwest::{Client, StatusCode, Url, header};
use serde::Deserialize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// The algorithms of these keys. Never those of [`super::HMAC`]: a public key is no secret.
pub const ALGORITHMS: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

/// A key that its provider has taken back is good for so long at the most, while the provider answers.
const FETCH_EVERY: Duration = Duration::from_secs(600);
/// The same after a failure.
const RETRY_EVERY: Duration = Duration::from_secs(30);
/// Tokens with unknown keys, which anybody can make, cause no more than one request in this time.
const UNKNOWN_EVERY: Duration = Duration::from_secs(5);
/// How long a request waits for the set that may have its key, from when it is asked for: longer than a
/// fetch takes.
const WAIT: Duration = Duration::from_secs(6);
/// How long the last good set is used while the provider can't be asked.
const KEEP: Duration = Duration::from_secs(24 * 3600);
/// Providers publish 2 to 10 keys of 0.5 to 4 KB (with certificates).
const MAX_BYTES: usize = 256 * 1024;
const MAX_KEYS: usize = 64;

/// How a fetch ended; value of the `result` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    /// No connection, no TLS, or no answer in time.
    Unreachable,
    /// An address that is never asked.
    Address,
    /// Another status than 200; a redirect is one.
    Status,
    /// Too many bytes or keys.
    TooLarge,
    /// No key set.
    Malformed,
    /// Not one key that could be used.
    Empty,
}

impl Outcome {
    pub const ALL: [Outcome; 7] = [
        Outcome::Ok,
        Outcome::Unreachable,
        Outcome::Address,
        Outcome::Status,
        Outcome::TooLarge,
        Outcome::Malformed,
        Outcome::Empty,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Unreachable => "unreachable",
            Outcome::Address => "address",
            Outcome::Status => "status",
            Outcome::TooLarge => "too_large",
            Outcome::Malformed => "malformed",
            Outcome::Empty => "empty",
        }
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unreachable => Outcome::Unreachable,
            Failure::Address => Outcome::Address,
            Failure::TooLarge => Outcome::TooLarge,
        }
    }
}

/// The key set of one provider.
pub struct Jwks {
    url: Url,
    client: Client,
    last_good: RwLock<Option<Fetched>>,
    /// The last set had no key.
    was_empty: AtomicBool,
    /// A token named a key that is not known.
    wanted: Notify,
    /// When the last fetch ended, however it did; `None` before the first.
    ended: watch::Sender<Option<Instant>>,
    outcomes: [AtomicU64; Outcome::ALL.len()],
}

struct Fetched {
    keys: Vec<Key>,
    at: Instant,
}

#[derive(Clone)]
struct Key {
    id: String,
    algorithm: Algorithm,
    key: Arc<DecodingKey>,
}

impl Jwks {
    /// Fetches nothing yet.
    pub fn new(url: Url, client: Client) -> Jwks {
        Jwks {
            url,
            client,
            last_good: RwLock::new(None),
            was_empty: AtomicBool::new(false),
            wanted: Notify::new(),
            ended: watch::Sender::new(None),
            outcomes: Default::default(),
        }
    }

    /// The key that a token names. One that is not known is fetched; if a fetch has just been, after a moment. Without a
    /// set, what has just been in vain is not waited for again.
    ///
    /// # Errors
    /// [`AuthError::Signature`] when the provider has no such key, [`AuthError::NoKeys`] while there is no set.
    pub async fn key(&self, id: &str, algorithm: Algorithm) -> Result<Arc<DecodingKey>, AuthError> {
        let known = self.known(id, algorithm);
        if let Ok(Some(key)) = known {
            return Ok(key);
        }
        let mut ended = self.ended.subscribe();
        self.wanted.notify_one();
        let last = *ended.borrow_and_update();
        // Without a set the answer is not final, so a client may as well ask again as wait here.
        if known.is_ok() || last.is_none_or(|at| at.elapsed() >= UNKNOWN_EVERY) {
            // Too late is as good as no change: the key is unknown.
            let _ = tokio::time::timeout(UNKNOWN_EVERY + WAIT, ended.changed()).await;
        }
        self.known(id, algorithm)?.ok_or(AuthError::Signature)
    }

    fn known(&self, id: &str, algorithm: Algorithm) -> Result<Option<Arc<DecodingKey>>, AuthError> {
        let last_good = self
            .last_good
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let set = last_good.as_ref().filter(|set| set.at.elapsed() < KEEP);
        let set = set.ok_or(AuthError::NoKeys)?;
        let found = set
            .keys
            .iter()
            .find(|key| key.id == id && key.algorithm == algorithm);
        Ok(found.map(|key| key.key.clone()))
    }

    /// Age of the set in use.
    pub fn age(&self) -> Option<Duration> {
        let last_good = self
            .last_good
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        last_good.as_ref().map(|set| set.at.elapsed())
    }

    /// Fetches that ended so.
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.outcomes[outcome as usize].load(Relaxed)
    }

    /// Keeps the set fresh, for ever.
    pub async fn follow(&self) {
        loop {
            let outcome = self.fetch().await;
            self.outcomes[outcome as usize].fetch_add(1, Relaxed);
            if outcome != Outcome::Ok {
                tracing::warn!(url = %self.url, result = outcome.as_str(), "token keys not fetched, the last ones stay");
            }
            self.ended.send_replace(Some(Instant::now()));
            let pause = if outcome == Outcome::Ok {
                FETCH_EVERY
            } else {
                RETRY_EVERY
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = async {
                    tokio::time::sleep(UNKNOWN_EVERY).await;
                    self.wanted.notified().await;
                } => {}
            }
        }
    }

    async fn fetch(&self) -> Outcome {
        let asked = self.ask().await;
        self.take(asked)
    }

    fn take(&self, asked: Result<Vec<Key>, Outcome>) -> Outcome {
        let (keys, outcome) = match asked {
            Ok(keys) => (keys, Outcome::Ok),
            // Once may be a mistake; whoever says so again has taken all of them back.
            Err(Outcome::Empty) if self.was_empty.swap(true, Relaxed) => {
                (Vec::new(), Outcome::Empty)
            }
            Err(outcome) => return outcome,
        };
        if outcome == Outcome::Ok {
            self.was_empty.store(false, Relaxed);
        }
        let at = Instant::now();
        *self
            .last_good
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(Fetched { keys, at });
        outcome
    }

    async fn ask(&self) -> Result<Vec<Key>, Outcome> {
        let request = self.client.get(self.url.clone());
        let request = request.header(header::ACCEPT, "application/jwk-set+json, application/json");
        let response = request
            .send()
            .await
            .map_err(|error| outbound::failure(&error))?;
        if response.status() != StatusCode::OK {
            return Err(Outcome::Status);
        }
        parse(&outbound::read(response, MAX_BYTES).await?)
    }
}

/// The keys of a set that can be used. Others are left out, as RFC 7517 §5 asks.
fn parse(bytes: &[u8]) -> Result<Vec<Key>, Outcome> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<serde_json::Value>,
    }
    let set: Set = serde_json::from_slice(bytes).map_err(|_| Outcome::Malformed)?;
    if set.keys.len() > MAX_KEYS {
        return Err(Outcome::TooLarge);
    }
    let keys: Vec<Key> = set.keys.into_iter().filter_map(usable).collect();
    if keys.is_empty() {
        Err(Outcome::Empty)
    } else {
        Ok(keys)
    }
}

fn usable(key: serde_json::Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(key).ok()?;
    let (algorithm, name) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        _ => return None,
    };
    let common = &jwk.common;
    let verifies = common
        .public_key_use
        .as_ref()
        .is_none_or(|used| *used == PublicKeyUse::Signature)
        && common
            .key_operations
            .as_ref()
            .is_none_or(|all| all.contains(&KeyOperations::Verify))
        && common.key_algorithm.is_none_or(|given| given == name);
    let id = common.key_id.clone().filter(|id| !id.is_empty())?;
    let key = DecodingKey::from_jwk(&jwk).ok().filter(|_| verifies)?;
    Some(Key {
        id,
        algorithm,
        key: Arc::new(key),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn ed(kid: &str) -> Value {
        // RFC 8037, appendix A.2.
        json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"})
    }

    fn with(mut key: Value, name: &str, value: Value) -> Value {
        key[name] = value;
        key
    }

    fn ids(keys: &[Value]) -> Result<Vec<String>, Outcome> {
        let keys = parse(json!({ "keys": keys }).to_string().as_bytes())?;
        Ok(keys.into_iter().map(|key| key.id).collect())
    }

    #[test]
    fn keys_that_verify_no_signature_of_ours_are_left_out() {
        let others = [
            with(ed("encrypts"), "use", json!("enc")),
            with(ed("signs"), "key_ops", json!(["sign"])),
            with(ed("of-another-algorithm"), "alg", json!("RS256")),
            with(ed("of-another-curve"), "crv", json!("Ed448")),
            json!({"kty": "oct", "kid": "secret", "alg": "HS256", "k": "c2VjcmV0"}),
            json!({"kty": "EC", "crv": "P-384", "kid": "p384", "x": "AA", "y": "AA"}),
            json!({"kty": "NEW", "kid": "of-tomorrow"}),
            json!("no key at all"),
            with(ed("x"), "kid", json!("")),
            json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}),
        ];
        let good = with(with(ed("good"), "use", json!("sig")), "alg", json!("EdDSA"));
        assert_eq!(
            ids(&[&others[..], &[good]].concat()),
            Ok(vec!["good".to_owned()])
        );
        assert_eq!(ids(&others), Err(Outcome::Empty));
    }

    #[test]
    fn what_is_no_set_and_a_set_of_too_many_keys_are_refused() {
        assert_eq!(parse(b"<html>").err(), Some(Outcome::Malformed));
        assert_eq!(parse(b"{}").err(), Some(Outcome::Malformed));
        let many: Vec<Value> = (0..=MAX_KEYS).map(|n| ed(&n.to_string())).collect();
        assert_eq!(ids(&many), Err(Outcome::TooLarge));
        assert_eq!(ids(&many[1..]).map(|ids| ids.len()), Ok(MAX_KEYS));
    }

    fn jwks() -> Jwks {
        let url = outbound::url("https://localhost:1/jwks").expect("a URL");
        Jwks::new(url, outbound::client(None).expect("a client"))
    }

    fn has(jwks: &Jwks, at: Instant) {
        let keys = parse(json!({"keys": [ed("a")]}).to_string().as_bytes()).expect("a set");
        *jwks.last_good.write().expect("no panic") = Some(Fetched { keys, at });
        jwks.ended.send_replace(Some(at));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_good_set_is_used_for_a_day() {
        let jwks = jwks();
        has(&jwks, Instant::now());
        tokio::time::advance(KEEP - Duration::from_secs(1)).await;
        assert!(jwks.key("a", Algorithm::EdDSA).await.is_ok());
        assert_eq!(jwks.age(), Some(KEEP - Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        let gone = jwks.key("a", Algorithm::EdDSA).await;
        assert_eq!(gone.err(), Some(AuthError::NoKeys));
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_gone_when_their_provider_says_twice_that_it_has_none() {
        let jwks = jwks();
        let set = || parse(json!({"keys": [ed("a")]}).to_string().as_bytes());
        let none = || parse(br#"{"keys":[]}"#);
        for (asked, outcome, known) in [
            (set(), Outcome::Ok, true),
            (none(), Outcome::Empty, true),
            (set(), Outcome::Ok, true),
            (none(), Outcome::Empty, true),
            (Err(Outcome::Unreachable), Outcome::Unreachable, true),
            (none(), Outcome::Empty, false),
            (set(), Outcome::Ok, true),
        ] {
            assert_eq!(jwks.take(asked), outcome);
            assert_eq!(jwks.key("a", Algorithm::EdDSA).await.is_ok(), known);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_key_is_waited_for_right_after_a_fetch_that_did_not_have_it() {
        let jwks = jwks();
        has(&jwks, Instant::now());
        let (found, ()) = tokio::join!(jwks.key("b", Algorithm::EdDSA), async {
            tokio::time::sleep(UNKNOWN_EVERY).await;
            jwks.take(parse(json!({"keys": [ed("b")]}).to_string().as_bytes()));
            jwks.ended.send_replace(Some(Instant::now()));
        });
        assert!(found.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_good_for_its_own_algorithm_alone() {
        let jwks = jwks();
        has(&jwks, Instant::now());
        for algorithm in [Algorithm::RS256, Algorithm::ES256] {
            let found = jwks.key("a", algorithm).await;
            assert_eq!(found.err(), Some(AuthError::Signature));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_with_unknown_keys_cause_one_request_in_five_seconds() {
        let jwks = Arc::new(jwks());
        let following = tokio::spawn({
            let jwks = jwks.clone();
            async move { jwks.follow().await }
        });
        let fetches = || {
            Outcome::ALL
                .iter()
                .map(|outcome| jwks.count(*outcome))
                .sum::<u64>()
        };
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(60) {
            let guesses = (0..20).map(|_| jwks.key("guess", Algorithm::EdDSA));
            for found in futures::future::join_all(guesses).await {
                assert_eq!(found.err(), Some(AuthError::NoKeys));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(
            (10..=13).contains(&fetches()),
            "{} fetches in a minute",
            fetches()
        );
        assert_eq!(
            jwks.count(Outcome::Address),
            fetches(),
            "of a name of this machine"
        );
        following.abort();
    }
}
