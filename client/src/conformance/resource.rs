//! Rows 1 to 10, 12 and 14 as a session shows them: the answer to an offer, and what its resource does.
//!
//! The sessions belong to no connection; what they answer to is the checks of `stun.rs`. Real media is
//! in `media.rs`.

mod variants;

use super::http::{Answer, Caller, Request};
use super::offers::{
    CANDIDATE, Credentials, FRAGMENT, ODD_CANDIDATES, RIDS, SDP, Variant, fragment, offer,
};
use super::sdp::{Sdp, attribute};
use super::stun::{self, Reply};
use super::{Checks, Level, Protocol};
use reqwest::Url;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

/// Time for an answer to a connectivity check.
const CHECK_WITHIN: Duration = Duration::from_secs(3);
/// Addresses that checks are sent to.
const MAX_ADDRESSES: usize = 3;

/// A session of an offer.
struct Session {
    url: Url,
    etag: String,
    ours: Credentials,
    answer: Answer,
}

impl Session {
    fn sdp(&self) -> Sdp<'_> {
        Sdp::read(&self.answer.body)
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        let mut addresses = self.sdp().candidates();
        addresses.truncate(MAX_ADDRESSES);
        addresses
    }
}

pub(super) async fn check(checks: &mut Checks<'_>) {
    let Some(first) = open(checks).await else {
        let why = "the server opened no session";
        return checks.skip(5, Level::Must, "everything about a session", why);
    };
    the_answer(checks, &first);
    ice_servers(checks, &first).await;
    safe_methods(checks, &first).await;
    wrong_patches(checks, &first).await;
    let trickles = trickle(checks, &first).await;
    restart(checks, &first, trickles).await;
    let second = end_and_open_another(checks, first).await;
    if let Some(second) = second {
        delete(checks.caller, &second.answer).await;
    }
    variants::check(checks).await;
}

/// Ends the session of a 201, if it is one.
pub(super) async fn delete(caller: &Caller, answer: &Answer) {
    if let Some(url) = answer.location().filter(|_| answer.status == 201) {
        caller.send(Request::new("DELETE", &url)).await;
    }
}

/// Row 1 and 12: a bare offer becomes a session.
async fn open(checks: &mut Checks<'_>) -> Option<Session> {
    let (session, answer) = post(checks, Variant::Plain).await;
    let seen = match &answer {
        Some(answer) => answer.seen(),
        None => "201 application/sdp with a Location".to_owned(),
    };
    let right = session.is_some();
    checks.expect(
        1,
        Level::Must,
        "POST of an offer is 201 with an answer and a Location",
        right,
        seen.clone(),
    );
    checks.expect(
        12,
        Level::Must,
        "an offer without any extension is taken",
        right,
        seen,
    );
    session
}

/// POSTs an offer. The answer comes alone where it is not what row 1 asks for.
async fn post(checks: &Checks<'_>, variant: Variant) -> (Option<Session>, Option<Answer>) {
    let ours = Credentials::new();
    let body = offer(checks.protocol, &ours, variant);
    let request = Request::new("POST", checks.url).body(SDP, body);
    let answer = checks.caller.send(request).await;
    let right = answer.status == 201 && answer.media_type() == SDP;
    match answer.location().filter(|_| right) {
        Some(url) => {
            let session = Session {
                url,
                etag: answer.header("etag").to_owned(),
                ours,
                answer,
            };
            (Some(session), None)
        }
        None => {
            delete(checks.caller, &answer).await;
            (None, Some(answer))
        }
    }
}

