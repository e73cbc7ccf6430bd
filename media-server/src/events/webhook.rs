//! Events to a web server of the user's, each as a POST that is signed as Standard Webhooks asks (standardwebhooks.com,
//! version 1): whoever has the secret can tell that it is ours, whole and new.
//!
//! One event at a time: the next goes out when this one was taken. Reads the secret anew for each, so that it can be changed.
//! Called by its queue.

use super::queue::{Sink, Undelivered};
use super::{EventsError, Message, secret};
use crate::config::WebhookConfig;
use crate::outbound;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Client, StatusCode, header};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// What the secret begins with where the rest is base64, as the libraries for Standard Webhooks want it.
const PREFIX: &str = "whsec_";
/// Bytes of such a secret that they ask for: anybody could sign with none.
const LEAST: usize = 24;

pub struct Webhook {
    config: WebhookConfig,
    client: Client,
}

impl Webhook {
    /// # Errors
    /// [`EventsError`] when the secret can't be had: nothing could be delivered.
    pub fn new(config: WebhookConfig, client: Client) -> Result<Webhook, EventsError> {
        key(&config.secret_file)?;
        Ok(Webhook { config, client })
    }

    async fn post(&self, message: &Message) -> Result<(), Undelivered> {
        let key = key(&self.config.secret_file).map_err(|e| Undelivered::Failed(e.to_string()))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let timestamp = now.map_or(0, |since| since.as_secs());
        let request = self
            .client
            .post(self.config.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", &message.id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature(&key, message, timestamp))
            .body(message.body.clone());
        let response = request.send().await.map_err(|error| {
            let kind = outbound::failure(&error);
            Undelivered::Failed(format!("{kind:?}: {}", error.without_url()))
        })?;
        match response.status() {
            status if status.is_success() => Ok(()),
            // They say that it is the event which is wrong; it would be so the next time too.
            status @ (StatusCode::BAD_REQUEST
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNPROCESSABLE_ENTITY) => Err(Undelivered::Refused(status.to_string())),
            status => Err(Undelivered::Failed(status.to_string())),
        }
    }
}

impl Sink for Webhook {
    const BATCH: usize = 1;

    async fn deliver(&mut self, batch: &[Arc<Message>]) -> (usize, Result<(), Undelivered>) {
        for (taken, message) in batch.iter().enumerate() {
            if let Err(error) = self.post(message).await {
                return (taken, Err(error));
            }
        }
        (batch.len(), Ok(()))
    }
}

fn signature(key: &hmac::Key, message: &Message, timestamp: u64) -> String {
    let signed = format!("{}.{timestamp}.{}", message.id, message.body);
    format!("v1,{}", STANDARD.encode(hmac::sign(key, signed.as_bytes())))
}

fn key(path: &Path) -> Result<hmac::Key, EventsError> {
    let text = secret(path)?;
    let bytes = match text.strip_prefix(PREFIX) {
        Some(encoded) => STANDARD
            .decode(encoded)
            .ok()
            .filter(|secret| secret.len() >= LEAST)
            .ok_or_else(|| EventsError::Base64 {
                path: path.to_owned(),
            })?,
        None => text.into_bytes(),
    };
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[test]
    fn a_secret_that_says_it_is_one_has_24_bytes_at_least() {
        let name = format!("media-server-webhook-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        for (secret, taken) in [
            (format!("{PREFIX}{}", STANDARD.encode([7; 24])), true),
            (format!("{PREFIX}{}", STANDARD.encode([7; 23])), false),
            (PREFIX.to_owned(), false),
            (format!("{PREFIX}no base64"), false),
        ] {
            std::fs::write(&path, &secret).expect("room");
            assert_eq!(key(&path).is_ok(), taken, "{secret}");
        }
        std::fs::remove_file(&path).expect("it is ours");
    }

    #[test]
    fn a_signature_is_as_in_the_specification() {
        // The example of the specification's libraries.
        let secret = STANDARD
            .decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
            .expect("base64");
        let message = Message {
            id: "msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned(),
            key: "media.session.created",
            body: r#"{"test": 2432232314}"#.to_owned(),
            at: Instant::now(),
        };
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let wanted = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(signature(&key, &message, 1_614_265_330), wanted);
    }
}
