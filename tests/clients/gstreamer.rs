//! `whipsink` and `whepsrc` of GStreamer, started as a person would with `gst-launch-1.0`, and its RTSP server
//! as a camera.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::json;
use tests::browser::Options;
use tests::process::Process;
use tests::{Browser, Connections, MediaServer, device, wait_for};

use crate::server::{SOON, has_no, is_live, list, test_publisher};

/// On every address of this machine but loopback, which GStreamer does not use for media.
const MEDIA: &[&str] = &["--media-listen", "0.0.0.0:0"];

/// Starts a pipeline; it says on its output what passes a sink that is not silent.
fn launch(pipeline: &str) -> Process {
    let plugins = std::env::var("GSTREAMER_CLIENTS");
    let plugins = PathBuf::from(plugins.expect("`cargo xtask clients gstreamer` sets it"));
    let mut command = Command::new("gst-launch-1.0");
    command.arg("--verbose").args(pipeline.split_whitespace());
    // With the list of plugins beside the plugin, that of the user is left alone.
    command
        .env("GST_PLUGIN_PATH", &plugins)
        .env("GST_REGISTRY", plugins.join("registry"));
    Process::start("gst-launch", &mut command)
}

/// Ends a pipeline as Ctrl+C does, and waits until it is gone.
async fn interrupt(mut pipeline: Process) {
    pipeline.signal("INT");
    let status = wait_for("the pipeline to end", SOON, || {
        let ended = pipeline.ended();
        async move { ended.context("it still runs") }
    })
    .await;
    assert!(status.success(), "{status}: {}", pipeline.log());
}

/// Waits until the session of that role is older than one would get that its peer sends nothing for. This
/// GStreamer sends no ICE checks once it is connected.
async fn outlives_its_checks(server: &MediaServer, token: &str, role: &str) {
    wait_for("the session to be 40 s old", SOON, || async {
        let sessions = list(server, token, "sessions").await?;
        let session = sessions.iter().find(|session| session["role"] == role);
        let session = session.unwrap_or_else(|| panic!("the session has ended: {sessions:?}"));
        ensure!(session["ageSeconds"].as_u64() >= Some(40), "{session}");
        assert_eq!(session["iceState"], "connected", "{session}");
        Ok(())
    })
    .await;
}

/// The session of that role ends, by one DELETE that is granted.
async fn is_deleted(server: &MediaServer, token: &str, role: &str, protocol: &str) {
    has_no(role, server, token).await;
    let path = format!("/{protocol}/{{device}}/{{session}}");
    let deletes = [("method", "DELETE"), ("path", path.as_str())];
    let metrics = server.metrics().await;
    let deletes = metrics.matching("media_http_requests_total", &deletes);
    let deletes: Vec<_> = deletes
        .map(|d| (d.labels["status"].as_str(), d.value))
        .collect();
    assert_eq!(deletes, [("200", 1.0)]);
}

/// Not muted: what is not to be heard has no energy.
const WATCH: &str = r"
const [url, token] = arguments;
const pc = new RTCPeerConnection({bundlePolicy: 'max-bundle'});
for (const kind of ['audio', 'video']) pc.addTransceiver(kind, {direction: 'recvonly'});
const screen = Object.assign(document.createElement('video'), {autoplay: true});
document.body.append(screen);
pc.ontrack = ({streams}) => { screen.srcObject = streams[0]; };
return negotiate('viewer', pc, url, undefined, token);";

