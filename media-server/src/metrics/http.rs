//! Counts HTTP requests around the router; no handler knows of it.

use crate::api::error::{ErrorKind, Fault};
use crate::app::App;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use std::sync::Arc;
use std::time::Instant;

/// Records method, route template, status and duration of every request, and the errors answered.
pub async fn measure(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let metrics = &app.metrics;
    let path = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("unmatched".to_owned(), |path| template(path.as_str()));
    // A method is a label: only those that mean something here, or anybody could make series.
    let method = match request.method().as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PATCH" | "DELETE" | "OPTIONS" | "PUT") => known,
        _ => "OTHER",
    }
    .to_owned();
    let started = Instant::now();
    let in_flight = InFlight::new(app.clone());
    let response = next.run(request).await;
    drop(in_flight);
    let status = response.status();
    let code = status.as_u16();
    tracing::debug!(method, path, code, "request answered");
    metrics.count(
        "media_http_requests_total",
        &[&method, &path, status.as_str()],
    );
    metrics.observe(
        "media_http_duration_seconds",
        &[&method, &path],
        started.elapsed().as_secs_f64(),
    );
    let error = response.extensions().get::<ErrorKind>();
    if let Some(ErrorKind { kind, limit, fault }) = error {
        metrics.count("media_errors_total", &[kind, operation(&method, &path)]);
        if let Some(limit) = limit {
            metrics.count("media_refused_total", &[limit]);
        }
        if *fault == Fault::Server {
            tracing::warn!(method, path, code, error = kind, "request failed");
        }
    }
    if is_signalling(&method, &path) {
        let result = match error {
            Some(error) => error.fault.as_str(),
            None if status.is_server_error() => Fault::Server.as_str(),
            None if status.is_client_error() => Fault::Client.as_str(),
            None => "ok",
        };
        metrics.count("media_signalling_total", &[result]);
    }
    response
}

/// Whether a request is one of those that service levels are about: to begin, change, end or record sessions, and
/// what the older API asks beside. Not pages and what they ask again and again, probes, preflights, unknown routes.
fn is_signalling(method: &str, path: &str) -> bool {
    if path.starts_with("/whip/") || path.starts_with("/whep/") {
        matches!(method, "POST" | "PATCH" | "DELETE")
    } else {
        (path.starts_with("/api/media/") || path.starts_with("/ws/")) && method != "OPTIONS"
    }
}

/// A route as the label `path` has it: the older API's as the service before wrote it.
fn template(path: &str) -> String {
    if path.starts_with("/api/media/") || path.starts_with("/ws/") {
        path.replace('{', ":").replace('}', "")
    } else {
        path.to_owned()
    }
}

/// What was attempted, for the label `operation`.
fn operation(method: &str, path: &str) -> &'static str {
    match (method, path) {
        ("POST", "/whip/{device}") => "whip_create",
        ("POST", "/whep/{device}") => "whep_create",
        ("PATCH", "/whip/{device}/{session}" | "/whep/{device}/{session}") => "session_patch",
        ("OPTIONS", "/whip/{device}" | "/whep/{device}") => "ice_servers",
        ("DELETE", "/whip/{device}/{session}" | "/whep/{device}/{session}") => "session_delete",
        ("POST" | "DELETE", "/whep/{device}/{session}/layer") => "layer_select",
        (_, path) if path.starts_with("/whep/{device}/{session}/sse") => "events",
        (_, path) if path.starts_with("/whip/") || path.starts_with("/whep/") => "session_read",
        ("POST", "/api/media/recordings") => "recording_start",
        (_, path) if path.starts_with("/api/media/recordings") => "recordings",
        (_, path) if path.starts_with("/api/v1/") => "api_read",
        (_, path) if path.starts_with("/api/media/") => older(method, path),
        (_, "unmatched") => "unmatched",
        _ => "other",
    }
}

/// The same for the older API.
fn older(method: &str, path: &str) -> &'static str {
    match (method, path.rsplit('/').next().unwrap_or_default()) {
        (_, "answer") => "session_answer",
        (_, "ice-candidate" | "ice-candidates") => "session_candidates",
        (_, "turn-credentials") => "ice_servers",
        ("POST", _) => "session_create",
        ("DELETE", _) => "session_delete",
        _ => "session_read",
    }
}

/// Counts a request while it is handled, also when its client goes away.
struct InFlight(Arc<App>);

impl InFlight {
    fn new(app: Arc<App>) -> InFlight {
        app.metrics.add("media_http_requests_in_flight", &[], 1.0);
        InFlight(app)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0
            .metrics
            .add("media_http_requests_in_flight", &[], -1.0);
    }
}
