//! What an offer and its answer agreed on: everything a session needs to know of the SDP.
//! Built by `sdp`, consumed by `session`; plain data.

/// Which way the media of a session goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Carries a device's media in (WHIP).
    Publisher,
    /// Carries media out (WHEP).
    Viewer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Audio,
    Video,
}

/// A codec as far as forwarding must tell codecs apart: a packet of one never goes out under the
/// payload type of another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Codec {
    /// `packetization_mode` and the first two bytes of `profile-level-id` (RFC 6184 §8.1).
    H264 {
        packetization_mode: u8,
        profile_iop: u16,
    },
    Vp8,
    Vp9 {
        profile: u8,
    },
    Av1 {
        profile: u8,
    },
    Opus,
    /// RED over Opus (RFC 2198).
    Red,
}

impl Codec {
    pub fn kind(&self) -> Kind {
        match self {
            Codec::H264 { .. } | Codec::Vp8 | Codec::Vp9 { .. } | Codec::Av1 { .. } => Kind::Video,
            Codec::Opus | Codec::Red => Kind::Audio,
        }
    }

    /// Whether a decoder of one copes with the other: the same, or H.264 of another profile in the same
    /// packetization mode. Browsers write a profile in their own way.
    pub fn is_like(&self, other: &Codec) -> bool {
        let mode = |codec: &Codec| match codec {
            Codec::H264 {
                packetization_mode, ..
            } => Some(*packetization_mode),
            _ => None,
        };
        self == other || mode(self).is_some() && mode(self) == mode(other)
    }
}

/// SHA-256 of the peer's DTLS certificate (RFC 8122).
pub type Fingerprint = [u8; 32];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadType {
    pub pt: u8,
    pub codec: Codec,
    /// The receiver asks for lost packets (RFC 4585 §6.2.1).
    pub nack: bool,
    pub pli: bool,
    /// Payload type of retransmissions (RFC 4588 §8.6).
    pub rtx: Option<u8>,
}

/// RTP header extensions (RFC 8285 ids) that both sides know; `None` is not negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extensions {
    pub mid: Option<u8>,
    /// RTP stream id, and that of the stream that a retransmission repairs (RFC 8852). They name the
    /// layer of a simulcast publisher's packet.
    pub rid: Option<u8>,
    pub repaired_rid: Option<u8>,
    pub abs_send_time: Option<u8>,
    pub transport_cc: Option<u8>,
    /// Passed through from publisher to viewer, as the two that follow: the server itself does not
    /// need them.
    pub video_orientation: Option<u8>,
    pub dependency_descriptor: Option<u8>,
    pub audio_level: Option<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    pub kind: Kind,
    pub mid: String,
    /// In the answer's order of preference; never empty.
    pub payload_types: Vec<PayloadType>,
    pub extensions: Extensions,
    /// Viewer: the SSRC that we send with. Publisher: the first one the offer announced, if any;
    /// the session learns it from the MID extension or the payload type otherwise.
    pub ssrc: Option<u32>,
    /// Viewer: the SSRC that our retransmissions go out with (RFC 4588 §8.8).
    pub rtx_ssrc: Option<u32>,
    /// Publisher: the simulcast layers agreed on (RFC 8853), in the offer's order; empty without.
    pub rids: Vec<Box<str>>,
}

/// The data channel transport of a session (RFC 8841).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataChannels {
    pub mid: String,
    /// Longest message that the peer takes; `None` is any.
    pub max_message: Option<usize>,
    /// We open the channel `control`, not the peer.
    pub opens: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiated {
    pub role: Role,
    pub remote_ufrag: String,
    pub remote_pwd: String,
    pub fingerprint: Fingerprint,
    /// At most one of each kind.
    pub tracks: Vec<Track>,
    /// If the offer has them.
    pub data_channels: Option<DataChannels>,
    /// CNAME that our sender reports and `a=ssrc` lines carry.
    pub cname: String,
    /// Whether the peer takes part in REMB: tells a publisher its bandwidth, or is told a viewer's.
    pub remb: bool,
}

impl Negotiated {
    /// The codecs of all tracks, in their order, each once.
    pub fn codecs(&self) -> Vec<Codec> {
        let mut codecs = Vec::new();
        for payload_type in self.tracks.iter().flat_map(|t| &t.payload_types) {
            if !codecs.contains(&payload_type.codec) {
                codecs.push(payload_type.codec.clone());
            }
        }
        codecs
    }

    /// RIDs of the simulcast layers of the video; none without simulcast.
    pub fn rids(&self) -> Vec<Box<str>> {
        let video = self.tracks.iter().find(|t| t.kind == Kind::Video);
        video.map_or_else(Vec::new, |track| track.rids.clone())
    }
}
