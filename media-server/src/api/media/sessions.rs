//! `/api/media/sessions`: 1:1 sessions, with `stats` and `turn-credentials` beside them.

use super::body::Body;
use super::offered::{self, Asked, Wanted};
use super::{caller, ok};
use crate::api::error::media::MediaError;
use crate::api::openapi::Operation;
use crate::api::whip::{check_grant, delete};
use crate::api::{Names, device_name, error::ApiError};
use crate::app::App;
use crate::clock::rfc3339;
use crate::registry::{Protocol, Record};
use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::{get, post};
use media_core::ids::SessionId;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::SystemTime;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        method: "post",
        path: "/api/media/sessions",
        summary: "Make a session that waits for the answer to its offer, or answer an offer",
        query: &[],
        request: Some("CreateSession"),
        answers: &[
            (200, "CreatedSession"),
            (400, "Error"),
            (403, "Unauthorized"),
            (500, "Error"),
        ],
        handler: || post(create),
    },
    Operation {
        method: "get",
        path: "/api/media/sessions",
        summary: "Sessions that the token lets be seen",
        query: &[],
        request: None,
        answers: &[(200, "MediaSessions")],
        handler: || get(list),
    },
    Operation {
        method: "post",
        path: "/api/media/sessions/answer",
        summary: "Answer a session's offer; an unknown session is 500",
        query: &[],
        request: Some("SessionAnswer"),
        answers: ANSWER_ANSWERS,
        handler: || post(answer),
    },
    Operation {
        method: "post",
        path: "/api/media/sessions/ice-candidate",
        summary: "Add a candidate, before or after the answer; an unknown session is 400",
        query: &[],
        request: Some("SessionCandidate"),
        answers: CANDIDATE_ANSWERS,
        handler: || post(candidate),
    },
    Operation {
        method: "post",
        path: "/api/media/sessions/ice-candidates",
        summary: "Add several candidates",
        query: &[],
        request: Some("SessionCandidates"),
        answers: &[(200, "AddedCandidates"), (400, "Error")],
        handler: || post(candidates),
    },
    Operation {
        method: "get",
        path: "/api/media/sessions/{id}",
        summary: "One session",
        query: &[],
        request: None,
        answers: &[(200, "MediaSession"), (404, "Error")],
        handler: || get(session),
    },
    Operation {
        method: "delete",
        path: "/api/media/sessions/{id}",
        summary: "End a session",
        query: &[],
        request: None,
        answers: END_ANSWERS,
        handler: || axum::routing::delete(end),
    },
    Operation {
        method: "get",
        path: "/api/media/stats",
        summary: "How many sockets there are, and sessions that the token lets be seen",
        query: &[],
        request: None,
        answers: &[(200, "MediaStats")],
        handler: || get(stats),
    },
    Operation {
        method: "get",
        path: "/api/media/turn-credentials",
        summary: "ICE servers with credentials that end by themselves",
        query: &[],
        request: None,
        answers: &[(200, "IceServers"), (403, "Unauthorized"), (500, "Error")],
        handler: || get(turn_credentials),
    },
];

pub(super) const ANSWER_ANSWERS: &[(u16, &str)] = &[(200, "Ok"), (400, "Error"), (500, "Error")];
pub(super) const CANDIDATE_ANSWERS: &[(u16, &str)] = &[(200, "Ok"), (400, "Error")];
pub(super) const END_ANSWERS: &[(u16, &str)] = &[(200, "Ok"), (404, "Error")];

/// What the stats count: SFU sessions too, which the service before left out.
const OF_THIS_API: [Protocol; 3] = [
    Protocol::Session,
    Protocol::SfuPublisher,
    Protocol::SfuSubscriber,
];

type Shared = State<Arc<App>>;
type Answer = Result<Json<Value>, MediaError>;

