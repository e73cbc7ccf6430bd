//! Control messages: from a viewer to its device, what the device answers, and what the server answers in
//! its place.

use client::{Codec, Control, Http, HttpOptions, Options, PeerState, Publisher, Viewer};
use serde_json::{Value, json};
use tests::{Link, MediaServer, wait_for};
use tokio::time::timeout;

use crate::media::{
    PATIENCE, Watching, http, metric_becomes, publish, publish_with, shard_sessions, until_apart,
    watch_with,
};

const VP8: &[Codec] = &[Codec::Vp8];
const MESSAGES: &str = "media_control_messages_total";

fn with_control() -> Options {
    Options {
        control: true,
        ..Options::default()
    }
}

fn control_of(watching: &Watching) -> &Control {
    watching.viewer.control().expect("asked for")
}

async fn opened(control: Option<&Control>) -> &Control {
    let control = control.expect("asked for");
    let opened = timeout(PATIENCE, control.opened()).await;
    assert_eq!(opened, Ok(true), "the channel is accepted");
    control
}

async fn device(server: &MediaServer, name: &str) -> Publisher {
    let publisher = publish_with(server, name, VP8, &with_control()).await;
    opened(publisher.control()).await;
    publisher
}

async fn viewer(server: &MediaServer, name: &str) -> Watching {
    let watching = watch_with(server, name, VP8, &with_control()).await;
    opened(watching.viewer.control()).await;
    watching
}

async fn send(control: &Control, message: &Value) {
    control
        .send(&message.to_string())
        .await
        .unwrap_or_else(|error| panic!("{message} can't be sent: {error:?}"));
}

async fn next(control: &Control) -> Value {
    let message = timeout(PATIENCE, control.receive())
        .await
        .expect("a message in time")
        .expect("the channel is open");
    serde_json::from_str(&message).unwrap_or_else(|_| panic!("no JSON: {message}"))
}

fn tap(device: &str, id: u32) -> Value {
    json!({"type": "touch", "deviceId": device, "action": "tap", "x": 540.5, "y": 960, "id": id})
}

fn error(code: &str) -> Value {
    json!({"type": "error", "code": code})
}

/// The device gets what the viewer sends, and its answer reaches that viewer.
async fn asks_and_is_answered(viewer: &Control, device: &Control, id: u32) {
    send(viewer, &tap("cam-1", id)).await;
    let mut got = next(device).await;
    let number = got["viewer"].take();
    assert!(number.is_u64(), "{number}");
    let mut sent = tap("cam-1", id);
    sent["viewer"] = Value::Null;
    assert_eq!(got, sent);
    send(device, &json!({"type": "ack", "id": id, "viewer": number})).await;
    assert_eq!(next(viewer).await, json!({"type": "ack", "id": id}));
}

#[tokio::test]
async fn a_device_gets_what_its_viewers_send_and_each_gets_its_own_answer() {
    let server = MediaServer::open(&[]).await;
    let publisher = device(&server, "cam-1").await;
    let device = publisher.control().expect("a channel");
    let (first, second) = (
        viewer(&server, "cam-1").await,
        viewer(&server, "cam-1").await,
    );
    for id in 0..3 {
        asks_and_is_answered(control_of(&first), device, id).await;
        asks_and_is_answered(control_of(&second), device, 100 + id).await;
    }
    let key =
        r#"{"type":"key","deviceId":"cam-1","action":"press","keyCode":4.0,"timestamp":1.7e12}"#;
    let sent = control_of(&first).send_bytes(key.as_bytes()).await;
    sent.expect("bytes can be sent");
    let got = next(device).await;
    assert_eq!(got["keyCode"], json!(4), "{got}");
    assert_eq!(got["timestamp"], json!(1_700_000_000_000u64), "{got}");
    metric_becomes(&server, MESSAGES, &[("result", "forwarded")], 7.0).await;
    metric_becomes(&server, MESSAGES, &[("result", "answered")], 6.0).await;
}

#[tokio::test]
async fn messages_and_answers_cross_shards() {
    let server = MediaServer::open(&["--shards", "2"]).await;
    let first = device(&server, "cam-1").await;
    let watching = viewer(&server, "cam-1").await;
    shard_sessions(&server, 2.0).await;
    let publisher = until_apart(&server, 2.0, || device(&server, "cam-1")).await;
    first.over().await;
    let device = publisher.control().expect("a channel");
    let viewer = control_of(&watching);
    for id in 0..20 {
        asks_and_is_answered(viewer, device, id).await;
    }
    // A new device without a channel: the server's answer crosses too.
    let silent = publish(&server, "cam-1", VP8).await;
    publisher.over().await;
    send(viewer, &tap("cam-1", 1)).await;
    assert_eq!(next(viewer).await, error("no_publisher"));
    assert_eq!(silent.state(), PeerState::Connected);
}

