//! Recordings of real pictures and sound: what FFmpeg says of the files, and what becomes of them when
//! the disk, the device or the server ends.

mod ends;
mod long;
mod sender;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use client::Codec;
use reqwest::{Client, Method, Response};
use sender::Sender;
use serde_json::{Value, json};
use tests::process::TempDir;
use tests::recordings::{ask, becomes, id, json_of, lasts, request, session, start, stop};
use tests::{MediaServer, ffmpeg, wait_for};

use crate::media::{PATIENCE, metric_becomes, publish, watch};
use crate::simulcast;

/// Half a second: what may be lost at the start and the end of a recording of a device that sends.
const EDGE: f64 = 0.5;

/// Downloads a recording into the folder.
async fn fetch(server: &MediaServer, recording: &Value, folder: &Path) -> PathBuf {
    let answer = ask(
        server,
        Method::GET,
        &format!("/{}/download", id(recording)),
        None,
    )
    .await;
    assert_eq!(answer.status(), 200);
    let path = folder.join("downloaded");
    let bytes = answer.bytes().await.expect("a whole body");
    std::fs::write(&path, bytes).expect("room");
    path
}

/// A server that records into a folder of its own.
async fn recording_server(args: &[&str]) -> (MediaServer, TempDir) {
    let folder = TempDir::new("recordings");
    let path = folder.path().display().to_string();
    let server = MediaServer::open(&[&["--recording-dir", &path], args].concat()).await;
    (server, folder)
}