async fn create(State(app): Shared, headers: HeaderMap, body: axum::body::Body) -> Answer {
    let principal = caller(&app, &headers).await?;
    let mut body = Body::read("CreateSessionRequest", body).await?;
    let device = body.required("deviceId", "DeviceID")?;
    let offer = body.sdp("offer")?;
    let user = match (&offer, &principal.subject) {
        // Clients that offer do not say who they are.
        (Some(_), subject) => match body.text("userId")? {
            user if user.is_empty() => subject.clone().unwrap_or_default(),
            user => user,
        },
        (None, _) => body.required("userId", "UserID")?,
    };
    body.check()?;
    let device = principal.key_of(device_name(&device)?);
    check_grant(&app, Protocol::Session, &principal, &device)?;
    if !user.is_empty() {
        offered::check_user(&app, &principal, &user)?;
    }
    let asked = Asked {
        protocol: Protocol::Session,
        device,
        user,
        principal,
        name: None,
        publisher: None,
    };
    let failed = |error| MediaError::internal("Failed to create session", Some(error));
    if let Some(offer) = offer {
        let answered = offered::answer_to(&app, asked, &offer).await;
        let (record, answer) = answered.map_err(|error| match error {
            ApiError::Offer(error) => MediaError::Invalid(error.to_string()),
            error => failed(error),
        })?;
        let mut created = describe(&record);
        created["id"] = created["sessionId"].clone();
        created["answer"] = answer.into();
        created["iceServers"] = ice_servers(&app, record.id);
        return Ok(Json(created));
    }
    let (record, sdp) = offered::offer(&app, asked, screen()).map_err(failed)?;
    Ok(Json(json!({
        "sessionId": record.id.to_string(),
        "offer": {"type": "offer", "sdp": sdp},
        "iceServers": ice_servers(&app, record.id),
    })))
}

/// The offer of a 1:1 session.
pub(super) fn screen() -> Wanted {
    Wanted {
        stream: "cloudphone-video".to_owned(),
        control: true,
        prefers: None,
    }
}

/// ICE servers, with credentials named after a session.
pub(super) fn ice_servers(app: &App, id: SessionId) -> Value {
    json!(app.ice_servers.list(SystemTime::now(), &id.to_string()))
}

async fn answer(State(app): Shared, headers: HeaderMap, body: axum::body::Body) -> Answer {
    let principal = caller(&app, &headers).await?;
    let mut body = Body::read("SetAnswerRequest", body).await?;
    let name = body.required("sessionId", "SessionID")?;
    let answer = body.description("answer")?;
    body.check()?;
    take_answer(
        &app,
        offered::find(&app, Protocol::Session, &name, &principal),
        answer,
    )
    .await
}

/// Answers to our offers, of every kind of session.
pub(super) async fn take_answer(
    app: &Arc<App>,
    record: Option<Arc<Record>>,
    answer: super::body::Description,
) -> Answer {
    let failed = |cause| MediaError::internal("Failed to handle answer", cause);
    let record = record.ok_or_else(|| failed(None))?;
    if answer.kind != "answer" {
        return Err(failed(None));
    }
    let taken = offered::answer(app, record, answer.sdp).await;
    taken.map_err(|error| failed(Some(error)))?;
    Ok(ok())
}

async fn candidate(State(app): Shared, headers: HeaderMap, body: axum::body::Body) -> Answer {
    let principal = caller(&app, &headers).await?;
    let mut body = Body::read("AddICECandidateRequest", body).await?;
    let name = body.required("sessionId", "SessionID")?;
    let line = body.candidate("candidate")?;
    body.check()?;
    add_candidate(
        &app,
        offered::find(&app, Protocol::Session, &name, &principal),
        line,
    )
    .await
}

/// One candidate, of every kind of session.
pub(super) async fn add_candidate(app: &App, record: Option<Arc<Record>>, line: String) -> Answer {
    let failed = || MediaError::candidate("Failed to add ICE candidate");
    let record = record.ok_or_else(failed)?;
    match offered::candidates(app, &record, &[line]).await {
        0 => Err(failed()),
        _ => Ok(ok()),
    }
}

async fn candidates(State(app): Shared, headers: HeaderMap, body: axum::body::Body) -> Answer {
    let principal = caller(&app, &headers).await?;
    let mut body = Body::read("AddICECandidatesRequest", body).await?;
    let name = body.required("sessionId", "SessionID")?;
    let lines = body.candidates("candidates", "Candidates")?;
    body.check()?;
    let total = lines.len();
    let added = match offered::find(&app, Protocol::Session, &name, &principal) {
        Some(record) => offered::candidates(&app, &record, &lines).await,
        None => 0,
    };
    if added == 0 && total > 0 {
        return Err(MediaError::candidate("Failed to add ICE candidates"));
    }
    Ok(Json(
        json!({"status": "ok", "added": added, "total": total}),
    ))
}

async fn session(State(app): Shared, Names(name): Names<String>, headers: HeaderMap) -> Answer {
    let principal = caller(&app, &headers).await?;
    let record = offered::find(&app, Protocol::Session, &name, &principal);
    let record = record.ok_or_else(|| MediaError::not_found("Session not found"))?;
    Ok(Json(describe(&record)))
}

