//! What the tests of all clients ask the server, and the device that some of them watch.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tests::process::{Process, program};
use tests::{MediaServer, wait_for};

pub const SOON: Duration = Duration::from_secs(60);

/// What each of them publishes or watches.
const DEVICE: &str = "cam-1";

/// The list of that name in `/api/v1`.
pub async fn list(server: &MediaServer, token: &str, name: &str) -> anyhow::Result<Vec<Value>> {
    let request = reqwest::Client::new().get(server.url(&format!("/api/v1/{name}")));
    let answer: Value = request.bearer_auth(token).send().await?.json().await?;
    let list = answer[name].as_array();
    Ok(list.with_context(|| answer.to_string())?.clone())
}

/// Waits until the device is live; `log` is what its publisher says.
pub async fn is_live(server: &MediaServer, token: &str, log: impl Fn() -> String) {
    wait_for("the device to be live", SOON, || async {
        let devices = list(server, token, "devices").await?;
        let live = |d: &Value| d["device"] == DEVICE && d["live"] == true;
        ensure!(devices.iter().any(live), "{devices:?}: {}", log());
        Ok(())
    })
    .await;
}

/// Waits until there is no session of that role.
pub async fn has_no(role: &str, server: &MediaServer, token: &str) {
    wait_for(&format!("the {role} to be gone"), SOON, || async {
        let sessions = list(server, token, "sessions").await?;
        ensure!(sessions.iter().all(|s| s["role"] != role), "{sessions:?}");
        Ok(())
    })
    .await;
}

/// Publishes a moving picture in H.264, until it is dropped or ended.
pub async fn test_publisher(server: &MediaServer, token: &str) -> Process {
    let mut command = Command::new(program("TEST_PUBLISHER_BIN", "media-test-publisher"));
    command
        .args(["--whip", &server.url(&format!("/whip/{DEVICE}"))])
        .env("MEDIA_PUBLISH_TOKEN", token);
    let publisher = Process::start("media-test-publisher", &mut command);
    is_live(server, token, || publisher.log()).await;
    publisher
}
