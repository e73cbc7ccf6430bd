//! PATCH of a session: trickled candidates, and ICE restarts (RFC 9725 §4.3).
//!
//! A restart changes the ICE generation and nothing else; one that fails leaves the session as it was.
//! Called by the routes of `whip.rs`.

use super::error::ApiError;
use super::whip::{MAX_CANDIDATES, count_candidates, find};
use super::{FRAGMENT, check_rate, expect_type, principal, read_body};
use crate::app::App;
use crate::registry::{Ice, Protocol, Record};
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use media_core::ids::{IcePwd, Ufrag};
use media_core::sdp::{Fragment, write_restart};
use media_core::session::Credentials;

pub(super) async fn patch(
    app: &App,
    protocol: Protocol,
    ids: &(String, String),
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let principal = principal(app, headers)?;
    check_rate(app, &principal)?;
    let record = find(app, protocol, ids, &principal)?;
    expect_type(headers, FRAGMENT)?;
    let body = read_body(body).await?;
    let fragment = Fragment::parse(&body)?;
    let mut ice = record.ice.lock().await;
    check_if_match(headers, &ice.etag)?;
    match fragment.ufrag.zip(fragment.pwd) {
        // A change of either is a restart (RFC 8839 §4.4.1.1.1).
        Some((ufrag, pwd)) if ufrag != ice.remote_ufrag || pwd != ice.remote_pwd => {
            let offered = fragment.candidates;
            restart(app, &record, &mut ice, (ufrag, pwd), offered).await
        }
        _ => {
            let room = MAX_CANDIDATES.saturating_sub(ice.candidates);
            ice.candidates += count_candidates(app, &record.cells, fragment.candidates, room);
            Ok(StatusCode::NO_CONTENT.into_response())
        }
    }
}

/// Gives the session new credentials on both sides. Until the client's first check with them those
/// before hold too, so a client that never gets this answer has lost nothing; nor has one that hung
/// up while this waits for the shard.
async fn restart(
    app: &App,
    record: &Record,
    ice: &mut Ice,
    (remote_ufrag, remote_pwd): (String, String),
    candidates: u32,
) -> Result<Response, ApiError> {
    let addresses = app.addresses.current();
    if addresses.is_empty() {
        return Err(ApiError::NoAddress);
    }
    let ufrag = Ufrag::new(
        &app.ufrag_key,
        record.id.ordinal(),
        record.id.shard(),
        app.random(),
    );
    let pwd = IcePwd::new(app.random());
    let credentials = Credentials {
        ufrag,
        pwd,
        remote_ufrag: remote_ufrag.as_str().into(),
    };
    let known = app.shards.restart(record.id, credentials).await;
    if !known.map_err(ApiError::Busy)? {
        // It ended by itself a moment ago.
        return Err(ApiError::UnknownSession);
    }
    let etag = format!("\"{ufrag}\"");
    *ice = Ice {
        etag: etag.clone(),
        remote_ufrag,
        remote_pwd,
        candidates: count_candidates(app, &record.cells, candidates, MAX_CANDIDATES),
    };
    app.metrics.count("media_ice_restarts_total", &[]);
    tracing::info!(session = %record.id, device = %record.device, "ICE restarted");
    let headers = [
        (header::CONTENT_TYPE, FRAGMENT.to_owned()),
        (header::ETAG, etag),
    ];
    let fragment = write_restart(&record.bundle, ufrag, &pwd, &addresses);
    Ok((StatusCode::OK, headers, fragment).into_response())
}

/// RFC 9725 §4.3.1: the ETag, or `*`, which some clients send in quotes.
fn check_if_match(headers: &HeaderMap, etag: &str) -> Result<(), ApiError> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        return Err(ApiError::IfMatchMissing);
    };
    let matches = value.to_str().is_ok_and(|value| {
        value
            .split(',')
            .map(str::trim)
            .any(|tag| tag == etag || tag == "*" || tag == "\"*\"")
    });
    if matches {
        Ok(())
    } else {
        Err(ApiError::IfMatchStale {
            current: etag.to_owned(),
        })
    }
}
