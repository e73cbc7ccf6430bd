//! Health, load and metrics: for probes, the operator and Prometheus. None needs a token; in a pod
//! they are on a port that no Ingress has.

use crate::app::App;
use crate::metrics::collect;
use crate::metrics::text::Format;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use std::sync::Arc;
use std::time::Instant;

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
async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> impl IntoResponse {
    let accept = headers.get_all(header::ACCEPT).iter();
    let accept: Vec<&str> = accept.filter_map(|value| value.to_str().ok()).collect();
    let format = Format::preferred(&accept.join(","));
    // One at a time: each holds the whole text.
    let place = app.scraping.clone().lock_owned().await;
    // Off the threads that answer requests: with 10 000 sessions the others would wait for it.
    let text = tokio::task::spawn_blocking(move || {
        let _place = place;
        collect::scrape(&app, format)
    });
    let text = text.await.expect("a scrape does not panic");
    ([(header::CONTENT_TYPE, format.content_type())], text)
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
