//! Errors of the API → statuses and problem bodies (RFC 9457). Nothing else chooses a status, but for the older
//! API `error/media.rs`.

pub mod media;

pub mod recordings;

use crate::auth::AuthError;
use crate::registry::AdmitError;
use crate::shard::MailboxError;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use media_core::sdp::{AnswerError, FragmentError, OfferError};
use serde_json::json;
use std::time::Duration;

/// When a client that was refused for load should try again, in seconds.
const RETRY_AFTER: &str = "2";

/// Why a request failed. The text is the `detail` of the problem: what was wrong and what would be
/// right, never a token or SDP.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ApiError {
    #[error("there is nothing at {path}")]
    NoRoute { path: String },
    #[error("this path does not take the method; OPTIONS or the Allow header tell which it takes")]
    Method,
    #[error("a device is named by 1 to 128 of the characters A-Z a-z 0-9 . _ -, and not . or ..")]
    DeviceName,
    #[error("the body is {given:?}; send it with Content-Type: {wanted}")]
    MediaType { given: String, wanted: &'static str },
    #[error("the body is larger than 64 KiB")]
    TooLarge,
    #[error("the body ended early")]
    BodyCut,
    #[error("the body did not arrive within 10 seconds")]
    BodySlow,
    #[error("{0}")]
    Unauthorized(AuthError),
    #[error("the token does not grant {grant} for the device {device}")]
    Forbidden { grant: &'static str, device: String },
    #[error("{0}")]
    Offer(#[from] OfferError),
    #[error("{0}")]
    Answer(#[from] AnswerError),
    #[error("the session has its answer")]
    Answered,
    #[error("{0}")]
    Fragment(#[from] FragmentError),
    #[error("the body is not what this resource takes: {0}")]
    Json(String),
    #[error("mediaId is neither the index nor the mid of the session's video m-line")]
    UnknownMedia,
    #[error("the device publishes no such layer; its layers are: {known}")]
    UnknownLayer { known: String },
    #[error("there is no such event stream; it may have ended")]
    UnknownStream,
    #[error("too many event streams are open; close one, or try again later")]
    EventStreams,
    #[error("too many WebSockets are open; close one, or try again later")]
    Sockets,
    #[error("there is no such session; it may have ended")]
    UnknownSession,
    #[error("the device {device} has no live publisher; try again when it publishes")]
    NoPublisher { device: String },
    #[error("{0}; try again later")]
    Limit(AdmitError),
    #[error("requests of this {limit} come too fast; try again in {} s", seconds(.wait))]
    Rate { limit: &'static str, wait: Duration },
    #[error("too many sessions are being set up; try again")]
    Handshakes,
    #[error("the server cannot take the session now: {0}; try again")]
    Busy(MailboxError),
    #[error("the server is about to stop and takes no new sessions; try again")]
    Draining,
    #[error("the server knows no address that media could reach it at yet; try again")]
    NoAddress,
    #[error("the server made a mistake, which its log tells of")]
    Bug,
    #[error("send If-Match with the ETag of the session")]
    IfMatchMissing,
    #[error("If-Match is not the session's ETag, which is {current}")]
    IfMatchStale { current: String },
}

/// Labels of the error in `media_errors_total` and, where a limit was met, in
/// `media_refused_total`; the middleware finds them in the response.
#[derive(Debug, Clone, Copy)]
pub struct ErrorKind {
    pub kind: &'static str,
    pub limit: Option<&'static str>,
    pub fault: Fault,
}

/// Whose doing it is that a request was not answered as its client wished. Follows from the cause, not from the
/// status: the older API answers mistakes of its clients with 500.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Its own, or it asked for what this server is not set up for.
    Client,
    /// The request was right, and there was no room for it or no address to give.
    Refused,
    /// The request was right, and this server is about to stop.
    Draining,
    /// What a right request needs failed.
    Server,
}

impl Fault {
    /// Value of the label `result` of `media_signalling_total`.
    pub fn as_str(self) -> &'static str {
        match self {
            Fault::Client => "client",
            Fault::Refused => "refused",
            Fault::Draining => "draining",
            Fault::Server => "failed",
        }
    }
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match self {
            ApiError::NoRoute { .. } | ApiError::UnknownSession | ApiError::UnknownStream => {
                StatusCode::NOT_FOUND
            }
            ApiError::Method => StatusCode::METHOD_NOT_ALLOWED,
            ApiError::DeviceName
            | ApiError::BodyCut
            | ApiError::Json(_)
            | ApiError::Fragment(_)
            | ApiError::Answer(_)
            | ApiError::Offer(OfferError::Malformed(_)) => StatusCode::BAD_REQUEST,
            ApiError::MediaType { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ApiError::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ApiError::BodySlow => StatusCode::REQUEST_TIMEOUT,
            ApiError::Unauthorized(error) if error.may_be_good() => StatusCode::SERVICE_UNAVAILABLE,
            ApiError::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            ApiError::Forbidden { .. } => StatusCode::FORBIDDEN,
            ApiError::Offer(OfferError::Unsupported(_) | OfferError::NoCommonCodec(_))
            | ApiError::UnknownMedia
            | ApiError::UnknownLayer { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            ApiError::NoPublisher { .. } | ApiError::Answered => StatusCode::CONFLICT,
            ApiError::Rate { .. } => StatusCode::TOO_MANY_REQUESTS,
            ApiError::Limit(_)
            | ApiError::Handshakes
            | ApiError::Busy(_)
            | ApiError::Draining
            | ApiError::EventStreams
            | ApiError::Sockets
            | ApiError::NoAddress => StatusCode::SERVICE_UNAVAILABLE,
            ApiError::Bug => StatusCode::INTERNAL_SERVER_ERROR,
            ApiError::IfMatchMissing => StatusCode::PRECONDITION_REQUIRED,
            ApiError::IfMatchStale { .. } => StatusCode::PRECONDITION_FAILED,
        }
    }

    /// The word that names the problem: last part of its `type`, and a label.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            ApiError::NoRoute { .. } => "not_found",
            ApiError::Method => "method_not_allowed",
            ApiError::DeviceName => "device_name",
            ApiError::MediaType { .. } => "media_type",
            ApiError::TooLarge => "too_large",
            ApiError::BodyCut => "body_cut",
            ApiError::BodySlow => "body_slow",
            ApiError::Unauthorized(AuthError::NoKeys) => "no_token_keys",
            ApiError::Unauthorized(AuthError::UnknownKey) => "unknown_token_key",
            ApiError::Unauthorized(_) => "unauthorized",
            ApiError::Forbidden { .. } => "forbidden",
            ApiError::Offer(OfferError::Malformed(_)) => "malformed_offer",
            ApiError::Offer(OfferError::Unsupported(_)) => "unsupported_offer",
            ApiError::Offer(OfferError::NoCommonCodec(_)) => "no_common_codec",
            ApiError::Answer(_) => "answer",
            ApiError::Answered => "answered",
            ApiError::Fragment(_) => "malformed_fragment",
            ApiError::Json(_) => "malformed_json",
            ApiError::UnknownMedia => "unknown_media",
            ApiError::UnknownLayer { .. } => "unknown_layer",
            ApiError::UnknownSession => "unknown_session",
            ApiError::UnknownStream => "unknown_stream",
            ApiError::EventStreams => "event_streams",
            ApiError::Sockets => "websockets",
            ApiError::NoPublisher { .. } => "no_publisher",
            ApiError::Limit(_) => "limit",
            ApiError::Rate { .. } => "rate",
            ApiError::Handshakes => "handshakes",
            ApiError::Busy(_) => "busy",
            ApiError::Draining => "draining",
            ApiError::NoAddress => "no_address",
            ApiError::Bug => "bug",
            ApiError::IfMatchMissing => "if_match_missing",
            ApiError::IfMatchStale { .. } => "if_match_stale",
        }
    }

    fn fault(&self) -> Fault {
        match self {
            ApiError::Draining => Fault::Draining,
            // Anybody can make such a token.
            ApiError::Unauthorized(AuthError::UnknownKey) => Fault::Client,
            ApiError::Limit(_)
            | ApiError::Handshakes
            | ApiError::EventStreams
            | ApiError::Sockets
            | ApiError::NoAddress => Fault::Refused,
            error if error.status().is_server_error() => Fault::Server,
            _ => Fault::Client,
        }
    }

    pub(super) fn error_kind(&self) -> ErrorKind {
        ErrorKind {
            kind: self.kind(),
            limit: self.limit(),
            fault: self.fault(),
        }
    }

    /// The limit that was met, if it was one.
    pub(super) fn limit(&self) -> Option<&'static str> {
        match self {
            ApiError::Rate { limit, .. } => Some(limit),
            ApiError::Limit(AdmitError::Sessions(_)) => Some("sessions"),
            ApiError::Limit(AdmitError::Viewers(_)) => Some("viewers"),
            ApiError::Limit(AdmitError::Waiting(_)) => Some("waiting"),
            ApiError::Handshakes => Some("handshakes"),
            _ => None,
        }
    }

    fn title(&self) -> &'static str {
        match self {
            ApiError::NoRoute { .. } => "Not found",
            ApiError::Method => "Method not allowed",
            ApiError::DeviceName => "Not a device name",
            ApiError::MediaType { .. } => "Wrong content type",
            ApiError::TooLarge => "Body too large",
            ApiError::BodyCut => "Body incomplete",
            ApiError::BodySlow => "Body too slow",
            ApiError::Unauthorized(error) if error.may_be_good() => "Token can't be checked",
            ApiError::Unauthorized(_) => "Token needed",
            ApiError::Forbidden { .. } => "Not granted",
            ApiError::Offer(OfferError::Malformed(_)) => "Not an SDP offer",
            ApiError::Offer(OfferError::Unsupported(_)) => "Offer not supported",
            ApiError::Offer(OfferError::NoCommonCodec(_)) => "No common codec",
            ApiError::Answer(_) => "Not a right answer",
            ApiError::Answered => "Answered already",
            ApiError::Fragment(_) => "Not an SDP fragment",
            ApiError::Json(_) => "Not the right JSON",
            ApiError::UnknownMedia => "No such m-line",
            ApiError::UnknownLayer { .. } => "No such layer",
            ApiError::UnknownSession => "No such session",
            ApiError::UnknownStream => "No such event stream",
            ApiError::EventStreams => "Too many event streams",
            ApiError::Sockets => "Too many WebSockets",
            ApiError::NoPublisher { .. } => "Device not live",
            ApiError::Limit(_) => "Limit reached",
            ApiError::Rate { .. } => "Too many requests",
            ApiError::Handshakes => "Server busy",
            ApiError::Busy(_) => "Server busy",
            ApiError::Draining => "Server stopping",
            ApiError::NoAddress => "Address not known yet",
            ApiError::Bug => "Server error",
            ApiError::IfMatchMissing => "If-Match needed",
            ApiError::IfMatchStale { .. } => "ETag does not match",
        }
    }

    /// `Retry-After`, `WWW-Authenticate` and `Accept-…`, where the status calls for one.
    fn headers(&self) -> Option<(header::HeaderName, HeaderValue)> {
        match self {
            // RFC 6750 §3: without credentials no error code is told.
            ApiError::Unauthorized(AuthError::Missing) => Some((
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"media\""),
            )),
            ApiError::Unauthorized(error) if error.may_be_good() => {
                Some((header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER)))
            }
            ApiError::Unauthorized(_) => Some((
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"media\", error=\"invalid_token\""),
            )),
            ApiError::Forbidden { .. } => Some((
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"media\", error=\"insufficient_scope\""),
            )),
            ApiError::Rate { wait, .. } => {
                Some((header::RETRY_AFTER, HeaderValue::from(seconds(wait))))
            }
            // RFC 5789 §2.2; the same for POST after W3C LDP §7.1.
            ApiError::MediaType { wanted, .. } => {
                let name = if *wanted == super::FRAGMENT {
                    "accept-patch"
                } else {
                    "accept-post"
                };
                let name = header::HeaderName::from_static(name);
                Some((name, HeaderValue::from_static(wanted)))
            }
            ApiError::NoPublisher { .. }
            | ApiError::Limit(_)
            | ApiError::Handshakes
            | ApiError::Busy(_)
            | ApiError::Draining
            | ApiError::EventStreams
            | ApiError::Sockets
            | ApiError::NoAddress => {
                Some((header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER)))
            }
            _ => None,
        }
    }
}