/// Rows 2, 5 and 10.
fn the_answer(checks: &mut Checks<'_>, session: &Session) {
    let sdp = session.sdp();
    let wanted = match checks.protocol {
        Protocol::Whip => "a=recvonly",
        Protocol::Whep => "a=sendonly",
    };
    let directed = sdp.used().filter(|media| media.contains(&wanted)).count();
    let used = sdp.used().count();
    checks.expect(
        2,
        Level::Must,
        "every m-line of the answer has the right direction",
        used > 0 && directed == used,
        format!("{directed} of {used} m-lines are {}", &wanted[2..]),
    );
    let candidates = sdp.candidates();
    checks.expect(
        2,
        Level::Must,
        "the answer carries candidates",
        !candidates.is_empty(),
        format!("{candidates:?}"),
    );
    let strong =
        session.etag.len() > 2 && session.etag.starts_with('"') && session.etag.ends_with('"');
    checks.expect(
        5,
        Level::Must,
        "the 201 carries a strong ETag",
        strong,
        format!("ETag: {}", session.etag),
    );
    let group = sdp.value("group").unwrap_or_default().to_owned();
    let bundled: HashSet<&str> = group.split(' ').skip(1).collect();
    let in_bundle = |media: &&Vec<&str>| {
        let mid = media.iter().find_map(|line| attribute(line, "mid"));
        mid.is_some_and(|mid| bundled.contains(mid))
    };
    checks.expect(
        10,
        Level::Must,
        "all m-lines are in one bundle",
        group.starts_with("BUNDLE") && sdp.used().filter(in_bundle).count() == used,
        format!("a=group:{group}"),
    );
    let muxed = sdp
        .used()
        .filter(|media| media.contains(&"a=rtcp-mux"))
        .count();
    checks.expect(
        10,
        Level::Must,
        "every m-line has rtcp-mux",
        muxed == used,
        format!("{muxed} of {used}"),
    );
    if checks.protocol == Protocol::Whep {
        let streams: HashSet<&str> = sdp
            .used()
            .flatten()
            .filter_map(|line| attribute(line, "msid")?.split(' ').next())
            .collect();
        checks.expect(
            10,
            Level::Must,
            "all tracks are of one MediaStream",
            streams.len() <= 1,
            format!("{streams:?}"),
        );
    }
}

/// Row 14: `Link` of RFC 9725 §4.6.
async fn ice_servers(checks: &mut Checks<'_>, session: &Session) {
    let name = "ICE servers of the 201 are complete links";
    let links = session.answer.ice_servers();
    if links.is_empty() {
        return checks.skip(14, Level::Should, name, "the server names none");
    }
    let complete = |link: &String| {
        let turn = link.starts_with("<turn");
        (turn || link.starts_with("<stun"))
            && (!turn || link.contains("username=") && link.contains("credential="))
    };
    // Credentials are nothing for a report.
    let urls: Vec<&str> = links.iter().filter_map(|l| l.split('>').next()).collect();
    checks.expect(
        14,
        Level::Should,
        name,
        links.iter().all(complete),
        format!("{}>", urls.join(">, ")),
    );
    let name = "OPTIONS with a token carries the ICE servers";
    if !checks.caller.has_token() {
        return checks.skip(14, Level::Should, name, "no --token was given");
    }
    let answer = checks
        .caller
        .send(Request::new("OPTIONS", checks.url))
        .await;
    let count = answer.ice_servers().len();
    let right = count == links.len();
    checks.expect(
        14,
        Level::Should,
        name,
        right,
        format!("{count} of {}", links.len()),
    );
}

/// Row 3, of the resource.
async fn safe_methods(checks: &mut Checks<'_>, session: &Session) {
    let answer = checks.caller.send(Request::new("GET", &session.url)).await;
    checks.expect(
        3,
        Level::Must,
        "GET on the session is 2xx and empty",
        answer.is_success() && answer.body.is_empty(),
        answer.seen(),
    );
    let answer = checks
        .caller
        .send(Request::new("OPTIONS", &session.url))
        .await;
    checks.expect(
        3,
        Level::Must,
        "OPTIONS on the session is 2xx",
        answer.is_success(),
        answer.seen(),
    );
}

fn patch<'a>(
    session: &'a Session,
    media_type: &'a str,
    if_match: Option<&'a str>,
    body: impl Into<String>,
) -> Request<'a> {
    let request = Request::new("PATCH", &session.url).body(media_type, body);
    match if_match {
        Some(etag) => request.header("if-match", etag),
        None => request,
    }
}

