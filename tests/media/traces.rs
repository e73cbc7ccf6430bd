//! Traces: what a collector is sent of a session's life, and what it does to a server when it takes nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use client::Codec;
use futures::{SinkExt as _, StreamExt as _};
use reqwest::Client;
use serde_json::{Value, json};
use tests::collector::Span;
use tests::process::TempDir;
use tests::{Collector, MediaServer, wait_for};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::logs::lines;
use crate::media::{PATIENCE, publish, received, send_frames, watch};

/// Of a page that has a trace of its own, which is to be kept.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A server that tells the collector of so many traces in a hundred.
async fn traced(collector: &Collector, percent: &str) -> MediaServer {
    let url = collector.url();
    let args = ["--otlp-endpoint", &url, "--trace-sample-percent", percent];
    MediaServer::open(&args).await
}

/// Waits for the one span of that name that is right.
async fn span(collector: &Collector, name: &str, is: impl Fn(&Span) -> bool) -> Span {
    wait_for(&format!("the span {name}"), PATIENCE, || async {
        let spans = collector.spans();
        let mut found = spans.iter().filter(|span| span.name == name && is(span));
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one.clone()),
            _ => Err(format!("{spans:#?}")),
        }
    })
    .await
}

fn attributes(span: &Span) -> BTreeMap<&str, &str> {
    let all = span.attributes.iter();
    all.map(|(key, value)| (&**key, &**value)).collect()
}

#[tokio::test]
async fn a_session_is_followed_from_its_post_to_its_first_media() {
    let collector = Collector::start().await;
    let server = traced(&collector, "100").await;
    let publisher = publish(&server, "cam-1", &[Codec::Vp8]).await;
    let viewer = watch(&server, "cam-1", &[Codec::Vp8]).await;
    let sent = send_frames(&publisher, Codec::Vp8, 20, 1).await;
    received(&viewer, Codec::Vp8, sent.len()).await;

    for (name, kind, role) in [("whip.create", "whip", 0), ("whep.create", "whep", 1)] {
        let post = span(&collector, name, |span| {
            span.attributes["http.response.status_code"] == "201"
        })
        .await;
        assert_eq!(post.parent, "", "{name} begins its trace");
        assert_eq!(post.resource["service.name"], "media-server");
        let told = attributes(&post);
        assert_eq!(told["device.id"], "cam-1");
        assert_eq!(told["session.type"], kind);
        assert_eq!(told["sdp.type"], "offer");
        assert_eq!(told["video.codec"], "VP8");
        assert_eq!(told["http.route"], format!("/{kind}/{{device}}"));
        let session = told["session.id"];
        let establish = span(&collector, "session.establish", |s| {
            s.trace_id == post.trace_id
        })
        .await;
        assert_eq!(establish.parent, post.span_id, "{name}");
        assert_eq!(establish.attributes["session.id"], session);
        assert_eq!(establish.error, None);
        assert!(
            establish.start_nanos >= post.start_nanos && establish.end_nanos > post.end_nanos,
            "media comes after the answer: {establish:?}, {post:?}"
        );
        let seconds = (establish.end_nanos - establish.start_nanos) as f64 / 1e9;
        assert!(seconds < PATIENCE.as_secs_f64(), "{seconds} s");
        // The lines of a session have both ids, whoever asks by which.
        let of_session = lines(&server, |line| line["session_id"] == session);
        let messages: Vec<&Value> = of_session.iter().map(|line| &line["msg"]).collect();
        assert_eq!(
            messages,
            ["session admitted", "session connected"],
            "{role}"
        );
        for line in &of_session {
            assert_eq!(line["trace_id"], post.trace_id, "{line}");
            assert_eq!(line["span_id"], establish.span_id, "{line}");
            assert_eq!(line["device_id"], "cam-1", "{line}");
            assert!(line["shard"].is_u64(), "{line}");
        }
    }
}

