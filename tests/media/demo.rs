//! The built-in device of `--demo`, seen by a viewer.

use std::time::Instant;

use client::Codec;
use tests::{MediaServer, wait_for};

use crate::media::{PATIENCE, watch};

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
    assert!((20.0..=30.0).contains(&rate), "{rate} frames a second");

    // A join gets a keyframe at once: the parameter sets come first, in a STAP-A or by themselves.
    let first = watching.record.payloads(Codec::H264).remove(0);
    let kind = match first[0] & 0x1f {
        24 => first[3] & 0x1f,
        kind => kind,
    };
    assert_eq!(kind, 7, "the stream begins with {:02x?}", &first[..4]);
    assert_eq!(watching.viewer.reception().lost(), 0);
}
