//! The ICE servers that clients are told of: STUN and TURN servers of somebody else, with credentials
//! that end by themselves.
//!
//! Owns the secret shared with the TURN server (re-read every 5 s), and never shows or logs it. Called
//! by the API for the `Link` headers of RFC 9725 §4.6, and for the lists of the older API.

use crate::config::TurnConfig;
use aws_lc_rs::hmac;
use axum::http::HeaderValue;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("failed to read the TURN secret {path}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("the TURN secret {path} is empty; it is the static-auth-secret of your TURN server")]
    Empty { path: PathBuf },
}

/// All ICE servers of the configuration.
pub struct IceServers {
    config: TurnConfig,
    secret: RwLock<Vec<u8>>,
}

impl IceServers {
    /// Reads the secret, where one is configured.
    ///
    /// # Errors
    /// [`SecretError`]
    pub fn new(config: TurnConfig) -> Result<IceServers, SecretError> {
        let secret = match &config.secret_file {
            Some(path) => read(path)?,
            None => Vec::new(),
        };
        Ok(IceServers {
            config,
            secret: RwLock::new(secret),
        })
    }

    /// Reads the secret again. A file that can't be read leaves the old one in force.
    pub fn reload(&self) {
        let Some(path) = &self.config.secret_file else {
            return;
        };
        match read(path) {
            Ok(secret) => {
                let mut known = self.secret.write().unwrap_or_else(PoisonError::into_inner);
                if *known != secret {
                    *known = secret;
                    tracing::info!("TURN secret changed");
                }
            }
            Err(error) => tracing::warn!(%error, "TURN secret unreadable, the last one stays"),
        }
    }

    /// Whether there is a TURN server among them.
    pub fn has_turn(&self) -> bool {
        self.config.urls.iter().any(|url| is_turn(url))
    }

    /// Each server as the W3C's `RTCIceServer` has it. Credentials are made for `name`, a session or what will
    /// be one, and end when the configuration says (draft-uberti-behave-turn-rest-00 §2.2).
    pub fn list(&self, now: SystemTime, name: &str) -> Vec<IceServer> {
        let expiry = now
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
            + self.config.ttl.as_secs();
        let (username, credential) = match &self.config.fixed {
            Some(fixed) => fixed.clone(),
            None => {
                let username = format!("{expiry}:{name}");
                let secret = self.secret.read().unwrap_or_else(PoisonError::into_inner);
                let credential = credential(&secret, &username);
                (username, credential)
            }
        };
        let server = |url: &String| IceServer {
            urls: [url.clone()],
            username: is_turn(url).then(|| username.clone()),
            credential: is_turn(url).then(|| credential.clone()),
        };
        self.config.urls.iter().map(server).collect()
    }

    /// A `Link` value for each server, with the same credentials.
    pub fn links(&self, now: SystemTime, name: &str) -> Vec<HeaderValue> {
        let link = |server: IceServer| {
            let mut link = format!("<{}>; rel=\"ice-server\"", server.urls[0]);
            if let (Some(username), Some(credential)) = (server.username, server.credential) {
                link += &format!(
                    "; username={}; credential={}; credential-type=\"password\"",
                    quoted(&username),
                    quoted(&credential)
                );
            }
            // Only a fixed credential with a control character is refused here.
            HeaderValue::from_str(&link).ok()
        };
        self.list(now, name).into_iter().filter_map(link).collect()
    }
}

/// One ICE server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IceServer {
    urls: [String; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<String>,
}

fn is_turn(url: &str) -> bool {
    url.starts_with("turn")
}

fn credential(secret: &[u8], username: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    STANDARD.encode(hmac::sign(&key, username.as_bytes()))
}

/// A quoted-string (RFC 9110 §5.6.4).
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The file's bytes, without the newline that editors put at the end.
fn read(path: &Path) -> Result<Vec<u8>, SecretError> {
    let mut secret = std::fs::read(path).map_err(|source| SecretError::Read {
        path: path.to_owned(),
        source,
    })?;
    while secret.last().is_some_and(|byte| b"\r\n".contains(byte)) {
        secret.pop();
    }
    if secret.is_empty() {
        return Err(SecretError::Empty {
            path: path.to_owned(),
        });
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn servers(urls: &[&str], fixed: Option<(&str, &str)>) -> IceServers {
        IceServers {
            config: TurnConfig {
                urls: urls.iter().map(|url| (*url).to_owned()).collect(),
                secret_file: None,
                fixed: fixed.map(|(user, word)| (user.to_owned(), word.to_owned())),
                ttl: Duration::from_secs(3600),
            },
            secret: RwLock::new(b"north".to_vec()),
        }
    }

    #[test]
    fn a_turn_server_comes_with_a_credential_that_ends() {
        let servers = servers(
            &["stun:stun.example:3478", "turn:turn.example?transport=udp"],
            None,
        );
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        // printf 4600:id | openssl dgst -sha1 -hmac north -binary | base64
        assert_eq!(
            servers.links(now, "id"),
            [
                "<stun:stun.example:3478>; rel=\"ice-server\"",
                "<turn:turn.example?transport=udp>; rel=\"ice-server\"; username=\"4600:id\"; \
                 credential=\"KOJNjDLlx+nc6H3G7bOcaN18O6k=\"; credential-type=\"password\""
            ]
        );
    }

    #[test]
    fn a_fixed_credential_is_quoted_as_it_is() {
        let servers = servers(&["turns:turn.example"], Some(("ann", "a\"b\\c")));
        let links = servers.links(UNIX_EPOCH, "id");
        assert_eq!(
            links,
            [
                "<turns:turn.example>; rel=\"ice-server\"; username=\"ann\"; \
              credential=\"a\\\"b\\\\c\"; credential-type=\"password\""
            ]
        );
    }
}