#[tokio::test]
async fn an_older_session_is_a_part_of_its_clients_trace_and_fails_without_media() {
    let collector = Collector::start().await;
    // None that begins here is kept.
    let server = traced(&collector, "0").await;
    let post = async |path: &str, flags: &str, body: Value| -> Value {
        let request = Client::new().post(server.url(&format!("/api/media/{path}")));
        let request = request.header("traceparent", format!("00-{TRACE}-{PARENT}-{flags}"));
        let answer = request
            .body(body.to_string())
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.expect("JSON")
    };
    let who = json!({"deviceId": "cam-1", "userId": "ann"});
    let unkept = post("sessions", "00", who.clone()).await;
    let session = post("sessions", "01", who).await;
    let id = session["sessionId"].as_str().expect("an id").to_owned();
    let lines_of = [
        "candidate:1 1 udp 2113937151 203.0.113.9 50000 typ host",
        "",
    ];
    let candidate = |line: &str| json!({"candidate": line, "sdpMid": "0", "sdpMLineIndex": 0});
    let batch = json!({"sessionId": id, "candidates": lines_of.map(candidate)});
    post("sessions/ice-candidates", "01", batch).await;
    let one = json!({"sessionId": id, "candidate": candidate(lines_of[0])});
    post("sessions/ice-candidate", "01", one).await;
    let end = Client::new().delete(server.url(&format!("/api/media/sessions/{id}")));
    assert_eq!(end.send().await.expect("an answer").status(), 200);

    let create = span(&collector, "webrtc.create_session", |_| true).await;
    assert_eq!((&*create.trace_id, &*create.parent), (TRACE, PARENT));
    assert_eq!(create.attributes["user.id"], "ann");
    assert_eq!(create.attributes["session.type"], "session");
    let batch = span(&collector, "webrtc.add_ice_candidates_batch", |_| true).await;
    assert_eq!(batch.attributes["candidates.count"], "2");
    assert_eq!(batch.attributes["session.id"], id);
    let one = span(&collector, "webrtc.add_ice_candidate", |_| true).await;
    assert_eq!(one.attributes["ice.candidate"], "host");
    let establish = span(&collector, "session.establish", |_| true).await;
    assert_eq!(establish.parent, create.span_id);
    assert_eq!(
        establish.error.as_deref(),
        Some("no media before normal_close")
    );
    assert_eq!(establish.attributes["session.id"], id);
    let told = format!("{:?}", collector.spans());
    assert!(!told.contains("203.0.113.9"), "an address: {told}");
    let other = unkept["sessionId"].as_str().expect("an id");
    assert!(
        !told.contains(other),
        "its client keeps nothing of it: {told}"
    );
    let its_lines = lines(&server, |line| line["session_id"] == other);
    assert_eq!(its_lines[0]["trace_id"], TRACE, "{its_lines:?}");
}

#[tokio::test]
async fn a_session_that_ends_within_a_second_of_its_first_media_is_no_failure() {
    let collector = Collector::start().await;
    let server = traced(&collector, "100").await;
    let publisher = publish(&server, "cam-1", &[Codec::Vp8]).await;
    let viewer = watch(&server, "cam-1", &[Codec::Vp8]).await;
    let sent = send_frames(&publisher, Codec::Vp8, 3, 1).await;
    received(&viewer, Codec::Vp8, sent.len()).await;
    // What a shard has to tell of media it tells once a second, and before the end.
    viewer.viewer.close().await.expect("the viewer can leave");
    publisher.close().await.expect("the device can leave");
    for kind in ["whip", "whep"] {
        let establish = span(&collector, "session.establish", |span| {
            span.attributes["session.type"] == kind
        })
        .await;
        assert_eq!(establish.error, None, "{establish:?}");
        assert!(establish.end_nanos > establish.start_nanos);
    }
    let metrics = server.metrics().await;
    let count = metrics.value("media_first_media_seconds_count", &[]);
    assert_eq!(count, Some(1.0));
}

#[tokio::test]
async fn a_request_without_a_trace_leads_to_the_one_that_its_session_began_in() {
    let collector = Collector::start().await;
    let server = traced(&collector, "100").await;
    let who = json!({"deviceId": "cam-1", "userId": "ann"}).to_string();
    let create = Client::new().post(server.url("/api/media/sessions"));
    let created = create.body(who).send().await.expect("an answer");
    let created: Value = created.json().await.expect("JSON");
    let id = created["sessionId"].as_str().expect("an id");
    let end = Client::new().delete(server.url(&format!("/api/media/sessions/{id}")));
    assert_eq!(end.send().await.expect("an answer").status(), 200);
    let create = span(&collector, "webrtc.create_session", |_| true).await;
    let delete = span(&collector, "session.delete", |_| true).await;
    assert_eq!(delete.attributes["session.id"], id);
    assert_ne!(delete.trace_id, create.trace_id);
    assert_eq!(delete.links, [create.trace_id.as_str()]);
    assert!(create.links.is_empty(), "{create:?}");
}

