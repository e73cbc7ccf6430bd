//! ICE restarts by PATCH, as HTTP shows them; what becomes of media is in `tests/media`.

use crate::requests::*;
use reqwest::{Method, RequestBuilder};
use tests::MediaServer;

/// Another generation of the client's credentials.
const NEW: &str = "a=ice-ufrag:NewU\r\na=ice-pwd:aNewPasswordOfTheClient1\r\n";

fn patch(server: &MediaServer, path: &str, body: &str, etag: &str) -> RequestBuilder {
    request(server, Method::PATCH, path, FRAGMENT, body.to_owned()).header("if-match", etag)
}

/// The value of an attribute.
fn value<'a>(sdp: &'a str, name: &str) -> &'a str {
    let start = format!("a={name}:");
    sdp.lines()
        .find_map(|line| line.strip_prefix(&start))
        .unwrap_or_else(|| panic!("no {start} in {sdp}"))
}

#[tokio::test]
async fn new_credentials_restart_ice_and_the_answer_has_new_ones_too() {
    let server = MediaServer::open(&[]).await;
    let created = post(&server, "/whip/cam-1", PUBLISH).await;
    let (path, first_etag) = (location(&created), header(&created, "etag"));
    let answer = created.text().await.expect("SDP");
    let candidate = "a=candidate:1 1 udp 2122260223 192.0.2.1 50632 typ host\r\n";
    let fragment = format!("{NEW}m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n{candidate}");

    let restarted = send(patch(&server, &path, &fragment, "*")).await;
    assert_eq!(restarted.status(), 200);
    assert_eq!(header(&restarted, "content-type"), FRAGMENT);
    let etag = header(&restarted, "etag");
    let body = restarted.text().await.expect("a fragment");
    assert_ne!(etag, first_etag);
    assert_eq!(etag, format!("\"{}\"", value(&body, "ice-ufrag")));
    assert_ne!(value(&body, "ice-pwd"), value(&answer, "ice-pwd"));
    assert_eq!(value(&body, "ice-options"), value(&answer, "ice-options"));
    assert!(body.contains("a=ice-lite\r\n") && answer.contains("a=ice-lite\r\n"));
    // Version, ordinal and shard are in the first 4 characters of a user fragment.
    assert_eq!(
        value(&body, "ice-ufrag")[..4],
        value(&answer, "ice-ufrag")[..4]
    );
    let media = server.media;
    assert!(
        body.contains(&format!(" {} {} typ host\r\n", media.ip(), media.port())),
        "{body}"
    );

    let stale = send(patch(&server, &path, &fragment, &first_etag)).await;
    problem(stale, 412, &etag).await;
    let trickled = send(patch(&server, &path, &fragment, &etag)).await;
    assert_eq!(trickled.status(), 204, "the same credentials again");
    let quoted = send(patch(&server, &path, CREDENTIALS_AGAIN, "\"*\"")).await;
    assert_eq!(quoted.status(), 200, "a quoted asterisk is taken");
    let restarts = server
        .metrics()
        .await
        .value("media_ice_restarts_total", &[]);
    assert_eq!(restarts, Some(2.0));
}

/// Only the password differs from the offer's: that is a restart too.
const CREDENTIALS_AGAIN: &str = "a=ice-ufrag:EsAw\r\na=ice-pwd:anotherPasswordOfTheClient\r\n";

#[tokio::test]
async fn a_restart_that_fails_leaves_the_session_as_it_was() {
    let server = MediaServer::open(&[]).await;
    let created = post(&server, "/whip/cam-1", PUBLISH).await;
    let (path, etag) = (location(&created), header(&created, "etag"));
    let short = "a=ice-ufrag:NewU\r\na=ice-pwd:short\r\n";
    problem(send(patch(&server, &path, short, "*")).await, 400, "22").await;
    let half = "a=ice-ufrag:NewU\r\n";
    problem(send(patch(&server, &path, half, "*")).await, 400, "both").await;
    let typed = request(&server, Method::PATCH, &path, SDP, NEW).header("if-match", "*");
    problem(send(typed).await, 415, FRAGMENT).await;
    let bare = request(&server, Method::PATCH, &path, FRAGMENT, NEW);
    problem(send(bare).await, 428, "If-Match").await;
    problem(
        send(patch(&server, &path, NEW, "\"old\"")).await,
        412,
        &etag,
    )
    .await;
    let read = get(&server, &path).await;
    assert_eq!((read.status().as_u16(), header(&read, "etag")), (204, etag));
    let trickled = send(patch(&server, &path, CREDENTIALS, "*")).await;
    assert_eq!(trickled.status(), 204, "the first credentials hold");
}
