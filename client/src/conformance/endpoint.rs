//! Rows 1, 3, 11, 13 and 14 as far as an endpoint alone shows them: no session is needed.

use super::http::{Caller, Request};
use super::offers::{Credentials, SDP, Variant, offer};
use super::resource::delete;
use super::{Checks, Level, Outcome, Protocol, Report};
use reqwest::Url;

/// A page that a browser would show.
const ORIGIN: &str = "https://player.example";
/// Requests of the flood. More than anybody needs in a second, and few enough to harm nothing.
const FLOOD: usize = 60;
/// Sessions opened and ended in a row where a flood of nonsense is not refused.
const SESSIONS: usize = 10;

/// Row 13: a viewer without publisher is told so, and when to come back.
pub(super) async fn without_publisher(report: &mut Report, caller: &Caller, url: &Url) {
    let mut checks = Checks::new(report, caller, Protocol::Whep, url, None);
    let body = offer(Protocol::Whep, &Credentials::new(), Variant::Plain);
    let answer = caller.send(Request::new("POST", url).body(SDP, body)).await;
    let retry_after = answer.header("retry-after").to_owned();
    checks.expect(
        13,
        Level::Must,
        "without a publisher POST is 409 with Retry-After",
        answer.status == 409 && !retry_after.is_empty(),
        format!("{}, Retry-After: {retry_after}", answer.seen()),
    );
    delete(caller, &answer).await;
    checks.skip(
        13,
        Level::Should,
        "406 with a counter-offer",
        "optional, and made for offers without a usable codec",
    );
}

/// The endpoint's answers to everything but a right offer.
pub(super) async fn check(checks: &mut Checks<'_>) {
    wrong_posts(checks).await;
    safe_methods(checks).await;
    let (caller, url) = (checks.caller, checks.url);
    let name = "POST without a token is refused with 401";
    if caller.has_token() {
        let body = offer(checks.protocol, &Credentials::new(), Variant::Plain);
        let request = Request::new("POST", url).body(SDP, body);
        let answer = caller.once(&request, false).await;
        checks.expect(11, Level::Must, name, answer.status == 401, answer.seen());
        delete(caller, &answer).await;
    } else {
        checks.skip(11, Level::Must, name, "no --token was given");
    }
    let loopback = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    let name = "the endpoint is https";
    if url.scheme() == "https" || !loopback {
        checks.expect(
            11,
            Level::Should,
            name,
            url.scheme() == "https",
            url.scheme(),
        );
    } else {
        checks.skip(11, Level::Should, name, "http to this machine needs none");
    }
    let why = "would take all that the server has";
    checks.skip(14, Level::Should, "503 with Retry-After under load", why);
}

async fn wrong_posts(checks: &mut Checks<'_>) {
    let (caller, url) = (checks.caller, checks.url);
    let body = offer(checks.protocol, &Credentials::new(), Variant::Plain);
    let typed = Request::new("POST", url).body("application/json", body);
    let typed = caller.send(typed).await;
    checks.expect(
        1,
        Level::Must,
        "POST of another type is refused with 415",
        typed.status == 415,
        typed.seen(),
    );
    delete(caller, &typed).await;
    let nonsense = Request::new("POST", url).body(SDP, "this is no SDP");
    let nonsense = caller.send(nonsense).await;
    checks.expect(
        1,
        Level::Must,
        "POST of what is no SDP is refused with 400",
        nonsense.status == 400,
        nonsense.seen(),
    );
    checks.expect(
        1,
        Level::Should,
        "both say what was wrong",
        [&typed, &nonsense]
            .iter()
            .all(|a| a.is_there() && !a.body.is_empty()),
        nonsense.body.clone(),
    );
}

