//! Who may do what, with tokens made by `media-server token`.

use crate::requests::*;
use reqwest::Method;
use serde_json::Value;
use std::process::Command;
use tests::MediaServer;
use tests::server::binary;

#[tokio::test]
async fn without_a_token_everything_of_value_answers_401_and_how_to_ask() {
    let server = MediaServer::closed(&[]).await;
    let response = post(&server, "/whip/cam-1", PUBLISH).await;
    assert!(header(&response, "www-authenticate").starts_with("Bearer"));
    problem(response, 401, "Authorization: Bearer").await;
    for path in ["/api/v1/devices", "/api/v1/sessions"] {
        problem(get(&server, path).await, 401, "token").await;
    }
    for bad in ["Bearer x.y.z", "Basic eDp5", "Bearer"] {
        let response = send(
            request(&server, Method::POST, "/whip/cam-1", SDP, PUBLISH)
                .header("authorization", bad),
        )
        .await;
        assert!(
            header(&response, "www-authenticate").contains("invalid_token"),
            "{bad}"
        );
        problem(response, 401, "").await;
    }
    for path in ["/", "/health", "/readyz", "/livez"] {
        assert_eq!(get(&server, path).await.status(), 200, "{path} is open");
    }
    let missing = [("reason", "missing")];
    let metrics = server.metrics().await;
    assert_eq!(
        metrics.value("media_auth_failures_total", &missing),
        Some(3.0)
    );
}

#[tokio::test]
async fn a_token_is_good_for_its_devices_and_grants_only() {
    let server = MediaServer::closed(&[]).await;
    let publish = |path: &'static str, token: &str| {
        send(request(&server, Method::POST, path, SDP, PUBLISH).bearer_auth(token))
    };
    let own = server.token("cam-1", "publish");
    assert_eq!(publish("/whip/cam-1", &own).await.status(), 201);
    problem(publish("/whip/cam-2", &own).await, 403, "publish").await;
    problem(publish("/whip/cam-10", &own).await, 403, "cam-10").await;
    let viewer = server.token("cam-*", "view");
    problem(publish("/whip/cam-1", &viewer).await, 403, "publish").await;
    problem(
        send(request(&server, Method::POST, "/whep/cam-1", SDP, VIEW).bearer_auth(&own)).await,
        403,
        "view",
    )
    .await;
    let watched =
        send(request(&server, Method::POST, "/whep/cam-1", SDP, VIEW).bearer_auth(&viewer));
    assert_eq!(watched.await.status(), 409, "allowed, but not live yet");
    let any = server.token("cam-*", "publish");
    assert_eq!(publish("/whip/cam-2", &any).await.status(), 201);
}

#[tokio::test]
async fn lists_show_what_the_token_may_view() {
    let server = MediaServer::closed(&[]).await;
    let all = server.token("*", "publish,view");
    for path in ["/whip/cam-1", "/whip/door-1"] {
        let posted = request(&server, Method::POST, path, SDP, PUBLISH).bearer_auth(&all);
        assert_eq!(send(posted).await.status(), 201);
    }
    let list = async |token: &str, path: &str| -> Value {
        send(request(&server, Method::GET, path, SDP, "").bearer_auth(token))
            .await
            .json()
            .await
            .expect("JSON")
    };
    let cams = mint(
        &server,
        &["--device", "cam-*", "--grant", "view", "--subject", "guard"],
    );
    let body = list(&cams, "/api/v1/devices").await;
    assert_eq!(body["devices"].as_array().map(Vec::len), Some(1), "{body}");
    assert_eq!(body["devices"][0]["device"], "cam-1");
    let body = list(&cams, "/api/v1/sessions").await;
    assert_eq!(body["sessions"].as_array().map(Vec::len), Some(1), "{body}");
    let body = list(&all, "/api/v1/sessions").await;
    assert_eq!(body["sessions"].as_array().map(Vec::len), Some(2), "{body}");
}

#[tokio::test]
async fn a_session_belongs_to_its_maker_and_to_administrators() {
    let server = MediaServer::closed(&[]).await;
    let alice = mint(
        &server,
        &[
            "--device",
            "cam-1",
            "--grant",
            "publish",
            "--subject",
            "alice",
        ],
    );
    let bob = mint(
        &server,
        &[
            "--device",
            "cam-1",
            "--grant",
            "publish,view",
            "--subject",
            "bob",
        ],
    );
    let admin = mint(
        &server,
        &["--device", "*", "--grant", "admin", "--subject", "root"],
    );
    let posted = request(&server, Method::POST, "/whip/cam-1", SDP, PUBLISH).bearer_auth(&alice);
    let path = location(&send(posted).await);
    let delete =
        |token: &str| send(request(&server, Method::DELETE, &path, SDP, "").bearer_auth(token));
    problem(delete(&bob).await, 404, "no such session").await;
    assert_eq!(delete(&admin).await.status(), 200);
    problem(delete(&alice).await, 404, "no such session").await;
}

#[tokio::test]
async fn logs_hold_neither_tokens_nor_sdp() {
    let mut server = MediaServer::closed(&[]).await;
    let token = server.token("cam-1", "publish");
    let posted = request(&server, Method::POST, "/whip/cam-1", SDP, PUBLISH).bearer_auth(&token);
    let answer = send(posted).await.text().await.expect("SDP");
    let pwd = answer
        .lines()
        .find_map(|line| line.strip_prefix("a=ice-pwd:"))
        .expect("a password")
        .to_owned();
    let log = server.process().log();
    assert!(log.contains("session admitted"), "{log}");
    for secret in [&*token, &pwd, "a=ice-ufrag", "P2uYro0UCOQ4zxjKXaWCBui1"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
    for line in log.lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
    }
}

#[test]
fn no_tokens_on_an_address_that_others_reach_end_the_start_with_a_way_out() {
    let output = Command::new(binary())
        .args(["--http-listen", "0.0.0.0:0", "--auth", "none"])
        .output()
        .expect("it starts");
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--insecure-no-auth"), "{said}");
}

#[test]
fn a_token_of_more_than_a_day_is_not_made() {
    let output = Command::new(binary())
        .args(["token", "--device", "x", "--grant", "view", "--ttl", "25h"])
        .output()
        .expect("it starts");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("24h"));
}

/// A token with more said than the harness's own method does.
fn mint(server: &MediaServer, args: &[&str]) -> String {
    let output = Command::new(binary())
        .arg("token")
        .args(args)
        .arg("--jwt-hmac-file")
        .arg(server.key_file())
        .output()
        .expect("it starts");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout)
        .expect("text")
        .trim()
        .to_owned()
}
