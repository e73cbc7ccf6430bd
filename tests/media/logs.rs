//! Log lines: their form, what is never in them, and how much of them there is.

use std::cell::Cell;
use std::time::Instant;

use client::{Codec, Http, HttpOptions, Options, Publisher, Viewer};
use reqwest::Client;
use serde_json::{Value, json};
use tests::process::TempDir;
use tests::{Collector, MediaServer, wait_for};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::media::PATIENCE;

const VP8: &[Codec] = &[Codec::Vp8];

/// What the server has written until now and is so.
pub fn lines(server: &MediaServer, is: impl Fn(&Value) -> bool) -> Vec<Value> {
    let log = server.log();
    let read = |line: &str| -> Value {
        let value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        // A key that is there twice is one in a `Value`, and the second in the eyes of a log server.
        assert_eq!(length(&value), line.len(), "a key is there twice: {line}");
        value
    };
    log.lines().map(read).filter(is).collect()
}

/// Bytes that a line with these fields has.
fn length(value: &Value) -> usize {
    value.to_string().len()
}

/// Nothing that somebody could use is in a line or a span, at the level that tells most about requests.
#[tokio::test]
async fn no_secret_of_a_run_is_in_any_line_or_span() {
    let collector = Collector::start().await;
    let dir = TempDir::new("turn");
    let turn_secret = dir.path().join("secret");
    std::fs::write(&turn_secret, "a secret that coturn knows").expect("it can be written");
    let server = MediaServer::closed(&[
        "--log-level",
        "debug",
        "--otlp-endpoint",
        &collector.url(),
        "--trace-sample-percent",
        "100",
        "--turn-url",
        "turn:turn.example.com:3478",
        "--turn-secret-file",
        &turn_secret.display().to_string(),
    ])
    .await;
    let token = server.token("cam-1", "publish,view,control");
    let options = HttpOptions {
        token: Some(token.clone()),
        ..HttpOptions::default()
    };
    let http = Http::new(&options).expect("a client");
    let with_control = Options {
        control: true,
        ..Options::default()
    };
    let url = server.url("/whip/cam-1");
    let device = Publisher::connect(&url, &http, &with_control, VP8).await;
    let device = device.expect("it publishes");
    let url = server.url("/whep/cam-1");
    let mut viewer = wait_for("the viewer to be let in", PATIENCE, || async {
        Viewer::connect(&url, &http, &with_control, VP8, None).await
    })
    .await;
    let (orders, typed) = (
        viewer.control().expect("asked for"),
        "correct horse battery",
    );
    assert_eq!(timeout(PATIENCE, orders.opened()).await, Ok(true));
    let order = json!({"type": "text", "deviceId": "cam-1", "action": "", "text": typed});
    orders.send(&order.to_string()).await.expect("it is sent");
    let control = device.control().expect("asked for");
    let got = timeout(PATIENCE, control.receive()).await.expect("in time");
    assert!(got.expect("open").contains(typed));
    let first_answer = viewer.answer().to_owned();
    viewer.restart_ice().await.expect("the server takes it");
    let body = json!({"deviceId": "cam-1", "userId": "ann"}).to_string();
    let create = Client::new().post(server.url("/api/media/sessions"));
    let created = create.bearer_auth(&token).body(body).send().await;
    let created: Value = created.expect("an answer").json().await.expect("JSON");
    let offer = created["offer"]["sdp"].as_str().expect("an offer");
    let turn = created["iceServers"][0]["credential"]
        .as_str()
        .expect("a credential");
    // What only the client made: the server's own are in its answers.
    let made = "aNewPasswordOfTheClient1";
    let restart = Client::new().patch(viewer.resource().url.clone());
    let restart = restart
        .header("content-type", "application/trickle-ice-sdpfrag")
        .header("if-match", "*")
        .body(format!("a=ice-ufrag:NewU\r\na=ice-pwd:{made}\r\n"));
    let restarted = restart.bearer_auth(&token).send().await;
    assert_eq!(restarted.expect("an answer").status(), 200);
    let query = format!("/api/media/ws?userId=ann&token={token}");
    let plain = Client::new().get(server.url(&query)).send().await;
    assert_eq!(
        plain.expect("an answer").status(),
        400,
        "no upgrade is asked for"
    );
    device.close().await.expect("the device can leave");

    let mut secrets = vec![
        token.clone(),
        token.rsplit('.').next().expect("a signature").to_owned(),
        typed.to_owned(),
        turn.to_owned(),
        made.to_owned(),
        "a secret that coturn knows".to_owned(),
        "a key for tests".to_owned(),
        "a=ice-ufrag".to_owned(),
        "a=fingerprint".to_owned(),
    ];
    for sdp in [offer, &first_answer, viewer.answer()] {
        let of = |name| sdp.lines().find_map(|line| line.strip_prefix(name));
        secrets.push(of("a=ice-pwd:").expect("a password").to_owned());
    }
    let whep = |span: &tests::collector::Span| span.name == "webrtc.create_session";
    let spans = wait_for("the spans", PATIENCE, || async {
        let spans = collector.spans();
        match spans.iter().any(whep) {
            true => Ok(format!("{spans:?}")),
            false => Err(format!("{spans:#?}")),
        }
    })
    .await;
    let log = server.log();
    assert!(log.contains("request answered"), "debug is on: {log}");
    assert!(log.contains("ICE restarted"), "{log}");
    for secret in secrets {
        assert!(!log.contains(&secret), "{secret} in {log}");
        assert!(!spans.contains(&secret), "{secret} in {spans}");
    }
    for line in lines(&server, |_| true) {
        for field in ["ts", "level", "target", "msg"] {
            assert!(line[field].is_string(), "{field} of {line}");
        }
    }
    // A request's line leads to its trace.
    let answered = lines(&server, |line| line["path"] == "/whip/{device}");
    assert!(answered[0]["trace_id"].is_string(), "{answered:?}");
    let of_sessions = lines(&server, |line| {
        line["msg"]
            .as_str()
            .is_some_and(|msg| msg.starts_with("session "))
    });
    for line in of_sessions {
        for field in ["session_id", "device_id", "trace_id", "span_id"] {
            assert!(line[field].is_string(), "{field} of {line}");
        }
    }
}

