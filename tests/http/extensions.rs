//! The extensions of WHEP: choice of a layer, and events (draft-ietf-wish-whep-04).

use crate::requests::*;
use reqwest::{Client, Method, Response};
use serde_json::Value;
use tests::{MediaServer, wait_for};

const JSON: &str = "application/json";
const REL: &str = "urn:ietf:params:whep:ext:core";

fn links(response: &Response) -> Vec<String> {
    let links = response.headers().get_all("link").iter();
    links
        .map(|link| link.to_str().expect("text").to_owned())
        .collect()
}

async fn ask(server: &MediaServer, path: &str, body: &str) -> Response {
    send(request(server, Method::POST, path, JSON, body.to_owned())).await
}

async fn delete(server: &MediaServer, path: &str) -> Response {
    send(Client::new().delete(server.url(path))).await
}

/// Events as they come.
struct Events {
    response: Response,
    text: String,
}

impl Events {
    async fn listen(server: &MediaServer, path: &str) -> Events {
        let response = get(server, path).await;
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "content-type"), "text/event-stream");
        let text = String::new();
        Events { response, text }
    }

    /// The next event: its name and its data.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
                let named = field("event:").zip(field("data:"));
                let read = named.map(|(name, data)| {
                    let data = serde_json::from_str(data).expect("JSON in one line");
                    (name.trim().to_owned(), data)
                });
                self.text = rest.to_owned();
                // What has no name keeps the connection alive.
                if read.is_some() {
                    return read;
                }
                continue;
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await;
            let chunk = chunk.expect("an event in time").expect("a connection")?;
            self.text
                .push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
        }
    }
}

#[tokio::test]
async fn a_viewers_answer_advertises_both_extensions_and_a_publishers_none() {
    let server = MediaServer::open(&[]).await;
    let _publisher = publisher(&server, "cam-1").await;
    let published = post(&server, "/whip/cam-2", PUBLISH).await;
    assert!(links(&published).is_empty());
    let watched = post(&server, "/whep/cam-1", VIEW).await;
    let path = location(&watched);
    let events = "events=\"active,inactive,layers,viewercount\"";
    assert_eq!(
        links(&watched),
        [
            format!("<{path}/layer>; rel=\"{REL}:layer\""),
            format!("<{path}/sse>; rel=\"{REL}:server-sent-events\"; {events}"),
        ]
    );
}

#[tokio::test]
async fn a_choice_of_layer_that_cannot_be_is_refused_with_the_reason() {
    let server = MediaServer::open(&[]).await;
    let _publisher = publisher(&server, "cam-1").await;
    let session = open(&server, "/whep/cam-1", VIEW).await;
    let layer = format!("{session}/layer");
    let typed = request(&server, Method::POST, &layer, "text/plain", "{}");
    problem(send(typed).await, 415, JSON).await;
    problem(ask(&server, &layer, "hello").await, 400, "not what").await;
    let spatial = ask(&server, &layer, "{\"spatialLayerId\":1}").await;
    problem(spatial, 400, "spatialLayerId").await;
    let other = ask(&server, &layer, "{\"mediaId\":\"7\"}").await;
    problem(other, 422, "mediaId").await;
    for name in ["encodingId", "rid"] {
        let unknown = ask(&server, &layer, &format!("{{\"{name}\":\"f\"}}")).await;
        problem(unknown, 422, "no such layer").await;
    }
    // The video is the second m-line, and its mid is 1.
    for right in [
        "{}",
        "{\"mediaId\":\"1\"}",
        "{\"mediaId\":\"1\",\"maxTemporalLayerId\":0}",
    ] {
        assert_eq!(ask(&server, &layer, right).await.status(), 200, "{right}");
    }
    assert_eq!(delete(&server, &layer).await.status(), 200);
    assert_eq!(delete(&server, &session).await.status(), 200);
    problem(ask(&server, &layer, "{}").await, 404, "session").await;
}

#[tokio::test]
async fn a_stranger_neither_chooses_for_a_session_nor_listens_to_it() {
    let server = MediaServer::closed(&[]).await;
    let own = server.token("cam-1", "publish,view");
    let offer = |path: &str, body: &str| {
        request(&server, Method::POST, path, SDP, body.to_owned()).bearer_auth(&own)
    };
    let response = send(offer("/whip/cam-1", PUBLISH)).await;
    assert_eq!(response.status(), 201);
    // Not connected, so that nobody can watch; the paths are refused all the same.
    for path in ["/whep/cam-1/x/layer", "/whep/cam-1/x/sse"] {
        problem(ask(&server, path, "{}").await, 401, "token").await;
        let with_token = request(&server, Method::POST, path, JSON, "{}").bearer_auth(&own);
        problem(send(with_token).await, 404, "session").await;
    }
    problem(get(&server, "/whep/cam-1/x/sse/y").await, 404, "stream").await;
}

#[tokio::test]
async fn a_listener_hears_the_state_and_what_changes() {
    let server = MediaServer::open(&[]).await;
    let publisher = publisher(&server, "cam-1").await;
    let session = open(&server, "/whep/cam-1", VIEW).await;
    let wanted = "[\"active\",\"inactive\",\"viewercount\",\"scte35\"]";
    let opened = ask(&server, &format!("{session}/sse"), wanted).await;
    assert_eq!(opened.status(), 201);
    let mut events = Events::listen(&server, &location(&opened)).await;
    let count = |n: u32| serde_json::json!({ "viewercount": n });
    let named = |name: &str, data: Value| Some((name.to_owned(), data));
    let empty = || serde_json::json!({});
    assert_eq!(events.next().await, named("active", empty()));
    assert_eq!(events.next().await, named("viewercount", count(1)));
    let second = open(&server, "/whep/cam-1", VIEW).await;
    assert_eq!(events.next().await, named("viewercount", count(2)));
    assert_eq!(delete(&server, &second).await.status(), 200);
    assert_eq!(events.next().await, named("viewercount", count(1)));
    publisher.close().await.expect("closed");
    assert_eq!(events.next().await, named("inactive", empty()));
    // With its session a stream ends.
    assert_eq!(delete(&server, &session).await.status(), 200);
    assert_eq!(events.next().await, None);
    problem(get(&server, &location(&opened)).await, 404, "stream").await;
}

#[tokio::test]
async fn streams_of_a_session_are_bounded_and_can_be_ended() {
    let server = MediaServer::open(&[]).await;
    let _publisher = publisher(&server, "cam-1").await;
    let session = open(&server, "/whep/cam-1", VIEW).await;
    let path = format!("{session}/sse");
    let first = location(&send(Client::new().post(server.url(&path))).await);
    let second = ask(&server, &path, "[]").await;
    assert_eq!(second.status(), 201);
    let third = ask(&server, &path, "[]").await;
    assert_eq!(header(&third, "retry-after"), "2");
    problem(third, 503, "event streams").await;
    let mut events = Events::listen(&server, &first).await;
    assert!(events.next().await.is_some());
    assert_eq!(delete(&server, &first).await.status(), 200);
    problem(get(&server, &first).await, 404, "stream").await;
    problem(delete(&server, &first).await, 404, "stream").await;
    while events.next().await.is_some() {}
    assert_eq!(ask(&server, &path, "[]").await.status(), 201, "room again");
    wait_for("the bound to be counted", PATIENCE, || async {
        let labels = [("bound", "event_streams")];
        match server
            .metrics()
            .await
            .sum("media_bound_hits_total", &labels)
        {
            1.0 => Ok(()),
            hits => Err(hits),
        }
    })
    .await;
}
