//! ICE restarts with real media: both ends keep their session, keys and streams on a new socket.

use client::{Codec, PeerState};
use tests::MediaServer;

use crate::media::{metric_becomes, publish, received, send_frames, watch};

#[tokio::test]
async fn a_viewer_goes_on_from_a_new_socket_with_the_stream_that_it_had() {
    let server = MediaServer::open(&[]).await;
    let publisher = publish(&server, "cam-1", &[Codec::Vp8]).await;
    let mut watching = watch(&server, "cam-1", &[Codec::Vp8]).await;
    let first = send_frames(&publisher, Codec::Vp8, 20, 1).await;
    received(&watching, Codec::Vp8, first.len()).await;
    let (etag, asked) = (
        watching.viewer.resource().etag.clone(),
        publisher.keyframe_requests(),
    );

    watching.viewer.restart_ice().await.expect("ICE restarts");
    assert_ne!(watching.viewer.resource().etag, etag);
    let again = received(&watching, Codec::Vp8, 2 * first.len()).await;
    assert!(again[first.len()..] == first, "from the cached keyframe on");
    let second = send_frames(&publisher, Codec::Vp8, 20, 2).await;
    let got = received(&watching, Codec::Vp8, again.len() + second.len()).await;
    assert!(got[again.len()..] == second, "to the byte");
    assert_eq!(publisher.keyframe_requests(), asked, "none was needed");
    metric_becomes(&server, "media_join_total", &[("served", "again")], 1.0).await;
    let reception = watching.viewer.reception();
    assert_eq!(reception.streams().len(), 1, "one SSRC: {reception:?}");
    assert_eq!(reception.lost(), 0, "no gap: {reception:?}");
    assert_eq!(watching.viewer.state(), PeerState::Connected);
    metric_becomes(&server, "media_ice_restarts_total", &[], 1.0).await;
    metric_becomes(&server, "media_sessions_created_total", &[], 2.0).await;
    metric_becomes(&server, "media_active_sessions", &[], 2.0).await;
}

#[tokio::test]
async fn a_publisher_goes_on_from_a_new_socket_and_its_viewers_see_nothing() {
    let server = MediaServer::open(&[]).await;
    let mut publisher = publish(&server, "cam-1", &[Codec::Vp8]).await;
    let watching = watch(&server, "cam-1", &[Codec::Vp8]).await;
    let first = send_frames(&publisher, Codec::Vp8, 20, 1).await;
    received(&watching, Codec::Vp8, first.len()).await;
    for restart in 1..=3 {
        publisher.restart_ice().await.expect("ICE restarts");
        let before = watching.record.payloads(Codec::Vp8).len();
        let sent = send_frames(&publisher, Codec::Vp8, 20, 10 + restart).await;
        let got = received(&watching, Codec::Vp8, before + sent.len()).await;
        assert_eq!(got[before..], sent, "restart {restart}");
    }
    let reception = watching.viewer.reception();
    assert_eq!(reception.streams().len(), 1, "one SSRC: {reception:?}");
    assert_eq!(reception.lost(), 0, "no gap: {reception:?}");
    metric_becomes(&server, "media_sessions_created_total", &[], 2.0).await;
}
