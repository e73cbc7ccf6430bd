//! Media over bad networks: what is lost is repaired, told as it was, and nobody else's trouble; silence
//! and a change of address end no session.

use std::time::Duration;

use client::{Codec, Options, PeerState};
use tests::link::{Conditions, Direction, Fate, Jitter, Kind};
use tests::{Link, MediaServer, wait_for};

use crate::device::{Device, figure_is};
use crate::media::{PATIENCE, metric_becomes, publish, publish_with, watch, watch_with};

const VP8: &[Codec] = &[Codec::Vp8];
/// Of the datagrams that the link lost; the others were no media for the first time: retransmissions, reports,
/// checks.
const MOST: f64 = 0.7;
const LOSS: &str = "media_packet_loss_ratio";

/// Packets that are sent before loss is read: more than the ten seconds that the figure looks back on.
const WINDOW: usize = 4_500;
const FRAMES_PER_SECOND: u32 = 100;
const PACKETS_PER_FRAME: usize = 4;

/// A twentieth is lost either way, and what comes takes up to a tenth of a second longer.
fn lossy() -> Conditions {
    Conditions {
        delay: Duration::from_millis(10),
        jitter: Jitter::Uniform(Duration::from_millis(100)),
        loss: 0.05,
        ..Conditions::default()
    }
}

fn through(link: &Link) -> Options {
    Options {
        media_address: Some(link.address()),
        ..Options::default()
    }
}

/// Media packets that the link lost.
fn lost(link: &Link, direction: Direction) -> usize {
    link.tally(direction).of(Kind::Rtp, Fate::Lost) as usize
}

fn is_a_twentieth(loss: f64) -> bool {
    (loss - 0.05).abs() <= 0.01
}

#[tokio::test]
async fn what_a_viewer_lost_is_repaired_its_loss_is_told_and_other_viewers_see_nothing_of_it() {
    let server = MediaServer::open(&[]).await;
    let publisher = publish(&server, "cam-1", VP8).await;
    let link = Link::start(server.media, 11);
    let unlucky = watch_with(&server, "cam-1", VP8, &through(&link)).await;
    let others = [
        watch(&server, "cam-1", VP8).await,
        watch(&server, "cam-1", VP8).await,
    ];
    let device = Device::new(&publisher, FRAMES_PER_SECOND, PACKETS_PER_FRAME);
    device
        .while_sending(async {
            device.gets_through(&unlucky).await;
            link.set_both(lossy());
            device.sends(WINDOW).await;
            figure_is(&server, LOSS, unlucky.viewer.resource(), is_a_twentieth).await;
            for other in &others {
                figure_is(&server, LOSS, other.viewer.resource(), |loss| loss == 0.0).await;
            }
            // A loss at the very end would have nothing behind it that shows it.
            link.set_both(Conditions::default());
            device.sends(100).await;
        })
        .await;

    let lost = lost(&link, Direction::ToClient);
    assert!(lost > 100, "{lost} packets were lost: too few to tell");
    let what = format!("99 of 100 of {lost} lost packets to be repaired");
    device.arrived(&what, &unlucky, lost / 100).await;
    for other in &others {
        device.arrived("every packet to arrive", other, 0).await;
        let reception = other.viewer.reception();
        assert!(
            other.record.payloads(Codec::Vp8) == device.payloads(),
            "{reception:?}"
        );
        assert_eq!(reception.lost(), 0, "{reception:?}");
    }
    let metrics = server.metrics().await;
    let again = metrics.sum("media_retransmitted_packets_total", &[("direction", "out")]);
    assert!(again >= lost as f64 * MOST, "{again} sent again for {lost}");
}

