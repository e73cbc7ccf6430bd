//! What is refused because it is too much, what ends because it lasts too long, and the ICE servers
//! that clients are told of.

use crate::requests::*;
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, Response};
use tests::process::TempDir;
use tests::{MediaServer, wait_for};
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
