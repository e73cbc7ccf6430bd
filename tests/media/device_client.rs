//! `media-device` against the real server: what its source gives comes to viewers to the byte, what they ask
//! is carried out, and it comes back by itself.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use client::{Codec, Control, Options, Viewer};
use serde_json::{Value, json};
use tests::camera::{Camera, Sound};
use tests::process::{Process, TempDir};
use tests::{MediaServer, device, wait_for};
use tokio::time::timeout;

use crate::h264::{assert_in_order, numbers, picture, seen, stream};
use crate::media::{PATIENCE, Watching, http, metric_becomes, watch, watch_with};

const H264: &[Codec] = &[Codec::H264];

/// Pictures of the file: three seconds at the pace that tests have it.
const PICTURES: u32 = 90;

fn file(dir: &TempDir) -> String {
    let path = dir.path().join("video.h264");
    std::fs::write(&path, stream(0..PICTURES)).expect("the file can be written");
    path.display().to_string()
}

async fn ended(device: &mut Process) -> Option<i32> {
    let status = wait_for("the device to end", PATIENCE, || {
        let ended = device.ended();
        let log = device.log();
        async move { ended.ok_or(log) }
    })
    .await;
    status.code()
}

/// The device has deleted its session, and nobody else ended it.
async fn is_deleted(server: &MediaServer) {
    let path = ("path", "/whip/{device}/{session}");
    let deletes = [("method", "DELETE"), path, ("status", "200")];
    metric_becomes(server, "media_http_requests_total", &deletes, 1.0).await;
    let closed = [("reason", "normal_close")];
    metric_becomes(server, "media_sessions_closed_total", &closed, 1.0).await;
}

#[tokio::test]
async fn a_file_is_seen_to_the_byte_again_and_again_until_the_device_is_told_to_end() {
    let server = MediaServer::open(&[]).await;
    let dir = TempDir::new("video");
    let mut device = device::start(&server, &file(&dir), &["--loop", "--fps", "60"]);
    let watching = watch(&server, "cam-1", H264).await;
    let seen = seen(&watching, 2 * PICTURES as usize, || device.log()).await;
    assert_in_order(&seen, PICTURES);
    device.signal("TERM");
    assert_eq!(ended(&mut device).await, Some(0), "{}", device.log());
    is_deleted(&server).await;
}

#[tokio::test]
async fn standard_input_is_published_to_its_end_which_is_the_devices() {
    let server = MediaServer::open(&[]).await;
    let dir = TempDir::new("video");
    let device = device::command(&server, "-", &["--fps", "15"]);
    let mut shell = Command::new("sh");
    let script = format!("exec \"$0\" \"$@\" < {}", file(&dir));
    shell.args(["-c", &script]).arg(device.get_program());
    let mut device = Process::start("media-device", shell.args(device.get_args()));
    let watching = watch(&server, "cam-1", H264).await;
    assert_eq!(ended(&mut device).await, Some(0), "{}", device.log());
    is_deleted(&server).await;
    let seen = numbers(&watching.record.payloads(Codec::H264));
    assert_in_order(&seen, PICTURES);
    assert_eq!(seen.last(), Some(&(PICTURES - 1)), "to the last picture");
}

/// Makes a FIFO.
fn fifo(dir: &TempDir) -> String {
    let path = dir.path().join("pipe").display().to_string();
    let made = Command::new("mkfifo").arg(&path).status();
    assert!(made.expect("there is mkfifo").success());
    path
}

/// Opens it to write, once the device has opened it too.
async fn open(path: &str) -> File {
    let path = path.to_owned();
    let opening = tokio::task::spawn_blocking(move || File::create(path));
    let opened = opening.await.expect("it does not panic");
    opened.expect("it can be opened")
}

#[tokio::test]
async fn a_pipe_is_seen_up_to_its_newest_picture_and_goes_on_with_its_next_writer() {
    let server = MediaServer::open(&[]).await;
    let dir = TempDir::new("pipe");
    let path = fifo(&dir);
    let device = device::start(&server, &path, &[]);
    let mut pipe = open(&path).await;
    metric_becomes(&server, "media_active_sessions", &[], 1.0).await;
    let watching = watch(&server, "cam-1", H264).await;
    // Nothing follows the last of them: it is a screen where nothing moves any more.
    for number in 0..25 {
        pipe.write_all(&stream([number])).expect("the device reads");
    }
    let first = seen(&watching, 25, || device.log()).await;
    assert_eq!(first, Vec::from_iter(0..25));
    drop(pipe);

    // In pieces that end anywhere, as an encoder's might.
    let mut pipe = open(&path).await;
    for piece in stream(50..80).chunks(997) {
        pipe.write_all(piece).expect("the device reads");
    }
    let all = seen(&watching, 55, || device.log()).await;
    assert_eq!(all[25..], Vec::from_iter(50..80));
    metric_becomes(&server, "media_sessions_created_total", &[], 2.0).await;
}

