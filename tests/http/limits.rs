//! What is refused because it is too much, what ends because it lasts too long, and the ICE servers
//! that clients are told of.

use crate::requests::*;
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, Response};
use std::time::{Duration, Instant};
use tests::process::TempDir;
use tests::{MediaServer, wait_for};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

fn links(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all("link")
        .iter()
        .map(|value| value.to_str().expect("text").to_owned())
        .collect()
}

async fn refused(server: &MediaServer, limit: &str) -> Option<f64> {
    let labels = [("limit", limit)];
    server.metrics().await.value("media_refused_total", &labels)
}

/// POSTs a body many times at once over one client; returns the answers.
async fn flood(
    url: String,
    body: &'static str,
    token: Option<String>,
    times: usize,
) -> Vec<Response> {
    let client = Client::new();
    let mut posts = JoinSet::new();
    for _ in 0..times {
        let mut post = client.post(&url).header("content-type", SDP).body(body);
        if let Some(token) = &token {
            post = post.bearer_auth(token);
        }
        posts.spawn(post.send());
    }
    let answers = posts.join_all().await;
    answers
        .into_iter()
        .map(|sent| sent.expect("an answer"))
        .collect()
}

fn with_status(answers: &[Response], status: u16) -> usize {
    answers
        .iter()
        .filter(|answer| answer.status() == status)
        .count()
}

#[tokio::test]
async fn one_subject_is_slowed_down_and_others_are_not() {
    let server = MediaServer::closed(&[]).await;
    let (url, token) = (server.url("/whip/cam-1"), server.token("cam-1", "publish"));
    let answers = flood(url.clone(), "nonsense", Some(token), 200).await;
    // 20 at once, and 5 for each second that this took.
    let (taken, limited) = (with_status(&answers, 400), with_status(&answers, 429));
    assert!(taken >= 20 && limited >= 1, "{taken} and {limited}");
    assert_eq!(taken + limited, 200);
    assert_eq!(refused(&server, "subject").await, Some(limited as f64));
    let limited = answers.into_iter().find(|answer| answer.status() == 429);
    let limited = limited.expect("some were");
    assert_eq!(header(&limited, "retry-after"), "1");
    problem(limited, 429, "subject").await;
    let other = tests::server::mint_token_for(server.key_file(), "cam-1", "publish", "bob");
    let answers = flood(url, "nonsense", Some(other), 1).await;
    assert_eq!(with_status(&answers, 400), 1, "another subject");
}

#[tokio::test]
async fn a_device_may_come_back_at_once_but_not_in_a_loop() {
    let server = MediaServer::open(&[]).await;
    let answers = flood(server.url("/whip/cam-1"), PUBLISH, None, 50).await;
    let (taken, limited) = (with_status(&answers, 201), with_status(&answers, 429));
    assert!(taken >= 4 && limited >= 1, "{taken} and {limited}");
    assert_eq!(taken + limited, 50);
    assert_eq!(refused(&server, "device").await, Some(limited as f64));
    let limited = answers.into_iter().find(|answer| answer.status() == 429);
    problem(limited.expect("some were"), 429, "device").await;
    open(&server, "/whip/cam-2", PUBLISH).await;
}

/// Opens connections that begin with `start` of a request and send no more; returns them.
async fn hold(server: &MediaServer, start: &str, count: usize) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for at in 0..count {
        let connected = TcpStream::connect(server.http).await;
        let mut stream = connected.unwrap_or_else(|error| panic!("connection {at}: {error}"));
        // It may be closed already, for the next.
        let _ = stream.write_all(start.as_bytes()).await;
        held.push(stream);
    }
    held
}

#[tokio::test]
async fn connections_that_ask_for_nothing_make_room_for_one_that_does() {
    let dir = TempDir::new("connections");
    let config = dir.path().join("config.toml");
    std::fs::write(&config, "[http]\nconnections = 16\n").expect("it can be written");
    let config = config.display().to_string();
    let server = MediaServer::open(&["--config", &config]).await;
    // Half of a head, a head and no second one, nothing at all, a head without its body.
    let mut held = Vec::new();
    for start in [
        "POST /whip/cam-1 HTTP/1.1\r\nHost: x\r\nContent-",
        "GET /health HTTP/1.1\r\nHost: x\r\n\r\n",
        "",
        "POST /whip/cam-1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/sdp\r\nContent-Length: 900\r\n\r\n",
    ] {
        held.extend(hold(&server, start, 40).await);
    }
    let asked = Instant::now();
    open(&server, "/whip/cam-1", PUBLISH).await;
    let took = asked.elapsed();
    println!(
        "answered after {took:?}, with {} connections held",
        held.len()
    );
    // One that only waited would be answered after the ten seconds that a first request has.
    assert!(took < Duration::from_secs(5), "{took:?}");
    let metrics = server.metrics().await;
    let bound = [("bound", "http_connections")];
    let (hits, most) = (
        metrics.sum("media_bound_hits_total", &bound),
        held.len() as f64,
    );
    assert!(hits >= most - 80.0, "{hits} of {most}");
    let made_room = [("type", "http"), ("operation", "crowded_out")];
    let gone = metrics.sum("media_errors_total", &made_room);
    assert!(gone >= most - 80.0, "{gone} of {most}");
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_after_ten_seconds() {
    let server = MediaServer::open(&[]).await;
    let mut held = hold(&server, "GET /health HTTP/1.1\r\nHost", 1).await;
    let opened = Instant::now();
    let read = tokio::time::timeout(3 * PATIENCE, held[0].read(&mut [0; 64])).await;
    let took = opened.elapsed();
    assert_eq!(read.expect("it ends").ok(), Some(0), "without an answer");
    assert!(took > Duration::from_secs(8), "{took:?}");
    let metrics = server.metrics().await;
    let late = [("type", "http"), ("operation", "no_request")];
    assert_eq!(metrics.sum("media_errors_total", &late), 1.0);
}

#[tokio::test]
async fn a_server_opens_as_many_files_as_it_may() {
    let server = MediaServer::after("ulimit -S -n 256", &[]).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid()));
    let limits = limits.expect("it runs");
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let words: Vec<_> = files.expect("a line").split_whitespace().collect();
    assert_eq!(words[3], words[4], "{limits}");
    assert_ne!(words[3], "256", "the machine has no more to give");
}

