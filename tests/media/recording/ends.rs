//! What becomes of recordings whose server is killed, and whose device sends nothing or is gone.

use std::time::{Duration, Instant};

use client::Codec;
use reqwest::Method;
use serde_json::{Value, json};
use tests::process::TempDir;
use tests::recordings::{ask, becomes, id, json_of, lasts, start, stop};
use tests::{MediaServer, ffmpeg, wait_for};

use super::sender::Sender;
use super::{recording_server, same_length};
use crate::media::{PATIENCE, metric_becomes, publish};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_leaves_an_mp4_too_and_says_what_it_is() {
    let folder = TempDir::new("recordings");
    let path = folder.path().display().to_string();
    let args = ["--recording-dir", &path];
    let mut server = MediaServer::demo_with(&args).await;
    let recording = start(&server, "demo", json!({})).await;
    // The note is written each 5 s.
    lasts(&server, &recording, 6.0).await;
    server.process().signal("KILL");
    wait_for("the server to be gone", PATIENCE, || {
        let ended = server.process().ended();
        async move { ended.ok_or("still there") }
    })
    .await;
    let file = folder.path().join(format!("{}.mp4", id(&recording)));
    ffmpeg::decode(&file);
    let server = MediaServer::open(&args).await;
    let left = becomes(&server, &recording, "the recording to be found", |_| true).await;
    assert_eq!(
        (&left["state"], &left["format"], &left["width"]),
        (&json!("failed"), &json!("mp4"), &json!(1280)),
        "{left}"
    );
    assert!(left["durationSeconds"].as_f64() >= Some(3.0), "{left}");
    assert!(left["framesWritten"].as_u64() > Some(0), "{left}");
    let ended = left["stoppedAt"].as_str();
    assert!(ended > recording["startedAt"].as_str(), "{left}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_that_stands_still_is_recorded_until_the_end_or_its_device_leaves() {
    let (server, folder) = recording_server(&[]).await;
    let device = publish(&server, "cam-1", &[Codec::Vp8]).await;
    let pictures = ffmpeg::pictures(ffmpeg::VP8, 2);
    let sender = Sender::silent(&device, Codec::Vp8, pictures);
    let (still, left) = sender
        .while_sending(async {
            let still = start(&server, "cam-1", json!({})).await;
            let left = start(&server, "cam-1", json!({})).await;
            lasts(&server, &left, 1.0).await;
            (still, left)
        })
        .await;
    seconds(3).await;
    let still = stop(&server, &still).await;
    assert!(length(&still) >= 3.5, "{still}");
    let file = folder.path().join(format!("{}.webm", id(&still)));
    same_length(&ffmpeg::probe(&file), &still);
    device.close().await.expect("it was connected");
    metric_becomes(&server, "media_sessions", &[], 0.0).await;
    let there = becomes(&server, &left, "it to be there", |_| true).await;
    seconds(2).await;
    let left = stop(&server, &left).await;
    assert!(length(&left) >= 3.5, "{left}");
    assert!(length(&left) <= length(&there) + 0.5, "{left}, {there}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_that_stands_still_outlives_the_server_however_it_ends() {
    for (codec, format, signal) in [
        (Codec::Vp8, "webm", "KILL"),
        (Codec::H264, "mp4", "KILL"),
        (Codec::H264, "mp4", "INT"),
    ] {
        let folder = TempDir::new("recordings");
        let path = folder.path().display().to_string();
        let args = ["--recording-dir", &path];
        let mut server = MediaServer::open(&args).await;
        let device = publish(&server, "cam-1", &[codec]).await;
        let pictures = match codec {
            Codec::H264 => ffmpeg::h264(2),
            _ => ffmpeg::pictures(ffmpeg::VP8, 2),
        };
        let sender = Sender::silent(&device, codec, pictures);
        let first = sender
            .while_sending(async {
                let first = start(&server, "cam-1", json!({})).await;
                lasts(&server, &first, 1.0).await;
                first
            })
            .await;
        stop(&server, &first).await;
        // All that it has is from before it was begun.
        let recording = start(&server, "cam-1", json!({})).await;
        lasts(&server, &recording, 4.0).await;
        server.process().signal(signal);
        wait_for("the server to be gone", PATIENCE, || {
            let ended = server.process().ended();
            async move { ended.ok_or("still there") }
        })
        .await;
        let file = folder.path().join(format!("{}.{format}", id(&recording)));
        let pictures = ffmpeg::packets(&file).len();
        assert!(pictures > 0, "{format}, {signal}");
        ffmpeg::decode(&file);
        let server = MediaServer::open(&args).await;
        let left = becomes(&server, &recording, "the recording to be found", |_| true).await;
        if signal == "INT" {
            assert_eq!(left["state"], "completed", "{left}");
            assert!(length(&left) >= 4.0, "{left}");
            same_length(&ffmpeg::probe(&file), &left);
        } else {
            assert_eq!(left["state"], "failed", "{left}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_with_a_file_whose_note_is_gone_does_not_keep_the_server_from_starting() {
    let folder = TempDir::new("recordings");
    let path = folder.path().display().to_string();
    let file = format!("{path}/00000000-0000-8000-8000-000000000000.webm");
    // No room is left for a note.
    let full = format!(
        "mount -t tmpfs -o size=1m none {path} && touch {file} && ! dd if=/dev/zero of={path}/rest bs=4096"
    );
    let mount = format!(
        "exec unshare --user --map-root-user --mount sh -c '{full} && exec \"$0\" \"$@\"' \"$0\" \"$@\""
    );
    let server = MediaServer::after(&mount, &["--recording-dir", &path]).await;
    let deleted = ask(&server, Method::POST, "/cleanup?days=1", None).await;
    assert_eq!(json_of(deleted, 200).await["deleted"], 0);
}

/// Waits so long, where it is time itself that matters.
async fn seconds(seconds: u64) {
    let end = Instant::now() + Duration::from_secs(seconds);
    wait_for("time to pass", PATIENCE, || async {
        let left = end.checked_duration_since(Instant::now());
        left.map_or(Ok(()), |left| Err(format!("{left:?}")))
    })
    .await;
}

fn length(recording: &Value) -> f64 {
    recording["durationSeconds"].as_f64().expect("a number")
}