#[tokio::test]
async fn input_that_can_not_be_sent_ends_the_device_with_a_code_and_the_reason() {
    let server = MediaServer::open(&[]).await;
    let dir = TempDir::new("bad");
    let path = dir.path().join("video.mp4");
    std::fs::write(&path, b"\0\0\0\x20ftypisom, and so on").expect("it can be written");
    let path = path.display().to_string();
    for (input, args, code, word) in [
        (&*path, &[][..], 3, "h264_mp4toannexb"),
        ("/nowhere.h264", &[], 3, "No such file"),
        ("/", &[], 3, "directory"),
        ("rtsps://127.0.0.1/x", &[], 2, "TLS"),
        (&*path, &["--token-file", "/nowhere"], 1, "token"),
    ] {
        let mut device = device::start(&server, input, args);
        assert_eq!(ended(&mut device).await, Some(code), "{input}");
        assert!(device.log().contains(word), "{input}: {}", device.log());
    }
}

async fn with_control(server: &MediaServer) -> Watching {
    let options = Options {
        control: true,
        ..Options::default()
    };
    let watching = watch_with(server, "cam-1", H264, &options).await;
    let opened = timeout(PATIENCE, control_of(&watching).opened()).await;
    assert_eq!(opened, Ok(true), "the channel is accepted");
    watching
}

fn control_of(watching: &Watching) -> &Control {
    watching.viewer.control().expect("asked for")
}

/// Sends until the device's channel is there, too, and returns what comes back.
async fn ask(watching: &Watching, message: &Value) -> Value {
    let control = control_of(watching);
    wait_for("the device to answer", PATIENCE, || async {
        control
            .send(&message.to_string())
            .await
            .expect("it is open");
        let answer = timeout(PATIENCE, control.receive()).await;
        let answer = answer.expect("in time").expect("the channel is open");
        let answer: Value = serde_json::from_str(&answer).expect("JSON");
        match answer["code"] == "no_publisher" {
            true => Err(answer),
            false => Ok(answer),
        }
    })
    .await
}

#[tokio::test]
async fn what_a_viewer_asks_is_written_down_and_answered() {
    let server = MediaServer::open(&[]).await;
    let dir = TempDir::new("video");
    let device = device::start(&server, &file(&dir), &["--loop", "--control", "log"]);
    let watching = with_control(&server).await;
    let tap = json!({"type": "touch", "deviceId": "cam-1", "action": "tap", "x": 540.4, "y": 960, "id": 1});
    assert_eq!(ask(&watching, &tap).await, json!({"type": "ack", "id": 1}));
    // Of what the server lets pass.
    let key =
        json!({"type": "key", "deviceId": "cam-1", "action": "press", "keyCode": 70_000, "id": 2});
    let refused = json!({"type": "error", "code": "bad_request", "id": 2});
    assert_eq!(ask(&watching, &key).await, refused);
    let lines = device.log();
    let actions: Vec<&str> = lines.lines().filter(|line| line.starts_with('{')).collect();
    let written = r#"{"type":"touch","action":"tap","x":540,"y":960}"#;
    assert_eq!(actions, [written]);
}

/// An adb that writes its arguments down, one a line, and fails at key 66.
const ADB: &str = r#"#!/bin/sh
printf '%s\n' "$@" . >> "$ADB_LOG"
case "$*" in *"keyevent 66") echo "error: device offline" >&2; exit 1;; esac
"#;

/// A folder with that program in it, and what it writes.
fn fake_adb(dir: &Path, command: &mut Command) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let adb = dir.join("adb");
    std::fs::write(&adb, ADB).expect("it can be written");
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&adb, executable).expect("it is ours");
    let path = std::env::var("PATH").unwrap_or_default();
    let log = dir.join("calls");
    command.env("PATH", format!("{}:{path}", dir.display()));
    command.env("ADB_LOG", &log);
    log
}

