//! `/api/media/recordings`: the replaced service's calls, its bodies and its status codes.
//!
//! Each needs the grant `record` for the device; one of another device answers as if it were not there.

mod download;

use super::error::recordings::RecordingError;
use super::media::body::Body;
use super::openapi::{FILE, Operation, Parameter};
use super::{Names, Pairs, check_rate, device_name};
use crate::app::App;
use crate::auth::Principal;
use crate::devices::name_of;
use crate::recording::{Active, CODECS, Format, Note, Request, State as RecordingState, Wanted};
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::{get, post};
use media_core::ids::SessionId;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// Days that a cleanup leaves where it is told no sensible number.
const CLEANUP_DAYS: u64 = 7;
const DAY: Duration = Duration::from_secs(86_400);

type Shared = State<Arc<App>>;
type Answer = Result<Json<Value>, RecordingError>;

const DAYS: Parameter = Parameter {
    name: "days",
    description: "A number above 0; 7 without one",
};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        method: "post",
        path: "/api/media/recordings",
        summary: "Record a device, until it is stopped or as long as asked",
        query: &[],
        request: Some("StartRecording"),
        answers: &[
            (200, "OneRecording"),
            (400, "RecordingError"),
            (403, "RecordingError"),
            (404, "RecordingError"),
            (500, "RecordingError"),
        ],
        handler: || post(start),
    },
    Operation {
        method: "get",
        path: "/api/media/recordings",
        summary: "Recordings under way that the token lets be used",
        query: &[],
        request: None,
        answers: &[(200, "Recordings")],
        handler: || get(list),
    },
    Operation {
        method: "get",
        path: "/api/media/recordings/stats",
        summary: "How many recordings there are, how long and how large",
        query: &[],
        request: None,
        answers: &[(200, "RecordingStats"), (500, "RecordingError")],
        handler: || get(stats),
    },
    Operation {
        method: "post",
        path: "/api/media/recordings/cleanup",
        summary: "Delete recordings that ended so many days ago",
        query: &[DAYS],
        request: None,
        answers: &[(200, "CleanedRecordings"), (500, "RecordingError")],
        handler: || post(cleanup),
    },
    Operation {
        method: "get",
        path: "/api/media/recordings/{id}",
        summary: "One recording, also after its end",
        query: &[],
        request: None,
        answers: &[(200, "OneRecording"), (404, "RecordingError")],
        handler: || get(one),
    },
    Operation {
        method: "delete",
        path: "/api/media/recordings/{id}",
        summary: "Delete a recording; one under way is ended first",
        query: &[],
        request: None,
        answers: &[
            (200, "DeletedRecording"),
            (404, "RecordingError"),
            (500, "RecordingError"),
        ],
        handler: || axum::routing::delete(delete),
    },
    Operation {
        method: "post",
        path: "/api/media/recordings/{id}/stop",
        summary: "End a recording; an unknown one is 500",
        query: &[],
        request: None,
        answers: &[(200, "OneRecording"), (500, "RecordingError")],
        handler: || post(stop),
    },
    Operation {
        method: "get",
        path: "/api/media/recordings/{id}/download",
        summary: "The file, or a range of it",
        query: &[],
        request: None,
        answers: &[
            (200, FILE),
            (206, FILE),
            (304, ""),
            (404, "RecordingError"),
            (416, "RecordingError"),
            (500, "RecordingError"),
        ],
        handler: || get(download::download),
    },
];

/// A recording as clients see it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    #[serde(flatten)]
    note: Note,
    /// Always empty, as it was.
    user_id: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    download_url: Option<String>,
}

impl From<Note> for Shown {
    fn from(mut note: Note) -> Shown {
        note.device_id = name_of(&note.device_id).to_owned();
        let completed = note.state == RecordingState::Completed;
        let url = || format!("/api/media/recordings/{}/download", note.id);
        Shown {
            user_id: "",
            download_url: completed.then(url),
            note,
        }
    }
}

async fn start(State(app): Shared, headers: HeaderMap, body: axum::body::Body) -> Answer {
    let principal = principal(&app, &headers).await?;
    let mut body = Body::read("StartRecordingRequest", body).await?;
    let id = body.required("sessionId", "SessionID")?;
    let name = body.required("deviceId", "DeviceID")?;
    let (asked_format, asked_codec) = (body.text("format")?, body.text("codec")?);
    // Seconds; 0 and less is no limit but the server's.
    let max = u64::try_from(body.integer("maxDuration")?).unwrap_or_default();
    body.check()?;
    let device = principal.key_of(device_name(&name)?);
    if !principal.may_record(&device) {
        app.metrics.count("media_auth_failures_total", &["grant"]);
        return Err(RecordingError::Forbidden { device: name });
    }
    let session = id.parse().ok();
    let session = session.and_then(|id: SessionId| app.registry.find(id));
    let Some(session) = session.filter(|record| record.device == device) else {
        return Err(RecordingError::NoSession { id });
    };
    session.called(Instant::now());
    let wanted = Wanted {
        format: format(&asked_format)?,
        codec: codec(&asked_codec)?,
        max: (max > 0).then(|| Duration::from_secs(max)),
    };
    let request = Request { session, wanted };
    let note = app.recordings.start(request, app.random()).await?;
    Ok(shown(note))
}

