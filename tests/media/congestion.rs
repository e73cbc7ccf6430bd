//! Viewers whose links carry less than the stream, through the link simulator, and what their publisher
//! is told. Feedback is written and read by another implementation than the server's.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use client::synthetic::FrameSource;
use client::{Codec, Options, Publisher};
use tests::link::{Conditions, Direction, Fate, Kind, Link};
use tests::process::TempDir;
use tests::{MediaServer, wait_for};
use tokio::time::MissedTickBehavior;

use crate::media::{GAP, PATIENCE, publish_with, received, send_frames, watch, watch_with};
use crate::simulcast::{self, RISE, shows_within};

/// How long nobody has to watch before a device is asked for less.
const IDLE: Duration = Duration::from_secs(30);

/// A device of about 1 Mbit/s: 30 frames a second, a keyframe each second and when it is asked for one.
async fn film(publisher: &Publisher) -> Infallible {
    film_and_count(publisher, &AtomicU64::new(0)).await
}

/// The same; counts its frames.
async fn film_and_count(publisher: &Publisher, frames: &AtomicU64) -> Infallible {
    let codec = Codec::Vp8;
    let track = publisher.track(codec).expect("a track of that codec");
    let mut source = FrameSource::new(codec, 4, 1_000, 1);
    let mut tick = tokio::time::interval(Duration::from_nanos(33_333_333));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked = publisher.keyframe_requests();
    for frame in 0u32.. {
        tick.tick().await;
        let requests = publisher.keyframe_requests();
        let keyframe = frame.is_multiple_of(30) || requests != asked;
        asked = requests;
        let payloads = source.frame(keyframe);
        let last = payloads.len() - 1;
        for (position, payload) in payloads.into_iter().enumerate() {
            track
                .send(frame.wrapping_mul(3_000), position == last, payload)
                .await
                .unwrap_or_else(|error| panic!("frame {frame} cannot be sent: {error:?}"));
        }
        frames.fetch_add(1, Ordering::Relaxed);
    }
    unreachable!("frames are without end")
}

fn transport_cc() -> Options {
    Options {
        transport_cc: true,
        ..Options::default()
    }
}

#[tokio::test]
async fn a_publisher_is_told_of_each_packet_that_arrived() {
    let server = MediaServer::open(&[]).await;
    let publisher = publish_with(&server, "cam-1", &[Codec::Vp8], &transport_cc()).await;
    let sent = send_frames(&publisher, Codec::Vp8, 100, 1).await;
    wait_for("every packet to be acknowledged", PATIENCE, || async {
        match publisher.acknowledged() {
            told if told == sent.len() as u64 => Ok(()),
            told => Err(format!("{told} of {}", sent.len())),
        }
    })
    .await;
    assert_eq!(publisher.bandwidth(), None, "nobody watches");
}

#[tokio::test]
async fn a_wide_link_is_no_bottleneck_for_a_viewer_that_reports_on_each_packet() {
    let server = MediaServer::open(&[]).await;
    let publisher = publish_with(&server, "cam-1", &[Codec::H264], &transport_cc()).await;
    let watching = watch_with(&server, "cam-1", &[Codec::H264], &transport_cc()).await;
    let sent = send_frames(&publisher, Codec::H264, 300, 2).await;
    assert!(received(&watching, Codec::H264, sent.len()).await == sent);
    assert_eq!(watching.viewer.reception().lost(), 0);
    let metrics = server.metrics().await;
    let congestion = metrics.value("media_drops_total", &[("where", "congestion")]);
    assert_eq!(congestion, Some(0.0));
    assert_eq!(publisher.bandwidth(), None);
}

