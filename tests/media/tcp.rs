//! Media over TCP, for clients that can reach nothing else.

use std::net::SocketAddr;
use std::time::Duration;

use client::{Codec, Options, PeerState, Publisher, Transport};
use std::time::Instant;
use tests::{MediaServer, wait_for};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

use crate::media::{
    GAP, PATIENCE, Watching, metric_becomes, publish, publish_with, received, send_frames, watch,
    watch_with,
};

fn over_tcp() -> Options {
    Options {
        transport: Transport::Tcp,
        ..Options::default()
    }
}

#[tokio::test]
async fn a_device_and_viewers_without_udp_get_the_same_media_as_others() {
    // Connections arrive at any shard, whichever has the session.
    let server = MediaServer::open(&["--shards", "3"]).await;
    let codecs = [Codec::H264, Codec::Opus];
    let publisher = publish_with(&server, "cam-1", &codecs, &over_tcp()).await;
    let mut viewers = vec![watch(&server, "cam-1", &codecs).await];
    for _ in 0..5 {
        viewers.push(watch_with(&server, "cam-1", &codecs, &over_tcp()).await);
    }
    metric_becomes(&server, "media_tcp_connections", &[], 6.0).await;
    let (video, sound) = tokio::join!(
        send_frames(&publisher, Codec::H264, 60, 1),
        send_frames(&publisher, Codec::Opus, 60, 2),
    );
    for (index, watching) in viewers.iter().enumerate() {
        let got = received(watching, Codec::H264, video.len()).await;
        assert!(got == video, "viewer {index}: other video");
        let got = received(watching, Codec::Opus, sound.len()).await;
        assert!(got == sound, "viewer {index}: other sound");
        assert_eq!(watching.viewer.reception().lost(), 0, "viewer {index}");
    }
    for watching in viewers {
        watching.viewer.close().await.expect("the session ends");
    }
    metric_becomes(&server, "media_tcp_connections", &[], 1.0).await;
}

/// A process that is late for a tenth of a second now and then takes note of both late, or of neither.
#[tokio::test]
async fn a_viewer_is_connected_before_its_first_packet_however_late_its_tasks_run() {
    let server = MediaServer::open(&[]).await;
    let publisher = publish(&server, "cam-1", &[Codec::Vp8]).await;
    send_frames(&publisher, Codec::Vp8, 20, 1).await;
    let busy = tokio::spawn(async {
        loop {
            std::thread::sleep(Duration::from_millis(100));
            tokio::task::yield_now().await;
        }
    });
    for options in [Options::default(), over_tcp()] {
        let transport = options.transport;
        let viewer = watch_with(&server, "cam-1", &[Codec::Vp8], &options).await;
        let first = viewer.viewer.first_packet().await;
        let connected = viewer.viewer.setup_times().connected;
        assert!(
            first >= connected,
            "over {transport:?} a packet after {first:?}, connected after {connected:?}"
        );
    }
    busy.abort();
}

#[tokio::test]
async fn ice_restarts_over_tcp_on_a_new_connection() {
    let server = MediaServer::open(&[]).await;
    let publisher = publish(&server, "cam-1", &[Codec::Vp8]).await;
    let mut watching = watch_with(&server, "cam-1", &[Codec::Vp8], &over_tcp()).await;
    let first = send_frames(&publisher, Codec::Vp8, 20, 1).await;
    received(&watching, Codec::Vp8, first.len()).await;
    watching.viewer.restart_ice().await.expect("ICE restarts");
    let again = received(&watching, Codec::Vp8, 2 * first.len()).await;
    assert!(again[first.len()..] == first, "from the cached keyframe on");
    let second = send_frames(&publisher, Codec::Vp8, 20, 2).await;
    let got = received(&watching, Codec::Vp8, again.len() + second.len()).await;
    assert!(got[again.len()..] == second, "to the byte");
    assert_eq!(watching.viewer.state(), PeerState::Connected);
}

#[tokio::test]
async fn without_tcp_a_server_says_so_and_listens_on_udp_alone() {
    let server = MediaServer::open(&["--media-tcp", "false"]).await;
    let publisher = publish(&server, "cam-1", &[Codec::Vp8]).await;
    let refused = tokio::net::TcpStream::connect(server.media).await;
    assert!(refused.is_err(), "{refused:?}");
    let url = server.url("/whep/cam-1");
    let http = crate::media::http();
    let viewer = wait_for("an answer", PATIENCE, || async {
        match client::Viewer::connect(&url, &http, &over_tcp(), &[Codec::Vp8], None).await {
            Err(error) if error.status() == Some(409) => Err(error),
            other => Ok(other.err().map(|error| error.to_string())),
        }
    })
    .await;
    let error = viewer.expect("no viewer over TCP");
    assert!(error.contains("no TCP candidate"), "{error}");
    drop(publisher);
}

