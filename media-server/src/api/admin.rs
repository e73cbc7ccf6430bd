//! Health, load and metrics: for probes, the operator and Prometheus. None needs a token; in a pod
//! they are on a port that no Ingress has.

use super::scrape::Scrape;
use crate::app::App;
use crate::metrics::collect;
use crate::metrics::text::Format;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest wait for others to take in what they asked for. Prometheus waits for 10 s in all.
const PLACE_WITHIN: Duration = Duration::from_secs(2);

/// The route that may be public: it tells strangers nothing and costs nothing.
pub fn health() -> Router<Arc<App>> {
    // The exact body is what load balancers of the replaced service look for.
    Router::new().route(
        "/health",
        get(async || {
            (
                [(header::CONTENT_TYPE, "application/json")],
                r#"{"status":"ok","service":"media-service"}"#,
            )
        }),
    )
}

/// Routes for probes, the operator and Prometheus.
pub fn operations() -> Router<Arc<App>> {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/load", get(load))
        .route("/metrics", get(metrics))
}

/// Everything, in the format that is asked for. Never compressed: it is large with thousands of sessions
/// alone, and compressing it then would take a core for longer than making it.
async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let accept = headers.get_all(header::ACCEPT).iter();
    let accept: Vec<&str> = accept.filter_map(|value| value.to_str().ok()).collect();
    let format = Format::preferred(&accept.join(","));
    // Who waits holds no text, and those who read hold theirs for some milliseconds as a rule.
    let place = tokio::time::timeout(PLACE_WITHIN, app.scrapes.clone().acquire_owned()).await;
    let Ok(Ok(place)) = place else {
        let metrics = &app.metrics;
        metrics.count("media_bound_hits_total", &["scrapes"]);
        let (status, retry) = (
            StatusCode::SERVICE_UNAVAILABLE,
            [(header::RETRY_AFTER, "1")],
        );
        return (status, retry, "others are being told; try again\n").into_response();
    };
    // Off the threads that answer requests: with 10 000 sessions the others would wait for it.
    let scrape = tokio::task::spawn_blocking(move || (collect::scrape(&app, format), place));
    let (text, place) = scrape.await.expect("a scrape does not panic");
    let body = Body::new(Scrape::new(text, place));
    ([(header::CONTENT_TYPE, format.content_type())], body).into_response()
}

/// Live: the runtime runs (it answers) and no shard hangs. Never a matter of load, because the end of
/// this process is the end of every session.
async fn livez(State(app): State<Arc<App>>) -> impl IntoResponse {
    let stuck = app.shards.stuck(Instant::now());
    if stuck.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("shards {stuck:?} hang\n"),
        )
    }
}

async fn readyz(State(app): State<Arc<App>>) -> impl IntoResponse {
    match app.not_ready() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn load(State(app): State<Arc<App>>) -> impl IntoResponse {
    let (publishers, viewers) = app.registry.totals();
    Json(json!({
        "v": 1,
        "boot": app.boot,
        "state": app.drain_state().as_str(),
        "publishers": publishers,
        "viewers": viewers,
        "edges": 0,
        "egressPps": app.usage.egress_pps(),
        "cpu": app.usage.cpu_ratio(),
        "setupOk": app.usage.setup_ok(),
        "setupFail": app.usage.setup_failed(),
        "directory": "memory",
        "version": env!("CARGO_PKG_VERSION"),
    }))
}

#[cfg(test)]
mod tests {
    use super::super::SCRAPES;
    use super::*;
    use crate::app::tests::app;
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn who_does_not_read_what_it_asked_for_holds_a_place_for_ten_seconds_at_the_most() {
        let app = app().await;
        tokio::time::pause();
        let ask = async || metrics(State(app.clone()), HeaderMap::new()).await;
        let refused = async || {
            let answer = ask().await;
            let wait = answer.headers().get(header::RETRY_AFTER).is_some();
            (answer.status(), wait) == (StatusCode::SERVICE_UNAVAILABLE, true)
        };
        let mut unread = Vec::new();
        for _ in 0..SCRAPES {
            unread.push(ask().await);
        }
        assert!(refused().await, "each holds its text");
        let text = unread.pop().expect("some").into_body().collect().await;
        let text = text.expect("in time").to_bytes();
        assert!(text.starts_with(b"# HELP "), "{text:?}");
        assert!(text.ends_with(b"\n"), "{text:?}");
        let gone = ask().await;
        assert_eq!(gone.status(), StatusCode::OK, "one is done");
        assert_eq!(app.scrapes.available_permits(), 0);
        drop(gone);
        assert_eq!(app.scrapes.available_permits(), 1);
        unread.push(ask().await);
        // Those who are refused have waited for two seconds each.
        assert!(refused().await);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(app.scrapes.available_permits(), 0);
        tokio::time::advance(Duration::from_secs(4)).await;
        // Each place is given back by a task that has had its time.
        while app.scrapes.available_permits() < SCRAPES {
            tokio::task::yield_now().await;
        }
        for late in unread {
            late.into_body().collect().await.expect_err("too late");
        }
        assert_eq!(ask().await.status(), StatusCode::OK);
    }
}
