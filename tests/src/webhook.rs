//! A receiver of events over https: which of them it took, and whether they are signed as Standard Webhooks asks.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::https::{Https, Request};

/// How far a clock may be off, and how long a test may look back.
const RECENT_SECONDS: u64 = 120;

/// The text of a secret that stands for this key.
pub fn secret(key: &[u8]) -> String {
    format!("whsec_{}", STANDARD.encode(key))
}

/// What got a good answer until now, in order.
pub fn taken(receiver: &Https) -> Vec<Request> {
    let mut requests = receiver.requests();
    requests.retain(|request| request.status.starts_with('2'));
    requests
}

/// Whether a request was signed with that key a moment ago.
pub fn is_signed(request: &Request, key: &[u8]) -> bool {
    let header = |name: &str| request.headers.get(name).map_or("", String::as_str);
    let timestamp = header("webhook-timestamp");
    let signed = format!("{}.{timestamp}.{}", header("webhook-id"), request.body);
    let signature = header("webhook-signature").strip_prefix("v1,");
    let signature = signature.and_then(|text| STANDARD.decode(text).ok());
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    let of_key = signature.is_some_and(|it| hmac::verify(&key, signed.as_bytes(), &it).is_ok());
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    let at = timestamp.parse().unwrap_or(0);
    of_key && now.abs_diff(at) < RECENT_SECONDS
}
