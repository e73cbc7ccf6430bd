//! `/api/media`: the API of the service that this one replaces, for clients that are not changed.
//!
//! Here the server offers: a session is admitted with its offer, and goes to its shard when the answer comes.
//! What that service calls a publisher is a viewer as well. Requests are read as Go read them, and answered with
//! its statuses and texts, odd ones included; where it was wrong (docs/migration.md lists it), the shape of
//! the answer stays. `offered.rs` does the work; `sessions.rs`, `sfu.rs` and `ws.rs` are the surfaces,
//! beside `api/recordings.rs`.

pub(super) mod body;
mod offered;
mod sessions;
mod sfu;
mod ws;

use super::error::media::MediaError;
use super::openapi::{self, Operation};
use super::recordings;
use super::{check_rate, principal};
use crate::app::App;
use crate::auth::Principal;
use axum::Router;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use std::sync::Arc;

/// Operations of all surfaces.
pub(super) const OPERATIONS: [&[Operation]; 4] = [
    sessions::OPERATIONS,
    sfu::OPERATIONS,
    ws::OPERATIONS,
    recordings::OPERATIONS,
];

/// Routes of all surfaces.
pub(super) fn routes() -> Router<Arc<App>> {
    let tables = OPERATIONS.into_iter().map(openapi::routes);
    tables.fold(Router::new(), Router::merge)
}

/// Whether a path belongs to this API.
pub(super) fn is_path(path: &str) -> bool {
    path.strip_prefix("/api/media")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What an unknown path, or an unknown method of a known one, is answered: with a slash too many at its end it
/// is sent to the right one.
pub(super) fn no_route(method: &Method, uri: &Uri) -> Response {
    let name = method.as_str().to_ascii_lowercase();
    let known = |path: &str| {
        let mut operations = OPERATIONS.into_iter().flatten();
        operations.any(|operation| operation.method == name && openapi::takes(operation, path))
    };
    if let Some(path) = uri.path().strip_suffix('/').filter(|path| known(path)) {
        let status = match *method {
            Method::GET => StatusCode::MOVED_PERMANENTLY,
            _ => StatusCode::TEMPORARY_REDIRECT,
        };
        let query = uri
            .query()
            .map(|query| format!("?{query}"))
            .unwrap_or_default();
        return (status, [(header::LOCATION, format!("{path}{query}"))]).into_response();
    }
    MediaError::NoRoute.into_response()
}

/// Checks the token of a request, and counts it.
async fn caller(app: &App, headers: &HeaderMap) -> Result<Principal, MediaError> {
    let principal = principal(app, headers).await?;
    check_rate(app, &principal)?;
    Ok(principal)
}

/// The answer to what needs none.
fn ok() -> axum::Json<serde_json::Value> {
    axum::Json(serde_json::json!({"status": "ok"}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::http::named;

    #[test]
    fn every_request_that_makes_or_changes_a_session_has_a_span() {
        // Of recordings that are over.
        let none = [
            "/api/media/recordings/cleanup",
            "/api/media/recordings/{id}",
        ];
        let operations = OPERATIONS.into_iter().flatten();
        for operation in operations.filter(|operation| operation.method != "get") {
            let method = operation.method.to_ascii_uppercase();
            let method = method.parse().expect("a method");
            let has_one = named(&method, operation.path).is_some();
            assert_eq!(
                has_one,
                !none.contains(&operation.path),
                "{method} {}",
                operation.path
            );
        }
        for (method, path) in [
            (Method::POST, "/whip/{device}"),
            (Method::POST, "/whep/{device}"),
            (Method::PATCH, "/whip/{device}/{session}"),
            (Method::DELETE, "/whep/{device}/{session}"),
            (Method::POST, "/whep/{device}/{session}/layer"),
            (Method::DELETE, "/whep/{device}/{session}/layer"),
        ] {
            assert!(named(&method, path).is_some(), "{method} {path}");
        }
    }
}