#[tokio::test]
async fn what_a_viewer_asks_goes_to_adb_word_by_word_and_its_failure_comes_back() {
    let server = MediaServer::open(&[]).await;
    let dir = TempDir::new("adb");
    let adb = [
        "--loop",
        "--control",
        "adb",
        "--adb-serial",
        "emulator-5554",
    ];
    let mut command = device::command(&server, &file(&dir), &adb);
    let calls = fake_adb(dir.path(), &mut command);
    let device = Process::start("media-device", &mut command);
    let watching = with_control(&server).await;
    let down = json!({"type": "touch", "deviceId": "cam-1", "action": "down", "x": 3, "id": 1});
    let text = json!({"type": "text", "deviceId": "cam-1", "text": "a b; reboot", "id": 2});
    let enter =
        json!({"type": "key", "deviceId": "cam-1", "action": "press", "keyCode": 66, "id": 3});
    let accents = json!({"type": "text", "deviceId": "cam-1", "text": "é", "id": 4});
    for (message, answer) in [
        (down, json!({"type": "ack", "id": 1})),
        (text, json!({"type": "ack", "id": 2})),
        (enter, json!({"type": "error", "code": "failed", "id": 3})),
        (
            accents,
            json!({"type": "error", "code": "unsupported", "id": 4}),
        ),
    ] {
        assert_eq!(ask(&watching, &message).await, answer);
    }
    let calls = std::fs::read_to_string(calls).expect("adb was called");
    let calls: Vec<&str> = calls.split("\n.\n").map(str::trim).collect();
    let expected = [
        "-s\nemulator-5554\nshell\ninput\nmotionevent\nDOWN\n3\n0",
        "-s\nemulator-5554\nshell\ninput\ntext\n'a%sb;%sreboot'",
        "-s\nemulator-5554\nshell\ninput\nkeyevent\n66",
        "",
    ];
    assert_eq!(calls, expected);
    assert!(device.log().contains("device offline"), "{}", device.log());
}

/// From a viewer's first attempt after the server is back to its first picture.
const BACK_WITHIN: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_server_that_was_killed_has_the_picture_back_within_five_seconds() {
    let server = MediaServer::open(&[]).await;
    let dir = TempDir::new("video");
    let device = device::start(&server, &file(&dir), &["--loop"]);
    let watching = watch(&server, "cam-1", H264).await;
    seen(&watching, 10, || device.log()).await;
    let (http_at, media_at) = (server.http.to_string(), server.media.to_string());
    drop(server);
    let killed = Instant::now();
    let listen = ["--http-listen", &http_at, "--media-listen", &media_at];
    let server = MediaServer::open(&listen).await;
    let serving = Instant::now();
    let url = server.url("/whep/cam-1");
    let viewer = wait_for("a picture", BACK_WITHIN, || async {
        Viewer::connect(&url, &http(), &Options::default(), H264, None).await
    })
    .await;
    timeout(PATIENCE, viewer.first_packet())
        .await
        .expect("a picture");
    let (down, back) = (serving - killed, serving.elapsed());
    println!("the server was away for {down:?}; the picture was back {back:?} later");
    assert!(back < BACK_WITHIN, "{back:?}: {}", device.log());
    // It noticed by itself, before ICE would have.
    let log = device.log();
    assert!(
        log.contains("the server is gone") || log.contains("no longer has"),
        "{log}"
    );
}

#[tokio::test]
async fn a_camera_is_seen_and_heard_to_the_byte_and_is_opened_anew_when_it_was_away() {
    let server = MediaServer::open(&[]).await;
    let camera = Camera::start(Sound::Opus, picture).await;
    let device = device::start(&server, &camera.url(), &[]);
    let watching = watch(&server, "cam-1", &[Codec::H264, Codec::Opus]).await;
    let first = seen(&watching, 30, || device.log()).await;
    assert_in_order(&first, u32::MAX);
    let heard = watching.record.payloads(Codec::Opus);
    assert!(heard.len() > 10, "{}", heard.len());
    assert!(heard.iter().all(|packet| Camera::is_sound(packet)));

    camera.hang_up();
    let before = numbers(&watching.record.payloads(Codec::H264)).len();
    let all = seen(&watching, before + 30, || device.log()).await;
    let gap = all.windows(2).position(|pair| pair[1] != pair[0] + 1);
    let gap = gap.expect("a new connection begins anew");
    assert_in_order(&all[gap + 1..], u32::MAX);
    metric_becomes(&server, "media_sessions_created_total", &[], 2.0).await;
    assert_eq!(watching.viewer.reception().lost(), 0);
}

#[tokio::test]
async fn sound_that_can_not_be_sent_is_said_and_the_picture_goes_on_without() {
    let server = MediaServer::open(&[]).await;
    let camera = Camera::start(Sound::Aac, picture).await;
    let device = device::start(&server, &camera.url(), &[]);
    let watching = watch(&server, "cam-1", H264).await;
    assert_in_order(&seen(&watching, 20, || device.log()).await, u32::MAX);
    let log = device.log();
    assert!(
        log.contains("audio in mpeg4-generic: only Opus can be sent"),
        "{log}"
    );
}