#[tokio::test]
async fn what_is_wrong_is_answered_and_the_session_goes_on() {
    let server = MediaServer::open(&[]).await;
    let silent = publish(&server, "cam-1", VP8).await;
    let watching = viewer(&server, "cam-1").await;
    let viewer = control_of(&watching);
    send(viewer, &tap("cam-1", 0)).await;
    assert_eq!(next(viewer).await, error("no_publisher"));
    silent.close().await.expect("it can leave");

    let publisher = device(&server, "cam-1").await;
    let device = publisher.control().expect("a channel");
    let long = "x".repeat(16 * 1024 - 60);
    let long = json!({"type": "text", "deviceId": "cam-1", "text": long});
    for (message, code) in [
        ("junk".to_owned(), "bad_request"),
        ("{}".to_owned(), "bad_request"),
        (tap("cam-2", 0).to_string(), "forbidden"),
        // With the viewer's number it is longer than a message may be.
        (long.to_string(), "too_large"),
    ] {
        viewer.send(&message).await.expect("it can be sent");
        assert_eq!(next(viewer).await, error(code), "{message:.40}");
    }
    send(device, &json!({"type": "ack"})).await;
    assert_eq!(next(device).await, error("bad_request"), "for nobody");
    for (code, count) in [
        ("no_publisher", 1.0),
        ("bad_request", 3.0),
        ("forbidden", 1.0),
        ("too_large", 1.0),
    ] {
        metric_becomes(&server, MESSAGES, &[("result", code)], count).await;
    }
    asks_and_is_answered(viewer, device, 7).await;
    assert_eq!(watching.viewer.state(), PeerState::Connected);
}

#[tokio::test]
async fn more_than_two_hundred_messages_a_second_are_refused() {
    let server = MediaServer::open(&[]).await;
    let publisher = device(&server, "cam-1").await;
    let watching = viewer(&server, "cam-1").await;
    let (device, viewer) = (
        publisher.control().expect("a channel"),
        control_of(&watching),
    );
    // As many as must be too many however long it takes to send them, each answered in one way.
    let mut refused = 0;
    let (mut sent, mut forwarded) = (0, 0);
    while refused == 0 {
        assert!(sent < 100_000, "none was refused");
        for _ in 0..500 {
            send(viewer, &tap("cam-1", sent)).await;
            sent += 1;
        }
        while refused + forwarded < sent {
            tokio::select! {
                got = next(device) => {
                    assert_eq!(got["type"], "touch");
                    forwarded += 1;
                }
                answer = next(viewer) => {
                    assert_eq!(answer, error("rate_limited"));
                    refused += 1;
                }
            }
        }
    }
    assert!(forwarded >= 200, "{forwarded} of {sent}");
    asks_and_is_answered_in_time(viewer, device).await;
}

/// Once a second has passed it may speak again.
async fn asks_and_is_answered_in_time(viewer: &Control, device: &Control) {
    wait_for("the viewer to be heard again", PATIENCE, || async {
        send(viewer, &tap("cam-1", 0)).await;
        tokio::select! {
            _ = next(device) => Ok(()),
            answer = next(viewer) => Err(answer),
        }
    })
    .await;
}

#[tokio::test]
async fn a_device_that_is_out_of_reach_has_a_few_messages_waiting_and_no_more() {
    let server = MediaServer::open(&[]).await;
    let link = Link::start(server.media, 5);
    let options = Options {
        media_address: Some(link.address()),
        ..with_control()
    };
    let publisher = publish_with(&server, "cam-1", VP8, &options).await;
    let device = opened(publisher.control()).await;
    let watching = viewer(&server, "cam-1").await;
    let viewer = control_of(&watching);
    asks_and_is_answered(viewer, device, 0).await;
    link.set_dark(true);
    // 16 KiB are on their way, 64 messages wait, and the rest is refused.
    let text = "x".repeat(1_000);
    for id in 0..120 {
        let message = json!({"type": "text", "deviceId": "cam-1", "text": text, "id": id});
        send(viewer, &message).await;
    }
    for x in 0..10 {
        let finger = json!({"type": "touch", "deviceId": "cam-1", "action": "move", "x": x});
        send(viewer, &finger).await;
    }
    // The last texts that waited were followed by no move: each of those is refused as well.
    let waiting = 64;
    for _ in 0..40 {
        assert_eq!(next(viewer).await, error("busy"));
    }
    metric_becomes(&server, MESSAGES, &[("result", "rate_limited")], 0.0).await;
    link.set_dark(false);
    let mut ids = Vec::new();
    while ids.len() < waiting + 10 {
        let got = next(device).await;
        ids.push(got["id"].as_u64().unwrap_or_else(|| panic!("{got}")));
    }
    assert!(
        ids.iter().copied().eq(0..ids.len() as u64),
        "in order: {ids:?}"
    );
    assert_eq!(watching.viewer.state(), PeerState::Connected);
}

