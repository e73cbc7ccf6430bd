//! Sessions of the older API: admitted with an offer of ours and opened with its answer, or opened at once with
//! an offer of the client's.
//!
//! Decides on no status; its callers tell what failed in their words. Client candidates are counted and never
//! dialled, so they may come before the answer.

use crate::api::answered::{self, Asking, Place, agree, sources};
use crate::api::error::ApiError;
use crate::api::error::media::MediaError;
use crate::api::sessions::sees;
use crate::api::whip::{MAX_CANDIDATES, admit, count_candidates, count_created, count_refused};
use crate::app::App;
use crate::auth::Principal;
use crate::registry::{Ice, MediaLine, NewSession, Offered, Older, Protocol, Record};
use crate::shard::{CloseReason, MailboxError, OpenSession};
use crate::trace;
use media_core::cells::{IceState, SessionCells};
use media_core::ids::SessionId;
use media_core::negotiated::{Codec, Kind, Role};
use media_core::sdp::{Offer, Proposal, Proposed, component};
use opentelemetry::trace::FutureExt as _;
use std::sync::Arc;
use std::time::Instant;

/// What is offered before the device is there: what the service before had.
const USUAL_VIDEO: [Codec; 2] = [
    Codec::H264 {
        packetization_mode: 1,
        profile_iop: 0x42e0,
    },
    Codec::Vp8,
];

/// Longest `userId`: it is kept as long as its session.
const MAX_USER_BYTES: usize = 256;

/// A session that a client asks for.
pub(super) struct Asked {
    pub(super) protocol: Protocol,
    pub(super) device: Arc<str>,
    pub(super) user: String,
    pub(super) principal: Principal,
    /// Name of a session whose place it takes.
    pub(super) name: Option<SessionId>,
    /// Name of the publisher that a subscriber refers to.
    pub(super) publisher: Option<SessionId>,
}

/// How an offer is to be.
pub(super) struct Wanted {
    pub(super) stream: String,
    pub(super) control: bool,
    /// Codecs that come first.
    pub(super) prefers: Option<fn(&Codec) -> bool>,
}

/// Admits a session and writes its offer.
///
/// # Errors
/// [`ApiError`]; there is no session.
pub(super) fn offer(
    app: &App,
    asked: Asked,
    wanted: Wanted,
) -> Result<(Arc<Record>, String), ApiError> {
    let protocol = asked.protocol;
    let offered = try_offer(app, asked, wanted);
    offered.inspect_err(|error| count_refused(app, protocol, error))
}

fn try_offer(app: &App, asked: Asked, wanted: Wanted) -> Result<(Arc<Record>, String), ApiError> {
    let now = Instant::now();
    let place = Place::of(app, Role::Viewer, &asked.device)?;
    let (mut video, audio) = match app.registry.codecs(&asked.device) {
        Some(codecs) => {
            let audio = codecs.contains(&Codec::Opus);
            (video_of(codecs), audio)
        }
        None => (USUAL_VIDEO.to_vec(), true),
    };
    if let Some(prefers) = wanted.prefers {
        video.sort_by_key(|codec| !prefers(codec));
    }
    let proposed = Proposed {
        video,
        audio,
        control: wanted.control,
        stream: wanted.stream,
    };
    let (ssrcs, cname) = sources(app);
    let proposal = Proposal::new(proposed, ssrcs, cname)?;
    let sdp = proposal.write(&place.local(app));
    let record = Arc::new(Record::new(NewSession {
        id: place.id,
        protocol: asked.protocol,
        device: asked.device.clone(),
        subject: asked.principal.subject.clone(),
        asked: now,
        // Of a restart, which this API does not have.
        ice: Ice {
            etag: String::new(),
            remote_ufrag: String::new(),
            remote_pwd: String::new(),
            candidates: 0,
        },
        bundle: proposal.bundle(),
        video: proposal.video().map(|(index, mid)| MediaLine {
            index,
            mid: mid.to_owned(),
        }),
        rids: Vec::new(),
        codecs: Vec::new(),
        older: Some(Older {
            user: asked.user,
            name: asked.name.unwrap_or(place.id),
            publisher: asked.publisher,
            answer: None,
            offered: tokio::sync::Mutex::new(Some(Box::new(Offered {
                proposal,
                ufrag: place.ufrag,
                pwd: place.pwd,
                may_control: asked.principal.may_control(&asked.device),
            }))),
        }),
        cells: Arc::new(SessionCells::new()),
        handshake: None,
    }));
    admit(app, &record)?;
    count_created(app, &record);
    Ok((record, sdp))
}