#[tokio::test]
async fn sessions_that_never_connect_leave_room_for_200_and_others_wait() {
    let server = MediaServer::open(&[]).await;
    // All at once: the first place is free again after 15 s.
    let client = Client::new();
    let mut posts = JoinSet::new();
    for n in 0..200 {
        let url = server.url(&format!("/whip/cam-{n}"));
        posts.spawn(
            client
                .post(url)
                .header("content-type", SDP)
                .body(PUBLISH)
                .send(),
        );
    }
    for response in posts.join_all().await {
        assert_eq!(response.expect("an answer").status(), 201);
    }
    let gauge = async |state: &str| {
        let metrics = server.metrics().await;
        metrics.value("media_handshakes", &[("state", state)])
    };
    assert_eq!(gauge("in_flight").await, Some(200.0));
    // Its place is one of those that are freed 15 s after nobody came, or this one's.
    let (opened, ()) = tokio::join!(open(&server, "/whip/late", PUBLISH), async {
        wait_for("one to wait", PATIENCE, || async {
            match gauge("waiting").await {
                Some(1.0) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        let listed = get(&server, "/api/v1/sessions").await;
        let body: serde_json::Value = listed.json().await.expect("JSON");
        let first = &body["sessions"][0];
        let text = |key: &str| first[key].as_str().expect("text").to_owned();
        let path = format!("/whip/{}/{}", text("device"), text("id"));
        let deleted = send(request(&server, Method::DELETE, &path, SDP, "")).await;
        assert_eq!(deleted.status(), 200);
    });
    assert!(opened.starts_with("/whip/late/"));
    assert_eq!(gauge("waiting").await, Some(0.0));
}

#[tokio::test]
async fn a_session_that_lasts_as_long_as_it_may_is_closed_as_limit() {
    let server = MediaServer::open(&["--max-session-seconds", "2"]).await;
    let path = open(&server, "/whip/cam-1", PUBLISH).await;
    assert_eq!(get(&server, &path).await.status(), 204);
    wait_for("the session to be closed", PATIENCE, || async {
        let labels = [("device_id", "cam-1"), ("reason", "limit")];
        let metrics = server.metrics().await;
        match metrics.value("media_sessions_closed_total", &labels) {
            Some(1.0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(get(&server, &path).await.status(), 404);
}

#[tokio::test]
async fn clients_are_told_of_ice_servers_with_credentials_that_end() {
    let dir = TempDir::new("turn");
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "north\n").expect("the secret can be written");
    let server = MediaServer::closed(&[
        "--turn-url",
        "stun:turn.example:3478",
        "--turn-url",
        "turn:turn.example:3478?transport=udp",
        "--turn-secret-file",
        &secret.display().to_string(),
        "--turn-ttl-seconds",
        "600",
        "--cors-origin",
        "*",
    ])
    .await;
    let token = server.token("cam-1", "publish");
    let posted = request(&server, Method::POST, "/whip/cam-1", SDP, PUBLISH);
    let created = send(posted.bearer_auth(&token)).await;
    assert_eq!(created.status(), 201);
    let path = location(&created);
    let of_session = links(created.headers());
    assert_eq!(
        of_session[0],
        "<stun:turn.example:3478>; rel=\"ice-server\""
    );
    let id = path.rsplit('/').next().expect("an id");
    let turn = &of_session[1];
    assert!(
        turn.starts_with("<turn:turn.example:3478?transport=udp>; rel=\"ice-server\"; username=\"")
            && turn.contains(&format!(":{id}\"; credential=\""))
            && turn.ends_with("; credential-type=\"password\""),
        "{turn}"
    );
    assert!(!turn.contains("north"));

    let options = |path: &str| Client::new().request(Method::OPTIONS, server.url(path));
    for path in ["/whip/cam-1", &path] {
        let asked = send(options(path).bearer_auth(&token)).await;
        assert_eq!(asked.status(), 200);
        assert_eq!(links(asked.headers()).len(), 2, "{path}");
        let plain = send(options(path)).await;
        assert_eq!(
            (plain.status().as_u16(), links(plain.headers()).len()),
            (200, 0)
        );
        let preflight = options(path)
            .bearer_auth(&token)
            .header("origin", "https://app.example.com")
            .header("access-control-request-method", "POST");
        let preflight = send(preflight).await;
        assert_eq!(
            (
                preflight.status().as_u16(),
                links(preflight.headers()).len()
            ),
            (200, 0)
        );
    }
    let wrong = send(options("/whip/cam-1").bearer_auth("nonsense")).await;
    assert_eq!(
        (wrong.status().as_u16(), links(wrong.headers()).len()),
        (401, 0)
    );
    let other = send(options("/whip/cam-2").bearer_auth(&token)).await;
    assert_eq!(
        (other.status().as_u16(), links(other.headers()).len()),
        (403, 0)
    );
}