fn format(asked: &str) -> Result<Option<Format>, RecordingError> {
    if asked.is_empty() {
        return Ok(None);
    }
    let mut known = Format::ALL.into_iter();
    let found = known.find(|format| format.as_str().eq_ignore_ascii_case(asked));
    let unknown = || {
        RecordingError::Invalid(format!(
            "unsupported format: {asked}; there are webm and mp4"
        ))
    };
    found.map(Some).ok_or_else(unknown)
}

fn codec(asked: &str) -> Result<Option<&'static str>, RecordingError> {
    if asked.is_empty() {
        return Ok(None);
    }
    let found = CODECS
        .into_iter()
        .find(|codec| codec.eq_ignore_ascii_case(asked));
    match found {
        Some(codec) => Ok(Some(codec)),
        None => Err(RecordingError::Start(
            crate::recording::StartError::UnknownCodec {
                asked: asked.chars().take(20).collect(),
            },
        )),
    }
}

async fn stop(State(app): Shared, Names(id): Names<String>, headers: HeaderMap) -> Answer {
    let principal = principal(&app, &headers).await?;
    let active = find_active(&app, &principal, &id);
    let active = active.ok_or(RecordingError::Stop { id })?;
    Ok(shown(app.recordings.stop(&active).await))
}

/// One that is under way, or what is known of one that has ended.
async fn one(State(app): Shared, Names(id): Names<String>, headers: HeaderMap) -> Answer {
    let principal = principal(&app, &headers).await?;
    Ok(shown(find(&app, &principal, &id).await?))
}

async fn list(State(app): Shared, headers: HeaderMap) -> Answer {
    let principal = principal(&app, &headers).await?;
    let active = active(&app, &principal);
    let recordings: Vec<Shown> = active.map(|active| active.note().into()).collect();
    let total = recordings.len();
    Ok(Json(json!({"recordings": recordings, "total": total})))
}

async fn delete(State(app): Shared, Names(id): Names<String>, headers: HeaderMap) -> Answer {
    let principal = principal(&app, &headers).await?;
    let note = find(&app, &principal, &id).await?;
    let id: SessionId = note.id.parse().map_err(|_| RecordingError::NotFound)?;
    app.recordings
        .delete(id)
        .await
        .map_err(RecordingError::Delete)?;
    Ok(Json(json!({"message": "recording deleted successfully"})))
}

async fn stats(State(app): Shared, headers: HeaderMap) -> Answer {
    let principal = principal(&app, &headers).await?;
    let active: Vec<Note> = active(&app, &principal)
        .map(|active| active.note())
        .collect();
    let ended = app
        .recordings
        .all_ended()
        .await
        .map_err(RecordingError::Read)?;
    let mut all: Vec<Note> = ended
        .into_iter()
        .filter(|note| principal.may_record(&note.device_id))
        .collect();
    all.extend(active.iter().cloned());
    let rates: f64 = active.iter().map(|note| note.frame_rate).sum();
    Ok(Json(json!({
        "activeRecordings": active.len(),
        "totalRecordings": all.len(),
        "totalDurationSeconds": all.iter().map(|note| note.duration_seconds).sum::<f64>(),
        "totalBytesWritten": all.iter().map(|note| note.file_size).sum::<u64>(),
        "averageFrameRate": rates / active.len().max(1) as f64,
    })))
}

/// Deletes what ended so many days ago.
async fn cleanup(State(app): Shared, query: Pairs, headers: HeaderMap) -> Answer {
    let principal = principal(&app, &headers).await?;
    let days = query.first(DAYS.name).and_then(|days| days.parse().ok());
    let days: u64 = days.filter(|days| *days > 0).unwrap_or(CLEANUP_DAYS);
    let limit = SystemTime::now().checked_sub(DAY.saturating_mul(days.min(36_500) as u32));
    let limit = limit.unwrap_or(SystemTime::UNIX_EPOCH);
    let mine = move |device: &str| principal.may_record(device);
    let deleted = app.recordings.cleanup(limit, mine).await;
    let deleted = deleted.map_err(RecordingError::Cleanup)?;
    Ok(Json(json!({"deleted": deleted, "maxAgeDays": days})))
}

fn shown(note: Note) -> Json<Value> {
    Json(json!({"recording": Shown::from(note)}))
}

fn active(app: &App, principal: &Principal) -> impl Iterator<Item = Arc<Active>> {
    let all = app.recordings.all_active().into_iter();
    all.filter(|active| principal.may_record(active.device()))
}

fn find_active(app: &App, principal: &Principal, id: &str) -> Option<Arc<Active>> {
    let active = app.recordings.active(id.parse().ok()?)?;
    principal.may_record(active.device()).then_some(active)
}

async fn find(app: &App, principal: &Principal, id: &str) -> Result<Note, RecordingError> {
    if let Some(active) = find_active(app, principal, id) {
        return Ok(active.note());
    }
    let id = id.parse().map_err(|_| RecordingError::NotFound)?;
    let note = app.recordings.ended(id).await;
    note.filter(|note| principal.may_record(&note.device_id))
        .ok_or(RecordingError::NotFound)
}

/// Checks the token of a request, and counts it: what is asked for may have to be read from the disk.
async fn principal(app: &App, headers: &HeaderMap) -> Result<Principal, RecordingError> {
    let principal = super::principal(app, headers).await?;
    check_rate(app, &principal)?;
    Ok(principal)
}