/// With a stream for repair, as browsers have, or without, as simple devices.
async fn a_device_on_a_lossy_link(retransmission: bool, seed: u64) {
    let server = MediaServer::open(&[]).await;
    let link = Link::start(server.media, seed);
    let options = Options {
        retransmission,
        ..through(&link)
    };
    let publisher = publish_with(&server, "cam-1", VP8, &options).await;
    let viewer = watch(&server, "cam-1", VP8).await;
    let device = Device::new(&publisher, FRAMES_PER_SECOND, PACKETS_PER_FRAME);
    device
        .while_sending(async {
            device.gets_through(&viewer).await;
            link.set_both(lossy());
            device.sends(WINDOW).await;
            figure_is(&server, LOSS, publisher.resource(), is_a_twentieth).await;
            link.set_both(Conditions::default());
            device.sends(100).await;
        })
        .await;
    let lost = lost(&link, Direction::ToServer);
    assert!(lost > 100, "{lost} packets were lost: too few to tell");
    let what = format!("99 of 100 of {lost} lost packets to be repaired");
    device.arrived(&what, &viewer, lost / 100).await;
    let metrics = server.metrics().await;
    let again = metrics.sum("media_retransmitted_packets_total", &[("direction", "in")]);
    assert!(again >= lost as f64 * MOST, "{again} came again for {lost}");
}

#[tokio::test]
async fn what_a_device_lost_is_repaired_and_its_loss_is_told() {
    a_device_on_a_lossy_link(true, 12).await;
}

#[tokio::test]
async fn a_device_without_a_stream_for_repair_is_repaired_and_its_loss_is_told_all_the_same() {
    a_device_on_a_lossy_link(false, 13).await;
}

#[tokio::test]
async fn a_device_that_stalls_or_loses_its_network_goes_on_with_the_stream_that_it_had() {
    let server = MediaServer::open(&[]).await;
    let link = Link::start(server.media, 14);
    let publisher = publish_with(&server, "cam-1", VP8, &through(&link)).await;
    let viewer = watch(&server, "cam-1", VP8).await;
    let device = Device::new(&publisher, 50, 2);
    device.while_sending(device.sends(100)).await;
    device.arrived("the beginning", &viewer, 0).await;

    // It stands still: no frames, and nobody's end.
    let asked = publisher.keyframe_requests();
    for resource in [publisher.resource(), viewer.viewer.resource()] {
        figure_is(&server, "media_video_frame_rate", resource, |rate| {
            rate == 0.0
        })
        .await;
    }
    device.while_sending(device.sends(100)).await;
    device
        .arrived("what came after the stall", &viewer, 0)
        .await;
    assert!(viewer.record.payloads(Codec::Vp8) == device.payloads());
    assert_eq!(publisher.keyframe_requests(), asked, "none was needed");

    // Two seconds without a network.
    device
        .while_sending(async {
            link.set_dark(true);
            device.sends(200).await;
            link.set_dark(false);
            device.gets_through(&viewer).await;
            device.sends(100).await;
        })
        .await;
    device.arrived("what came in the dark", &viewer, 0).await;
    let reception = viewer.viewer.reception();
    assert_eq!(reception.streams().len(), 1, "one SSRC: {reception:?}");
    assert_eq!(publisher.state(), PeerState::Connected);
    metric_becomes(&server, "media_active_sessions", &[], 2.0).await;
    metric_becomes(&server, "media_sessions_created_total", &[], 2.0).await;
}

#[tokio::test]
async fn a_new_port_at_a_nat_keeps_the_session_of_a_device_and_of_a_viewer() {
    let server = MediaServer::open(&[]).await;
    let links = [Link::start(server.media, 15), Link::start(server.media, 16)];
    let publisher = publish_with(&server, "cam-1", VP8, &through(&links[0])).await;
    let viewer = watch_with(&server, "cam-1", VP8, &through(&links[1])).await;
    let device = Device::new(&publisher, 50, 2);
    device
        .while_sending(async {
            device.gets_through(&viewer).await;
            for link in &links {
                let before = link.server_side();
                link.rebind();
                assert_ne!(link.server_side(), before);
                device.gets_through(&viewer).await;
            }
        })
        .await;
    wait_for("both to be connected", PATIENCE, || async {
        match (publisher.state(), viewer.viewer.state()) {
            (PeerState::Connected, PeerState::Connected) => Ok(()),
            states => Err(format!("{states:?}")),
        }
    })
    .await;
    let reception = viewer.viewer.reception();
    assert_eq!(reception.streams().len(), 1, "one SSRC: {reception:?}");
    let metrics = server.metrics().await;
    assert_eq!(metrics.sum("media_sessions_created_total", &[]), 2.0);
    assert_eq!(metrics.sum("media_sessions_closed_total", &[]), 0.0);
    assert_eq!(metrics.sum("media_ice_restarts_total", &[]), 0.0);
}
