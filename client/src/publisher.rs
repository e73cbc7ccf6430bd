//! A WHIP publisher (RFC 9725): one session that sends one track per codec.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rtc::media_stream::MediaStreamTrack;
use rtc::rtp;
use rtc::rtp::packetizer::Payloader;
use rtc::rtp_transceiver::rtp_sender::{RTCRtpCodingParameters, RTCRtpEncodingParameters};
use rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;

use crate::codec::Role;
use crate::http::endpoint;
use crate::peer::{Peer, RESTART_TIMEOUT, SetupClock};
use crate::{ClientError, Codec, Http, Kind, Options, PeerState, Resource, SetupTimes};

/// A connected session that media can be sent on.
pub struct Publisher {
    http: Http,
    resource: Resource,
    peer: Peer,
    tracks: Vec<Track>,
    times: SetupTimes,
}

impl Publisher {
    /// Opens a session at the WHIP endpoint and waits until it is connected.
    ///
    /// `codecs` holds the codec of each track: at most one for video and one for audio (RFC 9725
    /// §4.4 allows one track of a kind).
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the server's words, or why media did not connect; a session
    /// that the server had opened has then been deleted.
    pub async fn connect(
        url: &str,
        http: &Http,
        options: &Options,
        codecs: &[Codec],
    ) -> Result<Self, ClientError> {
        let endpoint = endpoint(url)?;
        let mut clock = SetupClock::start();
        let mut peer = Peer::new(Role::Publisher, codecs, &endpoint, options, None).await?;
        let mut tracks = Vec::new();
        for codec in codecs {
            let track = Track::new(*codec)?;
            peer.connection
                .add_transceiver_from_track(
                    track.local.clone(),
                    Some(RTCRtpTransceiverInit {
                        direction: RTCRtpTransceiverDirection::Sendonly,
                        ..Default::default()
                    }),
                )
                .await
                .map_err(|source| ClientError::Peer {
                    attempt: "add a track",
                    source,
                })?;
            tracks.push(track);
        }
        let offer = peer.offer().await?;
        clock.times.offered = clock.elapsed();
        let (answer, resource) = match http.post_offer(&endpoint, offer).await {
            Ok(opened) => opened,
            Err(error) => {
                peer.close().await;
                return Err(error);
            }
        };
        clock.times.answered = clock.elapsed();
        if let Err(error) = peer.accept_answer(answer, options).await {
            end(http, &resource, &mut peer).await.ok();
            return Err(error);
        }
        clock.times.connected = clock.elapsed();
        Ok(Self {
            http: http.clone(),
            resource,
            peer,
            tracks,
            times: clock.times,
        })
    }

    /// The track of that codec.
    ///
    /// # Errors
    /// [`ClientError::NoTrack`] if it was not among the codecs of [`Self::connect`].
    pub fn track(&self, codec: Codec) -> Result<&Track, ClientError> {
        self.tracks
            .iter()
            .find(|track| track.codec == codec)
            .ok_or(ClientError::NoTrack { codec })
    }

    /// Waits for the next keyframe request (PLI or FIR); several at once count as one.
    pub async fn keyframe_requested(&self) {
        self.peer.tap.keyframe_requested().await;
    }

    /// Keyframe requests received so far.
    pub fn keyframe_requests(&self) -> u64 {
        self.peer.tap.keyframe_requests()
    }

    /// Where the connection stands.
    pub fn state(&self) -> PeerState {
        self.peer.state()
    }

    /// Waits until the session is over, whoever ended it.
    pub async fn over(&self) -> PeerState {
        self.peer.over().await
    }

    /// How long the set-up took.
    pub fn setup_times(&self) -> SetupTimes {
        self.times
    }

    /// The session resource on the server.
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    /// Restarts ICE on new sockets and waits until media can flow again; the session goes on.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the server's words, or why nothing connected. The session is
    /// left as it is: what the server refuses it keeps, and so should its client.
    pub async fn restart_ice(&mut self) -> Result<(), ClientError> {
        self.peer
            .restart_ice(&self.http, &mut self.resource, RESTART_TIMEOUT)
            .await
    }

    /// Ends the session: DELETE, then closes the connection.
    ///
    /// # Errors
    /// [`ClientError`] of the DELETE; the connection is closed in any case.
    pub async fn close(mut self) -> Result<(), ClientError> {
        end(&self.http, &self.resource, &mut self.peer).await
    }

