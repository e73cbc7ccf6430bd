//! WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep): endpoints and session resources.
//!
//! Both protocols are one set of handlers: they differ in the role, in who may, and in that a viewer
//! needs a live publisher. `answered.rs` turns an offer into a session on a shard and an answer.

use super::answered::{Asking, agree, answer};
use super::error::ApiError;
use super::patch::patch;
use super::{FRAGMENT, Names, SDP, check_rate, device_name, expect_type, principal, read_body};
use super::{events, layers};
use crate::app::App;
use crate::auth::Principal;
use crate::devices::name_of;
use crate::drain::DrainState;
use crate::log::of_session;
use crate::registry::{AdmitError, Protocol, Record, role_name};
use crate::shard::CloseReason;
use crate::trace;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use media_core::cells::SessionCells;
use media_core::ids::SessionId;
use media_core::negotiated::Role;
use media_core::sdp::Offer;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

/// Remote candidates of one ICE generation that are taken; the others show in the bound's counter alone.
pub(super) const MAX_CANDIDATES: u32 = 50;

/// Counts the candidates that a session offers, of which there is `room` for so many; returns those taken.
pub(super) fn count_candidates(app: &App, cells: &SessionCells, offered: u32, room: u32) -> u32 {
    let taken = offered.min(room);
    cells.add_candidates(taken);
    if offered > taken {
        let beyond = f64::from(offered - taken);
        app.metrics
            .add("media_bound_hits_total", &["candidates"], beyond);
    }
    taken
}

/// Routes of both protocols.
pub fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/whip/{device}", endpoint(Protocol::Whip))
        .route("/whep/{device}", endpoint(Protocol::Whep))
        .route("/whip/{device}/{session}", resource(Protocol::Whip))
        .route("/whep/{device}/{session}", resource(Protocol::Whep))
}

type Shared = State<Arc<App>>;

fn endpoint(protocol: Protocol) -> MethodRouter<Arc<App>> {
    get(async |Names(device): Names<String>| {
        device_name(&device)?;
        Ok::<_, ApiError>(StatusCode::NO_CONTENT)
    })
    .head(async move |Names(device): Names<String>| {
        device_name(&device)?;
        Ok::<_, ApiError>(match protocol {
            Protocol::Whep => [(header::CONTENT_TYPE, SDP)].into_response(),
            _ => StatusCode::NO_CONTENT.into_response(),
        })
    })
    .options(
        async move |State(app): Shared, Names(device): Names<String>, headers: HeaderMap| {
            let allowed = [("allow", "GET, HEAD, POST, OPTIONS"), ("accept-post", SDP)];
            let mut response = (StatusCode::OK, allowed).into_response();
            if asks_for_ice_servers(&headers) {
                device_name(&device)?;
                let principal = principal(&app, &headers).await?;
                check_rate(&app, &principal)?;
                check_grant(&app, protocol, &principal, &principal.key_of(&device))?;
                // There is no session yet to name the credentials after.
                link_ice_servers(&app, SessionId(app.random()), &mut response);
            }
            Ok::<_, ApiError>(response)
        },
    )
    .post(
        async move |State(app): Shared,
                    Names(device): Names<String>,
                    headers: HeaderMap,
                    body: Body| { create(app, protocol, &device, &headers, body).await },
    )
}

fn resource(protocol: Protocol) -> MethodRouter<Arc<App>> {
    type Ids = Names<(String, String)>;
    get(
        async move |State(app): Shared, Names(ids): Ids, headers: HeaderMap| {
            let record = find(&app, protocol, &ids, &principal(&app, &headers).await?)?;
            let etag = record.ice.lock().await.etag.clone();
            Ok::<_, ApiError>((StatusCode::NO_CONTENT, [(header::ETAG, etag)]))
        },
    )
    .options(
        async move |State(app): Shared, Names(ids): Ids, headers: HeaderMap| {
            let allowed = [
                ("allow", "GET, HEAD, PATCH, DELETE, OPTIONS"),
                ("accept-patch", FRAGMENT),
            ];
            let mut response = (StatusCode::OK, allowed).into_response();
            if asks_for_ice_servers(&headers) {
                let principal = principal(&app, &headers).await?;
                check_rate(&app, &principal)?;
                let record = find(&app, protocol, &ids, &principal)?;
                link_ice_servers(&app, record.id, &mut response);
            }
            Ok::<_, ApiError>(response)
        },
    )
    .patch(
        async move |State(app): Shared, Names(ids): Ids, headers: HeaderMap, body: Body| {
            patch(&app, protocol, &ids, &headers, body).await
        },
    )
    .delete(
        async move |State(app): Shared, Names(ids): Ids, headers: HeaderMap| {
            let principal = principal(&app, &headers).await?;
            check_rate(&app, &principal)?;
            let record = find(&app, protocol, &ids, &principal)?;
            delete(&app, &record).await
        },
    )
}

async fn create(
    app: Arc<App>,
    protocol: Protocol,
    device: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let asked = Instant::now();
    let device = device_name(device)?;
    let principal = principal(&app, headers).await?;
    check_rate(&app, &principal)?;
    let device = principal.key_of(device);
    check_grant(&app, protocol, &principal, &device)?;
    let asking = Asking {
        protocol,
        device,
        principal,
        asked,
        user: None,
    };
    let created = admitted(&app, asking, headers, body).await;
    if let Err(error) = &created {
        count_refused(&app, protocol, error);
    }
    created
}

