//! The HTTP surface: routes, and what all of them share (CORS, body limit, tokens, device names).
//!
//! Owns no state; each file below `api/` is one surface and `api/error.rs` alone chooses statuses.
//! Called by the app, which serves the routers.

mod admin;
mod answered;
mod cors;
pub mod error;
mod events;
mod extract;
mod layers;
mod media;
mod openapi;
mod patch;
mod recordings;
mod scrape;
mod sessions;
mod whip;

pub use scrape::PLACES as SCRAPES;
#[cfg(test)]
pub(crate) use whip::count_created;
pub use whip::count_setup;

use crate::app::App;
use crate::auth::{AuthError, Principal};
use crate::devices;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use error::ApiError;
use error::media::MediaError;
use extract::{Names, Pairs};
use futures::FutureExt as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Offers and answers.
const SDP: &str = "application/sdp";
/// What the extensions of WHEP are asked in.
const JSON: &str = "application/json";
/// Trickled candidates and ICE restarts (RFC 8840 §9).
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
/// Largest request body, of any route.
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// A body that takes longer is an attack or a dead link.
const BODY_WITHIN: Duration = Duration::from_secs(10);

/// Routes of the signalling port. With `operations` also those for probes and scrapes.
pub fn signalling(app: &Arc<App>, operations: bool) -> Router {
    let mut router = Router::new()
        .merge(whip::routes())
        .merge(layers::routes())
        .merge(events::routes())
        .merge(openapi::routes(sessions::OPERATIONS))
        .merge(media::routes())
        .merge(crate::pages::router())
        .merge(admin::health());
    if operations {
        router = router.merge(admin::operations());
    }
    finish(app, router)
}

/// Routes of the metrics port.
pub fn operations(app: &Arc<App>) -> Router {
    finish(
        app,
        Router::new()
            .merge(admin::health())
            .merge(admin::operations()),
    )
}

fn finish(app: &Arc<App>, router: Router<Arc<App>>) -> Router {
    router
        .fallback(async |method: Method, uri: Uri| {
            let path = uri.path();
            let older = media::is_path(path).then(|| media::no_route(&method, &uri));
            older.unwrap_or_else(|| {
                let path = path.to_owned();
                ApiError::NoRoute { path }.into_response()
            })
        })
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            let older = media::is_path(uri.path()).then(|| media::no_route(&method, &uri));
            older.unwrap_or_else(|| ApiError::Method.into_response())
        })
        .layer(middleware::from_fn(answer_panics))
        .layer(middleware::from_fn_with_state(app.clone(), cors::apply))
        .layer(middleware::from_fn_with_state(
            app.clone(),
            crate::metrics::http::measure,
        ))
        .layer(middleware::from_fn_with_state(
            app.clone(),
            crate::trace::http::follow,
        ))
        .with_state(app.clone())
}

/// A handler's bug is one request's: the connection goes on, with all that is on it.
async fn answer_panics(request: Request, next: Next) -> Response {
    let is_older = media::is_path(request.uri().path());
    let handled = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    handled.unwrap_or_else(|_| match is_older {
        true => {
            let error = "Internal Server Error";
            let mut response = MediaError::internal(error, None).into_response();
            response.extensions_mut().insert(ApiError::Bug.error_kind());
            response
        }
        false => ApiError::Bug.into_response(),
    })
}

/// Checks the token of a request.
async fn principal(app: &App, headers: &HeaderMap) -> Result<Principal, ApiError> {
    let value = match headers.get(header::AUTHORIZATION) {
        None => None,
        Some(value) => Some(value.to_str().map_err(|_| {
            app.metrics
                .count("media_auth_failures_total", &["malformed"]);
            ApiError::Unauthorized(AuthError::Malformed)
        })?),
    };
    authorize(app, value).await
}

/// Checks the value of an `Authorization` header, or one made of a token that came another way.
async fn authorize(app: &App, value: Option<&str>) -> Result<Principal, ApiError> {
    app.auth.check(value).await.map_err(|error| {
        app.metrics
            .count("media_auth_failures_total", &[error.reason()]);
        ApiError::Unauthorized(error)
    })
}

/// Counts a request of a subject. Without tokens everybody is one, and nobody is counted.
fn check_rate(app: &App, principal: &Principal) -> Result<(), ApiError> {
    let Some(holder) = principal.holder() else {
        return Ok(());
    };
    app.limiter
        .subjects
        .take(Instant::now(), &holder)
        .map_err(|wait| ApiError::Rate {
            limit: "subject",
            wait,
        })
}

/// Checks what a client calls a device.
fn device_name(device: &str) -> Result<&str, ApiError> {
    if devices::is_name(device) {
        Ok(device)
    } else {
        Err(ApiError::DeviceName)
    }
}

/// Whether the media type of the body, without parameters, is `wanted`.
fn expect_type(headers: &HeaderMap, wanted: &'static str) -> Result<(), ApiError> {
    let given = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case(wanted) {
        Ok(())
    } else {
        Err(ApiError::MediaType {
            given: essence.chars().take(100).collect(),
            wanted,
        })
    }
}

/// Reads a body within the limits of size and time.
async fn read_body(body: Body) -> Result<Bytes, ApiError> {
    let read = Limited::new(body, MAX_BODY_BYTES).collect();
    match tokio::time::timeout(BODY_WITHIN, read).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::TooLarge),
        Ok(Err(_)) => Err(ApiError::BodyCut),
        Err(_) => Err(ApiError::BodySlow),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use serde_json::{Value, json};
    use tower::ServiceExt as _;

    #[tokio::test]
    async fn a_handler_that_panics_answers_500_in_the_form_of_its_surface_and_is_counted() {
        async fn panics() {
            panic!("a bug")
        }
        let app = crate::app::tests::app().await;
        let router = Router::new()
            .route("/api/media/x", get(panics))
            .route("/x", get(panics));
        let router = finish(&app, router);
        let ask = async |path: &str| {
            let request = Request::get(path).body(Body::empty()).expect("a request");
            let response = router.clone().oneshot(request).await.expect("an answer");
            let (head, body) = response.into_parts();
            let body = read_body(body).await.expect("a body");
            let body: Value = serde_json::from_slice(&body).expect("JSON");
            (head.status.as_u16(), body)
        };
        let (status, body) = ask("/api/media/x").await;
        assert_eq!(
            (status, body),
            (500, json!({"error": "Internal Server Error"}))
        );
        let (status, body) = ask("/x").await;
        assert_eq!((status, &body["title"]), (500, &json!("Server error")));
        let format = crate::metrics::text::Format::Prometheus;
        let shown = app.metrics.render(format, |_| {});
        let counted = r#"media_http_requests_total{method="GET",path="/x",status="500"} 1"#;
        assert!(shown.contains(counted), "{shown}");
        let ours = "media_signalling_total{result=\"failed\"} 1\n";
        assert!(shown.contains(ours), "of the older API: {shown}");
    }
}