/// A device's video codecs, and behind them those that the publisher after it may come with: this API offers
/// once.
fn video_of(codecs: Vec<Codec>) -> Vec<Codec> {
    let mut video = codecs;
    video.retain(|codec| codec.kind() == Kind::Video);
    if !video.is_empty() {
        let new = |usual: &Codec| !video.iter().any(|codec| codec.is_like(usual));
        let others: Vec<Codec> = USUAL_VIDEO.into_iter().filter(new).collect();
        video.extend(others);
    }
    video
}

/// Takes the answer to our offer and opens the session.
///
/// # Errors
/// [`ApiError`]; another answer may be tried, but after `Answered` and a shard that was silent.
pub(super) async fn answer(
    app: &Arc<App>,
    record: Arc<Record>,
    sdp: String,
) -> Result<(), ApiError> {
    // A task of its own: a client that hangs up now must not leave half a session behind.
    let protocol = record.protocol;
    let taken = take_answer(app.clone(), record, sdp).with_current_context();
    let taken = tokio::spawn(taken);
    let taken = taken.await.expect("taking an answer does not panic");
    taken.inspect_err(|error| count_refused(app, protocol, error))
}

async fn take_answer(app: Arc<App>, record: Arc<Record>, sdp: String) -> Result<(), ApiError> {
    let asked = Instant::now();
    let older = record.older.as_ref().ok_or(ApiError::Answered)?;
    let mut offered = older.offered.lock().await;
    let ours = offered.as_ref().ok_or(ApiError::Answered)?;
    let (negotiated, candidates) = ours.proposal.agree(sdp.as_bytes())?;
    let place = app.limiter.handshakes.begin().await;
    record.begin_handshake(place.map_err(|_| ApiError::Handshakes)?, asked);
    let open = OpenSession {
        id: record.id,
        ufrag: ours.ufrag,
        pwd: ours.pwd,
        device: record.device.clone(),
        negotiated,
        may_control: ours.may_control,
        cells: record.cells.clone(),
    };
    if let Err(error) = app.shards.open(open).await {
        record.end_handshake();
        // In doubt the shard may have opened it: then it is closed, and nobody knows of it.
        if error == MailboxError::Timeout {
            *offered = None;
            app.forget(&record);
            let _ = app.shards.close(record.id, CloseReason::ErrorCleanup).await;
        }
        return Err(ApiError::Busy(error));
    }
    *offered = None;
    count(&app, &record, candidates).await;
    Ok(())
}

/// Opens a session with an offer of the client's; returns it with our answer.
///
/// # Errors
/// [`ApiError`]; there is no session.
pub(super) async fn answer_to(
    app: &Arc<App>,
    asked: Asked,
    sdp: &str,
) -> Result<(Arc<Record>, String), ApiError> {
    let protocol = asked.protocol;
    let opened = try_answer_to(app, asked, sdp).await;
    opened.inspect_err(|error| count_refused(app, protocol, error))
}

async fn try_answer_to(
    app: &Arc<App>,
    asked: Asked,
    sdp: &str,
) -> Result<(Arc<Record>, String), ApiError> {
    let offer = Offer::parse(sdp.as_bytes())?;
    let agreement = agree(app, asked.protocol, &offer)?;
    let asking = Asking {
        protocol: asked.protocol,
        device: asked.device,
        principal: asked.principal,
        asked: Instant::now(),
        user: Some(asked.user),
    };
    answered::answer(app, asking, &offer, agreement).await
}

/// Takes candidates, lines as JavaScript has them; returns how many are right in form. An empty one says that
/// there are no more.
pub(super) async fn candidates(app: &App, record: &Record, lines: &[String]) -> usize {
    trace::note_candidates(lines);
    let (mut right, mut usable) = (0, 0);
    for line in lines {
        let value = line.strip_prefix("candidate:").unwrap_or(line);
        let component = component(value);
        right += usize::from(line.is_empty() || component.is_some());
        usable += u32::from(component == Some(1));
    }
    count(app, record, usable).await;
    right
}

async fn count(app: &App, record: &Record, candidates: u32) {
    let mut ice = record.ice.lock().await;
    let room = MAX_CANDIDATES.saturating_sub(ice.candidates);
    ice.candidates += count_candidates(app, &record.cells, candidates, room);
}