async fn list(State(app): Shared, headers: HeaderMap) -> Answer {
    let principal = caller(&app, &headers).await?;
    let records = offered::list(&app, &[Protocol::Session], &principal);
    let sessions: Vec<Value> = records.iter().map(|record| describe(record)).collect();
    Ok(Json(json!({"total": sessions.len(), "sessions": sessions})))
}

fn describe(record: &Record) -> Value {
    json!({
        "sessionId": record.id.to_string(),
        "deviceId": record.device_name(),
        "userId": user(record),
        "state": offered::state(record),
        "createdAt": rfc3339(record.created_at),
        "lastActive": rfc3339(record.last_active()),
    })
}

/// The `userId` that a session was made with.
pub(super) fn user(record: &Record) -> &str {
    record.older.as_ref().map_or("", |older| &older.user)
}

async fn end(State(app): Shared, Names(name): Names<String>, headers: HeaderMap) -> Answer {
    let principal = caller(&app, &headers).await?;
    let record = offered::find(&app, Protocol::Session, &name, &principal);
    end_of(&app, record, "Session not found").await
}

/// The end of every kind of session.
pub(super) async fn end_of(app: &Arc<App>, record: Option<Arc<Record>>, unknown: &str) -> Answer {
    let record = record.ok_or_else(|| MediaError::not_found(unknown))?;
    delete(app, &record).await.map_err(|error| match error {
        ApiError::UnknownSession => MediaError::not_found(unknown),
        error => MediaError::Api(error),
    })?;
    Ok(ok())
}

async fn stats(State(app): Shared, headers: HeaderMap) -> Answer {
    let principal = caller(&app, &headers).await?;
    let records = offered::list(&app, &OF_THIS_API, &principal);
    let of = |state: &str| {
        records
            .iter()
            .filter(|r| offered::state(r) == state)
            .count()
    };
    let sockets = match principal.holder() {
        Some(_) => app.sockets.open_of(&principal.key_of("")) as usize,
        None => app.sockets.open(),
    };
    Ok(Json(json!({
        "totalSessions": records.len(),
        "activeSessions": of("connected"),
        "connectingSessions": of("connecting"),
        "failedSessions": of("failed"),
        "wsConnections": sockets,
        // There are no frames here to make room for.
        "framePool": {"allocations": 0, "reuses": 0, "reuseRate": "0.0%"},
    })))
}

async fn turn_credentials(State(app): Shared, headers: HeaderMap) -> Answer {
    let principal = caller(&app, &headers).await?;
    if !principal.may_use_something() {
        app.metrics.count("media_auth_failures_total", &["grant"]);
        let (grant, device) = ("view", "*".to_owned());
        return Err(ApiError::Forbidden { grant, device }.into());
    }
    if !app.ice_servers.has_turn() {
        return Err(MediaError::internal("TURN service not configured", None));
    }
    // There is no session to name them after.
    let servers = ice_servers(&app, SessionId(app.random()));
    Ok(Json(json!({"iceServers": servers})))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::tests::app;
    use media_core::cells::IceState;

    #[tokio::test]
    async fn the_stats_count_sessions_of_every_kind_by_their_state() {
        let app = app().await;
        let principal = crate::api::principal(&app, &HeaderMap::new()).await;
        let principal = principal.expect("no token is asked for");
        let mut records = Vec::new();
        for protocol in OF_THIS_API.into_iter().chain(OF_THIS_API) {
            let asked = Asked {
                protocol,
                device: "cam".into(),
                user: "ann".to_owned(),
                principal: principal.clone(),
                name: None,
                publisher: None,
            };
            records.push(offered::offer(&app, asked, screen()).expect("room").0);
        }
        let count = async || {
            let shown = stats(State(app.clone()), HeaderMap::new()).await;
            let Json(shown) = shown.expect("no token is asked for");
            ["total", "active", "connecting", "failed"].map(|of| {
                let count = &shown[format!("{of}Sessions")];
                count.as_u64().expect("a number")
            })
        };
        assert_eq!(count().await, [6, 0, 6, 0]);
        for record in &records[..4] {
            app.registry.connected(record.id).expect("known");
        }
        assert_eq!(count().await, [6, 4, 2, 0]);
        records[0].cells.set_ice_state(IceState::Disconnected);
        records[1].cells.set_ice_state(IceState::Failed);
        assert_eq!(count().await, [6, 2, 2, 1]);
        let states = records.iter().map(|record| offered::state(record));
        let states: Vec<&str> = states.collect();
        let connecting = "connecting";
        assert_eq!(states[..3], ["disconnected", "failed", "connected"]);
        assert_eq!(states[4..], [connecting; 2]);
    }
}
