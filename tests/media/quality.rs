//! What the metrics say of a session is what the network did to it: known from outside, by the link
//! and by the device's own count. Loss is in `link`, beside its repair.

use std::time::Duration;

use client::{Codec, Options, Resource};
use tests::link::{Conditions, Direction, Jitter};
use tests::{Link, MediaServer};

use crate::device::{Device, Mark, figure_is};
use crate::media::{publish, publish_with, watch, watch_with};

const VP8: &[Codec] = &[Codec::Vp8];
const JITTER: &str = "media_jitter_milliseconds";

fn through(link: &Link) -> Options {
    Options {
        media_address: Some(link.address()),
        ..Options::default()
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn delayed(delay: Duration) -> Conditions {
    Conditions {
        delay,
        ..Conditions::default()
    }
}

#[tokio::test]
async fn round_trip_frame_rate_and_bitrate_are_those_of_the_link_and_of_the_device() {
    let server = MediaServer::open(&[]).await;
    let links = [Link::start(server.media, 21), Link::start(server.media, 22)];
    links.iter().for_each(|link| link.set_both(delayed(ms(50))));
    let publisher = publish_with(&server, "cam-1", VP8, &through(&links[0])).await;
    let viewer = watch_with(&server, "cam-1", VP8, &through(&links[1])).await;
    let both = [publisher.resource(), viewer.viewer.resource()];
    let device = Device::new(&publisher, 50, 4);
    let round_trip_is = async |trip: f64| {
        for resource in both {
            let near = |rtt: f64| (rtt - trip).abs() <= 10.0;
            figure_is(&server, "media_rtt_milliseconds", resource, near).await;
        }
    };
    device
        .while_sending(async {
            device.gets_through(&viewer).await;
            let mark: Mark = device.mark();
            round_trip_is(100.0).await;
            for resource in both {
                let near = |seen: f64, sent: f64| (seen - sent).abs() <= 0.05 * sent;
                let frames = |seen| near(seen, device.rates_since(mark).frames);
                figure_is(&server, "media_video_frame_rate", resource, frames).await;
                let bits = |seen| near(seen, device.rates_since(mark).bits);
                figure_is(&server, "media_video_bitrate_bps", resource, bits).await;
            }
            // Not what the handshake took: what it is now.
            links.iter().for_each(|link| link.set_both(delayed(ms(20))));
            round_trip_is(40.0).await;
        })
        .await;
}

#[tokio::test]
async fn jitter_is_that_of_the_link_in_milliseconds() {
    let server = MediaServer::open(&[]).await;
    let jitter = Jitter::Alternating(ms(30));
    let conditions = Conditions {
        jitter,
        ..Conditions::default()
    };
    // One device whose own way is bad, and one with a viewer whose way is.
    let links = [Link::start(server.media, 23), Link::start(server.media, 24)];
    links[0].set(Direction::ToServer, conditions);
    links[1].set(Direction::ToClient, conditions);
    let shaken = publish_with(&server, "cam-1", VP8, &through(&links[0])).await;
    let steady = publish(&server, "cam-2", VP8).await;
    let viewer = watch_with(&server, "cam-2", VP8, &through(&links[1])).await;
    let calm = watch(&server, "cam-2", VP8).await;
    // Frames lie further apart than the jitter.
    let devices = [Device::new(&shaken, 20, 2), Device::new(&steady, 20, 2)];
    let expected = jitter.interarrival().as_secs_f64() * 1e3;
    let near = |seen: f64| (seen - expected).abs() <= 0.2 * expected;
    let small = |seen: f64| seen < 0.2 * expected;
    tokio::join!(
        devices[0].while_sending(jitter_is(&server, &devices[0], shaken.resource(), near)),
        devices[1].while_sending(async {
            let resource = viewer.viewer.resource();
            jitter_is(&server, &devices[1], resource, near).await;
            for resource in [steady.resource(), calm.viewer.resource()] {
                figure_is(&server, JITTER, resource, small).await;
            }
        }),
    );
}

/// Waits until the estimate has settled, then until it is right.
async fn jitter_is(
    server: &MediaServer,
    device: &Device<'_>,
    resource: &Resource,
    right: impl Fn(f64) -> bool,
) {
    // It halves its distance to the truth every eleven packets.
    device.sends(120).await;
    figure_is(server, JITTER, resource, right).await;
}
