//! Answers to offers of clients: a place for the session, our answer, its record, and the session on its shard.
//!
//! Looks at no token and no body: `whip.rs` does, and the older API for clients that offer themselves.

use super::error::ApiError;
use super::whip::{MAX_CANDIDATES, admit, count_candidates, count_created};
use crate::app::App;
use crate::auth::Principal;
use crate::drain::DrainState;
use crate::registry::{Ice, MediaLine, NewSession, Older, Protocol, Record};
use crate::shard::{CloseReason, MailboxError, OpenSession};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use media_core::cells::SessionCells;
use media_core::ids::{IcePwd, SessionId, Ufrag};
use media_core::negotiated::Role;
use media_core::sdp::{Agreement, Bundle, Candidate, Local, Offer, OfferError, write_answer};
use opentelemetry::trace::FutureExt as _;
use std::sync::Arc;
use std::time::Instant;

/// A session that a client offers for.
pub(super) struct Asking {
    pub(super) protocol: Protocol,
    pub(super) device: Arc<str>,
    pub(super) principal: Principal,
    /// When its POST came.
    pub(super) asked: Instant,
    /// Older API: its `userId`.
    pub(super) user: Option<String>,
}

/// Where a session is to be, and the credentials of its checks.
pub(super) struct Place {
    pub(super) id: SessionId,
    pub(super) ufrag: Ufrag,
    pub(super) pwd: IcePwd,
    candidates: Arc<[Candidate]>,
}

impl Place {
    pub(super) fn of(app: &App, role: Role, device: &str) -> Result<Place, ApiError> {
        if app.drain_state() != DrainState::Accepting {
            return Err(ApiError::Draining);
        }
        let candidates = app.addresses.current();
        if candidates.is_empty() {
            return Err(ApiError::NoAddress);
        }
        let shard = app.shards.place(role, device);
        Ok(Place {
            id: SessionId::new(app.config.ordinal, shard, app.random()),
            ufrag: Ufrag::new(&app.ufrag_key, app.config.ordinal, shard, app.random()),
            pwd: IcePwd::new(app.random()),
            candidates,
        })
    }

    pub(super) fn local(&self, app: &App) -> Local<'_> {
        Local {
            ufrag: self.ufrag,
            pwd: self.pwd,
            fingerprint: app.shards.fingerprint(),
            candidates: &self.candidates,
            origin: u64::from_be_bytes(app.random()),
            video_kbps: app.config.limits.video_kbps,
        }
    }
}

/// SSRCs and the CNAME of what we send in a session (RFC 3550 §8.1, RFC 7022 §4.2).
pub(super) fn sources(app: &App) -> ([u32; 3], String) {
    let ssrcs = distinct(std::array::from_fn(|_| u32::from_be_bytes(app.random())));
    (ssrcs, URL_SAFE_NO_PAD.encode(app.random::<12>()))
}

/// What is used of an offer.
pub(super) fn agree(app: &App, protocol: Protocol, offer: &Offer) -> Result<Agreement, OfferError> {
    let (ssrcs, cname) = sources(app);
    offer.agree(protocol.role(), ssrcs, cname)
}

/// Opens a session with what was agreed on; returns it with our answer. May wait for its turn.
pub(super) async fn answer(
    app: &Arc<App>,
    asking: Asking,
    offer: &Offer,
    agreement: Agreement,
) -> Result<(Arc<Record>, String), ApiError> {
    let handshake = app.limiter.handshakes.begin().await;
    let handshake = handshake.map_err(|_| ApiError::Handshakes)?;
    let place = Place::of(app, asking.protocol.role(), &asking.device)?;
    let answer = write_answer(offer, &agreement, &place.local(app));
    let may_control = asking.principal.may_control(&asking.device);
    let cells = Arc::new(SessionCells::new());
    let record = Arc::new(Record::new(NewSession {
        id: place.id,
        protocol: asking.protocol,
        device: asking.device.clone(),
        subject: asking.principal.subject,
        asked: asking.asked,
        ice: Ice {
            etag: format!("\"{}\"", place.ufrag),
            remote_ufrag: offer.ice_ufrag.clone(),
            remote_pwd: offer.ice_pwd.clone(),
            candidates: count_candidates(app, &cells, offer.candidates, MAX_CANDIDATES),
        },
        bundle: Bundle::of(offer, &agreement).expect("an answer has an m-line in use"),
        video: offer.video().map(|(index, mid)| MediaLine {
            index,
            mid: mid.to_owned(),
        }),
        rids: agreement.negotiated.rids(),
        codecs: agreement.negotiated.codecs(),
        older: asking.user.map(|user| Older {
            user,
            name: place.id,
            publisher: None,
            answer: Some(answer.clone()),
            offered: tokio::sync::Mutex::new(None),
        }),
        cells: cells.clone(),
        handshake: Some(handshake),
    }));
    let open = OpenSession {
        id: place.id,
        ufrag: place.ufrag,
        pwd: place.pwd,
        device: asking.device,
        negotiated: agreement.negotiated,
        may_control,
        cells,
    };
    // A task of its own: a client that hangs up now must not leave half a session behind.
    let opened = open_session(app.clone(), record.clone(), open).with_current_context();
    let opened = tokio::spawn(opened);
    opened.await.expect("opening a session does not panic")?;
    Ok((record, answer))
}

/// Admits a session and opens it on its shard.
async fn open_session(
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

/// The streams of one session must differ.
fn distinct([audio, mut video, mut rtx]: [u32; 3]) -> [u32; 3] {
    while video == audio {
        video = video.wrapping_add(1);
    }
    while rtx == audio || rtx == video {
        rtx = rtx.wrapping_add(1);
    }
    [audio, video, rtx]
}
