//! The client against a peer in this process that answers with a PeerConnection of its own: proves
//! signalling, packet formats and teardown without any server of ours.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::synthetic::FrameSource;
use client::{
    ClientError, Codec, Http, HttpOptions, Options, PeerState, Publisher, ReceivedPacket, Viewer,
};
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::transport::RTCDtlsRole;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodingParameters, RTCRtpEncodingParameters, RtpCodecKind,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler,
    RTCConfigurationBuilder, RTCIceGatheringState, RTCPeerConnectionState, RTCSessionDescription,
    Registry, SettingEngineBuilder, register_default_interceptors,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// The answering side of one session.
struct Far {
    gathered: Notify,
    connected: Notify,
    payloads: mpsc::UnboundedSender<Bytes>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Far {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.gathered.notify_one();
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        if state == RTCPeerConnectionState::Connected {
            self.connected.notify_one();
        }
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let payloads = self.payloads.clone();
        tokio::spawn(async move {
            while let Some(event) = track.poll().await {
                let TrackRemoteEvent::OnRtpPacket(packet) = event else {
                    continue;
                };
                if payloads.send(packet.payload).is_err() {
                    return;
                }
                for media_ssrc in track.ssrcs().await {
                    let request = PictureLossIndication {
                        sender_ssrc: 1,
                        media_ssrc,
                    };
                    track.write_rtcp(vec![Box::new(request)]).await.ok();
                }
            }
        });
    }
}

struct FarEnd {
    connection: Arc<dyn PeerConnection>,
    events: Arc<Far>,
    payloads: mpsc::UnboundedReceiver<Bytes>,
    track: Option<Arc<TrackLocalStaticRTP>>,
}

const FAR_SSRC: u32 = 0x5eed;

/// The payload type that a viewer offers VP8 under; the answer keeps it.
const VIEWER_VP8: u8 = 121;

fn vp8() -> RTCRtpCodec {
    RTCRtpCodec {
        mime_type: "video/VP8".into(),
        clock_rate: 90_000,
        ..RTCRtpCodec::default()
    }
}

impl FarEnd {
    async fn new(sends: bool) -> Self {
        let mut media_engine = MediaEngine::default();
        media_engine.register_default_codecs().expect("codecs");
        let registry = register_default_interceptors(Registry::new(), &mut media_engine)
            .expect("interceptors");
        let (sender, payloads) = mpsc::unbounded_channel();
        let events = Arc::new(Far {
            gathered: Notify::new(),
            connected: Notify::new(),
            payloads: sender,
        });
        let connection: Arc<dyn PeerConnection> = Arc::new(
            PeerConnectionBuilder::new()
                .with_configuration(RTCConfigurationBuilder::new().build())
                .with_media_engine(media_engine)
                .with_interceptor_registry(registry)
                .with_setting_engine(
                    SettingEngineBuilder::new()
                        // As a server's.
                        .with_answering_dtls_role(RTCDtlsRole::Server)
                        .build(),
                )
                .with_handler(events.clone())
                .with_udp_addrs(vec!["127.0.0.1:0"])
                .build()
                .await
                .expect("a connection"),
        );
        let mut track = None;
        if sends {
            let encoding = RTCRtpEncodingParameters {
                rtp_coding_parameters: RTCRtpCodingParameters {
                    ssrc: Some(FAR_SSRC),
                    ..Default::default()
                },
                codec: vp8(),
                ..Default::default()
            };
            let local = Arc::new(TrackLocalStaticRTP::new(MediaStreamTrack::new(
                "far".into(),
                "video".into(),
                "video".into(),
                RtpCodecKind::Video,
                vec![encoding],
            )));
            connection.add_track(local.clone()).await.expect("a track");
            track = Some(local);
        }
        Self {
            connection,
            events,
            payloads,
            track,
        }
    }

    async fn answer(&self, offer: String) -> String {
        let offer = RTCSessionDescription::offer(offer).expect("an offer");
        self.connection
            .set_remote_description(offer)
            .await
            .expect("the offer is taken");
        let answer = self
            .connection
            .create_answer(None)
            .await
            .expect("an answer");
        self.connection
            .set_local_description(answer)
            .await
            .expect("the answer is taken");
        self.events.gathered.notified().await;
        let description = self.connection.local_description().await;
        description.expect("a local description").sdp
    }

    /// Sends those payloads as one frame.
    async fn send(&self, payloads: &[Bytes]) {
        let track = self.track.as_ref().expect("the far end sends");
        for (index, payload) in payloads.iter().enumerate() {
            let mut packet = rtc::rtp::Packet::default();
            packet.header.version = 2;
            packet.header.payload_type = VIEWER_VP8;
            packet.header.sequence_number = 65_530u16.wrapping_add(index as u16);
            packet.header.ssrc = FAR_SSRC;
            packet.header.marker = index + 1 == payloads.len();
            packet.payload = payload.clone();
            track.write_rtp(packet).await.expect("sent");
        }
    }
}