/// Rows 4 and 5.
async fn wrong_patches(checks: &mut Checks<'_>, session: &Session) {
    let caller = checks.caller;
    let right = fragment(&session.ours, &[CANDIDATE]);
    let etag = (!session.etag.is_empty()).then_some(session.etag.as_str());
    let answer = caller
        .send(patch(session, "text/plain", etag, right.clone()))
        .await;
    checks.expect(
        4,
        Level::Must,
        "PATCH of another type is refused with 4xx",
        answer.is_refusal(),
        answer.seen(),
    );
    let answer = caller
        .send(patch(session, FRAGMENT, etag, "this is no fragment"))
        .await;
    checks.expect(
        4,
        Level::Must,
        "PATCH of a malformed fragment is refused with 4xx",
        answer.is_refusal(),
        answer.seen(),
    );
    let (missing, stale) = (
        "PATCH without If-Match is refused with 428",
        "PATCH with another ETag is refused with 412",
    );
    if etag.is_none() {
        checks.skip(5, Level::Should, missing, "the session has no ETag");
        return checks.skip(5, Level::Should, stale, "the session has no ETag");
    }
    let answer = caller
        .send(patch(session, FRAGMENT, None, right.clone()))
        .await;
    checks.expect(
        5,
        Level::Should,
        missing,
        answer.status == 428,
        answer.seen(),
    );
    let answer = caller
        .send(patch(session, FRAGMENT, Some("\"of-another\""), right))
        .await;
    checks.expect(5, Level::Should, stale, answer.status == 412, answer.seen());
}

/// Row 6. Returns whether the server takes trickled candidates at all.
async fn trickle(checks: &mut Checks<'_>, session: &Session) -> bool {
    let etag = (!session.etag.is_empty()).then_some(session.etag.as_str());
    let body = fragment(&session.ours, &[CANDIDATE]);
    let answer = checks
        .caller
        .send(patch(session, FRAGMENT, etag, body))
        .await;
    let name = "a trickled candidate is 204 without body and ETag";
    let odd = "candidates that can't be used are dropped silently";
    if matches!(answer.status, 405 | 422 | 501) {
        let why = format!("trickle is not supported: {}", answer.seen());
        checks.skip(6, Level::Must, name, why.clone());
        checks.skip(6, Level::Must, odd, why);
        return false;
    }
    let has_etag = !answer.header("etag").is_empty();
    checks.expect(
        6,
        Level::Must,
        name,
        answer.status == 204 && answer.body.is_empty() && !has_etag,
        format!(
            "{}{}",
            answer.seen(),
            if has_etag { ", an ETag" } else { "" }
        ),
    );
    let body = fragment(&session.ours, &ODD_CANDIDATES);
    let answer = checks
        .caller
        .send(patch(session, FRAGMENT, etag, body))
        .await;
    checks.expect(6, Level::Must, odd, answer.status == 204, answer.seen());
    true
}