    /// Closes the connection without telling the server over HTTP, as a device that loses power
    /// between two packets would not.
    pub async fn abandon(mut self) {
        self.peer.close().await;
    }
}

pub(crate) async fn end(
    http: &Http,
    resource: &Resource,
    peer: &mut Peer,
) -> Result<(), ClientError> {
    let deleted = http.delete(resource).await;
    peer.close().await;
    deleted
}

/// One outgoing track. Sequence numbers, SSRC and payload type are its own.
///
/// Packets leave in the order of the calls; one task at a time may send.
pub struct Track {
    codec: Codec,
    ssrc: u32,
    local: Arc<TrackLocalStaticRTP>,
    payloader: Mutex<Box<dyn Payloader>>,
    next_sequence: AtomicU16,
    packets: AtomicU64,
}

/// Largest RTP payload that frames are cut into, in bytes. With 12 bytes of header, 16 of SRTP and
/// 28 of UDP over IPv4 a packet stays below the 1 280 bytes that every IPv6 path carries.
const MAX_PAYLOAD: usize = 1_188;

impl Track {
    fn new(codec: Codec) -> Result<Self, ClientError> {
        let ssrc = random();
        let kind = match codec.kind() {
            Kind::Audio => "audio",
            Kind::Video => "video",
        };
        let payloader = codec
            .rtp_codec()
            .payloader()
            .map_err(|source| ClientError::Peer {
                attempt: "find the packet format of the codec",
                source,
            })?;
        Ok(Self {
            codec,
            ssrc,
            local: Arc::new(TrackLocalStaticRTP::new(MediaStreamTrack::new(
                "device".into(),
                kind.into(),
                kind.into(),
                codec.rtp_kind(),
                vec![RTCRtpEncodingParameters {
                    rtp_coding_parameters: RTCRtpCodingParameters {
                        ssrc: Some(ssrc),
                        ..Default::default()
                    },
                    codec: codec.rtp_codec(),
                    ..Default::default()
                }],
            ))),
            payloader: Mutex::new(payloader),
            next_sequence: AtomicU16::new(random() as u16),
            packets: AtomicU64::new(0),
        })
    }

    /// Packets sent so far.
    pub fn packets(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    /// The SSRC that packets carry.
    pub fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Sends one packet whose payload is already in the codec's RTP format.
    ///
    /// `timestamp` is in ticks of the codec's clock rate.
    ///
    /// # Errors
    /// [`ClientError::Peer`] once the connection is closed.
    pub async fn send(
        &self,
        timestamp: u32,
        marker: bool,
        payload: Bytes,
    ) -> Result<(), ClientError> {
        let packet = rtp::Packet {
            header: rtp::Header {
                version: 2,
                payload_type: self.codec.payload_type(Role::Publisher),
                sequence_number: self.next_sequence.fetch_add(1, Ordering::Relaxed),
                timestamp,
                ssrc: self.ssrc,
                marker,
                ..Default::default()
            },
            payload,
        };
        self.local
            .write_rtp(packet)
            .await
            .map_err(|source| ClientError::Peer {
                attempt: "send a packet",
                source,
            })?;
        self.packets.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Cuts an encoded frame into packets and sends them. H.264 is taken as an Annex B byte
    /// stream, AV1 as a temporal unit of OBUs, the others as the bare frame.
    ///
    /// # Errors
    /// As [`Self::send`], and if the frame is not in the codec's format.
    pub async fn send_frame(&self, timestamp: u32, frame: &Bytes) -> Result<(), ClientError> {
        let payloads = self
            .payloader
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .payload(MAX_PAYLOAD, frame)
            .map_err(|source| ClientError::Peer {
                attempt: "cut the frame into packets",
                source,
            })?;
        let last = payloads.len().saturating_sub(1);
        for (index, payload) in payloads.into_iter().enumerate() {
            self.send(timestamp, index == last, payload).await?;
        }
        Ok(())
    }
}

/// A number nobody can foresee, from the seed the standard library takes from the system.
fn random() -> u32 {
    use std::hash::BuildHasher;
    std::hash::RandomState::new().hash_one(0u8) as u32
}
