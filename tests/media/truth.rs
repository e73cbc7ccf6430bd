//! Every promised family beside a truth from outside, in one table: `cargo test --test media truth`.
//!
//! Each part has servers of its own and knows the right answer without them: it opened the sessions, chose what
//! the link does, counted what it sent, set the clock, or asked the kernel. Chromium's own figures are in
//! `tests/browser/figures.rs`.

mod process;
mod quality;
mod requests;
mod sessions;

use std::time::Duration;

use catalogue::families::PROMISED;
use client::{Codec, Options};
use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Client, Response};
use tests::truth::{Row, check, settle};
use tests::{Link, MediaServer, SetClock};

use crate::media::PATIENCE;

/// An offer to publish, as Chromium writes it. Nobody is behind it.
const OFFER: &str = include_str!("../../media-server/core/src/sdp/data/chromium-publish.sdp");
const VP8: &[Codec] = &[Codec::Vp8];

#[tokio::test(flavor = "multi_thread")]
async fn every_promised_family_says_what_was_done() {
    let set = Set::start().await;
    let tasks = process::tasks(&set).await;
    let (quality, requests, sessions, drained, limited) = tokio::join!(
        quality::rows(),
        requests::rows(),
        sessions::rows(&set),
        sessions::drained(),
        sessions::limited(),
    );
    // Alone: it keeps the machine busy, and sets the clock on by hours.
    let process = process::rows(&set).await;
    let durations = sessions::durations(&set).await;
    // That a leak is told needs one, and none is known: a unit test of the server makes it, and no row says so.
    let rest = vec![drained, limited, process::no_leak(&set).await];
    check(
        &PROMISED,
        &[tasks, quality, requests, sessions, process, durations, rest].concat(),
    );
}

/// A server whose clock is set.
struct Set {
    clock: SetClock,
    server: MediaServer,
}

impl Set {
    async fn start() -> Self {
        let clock = SetClock::start();
        let dir = tests::process::TempDir::new("config");
        let file = dir.path().join("config.toml");
        // Series of a session stay for two of these, on a clock that jumps.
        let text = "[metrics]\nscrape_interval_seconds = 3600\n";
        std::fs::write(&file, text).expect("the configuration can be written");
        let file = file.display().to_string();
        let server = MediaServer::after(&clock.script(), &["--config", &file]).await;
        Self { clock, server }
    }
}

fn through(link: &Link) -> Options {
    Options {
        media_address: Some(link.address()),
        ..Options::default()
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Asks for a session that never connects.
async fn post(server: &MediaServer, path: &str, offer: &str) -> Response {
    let request = Client::new().post(server.url(path));
    let request = request.header(CONTENT_TYPE, "application/sdp");
    request
        .body(offer.to_owned())
        .send()
        .await
        .expect("an answer")
}

/// The same, for one that is admitted. Returns its path.
async fn open(server: &MediaServer, path: &str) -> String {
    let response = post(server, path, OFFER).await;
    assert_eq!(response.status(), 201, "{path}");
    let location = response.headers().get(LOCATION).expect("a resource");
    location.to_str().expect("text").to_owned()
}

/// A row for a series that is as counted, sooner or later.
async fn becomes(
    server: &MediaServer,
    family: &'static str,
    labels: &[(&str, &str)],
    expected: f64,
    truth: &str,
) -> Row {
    settle(PATIENCE, Duration::ZERO, async || {
        let read = server.metrics().await.value(family, labels);
        Row::exact(family, truth, expected, read)
    })
    .await
}