/// Libraries write whatever they handle at `trace`, the broker's URL too.
#[tokio::test]
async fn at_the_level_that_tells_most_no_line_has_the_password_of_the_broker() {
    const PASSWORD: &str = "correct-horse-battery";
    let dir = TempDir::new("broker");
    let file = dir.path().join("url");
    // Nobody listens there.
    let url = format!("amqp://ann:{PASSWORD}@127.0.0.1:1/");
    std::fs::write(&file, url).expect("it can be written");
    let file = file.display().to_string();
    let server = MediaServer::open(&["--log-level", "trace", "--amqp-url-file", &file]).await;
    let body = json!({"deviceId": "cam-1", "userId": "ann"}).to_string();
    let create = Client::new().post(server.url("/api/media/sessions"));
    let created = create.body(body).send().await.expect("an answer");
    assert_eq!(created.status(), 200);
    wait_for("an event to be tried", PATIENCE, || async {
        match lines(&server, |line| line["sink"] == "amqp").len() {
            0 => Err(server.log()),
            some => Ok(some),
        }
    })
    .await;
    let log = server.log();
    assert!(log.contains("\"level\":\"DEBUG\""), "{log}");
    assert!(!log.contains(PASSWORD), "{log}");
}

#[tokio::test]
async fn the_log_level_follows_the_file_and_no_session_notices() {
    let dir = TempDir::new("config");
    let file = dir.path().join("config.toml");
    let says = |level: &str| {
        let text = format!("[auth]\nmode = \"none\"\n[log]\nlevel = \"{level}\"\n");
        std::fs::write(&file, text).expect("it can be written");
    };
    says("info");
    let server = MediaServer::with(&["--config", &file.display().to_string()]).await;
    let publisher = crate::media::publish(&server, "cam-1", VP8).await;
    let debug = |server: &MediaServer| lines(server, |line| line["level"] == "DEBUG").len();
    assert_eq!(debug(&server), 0);
    says("debug");
    wait_for("lines at debug", PATIENCE, || async {
        server.metrics().await;
        match debug(&server) {
            0 => Err(server.log()),
            some => Ok(some),
        }
    })
    .await;
    says("no such = level[");
    wait_for("what is wrong to be told", PATIENCE, || async {
        let wrong = "log level unreadable, the last one stays";
        match lines(&server, |line| line["msg"] == wrong).len() {
            0 => Err(server.log()),
            some => Ok(some),
        }
    })
    .await;
    let before = debug(&server);
    server.metrics().await;
    assert!(debug(&server) > before, "the last one stays");
    assert!(publisher.exists().await.expect("an answer"));
}

#[tokio::test]
async fn a_flood_of_requests_writes_no_flood_of_lines_and_counts_those_left_out() {
    const BURST: usize = 3000;
    let server = MediaServer::open(&["--log-level", "debug"]).await;
    let since = Instant::now();
    let sent = Cell::new(0);
    let left_out = wait_for("lines to be left out", PATIENCE, || async {
        requests(&server, BURST).await;
        sent.set(sent.get() + BURST);
        let metrics = server.metrics().await;
        match metrics.value("media_log_lines_suppressed_total", &[]) {
            Some(left_out) if left_out > 0.0 => Ok(left_out as usize),
            other => Err(format!("{other:?} of {}", sent.get())),
        }
    })
    .await;
    let seconds = since.elapsed().as_secs_f64();
    println!("{left_out} of {} requests in {seconds} s", sent.get());
    let answered = |line: &Value| line["msg"] == "request answered" && line["path"] == "/health";
    let written = lines(&server, answered).len();
    assert_eq!(written + left_out, sent.get(), "each is one or the other");
    let most = 2000.0 + 500.0 * (seconds + 1.0);
    assert!((written as f64) < most, "{written} lines in {seconds} s");
}

/// So many requests on one connection, none of which waits for the answer to the one before it.
async fn requests(server: &MediaServer, count: usize) {
    let head = "GET /health HTTP/1.1\r\nHost: x\r\n";
    let all = format!("{head}\r\n").repeat(count - 1) + head + "Connection: close\r\n\r\n";
    let stream = TcpStream::connect(server.http).await.expect("connects");
    let (mut reading, mut writing) = stream.into_split();
    let mut answers = String::new();
    let (written, read) = tokio::join!(
        writing.write_all(all.as_bytes()),
        reading.read_to_string(&mut answers),
    );
    written.and(read).expect("answered");
    assert_eq!(answers.matches("HTTP/1.1 200").count(), count);
}
