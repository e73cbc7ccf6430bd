//! Sessions, their states and their ends: the test opens and closes them, takes their network away, and sets the
//! clock on.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use client::{Options, Publisher};
use reqwest::Client;
use tests::link::{Direction, Fate, Kind};
use tests::process::TempDir;
use tests::truth::{Row, settle};
use tests::{Link, MediaServer, Metrics, wait_for};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{OFFER, Set, VP8, becomes, open, seconds, through};
use crate::device::session_id;
use crate::media::{PATIENCE, http, publish, publish_with, watch, watch_with};

const ACTIVE: &str = "media_active_sessions";
const CREATED: &str = "media_sessions_created_total";
const CLOSED: &str = "media_sessions_closed_total";
const DURATION: &str = "media_session_duration_seconds";
const STATE: &str = "media_ice_connection_state";

/// All that needs no more than minutes of the clock; then what half an hour does.
pub async fn rows(set: &Set) -> Vec<Row> {
    let mut rows = walk(set).await;
    rows.extend(counted(set).await);
    rows.extend(candidates(&set.server).await);
    rows.push(superseded(&set.server).await);
    rows.push(forged(&set.server).await);
    rows.push(orphaned(set).await);
    rows.push(never_connected(set).await);
    rows.push(inactive(set).await);
    rows
}

/// A row for a device whose one session ended for a reason.
async fn ended(server: &MediaServer, device: &str, reason: &str, truth: &str) -> Row {
    let labels = [("device_id", device), ("reason", reason)];
    becomes(server, CLOSED, &labels, 1.0, &format!("{reason}: {truth}")).await
}

/// The only session of the server goes through the states. What the link lets through decides.
async fn walk(set: &Set) -> Vec<Row> {
    let link = Link::start(set.server.media, 31);
    link.set_dark(true);
    let options = through(&link);
    let connecting = publish_with(&set.server, "walker", VP8, &options);
    let mut rows = Vec::new();
    let first_steps = async {
        rows.push(state(&set.server, "new", 0, "nothing comes through").await);
        link.drop_when(Direction::ToClient, |_| true);
        link.set_dark(false);
        rows.push(state(&set.server, "checking", 1, "checks do, no answer does").await);
        link.drop_when(Direction::ToClient, |_| false);
    };
    let (publisher, ()) = tokio::join!(connecting, first_steps);
    rows.push(state(&set.server, "connected", 2, "everything does").await);
    link.set_dark(true);
    set.clock.forward(seconds(16));
    rows.push(state(&set.server, "disconnected", 4, "nothing for 16 s").await);
    link.set_dark(false);
    rows.push(state(&set.server, "connected", 2, "everything again").await);
    link.set_dark(true);
    set.clock.forward(seconds(31));
    rows.push(state(&set.server, "failed", 5, "nothing for 31 s").await);
    let truth = "its network was away for 31 s";
    rows.push(ended(&set.server, "walker", "ice_failed", truth).await);
    rows.push(no_figures(&set.server, &session_id(publisher.resource())).await);
    publisher.abandon().await;
    let path = open(&set.server, "/whip/closer").await;
    delete(&set.server, &path).await;
    let session = path.rsplit('/').next().expect("an id");
    let labels = [("session_id", session), ("state", "closed")];
    rows.push(becomes(&set.server, STATE, &labels, 6.0, "closed: deleted").await);
    rows
}

/// A session that has ended receives nothing at so many frames a second.
async fn no_figures(server: &MediaServer, session: &str) -> Row {
    let metrics = server.metrics().await;
    let labels = [("session_id", session)];
    let series = metrics.matching("media_video_frame_rate", &labels).count();
    let truth = "series of a session that has failed";
    Row::exact("media_video_frame_rate", truth, 0.0, Some(series as f64))
}

/// One session has one series: its state, with that state's number.
async fn state(server: &MediaServer, name: &str, number: u32, truth: &str) -> Row {
    settle(PATIENCE, Duration::ZERO, async || {
        let metrics = server.metrics().await;
        let series: Vec<_> = metrics.matching(STATE, &[]).collect();
        let read = match series[..] {
            [one] if one.labels["state"] == name => Some(one.value),
            _ => None,
        };
        let truth = format!("{name}: {truth}");
        Row::exact(STATE, truth, f64::from(number), read)
    })
    .await
}