#[tokio::test]
async fn behind_a_narrow_link_a_viewer_gets_what_it_carries_and_another_viewer_all() {
    let server = MediaServer::open(&[]).await;
    let publisher = publish_with(&server, "cam-1", &[Codec::Vp8], &transport_cc()).await;
    let link = Link::start(server.media, 1);
    let through = Options {
        media_address: Some(link.address()),
        ..transport_cc()
    };
    let filmed = AtomicU64::new(0);
    let checks = async {
        let behind = watch_with(&server, "cam-1", &[Codec::Vp8], &through).await;
        let beside = watch(&server, "cam-1", &[Codec::Vp8]).await;
        wait_for("pictures", PATIENCE, || async {
            let frames = behind.viewer.reception().video_frames();
            if frames >= 60 { Ok(()) } else { Err(frames) }
        })
        .await;
        let drops = || async {
            let metrics = server.metrics().await;
            metrics.sum("media_drops_total", &[("where", "congestion")])
        };
        assert_eq!(drops().await, 0.0);
        let counts = || {
            let reception = beside.viewer.reception();
            (reception.video_frames(), filmed.load(Ordering::Relaxed))
        };
        let (seen, start) = (counts(), Instant::now());

        // Three tenths, and what the server makes of it (design §11): less within two seconds.
        link.set(Direction::ToClient, Conditions::narrow(300_000, 30_000));
        wait_for("frames to be left out", PATIENCE, || async {
            match drops().await {
                0.0 => Err("none"),
                _ => Ok(()),
            }
        })
        .await;
        println!("less was sent after {:?}", start.elapsed());
        wait_for("the publisher to be asked for less", PATIENCE, || async {
            match (publisher.bandwidth(), drops().await) {
                (Some(bits), dropped) if bits < 600_000 && dropped > 0.0 => Ok(()),
                seen => Err(format!("{seen:?}")),
            }
        })
        .await;
        // What is sent fits the link now: hardly anything finds its queue full.
        let tally = || {
            let tally = link.tally(Direction::ToClient);
            let full = tally.of(Kind::Rtp, Fate::QueueFull);
            (tally.of(Kind::Rtp, Fate::Delivered), full)
        };
        let mut before = tally();
        wait_for("an end of the losses", PATIENCE, || {
            let now = tally();
            let (carried, full) = (now.0 - before.0, now.1 - before.1);
            let seen = if carried < 150 {
                Err(format!("{carried} carried so far"))
            } else if full * 20 > carried {
                before = now;
                Err(format!("{full} lost, {carried} carried"))
            } else {
                Ok(())
            };
            async { seen }
        })
        .await;

        let wide = Conditions {
            rate: None,
            ..Conditions::narrow(300_000, 30_000)
        };
        link.set(Direction::ToClient, wide);
        let mut before = (0, 0.0);
        let looks = || (behind.viewer.packets(), drops());
        let started = Instant::now();
        let mut whole = Duration::ZERO;
        loop {
            let (packets, drops) = looks();
            let now = (packets, drops.await);
            // Two seconds of the stream without a gap.
            if now.1 > before.1 {
                (before, whole) = (now, started.elapsed());
            } else if now.0 >= before.0 + 240 {
                break;
            }
            let waited = started.elapsed();
            assert!(waited < RISE, "after {waited:?} still {now:?}, {before:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        println!("all of it was sent {whole:?} after there was room again");
        wait_for("the publisher to be free again", RISE, || async {
            match publisher.bandwidth() {
                Some(bits) if bits > 11_000_000 => Ok(()),
                seen => Err(format!("{seen:?}")),
            }
        })
        .await;
        // The other sees nothing of it: each frame, as they are taken.
        let (now, time) = (counts(), start.elapsed());
        let (came, taken) = (now.0 - seen.0, now.1 - seen.1);
        let gap = beside.record.largest_gap(start);
        println!("another viewer: {came} of {taken} frames in {time:?}, none for {gap:?} at most");
        assert!(came.abs_diff(taken) <= 15, "{came} of {taken} frames");
        assert!(gap < GAP, "{gap:?}");
        let reception = beside.viewer.reception();
        assert_eq!(reception.lost(), 0, "{reception:?}");
    };
    tokio::select! {
        never = film_and_count(&publisher, &filmed) => match never {},
        () = checks => {}
    }
}

#[tokio::test]
async fn a_device_is_asked_to_send_less_unless_it_sends_layers() {
    let server = MediaServer::open(&[]).await;
    let layered = simulcast::Device::start(&server, "layered").await;
    let single = publish_with(&server, "single", &[Codec::Vp8], &transport_cc()).await;
    // A link each, of 600 kbit/s: less than either device sends to a viewer that takes all.
    let links = [1, 2].map(|seed| Link::start(server.media, seed));
    let through = |link: &Link| Options {
        media_address: Some(link.address()),
        ..transport_cc()
    };
    let checks = async {
        let [first, second] = [through(&links[0]), through(&links[1])];
        let choosing = watch_with(&server, "layered", &[Codec::Vp8], &first).await;
        let _limited = watch_with(&server, "single", &[Codec::Vp8], &second).await;
        for link in &links {
            link.set(Direction::ToClient, Conditions::narrow(600_000, 30_000));
        }
        // So its viewer is known to have room for less.
        shows_within(&choosing, "q", RISE).await;
        wait_for("the other to be asked for less", PATIENCE, || async {
            match single.bandwidth() {
                Some(bits) if bits < 900_000 => Ok(()),
                seen => Err(format!("{seen:?}")),
            }
        })
        .await;
        // Two seconds and more of the lowest layer, in which it would be asked twice.
        let before = choosing.viewer.packets();
        wait_for("more of the layer", PATIENCE, || async {
            match choosing.viewer.packets() - before {
                more if more >= 400 => Ok(()),
                more => Err(more),
            }
        })
        .await;
        assert_eq!(layered.publisher.bandwidth(), None, "it sends layers");
    };
    tokio::select! {
        never = film(&single) => match never {},
        () = checks => {}
    }
}

#[tokio::test]
async fn a_device_that_nobody_watches_is_asked_for_less_until_somebody_comes() {
    let folder = TempDir::new("idle");
    let config = folder.path().join("config.toml");
    std::fs::write(&config, "[limits]\nidle_publisher_kbps = 100\n").expect("it can be written");
    let config = config.display().to_string();
    let server = MediaServer::open(&["--config", &config]).await;
    let publisher = publish_with(&server, "cam-1", &[Codec::Vp8], &transport_cc()).await;
    let begun = Instant::now();
    let checks = async {
        wait_for(
            "the device to be asked for less",
            IDLE + PATIENCE,
            || async {
                match publisher.bandwidth() {
                    Some(bits) if bits <= 100_000 => Ok(()),
                    seen => Err(format!("{seen:?}")),
                }
            },
        )
        .await;
        let alone = begun.elapsed();
        // It was connected a moment before.
        let soonest = IDLE - Duration::from_secs(1);
        assert!(alone >= soonest, "after {alone:?}");
        let watching = watch_with(&server, "cam-1", &[Codec::Vp8], &transport_cc()).await;
        wait_for("the device to be free again", PATIENCE, || async {
            match publisher.bandwidth() {
                Some(bits) if bits > 11_000_000 => Ok(()),
                seen => Err(format!("{seen:?}")),
            }
        })
        .await;
        wait_for("pictures", PATIENCE, || async {
            let frames = watching.viewer.reception().video_frames();
            if frames >= 30 { Ok(()) } else { Err(frames) }
        })
        .await;
    };
    tokio::select! {
        never = film(&publisher) => match never {},
        () = checks => {}
    }
}
