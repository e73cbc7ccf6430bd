//! An API server in this process, for what a real one can't be made to do. Used by tests only.

use std::sync::{Arc, Mutex};

pub mod cluster;
mod objects;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use kube::Client;
use serde_json::{Value, json};

/// One Lease, and whether the server works.
#[derive(Clone, Default)]
pub struct FakeLease {
    state: Arc<Mutex<LeaseState>>,
}

#[derive(Default)]
struct LeaseState {
    lease: Option<Value>,
    version: u64,
    broken: bool,
    silent: bool,
}

impl FakeLease {
    pub fn client(&self) -> Client {
        let routes = Router::new()
            .route(
                "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases",
                axum::routing::post(write),
            )
            .route(
                "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}",
                get(read).put(write),
            )
            .with_state(self.clone());
        Client::new(routes, "default")
    }

    /// Answers everything with 500 from now on.
    pub fn break_down(&self) {
        self.state.lock().unwrap().broken = true;
    }

    /// Answers no read from now on.
    pub fn hang_reads(&self) {
        self.state.lock().unwrap().silent = true;
    }

    /// Writes another holder, as a second operator would.
    pub fn take_by(&self, holder: &str) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        let version = state.version.to_string();
        if let Some(lease) = &mut state.lease {
            lease["spec"]["holderIdentity"] = holder.into();
            lease["metadata"]["resourceVersion"] = version.into();
        }
    }

    pub fn holder(&self) -> String {
        let state = self.state.lock().unwrap();
        let lease = state.lease.clone().unwrap_or_default();
        lease["spec"]["holderIdentity"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

async fn read(State(fake): State<FakeLease>) -> Response {
    let silent = fake.state.lock().unwrap().silent;
    if silent {
        std::future::pending::<()>().await;
    }
    let state = fake.state.lock().unwrap();
    match &state.lease {
        _ if state.broken => failure(500),
        Some(lease) => Json(lease.clone()).into_response(),
        None => failure(404),
    }
}

async fn write(State(fake): State<FakeLease>, Json(mut lease): Json<Value>) -> Response {
    let mut state = fake.state.lock().unwrap();
    if state.broken {
        return failure(500);
    }
    let current = state
        .lease
        .as_ref()
        .map(|lease| lease["metadata"]["resourceVersion"].clone());
    if current != lease["metadata"].get("resourceVersion").cloned() {
        return failure(409);
    }
    state.version += 1;
    lease["metadata"]["resourceVersion"] = state.version.to_string().into();
    state.lease = Some(lease.clone());
    Json(lease).into_response()
}

/// A client whose server answers everything with this status and body.
pub fn answering(code: u16, body: Value) -> Client {
    let answer = move || {
        let body = body.clone();
        async move { (StatusCode::from_u16(code).unwrap(), Json(body)) }
    };
    Client::new(Router::new().fallback(any(answer)), "default")
}

/// A Status object with that code.
pub fn failure_body(code: u16) -> Value {
    // The client goes by the reason.
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        _ => "",
    };
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "fake", "reason": reason})
}

fn failure(code: u16) -> Response {
    (
        StatusCode::from_u16(code).unwrap(),
        Json(failure_body(code)),
    )
        .into_response()
}