/// Carries one connection to the server; what comes back waits while it is told to.
struct Narrow {
    at: SocketAddr,
    paused: watch::Sender<bool>,
}

impl Narrow {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let at = listener.local_addr().expect("an address");
        let (paused, mut state) = watch::channel(false);
        tokio::spawn(async move {
            let (client, _) = listener.accept().await?;
            let socket = TcpSocket::new_v4()?;
            // Little waits here, so that what does not get through is soon the server's to deal with.
            socket.set_recv_buffer_size(16 * 1024)?;
            let (mut from_server, mut to_server) = socket.connect(server).await?.into_split();
            let (mut from_client, mut to_client) = client.into_split();
            let up = tokio::io::copy(&mut from_client, &mut to_server);
            let down = async {
                let mut bytes = [0; 4096];
                loop {
                    if state.wait_for(|paused| !paused).await.is_err() {
                        return Ok(0);
                    }
                    let len = from_server.read(&mut bytes).await?;
                    if len == 0 {
                        return Ok(0);
                    }
                    to_client.write_all(&bytes[..len]).await?;
                }
            };
            tokio::select! { ended = up => ended, ended = down => ended }
        });
        Self { at, paused }
    }

    fn pause(&self, paused: bool) {
        self.paused.send_replace(paused);
    }
}

async fn dropped(server: &MediaServer) -> f64 {
    let metrics = server.metrics().await;
    metrics.sum("media_drops_total", &[("where", "tcp_full")])
}

/// Sends until video for somebody is withheld; returns the payloads.
async fn send_until_withheld(server: &MediaServer, publisher: &Publisher) -> Vec<Vec<u8>> {
    let started = tokio::time::Instant::now();
    let mut sent = Vec::new();
    for seed in 100.. {
        sent.extend(send_frames(publisher, Codec::Vp8, 100, seed).await);
        if dropped(server).await > 0.0 {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{} packets sent", sent.len());
    }
    sent
}

#[tokio::test]
async fn a_slow_viewer_misses_video_up_to_a_keyframe_and_delays_nobody() {
    let server = MediaServer::open(&[]).await;
    let publisher = publish(&server, "cam-1", &[Codec::Vp8]).await;
    let narrow = Narrow::to(server.media).await;
    let slow = Options {
        media_address: Some(narrow.at),
        ..over_tcp()
    };
    let slow = watch_with(&server, "cam-1", &[Codec::Vp8], &slow).await;
    let others: [Watching; 2] = [
        watch_with(&server, "cam-1", &[Codec::Vp8], &over_tcp()).await,
        watch(&server, "cam-1", &[Codec::Vp8]).await,
    ];
    let mut sent = send_frames(&publisher, Codec::Vp8, 20, 1).await;
    received(&slow, Codec::Vp8, sent.len()).await;

    narrow.pause(true);
    let paused = Instant::now();
    sent.extend(send_until_withheld(&server, &publisher).await);
    for watching in &others {
        let (gap, time) = (watching.record.largest_gap(paused), paused.elapsed());
        println!("without a packet for {gap:?} at most, in {time:?} beside one that does not read");
        // Far more than any machine takes, and far less than the slow one waits.
        assert!(gap < GAP, "{gap:?}");
        let got = received(watching, Codec::Vp8, sent.len()).await;
        assert!(got == sent, "the others get all of it");
        assert_eq!(watching.viewer.reception().lost(), 0);
    }

    let asked = publisher.keyframe_requests();
    narrow.pause(false);
    wait_for("a keyframe to be asked for", PATIENCE, || async {
        match publisher.keyframe_requests() {
            more if more > asked => Ok(()),
            same => Err(same),
        }
    })
    .await;
    let fresh = send_frames(&publisher, Codec::Vp8, 20, 2).await;
    wait_for("the slow viewer to go on", PATIENCE, || async {
        let got = slow.record.payloads(Codec::Vp8);
        match got.ends_with(&fresh) {
            true => Ok(()),
            false => Err(format!("{} packets, {:?}", got.len(), slow.viewer.state())),
        }
    })
    .await;
    assert!(slow.record.len() < sent.len(), "it missed some");
    let hits = server.metrics().await;
    assert_eq!(
        hits.sum("media_drops_total", &[("where", "tcp_closed")]),
        0.0
    );
}
