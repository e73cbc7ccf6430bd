//! HTTP, WebSocket and their errors: the test counts and sizes what it sends, and what it gets.

use std::time::{Duration, Instant};

use futures::{SinkExt as _, StreamExt as _};
use reqwest::Client;
use tests::truth::{Row, measure};
use tests::{MediaServer, wait_for};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

use super::{becomes, post};
use crate::media::PATIENCE;

const REQUESTS: &str = "media_http_requests_total";
const IN_FLIGHT: &str = "media_http_requests_in_flight";
const ERRORS: &str = "media_errors_total";
const MESSAGES: &str = "media_websocket_messages_total";
const SIZES: &str = "media_websocket_message_size_bytes";
const SOCKETS: &str = "media_websocket_connections";

/// How long a body is held back. Between two bounds of the histogram, 0.256 and 0.512 s.
const HELD: Duration = Duration::from_millis(300);
const BODY: &str = "nonsense";
/// An offer to watch, as Chromium writes it.
const VIEW: &str = include_str!("../../../media-server/core/src/sdp/data/chromium-view.sdp");

/// Begins a request whose body does not come yet.
async fn begin(server: &MediaServer, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(server.http).await.expect("connects");
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/sdp\r\nContent-Length: {}\r\n\r\n",
        BODY.len()
    );
    stream.write_all(head.as_bytes()).await.expect("written");
    stream
}

pub async fn rows() -> Vec<Row> {
    let server = MediaServer::open(&[]).await;
    let mut rows = in_flight(&server).await;
    rows.extend(counted(&server).await);
    rows.extend(measure(5, async || known_delay(&server).await).await);
    rows.extend(sockets(&server).await);
    rows
}

/// Requests are held open; the scrape is one more.
async fn in_flight(server: &MediaServer) -> Vec<Row> {
    let mut held = Vec::new();
    for _ in 0..7 {
        held.push(begin(server, "/whep/held").await);
    }
    let truth = "7 held open, and the scrape";
    let open = becomes(server, IN_FLIGHT, &[], 8.0, truth).await;
    drop(held);
    let truth = "their clients go away";
    vec![open, becomes(server, IN_FLIGHT, &[], 1.0, truth).await]
}

/// A handler waits for a body as long as the client wants.
async fn known_delay(server: &MediaServer) -> Vec<Row> {
    let family = "media_http_duration_seconds";
    let read = async |part: &str| {
        let labels = [("method", "POST"), ("path", "/whip/{device}")];
        let metrics = server.metrics().await;
        metrics.sum(&format!("{family}{part}"), &labels)
    };
    let before = [
        read("_sum").await,
        read("_bucket").await,
        read("_count").await,
    ];
    let begun = Instant::now();
    let mut stream = begin(server, "/whip/held").await;
    tokio::time::sleep(HELD).await;
    stream.write_all(BODY.as_bytes()).await.expect("written");
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.expect("an answer");
    let passed = begun.elapsed().as_secs_f64();
    assert_eq!(&answer, b"HTTP/1.1 400");
    wait_for("it to be counted", PATIENCE, || async {
        let count = read("_count").await - before[2];
        if count == 1.0 { Ok(()) } else { Err(count) }
    })
    .await;
    let truth = "a body held back, as the client timed it";
    let sum = read("_sum").await - before[0];
    let bounds = (0..10).map(|power| 0.001 * f64::from(1 << power));
    let above = bounds
        .chain([f64::INFINITY])
        .filter(|bound| *bound >= passed);
    let buckets = read("_bucket").await - before[1];
    vec![
        Row::new(family, truth, passed, 0.05, Some(sum)),
        Row::exact(
            family,
            "buckets at or above it",
            above.count() as f64,
            Some(buckets),
        ),
    ]
}

async fn counted(server: &MediaServer) -> Vec<Row> {
    let get = async |path: &str| {
        let response = Client::new().get(server.url(path)).send().await;
        response.expect("an answer").status().as_u16()
    };
    for _ in 0..5 {
        assert_eq!(get("/health").await, 200);
        assert_eq!(get("/api/media/sessions/none").await, 404);
    }
    for _ in 0..3 {
        assert_eq!(get("/no/such/path").await, 404);
        assert_eq!(post(server, "/whep/nobody", VIEW).await.status(), 409);
    }
    for _ in 0..4 {
        assert_eq!(post(server, "/whip/held", BODY).await.status(), 400);
    }
    let mut rows = Vec::new();
    for (method, path, status, count) in [
        ("GET", "/health", "200", 5.0),
        ("GET", "/api/media/sessions/:id", "404", 5.0),
        ("GET", "unmatched", "404", 3.0),
        ("POST", "/whep/{device}", "409", 3.0),
        ("POST", "/whip/{device}", "400", 4.0),
    ] {
        let labels = [("method", method), ("path", path), ("status", status)];
        let truth = format!("{count} of {method} {path}, {status}");
        rows.push(becomes(server, REQUESTS, &labels, count, &truth).await);
    }
    for (kind, operation, count) in [
        ("malformed_offer", "whip_create", 4.0),
        ("no_publisher", "whep_create", 3.0),
        ("not_found", "unmatched", 3.0),
        ("failed", "session_read", 5.0),
    ] {
        let labels = [("type", kind), ("operation", operation)];
        let truth = format!("{count} answers of {kind} to {operation}");
        rows.push(becomes(server, ERRORS, &labels, count, &truth).await);
    }
    rows
}

