//! The calls about recordings, as a client makes them.
//!
//! Owns no server: whoever asks says how.

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::{Value, json};

use crate::server::MediaServer;
use crate::wait::wait_for;

/// Long enough for a busy machine; what waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(40);

/// Between two looks at a recording, beside the usual pause.
const APART: Duration = Duration::from_millis(200);

/// Who asks a server: by its address, and with a token where it wants one.
pub trait Asks {
    fn request(&self, method: Method, path: &str) -> RequestBuilder;
}

/// Without a token.
impl Asks for MediaServer {
    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        Client::new().request(method, self.url(path))
    }
}

/// Sends a request; `path` is below that of all recordings.
///
/// # Panics
/// If nothing answers.
pub async fn ask(server: &impl Asks, method: Method, path: &str, body: Option<Value>) -> Response {
    let mut request = server.request(method, &format!("/api/media/recordings{path}"));
    if let Some(body) = body {
        request = request.body(body.to_string());
    }
    request.send().await.expect("an answer")
}

/// The JSON of an answer that has that status.
///
/// # Panics
/// If it has another, or none.
pub async fn json_of(response: Response, status: u16) -> Value {
    let got = response.status();
    let text = response.text().await.expect("a body");
    assert_eq!(got, status, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The session of the device that publishes.
pub async fn session(server: &impl Asks, device: &str) -> String {
    wait_for("the device's session", PATIENCE, || async {
        let all = server.request(Method::GET, "/api/v1/sessions").send();
        let all: Value = all.await.expect("an answer").json().await.expect("JSON");
        let sessions = all["sessions"].as_array().expect("a list").iter();
        let mut publishers = sessions.filter(|session| {
            session["device"] == device
                && session["role"] == "publisher"
                && session["connected"] == true
        });
        let id = publishers.next().and_then(|session| session["id"].as_str());
        id.map(str::to_owned).ok_or(all.to_string())
    })
    .await
}

/// Starts a recording, with more fields than those that are needed; returns what the server says of it.
pub async fn start(server: &impl Asks, device: &str, more: Value) -> Value {
    let body = request(&session(server, device).await, device, more);
    let answer = ask(server, Method::POST, "", Some(body)).await;
    json_of(answer, 200).await["recording"].clone()
}

/// The body of a request for a recording.
///
/// # Panics
/// If `more` is no object.
pub fn request(session: &str, device: &str, more: Value) -> Value {
    let mut body = json!({"sessionId": session, "deviceId": device});
    let more = more.as_object().expect("an object").clone();
    body.as_object_mut().expect("an object").extend(more);
    body
}

/// Ends it; it is complete then.
///
/// # Panics
/// If it is not.
pub async fn stop(server: &impl Asks, recording: &Value) -> Value {
    let path = format!("/{}/stop", id(recording));
    let answer = ask(server, Method::POST, &path, None).await;
    let stopped = json_of(answer, 200).await["recording"].clone();
    assert_eq!(stopped["state"], "completed", "{stopped}");
    stopped
}

/// # Panics
/// If it has none.
pub fn id(recording: &Value) -> &str {
    recording["id"].as_str().expect("an id")
}

/// Waits until it is so, and returns it.
pub async fn becomes(
    server: &impl Asks,
    recording: &Value,
    what: &str,
    is: impl Fn(&Value) -> bool,
) -> Value {
    becomes_within(server, recording, what, PATIENCE, is).await
}

async fn becomes_within(
    server: &impl Asks,
    recording: &Value,
    what: &str,
    within: Duration,
    is: impl Fn(&Value) -> bool,
) -> Value {
    wait_for(what, within, || async {
        let answer = ask(server, Method::GET, &format!("/{}", id(recording)), None).await;
        let now = json_of(answer, 200).await["recording"].clone();
        if is(&now) {
            Ok(now)
        } else {
            // Requests of one subject have a rate, and whoever looks on has others to make.
            tokio::time::sleep(APART).await;
            Err(now.to_string())
        }
    })
    .await
}

/// Waits until so many seconds are recorded.
pub async fn lasts(server: &impl Asks, recording: &Value, seconds: f64) -> Value {
    let long = |now: &Value| now["durationSeconds"].as_f64() >= Some(seconds);
    let within = PATIENCE + Duration::from_secs_f64(seconds);
    let what = format!("{seconds} s to be recorded");
    becomes_within(server, recording, &what, within, long).await
}
