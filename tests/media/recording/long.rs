//! Recordings that last as long as they are told: a few seconds in the gate, ten minutes in `cargo xtask test --long`. Whether
//! they are as long as what was sent, and sound stays beside its picture.

use std::path::Path;
use std::time::Duration;

use client::Codec;
use serde_json::json;
use tests::process::TempDir;
use tests::recordings::{id, lasts, start, stop};
use tests::{MediaServer, ffmpeg};

use super::sender::{PICTURE, SOUND, Sender};
use super::{recording_server, same_length};
use crate::media::{metric_becomes, publish};

/// How long the longest recordings are: `RECORDING_SECONDS`, which `cargo xtask test --long` sets, or a few.
fn long() -> f64 {
    let seconds = std::env::var("RECORDING_SECONDS").ok();
    seconds
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(4.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn h264_becomes_an_mp4_that_ffmpeg_decodes_to_the_end() {
    let folder = TempDir::new("recordings");
    let path = folder.path().display().to_string();
    let server = MediaServer::demo_with(&["--recording-dir", &path]).await;
    metric_becomes(
        &server,
        "media_setup_total",
        &[("result", "connected")],
        1.0,
    )
    .await;
    let recording = start(&server, "demo", json!({})).await;
    assert_eq!(recording["state"], "recording", "{recording}");
    metric_becomes(&server, "media_recordings_active", &[], 1.0).await;
    lasts(&server, &recording, long()).await;
    let stopped = stop(&server, &recording).await;
    assert_eq!(
        (&stopped["width"], &stopped["height"]),
        (&json!(1280), &json!(720))
    );
    assert_eq!(stopped["format"], "mp4");
    let file = folder.path().join(format!("{}.mp4", id(&recording)));
    let probed = ffmpeg::probe(&file);
    let stream = &probed["streams"][0];
    assert_eq!(stream["codec_name"], "h264", "{probed}");
    assert_eq!(
        (&stream["width"], &stream["height"]),
        (&json!(1280), &json!(720))
    );
    same_length(&probed, &stopped);
    ffmpeg::decode(&file);
    let bytes = std::fs::read(&file).expect("it is there");
    let index = bytes.windows(4).rposition(|name| name == b"mfra");
    assert!(index.is_some(), "nothing says where its keyframes are");
    let metrics = server.metrics().await;
    let len = file.metadata().expect("it is there").len();
    assert_eq!(
        metrics.value("media_recording_bytes_total", &[]),
        Some(len as f64)
    );
    assert_eq!(
        metrics.sum("media_recordings_total", &[("result", "completed")]),
        1.0
    );
    assert_eq!(
        metrics.sum("media_recording_gaps_total", &[("cause", "overflow")]),
        0.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn vp8_and_opus_become_a_webm_with_every_frame_in_its_place_and_sound_beside_its_picture() {
    every_frame_has_its_place(Codec::Vp8, "webm", ["vp8", "opus"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h264_and_opus_become_an_mp4_with_every_frame_in_its_place_and_sound_beside_its_picture() {
    every_frame_has_its_place(Codec::H264, "mp4", ["h264", "opus"]).await;
}

async fn every_frame_has_its_place(codec: Codec, format: &str, codecs: [&str; 2]) {
    let (server, folder) = recording_server(&[]).await;
    let device = publish(&server, "cam-1", &[codec, Codec::Opus]).await;
    // Longer than a test of seconds waits for its start: which of a frame's twins it is, is clear.
    let sender = Sender::new(&device, codec, 20);
    let stopped = sender
        .while_sending(async {
            let recording = start(&server, "cam-1", json!({})).await;
            lasts(&server, &recording, long()).await;
            stop(&server, &recording).await
        })
        .await;
    let file = folder.path().join(format!("{}.{format}", id(&stopped)));
    let probed = ffmpeg::probe(&file);
    let found = [0, 1].map(|n| &probed["streams"][n]["codec_name"]);
    assert_eq!(found, codecs, "{probed}");
    same_length(&probed, &stopped);
    ffmpeg::decode(&file);
    let (video, audio) = placed(&file, &sender);
    let (pictures, sounds) = (video.len() as f64, audio.len() as f64);
    let seconds = long();
    assert!(
        pictures > seconds * 22.0 && sounds > seconds * 45.0,
        "{pictures} and {sounds}"
    );
    assert_eq!(stopped["framesWritten"], video.len());

    // Those from before the start all stand at its beginning.
    let live = |frame: &Placed| frame.found >= 0.1;
    let video: Vec<Placed> = video.into_iter().filter(live).collect();
    let ((a, b), (c, d)) = (shifts(&video), shifts(&audio));
    let apart = (b - c).max(d - a);
    let length = ffmpeg::seconds(&probed).expect("a length");
    let sent = sent_within(&video, PICTURE).max(sent_within(&audio, SOUND));
    println!(
        "{format}: {length:.3} s long, {:+.3} s beside what was sent; sound and picture at most {apart:.3} s apart",
        length - sent
    );
    assert!(
        apart <= 0.040,
        "video {a:.3} to {b:.3}, sound {c:.3} to {d:.3}"
    );
    assert!((length - sent).abs() <= 0.1, "{length} s of {sent} s");
}

/// When a frame of a file was sent, and when the file has it, in seconds.
struct Placed {
    sent: f64,
    found: f64,
}

/// All pictures and sounds of a file, each of which was sent.
fn placed(file: &Path, sender: &Sender) -> (Vec<Placed>, Vec<Placed>) {
    let packets = ffmpeg::packets(file);
    let placed = |kind: &str, sent: &[(u32, f64)]| -> Vec<Placed> {
        // Frames come again after a while, so the next one is looked for behind the last.
        let mut sent = sent.iter();
        let of = packets.iter().filter(|packet| packet.kind == kind);
        of.map(|packet| {
            let found = sent.find(|(hash, _)| *hash == packet.hash);
            let (_, at) = found.unwrap_or_else(|| panic!("{packet:?} was not sent, or before"));
            Placed {
                sent: *at,
                found: packet.seconds,
            }
        })
        .collect()
    };
    let sent = sender.sent();
    (
        placed("video", &sent.pictures),
        placed("audio", &sent.sounds),
    )
}

/// How much earlier or later than they were sent frames stand in a file: the least and the most.
fn shifts(frames: &[Placed]) -> (f64, f64) {
    let shifts = frames.iter().map(|frame| frame.found - frame.sent);
    shifts.fold(
        (f64::INFINITY, f64::NEG_INFINITY),
        |(least, most), shift| (least.min(shift), most.max(shift)),
    )
}

/// Seconds from the first of these frames to the end of the last, as they were sent.
fn sent_within(frames: &[Placed], frame: Duration) -> f64 {
    let [first, .., last] = frames else {
        panic!("no frames");
    };
    last.sent - first.sent + frame.as_secs_f64()
}