async fn is_seen_and_heard(browser: &Browser, server: &MediaServer, token: &str) {
    let page = Connections::open(browser, &server.url("/health")).await;
    let url = server.url("/whep/cam-1");
    page.run(WATCH, vec![json!(url), json!(token)]).await;
    wait_for("pictures, and a sound that is no silence", SOON, || async {
        let fields = ["framesDecoded", "totalAudioEnergy", "packetsLost"];
        let seen = page.statistics("viewer", "inbound-rtp", &fields).await?;
        let most = |field: &str| {
            let values = seen.iter().filter_map(|stat| stat[field].as_f64());
            values.fold(0.0, f64::max)
        };
        let enough = most("framesDecoded") >= 60.0 && most("totalAudioEnergy") > 0.01;
        ensure!(enough, "{seen:?}");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whipsink_publishes_picture_and_sound_that_a_browser_plays() {
    let server = MediaServer::closed(MEDIA).await;
    let token = server.token("cam-1", "publish,view");
    let url = server.url("/whip/cam-1");
    let pipeline = launch(&format!(
        "whipsink name=whip whip-endpoint={url} auth-token={token}
         videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=15/1
         ! vp8enc deadline=1 keyframe-max-dist=60 ! rtpvp8pay pt=96 ! whip.sink_0
         audiotestsrc is-live=true ! opusenc ! rtpopuspay pt=97 ! whip.sink_1"
    ));
    is_live(&server, &token, || pipeline.log()).await;

    let browser = Browser::start(Options::default()).await;
    is_seen_and_heard(&browser, &server, &token).await;
    outlives_its_checks(&server, &token, "publisher").await;
    interrupt(pipeline).await;
    is_deleted(&server, &token, "publisher", "whip").await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whepsrc_decodes_the_picture_of_a_device() {
    let server = MediaServer::closed(MEDIA).await;
    let token = server.token("cam-1", "publish,view");
    let _publisher = test_publisher(&server, &token).await;
    let url = server.url("/whep/cam-1");
    let h264 = "application/x-rtp,media=video,encoding-name=H264,payload=102,clock-rate=90000,\
                packetization-mode=(string)1,profile-level-id=(string)42e01f";
    let pipeline = launch(&format!(
        "whepsrc name=whep whep-endpoint={url} auth-token={token} video-caps={h264}
         whep. ! rtph264depay ! h264parse ! openh264dec ! fakesink name=screen silent=false"
    ));
    wait_for("30 decoded pictures", SOON, || async {
        let log = pipeline.log();
        // The other lines are of events.
        let shown = log.matches("(screen:sink) (").count();
        ensure!(shown > 30, "{shown}: {log}");
        Ok(())
    })
    .await;
    outlives_its_checks(&server, &token, "viewer").await;
    interrupt(pipeline).await;
    is_deleted(&server, &token, "viewer", "whep").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_rtsp_camera_is_seen_and_heard_in_a_browser_and_again_when_it_was_away() {
    let server = MediaServer::closed(&[]).await;
    let token = server.token("cam-1", "publish,view");
    let first = camera(0).await;
    let url = format!("rtsp://127.0.0.1:{}/live", first.1);
    let mut command = device::command(&server, &url, &[]);
    let device = Process::start("media-device", command.env("MEDIA_DEVICE_TOKEN", &token));
    is_live(&server, &token, || device.log()).await;
    let browser = Browser::start(Options::default()).await;
    is_seen_and_heard(&browser, &server, &token).await;

    let port = first.1;
    drop(first);
    let _second = camera(port).await;
    is_seen_and_heard(&browser, &server, &token).await;
    let sessions = list(&server, &token, "sessions").await.expect("a list");
    let publishers = sessions.iter().filter(|s| s["role"] == "publisher");
    assert_eq!(publishers.count(), 1, "{sessions:?}");
    let created = server
        .metrics()
        .await
        .sum("media_sessions_created_total", &[]);
    assert_eq!(
        created,
        3.0,
        "the device kept its session: {}",
        device.log()
    );
    browser.close().await;
}

/// Starts GStreamer's RTSP server, and returns its port too; 0 chooses a free one.
async fn camera(port: u16) -> (Process, u16) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/gstreamer/camera.py");
    // Debian's, which finds what its packages bring.
    let mut command = Command::new("/usr/bin/python3");
    let camera = Process::start("camera", command.args([script, &port.to_string()]));
    let port = wait_for("the camera to listen", SOON, || {
        let log = camera.log();
        async move { log.trim().parse::<u16>().map_err(|_| log) }
    })
    .await;
    (camera, port)
}
