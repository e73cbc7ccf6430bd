//! The seconds of viewers and the time to their first picture are those that the viewers saw. What a session's own
//! figures say is in `truth`.

use std::time::Instant;

use client::{Codec, Options};
use tests::link::{Conditions, Direction};
use tests::{Link, MediaServer, wait_for};

use crate::device::Device;
use crate::media::{PATIENCE, metric_becomes, publish, publish_with, watch, watch_with};

const VP8: &[Codec] = &[Codec::Vp8];

fn through(link: &Link) -> Options {
    Options {
        media_address: Some(link.address()),
        ..Options::default()
    }
}

#[tokio::test]
async fn the_time_to_the_first_picture_and_how_seconds_were_are_those_that_the_viewer_saw() {
    let server = MediaServer::open(&[]).await;
    let link = Link::start(server.media, 25);
    let uplink = Link::start(server.media, 26);
    let publisher = publish_with(&server, "cam-1", VP8, &through(&uplink)).await;
    let device = Device::new(&publisher, 50, 4);
    let quality = async |how: &str| {
        let metrics = server.metrics().await;
        metrics.sum("media_viewer_seconds_total", &[("quality", how)])
    };
    // Loss is of the last ten reports, which are seconds apart.
    let within = PATIENCE * 3;
    let grows = async |how: &'static str, by: f64| {
        let before = quality(how).await;
        wait_for(&format!("{by} more seconds of {how}"), within, || async {
            match quality(how).await {
                seconds if seconds >= before + by => Ok(()),
                seconds => Err(seconds - before),
            }
        })
        .await;
    };
    let (viewer, since) = device
        .while_sending(async {
            let asked = Instant::now();
            let viewer = watch_with(&server, "cam-1", VP8, &through(&link)).await;
            device.gets_through(&viewer).await;
            let since = Instant::now();
            let seen = since.duration_since(asked).as_secs_f64();
            metric_becomes(&server, "media_first_media_seconds_count", &[], 1.0).await;
            let metrics = server.metrics().await;
            let told = metrics.sum("media_first_media_seconds_sum", &[]);
            assert!(
                told > 0.0 && told <= seen,
                "{told} s, the viewer waited {seen} s"
            );
            grows("good", 3.0).await;
            assert_eq!((quality("gap").await, quality("loss").await), (0.0, 0.0));
            let metrics = server.metrics().await;
            let first = metrics.value("media_first_media_seconds_count", &[]);
            assert_eq!(first, Some(1.0), "of viewers, not of their device");

            link.set(
                Direction::ToClient,
                Conditions {
                    loss: 0.15,
                    ..Conditions::default()
                },
            );
            grows("loss", 2.0).await;
            link.set_both(Conditions::default());
            (viewer, since)
        })
        .await;
    // The device is there, and sends nothing.
    grows("still", 3.0).await;
    assert_eq!(quality("gap").await, 0.0);
    // Nothing of it arrives. What it would send nobody knows.
    uplink.set_dark(true);
    let dark = Instant::now();
    grows("gap", 12.0).await;
    let (gap, passed) = (quality("gap").await, dark.elapsed().as_secs_f64());
    assert!(gap >= passed - 2.0, "{gap} s of {passed} s");
    uplink.set_dark(false);
    grows("still", 1.0).await;
    publisher.close().await.expect("the device can leave");
    metric_becomes(&server, "media_sessions", &[("role", "publisher")], 0.0).await;
    let watched = since.elapsed().as_secs_f64();
    viewer.viewer.close().await.expect("a viewer can leave");
    metric_becomes(&server, "media_active_sessions", &[], 0.0).await;
    let mut all = 0.0;
    for how in ["good", "gap", "loss", "still"] {
        all += quality(how).await;
    }
    assert!(
        (watched - 2.0..=watched + 1.0).contains(&all),
        "{all} s of {watched} s"
    );
}

#[tokio::test]
async fn a_viewer_that_is_never_sent_anything_is_counted_when_it_goes() {
    let server = MediaServer::open(&[]).await;
    let publisher = publish(&server, "cam-1", VP8).await;
    let early = watch(&server, "cam-1", VP8).await;
    early.viewer.close().await.expect("a viewer can leave");
    let patient = watch(&server, "cam-1", VP8).await;
    // What nobody is sent is a gap: so long it has waited.
    wait_for("four seconds to pass", PATIENCE, || async {
        let gap = [("quality", "gap")];
        match server
            .metrics()
            .await
            .sum("media_viewer_seconds_total", &gap)
        {
            seconds if seconds >= 4.0 => Ok(()),
            seconds => Err(seconds),
        }
    })
    .await;
    let without = "media_viewers_without_media_total";
    assert_eq!(server.metrics().await.value(without, &[]), Some(0.0));
    patient.viewer.close().await.expect("a viewer can leave");
    metric_becomes(&server, without, &[], 1.0).await;
    let metrics = server.metrics().await;
    assert_eq!(
        metrics.value("media_first_media_seconds_count", &[]),
        Some(0.0)
    );
    publisher.close().await.expect("the device can leave");
}
