//! The built-in device of `--demo`, seen by a viewer.

use std::time::Instant;

use client::Codec;
use tests::{MediaServer, wait_for};

use crate::media::{PATIENCE, metric_becomes, watch};

#[tokio::test]
async fn the_demo_device_sends_a_live_h264_picture() {
    let server = MediaServer::demo().await;
    let watching = watch(&server, "demo", &[Codec::H264]).await;
    let frames = || watching.viewer.reception().video_frames();
    let reach = |count: u64| {
        wait_for("frames of the demo device", PATIENCE, move || async move {
            match frames() {
                got if got >= count => Ok(Instant::now()),
                got => Err(format!("{got} of {count} frames")),
            }
        })
    };
    let begin = reach(10).await;
    let already = frames();
    let end = reach(already + 75).await;
    let rate = (frames() - already) as f64 / (end - begin).as_secs_f64();
    // 25 where nothing else runs. Drawing and encoding in a debug build beside other builds may be
    // slower, and catches up; a still or a flood is neither.
    assert!((2.0..=60.0).contains(&rate), "{rate} frames a second");

    // A join gets a keyframe at once: the parameter sets come first, in a STAP-A or by themselves.
    let first = watching.record.payloads(Codec::H264).remove(0);
    let kind = match first[0] & 0x1f {
        24 => first[3] & 0x1f,
        kind => kind,
    };
    assert_eq!(kind, 7, "the stream begins with {:02x?}", &first[..4]);
}

#[tokio::test]
async fn a_demo_server_that_is_told_to_end_does_not_wait_for_its_own_device() {
    let mut server = MediaServer::demo().await;
    metric_becomes(
        &server,
        "media_setup_total",
        &[("result", "connected")],
        1.0,
    )
    .await;
    server.process().signal("TERM");
    // The drain's bound is 30 s, so within less than that nothing was waited for.
    let ended = wait_for("the server to end", PATIENCE, || {
        let ended = server.process().ended();
        async move { ended.ok_or("still running") }
    })
    .await;
    assert_eq!(ended.code(), Some(0));
    let log = server.process().log();
    assert!(log.contains("\"reason\":\"normal_close\""), "{log}");
}