/// Rows 4, 7 and 8.
async fn restart(checks: &mut Checks<'_>, session: &Session, trickles: bool) {
    let caller = checks.caller;
    let short = Credentials {
        ufrag: "x".to_owned(),
        pwd: "too short".to_owned(),
    };
    let failed = caller
        .send(patch(session, FRAGMENT, Some("*"), fragment(&short, &[])))
        .await;
    let kept = caller.send(Request::new("GET", &session.url)).await;
    checks.expect(
        8,
        Level::Must,
        "a restart that fails is refused, and the session stays",
        failed.is_refusal() && kept.status != 404,
        format!("GET {} after {}", kept.status, failed.seen()),
    );
    let new = Credentials::new();
    let answer = caller
        .send(patch(
            session,
            FRAGMENT,
            Some("*"),
            fragment(&new, &[CANDIDATE]),
        ))
        .await;
    let name = "an ICE restart (If-Match: *) is 200 with a fragment and a new ETag";
    if matches!(answer.status, 405 | 422 | 501) {
        // RFC 9725 §4.3 recommends it; with trickle alone the refusal has to be 422.
        let name = "a restart is refused with 422 where it is not supported";
        let seen = answer.seen();
        if trickles {
            return checks.expect(4, Level::Must, name, answer.status == 422, seen);
        }
        return checks.skip(
            7,
            Level::Must,
            "ICE restart",
            format!("not supported: {seen}"),
        );
    }
    let sdp = Sdp::read(&answer.body);
    let (before, etag) = (session.sdp(), answer.header("etag").to_owned());
    let changed = sdp.credentials().is_some_and(|credentials| {
        before
            .credentials()
            .is_some_and(|(ufrag, pwd)| ufrag != credentials.0 && pwd != credentials.1)
    });
    checks.expect(
        7,
        Level::Must,
        name,
        answer.status == 200
            && answer.media_type() == FRAGMENT
            && !etag.is_empty()
            && etag != session.etag,
        format!("{}, ETag: {etag}", answer.seen()),
    );
    checks.expect(
        7,
        Level::Must,
        "it has new credentials and candidates",
        changed && !sdp.candidates().is_empty(),
        format!("new: {changed}, candidates: {:?}", sdp.candidates()),
    );
    checks.expect(
        7,
        Level::Must,
        "ice-lite, ice-options and ice-pacing are as they were",
        sdp.ice_lines() == before.ice_lines(),
        format!("{:?}, before {:?}", sdp.ice_lines(), before.ice_lines()),
    );
    if let Some((ufrag, pwd)) = sdp.credentials() {
        let mut addresses = sdp.candidates();
        addresses.truncate(MAX_ADDRESSES);
        let username = format!("{ufrag}:{}", new.ufrag);
        let reply = stun::check(&addresses, &username, pwd, CHECK_WITHIN).await;
        checks.expect(
            7,
            Level::Must,
            "checks with the new credentials are answered",
            reply == Reply::Success,
            format!("{reply:?}"),
        );
    }
    let old = caller
        .send(patch(
            session,
            FRAGMENT,
            Some(&session.etag),
            fragment(&new, &[]),
        ))
        .await;
    checks.expect(
        7,
        Level::Should,
        "the ETag before it is stale",
        old.status == 412,
        old.seen(),
    );
    let quoted = fragment(&Credentials::new(), &[]);
    let quoted = caller
        .send(patch(session, FRAGMENT, Some("\"*\""), quoted))
        .await;
    checks.expect(
        7,
        Level::Should,
        "If-Match: \"*\" in quotes is taken too",
        quoted.status == 200,
        quoted.seen(),
    );
}

/// Rows 5, 9 and 14.
async fn end_and_open_another(checks: &mut Checks<'_>, first: Session) -> Option<Session> {
    // A session whose credentials are those of its answer.
    delete(checks.caller, &first.answer).await;
    let (Some(session), _) = post(checks, Variant::Plain).await else {
        checks.skip(
            9,
            Level::Must,
            "the end of a session",
            "no second session was opened",
        );
        return None;
    };
    checks.expect(
        5,
        Level::Must,
        "no two sessions have the same ETag",
        session.etag != first.etag,
        format!("{} and {}", first.etag, session.etag),
    );
    let (a, b) = (first.url.as_str(), session.url.as_str());
    let differ = a.bytes().zip(b.bytes()).filter(|(a, b)| a != b).count();
    checks.expect(
        14,
        Level::Should,
        "the address of a session can't be guessed",
        differ >= 10,
        format!("two of them differ in {differ} characters"),
    );
    let caller = checks.caller;
    let sdp = session.sdp();
    let (ufrag, pwd) = sdp.credentials().unwrap_or_default();
    let username = format!("{ufrag}:{}", session.ours.ufrag);
    let addresses = session.addresses();
    let before = stun::check(&addresses, &username, pwd, CHECK_WITHIN).await;
    checks.expect(
        2,
        Level::Must,
        "checks to the candidates are answered",
        before == Reply::Success,
        format!("{before:?}"),
    );
    let request = Request::new("DELETE", &session.url).header("if-match", "\"of-another\"");
    let deleted = caller.send(request).await;
    checks.expect(
        9,
        Level::Must,
        "DELETE is 2xx, whatever If-Match says",
        deleted.is_success(),
        deleted.seen(),
    );
    let after = stun::check(&addresses, &username, pwd, Duration::from_secs(1)).await;
    let name = "after it no check is answered with success";
    if before == Reply::Success {
        let right = after != Reply::Success;
        checks.expect(9, Level::Must, name, right, format!("{after:?}"));
    } else {
        checks.skip(9, Level::Must, name, "none was answered before either");
    }
    let again = caller.send(Request::new("DELETE", &session.url)).await;
    checks.expect(
        9,
        Level::Must,
        "a second DELETE is 404",
        again.status == 404,
        again.seen(),
    );
    Some(session)
}
