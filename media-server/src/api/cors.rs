//! Cross-origin requests (Fetch §3.2): which pages of other origins may call.
//!
//! Without configured origins no header is sent, and browsers refuse. Credentials in the sense of
//! Fetch (cookies) are never allowed: tokens travel in `Authorization`, which scripts set themselves.

use crate::app::App;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// Seconds that a browser may remember a preflight.
const MAX_AGE: &str = "600";

/// Adds the CORS headers, and answers preflights of routes that have no OPTIONS of their own.
pub async fn apply(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let preflight = request.method() == Method::OPTIONS
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let allowed = headers
        .get(header::ORIGIN)
        .and_then(|origin| allowed_origin(&app.config.cors_origins, origin));
    let mut response = next.run(request).await;
    if preflight && response.status() == StatusCode::METHOD_NOT_ALLOWED {
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
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("Location, ETag, Link, Retry-After, Accept-Post, Accept-Patch"),
    );
    if preflight {
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, HEAD, POST, PATCH, DELETE, OPTIONS"),
        );
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static("Authorization, Content-Type, If-Match"),
        );
        headers.insert(
            header::ACCESS_CONTROL_MAX_AGE,
            HeaderValue::from_static(MAX_AGE),
        );
    }
    response
}

fn allowed_origin(configured: &[String], origin: &HeaderValue) -> Option<HeaderValue> {
    if configured.iter().any(|known| known == "*") {
        return Some(HeaderValue::from_static("*"));
    }
    configured
        .iter()
        .any(|known| known.as_bytes() == origin.as_bytes())
        .then(|| origin.clone())
}
