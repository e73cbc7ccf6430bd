//! How sessions begin and end, as both ends and the metrics see it.

use std::net::UdpSocket;
use std::time::Duration;

use client::{Codec, PeerState, Viewer};
use tests::{MediaServer, wait_for};
use tokio::time::timeout;

use crate::media::{PATIENCE, http, metric_becomes, publish, received, send_frames, watch};

const CLOSED: &str = "media_sessions_closed_total";

#[tokio::test]
async fn sessions_are_counted_while_open_and_gone_when_closed() {
    let server = MediaServer::open(&[]).await;
    let publisher = publish(&server, "cam-1", &[Codec::Vp8]).await;
    let mut viewers = Vec::new();
    for _ in 0..3 {
        viewers.push(watch(&server, "cam-1", &[Codec::Vp8]).await);
    }
    metric_becomes(&server, "media_active_sessions", &[], 4.0).await;
    let device = [("device_id", "cam-1")];
    metric_becomes(&server, "media_sessions_created_total", &device, 4.0).await;
    let sent = send_frames(&publisher, Codec::Vp8, 20, 1).await;
    received(&viewers[0], Codec::Vp8, sent.len()).await;
    wait_for("what is cached to be told", PATIENCE, || async {
        let cached = server.metrics().await.sum("media_cache_bytes", &[]);
        if cached > 0.0 { Ok(()) } else { Err(cached) }
    })
    .await;
    for watching in viewers {
        watching.viewer.close().await.expect("a viewer can leave");
    }
    metric_becomes(&server, "media_active_sessions", &[], 1.0).await;
    publisher.close().await.expect("the device can leave");
    metric_becomes(&server, "media_cache_bytes", &[], 0.0).await;
    metric_becomes(&server, "media_active_sessions", &[], 0.0).await;
    let normal = [("device_id", "cam-1"), ("reason", "normal_close")];
    metric_becomes(&server, CLOSED, &normal, 4.0).await;
}

#[tokio::test]
async fn a_device_that_publishes_again_takes_over_and_its_viewers_stay() {
    let server = MediaServer::open(&[]).await;
    let first = publish(&server, "cam-1", &[Codec::Vp8]).await;
    let watching = watch(&server, "cam-1", &[Codec::Vp8]).await;
    let sent = send_frames(&first, Codec::Vp8, 20, 1).await;
    received(&watching, Codec::Vp8, sent.len()).await;

    let second = publish(&server, "cam-1", &[Codec::Vp8]).await;
    let state = timeout(PATIENCE, first.over())
        .await
        .expect("the old publisher is told");
    assert!(state.is_over());
    let superseded = [("device_id", "cam-1"), ("reason", "superseded")];
    metric_becomes(&server, CLOSED, &superseded, 1.0).await;

    // The server may need a moment to see the new publisher connect, so frames go on.
    let mut seed = 100;
    wait_for("media of the new publisher", PATIENCE, || {
        seed += 1;
        let (second, watching) = (&second, &watching);
        async move {
            let sent = send_frames(second, Codec::Vp8, 20, seed).await;
            let got = watching.record.payloads(Codec::Vp8);
            match got.contains(&sent[0]) {
                true => Ok(()),
                false => Err(format!("{} packets", got.len())),
            }
        }
    })
    .await;
    assert_eq!(watching.viewer.state(), PeerState::Connected);
    let reception = watching.viewer.reception();
    assert_eq!(reception.streams().len(), 1, "one SSRC: {reception:?}");
    assert_eq!(reception.lost(), 0, "no gap: {reception:?}");
    first.abandon().await;
}

#[tokio::test]
async fn a_session_that_is_deleted_is_told_and_gone() {
    let server = MediaServer::open(&[]).await;
    let publisher = publish(&server, "cam-1", &[Codec::Vp8]).await;
    let watching = watch(&server, "cam-1", &[Codec::Vp8]).await;
    let sent = send_frames(&publisher, Codec::Vp8, 5, 1).await;
    received(&watching, Codec::Vp8, sent.len()).await;
    http()
        .delete(watching.viewer.resource())
        .await
        .expect("the resource can be deleted");
    let state = timeout(Duration::from_secs(5), watching.viewer.over())
        .await
        .expect("the viewer is told");
    assert_eq!(state, PeerState::Closed);
    metric_becomes(&server, "media_active_sessions", &[], 1.0).await;
    http()
        .delete(publisher.resource())
        .await
        .expect("the resource can be deleted");
    let state = timeout(Duration::from_secs(5), publisher.over())
        .await
        .expect("the device is told");
    assert_eq!(state, PeerState::Closed);
    metric_becomes(&server, "media_active_sessions", &[], 0.0).await;
}

#[tokio::test]
async fn a_peer_that_hangs_up_needs_no_delete() {
    let server = MediaServer::open(&[]).await;
    let publisher = publish(&server, "cam-1", &[Codec::Vp8]).await;
    let watching = watch(&server, "cam-1", &[Codec::Vp8]).await;
    watching.viewer.abandon().await;
    metric_becomes(&server, "media_active_sessions", &[], 1.0).await;
    publisher.abandon().await;
    metric_becomes(&server, "media_active_sessions", &[], 0.0).await;
}

#[tokio::test]
async fn without_a_device_a_viewer_is_refused_and_told_when_to_come_back() {
    let server = MediaServer::open(&[]).await;
    let refused = Viewer::connect(
        &server.url("/whep/nobody"),
        &http(),
        &client::Options::default(),
        &[Codec::Vp8],
        None,
    )
    .await;
    match refused {
        Err(client::ClientError::Refused {
            status: 409,
            problem,
            retry_after_seconds: Some(seconds),
            ..
        }) => {
            assert!(seconds > 0);
            assert!(problem.detail.contains("nobody"), "{problem}");
        }
        Err(error) => panic!("another refusal: {error:?}"),
        Ok(_) => panic!("a viewer of nothing was let in"),
    }
}

#[tokio::test]
async fn random_datagrams_get_no_answer_and_harm_no_session() {
    let server = MediaServer::open(&[]).await;
    let publisher = publish(&server, "cam-1", &[Codec::Vp8]).await;
    let watching = watch(&server, "cam-1", &[Codec::Vp8]).await;
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .expect("a timeout");
    let mut noise = 0x9e37_79b9_7f4a_7c15u64;
    for index in 0..1_000usize {
        let datagram: Vec<u8> = (0..index % 1_300)
            .map(|_| {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                noise as u8
            })
            .collect();
        socket.send_to(&datagram, server.media).expect("it leaves");
    }
    let sent = send_frames(&publisher, Codec::Vp8, 30, 9).await;
    assert!(received(&watching, Codec::Vp8, sent.len()).await == sent);
    let answer = socket.recv_from(&mut [0; 2_048]);
    assert!(answer.is_err(), "noise was answered: {answer:?}");
    metric_becomes(&server, "media_active_sessions", &[], 2.0).await;
}