#[tokio::test]
async fn a_session_over_a_websocket_is_a_part_of_the_trace_of_its_socket_or_message() {
    const OTHER: &str = "a3ce929d0e0e47364bf92f3577b34da6";
    let collector = Collector::start().await;
    let server = traced(&collector, "0").await;
    let url = format!(
        "ws://{}/api/media/ws?userId=ann&deviceId=cam-1",
        server.http
    );
    let mut request = url.into_client_request().expect("a URL");
    let parent = |trace: &str| format!("00-{trace}-{PARENT}-01");
    let header = parent(TRACE).parse().expect("a header");
    request.headers_mut().insert("traceparent", header);
    let (mut socket, _) = connect_async(request).await.expect("it is let in");
    for message in [
        json!({"type": "start-stream"}),
        json!({"type": "answer", "sdp": "nonsense"}),
        json!({"type": "ice-candidate", "candidate": "", "sessionId": "none", "traceparent": parent(OTHER)}),
    ] {
        let text = Message::Text(message.to_string().into());
        socket.send(text).await.expect("it is taken");
        let answer = timeout(PATIENCE, socket.next()).await.expect("in time");
        answer.expect("open").expect("an answer");
    }
    let create = span(&collector, "webrtc.create_session", |_| true).await;
    assert_eq!((&*create.trace_id, &*create.parent), (TRACE, PARENT));
    assert_eq!(create.attributes["device.id"], "cam-1");
    let establish = span_after(&collector, &mut socket).await;
    assert_eq!(establish.parent, create.span_id);
    let answer = span(&collector, "webrtc.set_answer", |_| true).await;
    assert_eq!(answer.trace_id, TRACE);
    assert_eq!(answer.attributes["sdp.type"], "answer");
    assert!(answer.attributes.contains_key("error.type"), "{answer:?}");
    let candidate = span(&collector, "webrtc.add_ice_candidate", |_| true).await;
    assert_eq!(candidate.trace_id, OTHER);
    assert_eq!(candidate.attributes["error.type"], "unknown_session");
}

/// The span of the socket's session, which ends with it.
async fn span_after(collector: &Collector, socket: &mut Socket) -> Span {
    socket.close(None).await.expect("it can be closed");
    span(collector, "session.establish", |_| true).await
}

#[tokio::test]
async fn who_sent_a_span_is_told_apart_from_another_of_its_name() {
    let collector = Collector::start().await;
    let url = collector.url();
    let args = ["--otlp-endpoint", &url, "--trace-sample-percent", "100"];
    let script = "export POD_NAME=cam-0 POD_NAMESPACE=prod OTEL_RESOURCE_ATTRIBUTES=team=video";
    let mut boots = Vec::new();
    for _ in 0..2 {
        let server = MediaServer::after(script, &args).await;
        drop(publish(&server, "cam-1", &[Codec::Vp8]).await);
        let of_this = |span: &Span| !boots.contains(&span.resource["service.instance.id"]);
        let span = span(&collector, "whip.create", of_this).await;
        for (key, value) in [
            ("service.namespace", "prod"),
            ("k8s.namespace.name", "prod"),
            ("k8s.pod.name", "cam-0"),
            ("team", "video"),
        ] {
            assert_eq!(span.resource[key], value, "{:?}", span.resource);
        }
        boots.push(span.resource["service.instance.id"].clone());
    }
}

#[tokio::test]
async fn the_set_up_of_a_session_whose_trace_is_kept_is_an_exemplar() {
    let collector = Collector::start().await;
    for (percent, shown) in [("100", true), ("0", false)] {
        let server = traced(&collector, percent).await;
        publish(&server, "cam-1", &[Codec::Vp8]).await;
        let connected = |line: &Value| line["msg"] == "session connected";
        let lines = wait_for("the session to connect", PATIENCE, || async {
            let found = lines(&server, connected);
            if found.is_empty() {
                Err(server.log())
            } else {
                Ok(found)
            }
        })
        .await;
        let trace = lines[0]["trace_id"].as_str().expect("an id");
        let scrape = async |accept: &str| {
            let get = Client::new()
                .get(server.url("/metrics"))
                .header("accept", accept);
            get.send()
                .await
                .expect("an answer")
                .text()
                .await
                .expect("text")
        };
        let wanted = format!(" # {{trace_id=\"{trace}\"}} ");
        let open = scrape("application/openmetrics-text; version=1.0.0").await;
        let mut buckets = open.lines().filter(|line| line.contains(" # {"));
        let bucket = buckets.next().unwrap_or_default();
        assert_eq!(bucket.contains(&wanted), shown, "{percent}: {open}");
        assert_eq!(
            bucket.starts_with("media_setup_seconds_bucket{role=\"publisher\""),
            shown
        );
        assert_eq!(buckets.next(), None);
        let text = scrape("text/plain").await;
        assert!(!text.contains("trace_id"), "{text}");
    }
}

#[tokio::test]
async fn a_restart_is_called_by_its_name() {
    let collector = Collector::start().await;
    let server = traced(&collector, "100").await;
    let mut publisher = publish(&server, "cam-1", &[Codec::Vp8]).await;
    publisher.restart_ice().await.expect("the server takes it");
    let restart = span(&collector, "session.ice_restart", |_| true).await;
    let create = span(&collector, "whip.create", |_| true).await;
    assert_eq!(
        restart.attributes["session.id"],
        create.attributes["session.id"]
    );
}

