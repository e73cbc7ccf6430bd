//! Errors of `/api/media/recordings` → statuses and bodies, as the replaced service had them.

use super::{ApiError, ErrorKind, Fault};
use crate::api::media::body::BodyError;
use crate::auth::AuthError;
use crate::recording::StartError;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::io;

/// Why a request about recordings failed.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    #[error("{}", refusal(.0))]
    Unauthorized(AuthError),
    #[error("the token does not grant record for the device {device}")]
    Forbidden { device: String },
    /// A limit, a body that is long or late, keys that can't be had: with the status of the rest of the server.
    #[error("{0}")]
    Api(ApiError),
    #[error("{0}")]
    Invalid(String),
    #[error("WebRTC session not found: {id}")]
    NoSession { id: String },
    #[error("failed to start recording: {0}")]
    Start(#[from] StartError),
    #[error("recording not found: {id}")]
    Stop { id: String },
    #[error("recording not found")]
    NotFound,
    #[error("recording file not found")]
    NoFile,
    #[error("failed to delete recording: {0}")]
    Delete(io::Error),
    #[error("failed to read recordings: {0}")]
    Read(io::Error),
    #[error("failed to clean up recordings: {0}")]
    Cleanup(io::Error),
    /// Of a file of so many bytes.
    #[error("the range lies outside of the file, which has {bytes} bytes")]
    Range { bytes: u64 },
}

impl From<ApiError> for RecordingError {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Unauthorized(error) if !error.may_be_good() => {
                RecordingError::Unauthorized(error)
            }
            error if error.status() == StatusCode::BAD_REQUEST => {
                RecordingError::Invalid(error.to_string())
            }
            error => RecordingError::Api(error),
        }
    }
}

impl From<BodyError> for RecordingError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Invalid(text) => RecordingError::Invalid(text),
            BodyError::Read(error) => error.into(),
        }
    }
}

/// What clients of the replaced service know.
fn refusal(error: &AuthError) -> &'static str {
    match error {
        AuthError::Subject => "无效的 Token",
        _ => "未授权访问",
    }
}

impl RecordingError {
    fn status(&self) -> StatusCode {
        match self {
            RecordingError::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            RecordingError::Forbidden { .. } => StatusCode::FORBIDDEN,
            RecordingError::Api(error) => error.status(),
            RecordingError::Invalid(_) => StatusCode::BAD_REQUEST,
            RecordingError::NoSession { .. }
            | RecordingError::NotFound
            | RecordingError::NoFile => StatusCode::NOT_FOUND,
            // For an id that nobody knows too: the replaced service did so, and clients see it.
            RecordingError::Stop { .. }
            | RecordingError::Start(_)
            | RecordingError::Delete(_)
            | RecordingError::Read(_)
            | RecordingError::Cleanup(_) => StatusCode::INTERNAL_SERVER_ERROR,
            RecordingError::Range { .. } => StatusCode::RANGE_NOT_SATISFIABLE,
        }
    }

    /// The word in the field `error`.
    fn code(&self) -> &'static str {
        match self {
            RecordingError::Unauthorized(_) => "Unauthorized",
            RecordingError::Forbidden { .. } => "Forbidden",
            RecordingError::Api(error) => error.kind(),
            RecordingError::Invalid(_) => "invalid_request",
            RecordingError::NoSession { .. } => "session_not_found",
            RecordingError::Start(_) => "recording_start_failed",
            RecordingError::Stop { .. } => "recording_stop_failed",
            RecordingError::NotFound => "recording_not_found",
            RecordingError::NoFile => "file_not_found",
            RecordingError::Delete(_) => "delete_failed",
            RecordingError::Read(_) => "read_failed",
            RecordingError::Cleanup(_) => "cleanup_failed",
            RecordingError::Range { .. } => "invalid_range",
        }
    }

    /// Label in `media_errors_total`.
    fn kind(&self) -> &'static str {
        match self {
            RecordingError::Unauthorized(_) => "unauthorized",
            RecordingError::Forbidden { .. } => "forbidden",
            other => other.code(),
        }
    }

    fn limit(&self) -> Option<&'static str> {
        match self {
            RecordingError::Api(error) => error.limit(),
            RecordingError::Start(StartError::Busy { .. }) => Some("recordings"),
            _ => None,
        }
    }

    fn fault(&self) -> Fault {
        match self {
            RecordingError::Unauthorized(error) => ApiError::Unauthorized(*error).fault(),
            RecordingError::Api(error) => error.fault(),
            RecordingError::Start(StartError::Busy { .. } | StartError::Full { .. }) => {
                Fault::Refused
            }
            RecordingError::Start(StartError::Shard(_) | StartError::Disk(_))
            | RecordingError::Delete(_)
            | RecordingError::Read(_)
            | RecordingError::Cleanup(_) => Fault::Server,
            RecordingError::Forbidden { .. }
            | RecordingError::Invalid(_)
            | RecordingError::NoSession { .. }
            | RecordingError::Start(_)
            | RecordingError::Stop { .. }
            | RecordingError::NotFound
            | RecordingError::NoFile
            | RecordingError::Range { .. } => Fault::Client,
        }
    }

    fn headers(&self) -> Option<(header::HeaderName, HeaderValue)> {
        match self {
            RecordingError::Unauthorized(error) => ApiError::Unauthorized(*error).headers(),
            RecordingError::Api(error) => error.headers(),
            RecordingError::Range { bytes } => {
                let value = HeaderValue::try_from(format!("bytes */{bytes}")).ok()?;
                Some((header::CONTENT_RANGE, value))
            }
            _ => None,
        }
    }
}

impl IntoResponse for RecordingError {
    fn into_response(self) -> Response {
        let body = json!({"error": self.code(), "message": self.to_string()});
        let mut response = (self.status(), Json(body)).into_response();
        if let Some((name, value)) = self.headers() {
            response.headers_mut().insert(name, value);
        }
        response.extensions_mut().insert(ErrorKind {
            kind: self.kind(),
            limit: self.limit(),
            fault: self.fault(),
        });
        response
    }
}
