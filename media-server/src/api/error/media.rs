//! Errors of the older API → the statuses and bodies that its clients know.
//!
//! The body is `{"error": …}`; where the cause is worth telling, `message` has it. Load, which the service before
//! did not refuse, has the statuses of the rest of the server.

use super::{ApiError, ErrorKind, Fault};
use crate::api::media::body::BodyError;
use crate::auth::AuthError;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Why a request failed.
#[derive(Debug)]
pub enum MediaError {
    /// Neither a path nor a method of the API.
    NoRoute,
    /// The body is not what the request takes; the text is a validator's.
    Invalid(String),
    /// The token, or a limit.
    Api(ApiError),
    /// `userId` is not the token's.
    User,
    /// A WebSocket of a page that is not allowed one.
    Origin,
    /// What was attempted failed, with a status of its own.
    Failed {
        status: StatusCode,
        error: String,
        cause: Option<ApiError>,
    },
}

impl From<ApiError> for MediaError {
    fn from(error: ApiError) -> Self {
        MediaError::Api(error)
    }
}

impl From<BodyError> for MediaError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Invalid(text) => MediaError::Invalid(text),
            BodyError::Read(error) => MediaError::Api(error),
        }
    }
}

impl MediaError {
    /// Something is not there.
    pub fn not_found(error: &str) -> MediaError {
        MediaError::failed(StatusCode::NOT_FOUND, error, None)
    }

    /// Something went wrong, which the service before called its own fault.
    pub fn internal(error: &str, cause: Option<ApiError>) -> MediaError {
        MediaError::failed(StatusCode::INTERNAL_SERVER_ERROR, error, cause)
    }

    /// A candidate could not be added.
    pub fn candidate(error: &str) -> MediaError {
        MediaError::failed(StatusCode::BAD_REQUEST, error, None)
    }

    fn failed(status: StatusCode, error: &str, cause: Option<ApiError>) -> MediaError {
        MediaError::Failed {
            status,
            error: error.to_owned(),
            cause,
        }
    }
}

impl IntoResponse for MediaError {
    fn into_response(self) -> Response {
        let labelled = |kind, mut response: Response| {
            response.extensions_mut().insert(ErrorKind {
                kind,
                limit: None,
                // Without a cause of ours the client asked for what is not there, with whichever status.
                fault: Fault::Client,
            });
            response
        };
        match self {
            MediaError::NoRoute => {
                let text = [(header::CONTENT_TYPE, "text/plain")];
                let response = (StatusCode::NOT_FOUND, text, "404 page not found");
                labelled("not_found", response.into_response())
            }
            MediaError::Invalid(error) => {
                let body = Json(json!({"error": error}));
                labelled("invalid", (StatusCode::BAD_REQUEST, body).into_response())
            }
            MediaError::User => {
                let body =
                    json!({"error": "Forbidden", "message": "userId is not the token's sub"});
                let response = (StatusCode::FORBIDDEN, Json(body)).into_response();
                labelled("user_id", response)
            }
            MediaError::Origin => {
                let message = "pages of this origin are not among the server's cors_origins";
                let body = json!({"error": "Forbidden", "message": message});
                let response = (StatusCode::FORBIDDEN, Json(body)).into_response();
                labelled("origin", response)
            }
            MediaError::Api(error) => from_api(error),
            MediaError::Failed {
                status,
                error,
                cause,
            } => {
                let mut body = json!({"error": error});
                let Some(cause) = cause else {
                    return labelled("failed", (status, Json(body)).into_response());
                };
                body["message"] = cause.to_string().into();
                let status = match cause.status() {
                    load @ (StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) => {
                        load
                    }
                    _ => status,
                };
                with_cause(status, body, &cause)
            }
        }
    }
}

/// What is refused before anything is attempted.
fn from_api(error: ApiError) -> Response {
    let body = match &error {
        ApiError::Unauthorized(AuthError::Subject) => {
            json!({"error": "Unauthorized", "message": "无效的 Token"})
        }
        ApiError::Unauthorized(wait) if wait.may_be_good() => json!({"error": error.to_string()}),
        ApiError::Unauthorized(_) => json!({"error": "Unauthorized", "message": "未授权访问"}),
        ApiError::Forbidden { .. } => json!({"error": "Forbidden", "message": error.to_string()}),
        other => json!({"error": other.to_string()}),
    };
    with_cause(error.status(), body, &error)
}

fn with_cause(status: StatusCode, body: serde_json::Value, cause: &ApiError) -> Response {
    let mut response = (status, Json(body)).into_response();
    if let Some((name, value)) = cause
        .headers()
        .filter(|(name, _)| *name == header::RETRY_AFTER)
    {
        let value: HeaderValue = value;
        response.headers_mut().insert(name, value);
    }
    response.extensions_mut().insert(ErrorKind {
        kind: cause.kind(),
        limit: cause.limit(),
        fault: cause.fault(),
    });
    response
}