async fn safe_methods(checks: &mut Checks<'_>) {
    let (caller, url) = (checks.caller, checks.url);
    let answer = caller.send(Request::new("GET", url)).await;
    checks.expect(
        3,
        Level::Must,
        "GET on the endpoint is 2xx and empty",
        answer.is_success() && answer.body.is_empty(),
        answer.seen(),
    );
    if checks.protocol == Protocol::Whep {
        let answer = caller.send(Request::new("HEAD", url)).await;
        checks.expect(
            3,
            Level::Should,
            "HEAD is 200 application/sdp",
            answer.status == 200 && answer.media_type() == SDP,
            answer.seen(),
        );
    }
    let options = caller.send(Request::new("OPTIONS", url)).await;
    let accepted = options.header("accept-post").to_owned();
    checks.expect(
        3,
        Level::Should,
        "OPTIONS tells Accept-Post: application/sdp",
        options.is_success() && accepted.contains(SDP),
        format!("{}, Accept-Post: {accepted}", options.seen()),
    );
    let origin = checks.origin.unwrap_or(ORIGIN);
    let preflight = Request::new("OPTIONS", url)
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header(
            "access-control-request-headers",
            "authorization,content-type",
        );
    let preflight = caller.once(&preflight, false).await;
    let allowed = preflight.header("access-control-allow-origin").to_owned();
    let name = "a preflight is answered with CORS";
    if preflight.is_success() && allowed.is_empty() && checks.origin.is_none() {
        let why = format!("it lets no page of {ORIGIN} in; name one with --origin");
        checks.skip(3, Level::Must, name, why);
    } else {
        checks.expect(
            3,
            Level::Must,
            name,
            preflight.is_success() && (allowed == "*" || allowed == origin),
            format!("{}, allows {allowed:?}", preflight.seen()),
        );
    }
    checks.expect(
        14,
        Level::Must,
        "a preflight carries no ICE servers",
        preflight.is_there() && preflight.ice_servers().is_empty(),
        match preflight.is_there() {
            true => format!("{} of them", preflight.ice_servers().len()),
            false => preflight.seen(),
        },
    );
}

/// Row 14: nobody may ask as fast as he can. Last, because a server may well remember.
pub(super) async fn check_rate(checks: &mut Checks<'_>) {
    let (caller, url, protocol) = (checks.caller, checks.url, checks.protocol);
    let name = "a flood of requests is refused with 429 and Retry-After";
    let mut asked = 0;
    let mut last = None;
    while asked < FLOOD + SESSIONS {
        asked += 1;
        // A server may look at the body first, and count only what would become a session.
        let body = match asked <= FLOOD {
            true => "this is no SDP".to_owned(),
            false => offer(protocol, &Credentials::new(), Variant::Plain),
        };
        let answer = caller
            .once(&Request::new("POST", url).body(SDP, body), true)
            .await;
        delete(caller, &answer).await;
        let ended = answer.status == 429 || !answer.is_there();
        last = Some(answer);
        if ended {
            break;
        }
    }
    let last = last.expect("at least one was asked");
    let seen = last.seen();
    if last.status == 429 {
        let retry_after = last.header("retry-after").to_owned();
        let seen = format!("429 after {asked} requests, Retry-After: {retry_after}");
        checks.expect(14, Level::Should, name, !retry_after.is_empty(), seen);
    } else if !last.is_there() {
        let seen = format!("{seen}, after {} answers", asked - 1);
        checks.expect(14, Level::Should, name, false, seen);
    } else if protocol == Protocol::Whep && !caller.has_token() {
        let why = "viewers without tokens can't be told apart";
        checks.skip(14, Level::Should, name, why);
    } else {
        let seen = format!("none of {asked} was; the last: {seen}");
        checks.expect(14, Level::Should, name, false, seen);
    }
}

/// Row 11, from everything that was seen.
pub(super) fn check_redirects(checks: &mut Checks<'_>) {
    let name = "no redirect is 301, 302 or 303";
    if !checks.caller.was_answered() {
        return checks.skip(11, Level::Must, name, "nothing was answered");
    }
    let seen = checks.caller.wrong_redirects();
    let outcome = if seen.is_empty() {
        Outcome::Pass
    } else {
        Outcome::Fail
    };
    checks.report.add(
        11,
        checks.protocol,
        Level::Must,
        name,
        outcome,
        if seen.is_empty() {
            "none".to_owned()
        } else {
            seen.join(", ")
        },
    );
}
