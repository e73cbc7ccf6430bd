//! Requests as WHIP and WHEP clients write them, and what came back.

use client::{Codec, Http, HttpOptions, Options, Publisher};
use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Client, Method, RequestBuilder, Response};
use serde_json::Value;
use std::time::Duration;
use tests::{MediaServer, wait_for};

/// An offer to publish, as Chromium writes it.
pub const PUBLISH: &str = include_str!("../../media-server/core/src/sdp/data/chromium-publish.sdp");
/// An offer to watch, as Chromium writes it.
pub const VIEW: &str = include_str!("../../media-server/core/src/sdp/data/chromium-view.sdp");
/// ICE credentials of both offers.
pub const CREDENTIALS: &str = "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n";
pub const SDP: &str = "application/sdp";
pub const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
/// Long enough for a busy machine; what waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A request to the server with a body of a type.
pub fn request(
    server: &MediaServer,
    method: Method,
    path: &str,
    content_type: &str,
    body: impl Into<reqwest::Body>,
) -> RequestBuilder {
    Client::new()
        .request(method, server.url(path))
        .header(CONTENT_TYPE, content_type)
        .body(body)
}

pub async fn send(request: RequestBuilder) -> Response {
    request.send().await.expect("an answer")
}

pub async fn post(server: &MediaServer, path: &str, body: &str) -> Response {
    send(request(server, Method::POST, path, SDP, body.to_owned())).await
}

pub async fn get(server: &MediaServer, path: &str) -> Response {
    send(Client::new().get(server.url(path))).await
}

/// Opens a session and returns the path of its resource.
pub async fn open(server: &MediaServer, path: &str, body: &str) -> String {
    let response = post(server, path, body).await;
    assert_eq!(response.status(), 201, "{:?}", response.text().await);
    location(&response)
}

pub fn location(response: &Response) -> String {
    header(response, LOCATION.as_str())
}

pub fn header(response: &Response, name: &str) -> String {
    response
        .headers()
        .get(name)
        .unwrap_or_else(|| panic!("no {name} in {:?}", response.headers()))
        .to_str()
        .expect("text")
        .to_owned()
}

/// Checks that an answer is a problem (RFC 9457) of `status` whose detail says `says`.
pub async fn problem(response: Response, status: u16, says: &str) {
    assert_eq!(response.status(), status, "{says}");
    assert_eq!(
        header(&response, "content-type"),
        "application/problem+json"
    );
    let body: Value = response.json().await.expect("JSON");
    assert_eq!(body["status"], status, "{body}");
    for member in ["type", "title", "detail"] {
        assert!(body[member].is_string(), "{member} of {body}");
    }
    let detail = body["detail"].as_str().unwrap_or_default();
    assert!(detail.contains(says), "{says:?} not in {detail:?}");
}

/// A publisher with real ICE and DTLS, whose device is live when this returns.
pub async fn publisher(server: &MediaServer, device: &str) -> Publisher {
    let http = Http::new(&HttpOptions::default()).expect("an HTTP client");
    let url = server.url(&format!("/whip/{device}"));
    let publisher = Publisher::connect(&url, &http, &Options::default(), &[Codec::Vp8])
        .await
        .unwrap_or_else(|error| panic!("{device} cannot publish: {error:?}"));
    wait_for("the device to be live", PATIENCE, || async {
        let body: Value = get(server, "/api/v1/devices")
            .await
            .json()
            .await
            .expect("JSON");
        let live = body["devices"].as_array().is_some_and(|all| {
            all.iter()
                .any(|d| d["device"] == device && d["live"] == true)
        });
        if live { Ok(()) } else { Err(body.to_string()) }
    })
    .await;
    publisher
}