/// ffprobe and the server agree on the length within 100 ms.
fn same_length(probed: &Value, recording: &Value) {
    let told = recording["durationSeconds"].as_f64().expect("a number");
    let found = ffmpeg::seconds(probed).unwrap_or_else(|| panic!("no length in {probed}"));
    assert!((told - found).abs() <= 0.1, "{told} s, ffprobe: {found} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn vp9_and_av1_are_recorded_too_and_av1_in_both_formats() {
    let (server, folder) = recording_server(&[]).await;
    for (codec, encoder, format) in [
        (Codec::Vp9, ffmpeg::VP9, "webm"),
        (Codec::Av1, ffmpeg::AV1, "webm"),
        (Codec::Av1, ffmpeg::AV1, "mp4"),
        (Codec::Av1, ffmpeg::AV1_10_BITS, "webm"),
        (Codec::Av1, ffmpeg::AV1_10_BITS, "mp4"),
    ] {
        let deep = encoder == ffmpeg::AV1_10_BITS;
        let name = format!("cam-{codec}-{format}-{deep}");
        let device = publish(&server, &name, &[codec]).await;
        let sender = Sender::silent(&device, codec, ffmpeg::pictures(encoder, 3));
        let stopped = sender
            .while_sending(async {
                let recording = start(&server, &name, json!({"format": format})).await;
                lasts(&server, &recording, 1.6).await;
                stop(&server, &recording).await
            })
            .await;
        let file = folder.path().join(format!("{}.{format}", id(&stopped)));
        let probed = ffmpeg::probe(&file);
        assert_eq!(probed["streams"][0]["width"], 320, "{probed}");
        same_length(&probed, &stopped);
        ffmpeg::decode(&file);
        if codec == Codec::Av1 {
            // The record of its configuration: version 1, profile 0, and how deep it is (AV1-ISOBMFF §2.3.3).
            let bytes = std::fs::read(&file).expect("it is there");
            let mut four = bytes.windows(4);
            let record = four.find(|four| four[0] == 0x81 && four[1] >> 5 == 0 && four[3] == 0);
            let record = record.expect("a record");
            assert_eq!(record[2] & 0x40 != 0, deep, "{format}: {record:02x?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_format_that_does_not_hold_the_devices_codec_is_refused() {
    let (server, folder) = recording_server(&[]).await;
    let device = publish(&server, "cam-1", &[Codec::Vp8, Codec::Opus]).await;
    let sender = Sender::new(&device, Codec::Vp8, 2);
    sender
        .while_sending(async {
            let session = session(&server, "cam-1").await;
            let body = |more| Some(request(&session, "cam-1", more));
            // The server knows the codec once a picture came.
            let first = start(&server, "cam-1", json!({})).await;
            lasts(&server, &first, 0.1).await;
            for (more, says) in [
                (
                    json!({"format": "mp4"}),
                    "the device sends VP8, which mp4 does not hold",
                ),
                (json!({"codec": "H264"}), "the device sends VP8, not H264"),
                (json!({"codec": "MPEG2"}), "unsupported codec: MPEG2"),
            ] {
                let refused = json_of(ask(&server, Method::POST, "", body(more)).await, 500).await;
                assert_eq!(refused["error"], "recording_start_failed", "{refused}");
                assert!(
                    refused["message"]
                        .as_str()
                        .unwrap_or_default()
                        .contains(says),
                    "{refused}"
                );
            }
            let refused = json_of(
                ask(&server, Method::POST, "", body(json!({"format": "avi"}))).await,
                400,
            )
            .await;
            assert_eq!(refused["error"], "invalid_request", "{refused}");
            stop(&server, &first).await;
        })
        .await;
    let files = std::fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(
        files, 2,
        "one recording and its note: what was refused left nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_leaves_a_file_that_plays_and_the_next_one_finds_it() {
    let folder = TempDir::new("recordings");
    let path = folder.path().display().to_string();
    let args = ["--recording-dir", &path];
    let server = MediaServer::open(&args).await;
    let device = publish(&server, "cam-1", &[Codec::Vp8, Codec::Opus]).await;
    let sender = Sender::new(&device, Codec::Vp8, 8);
    let mut server = server;
    let (recording, lasted) = sender
        .while_sending(async {
            let recording = start(&server, "cam-1", json!({})).await;
            let now = lasts(&server, &recording, 5.0).await;
            server.process().signal("KILL");
            (
                recording,
                now["durationSeconds"].as_f64().expect("a number"),
            )
        })
        .await;
    wait_for("the server to be gone", PATIENCE, || {
        let ended = server.process().ended();
        async move { ended.ok_or("still there") }
    })
    .await;
    let file = folder.path().join(format!("{}.webm", id(&recording)));
    ffmpeg::decode(&file);
    let last = ffmpeg::packets(&file).last().expect("packets").seconds;
    assert!(last >= lasted - 2.5, "{last} s of {lasted} s");

    let server = MediaServer::open(&args).await;
    let left = becomes(&server, &recording, "the recording to be found", |_| true).await;
    assert_eq!(left["state"], "failed", "{left}");
    assert!(
        left["reason"]
            .as_str()
            .unwrap_or_default()
            .contains("without notice"),
        "{left}"
    );
    let again = fetch(&server, &recording, folder.path()).await;
    assert_eq!(
        std::fs::read(again).expect("it is there"),
        std::fs::read(&file).expect("it is there")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_ends_the_recording_and_nothing_else() {
    let folder = TempDir::new("recordings");
    let path = folder.path().display().to_string();
    // A file system of its own, that nobody else sees.
    let mount = format!(
        "exec unshare --user --map-root-user --mount sh -c 'mount -t tmpfs -o size=2m none {path} && exec \"$0\" \"$@\"' \"$0\" \"$@\""
    );
    let server = MediaServer::after(&mount, &["--recording-dir", &path]).await;
    let device = publish(&server, "cam-1", &[Codec::Vp8, Codec::Opus]).await;
    let viewer = watch(&server, "cam-1", &[Codec::Vp8, Codec::Opus]).await;
    let sender = Sender::silent(&device, Codec::Vp8, sender::noise(30_000));
    sender
        .while_sending(async {
            let recording = start(&server, "cam-1", json!({})).await;
            let failed = becomes(&server, &recording, "the disk to be full", |now| {
                now["state"] != "recording"
            })
            .await;
            assert_eq!(failed["state"], "failed", "{failed}");
            assert_eq!(failed["reason"], "the disk is full");
            metric_becomes(
                &server,
                "media_recordings_total",
                &[("result", "failed")],
                1.0,
            )
            .await;
            // What was written before is whole.
            let kept = TempDir::new("kept");
            let file = fetch(&server, &recording, kept.path()).await;
            let packets = ffmpeg::packets(&file).len();
            assert!(packets > 0);
            let seen = viewer.record.len();
            wait_for("the viewer to go on", PATIENCE, || async {
                let more = viewer.record.len() - seen;
                if more > 500 { Ok(()) } else { Err(more) }
            })
            .await;
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_ends_by_itself_when_it_is_as_long_as_asked_or_as_the_server_allows() {
    let (server, folder) = recording_server(&["--recording-max-seconds", "3"]).await;
    let device = publish(&server, "cam-1", &[Codec::Vp8, Codec::Opus]).await;
    let sender = Sender::new(&device, Codec::Vp8, 8);
    sender
        .while_sending(async {
            let short = start(&server, "cam-1", json!({"maxDuration": 2})).await;
            let long = start(&server, "cam-1", json!({"maxDuration": 0})).await;
            for (recording, seconds) in [(short, 2.0), (long, 3.0)] {
                let done = becomes(&server, &recording, "it to end", |now| {
                    now["state"] != "recording"
                })
                .await;
                assert_eq!(done["state"], "completed", "{done}");
                assert_eq!(done["reason"], "it was as long as it may be");
                let file = folder.path().join(format!("{}.webm", id(&recording)));
                let probed = ffmpeg::probe(&file);
                same_length(&probed, &done);
                let found = ffmpeg::seconds(&probed).expect("a length");
                assert!((found - seconds).abs() <= 0.1, "{found} s of {seconds} s");
            }
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_that_is_used_up_ends_a_recording_and_refuses_the_next() {
    let (server, folder) = recording_server(&["--recording-size-limit", "500Ki"]).await;
    let device = publish(&server, "cam-1", &[Codec::Vp8, Codec::Opus]).await;
    let sender = Sender::silent(&device, Codec::Vp8, sender::noise(30_000));
    sender
        .while_sending(async {
            let recording = start(&server, "cam-1", json!({})).await;
            let failed = becomes(&server, &recording, "the quota", |now| {
                now["state"] != "recording"
            })
            .await;
            assert_eq!(
                failed["reason"], "recordings take as much as they may",
                "{failed}"
            );
            // With the fragment that reached it, and the end of the file.
            let size = failed["fileSize"].as_u64().expect("a number");
            assert!((500 * 1024..4_000_000).contains(&size), "{failed}");
            let path = folder.path().join(format!("{}.webm", id(&recording)));
            same_length(&ffmpeg::probe(&path), &failed);
            let session = session(&server, "cam-1").await;
            let next = Some(request(&session, "cam-1", json!({})));
            let refused = json_of(ask(&server, Method::POST, "", next).await, 500).await;
            let says = refused["message"].as_str().unwrap_or_default();
            assert!(says.contains(" 512000 bytes; delete some"), "{refused}");
            // The one that ended early, and the one that never began.
            let failed = [("result", "failed")];
            metric_becomes(&server, "media_recordings_total", &failed, 2.0).await;
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_goes_on_where_it_was_cut_and_starts_anew_if_the_file_changed() {
    let (server, folder) = recording_server(&[]).await;
    let device = publish(&server, "cam-1", &[Codec::Vp8, Codec::Opus]).await;
    let sender = Sender::new(&device, Codec::Vp8, 4);
    let stopped = sender
        .while_sending(async {
            let recording = start(&server, "cam-1", json!({})).await;
            lasts(&server, &recording, 1.5).await;
            stop(&server, &recording).await
        })
        .await;
    let url = stopped["downloadUrl"].as_str().expect("an address");
    assert_eq!(
        url,
        format!("/api/media/recordings/{}/download", id(&stopped))
    );
    let whole =
        std::fs::read(folder.path().join(format!("{}.webm", id(&stopped)))).expect("it is there");
    let get = |headers: &[(&str, String)]| {
        let mut request = Client::new().get(server.url(url));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        async move { request.send().await.expect("an answer") }
    };
    let first = get(&[]).await;
    let header = |response: &Response, name: &str| {
        response.headers()[name].to_str().expect("text").to_owned()
    };
    assert_eq!(header(&first, "content-type"), "video/webm");
    let name = header(&first, "content-disposition");
    let began = stopped["startedAt"]
        .as_str()
        .expect("a time")
        .replace(['-', ':', 'Z'], "")
        .replace('T', "_");
    assert_eq!(
        name,
        format!(
            "attachment; filename=cam-1_{began}_{}.webm",
            &id(&stopped)[..8]
        )
    );
    let etag = header(&first, "etag");
    assert_eq!(first.bytes().await.expect("a body"), whole);
    let cut = whole.len() / 3;
    let rest = get(&[
        ("range", format!("bytes={cut}-")),
        ("if-range", etag.clone()),
    ])
    .await;
    assert_eq!(rest.status(), 206);
    assert_eq!(
        header(&rest, "content-range"),
        format!("bytes {cut}-{}/{}", whole.len() - 1, whole.len())
    );
    assert_eq!(rest.bytes().await.expect("a body"), whole[cut..]);
    let changed = get(&[
        ("range", format!("bytes={cut}-")),
        ("if-range", "\"other\"".to_owned()),
    ])
    .await;
    assert_eq!(changed.status(), 200, "from the start");
    let beyond = get(&[("range", format!("bytes={}-", whole.len()))]).await;
    assert_eq!(beyond.status(), 416);
    assert_eq!(
        header(&beyond, "content-range"),
        format!("bytes */{}", whole.len())
    );
    for tag in [etag.clone(), format!("W/{etag}")] {
        assert_eq!(get(&[("if-none-match", tag)]).await.status(), 304);
    }
    let head = Client::new()
        .head(server.url(url))
        .header("range", "bytes=9-");
    let head = head.send().await.expect("an answer");
    assert_eq!(head.status(), 200, "a range is of GET alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recording_goes_on_in_one_file_when_the_device_comes_back() {
    let (server, folder) = recording_server(&["--shards", "2"]).await;
    let device = publish(&server, "cam-1", &[Codec::Vp8, Codec::Opus]).await;
    let sender = Sender::new(&device, Codec::Vp8, 6);
    let (recording, first) = sender
        .while_sending(async {
            let recording = start(&server, "cam-1", json!({})).await;
            let now = lasts(&server, &recording, 2.0).await;
            (
                recording,
                now["durationSeconds"].as_f64().expect("a number"),
            )
        })
        .await;
    // From another port, so on either of the shards.
    let again = publish(&server, "cam-1", &[Codec::Vp8, Codec::Opus]).await;
    let sender = Sender::new(&again, Codec::Vp8, 6);
    let stopped = sender
        .while_sending(async {
            lasts(&server, &recording, first + 3.0).await;
            stop(&server, &recording).await
        })
        .await;
    let file = folder.path().join(format!("{}.webm", id(&recording)));
    same_length(&ffmpeg::probe(&file), &stopped);
    ffmpeg::decode(&file);
    let packets = ffmpeg::packets(&file);
    assert!(
        packets.is_sorted_by(|a, b| a.seconds <= b.seconds),
        "in the order of time"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_layers_the_best_is_recorded() {
    let (server, _folder) = recording_server(&[]).await;
    let _device = simulcast::Device::start(&server, "cam-1").await;
    let recording = start(&server, "cam-1", json!({})).await;
    lasts(&server, &recording, 2.5).await;
    let stopped = stop(&server, &recording).await;
    let size = (&stopped["width"], &stopped["height"]);
    assert_eq!(size, (&json!(1280), &json!(720)), "{stopped}");
    let rate = stopped["frameRate"].as_f64().expect("a number");
    // 50 a second of one layer, where the machine keeps up, and not those of all three.
    assert!((10.0..=55.0).contains(&rate), "{stopped}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_told_to_end_completes_its_recordings() {
    let (mut server, folder) = recording_server(&[]).await;
    let device = publish(&server, "cam-1", &[Codec::Vp8, Codec::Opus]).await;
    let sender = Sender::new(&device, Codec::Vp8, 6);
    let recording = sender
        .while_sending(async {
            let recording = start(&server, "cam-1", json!({})).await;
            lasts(&server, &recording, 2.5).await;
            recording
        })
        .await;
    // At once, and not after the drain's half minute.
    server.process().signal("INT");
    let ended = wait_for("the server to end", PATIENCE, || {
        let ended = server.process().ended();
        async move { ended.ok_or("still there") }
    })
    .await;
    assert_eq!(ended.code(), Some(0));
    let file = folder.path().join(format!("{}.webm", id(&recording)));
    let probed = ffmpeg::probe(&file);
    assert!(ffmpeg::seconds(&probed) >= Some(2.5 - EDGE), "{probed}");
    ffmpeg::decode(&file);
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_are_listed_counted_found_after_a_restart_and_deleted() {
    let folder = TempDir::new("recordings");
    let path = folder.path().display().to_string();
    let args = ["--recording-dir", &path];
    let server = MediaServer::open(&args).await;
    let device = publish(&server, "cam-1", &[Codec::Vp8, Codec::Opus]).await;
    let sender = Sender::new(&device, Codec::Vp8, 8);
    let (first, second) = sender
        .while_sending(async {
            let first = start(&server, "cam-1", json!({})).await;
            let second = start(&server, "cam-1", json!({})).await;
            lasts(&server, &second, 1.5).await;
            let all = json_of(ask(&server, Method::GET, "", None).await, 200).await;
            assert_eq!(all["total"], 2, "{all}");
            let stats = json_of(ask(&server, Method::GET, "/stats", None).await, 200).await;
            assert_eq!(stats["activeRecordings"], 2, "{stats}");
            (stop(&server, &first).await, stop(&server, &second).await)
        })
        .await;
    let all = json_of(ask(&server, Method::GET, "", None).await, 200).await;
    assert_eq!(all, json!({"recordings": [], "total": 0}));
    drop(server);

    let server = MediaServer::open(&args).await;
    let stats = json_of(ask(&server, Method::GET, "/stats", None).await, 200).await;
    assert_eq!(
        (&stats["totalRecordings"], &stats["activeRecordings"]),
        (&json!(2), &json!(0))
    );
    let seconds: f64 = [&first, &second]
        .iter()
        .map(|r| r["durationSeconds"].as_f64().expect("a number"))
        .sum();
    assert!(
        (stats["totalDurationSeconds"].as_f64().expect("a number") - seconds).abs() < 0.01,
        "{stats}"
    );
    let file = fetch(&server, &first, folder.path()).await;
    ffmpeg::decode(&file);
    std::fs::remove_file(&file).expect("it is ours");

    // One of them is of last week.
    let old = SystemTime::now() - Duration::from_secs(8 * 86_400);
    for ending in ["webm", "json"] {
        let path = folder.path().join(format!("{}.{ending}", id(&first)));
        let file = std::fs::File::options()
            .write(true)
            .open(path)
            .expect("it is there");
        file.set_modified(old).expect("it is ours");
    }
    for (path, deleted) in [
        ("/cleanup?days=30", 0),
        ("/cleanup", 1),
        ("/cleanup?days=7&days=1", 0),
    ] {
        let done = json_of(ask(&server, Method::POST, path, None).await, 200).await;
        assert_eq!(done["deleted"], deleted, "{path}");
    }
    let path = format!("/{}", id(&second));
    let done = json_of(ask(&server, Method::DELETE, &path, None).await, 200).await;
    assert_eq!(done, json!({"message": "recording deleted successfully"}));
    let gone = json_of(ask(&server, Method::DELETE, &path, None).await, 404).await;
    assert_eq!(gone["error"], "recording_not_found");
    assert_eq!(
        std::fs::read_dir(folder.path()).expect("a folder").count(),
        0
    );
}
