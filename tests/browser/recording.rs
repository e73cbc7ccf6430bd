//! Recordings in Chromium: what one published, another plays from the file.

use std::time::Duration;

use serde_json::{Value, json};
use tests::browser::Options;
use tests::page::Source;
use tests::process::TempDir;
use tests::recordings::{lasts, start, stop};
use tests::{Browser, MediaServer, Page, wait_for};

const SOON: Duration = Duration::from_secs(60);

/// Seeks to the middle and back to the start, then plays to the end.
const PLAY: &str = "const video = document.createElement('video');
    document.body.append(video);
    const seek = to => new Promise(done => {
        video.onseeked = () => done(video.currentTime);
        video.currentTime = to;
    });
    return new Promise((resolve, reject) => {
        video.onerror = () => reject(new Error(video.error.message));
        video.onloadedmetadata = async () => {
            const { duration, videoWidth: width } = video;
            const middle = await seek(duration / 2);
            await seek(0);
            video.onended = () => {
                const frames = video.getVideoPlaybackQuality().totalVideoFrames;
                const sound = video.webkitAudioDecodedByteCount;
                resolve({ duration, width, middle, end: video.currentTime, frames, sound });
            };
            await video.play();
        };
        video.src = arguments[0];
    });";

/// Plays a file from its download address.
async fn plays(browser: &Browser, server: &MediaServer, recording: &Value) -> Value {
    // A page of the server's own: others may not reach into a machine's own network.
    browser.open(&server.url("/health")).await;
    let url = recording["downloadUrl"].as_str().expect("an address");
    let played = browser.run(PLAY, vec![json!(server.url(url))]).await;
    let played = played.unwrap_or_else(|error| panic!("{recording}: {error}"));
    let figure = |name: &str| played[name].as_f64().unwrap_or(f64::NAN);
    let told = recording["durationSeconds"].as_f64().expect("a number");
    assert!(
        (figure("duration") - told).abs() <= 0.1,
        "{played}, {recording}"
    );
    assert!((figure("middle") - told / 2.0).abs() <= 0.1, "{played}");
    assert!((figure("end") - told).abs() <= 0.1, "{played}");
    let frames = recording["framesWritten"].as_f64().expect("a number");
    assert!(figure("frames") >= frames * 0.8, "{played}, {recording}");
    played
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_browser_published_another_plays_from_the_file() {
    let folder = TempDir::new("recordings");
    let path = folder.path().display().to_string();
    let server = MediaServer::open(&["--recording-dir", &path]).await;
    let (sender, receiver) = tokio::join!(
        Browser::start(Options::default()),
        Browser::start(Options::default())
    );
    let sending = Page::open(&sender, &server.url(""), None).await;
    sending.publish("cam-1", Source::Camera).await;
    sending.published(SOON).await;
    let recording = start(&server, "cam-1", json!({})).await;
    lasts(&server, &recording, 5.0).await;
    let stopped = stop(&server, &recording).await;
    let played = plays(&receiver, &server, &stopped).await;
    assert!(played["sound"].as_f64() > Some(0.0), "{played}");
    tokio::join!(sender.close(), receiver.close());
}

#[tokio::test(flavor = "multi_thread")]
async fn h264_plays_from_a_file_that_is_complete_and_from_one_that_never_was() {
    let folder = TempDir::new("recordings");
    let path = folder.path().display().to_string();
    let args = ["--recording-dir", &path];
    let mut server = MediaServer::demo_with(&args).await;
    let browser = Browser::start(Options::default()).await;
    let recording = start(&server, "demo", json!({})).await;
    lasts(&server, &recording, 4.0).await;
    let stopped = stop(&server, &recording).await;
    let played = plays(&browser, &server, &stopped).await;
    assert_eq!(played["width"], 1280, "{played}");

    let recording = start(&server, "demo", json!({})).await;
    lasts(&server, &recording, 5.0).await;
    server.process().signal("KILL");
    wait_for("the server to be gone", SOON, || {
        let ended = server.process().ended();
        async move { ended.ok_or("still there") }
    })
    .await;
    let server = MediaServer::open(&args).await;
    browser.open(&server.url("/health")).await;
    let url = format!(
        "/api/media/recordings/{}/download",
        tests::recordings::id(&recording)
    );
    let play = "const video = document.createElement('video');
        document.body.append(video);
        return new Promise((resolve, reject) => {
            video.onerror = () => reject(new Error(video.error.message));
            video.onended = () => resolve(video.currentTime);
            video.src = arguments[0];
            video.play();
        });";
    let end = browser.run(play, vec![json!(server.url(&url))]).await;
    let end = end.expect("it plays").as_f64();
    assert!(end >= Some(2.5), "{end:?}");
    browser.close().await;
}
