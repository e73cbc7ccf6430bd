//! Everything that can go wrong with a session, with the server's own words where it gave some.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::PeerState;

/// Why a client operation failed. The session, if one was opened, has been ended.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("failed to understand the address {url}")]
    Url { url: String, reason: String },
    #[error("failed to set up the HTTP client")]
    HttpClient { source: reqwest::Error },
    #[error("failed to {method} {url}")]
    Request {
        method: &'static str,
        url: String,
        source: reqwest::Error,
    },
    /// The server answered with an error status.
    #[error("{method} {url} was refused with {status}: {problem}")]
    Refused {
        method: &'static str,
        url: String,
        status: u16,
        problem: Box<Problem>,
        /// The `Retry-After` header, in seconds.
        retry_after_seconds: Option<u64>,
    },
    #[error("the answer of {url} breaks the protocol: {reason}")]
    Answer { url: String, reason: String },
    #[error("failed to {attempt}")]
    Peer {
        attempt: &'static str,
        source: webrtc::error::Error,
    },
    #[error("waited {after:?} for {awaited}")]
    Timeout {
        awaited: &'static str,
        after: Duration,
    },
    #[error("no media over TCP: {reason}")]
    NoTcp { reason: String },
    #[error("no datagrams can be lost over TCP, which sends again what is lost below it")]
    LossOverTcp,
    #[error("the connection is {state:?}, not connected")]
    NotConnected { state: PeerState },
    #[error("the session has no {codec} track")]
    NoTrack { codec: crate::Codec },
    #[error("the session sends no layer {rid}")]
    NoLayer { rid: String },
    #[error("the server offers no choice of layers")]
    NoLayerChoice,
    #[error("failed to read the token in {}", path.display())]
    Token {
        path: PathBuf,
        source: std::io::Error,
    },
}

impl ClientError {
    /// The HTTP status, if the server refused.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// How long the server asked to wait before another try.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused {
                retry_after_seconds,
                ..
            } => retry_after_seconds.map(Duration::from_secs),
            _ => None,
        }
    }
}

/// An error with its causes, in one line.
pub(crate) fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// What an error answer said: the members of problem+json (RFC 9457), or the start of its text.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
pub struct Problem {
    /// A URI that names the kind of problem.
    #[serde(rename = "type", default)]
    pub kind: String,
    #[serde(default)]
    pub title: String,
    #[serde(default)]
    pub detail: String,
}

/// Characters of a body that is no problem+json which an error repeats.
const MAX_PLAIN_DETAIL: usize = 300;

impl Problem {
    pub(crate) fn read(content_type: &str, body: &str) -> Self {
        if content_type.starts_with("application/problem+json")
            && let Ok(problem) = serde_json::from_str(body)
        {
            return problem;
        }
        Self {
            detail: body.trim().chars().take(MAX_PLAIN_DETAIL).collect(),
            ..Self::default()
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.title.as_str(), self.detail.as_str()) {
            ("", "") => f.write_str("no reason given"),
            ("", detail) => f.write_str(detail),
            (title, "") => f.write_str(title),
            (title, detail) => write!(f, "{title} ({detail})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_body_gives_its_title_and_detail() {
        let problem = Problem::read(
            "application/problem+json; charset=utf-8",
            r#"{"type":"about:blank","title":"Conflict","status":409,"detail":"cam-1 is not live"}"#,
        );
        assert_eq!(problem.to_string(), "Conflict (cam-1 is not live)");
    }

    #[test]
    fn a_plain_body_is_repeated_only_at_its_start() {
        let problem = Problem::read("text/plain", &"x".repeat(5_000));
        assert_eq!(problem.detail.len(), MAX_PLAIN_DETAIL);
        assert_eq!(
            Problem::read("text/plain", " ").to_string(),
            "no reason given"
        );
    }
}
