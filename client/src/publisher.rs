//! A WHIP publisher (RFC 9725): one session that sends one track per codec.

use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rtc::media_stream::MediaStreamTrack;
use rtc::rtp;
use rtc::rtp::packetizer::Payloader;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodingParameters, RTCRtpEncodingParameters, RTCRtpRtxParameters,
};
use rtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;

use crate::codec::Role;
use crate::http::endpoint;
use crate::peer::{Peer, RESTART_TIMEOUT, RID_EXTENSION};
use crate::setup::SetupClock;
use crate::{ClientError, Codec, Control, Http, Kind, Options, PeerState, Resource, SetupTimes};

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
            let rids = match codec.kind() {
                Kind::Video => &options.rids[..],
                Kind::Audio => &[],
            };
            let of_codec = Track::layers(*codec, rids, options.retransmission)?;
            let local = of_codec[0].local.clone();
            let failed = |source| ClientError::Peer {
                attempt: "add a track",
                source,
            };
            let transceiver = peer
                .connection
                .add_transceiver_from_track(
                    local,
                    Some(RTCRtpTransceiverInit {
                        direction: RTCRtpTransceiverDirection::Sendonly,
                        ..Default::default()
                    }),
                )
                .await
                .map_err(failed)?;
            let offered: Vec<_> = codec.offered().collect();
            if offered.len() > 1 {
                let parameters = offered.iter().map(|own| own.parameters(Role::Publisher));
                let preferred = transceiver.set_codec_preferences(parameters.collect());
                preferred.await.map_err(failed)?;
            }
            tracks.extend(of_codec);
        }
        let offer = peer.offer().await?;
        let extension = rid_extension(&offer);
        for track in &mut tracks {
            track.rid_extension = extension;
        }
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
        clock.connected(&peer);
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

    /// All tracks; of video that has layers, one for each.
    pub fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    /// The track of that simulcast layer.
    ///
    /// # Errors
    /// [`ClientError::NoLayer`] if it was not among [`Options::rids`].
    pub fn layer(&self, rid: &str) -> Result<&Track, ClientError> {
        self.tracks
            .iter()
            .find(|track| track.rid == rid && !rid.is_empty())
            .ok_or_else(|| ClientError::NoLayer {
                rid: rid.to_owned(),
            })
    }

    /// Keyframe requests received so far for one track.
    pub fn keyframe_requests_of(&self, track: &Track) -> u64 {
        self.peer.tap.keyframe_requests_of(track.ssrc)
    }

    /// Waits for the next keyframe request (PLI or FIR); several at once count as one.
    pub async fn keyframe_requested(&self) {
        self.peer.tap.keyframe_requested().await;
    }

    /// Keyframe requests received so far.
    pub fn keyframe_requests(&self) -> u64 {
        self.peer.tap.keyframe_requests()
    }

    /// Packets that the server's feedback says arrived, with [`Options::transport_cc`].
    pub fn acknowledged(&self) -> u64 {
        self.peer.tap.acknowledged()
    }

    /// Bits per second that the server asked to keep last (REMB), with [`Options::transport_cc`].
    pub fn bandwidth(&self) -> Option<u64> {
        self.peer.tap.bandwidth()
    }

    /// The data channel `control`, with [`Options::control`].
    pub fn control(&self) -> Option<&Control> {
        self.peer.control.as_ref()
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

    /// The server's last answer, as it came: a restart's is put together from its fragment.
    pub fn answer(&self) -> &str {
        self.peer.answer()
    }

    /// The session resource on the server.
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    /// Whether the server still has the session.
    ///
    /// # Errors
    /// [`ClientError`] if the server can't be asked, or answers with 5xx.
    pub async fn exists(&self) -> Result<bool, ClientError> {
        self.http.exists(&self.resource).await
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
    /// Of a simulcast layer; else empty.
    rid: String,
    /// Id of the header extension that carries it.
    rid_extension: Option<u8>,
    local: Arc<TrackLocalStaticRTP>,
    payloader: Mutex<Box<dyn Payloader>>,
    next_sequence: AtomicU16,
    packets: AtomicU64,
}

/// Largest RTP payload that frames are cut into, in bytes. With 12 bytes of header, 16 of SRTP and
/// 28 of UDP over IPv4 a packet stays below the 1 280 bytes that every IPv6 path carries.
const MAX_PAYLOAD: usize = 1_188;

impl Track {
    /// A track for each layer, or one without layers. They share the local track: to the offer they
    /// are one.
    fn layers(
        codec: Codec,
        rids: &[String],
        retransmission: bool,
    ) -> Result<Vec<Self>, ClientError> {
        let kind = match codec.kind() {
            Kind::Audio => "audio",
            Kind::Video => "video",
        };
        let single = [String::new()];
        let rids = if rids.is_empty() { &single } else { rids };
        let layers: Vec<(&String, u32)> = rids.iter().map(|rid| (rid, random())).collect();
        // The retransmissions of layers would have to say whose they are (RFC 8852 §3.2).
        let repaired = retransmission && codec.kind() == Kind::Video && rids == single;
        let encodings = layers.iter().map(|(rid, ssrc)| RTCRtpEncodingParameters {
            rtp_coding_parameters: RTCRtpCodingParameters {
                rid: (*rid).clone(),
                ssrc: Some(*ssrc),
                rtx: repaired.then(|| RTCRtpRtxParameters { ssrc: random() }),
                ..Default::default()
            },
            codec: codec.parameters(Role::Publisher).rtp_codec,
            ..Default::default()
        });
        let local = Arc::new(TrackLocalStaticRTP::new(MediaStreamTrack::new(
            "device".into(),
            kind.into(),
            kind.into(),
            codec.rtp_kind(),
            encodings.collect(),
        )));
        layers
            .into_iter()
            .map(|(rid, ssrc)| {
                // RED has none of its own: its payloads come ready.
                let blocks = codec.offered().last().unwrap_or(codec);
                let payloader = blocks.rtp_codec().payloader();
                Ok(Self {
                    codec,
                    ssrc,
                    rid: rid.clone(),
                    rid_extension: None,
                    local: local.clone(),
                    payloader: Mutex::new(payloader.map_err(|source| ClientError::Peer {
                        attempt: "find the packet format of the codec",
                        source,
                    })?),
                    next_sequence: AtomicU16::new(random() as u16),
                    packets: AtomicU64::new(0),
                })
            })
            .collect()
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
        let failed = |source| ClientError::Peer {
            attempt: "send a packet",
            source,
        };
        let mut packet = rtp::Packet {
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
        if let Some(id) = self.rid_extension.filter(|_| !self.rid.is_empty()) {
            let rid = Bytes::copy_from_slice(self.rid.as_bytes());
            packet.header.set_extension(id, rid).map_err(failed)?;
        }
        self.local.write_rtp(packet).await.map_err(failed)?;
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

/// The id that an offer gives the extension which names layers.
fn rid_extension(offer: &str) -> Option<u8> {
    offer.lines().find_map(|line| {
        let (id, uri) = line.strip_prefix("a=extmap:")?.split_once(' ')?;
        let id = id.split('/').next()?.parse().ok()?;
        (uri.trim() == RID_EXTENSION).then_some(id)
    })
}

/// A number nobody can foresee, from the seed the standard library takes from the system.
fn random() -> u32 {
    use std::hash::BuildHasher;
    std::hash::RandomState::new().hash_one(0u8) as u32
}

/// The same as an even choice from 0 to 1.
#[cfg(feature = "device")]
pub(crate) fn random_share() -> f64 {
    f64::from(random()) / f64::from(u32::MAX)
}