/// Four are opened; two of them are closed, and the others.
async fn counted(set: &Set) -> Vec<Row> {
    let server = &set.server;
    let publisher = publish(server, "counted", VP8).await;
    let mut viewers = Vec::new();
    for _ in 0..3 {
        viewers.push(watch(server, "counted", VP8).await);
    }
    let device = [("device_id", "counted")];
    let normal = [("device_id", "counted"), ("reason", "normal_close")];
    let mut rows = vec![
        becomes(server, ACTIVE, &[], 4.0, "4 are opened").await,
        becomes(server, CREATED, &device, 4.0, "4 are opened").await,
    ];
    for viewer in viewers.drain(..2) {
        viewer.viewer.close().await.expect("a viewer can leave");
    }
    rows.push(becomes(server, ACTIVE, &[], 2.0, "2 of them are closed").await);
    let truth = "normal_close: 2 are deleted";
    rows.push(becomes(server, CLOSED, &normal, 2.0, truth).await);
    for viewer in viewers {
        viewer.viewer.close().await.expect("a viewer can leave");
    }
    publisher.close().await.expect("the device can leave");
    rows.push(becomes(server, ACTIVE, &[], 0.0, "the others too").await);
    rows.push(becomes(server, CREATED, &device, 4.0, "and none is opened").await);
    rows
}

/// Those of the offer, and those of a fragment after it.
async fn candidates(server: &MediaServer) -> Vec<Row> {
    let family = "media_ice_candidates_added_total";
    let path = open(server, "/whip/candidates").await;
    let session = path.rsplit('/').next().expect("an id");
    let offered = OFFER.matches("a=candidate:").count();
    // They are there with the answer.
    let row = async |truth: &str, expected: usize| {
        let metrics = server.metrics().await;
        let read = metrics.value(family, &[("session_id", session)]);
        Row::exact(family, truth, expected as f64, read)
    };
    let mut rows = vec![row("those of the offer", offered).await];
    let credentials = OFFER.lines().filter(|line| line.starts_with("a=ice-"));
    let mut fragment: Vec<String> = credentials.take(2).map(str::to_owned).collect();
    fragment.push("m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0".to_owned());
    let trickled = (1..=3).map(|n| format!("a=candidate:{n} 1 udp 1 192.0.2.{n} 50632 typ host"));
    fragment.extend(trickled);
    let request = Client::new().patch(server.url(&path));
    let request = request.header("content-type", "application/trickle-ice-sdpfrag");
    let request = request.header("if-match", "*");
    let response = request.body(fragment.join("\r\n") + "\r\n").send().await;
    assert_eq!(response.expect("an answer").status(), 204);
    rows.push(row("and 3 that are trickled", offered + 3).await);
    delete(server, &path).await;
    rows
}

async fn superseded(server: &MediaServer) -> Row {
    let first = publish(server, "twice", VP8).await;
    let second = publish(server, "twice", VP8).await;
    let row = ended(server, "twice", "superseded", "its device publishes again").await;
    first.abandon().await;
    second.close().await.expect("the device can leave");
    row
}

/// A peer whose certificate is another than the offer says.
async fn forged(server: &MediaServer) -> Row {
    let forger = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = forger.local_addr().expect("it is bound");
    let server_at = server.http;
    let forging = tokio::spawn(forge(forger, server_at));
    let publishing = tokio::spawn(async move {
        let url = format!("http://{at}/whip/forged");
        Publisher::connect(&url, &http(), &Options::default(), VP8)
            .await
            .map(drop)
    });
    let truth = "another certificate than the offer's";
    let row = ended(server, "forged", "error_cleanup", truth).await;
    publishing.abort();
    forging.abort();
    row
}

