//! Counts HTTP requests around the router; no handler knows of it.

use crate::api::error::{ErrorKind, Fault};
use crate::app::App;
use axum::extract::{MatchedPath, Request, State};
use axum::http::StatusCode;
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
    let mut running = Running::new(app.clone(), method, path);
    let response = next.run(request).await;
    let status = response.status();
    running.answer = Some(status);
    let Running { method, path, .. } = &running;
    let (code, error) = (status.as_u16(), response.extensions().get::<ErrorKind>());
    tracing::debug!(method, path, code, "request answered");
    // What a probe or a scrape is told so is no failure.
    let is_ours = match error {
        Some(error) => error.fault == Fault::Server,
        None => status.is_server_error() && !matches!(&**path, "/livez" | "/readyz" | "/metrics"),
    };
    if is_ours {
        let error = error.map(|error| error.kind);
        tracing::warn!(method, path, code, error, "request failed");
    }
    if let Some(ErrorKind { kind, limit, .. }) = error {
        metrics.count("media_errors_total", &[kind, operation(method, path)]);
        if let Some(limit) = limit {
            metrics.count("media_refused_total", &[limit]);
        }
    }
    if is_signalling(method, path) {
        let result = match error {
            Some(error) => error.fault.as_str(),
            None if status.is_server_error() => Fault::Server.as_str(),
            None if status.is_client_error() => Fault::Client.as_str(),
            None => "ok",
        };
        metrics.count("media_signalling_total", &[result]);
    }
    drop(running);
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

/// A request while it is handled. Counted when it ends, also when that is because its client went away: of those
/// that wait for long, most are.
struct Running {
    app: Arc<App>,
    method: String,
    path: String,
    started: Instant,
    answer: Option<StatusCode>,
}

impl Running {
    fn new(app: Arc<App>, method: String, path: String) -> Running {
        app.metrics.add("media_http_requests_in_flight", &[], 1.0);
        Running {
            app,
            method,
            path,
            started: Instant::now(),
            answer: None,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let (metrics, method, path) = (&self.app.metrics, &*self.method, &*self.path);
        let status = match &self.answer {
            Some(status) => status.as_str(),
            None if std::thread::panicking() => "500",
            // As nginx has it; no client ever sees it.
            None => "499",
        };
        let took = self.started.elapsed().as_secs_f64();
        metrics.add("media_http_requests_in_flight", &[], -1.0);
        metrics.count("media_http_requests_total", &[method, path, status]);
        metrics.observe("media_http_duration_seconds", &[method, path], took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::tests::app;
    use crate::metrics::text::Format;
    use axum::body::Body;
    use axum::routing::get;
    use axum::{Router, middleware};
    use std::future::{pending, poll_fn};
    use std::pin::pin;
    use std::task::Poll;
    use tower::ServiceExt as _;

    #[tokio::test]
    async fn a_request_whose_client_goes_away_is_counted_with_the_time_that_it_waited() {
        let app = app().await;
        let router = Router::new()
            .route("/held", get(async || pending::<()>().await))
            .layer(middleware::from_fn_with_state(app.clone(), measure));
        let text = || app.metrics.render(Format::Prometheus, |_| {});
        {
            let request = axum::http::Request::get("/held")
                .body(Body::empty())
                .expect("right");
            let mut asked = pin!(router.oneshot(request));
            let begun = poll_fn(|cx| Poll::Ready(asked.as_mut().poll(cx).is_pending())).await;
            assert!(begun, "it is held");
            let held = "media_http_requests_in_flight 1\n";
            assert!(text().contains(held), "{}", text());
        }
        for line in [
            "media_http_requests_in_flight 0\n",
            "media_http_requests_total{method=\"GET\",path=\"/held\",status=\"499\"} 1\n",
            "media_http_duration_seconds_count{method=\"GET\",path=\"/held\"} 1\n",
        ] {
            assert!(text().contains(line), "{line} not in {}", text());
        }
    }
}