/// Whole seconds, rounded up: whoever comes then is let in.
fn seconds(wait: &Duration) -> u64 {
    wait.as_millis().div_ceil(1_000).max(1) as u64
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
        let problem = json!({
            "type": format!("urn:mediaservice:problem:{}", self.kind()),
            "title": self.title(),
            "status": status.as_u16(),
            "detail": self.to_string(),
        });
        let mut response = (status, problem.to_string()).into_response();
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some((name, value)) = self.headers() {
            response.headers_mut().insert(name, value);
        }
        response.extensions_mut().insert(self.error_kind());
        response
    }
}

#[cfg(test)]
mod tests {
    use super::media::MediaError;
    use super::recordings::RecordingError;
    use super::*;
    use crate::recording::StartError;
    use std::io;

    fn of(response: Response) -> (StatusCode, ErrorKind) {
        let kind = response.extensions().get::<ErrorKind>();
        (response.status(), *kind.expect("every error has one"))
    }

    /// Every error whose status says that it is the server's fault.
    fn failures() -> Vec<(StatusCode, ErrorKind)> {
        let start = |error: StartError| RecordingError::from(error).into_response();
        let disk = || io::Error::other("no");
        let of_recordings = [
            start(StartError::Off),
            start(StartError::Busy {
                most: 64,
                of: "the server",
            }),
            start(StartError::Full { limit: 1 }),
            start(StartError::Disk(disk())),
            start(StartError::Shard(MailboxError::Full)),
            RecordingError::Stop { id: "x".into() }.into_response(),
            RecordingError::Delete(disk()).into_response(),
            RecordingError::Read(disk()).into_response(),
            RecordingError::Cleanup(disk()).into_response(),
        ];
        let of_older = [
            MediaError::internal("TURN service not configured", None),
            MediaError::internal("Failed to create session", Some(ApiError::Draining)),
            MediaError::internal(
                "Failed to create session",
                Some(ApiError::Busy(MailboxError::Timeout)),
            ),
        ];
        let of_all = [
            ApiError::Unauthorized(AuthError::NoKeys),
            ApiError::Unauthorized(AuthError::UnknownKey),
            ApiError::Bug,
            ApiError::Limit(AdmitError::Sessions(1)),
            ApiError::Handshakes,
            ApiError::Busy(MailboxError::Full),
            ApiError::Draining,
            ApiError::EventStreams,
            ApiError::Sockets,
            ApiError::NoAddress,
        ];
        let of_older = of_older.map(IntoResponse::into_response);
        let of_all = of_all.map(IntoResponse::into_response);
        let all = of_recordings.into_iter().chain(of_older).chain(of_all);
        all.map(of).collect()
    }

