//! Whose doing an answer is, as the service levels are told: mistakes of clients cost none of the budget, whatever
//! their status, and every failure of ours does, from the first on.

use crate::requests::*;
use reqwest::Method;
use serde_json::json;
use std::fs;
use tests::process::TempDir;
use tests::recordings::{ask, request as body};
use tests::{MediaServer, wait_for};

/// How many requests had each result: ok, client, refused, draining, failed.
async fn results(server: &MediaServer) -> [Option<f64>; 5] {
    let metrics = server.metrics().await;
    ["ok", "client", "refused", "draining", "failed"]
        .map(|result| metrics.value("media_signalling_total", &[("result", result)]))
}

#[tokio::test]
async fn requests_are_counted_by_whose_doing_their_answer_is_and_not_by_its_status() {
    let folder = TempDir::new("recordings");
    let recordings = folder.path().join("all");
    let dir = recordings.display().to_string();
    let server = MediaServer::open(&["--sessions-per-pod", "1", "--recording-dir", &dir]).await;
    let is = |counts: [u32; 5]| counts.map(|count| Some(f64::from(count)));
    assert_eq!(results(&server).await, is([0; 5]), "before the first");

    let unknown = json!({"sessionId": "x", "answer": {"type": "answer", "sdp": "v=0"}}).to_string();
    for _ in 0..100 {
        let turn = get(&server, "/api/media/turn-credentials").await;
        assert_eq!(turn.status(), 500, "as the service before had it");
        let answer = request(
            &server,
            Method::POST,
            "/api/media/sessions/answer",
            "application/json",
            unknown.clone(),
        );
        assert_eq!(send(answer).await.status(), 500);
    }
    assert_eq!(post(&server, "/whip/cam-1", "x").await.status(), 400);
    assert_eq!(results(&server).await, is([0, 201, 0, 0, 0]));

    // Neither pages and what they ask, nor probes, nor what is not there.
    for path in ["/", "/api/v1/devices", "/health", "/nothing"] {
        get(&server, path).await;
    }
    let preflight = request(&server, Method::OPTIONS, "/whip/cam-1", SDP, "");
    assert!(send(preflight).await.status().is_success());
    assert_eq!(results(&server).await, is([0, 201, 0, 0, 0]));

    let session = open(&server, "/whip/cam-1", PUBLISH).await;
    assert_eq!(post(&server, "/whip/cam-2", PUBLISH).await.status(), 503);
    assert_eq!(results(&server).await, is([1, 201, 1, 0, 0]));

    fs::remove_dir_all(&recordings).expect("the disk can go");
    fs::write(&recordings, "").expect("written");
    let id = session.rsplit('/').next().expect("an id");
    let start = body(id, "cam-1", json!({}));
    let failed = ask(&server, Method::POST, "", Some(start)).await;
    assert_eq!(failed.status(), 500);
    assert_eq!(results(&server).await, is([1, 201, 1, 0, 1]));
    wait_for("its line in the log", PATIENCE, || async {
        let log = server.log();
        let lines: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("request failed"))
            .collect();
        let told = ["recording_start_failed", "/api/media/recordings", "500"];
        match &lines[..] {
            [line] if told.iter().all(|part| line.contains(part)) => Ok(()),
            _ => Err(lines.join("\n")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_that_drains_fails_nobody() {
    let mut server = MediaServer::open(&[]).await;
    open(&server, "/whip/cam-1", PUBLISH).await;
    server.process().signal("TERM");
    wait_for("it to drain", PATIENCE, || async {
        match post(&server, "/whip/cam-2", PUBLISH)
            .await
            .status()
            .as_u16()
        {
            503 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    let [_, client, refused, draining, failed] = results(&server).await;
    assert_eq!((client, refused, failed), (Some(0.0), Some(0.0), Some(0.0)));
    assert!(draining >= Some(1.0), "{draining:?}");
}
