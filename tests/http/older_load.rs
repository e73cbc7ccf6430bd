//! `/api/media` under load and about to stop, and which calls are about a session.

use crate::requests::*;
use crate::table::*;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tests::process::TempDir;
use tests::server::mint_token_for;
use tests::{MediaServer, wait_for};

#[tokio::test]
async fn what_there_is_no_room_for_fails_in_the_words_of_the_service_before_with_the_time_to_wait()
{
    let dir = TempDir::new("load");
    let (config, drain) = (dir.path().join("config.toml"), dir.path().join("drain"));
    let text = format!("[drain]\nfile = {:?}\n", drain.display().to_string());
    std::fs::write(&config, text).expect("written");
    let config = config.display().to_string();
    let server = MediaServer::open(&["--sessions-per-pod", "1", "--config", &config]).await;
    let publishers = ("POST", "/api/media/sfu/publishers");
    let created = json!({
        "publisherId": "*", "deviceId": "cam-1", "offer": {"type": "offer", "sdp": "v=0*"}, "iceServers": [],
    });
    let refused = |why: &'static str| {
        let rows = [
            (
                "/api/media/sessions",
                json!({"deviceId": "cam-1", "userId": "ann"}),
                "session",
            ),
            (
                "/api/media/sessions",
                json!({"deviceId": "cam-1", "offer": VIEW}),
                "session",
            ),
            (
                publishers.1,
                json!({"deviceId": "cam-1", "userId": "bob"}),
                "publisher",
            ),
            (
                "/api/media/sfu/subscribers",
                json!({"publisherId": "{publisher}", "userId": "ann"}),
                "subscriber",
            ),
            (
                "/api/media/sfu/subscribers/by-device",
                json!({"deviceId": "cam-1", "userId": "ann"}),
                "subscriber",
            ),
        ];
        let rows = rows.into_iter().map(move |(path, body, what)| {
            let body_of = json!({"error": format!("Failed to create {what}"), "message": why});
            row(why, ("POST", path), body, 503, body_of).header("retry-after", "2")
        });
        rows.collect::<Vec<_>>()
    };
    let mut table = Table::new(&server, None);
    let first = json!({"deviceId": "cam-1", "userId": "ann"});
    let first = row("the only one", publishers, first, 200, created);
    table
        .run(vec![first.keep(&[("publisher", "/publisherId")])])
        .await;
    table
        .run(refused("the server has 1 sessions, which is its limit*"))
        .await;
    std::fs::write(&drain, "true").expect("written");
    wait_for("the server to drain", PATIENCE, || async {
        match get(&server, "/readyz").await.status().as_u16() {
            503 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    table.run(refused("the server is about to stop*")).await;
    table.check(11);
}

#[tokio::test]
async fn every_surface_counts_the_calls_of_a_subject_and_refuses_those_beyond_in_its_form() {
    let server = MediaServer::closed(&[]).await;
    let nowhere = format!("/api/media/recordings/{NOWHERE}");
    for (n, path) in [
        "/api/media/sessions",
        "/api/media/sfu/publishers",
        "/api/media/recordings",
        &nowhere,
        &format!("{nowhere}/download"),
    ]
    .into_iter()
    .enumerate()
    {
        let token = mint_token_for(server.key_file(), "cam-1", "view", &format!("user-{n}"));
        let mut asked = 0;
        let refused = loop {
            asked += 1;
            assert!(asked < 1_000, "{path} has no limit");
            let response = send(Client::new().get(server.url(path)).bearer_auth(&token)).await;
            if response.status() == 429 {
                break response;
            }
        };
        assert!(asked > 20, "{path}: {asked}");
        assert_eq!(header(&refused, "retry-after"), "1", "{path}");
        let body: Value = refused.json().await.expect("JSON");
        let is_recording = path.contains("recordings");
        let says = &body[if is_recording { "message" } else { "error" }];
        let says = says.as_str().unwrap_or_default();
        assert!(
            says.starts_with("requests of this subject"),
            "{path}: {body}"
        );
        assert_eq!(body["error"] == "rate", is_recording, "{path}: {body}");
    }
}

#[tokio::test]
async fn a_question_about_a_session_is_a_call_about_it_whichever_api_has_it() {
    let server = MediaServer::open(&[]).await;
    let body = json!({"deviceId": "cam-1", "userId": "ann"}).to_string();
    let created = post(&server, "/api/media/sessions", &body).await;
    let created: Value = created.json().await.expect("JSON");
    let session = created["sessionId"].as_str().expect("an id");
    // The list is about none.
    let last_active = async || {
        let list = get(&server, "/api/media/sessions").await;
        let list: Value = list.json().await.expect("JSON");
        list["sessions"][0]["lastActive"].clone()
    };
    let recording = json!({"sessionId": session, "deviceId": "cam-1"}).to_string();
    let one = format!("/api/v1/sessions/{session}");
    for (method, path, body) in [
        (Method::GET, one.as_str(), ""),
        (Method::POST, "/api/media/recordings", &recording),
    ] {
        let before = last_active().await;
        // Shown in whole seconds.
        wait_for(&format!("{path} to count"), PATIENCE, || async {
            send(request(&server, method.clone(), path, SDP, body.to_owned())).await;
            match last_active().await {
                now if now != before => Ok(()),
                now => Err(now),
            }
        })
        .await;
    }
}