#[tokio::test]
async fn a_viewer_without_the_grant_is_refused_and_one_with_it_is_heard() {
    let server = MediaServer::closed(&[]).await;
    let http = |grants: &str| {
        let options = HttpOptions {
            token: Some(server.token("cam-1", grants)),
            ..HttpOptions::default()
        };
        Http::new(&options).expect("an HTTP client")
    };
    let url = server.url("/whip/cam-1");
    let publisher = Publisher::connect(&url, &http("publish"), &with_control(), VP8)
        .await
        .expect("the device can publish");
    let device = opened(publisher.control()).await;
    let url = server.url("/whep/cam-1");
    let connect = async |grants: &str| {
        wait_for("the viewer to be let in", PATIENCE, || async {
            Viewer::connect(&url, &http(grants), &with_control(), VP8, None).await
        })
        .await
    };
    let watches = connect("view").await;
    let control = opened(watches.control()).await;
    send(control, &tap("cam-1", 0)).await;
    assert_eq!(next(control).await, error("forbidden"));
    let controls = connect("view,control").await;
    let control = opened(controls.control()).await;
    asks_and_is_answered(control, device, 1).await;
    // Nothing of the first came to the device before.
    metric_becomes(&server, MESSAGES, &[("result", "forwarded")], 1.0).await;
    assert_eq!(watches.state(), PeerState::Connected);
}

#[tokio::test]
async fn the_device_hears_nothing_more_of_a_viewer_that_left() {
    let server = MediaServer::open(&[]).await;
    let publisher = device(&server, "cam-1").await;
    let device = publisher.control().expect("a channel");
    let watching = viewer(&server, "cam-1").await;
    send(control_of(&watching), &tap("cam-1", 0)).await;
    let number = next(device).await["viewer"].clone();
    watching.viewer.close().await.expect("it can leave");
    metric_becomes(&server, "media_active_sessions", &[], 1.0).await;
    let other = viewer(&server, "cam-1").await;
    send(device, &json!({"type": "ack", "viewer": number})).await;
    metric_becomes(&server, MESSAGES, &[("result", "undeliverable")], 1.0).await;
    asks_and_is_answered(control_of(&other), device, 1).await;
}

#[tokio::test]
async fn a_device_reaches_no_viewer_that_has_said_nothing() {
    let server = MediaServer::open(&[]).await;
    let publisher = device(&server, "cam-1").await;
    let device = publisher.control().expect("a channel");
    let silent = viewer(&server, "cam-1").await;
    let speaks = viewer(&server, "cam-1").await;
    send(control_of(&speaks), &tap("cam-1", 0)).await;
    let number = next(device).await["viewer"].as_u64().expect("a number");
    // Shard, place and generation of the one before: it has some number of these.
    let mut guesses = 0;
    for shard in 0..2 {
        for place in 0..4 {
            for generation in 0..8u64 {
                let guess = (generation << 20 | place) << 6 | shard;
                if guess != number {
                    guesses += 1;
                    send(device, &json!({"type": "stray", "viewer": guess})).await;
                }
            }
        }
    }
    let undeliverable = [("result", "undeliverable")];
    metric_becomes(&server, MESSAGES, &undeliverable, f64::from(guesses)).await;
    asks_and_is_answered(control_of(&silent), device, 1).await;
}

/// Memory of a process that stands in RAM, in KiB.
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let digits = line.and_then(|line| line.split_whitespace().nth(1));
    digits.and_then(|d| d.parse().ok()).expect("a number")
}

/// Viewers, one after the other: a server takes only so many a second.
async fn viewers(server: &MediaServer, count: usize, options: &Options) -> Vec<Viewer> {
    let url = server.url("/whep/cam-1");
    let mut all = Vec::new();
    for _ in 0..count {
        let viewer = wait_for("the viewer to be let in", PATIENCE, || async {
            Viewer::connect(&url, &http(), options, VP8, None).await
        })
        .await;
        if options.control {
            opened(viewer.control()).await;
        }
        all.push(viewer);
    }
    all
}

#[tokio::test]
async fn a_viewer_at_rest_with_a_channel_takes_less_than_32_kib_more() {
    const COUNT: usize = 20;
    let server = MediaServer::open(&[]).await;
    let publisher = device(&server, "cam-1").await;
    let warm = viewers(&server, 5, &with_control()).await;
    let before = resident_kib(server.pid());
    let without = viewers(&server, COUNT, &Options::default()).await;
    let between = resident_kib(server.pid());
    let with = viewers(&server, COUNT, &with_control()).await;
    let after = resident_kib(server.pid());
    let each = |from: u64, to: u64| to.saturating_sub(from) as f64 / COUNT as f64;
    let (plain, control) = (each(before, between), each(between, after));
    println!("KiB for each viewer: {plain:.1} without a channel, {control:.1} with one");
    assert!(control < plain + 32.0, "{control} KiB, {plain} without");
    metric_becomes(&server, "media_active_sessions", &[], 46.0).await;
    drop((publisher, warm, without, with));
}