/// One HTTP request on a connection of its own: its head and its body.
async fn request(listener: &TcpListener) -> (TcpStream, String, String) {
    let (mut stream, _) = listener.accept().await.expect("a connection");
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4_096];
        let read = stream.read(&mut chunk).await.expect("a request");
        assert!(read > 0, "the request ended early");
        bytes.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map_or(0, |(_, value)| value.parse().expect("a length"));
        if body.len() >= length {
            return (stream, head.to_owned(), body.to_owned());
        }
    }
}

async fn respond(mut stream: TcpStream, status: &str, headers: &str, body: &str) {
    let response = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    stream
        .write_all(response.as_bytes())
        .await
        .expect("the response leaves");
}

/// Answers one POST with the far end, and the DELETE after it.
async fn serve(listener: TcpListener, far: &FarEnd) {
    let (stream, head, offer) = request(&listener).await;
    assert!(head.starts_with("POST /in/cam-1 "), "{head}");
    assert!(head.contains("authorization: Bearer secret"), "{head}");
    assert!(head.contains("content-type: application/sdp"), "{head}");
    let answer = far.answer(offer).await;
    let headers = "content-type: application/sdp\r\nlocation: ../sessions/7\r\netag: \"a\"\r\n";
    respond(stream, "201 Created", headers, &answer).await;
    let (stream, head, _) = request(&listener).await;
    assert!(head.starts_with("DELETE /sessions/7 "), "{head}");
    assert!(head.contains("authorization: Bearer secret"), "{head}");
    respond(stream, "200 OK", "", "").await;
}

fn http() -> Http {
    Http::new(&HttpOptions {
        token: Some("secret".into()),
        ..HttpOptions::default()
    })
    .expect("an HTTP client")
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    (listener, format!("http://{address}/in/cam-1"))
}

#[tokio::test]
async fn a_publisher_connects_sends_is_asked_for_keyframes_and_deletes_its_session() {
    let (listener, url) = listen().await;
    let mut far = FarEnd::new(false).await;
    let device = async {
        let publisher = Publisher::connect(&url, &http(), &Options::default(), &[Codec::Vp8])
            .await
            .expect("a session");
        assert_eq!(publisher.state(), PeerState::Connected);
        assert_eq!(publisher.resource().etag.as_deref(), Some("\"a\""));
        let track = publisher.track(Codec::Vp8).expect("the track");
        let mut source = FrameSource::new(Codec::Vp8, 3, 300, 1);
        let mut sent = Vec::new();
        for (index, payload) in source.frame(true).into_iter().enumerate() {
            sent.push(payload.clone());
            track.send(0, index == 2, payload).await.expect("sent");
        }
        timeout(PATIENCE, publisher.keyframe_requested())
            .await
            .expect("the far end asks for a keyframe");
        assert!(publisher.keyframe_requests() > 0);
        publisher.close().await.expect("the session is deleted");
        sent
    };
    let (sent, ()) = timeout(PATIENCE, async {
        tokio::join!(device, serve(listener, &far))
    })
    .await
    .expect("a session's whole life");
    let mut got = Vec::new();
    while got.len() < sent.len() {
        let payload = timeout(PATIENCE, far.payloads.recv()).await;
        got.push(payload.expect("a packet").expect("the far end lives"));
    }
    assert_eq!(got, sent);
    far.connection.close().await.expect("closed");
}

#[tokio::test]
async fn a_viewer_counts_what_it_gets_hands_it_on_and_deletes_its_session() {
    let (listener, url) = listen().await;
    let far = FarEnd::new(true).await;
    let (sink, mut arrived) = mpsc::unbounded_channel();
    let watching = async {
        let sink = move |packet: &ReceivedPacket<'_>| {
            assert_eq!(packet.codec, Some(Codec::Vp8));
            sink.send(packet.payload.clone()).ok();
        };
        let viewer = Viewer::connect(
            &url,
            &http(),
            &Options::default(),
            &Codec::ALL,
            Some(Arc::new(sink)),
        )
        .await
        .expect("a session");
        far.events.connected.notified().await;
        // More than the packets that pass through to the connection.
        let sent: Vec<Bytes> = FrameSource::new(Codec::Vp8, 40, 300, 2).frame(true);
        far.send(&sent).await;
        for payload in &sent {
            let got = timeout(PATIENCE, arrived.recv()).await.expect("a packet");
            assert_eq!(got.as_ref(), Some(payload));
        }
        let reception = viewer.reception();
        assert_eq!(reception.packets(), 40);
        assert_eq!(reception.lost(), 0);
        assert_eq!(reception.video_frames(), 1);
        let first = viewer.first_packet().await;
        assert!(first >= viewer.setup_times().answered);
        viewer.close().await.expect("the session is deleted");
    };
    timeout(PATIENCE, async {
        tokio::join!(watching, serve(listener, &far))
    })
    .await
    .expect("a session's whole life");
    far.connection.close().await.expect("closed");
}

