//! HTTP as the checks need it: every answer as it is, redirects not followed.
//!
//! Waits out 429, so that a server that limits rates can be checked at all, and remembers redirects
//! of the wrong kind. Used by the checks.

use super::Target;
use crate::ClientError;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Longest an exchange may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Times a 429 is waited out, and for how long at most.
const TRIES: usize = 10;
const MAX_PAUSE: Duration = Duration::from_secs(5);

pub(super) struct Caller {
    client: reqwest::Client,
    token: Option<HeaderValue>,
    /// Redirects other than 307 and 308, as they were seen.
    redirects: Mutex<Vec<String>>,
    answered: AtomicBool,
}

/// An answer, or why there was none.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
    /// Where it came from; a `Location` is relative to it.
    url: Url,
}

/// What is sent.
pub(super) struct Request<'a> {
    pub(super) method: &'static str,
    pub(super) url: &'a Url,
    pub(super) headers: Vec<(&'static str, &'a str)>,
    pub(super) body: String,
}

impl<'a> Request<'a> {
    pub(super) fn new(method: &'static str, url: &'a Url) -> Self {
        Request {
            method,
            url,
            headers: Vec::new(),
            body: String::new(),
        }
    }

    pub(super) fn header(mut self, name: &'static str, value: &'a str) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(super) fn body(mut self, media_type: &'a str, body: impl Into<String>) -> Self {
        self.headers.push(("content-type", media_type));
        self.body = body.into();
        self
    }
}

impl Caller {
    pub(super) fn new(target: &Target) -> Result<Caller, ClientError> {
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .danger_accept_invalid_certs(target.insecure_tls)
            .build()
            .map_err(|source| ClientError::HttpClient { source })?;
        let token = target.token.as_ref();
        Ok(Caller {
            client,
            token: token.and_then(|token| HeaderValue::try_from(format!("Bearer {token}")).ok()),
            redirects: Mutex::default(),
            answered: AtomicBool::default(),
        })
    }

    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    pub(super) fn wrong_redirects(&self) -> Vec<String> {
        self.redirects
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Whether any request was answered so far.
    pub(super) fn was_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// Sends with the token; a 429 is waited out.
    pub(super) async fn send(&self, request: Request<'_>) -> Answer {
        for _ in 1..TRIES {
            let answer = self.once(&request, true).await;
            if answer.status != 429 {
                return answer;
            }
            let pause = answer.header("retry-after").parse().unwrap_or(1);
            tokio::time::sleep(Duration::from_secs(pause).min(MAX_PAUSE)).await;
        }
        self.once(&request, true).await
    }

    /// Sends once.
    pub(super) async fn once(&self, request: &Request<'_>, with_token: bool) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(token) = self.token.clone().filter(|_| with_token) {
            headers.insert(AUTHORIZATION, token);
        }
        for (name, value) in &request.headers {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.append(HeaderName::from_static(name), value);
            }
        }
        let method = Method::from_bytes(request.method.as_bytes()).unwrap_or(Method::GET);
        let sent = self
            .client
            .request(method, request.url.clone())
            .headers(headers)
            .body(request.body.clone())
            .send()
            .await;
        let response = match sent {
            Ok(response) => response,
            Err(error) => return Answer::none(request.url, &error),
        };
        self.answered.store(true, Ordering::Relaxed);
        let status = response.status().as_u16();
        if matches!(status, 301..=303) {
            let seen = format!("{} {} {status}", request.method, request.url.path());
            self.redirects
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(seen);
        }
        let (url, headers) = (response.url().clone(), response.headers().clone());
        match response.text().await {
            Ok(body) => Answer {
                status,
                headers,
                body,
                url,
            },
            Err(error) => Answer::none(request.url, &error),
        }
    }
}

impl Answer {
    fn none(url: &Url, error: &reqwest::Error) -> Answer {
        Answer {
            status: 0,
            headers: HeaderMap::new(),
            body: format!("no answer: {error}"),
            url: url.clone(),
        }
    }

    /// Whether there was one.
    pub(super) fn is_there(&self) -> bool {
        self.status != 0
    }

    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// 4xx: the request was refused for what it was.
    pub(super) fn is_refusal(&self) -> bool {
        (400..500).contains(&self.status)
    }

    /// The first value of a header, or nothing.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// Media type of the body, without parameters.
    pub(super) fn media_type(&self) -> String {
        let value = self.header("content-type");
        let essence = value.split(';').next().unwrap_or_default();
        essence.trim().to_ascii_lowercase()
    }

    /// Values of `Link` whose relation is that of ICE servers.
    pub(super) fn ice_servers(&self) -> Vec<String> {
        self.headers
            .get_all("link")
            .iter()
            .filter_map(|value| value.to_str().ok())
            // A comma between two links is followed by the bracket of the second.
            .flat_map(|value| value.split(", <"))
            .filter(|link| link.contains("rel=\"ice-server\"") || link.contains("rel=ice-server"))
            .map(|link| format!("<{}", link.trim_start_matches('<')))
            .collect()
    }

    /// The `Location`, as an address.
    pub(super) fn location(&self) -> Option<Url> {
        let location = self.header("location");
        (!location.is_empty())
            .then(|| self.url.join(location).ok())
            .flatten()
    }

    /// Status, media type and the start of the body.
    pub(super) fn seen(&self) -> String {
        if !self.is_there() {
            return self.body.clone();
        }
        let media_type = self.media_type();
        let about = if self.body.is_empty() {
            "no body".to_owned()
        } else if media_type == "application/sdp" {
            format!("{} B", self.body.len())
        } else {
            self.body.chars().take(60).collect()
        };
        format!("{} {media_type} {about}", self.status)
    }
}
