//! A device and its viewers on different shards: every packet crosses, and sessions find their datagrams
//! whichever socket these arrive at.

use client::Codec;
use tests::{MediaServer, wait_for};

use crate::device::Device;
use crate::media::{PATIENCE, publish, received, send_frames, shard_sessions, until_apart, watch};

const VP8: &[Codec] = &[Codec::Vp8];

#[tokio::test]
async fn a_viewer_on_another_shard_than_its_device_gets_every_packet() {
    let server = MediaServer::open(&["--shards", "2"]).await;
    let first = publish(&server, "cam-1", VP8).await;
    let viewer = watch(&server, "cam-1", VP8).await;
    let together = shard_sessions(&server, 2.0).await;
    assert!(together.contains(&2.0), "{together:?}");
    let sent = send_frames(&first, Codec::Vp8, 10, 1).await;
    received(&viewer, Codec::Vp8, sent.len()).await;

    // The device comes back, its viewer stays where it was.
    let come_back = || publish(&server, "cam-1", VP8);
    let second = until_apart(&server, 2.0, come_back).await;
    first.over().await;
    let near = watch(&server, "cam-1", VP8).await;
    let with_device = together.map(|sessions| if sessions == 2.0 { 1.0 } else { 2.0 });
    assert_eq!(shard_sessions(&server, 3.0).await, with_device);

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