/// Counts a set-up that was refused though its request was right.
pub(super) fn count_refused(app: &App, protocol: Protocol, error: &ApiError) {
    if let ApiError::Limit(_)
    | ApiError::Handshakes
    | ApiError::Busy(_)
    | ApiError::Draining
    | ApiError::NoAddress = error
    {
        count_setup(app, protocol, "refused");
    }
}

/// An OPTIONS with a token is a client that asks for ICE servers (RFC 9725 §4.6); a browser's
/// preflight is not, whatever it carries.
fn asks_for_ice_servers(headers: &HeaderMap) -> bool {
    headers.contains_key(header::AUTHORIZATION)
        && !headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Adds a `Link` for each ICE server, with credentials named after `id`.
fn link_ice_servers(app: &App, id: SessionId, response: &mut Response) {
    let links = app.ice_servers.links(SystemTime::now(), &id.to_string());
    for link in links {
        response.headers_mut().append(header::LINK, link);
    }
}

pub(super) fn check_grant(
    app: &App,
    protocol: Protocol,
    principal: &Principal,
    device: &str,
) -> Result<(), ApiError> {
    let (granted, grant) = match protocol.role() {
        Role::Publisher => (principal.may_publish(device), "publish"),
        Role::Viewer => (principal.may_view(device), "view"),
    };
    if granted {
        return Ok(());
    }
    app.metrics.count("media_auth_failures_total", &["grant"]);
    Err(ApiError::Forbidden {
        grant,
        device: name_of(device).to_owned(),
    })
}

async fn admitted(
    app: &Arc<App>,
    asking: Asking,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    expect_type(headers, SDP)?;
    let body = read_body(body).await?;
    if app.drain_state() != DrainState::Accepting {
        return Err(ApiError::Draining);
    }
    let offer = Offer::parse(&body)?;
    let protocol = asking.protocol;
    let agreement = agree(app, protocol, &offer)?;
    // Looked at again when the session is admitted; here it saves the work.
    if protocol == Protocol::Whep && !app.registry.is_live(&asking.device) {
        return Err(ApiError::NoPublisher {
            device: name_of(&asking.device).to_owned(),
        });
    }
    if app.addresses.current().is_empty() {
        return Err(ApiError::NoAddress);
    }
    if protocol == Protocol::Whip {
        let rate = app.limiter.devices.take(Instant::now(), &asking.device);
        rate.map_err(|wait| ApiError::Rate {
            limit: "device",
            wait,
        })?;
    }
    let (record, answer) = answer(app, asking, &offer, agreement).await?;
    let etag = record.ice.lock().await.etag.clone();
    let (id, device) = (record.id, record.device_name());
    let mut response = (
        StatusCode::CREATED,
        [
            (header::CONTENT_TYPE, SDP.to_owned()),
            (
                header::LOCATION,
                format!("/{}/{device}/{id}", protocol.as_str()),
            ),
            (header::ETAG, etag),
            (
                header::HeaderName::from_static("accept-patch"),
                FRAGMENT.to_owned(),
            ),
        ],
        answer,
    )
        .into_response();
    link_ice_servers(app, id, &mut response);
    if protocol == Protocol::Whep {
        layers::link(&record, &mut response);
        events::link(&record, &mut response);
    }
    Ok(response)
}

/// Admits a session; returns the publisher that it supersedes.
pub(super) fn admit(app: &App, record: &Arc<Record>) -> Result<Option<Arc<Record>>, ApiError> {
    let superseded = app.registry.admit(record).map_err(|error| match error {
        AdmitError::NoPublisher => ApiError::NoPublisher {
            device: record.device_name().to_owned(),
        },
        limit => ApiError::Limit(limit),
    })?;
    // Only now: a device that nobody publishes has no series, however often it is asked for.
    app.births(record.device_label());
    Ok(superseded)
}

pub(crate) fn count_created(app: &App, record: &Record) {
    app.metrics
        .count("media_sessions_created_total", &[record.device_label()]);
    app.events.session_created(record);
    trace::note_session(record);
    if let Some(traces) = &app.traces {
        traces.begin_session(record);
        // Its shard may have closed it by now, before there was a span to end.
        if app.registry.of_shard(record.id).is_none()
            && let Some(trace) = record.trace.get()
        {
            trace.session_ended("its shard said so");
        }
    }
    of_session!(
        info,
        record,
        role = role_name(record.role()),
        "session admitted"
    );
}

/// Ends a session that its owner wants no more.
pub(super) async fn delete(app: &Arc<App>, record: &Arc<Record>) -> Result<StatusCode, ApiError> {
    match app.end(record, CloseReason::Normal).await {
        Ok(true) => Ok(StatusCode::OK),
        // It ended a moment ago.
        Ok(false) => Err(ApiError::UnknownSession),
        Err(error) => Err(ApiError::Busy(error)),
    }
}

/// The session of a resource path. Unknown, of another device, tenant or subject are one answer.
pub(super) fn find(
    app: &App,
    protocol: Protocol,
    (device, session): &(String, String),
    principal: &Principal,
) -> Result<Arc<Record>, ApiError> {
    let record = session
        .parse::<SessionId>()
        .ok()
        .and_then(|id| app.registry.find(id))
        .filter(|record| record.protocol == protocol && record.device == principal.key_of(device))
        .filter(|record| principal.owns(&record.device, record.subject.as_deref()))
        .ok_or(ApiError::UnknownSession)?;
    record.called(Instant::now());
    trace::note_session(&record);
    Ok(record)
}

/// Counts the outcome of a set-up; called here for refusals, by the app for all others.
pub fn count_setup(app: &App, protocol: Protocol, result: &str) {
    let role: Role = protocol.role();
    app.metrics.count(
        "media_setup_total",
        &[role_name(role), protocol.as_str(), result],
    );
}
