//! A device and its viewers on different shards: every packet crosses, and sessions find their datagrams
//! whichever socket these arrive at.

use client::Codec;
use tests::{MediaServer, wait_for};

use crate::device::Device;
use crate::media::{PATIENCE, metric_becomes, publish, received, send_frames, watch};

const VP8: &[Codec] = &[Codec::Vp8];

/// Waits until the two shards hold so many sessions.
async fn shards_hold(server: &MediaServer, sessions: [f64; 2]) {
    for (shard, count) in ["0", "1"].into_iter().zip(sessions) {
        metric_becomes(server, "media_shard_sessions", &[("shard", shard)], count).await;
    }
}

#[tokio::test]
async fn a_viewer_on_another_shard_than_its_device_gets_every_packet() {
    let server = MediaServer::open(&["--shards", "2"]).await;
    let first = publish(&server, "cam-1", VP8).await;
    let viewer = watch(&server, "cam-1", VP8).await;
    shards_hold(&server, [2.0, 0.0]).await;
    let sent = send_frames(&first, Codec::Vp8, 10, 1).await;
    received(&viewer, Codec::Vp8, sent.len()).await;

    // The device comes back and is placed where least is, its viewer stays where it was.
    let second = publish(&server, "cam-1", VP8).await;
    first.over().await;
    shards_hold(&server, [1.0, 1.0]).await;
    let near = watch(&server, "cam-1", VP8).await;
    shards_hold(&server, [1.0, 2.0]).await;

    let device = Device::new(&second, 100, 4);
    device.while_sending(device.sends(2_000)).await;
    for watching in [&viewer, &near] {
        device.arrived("every packet to arrive", watching, 0).await;
    }
    let payloads = viewer.record.payloads(Codec::Vp8);
    assert!(
        payloads[sent.len()..] == device.payloads(),
        "in order, and no other"
    );
    let reception = viewer.viewer.reception();
    assert_eq!(reception.streams().len(), 1, "one SSRC: {reception:?}");
    assert_eq!(reception.lost(), 0, "no gap: {reception:?}");

    // And the other way: what the viewer wants reaches the device.
    let asked = second.keyframe_requests();
    wait_for("the request to be passed on", PATIENCE, || async {
        let request = viewer.viewer.request_keyframe().await;
        request.map_err(|error| error.to_string())?;
        match second.keyframe_requests() - asked {
            0 => Err("no request".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
}