/// Passes one request on, with other fingerprints in it.
async fn forge(listener: TcpListener, server: SocketAddr) -> io::Result<()> {
    const MARKER: &str = "a=fingerprint:sha-256 ";
    let (mut client, _) = listener.accept().await?;
    let mut upstream = TcpStream::connect(server).await?;
    let mut request = Vec::new();
    while !is_whole(&request) {
        if client.read_buf(&mut request).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let text = String::from_utf8_lossy(&request).into_owned();
    for (at, _) in text.match_indices(MARKER) {
        let digit = &mut request[at + MARKER.len()];
        *digit = if *digit == b'A' { b'B' } else { b'A' };
    }
    upstream.write_all(&request).await?;
    tokio::io::copy_bidirectional(&mut client, &mut upstream).await?;
    Ok(())
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head.split("content-length: ").nth(1);
    let length = length.and_then(|rest| rest.lines().next()?.parse().ok());
    length.is_some_and(|length: usize| body.len() >= length)
}

/// A viewer that is there, and whose device stays away for half a minute.
async fn orphaned(set: &Set) -> Row {
    let link = Link::start(set.server.media, 32);
    let publisher = publish(&set.server, "leaver", VP8).await;
    let viewer = watch_with(&set.server, "leaver", VP8, &through(&link)).await;
    publisher.close().await.expect("the device can leave");
    let normal = [("device_id", "leaver"), ("reason", "normal_close")];
    becomes(&set.server, CLOSED, &normal, 1.0, "").await;
    // In two steps, with a sign of life after the first: in one, its consent would be over too.
    set.clock.forward(seconds(16));
    let heard = || {
        let tally = link.tally(Direction::ToServer);
        tally.of(Kind::Stun, Fate::Delivered) + tally.of(Kind::Rtcp, Fate::Delivered)
    };
    let before = heard();
    wait_for("the viewer to show that it is there", PATIENCE, || async {
        match heard() {
            more if more > before => Ok(()),
            same => Err(same),
        }
    })
    .await;
    set.clock.forward(seconds(15));
    let truth = "its device is away for 31 s";
    let row = ended(&set.server, "leaver", "publisher_gone", truth).await;
    viewer.viewer.abandon().await;
    row
}

async fn never_connected(set: &Set) -> Row {
    open(&set.server, "/whip/late").await;
    set.clock.forward(seconds(16));
    ended(&set.server, "late", "setup_timeout", "no check for 16 s").await
}

/// A device that is there and sends nothing for half an hour.
async fn inactive(set: &Set) -> Row {
    let mut row = Row::exact(CLOSED, "", 1.0, None);
    // Its shard, if it wakes in the moment between the clock and the request, is the first to look, and finds a
    // peer that has not been heard of for half an hour.
    for attempt in 1..=5 {
        let device = format!("idle-{attempt}");
        let publisher = publish(&set.server, &device, VP8).await;
        let session = session_id(publisher.resource());
        wait_for("the server to have its keys", PATIENCE, || async {
            let metrics = set.server.metrics().await;
            let trip = metrics.value("media_rtt_milliseconds", &[("session_id", &*session)]);
            trip.ok_or("none")
        })
        .await;
        set.clock.forward(seconds(30 * 60 + 1));
        let closed = wait_for("the session to end", PATIENCE, || async {
            let metrics = set.server.metrics().await;
            match metrics.sum(CLOSED, &[("device_id", &*device)]) {
                1.0 => Ok(metrics),
                other => Err(other),
            }
        })
        .await;
        let labels = [("device_id", &*device), ("reason", "inactive_timeout")];
        let truth = "inactive_timeout: nothing is sent for 30 min";
        row = Row::exact(CLOSED, truth, 1.0, closed.value(CLOSED, &labels));
        publisher.abandon().await;
        if row.holds() {
            break;
        }
    }
    row
}

pub async fn limited() -> Row {
    let server = MediaServer::open(&["--max-session-seconds", "2"]).await;
    open(&server, "/whip/long").await;
    ended(&server, "long", "limit", "sessions may last 2 s").await
}

/// The last scrape of a server that is told to stop. Events that nobody takes hold its end up for some seconds.
pub async fn drained() -> Row {
    let dir = TempDir::new("webhook");
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "a secret").expect("the secret can be written");
    let mut server = MediaServer::open(&[
        "--webhook-url",
        "https://192.0.2.1/nobody",
        "--webhook-secret-file",
        &secret.display().to_string(),
    ])
    .await;
    open(&server, "/whip/last").await;
    server.process().signal("INT");
    let url = server.url("/metrics");
    let labels = [("device_id", "last"), ("reason", "drained")];
    let truth = "drained: the server is told to stop at once";
    settle(PATIENCE, Duration::ZERO, async || {
        let metrics = Metrics::fetch(&url).await.ok();
        let read = metrics.and_then(|metrics| metrics.value(CLOSED, &labels));
        Row::exact(CLOSED, truth, 1.0, read)
    })
    .await
}

/// A session for each bucket, which ends when the clock is set on by so much.
pub async fn durations(set: &Set) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut in_buckets = [0.0, 0.0];
    let bounds = [60, 300, 600, 1_800, 3_600, 7_200, u64::MAX];
    for lasts in [45, 200, 450, 1_200, 2_700, 5_400, 10_000] {
        let device = format!("for-{lasts}");
        let before = Instant::now();
        open(&set.server, &format!("/whip/{device}")).await;
        set.clock.forward(seconds(lasts));
        let labels = [("device_id", &*device)];
        let part =
            |metrics: &Metrics, part: &str| metrics.sum(&format!("{DURATION}{part}"), &labels);
        let ended = wait_for("the session to end", PATIENCE, || async {
            let metrics = set.server.metrics().await;
            match part(&metrics, "_count") {
                1.0 => Ok(metrics),
                other => Err(other),
            }
        })
        .await;
        // It ended between the clock's being set and now.
        let half = before.elapsed().as_secs_f64() / 2.0;
        let truth = format!("the clock is set on by {lasts} s");
        let sum = part(&ended, "_sum");
        rows.push(Row::new(
            DURATION,
            truth,
            lasts as f64 + half,
            half,
            Some(sum),
        ));
        in_buckets[0] += bounds.iter().filter(|bound| **bound >= lasts).count() as f64;
        in_buckets[1] += part(&ended, "_bucket");
    }
    let truth = "and each is in the buckets of its length and above";
    rows.push(Row::exact(
        DURATION,
        truth,
        in_buckets[0],
        Some(in_buckets[1]),
    ));
    rows
}

async fn delete(server: &MediaServer, path: &str) {
    let response = Client::new().delete(server.url(path)).send().await;
    assert_eq!(response.expect("an answer").status(), 200, "{path}");
}
