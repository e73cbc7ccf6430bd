//! Cross-origin requests (Fetch §3.2): which pages of other origins may call.
//!
//! Without configured origins no header is sent, and browsers refuse. Credentials in the sense of
//! Fetch (cookies) are never allowed: tokens travel in `Authorization`, which scripts set themselves.

use super::media;
use crate::app::App;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// Adds the CORS headers, and answers preflights of routes that have no OPTIONS of their own.
pub async fn apply(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let preflight = request.method() == Method::OPTIONS
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let allowed = headers
        .get(header::ORIGIN)
        .and_then(|origin| allowed_origin(&app.config.cors_origins, origin));
    let older = media::is_path(request.uri().path());
    let mut response = next.run(request).await;
    if preflight && (older || response.status() == StatusCode::METHOD_NOT_ALLOWED) {
        response = StatusCode::NO_CONTENT.into_response();
    }
    if app.config.cors_origins.is_empty() {
        return response;
    }
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = allowed else {
        return response;
    };
    let allowed = if older { &OLDER } else { &OURS };
    let text = HeaderValue::from_static;
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, text(allowed.exposed));
    if preflight {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, text(allowed.methods));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, text(allowed.headers));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, text(allowed.max_age));
    }
    response
}

/// What a page of an allowed origin may send and see. One that is traced adds the headers of W3C Trace Context to
/// each request, and without leave for them could not make any.
struct Allowed {
    methods: &'static str,
    headers: &'static str,
    exposed: &'static str,
    /// Seconds that a browser may remember a preflight.
    max_age: &'static str,
}

const OURS: Allowed = Allowed {
    methods: "GET, HEAD, POST, PATCH, DELETE, OPTIONS",
    headers: "Authorization, Content-Type, If-Match, traceparent, tracestate",
    exposed: "Location, ETag, Link, Retry-After, Accept-Post, Accept-Patch",
    max_age: "600",
};

/// Of the older API, as the service before said it, but for the headers of traces.
const OLDER: Allowed = Allowed {
    methods: "GET, POST, PUT, PATCH, DELETE, OPTIONS",
    headers: "Origin, Content-Type, Authorization, traceparent, tracestate",
    exposed: "Content-Length",
    max_age: "43200",
};

pub(super) fn allowed_origin(configured: &[String], origin: &HeaderValue) -> Option<HeaderValue> {
    if configured.iter().any(|known| known == "*") {
        return Some(HeaderValue::from_static("*"));
    }
    configured
        .iter()
        .any(|known| known.as_bytes() == origin.as_bytes())
        .then(|| origin.clone())
}
