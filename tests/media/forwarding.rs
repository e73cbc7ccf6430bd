//! What arrives at a viewer is what the device sent.

use client::{Codec, Options, SrtpProfile};
use tests::{MediaServer, wait_for};

use crate::media::{PATIENCE, publish, publish_with, received, send_frames, watch, watch_with};

async fn video_and_sound_pass_unchanged(video: Codec) {
    let server = MediaServer::open(&[]).await;
    let publisher = publish(&server, "cam-1", &[video, Codec::Opus]).await;
    let mut viewers = Vec::new();
    for _ in 0..3 {
        viewers.push(watch(&server, "cam-1", &Codec::ALL).await);
    }
    let (sent_video, sent_sound) = tokio::join!(
        send_frames(&publisher, video, 60, 1),
        send_frames(&publisher, Codec::Opus, 60, 2),
    );
    for (index, watching) in viewers.iter().enumerate() {
        let video_payloads = received(watching, video, sent_video.len()).await;
        let sound_payloads = received(watching, Codec::Opus, sent_sound.len()).await;
        assert!(video_payloads == sent_video, "viewer {index}: other video");
        assert!(sound_payloads == sent_sound, "viewer {index}: other sound");
        let reception = watching.viewer.reception();
        assert_eq!(reception.lost(), 0, "{reception:?}");
        assert_eq!(reception.streams().len(), 2, "{reception:?}");
        for stream in reception.streams() {
            assert_eq!(stream.out_of_order, 0, "{stream:?}");
        }
        assert_eq!(reception.video_frames(), 60);
    }
}

#[tokio::test]
async fn h264_and_opus_reach_three_viewers_in_order_and_unchanged() {
    video_and_sound_pass_unchanged(Codec::H264).await;
}

#[tokio::test]
async fn vp8_and_opus_reach_three_viewers_in_order_and_unchanged() {
    video_and_sound_pass_unchanged(Codec::Vp8).await;
}

#[tokio::test]
async fn vp9_and_opus_reach_three_viewers_in_order_and_unchanged() {
    video_and_sound_pass_unchanged(Codec::Vp9).await;
}

#[tokio::test]
async fn av1_and_opus_reach_three_viewers_in_order_and_unchanged() {
    video_and_sound_pass_unchanged(Codec::Av1).await;
}

#[tokio::test]
async fn redundant_audio_reaches_those_who_take_it_and_others_hear_its_newest_block() {
    let server = MediaServer::open(&[]).await;
    let publisher = publish(&server, "cam-1", &[Codec::Red]).await;
    let redundant = watch(&server, "cam-1", &[Codec::Red]).await;
    let plain = watch(&server, "cam-1", &[Codec::Opus]).await;
    let sent = send_frames(&publisher, Codec::Red, 60, 1).await;
    // Blocks are of the payload type that each end has for Opus; nothing else changes.
    let types = |payload: &[u8]| [payload[0] & 0x7f, payload[4]];
    let mut expected = sent.clone();
    for payload in &mut expected {
        assert_eq!(types(payload), [100; 2], "of the device");
        (payload[0], payload[4]) = (0x80 | 124, 124);
    }
    let got = received(&redundant, Codec::Red, sent.len()).await;
    assert!(got == expected, "{:?}", got.first().map(|p| types(p)));
    let newest: Vec<&[u8]> = sent.iter().map(|payload| &payload[8..]).collect();
    let got = received(&plain, Codec::Opus, sent.len()).await;
    assert!(
        got == newest,
        "{:?}",
        got.first().map(|payload| payload.len())
    );
    for (watching, codec) in [(&redundant, Codec::Red), (&plain, Codec::Opus)] {
        let reception = watching.viewer.reception();
        assert_eq!(reception.lost(), 0, "{reception:?}");
        assert_eq!(reception.streams().len(), 1, "{reception:?}");
        assert_eq!(reception.streams()[0].codec, Some(codec));
    }
}

#[tokio::test]
async fn both_srtp_profiles_carry_media_in_either_direction() {
    let only = |profile| Options {
        srtp_profiles: vec![profile],
        ..Options::default()
    };
    let server = MediaServer::open(&[]).await;
    for publisher_profile in [SrtpProfile::AeadAes128Gcm, SrtpProfile::Aes128CmSha1_80] {
        let device = format!("cam-{publisher_profile:?}");
        let publisher =
            publish_with(&server, &device, &[Codec::Vp8], &only(publisher_profile)).await;
        let gcm = only(SrtpProfile::AeadAes128Gcm);
        let sha1 = only(SrtpProfile::Aes128CmSha1_80);
        let viewers = [
            watch_with(&server, &device, &[Codec::Vp8], &gcm).await,
            watch_with(&server, &device, &[Codec::Vp8], &sha1).await,
        ];
        let sent = send_frames(&publisher, Codec::Vp8, 20, 3).await;
        for watching in &viewers {
            let got = received(watching, Codec::Vp8, sent.len()).await;
            assert!(got == sent, "{publisher_profile:?}: other payloads");
        }
    }
}