/// Carries datagrams between a viewer and the far end, whose address is told later. From the end of the
/// far end's handshake on it holds what that sends, up to `held` packets of media, and then hands all of
/// it over in one go: the viewer's side had no processor meanwhile.
async fn stalling_relay(relay: &UdpSocket, far: oneshot::Receiver<SocketAddr>, held: usize) {
    let far = far.await.expect("an address");
    let (mut viewer, mut waiting, mut stalls) = (None, Vec::new(), true);
    let mut buffer = [0; 2_000];
    loop {
        let (len, from) = relay.recv_from(&mut buffer).await.expect("a datagram");
        let datagram = &buffer[..len];
        if from != far {
            viewer = Some(from);
            relay.send_to(datagram, far).await.expect("carried");
            continue;
        }
        let to = viewer.expect("the viewer speaks first");
        // ChangeCipherSpec, with or before Finished.
        if !stalls || waiting.is_empty() && datagram[0] != 20 {
            relay.send_to(datagram, to).await.expect("carried");
            continue;
        }
        waiting.push(datagram.to_vec());
        let is_media = |d: &&Vec<u8>| d[0] == 0x80 && d[1] & 0x7f == VIEWER_VP8;
        if waiting.iter().filter(is_media).count() == held {
            stalls = false;
            // Without waiting in between: nothing else runs on this thread until all are there.
            for datagram in waiting.drain(..) {
                relay.try_send_to(&datagram, to).expect("room for it");
            }
        }
    }
}

#[tokio::test]
async fn media_that_arrives_together_with_the_end_of_the_handshake_is_not_lost() {
    let (listener, url) = listen().await;
    let far = FarEnd::new(true).await;
    let relay = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    relay.writable().await.expect("a socket that can send");
    let options = Options {
        media_address: Some(relay.local_addr().expect("an address")),
        ..Options::default()
    };
    let (tell, far_address) = oneshot::channel();
    let (sink, mut arrived) = mpsc::unbounded_channel();
    let sent: Vec<Bytes> = FrameSource::new(Codec::Vp8, 20, 300, 2).frame(true);
    let watching = async {
        let sink = move |packet: &ReceivedPacket<'_>| {
            sink.send(packet.payload.clone()).ok();
        };
        let viewer = Viewer::connect(&url, &http(), &options, &[Codec::Vp8], Some(Arc::new(sink)))
            .await
            .expect("a session");
        for (index, payload) in sent.iter().enumerate() {
            let got = timeout(PATIENCE, arrived.recv()).await;
            let got = got.unwrap_or_else(|_| panic!("only {index} packets came"));
            assert_eq!(got.as_ref(), Some(payload), "packet {index}");
        }
        assert_eq!(viewer.reception().lost(), 0);
        viewer.abandon().await;
    };
    let serving = async {
        let (stream, _, offer) = request(&listener).await;
        let answer = far.answer(offer).await;
        let candidate = answer.lines().find(|line| line.starts_with("a=candidate:"));
        let fields: Vec<&str> = candidate.expect("a candidate").split(' ').collect();
        let address = format!("{}:{}", fields[4], fields[5]);
        tell.send(address.parse().expect("an address"))
            .expect("the relay waits");
        let headers = "content-type: application/sdp\r\nlocation: /7\r\n";
        respond(stream, "201 Created", headers, &answer).await;
        far.events.connected.notified().await;
        far.send(&sent).await;
    };
    let lived = async {
        tokio::select! {
            _ = async { tokio::join!(watching, serving) } => {}
            () = stalling_relay(&relay, far_address, sent.len()) => {}
        }
    };
    timeout(2 * PATIENCE, lived)
        .await
        .expect("a session's whole life");
    far.connection.close().await.expect("closed");
}

#[tokio::test]
async fn a_refusal_is_told_in_the_servers_words() {
    let (listener, url) = listen().await;
    let refuse = async {
        let (stream, _, _) = request(&listener).await;
        let headers = "content-type: application/problem+json\r\nretry-after: 3\r\n";
        let body = r#"{"title":"Conflict","status":409,"detail":"cam-1 is not live"}"#;
        respond(stream, "409 Conflict", headers, body).await;
    };
    let (http, options) = (http(), Options::default());
    let (refused, ()) = tokio::join!(
        Viewer::connect(&url, &http, &options, &[Codec::Vp8], None),
        refuse
    );
    let Err(error) = refused else {
        panic!("a refusal opened a session");
    };
    assert_eq!(error.status(), Some(409));
    assert!(error.to_string().contains("cam-1 is not live"), "{error}");
    assert!(matches!(
        error,
        ClientError::Refused {
            retry_after_seconds: Some(3),
            ..
        }
    ));
}

#[tokio::test]
async fn a_created_session_without_a_location_is_a_broken_answer() {
    let (listener, url) = listen().await;
    let answer = async {
        let (stream, _, _) = request(&listener).await;
        let headers = "content-type: application/sdp\r\n";
        respond(stream, "201 Created", headers, "v=0\r\n").await;
    };
    let (http, options) = (http(), Options::default());
    let (refused, ()) = tokio::join!(
        Publisher::connect(&url, &http, &options, &[Codec::Vp8]),
        answer
    );
    let Err(error) = refused else {
        panic!("a broken answer opened a session");
    };
    assert!(error.to_string().contains("Location"), "{error}");
}