#[tokio::test]
async fn a_collector_that_never_answers_costs_spans_and_nothing_else() {
    let collector = Collector::silent().await;
    let mut server = traced(&collector, "0").await;
    let client = Client::new();
    let url = server.url("/api/media/turn-credentials");
    // Half a batch more than the queue and a batch under way hold.
    let asked = Instant::now();
    for _ in 0..2816 {
        let request = client.get(&url);
        let request = request.header("traceparent", format!("00-{TRACE}-{PARENT}-01"));
        let answer = request.send().await.expect("an answer");
        assert_eq!(answer.status(), 500, "TURN service not configured");
    }
    println!("2816 requests in {:?}", asked.elapsed());
    let metrics = server.metrics().await;
    let spans = |result| metrics.value("media_trace_spans_total", &[("result", result)]);
    let full = spans("full").expect("it is counted");
    assert!((256.0..=768.0).contains(&full), "{full} found no place");
    assert_eq!(spans("exported"), Some(0.0));
    let publisher = publish(&server, "cam-1", &[Codec::Vp8]).await;
    publisher.close().await.expect("the device can leave");

    let since = Instant::now();
    server.process().signal("TERM");
    let within = Duration::from_secs(15);
    wait_for("the server to end", within, || {
        let status = server.process().ended();
        let log = server.process().log();
        async move { status.filter(|status| status.success()).ok_or(log) }
    })
    .await;
    println!("ended after {:?}", since.elapsed());
    let told = lines(&server, |line| {
        line["msg"] == "spans were not sent before the end"
    });
    assert_eq!(told.len(), 1);
}

#[tokio::test]
async fn spans_that_wait_are_sent_before_the_end() {
    let collector = Collector::start().await;
    let mut server = traced(&collector, "100").await;
    // The device leaves before it has sent anything.
    drop(publish(&server, "cam-1", &[Codec::Vp8]).await);
    server.process().signal("TERM");
    wait_for("the server to end", PATIENCE, || {
        let status = server.process().ended();
        async move { status.ok_or("it runs") }
    })
    .await;
    let spans = collector.spans();
    let names: Vec<&str> = spans.iter().map(|span| &*span.name).collect();
    assert!(names.contains(&"whip.create"), "{names:?}");
    let establish = spans.iter().find(|span| span.name == "session.establish");
    let error = establish.and_then(|span| span.error.as_deref());
    assert_eq!(error, Some("no media before normal_close"), "{spans:#?}");
}

#[tokio::test]
async fn the_share_of_traces_that_are_kept_follows_the_file() {
    let collector = Collector::start().await;
    let dir = TempDir::new("config");
    let file = dir.path().join("config.toml");
    let says = |percent: u8| {
        let url = collector.url();
        let text = format!(
            "[auth]\nmode = \"none\"\n[trace]\notlp_endpoint = \"{url}\"\nsample_percent = {percent}\n"
        );
        std::fs::write(&file, text).expect("it can be written");
    };
    says(0);
    let server = MediaServer::with(&["--config", &file.display().to_string()]).await;
    let client = Client::new();
    let before = json!({"deviceId": "cam-1", "userId": "ann"});
    let before = client
        .post(server.url("/api/media/sessions"))
        .body(before.to_string());
    assert_eq!(before.send().await.expect("an answer").status(), 200);
    says(100);
    let turn = server.url("/api/media/turn-credentials");
    wait_for("a span", PATIENCE, || async {
        client.get(&turn).send().await.expect("an answer");
        match collector.spans().len() {
            0 => Err(server.log()),
            some => Ok(some),
        }
    })
    .await;
    let spans = collector.spans();
    let of_turn = |span: &Span| span.name == "webrtc.get_turn_credentials";
    assert!(spans.iter().all(of_turn), "one of before: {spans:#?}");
}

#[tokio::test]
async fn the_span_of_a_request_that_fails_says_why_and_whether_it_is_the_servers_fault() {
    let collector = Collector::start().await;
    let server = traced(&collector, "100").await;
    let turn = Client::new().get(server.url("/api/media/turn-credentials"));
    assert_eq!(turn.send().await.expect("an answer").status(), 500);
    let unasked = Client::new().post(server.url("/whep/nobody"));
    let unasked = unasked.header("content-type", "text/plain").body("v=0");
    assert_eq!(unasked.send().await.expect("an answer").status(), 415);
    let of_server = span(&collector, "webrtc.get_turn_credentials", |_| true).await;
    assert_eq!(of_server.error.as_deref(), Some(""), "{of_server:?}");
    assert_eq!(of_server.attributes["error.type"], "failed");
    let of_client = span(&collector, "whep.create", |_| true).await;
    assert_eq!(of_client.error, None, "{of_client:?}");
    assert_eq!(of_client.attributes["error.type"], "media_type");
    assert_eq!(of_client.attributes["http.response.status_code"], "415");
    assert_eq!(of_client.attributes["http.request.method"], "POST");
}
