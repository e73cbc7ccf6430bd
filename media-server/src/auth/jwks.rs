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
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, watch};
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
/// Requests that wait for a set at once. Tokens with unknown keys, which anybody can make, hold no more of the
/// server's connections; whoever finds no place is told to come back.
const WAITERS: usize = 64;
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
    /// Since when the provider has had no key, if it said so last.
    empty_since: Mutex<Option<Instant>>,
    /// A token named a key that is not known.
    wanted: Notify,
    /// When the last fetch ended, and how; `None` before the first.
    ended: watch::Sender<Option<(Instant, Outcome)>>,
    /// Places of those who wait for one.
    places: Semaphore,
    crowded: AtomicU64,
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
            empty_since: Mutex::default(),
            wanted: Notify::new(),
            ended: watch::Sender::new(None),
            places: Semaphore::new(WAITERS),
            crowded: AtomicU64::new(0),
            outcomes: Default::default(),
        }
    }

    /// The key that a token names. One that is not known is fetched; if a fetch has just been, after a moment. Without a
    /// set, what has just been in vain is not waited for again.
    ///
    /// # Errors
    /// [`AuthError::Signature`] when the provider has no such key, [`AuthError::NoKeys`] while there is no set, and
    /// [`AuthError::UnknownKey`] while the provider can't be asked for another, and when too many wait for one.
    pub async fn key(&self, id: &str, algorithm: Algorithm) -> Result<Arc<DecodingKey>, AuthError> {
        let known = self.known(id, algorithm);
        if let Ok(Some(key)) = known {
            return Ok(key);
        }
        let mut ended = self.ended.subscribe();
        self.wanted.notify_one();
        let last = *ended.borrow_and_update();
        // Without a set the answer is not final, so a client may as well ask again as wait here.
        if known.is_ok() || last.is_none_or(|(at, _)| at.elapsed() >= UNKNOWN_EVERY) {
            let Ok(_place) = self.places.try_acquire() else {
                self.crowded.fetch_add(1, Relaxed);
                return Err(AuthError::UnknownKey);
            };
            // Too late is as good as no change: the key is unknown.
            let _ = tokio::time::timeout(UNKNOWN_EVERY + WAIT, ended.changed()).await;
        }
        let found = self.known(id, algorithm)?;
        let last = *ended.borrow();
        found.ok_or(match last {
            // A provider that does not answer may have the key.
            Some((_, outcome)) if outcome != Outcome::Ok && !self.has_none() => {
                AuthError::UnknownKey
            }
            _ => AuthError::Signature,
        })
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

    /// Whether the set in use is one without keys.
    fn has_none(&self) -> bool {
        let last_good = self
            .last_good
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        last_good.as_ref().is_some_and(|set| set.keys.is_empty())
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

    /// Requests that found no place to wait for a set.
    pub fn crowded(&self) -> u64 {
        self.crowded.load(Relaxed)
    }

    /// Keeps the set fresh, for ever.
    pub async fn follow(&self) {
        loop {
            let outcome = self.fetch().await;
            self.outcomes[outcome as usize].fetch_add(1, Relaxed);
            self.ended.send_replace(Some((Instant::now(), outcome)));
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
        let outcome = asked.as_ref().err().copied().unwrap_or(Outcome::Ok);
        let keys = match asked {
            Ok(keys) => {
                *self.empty_since() = None;
                keys
            }
            // Once may be a mistake; whoever says so half a minute later has taken all of them back.
            Err(Outcome::Empty)
                if self
                    .empty_since()
                    .get_or_insert_with(Instant::now)
                    .elapsed()
                    >= RETRY_EVERY =>
            {
                let url = outbound::shown(&self.url);
                tracing::warn!(url, "the provider has taken back all token keys");
                Vec::new()
            }
            Err(_) => {
                let url = outbound::shown(&self.url);
                let result = outcome.as_str();
                tracing::warn!(url, result, "token keys not fetched, the last ones stay");
                return outcome;
            }
        };
        let at = Instant::now();
        *self
            .last_good
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(Fetched { keys, at });
        outcome
    }

    fn empty_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.empty_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
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
    use futures::StreamExt as _;
    use futures::stream::FuturesUnordered;
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
            with(ed("of-a-curve-for-others"), "crv", json!("P-256")),
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
        jwks.ended.send_replace(Some((at, Outcome::Ok)));
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
    async fn keys_are_gone_when_their_provider_says_for_half_a_minute_that_it_has_none() {
        let jwks = jwks();
        let set = || parse(json!({"keys": [ed("a")]}).to_string().as_bytes());
        let none = || parse(br#"{"keys":[]}"#);
        for (seconds, asked, outcome, known) in [
            (0, set(), Outcome::Ok, true),
            (0, none(), Outcome::Empty, true),
            // At the wish of a token with an unknown key.
            (5, none(), Outcome::Empty, true),
            (30, set(), Outcome::Ok, true),
            (5, none(), Outcome::Empty, true),
            (5, Err(Outcome::Unreachable), Outcome::Unreachable, true),
            (24, none(), Outcome::Empty, true),
            (1, none(), Outcome::Empty, false),
            (0, set(), Outcome::Ok, true),
        ] {
            tokio::time::advance(Duration::from_secs(seconds)).await;
            assert_eq!(jwks.take(asked), outcome);
            assert_eq!(jwks.key("a", Algorithm::EdDSA).await.is_ok(), known);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_the_provider_could_not_be_asked_for_is_not_refused_for_good() {
        for (asked, error) in [
            (Err(Outcome::Status), AuthError::UnknownKey),
            (Err(Outcome::Empty), AuthError::UnknownKey),
            (Ok(Vec::new()), AuthError::Signature),
        ] {
            let jwks = jwks();
            has(&jwks, Instant::now());
            let (found, ()) = tokio::join!(jwks.key("b", Algorithm::EdDSA), async {
                tokio::time::sleep(UNKNOWN_EVERY).await;
                let outcome = jwks.take(asked);
                jwks.ended.send_replace(Some((Instant::now(), outcome)));
            });
            assert_eq!(found.err(), Some(error));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn few_wait_for_a_key_that_is_not_known_and_the_others_are_told_to_come_back() {
        let jwks = jwks();
        has(&jwks, Instant::now());
        let mut guesses: FuturesUnordered<_> = (0..1_000)
            .map(|_| jwks.key("guess", Algorithm::EdDSA))
            .collect();
        let mut at_once = 0;
        while let Ok(Some(found)) =
            tokio::time::timeout(Duration::from_millis(100), guesses.next()).await
        {
            assert_eq!(found.err(), Some(AuthError::UnknownKey));
            at_once += 1;
        }
        assert_eq!((at_once, guesses.len()), (1_000 - WAITERS, WAITERS));
        assert_eq!(jwks.crowded(), at_once as u64);
        assert!(jwks.key("a", Algorithm::EdDSA).await.is_ok(), "a known one");
        drop(guesses);
        let last = jwks.key("guess", Algorithm::EdDSA).await;
        assert_eq!(last.err(), Some(AuthError::Signature), "there is room");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_key_is_waited_for_right_after_a_fetch_that_did_not_have_it() {
        let jwks = jwks();
        has(&jwks, Instant::now());
        let (found, ()) = tokio::join!(jwks.key("b", Algorithm::EdDSA), async {
            tokio::time::sleep(UNKNOWN_EVERY).await;
            jwks.take(parse(json!({"keys": [ed("b")]}).to_string().as_bytes()));
            jwks.ended.send_replace(Some((Instant::now(), Outcome::Ok)));
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
    async fn a_provider_that_had_no_set_is_asked_again_each_half_minute() {
        let jwks = Arc::new(jwks());
        let following = tokio::spawn({
            let jwks = jwks.clone();
            async move { jwks.follow().await }
        });
        tokio::time::sleep(Duration::from_secs(315)).await;
        assert_eq!(jwks.count(Outcome::Address), 11, "at once, then ten times");
        following.abort();
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