    #[test]
    fn the_runbook_of_availability_names_every_error_with_a_status_of_the_servers() {
        let page = include_str!("../../../docs/runbooks/MediaAvailabilityBurn.md");
        for (status, ErrorKind { kind, fault, .. }) in failures() {
            assert!(status.is_server_error(), "{kind}");
            let mut rows = page.lines().filter(|line| line.starts_with("| `"));
            let row = rows.find(|row| {
                row.split('|')
                    .nth(1)
                    .is_some_and(|types| types.contains(&format!("`{kind}`")))
            });
            let row = row.unwrap_or_else(|| panic!("no row for {kind}"));
            let counts = matches!(fault, Fault::Server | Fault::Refused);
            let told = row.contains(&format!(" {}", fault.as_str()));
            assert!(told || !counts, "{kind}: {row}");
        }
    }

    #[test]
    fn whose_fault_it_is_follows_from_the_cause_and_not_from_the_status() {
        let fault = |error: MediaError| of(error.into_response()).1.fault;
        let internal = |cause| fault(MediaError::internal("Failed", cause));
        assert_eq!(internal(None), Fault::Client);
        assert_eq!(internal(Some(ApiError::Answered)), Fault::Client);
        assert_eq!(internal(Some(ApiError::UnknownSession)), Fault::Client);
        assert_eq!(internal(Some(ApiError::Draining)), Fault::Draining);
        assert_eq!(internal(Some(ApiError::Handshakes)), Fault::Refused);
        let busy = ApiError::Busy(MailboxError::Full);
        assert_eq!(internal(Some(busy)), Fault::Server);
        let recording = |error: RecordingError| of(error.into_response()).1.fault;
        let unknown = RecordingError::Stop { id: "x".into() };
        assert_eq!(recording(unknown), Fault::Client);
        assert_eq!(recording(StartError::Off.into()), Fault::Client);
        let full = StartError::Full { limit: 1 };
        assert_eq!(recording(full.into()), Fault::Refused);
        let token = |error| RecordingError::from(ApiError::Unauthorized(error));
        assert_eq!(recording(token(AuthError::NoKeys)), Fault::Server);
        assert_eq!(recording(token(AuthError::UnknownKey)), Fault::Client);
        let wait = Duration::from_secs(1);
        let rate = ApiError::Rate {
            limit: "subject",
            wait,
        };
        assert_eq!(of(rate.into_response()).1.fault, Fault::Client);
    }
}
