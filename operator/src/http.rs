//! The operator's own endpoints: `/livez`, `/readyz` and `/metrics`, served before leadership.
//!
//! `/livez` says that the process runs its tasks; a failure means that a restart helps. `/readyz`
//! says that the API server answers; a failure means that nothing here would help.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use kube::Client;
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// When things were last seen to work, in milliseconds since the start. Cheap to clone.
#[derive(Clone)]
pub struct Health {
    started: Instant,
    ticked: Arc<AtomicU64>,
    answered: Arc<AtomicU64>,
}

/// A task that ticks each second and has not for this long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// The API server is asked every 10 s; two questions may fail.
const UNREADY_AFTER: Duration = Duration::from_secs(35);
const ASK_PERIOD: Duration = Duration::from_secs(10);

const NEVER: u64 = u64::MAX;

impl Health {
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            ticked: Arc::new(AtomicU64::new(0)),
            answered: Arc::new(AtomicU64::new(NEVER)),
        }
    }

    /// Ticks, and asks the API server for its version, for ever.
    pub async fn watch(self, client: Client) {
        let tick = async {
            loop {
                self.ticked.store(self.now(), Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let ask = async {
            loop {
                let asked = tokio::time::timeout(ASK_PERIOD, client.apiserver_version()).await;
                let period = if matches!(asked, Ok(Ok(_))) {
                    self.answered.store(self.now(), Ordering::Relaxed);
                    ASK_PERIOD
                } else {
                    Duration::from_secs(1)
                };
                tokio::time::sleep(period).await;
            }
        };
        tokio::join!(tick, ask);
    }

    fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn within(&self, seen: &AtomicU64, limit: Duration) -> bool {
        let seen = seen.load(Ordering::Relaxed);
        seen != NEVER && u128::from(self.now().saturating_sub(seen)) <= limit.as_millis()
    }
}

/// Serves until `stop` is done.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    health: Health,
    metrics: Metrics,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(health)
        .merge(
            Router::new()
                .route("/metrics", get(exposition))
                .with_state(metrics),
        );
    axum::serve(listener, routes)
        .with_graceful_shutdown(stop)
        .await
}

async fn livez(State(health): State<Health>) -> impl IntoResponse {
    if health.within(&health.ticked, STUCK_AFTER) {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "tasks are stuck\n")
    }
}

async fn readyz(State(health): State<Health>) -> impl IntoResponse {
    if health.within(&health.answered, UNREADY_AFTER) {
        (StatusCode::OK, "ok\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the API server does not answer\n",
        )
    }
}

async fn exposition(State(metrics): State<Metrics>) -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        metrics.render(),
    )
}
