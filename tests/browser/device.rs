//! An RTSP camera through `media-device` and the server to the page, with nobody there to help.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, ensure};
use client::picture::{PictureEncoder, PictureOptions, TestPicture};
use tests::browser::Options;
use tests::camera::{Camera, Sound};
use tests::{Browser, MediaServer, Page, device, wait_for};

const SOON: Duration = Duration::from_secs(60);

/// Without a picture for longer, the stream was interrupted.
const LIVE: Duration = Duration::from_secs(1);
/// From the last picture of the server that is killed to the first of the next.
const BACK_WITHIN: Duration = Duration::from_secs(5);

/// Has the page keep the longest time between two pictures of its player, in whole milliseconds.
const LONGEST_GAP: &str = r"
const player = document.getElementById('player');
window.gap = 0;
let last = performance.now();
const shown = () => {
  const now = performance.now();
  gap = Math.max(gap, Math.round(now - last));
  last = now;
  player.requestVideoFrameCallback(shown);
};
player.requestVideoFrameCallback(shown);";

/// Two seconds of the test picture, with a keyframe each second: the NAL units of each frame.
fn pictures() -> Vec<Vec<Vec<u8>>> {
    let options = PictureOptions {
        title: "RTSP CAMERA".to_owned(),
        ..PictureOptions::default()
    };
    let mut picture = TestPicture::new(&options);
    let mut encoder = PictureEncoder::new(&options).expect("an encoder");
    let second = options.frames_per_second;
    let frames = (0..2 * second).map(|number| {
        let at = Duration::from_secs(u64::from(number)) / second;
        let canvas = picture.draw(UNIX_EPOCH + at);
        let frame = encoder
            .encode(canvas, at, number.is_multiple_of(second))
            .expect("a frame");
        let stream = frame.data.to_vec();
        // The encoder writes every start code with four bytes.
        let mut nals: Vec<Vec<u8>> = Vec::new();
        for (index, byte) in stream.iter().enumerate() {
            if stream[index..].starts_with(&[0, 0, 0, 1]) {
                nals.push(Vec::new());
            }
            if let Some(nal) = nals.last_mut() {
                nal.push(*byte);
            }
        }
        nals.into_iter().map(|nal| nal[4..].to_vec()).collect()
    });
    frames.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_plays_in_the_page_and_is_back_by_itself_when_the_server_was_killed() {
    let frames = pictures();
    let picture = move |number: u32| frames[number as usize % frames.len()].clone();
    let camera = Camera::start(Sound::Aac, picture).await;
    let server = MediaServer::open(&[]).await;
    let device = device::start(&server, &camera.url(), &[]);
    let browser = Browser::start(Options::default()).await;
    let page = Page::open(&browser, &server.url(""), None).await;
    page.watch(device::DEVICE, SOON).await;
    page.frames_grow_by(100, SOON).await;
    page.picture_changes(SOON).await;

    let gap = browser.run(LONGEST_GAP, vec![]).await;
    gap.expect("the player is there");
    let (http, media) = (server.http.to_string(), server.media.to_string());
    drop(server);
    let _server = MediaServer::open(&["--http-listen", &http, "--media-listen", &media]).await;
    let gap = wait_for("the picture to be back", SOON, || async {
        let gap = browser.run("return gap", vec![]).await?;
        let gap = Duration::from_millis(gap.as_u64().context("a number")?);
        ensure!(gap > LIVE, "{gap:?}: {}", device.log());
        anyhow::Ok(gap)
    })
    .await;
    println!("the picture was back after {gap:?}");
    assert!(gap < BACK_WITHIN, "{gap:?}: {}", device.log());
    page.picture_changes(SOON).await;
    browser.close().await;
}
