//! `/api/v1`: devices and sessions as JSON, for people and scripts.

use super::error::ApiError;
use super::openapi::{self, Operation};
use super::{Names, principal};
use crate::app::App;
use crate::auth::Principal;
use crate::clock::rfc3339;
use crate::devices::name_of;
use crate::registry::{Record, role_name};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use axum::routing::get;
use media_core::ids::SessionId;
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;

/// Operations of the JSON API.
pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        method: "get",
        path: "/api/v1/devices",
        summary: "Devices with a session, as far as the token lets them be seen",
        query: &[],
        request: None,
        answers: &[(200, "Devices")],
        handler: || get(devices),
    },
    Operation {
        method: "get",
        path: "/api/v1/sessions",
        summary: "Sessions open now, with live figures",
        query: &[],
        request: None,
        answers: &[(200, "Sessions")],
        handler: || get(sessions),
    },
    Operation {
        method: "get",
        path: "/api/v1/sessions/{session}",
        summary: "One session",
        query: &[],
        request: None,
        answers: &[(200, "Session"), (404, "Problem")],
        handler: || get(session),
    },
    Operation {
        method: "get",
        path: "/api/v1/openapi.json",
        summary: "This document; it needs no token",
        query: &[],
        request: None,
        answers: &[(200, "Document")],
        handler: || get(async || Json(openapi::document())),
    },
];

#[derive(Debug, Serialize)]
struct Devices {
    devices: Vec<Device>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    device: String,
    /// Whether there is a publisher whose media can flow.
    live: bool,
    viewers: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    live_since: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frame_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bitrate_bps: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Sessions {
    sessions: Vec<Session>,
}

/// A session with its live figures; a figure that is not known yet is left out.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Session {
    id: String,
    device: String,
    role: &'static str,
    protocol: &'static str,
    created_at: String,
    age_seconds: u64,
    connected: bool,
    ice_state: &'static str,
    candidates: u32,
    packets: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_time_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frame_rate: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bitrate_bps: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    estimate_bps: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    loss_ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jitter_ms: Option<f64>,
}

impl Session {
    fn of(record: &Record) -> Session {
        let cells = &record.cells;
        let millis = |time: std::time::Duration| time.as_secs_f64() * 1e3;
        Session {
            id: record.id.to_string(),
            device: record.device_name().to_owned(),
            role: role_name(record.role()),
            protocol: record.protocol.as_str(),
            created_at: rfc3339(record.created_at),
            age_seconds: record.created.elapsed().as_secs(),
            connected: record.connected(),
            ice_state: cells.ice_state().as_str(),
            candidates: cells.candidates_added(),
            packets: cells.packets(),
            bytes: cells.bytes(),
            connection_time_ms: cells.connection_time().map(millis),
            frame_rate: cells.frame_rate(),
            bitrate_bps: cells.bitrate_bps(),
            estimate_bps: cells.estimate_bps(),
            loss_ratio: cells.loss_ratio(),
            rtt_ms: cells.rtt().map(millis),
            jitter_ms: cells.jitter().map(millis),
        }
    }
}

async fn devices(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    let principal = principal(&app, &headers).await?;
    let devices = app
        .registry
        .devices()
        .into_iter()
        .filter(|view| principal.may_view(&view.device) || principal.may_publish(&view.device))
        .map(|view| {
            let publisher = view.publisher.filter(|p| p.connected());
            Device {
                device: name_of(&view.device).to_owned(),
                live: publisher.is_some(),
                viewers: view.viewers,
                live_since: publisher.as_ref().map(|p| rfc3339(p.created_at)),
                frame_rate: publisher.as_ref().and_then(|p| p.cells.frame_rate()),
                bitrate_bps: publisher.as_ref().and_then(|p| p.cells.bitrate_bps()),
            }
        })
        .collect();
    Ok(fresh(Devices { devices }))
}

async fn sessions(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    let principal = principal(&app, &headers).await?;
    let mut records = app.registry.sessions();
    records.retain(|record| sees(&principal, record));
    records.sort_by_key(|record| record.created);
    let sessions = records.iter().map(|record| Session::of(record)).collect();
    Ok(fresh(Sessions { sessions }))
}

async fn session(
    State(app): State<Arc<App>>,
    Names(id): Names<String>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, ApiError> {
    let principal = principal(&app, &headers).await?;
    let record = id
        .parse::<SessionId>()
        .ok()
        .and_then(|id| app.registry.find(id))
        .filter(|record| sees(&principal, record))
        .ok_or(ApiError::UnknownSession)?;
    record.called(Instant::now());
    Ok(fresh(Session::of(&record)))
}

/// Whoever may watch the device sees its sessions, and who made one sees that.
pub(super) fn sees(principal: &Principal, record: &Record) -> bool {
    principal.may_view(&record.device) || principal.owns(&record.device, record.subject.as_deref())
}

/// Figures change each second: nobody may keep them.
fn fresh<T: Serialize>(body: T) -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "no-store")], Json(body))
}