async fn sockets(server: &MediaServer) -> Vec<Row> {
    let url = format!("ws://{}/api/media/ws?userId=ann", server.http);
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(connect_async(&url).await.expect("it is let in").0);
    }
    let mut rows = vec![becomes(server, SOCKETS, &[], 4.0, "4 are opened").await];
    drop(open.split_off(1));
    rows.push(becomes(server, SOCKETS, &[], 1.0, "3 of them go away").await);
    let mut socket = open.pop().expect("one is left");
    // The first is as long as a bound.
    let sizes = [64, 65, 256, 1_000, 5_000, 20_000, 300_000];
    let said = sizes.map(|size| ("invalid", "x".repeat(size)));
    let join = (
        "signaling",
        r#"{"type":"join","sessionId":"none"}"#.to_owned(),
    );
    let touch = (
        "control",
        r#"{"type":"control","action":"touch"}"#.to_owned(),
    );
    let said: Vec<_> = said
        .into_iter()
        .chain([join.clone(), join, touch])
        .collect();
    // Each is answered with what is wrong with it.
    let mut heard = Vec::new();
    for (_, text) in &said {
        let text = Message::Text(text.clone().into());
        socket.send(text).await.expect("it is taken");
        let answer = tokio::time::timeout(PATIENCE, socket.next()).await;
        match answer.expect("an answer in time") {
            Some(Ok(Message::Text(text))) => heard.push(text.len()),
            other => panic!("{other:?}"),
        }
    }
    let of = |kind: &str| {
        let of_kind = said.iter().filter(|(other, _)| *other == kind);
        of_kind.map(|(_, text)| text.len()).collect::<Vec<_>>()
    };
    let mut inbound_and_outbound = Vec::new();
    for (kind, direction, lengths) in [
        ("invalid", "inbound", of("invalid")),
        ("signaling", "inbound", of("signaling")),
        ("control", "inbound", of("control")),
        ("signaling", "outbound", heard),
    ] {
        let labels = [("type", kind), ("direction", direction)];
        let count = lengths.len() as f64;
        let truth = format!("{count} {direction}, {kind}");
        rows.push(becomes(server, MESSAGES, &labels, count, &truth).await);
        inbound_and_outbound.push((kind, lengths));
    }
    for (kind, operation, count) in [
        ("invalid", "message", 7.0),
        ("unknown_session", "session_read", 2.0),
        ("unknown_session", "control", 1.0),
    ] {
        let labels = [("type", kind), ("operation", operation)];
        let truth = format!("{count} messages are told of {kind}, {operation}");
        rows.push(becomes(server, ERRORS, &labels, count, &truth).await);
    }
    let metrics = server.metrics().await;
    for kind in ["invalid", "signaling", "control"] {
        let of_kind = inbound_and_outbound
            .iter()
            .filter(|(other, _)| *other == kind);
        let lengths: Vec<usize> = of_kind.flat_map(|(_, lengths)| lengths.clone()).collect();
        let labels = [("type", kind)];
        let read = metrics.value(&format!("{SIZES}_sum"), &labels);
        let truth = format!("bytes of {} of {kind}, both ways", lengths.len());
        rows.push(Row::exact(
            SIZES,
            truth,
            lengths.iter().sum::<usize>() as f64,
            read,
        ));
        let bounds = (0..8).map(|power| 64 << (2 * power)).chain([usize::MAX]);
        let fit = |bound| lengths.iter().filter(|length| **length <= bound).count();
        let expected: usize = bounds.map(fit).sum();
        let read = metrics.sum(&format!("{SIZES}_bucket"), &labels);
        let truth = format!("buckets that they count in, {kind}");
        rows.push(Row::exact(SIZES, truth, expected as f64, Some(read)));
    }
    rows
}
