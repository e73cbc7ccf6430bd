//! PATCH of a session: trickled candidates, and ICE restarts (RFC 9725 §4.3).
//!
//! A restart changes the ICE generation and nothing else; one that fails leaves the session as it was.
//! Called by the routes of `whip.rs`.

use super::error::ApiError;
use super::whip::{MAX_CANDIDATES, count_candidates, find};
use super::{FRAGMENT, check_rate, expect_type, principal, read_body};
use crate::app::App;
use crate::log::of_session;
use crate::registry::{Ice, Protocol, Record};
use crate::trace;
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
    let principal = principal(app, headers).await?;
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
    trace::rename("session.ice_restart");
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
    of_session!(info, record, "ICE restarted");
    let headers = [
        (header::CONTENT_TYPE, FRAGMENT.to_owned()),
        (header::ETAG, etag),
    ];
    let fragment = write_restart(&record.bundle, ufrag, &pwd, &addresses);
    Ok((StatusCode::OK, headers, fragment).into_response())
}

/// RFC 9725 §4.3.1: the ETag, or `*`, which some clients send in quotes. A list may have several lines
/// (RFC 9110 §5.3).
fn check_if_match(headers: &HeaderMap, etag: &str) -> Result<(), ApiError> {
    let mut lines = headers.get_all(header::IF_MATCH).iter().peekable();
    if lines.peek().is_none() {
        return Err(ApiError::IfMatchMissing);
    }
    let mut tags = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim);
    if tags.any(|tag| tag == etag || tag == "*" || tag == "\"*\"") {
        Ok(())
    } else {
        Err(ApiError::IfMatchStale {
            current: etag.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(lines: &[&'static str]) -> u16 {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::IF_MATCH, line.parse().expect("a value"));
        }
        let checked = check_if_match(&headers, "\"now\"");
        checked.map_or_else(|error| error.into_response().status().as_u16(), |()| 204)
    }

    #[test]
    fn the_etag_of_a_session_is_found_in_a_list_of_any_form_and_a_weak_one_is_not_it() {
        for lines in [
            &["\"now\""][..],
            &["*"],
            &["\"*\""],
            &["\"old\" , \"now\""],
            &["\"old\"", "\"now\""],
        ] {
            assert_eq!(status(lines), 204, "{lines:?}");
        }
        for lines in [
            &["\"old\""][..],
            &["W/\"now\""],
            &["now"],
            &[""],
            &["\"old\"", "\"older\""],
        ] {
            assert_eq!(status(lines), 412, "{lines:?}");
        }
        assert_eq!(status(&[]), 428);
    }
}