/// The caller's session of that name. Unknown and another subject's are the same.
pub(super) fn find(
    app: &App,
    protocol: Protocol,
    name: &str,
    principal: &Principal,
) -> Option<Arc<Record>> {
    let record = app.registry.find_named(name.parse().ok()?)?;
    if record.protocol != protocol || !principal.owns(&record.device, record.subject.as_deref()) {
        return None;
    }
    record.called(Instant::now());
    trace::note_session(&record);
    Some(record)
}

/// Sessions of some protocols that the caller may see, the oldest first.
pub(super) fn list(app: &App, protocols: &[Protocol], principal: &Principal) -> Vec<Arc<Record>> {
    let mut records = app.registry.sessions();
    records.retain(|r| protocols.contains(&r.protocol) && sees(principal, r));
    records.sort_by_key(|record| record.created);
    records
}

/// The state of a session in the words of the service before.
pub(super) fn state(record: &Record) -> &'static str {
    match record.cells.ice_state() {
        IceState::Disconnected => "disconnected",
        IceState::Failed => "failed",
        IceState::Closed => "closed",
        _ if record.connected() => "connected",
        _ => "connecting",
    }
}

/// `userId` is the token's, or of somebody for whom the caller may speak.
pub(super) fn check_user(app: &App, principal: &Principal, user: &str) -> Result<(), MediaError> {
    if user.len() > MAX_USER_BYTES {
        let error = format!("a userId has at most {MAX_USER_BYTES} bytes");
        return Err(MediaError::Invalid(error));
    }
    if principal.is_user(user) {
        Ok(())
    } else {
        app.metrics.count("media_auth_failures_total", &["user_id"]);
        Err(MediaError::User)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::media::sessions::screen;
    use crate::app::tests::app;
    use axum::http::HeaderMap;

    fn asked(principal: Principal) -> Asked {
        Asked {
            protocol: Protocol::Session,
            device: "cam".into(),
            user: "ann".to_owned(),
            principal,
            name: None,
            publisher: None,
        }
    }

    /// A client's answer.
    fn answer_of(offer: &str) -> String {
        offer
            .replace("a=ice-lite\r\n", "")
            .replace("a=setup:actpass", "a=setup:active")
            .replace("a=sendonly", "a=recvonly")
    }

    #[tokio::test]
    async fn a_set_up_is_counted_from_the_answer_and_not_from_when_the_client_began_to_think() {
        let app = app().await;
        let principal = crate::api::principal(&app, &HeaderMap::new()).await;
        let asked = asked(principal.expect("no token is asked for"));
        let (record, sdp) = offer(&app, asked, screen()).expect("an offer");
        let offered = Instant::now();
        let taken = answer(&app, record.clone(), answer_of(&sdp)).await;
        assert!(taken.is_ok(), "{taken:?}");
        let now = Instant::now();
        assert!(record.setting_up(now) <= now - offered);
    }

    #[tokio::test]
    async fn an_answer_that_its_shard_does_not_take_keeps_no_place_among_the_set_ups() {
        let app = app().await;
        let principal = crate::api::principal(&app, &HeaderMap::new()).await;
        let asked = asked(principal.expect("no token is asked for"));
        let (record, sdp) = offer(&app, asked, screen()).expect("an offer");
        app.shards.shutdown().await;
        let taken = answer(&app, record.clone(), answer_of(&sdp)).await;
        assert!(matches!(taken, Err(ApiError::Busy(_))), "{taken:?}");
        assert_eq!(app.limiter.handshakes.in_flight(), 0);
        assert!(record.is_unanswered(), "another may be tried");
        let refused = r#"media_setup_total{role="viewer",protocol="session",result="refused"} 1"#;
        let shown = app
            .metrics
            .render(crate::metrics::text::Format::Prometheus, |_| {});
        assert!(shown.contains(refused), "{shown}");
    }

    #[test]
    fn what_the_next_publisher_may_come_with_is_offered_behind_what_the_device_sends() {
        let [h264, vp8] = USUAL_VIDEO;
        let baseline = Codec::H264 {
            packetization_mode: 1,
            profile_iop: 0x42c0,
        };
        let of = |codecs: &[Codec]| video_of(codecs.to_vec());
        assert_eq!(of(&[Codec::Opus, vp8.clone()]), [vp8.clone(), h264]);
        assert_eq!(of(std::slice::from_ref(&baseline)), [baseline, vp8]);
        assert_eq!(of(&[Codec::Opus]), [], "a device of sound alone");
    }
}