#[tokio::test]
async fn a_viewer_without_the_devices_codec_gets_no_packet_of_it() {
    let server = MediaServer::open(&[]).await;
    let publisher = publish(&server, "cam-1", &[Codec::Vp8]).await;
    let able = watch(&server, "cam-1", &[Codec::Vp8]).await;
    let unable = watch(&server, "cam-1", &[Codec::H264]).await;
    let sent = send_frames(&publisher, Codec::Vp8, 30, 4).await;
    assert!(received(&able, Codec::Vp8, sent.len()).await == sent);
    assert_eq!(unable.record.len(), 0, "{:?}", unable.viewer.reception());
}

#[tokio::test]
async fn a_viewer_that_joins_a_running_stream_starts_from_the_cache_and_the_device_is_not_asked() {
    let server = MediaServer::open(&[]).await;
    let publisher = publish(&server, "cam-1", &[Codec::Vp8]).await;
    let first = watch(&server, "cam-1", &[Codec::Vp8]).await;
    let sent = send_frames(&publisher, Codec::Vp8, 10, 5).await;
    received(&first, Codec::Vp8, sent.len()).await;
    // The first may have begun with the first frame or, a moment later, from the cache that then had it.
    let from_cache = joins_from_cache(&server).await;
    let before = publisher.keyframe_requests();
    let second = watch(&server, "cam-1", &[Codec::Vp8]).await;
    // Nothing is sent meanwhile: all that it gets is what the first got.
    received(&second, Codec::Vp8, sent.len()).await;
    assert_eq!(
        second.record.payloads(Codec::Vp8),
        first.record.payloads(Codec::Vp8)
    );
    assert_eq!(publisher.keyframe_requests(), before);
    assert_eq!(joins_from_cache(&server).await, from_cache + 1.0);
}

async fn joins_from_cache(server: &MediaServer) -> f64 {
    joins(server, "cache").await
}

async fn joins(server: &MediaServer, served: &str) -> f64 {
    let metrics = server.metrics().await;
    metrics
        .value("media_join_total", &[("served", served)])
        .unwrap_or_default()
}

#[tokio::test]
async fn a_viewer_that_asks_right_after_it_joined_gets_the_cached_keyframe_again_and_the_device_is_not_asked()
 {
    let server = MediaServer::open(&[]).await;
    let publisher = publish(&server, "cam-1", &[Codec::Vp8]).await;
    let first = watch(&server, "cam-1", &[Codec::Vp8]).await;
    let sent = send_frames(&publisher, Codec::Vp8, 10, 5).await;
    received(&first, Codec::Vp8, sent.len()).await;
    wait_for(
        "a viewer that is sent its beginning again",
        PATIENCE,
        || async {
            let (asked, again) = (publisher.keyframe_requests(), joins(&server, "again").await);
            let viewer = watch(&server, "cam-1", &[Codec::Vp8]).await;
            received(&viewer, Codec::Vp8, sent.len()).await;
            let asks = || publisher.keyframe_requests() - asked;
            wait_for("an answer", PATIENCE, || async {
                // Repeated, as players do: a request within a round trip of the join is too early.
                let request = viewer.viewer.request_keyframe().await;
                request.map_err(|error| error.to_string())?;
                match (viewer.record.len() / sent.len(), asks()) {
                    (1, 0) => Err("none".to_owned()),
                    _ => Ok(()),
                }
            })
            .await;
            // On a machine that stood still for two seconds it is not right after it joined.
            match (asks(), joins(&server, "again").await - again) {
                (0, 1.0..) => Ok(()),
                other => Err(format!("asked the device, sent again: {other:?}")),
            }
        },
    )
    .await;
}

#[tokio::test]
async fn a_viewers_picture_loss_reaches_the_device() {
    let server = MediaServer::open(&[]).await;
    let publisher = publish(&server, "cam-1", &[Codec::Vp8]).await;
    let watching = watch(&server, "cam-1", &[Codec::Vp8]).await;
    let sent = send_frames(&publisher, Codec::Vp8, 10, 7).await;
    received(&watching, Codec::Vp8, sent.len()).await;
    let before = publisher.keyframe_requests();
    wait_for("the request to be passed on", PATIENCE, || async {
        // Repeated, because a server may join requests that come close together.
        watching
            .viewer
            .request_keyframe()
            .await
            .map_err(|error| error.to_string())?;
        send_frames(&publisher, Codec::Vp8, 2, 8).await;
        match publisher.keyframe_requests() - before {
            0 => Err("no request".to_owned()),
            _ => Ok(()),
        }
    })
    .await;
}
