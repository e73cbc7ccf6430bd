//! WHIP (RFC 9725) and WHEP (draft-ietf-wish-whep): endpoints and session resources.
//!
//! Both protocols are one set of handlers: they differ in the role, in who may, and in that a viewer
//! needs a live publisher. Turns an offer into a session on a shard and an answer.

use super::error::ApiError;
use super::patch::patch;
use super::{FRAGMENT, SDP, check_rate, device_name, expect_type, principal, read_body};
use super::{events, layers};
use crate::app::App;
use crate::auth::Principal;
use crate::devices::name_of;
use crate::drain::DrainState;
use crate::registry::{AdmitError, Ice, MediaLine, NewSession, Protocol, Record, role_name};
use crate::shard::{CloseReason, MailboxError, OpenSession};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use media_core::cells::SessionCells;
use media_core::ids::{IcePwd, SessionId, Ufrag};
use media_core::negotiated::Role;
use media_core::sdp::{Bundle, Local, Offer, write_answer};
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
    get(async |Path(device): Path<String>| {
        device_name(&device)?;
        Ok::<_, ApiError>(StatusCode::NO_CONTENT)
    })
    .head(async move |Path(device): Path<String>| {
        device_name(&device)?;
        Ok::<_, ApiError>(match protocol {
            Protocol::Whep => [(header::CONTENT_TYPE, SDP)].into_response(),
            _ => StatusCode::NO_CONTENT.into_response(),
        })
    })
    .options(
        async move |State(app): Shared, Path(device): Path<String>, headers: HeaderMap| {
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
                    Path(device): Path<String>,
                    headers: HeaderMap,
                    body: Body| { create(app, protocol, &device, &headers, body).await },
    )
}

fn resource(protocol: Protocol) -> MethodRouter<Arc<App>> {
    type Ids = Path<(String, String)>;
    get(
        async move |State(app): Shared, Path(ids): Ids, headers: HeaderMap| {
            let record = find(&app, protocol, &ids, &principal(&app, &headers).await?)?;
            let etag = record.ice.lock().await.etag.clone();
            Ok::<_, ApiError>((StatusCode::NO_CONTENT, [(header::ETAG, etag)]))
        },
    )
    .options(
        async move |State(app): Shared, Path(ids): Ids, headers: HeaderMap| {
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
        async move |State(app): Shared, Path(ids): Ids, headers: HeaderMap, body: Body| {
            patch(&app, protocol, &ids, &headers, body).await
        },
    )
    .delete(
        async move |State(app): Shared, Path(ids): Ids, headers: HeaderMap| {
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
    let created = admitted(&app, protocol, device, principal, asked, headers, body).await;
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
    protocol: Protocol,
    device: Arc<str>,
    principal: Principal,
    asked: Instant,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    expect_type(headers, SDP)?;
    let body = read_body(body).await?;
    if app.drain_state() != DrainState::Accepting {
        return Err(ApiError::Draining);
    }
    let offer = Offer::parse(&body)?;
    let ssrcs = distinct(std::array::from_fn(|_| u32::from_be_bytes(app.random())));
    let cname = URL_SAFE_NO_PAD.encode(app.random::<12>());
    let agreement = offer.agree(protocol.role(), ssrcs, cname)?;
    // Looked at again when the session is admitted; here it saves the work.
    if protocol == Protocol::Whep && !app.registry.is_live(&device) {
        return Err(ApiError::NoPublisher {
            device: name_of(&device).to_owned(),
        });
    }
    let candidates = app.addresses.current();
    if candidates.is_empty() {
        return Err(ApiError::NoAddress);
    }
    if protocol == Protocol::Whip {
        let rate = app.limiter.devices.take(Instant::now(), &device);
        rate.map_err(|wait| ApiError::Rate {
            limit: "device",
            wait,
        })?;
    }
    let handshake = app.limiter.handshakes.begin().await;
    let handshake = handshake.map_err(|_| ApiError::Handshakes)?;
    // It may have waited for its place.
    if app.drain_state() != DrainState::Accepting {
        return Err(ApiError::Draining);
    }
    let shard = app.shards.place(protocol.role(), &device);
    let id = SessionId::new(app.config.ordinal, shard, app.random());
    let ufrag = Ufrag::new(&app.ufrag_key, app.config.ordinal, shard, app.random());
    let pwd = IcePwd::new(app.random());
    let answer = write_answer(
        &offer,
        &agreement,
        &Local {
            ufrag,
            pwd,
            fingerprint: app.shards.fingerprint(),
            candidates: &candidates,
            origin: u64::from_be_bytes(app.random()),
            video_kbps: app.config.limits.video_kbps,
        },
    );
    let may_control = principal.may_control(&device);
    let cells = Arc::new(SessionCells::new());
    let counted = count_candidates(app, &cells, offer.candidates, MAX_CANDIDATES);
    let etag = format!("\"{ufrag}\"");
    let record = Arc::new(Record::new(NewSession {
        id,
        protocol,
        device: device.clone(),
        subject: principal.subject,
        asked,
        ice: Ice {
            etag: etag.clone(),
            remote_ufrag: offer.ice_ufrag.clone(),
            remote_pwd: offer.ice_pwd.clone(),
            candidates: counted,
        },
        bundle: Bundle::of(&offer, &agreement).expect("an answer has an m-line in use"),
        video: offer.video().map(|(index, mid)| MediaLine {
            index,
            mid: mid.to_owned(),
        }),
        rids: agreement.negotiated.rids(),
        codecs: agreement.negotiated.codecs(),
        older: None,
        cells: cells.clone(),
        handshake: Some(handshake),
    }));
    let open = OpenSession {
        id,
        ufrag,
        pwd,
        device,
        negotiated: agreement.negotiated,
        may_control,
        cells,
    };
    // A task of its own: a client that hangs up now must not leave half a session behind.
    let opened = tokio::spawn(open_session(app.clone(), record.clone(), open));
    opened.await.expect("opening a session does not panic")?;
    let mut response = (
        StatusCode::CREATED,
        [
            (header::CONTENT_TYPE, SDP.to_owned()),
            (
                header::LOCATION,
                format!("/{}/{}/{id}", protocol.as_str(), record.device_name()),
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

/// The streams of one session must differ.
pub(super) fn distinct([audio, mut video, mut rtx]: [u32; 3]) -> [u32; 3] {
    while video == audio {
        video = video.wrapping_add(1);
    }
    while rtx == audio || rtx == video {
        rtx = rtx.wrapping_add(1);
    }
    [audio, video, rtx]
}

/// Admits a session and opens it on its shard.
pub(super) async fn open_session(
    app: Arc<App>,
    record: Arc<Record>,
    open: OpenSession,
) -> Result<(), ApiError> {
    let id = record.id;
    let superseded = admit(&app, &record)?;
    if let Err(error) = app.shards.open(open).await {
        app.registry.remove(id);
        if let Some(old) = superseded {
            app.registry.reinstate(old);
        }
        // In doubt the shard may have opened it: then it is closed, and nobody knew of it.
        if error == MailboxError::Timeout {
            let _ = app.shards.close(id, CloseReason::ErrorCleanup).await;
        }
        return Err(ApiError::Busy(error));
    }
    count_created(&app, &record);
    if let Some(old) = superseded {
        app.end_unasked(&old, CloseReason::Superseded, "supersede")
            .await;
    }
    Ok(())
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

pub(super) fn count_created(app: &App, record: &Record) {
    app.metrics
        .count("media_sessions_created_total", &[record.device_label()]);
    app.events.session_created(record);
    tracing::info!(
        session = %record.id,
        device = %record.device,
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
