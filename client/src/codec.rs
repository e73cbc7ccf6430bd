//! The codecs a client can offer, with the SDP parameters it offers them under.
//!
//! It never looks into a payload; `synthetic` and `reception` do.

use std::fmt;
use std::str::FromStr;

use rtc::peer_connection::configuration::media_engine::MIME_TYPE_RTX;
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RtpCodecKind,
};
use serde::Serialize;

/// A codec of the offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// H.264, constrained baseline 3.1, packetization mode 1 (RFC 6184).
    H264,
    /// VP8 (RFC 7741).
    Vp8,
    /// VP9, profile 0 (RFC 9628).
    Vp9,
    /// AV1, main profile (AV1 RTP specification 1.0).
    Av1,
    /// Opus, 48 kHz stereo (RFC 7587).
    Opus,
    /// Redundant audio of Opus blocks (RFC 2198), which is offered together with Opus.
    Red,
}

/// What an m-line carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Audio,
    Video,
}

/// Which end of a stream a client is: it decides the payload types that it offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Publisher,
    Viewer,
}

impl Codec {
    /// Every codec that stands for itself, the ones for video first.
    pub const ALL: [Codec; 5] = [Codec::H264, Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::Opus];

    /// The m-line it belongs to.
    pub fn kind(self) -> Kind {
        match self {
            Codec::Opus | Codec::Red => Kind::Audio,
            _ => Kind::Video,
        }
    }

    /// RTP clock rate, in Hz.
    pub fn clock_rate(self) -> u32 {
        match self {
            Codec::Opus | Codec::Red => 48_000,
            _ => 90_000,
        }
    }

    fn mime_type(self) -> &'static str {
        match self {
            Codec::H264 => "video/H264",
            Codec::Vp8 => "video/VP8",
            Codec::Vp9 => "video/VP9",
            Codec::Av1 => "video/AV1",
            Codec::Opus => "audio/opus",
            Codec::Red => "audio/red",
        }
    }

    fn fmtp(self) -> &'static str {
        match self {
            Codec::H264 => "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
            Codec::Vp8 => "",
            Codec::Vp9 => "profile-id=0",
            Codec::Av1 => "profile=0;level-idx=5;tier=0",
            Codec::Opus => "minptime=10;useinbandfec=1",
            // Depends on the role, see `parameters`.
            Codec::Red => "",
        }
    }

    /// The payload type that it is offered under.
    ///
    /// A publisher and a viewer differ on purpose: a server that forwards a packet without the
    /// viewer's own payload type shows at once.
    pub(crate) fn payload_type(self, role: Role) -> u8 {
        let index = match self {
            Codec::H264 => 0,
            Codec::Vp8 => 1,
            Codec::Vp9 => 2,
            Codec::Av1 => 3,
            Codec::Opus => 4,
            Codec::Red => 5,
        };
        match role {
            Role::Publisher => 96 + index,
            Role::Viewer => 120 + index,
        }
    }

    /// The payload type that retransmissions are offered under (RFC 4588 §8.6); sound has none.
    fn repair_payload_type(self, role: Role) -> Option<u8> {
        let media = self.payload_type(role);
        let video = self.kind() == Kind::Video;
        video.then_some(match role {
            Role::Publisher => media + 8,
            Role::Viewer => media - 8,
        })
    }

    pub(crate) fn of_payload_type(payload_type: u8, role: Role) -> Option<Codec> {
        let mut all = Codec::ALL.into_iter().chain([Codec::Red]);
        all.find(|codec| codec.payload_type(role) == payload_type)
    }

    pub(crate) fn rtp_kind(self) -> RtpCodecKind {
        match self.kind() {
            Kind::Audio => RtpCodecKind::Audio,
            Kind::Video => RtpCodecKind::Video,
        }
    }

    pub(crate) fn rtp_codec(self) -> RTCRtpCodec {
        let feedback = |typ: &str, parameter: &str| RTCPFeedback {
            typ: typ.to_owned(),
            parameter: parameter.to_owned(),
        };
        RTCRtpCodec {
            mime_type: self.mime_type().to_owned(),
            clock_rate: self.clock_rate(),
            channels: if self.kind() == Kind::Audio { 2 } else { 0 },
            sdp_fmtp_line: self.fmtp().to_owned(),
            rtcp_feedback: match self.kind() {
                Kind::Audio => vec![],
                Kind::Video => vec![
                    feedback("nack", ""),
                    feedback("nack", "pli"),
                    feedback("ccm", "fir"),
                ],
            },
        }
    }

    pub(crate) fn parameters(self, role: Role) -> RTCRtpCodecParameters {
        let mut rtp_codec = self.rtp_codec();
        if self == Codec::Red {
            let block = Codec::Opus.payload_type(role);
            rtp_codec.sdp_fmtp_line = format!("{block}/{block}");
        }
        RTCRtpCodecParameters {
            rtp_codec,
            payload_type: self.payload_type(role),
        }
    }

    /// The codec, and that of its blocks.
    pub(crate) fn offered(self) -> impl Iterator<Item = Codec> {
        let blocks = (self == Codec::Red).then_some(Codec::Opus);
        std::iter::once(self).chain(blocks)
    }
}

impl Codec {
    /// How retransmissions of it are offered.
    pub(crate) fn repair_parameters(self, role: Role) -> Option<RTCRtpCodecParameters> {
        Some(RTCRtpCodecParameters {
            payload_type: self.repair_payload_type(role)?,
            rtp_codec: RTCRtpCodec {
                mime_type: MIME_TYPE_RTX.to_owned(),
                clock_rate: self.clock_rate(),
                channels: 0,
                sdp_fmtp_line: format!("apt={}", self.payload_type(role)),
                rtcp_feedback: vec![],
            },
        })
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Codec::H264 => "h264",
            Codec::Vp8 => "vp8",
            Codec::Vp9 => "vp9",
            Codec::Av1 => "av1",
            Codec::Opus => "opus",
            Codec::Red => "red",
        })
    }
}

impl FromStr for Codec {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Codec::ALL
            .into_iter()
            .find(|codec| codec.to_string().eq_ignore_ascii_case(name))
            .ok_or_else(|| format!("{name} is no codec; choose h264, vp8, vp9, av1 or opus"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_type_names_one_codec_and_one_role() {
        let mut seen = std::collections::HashSet::new();
        for codec in Codec::ALL.into_iter().chain([Codec::Red]) {
            for role in [Role::Publisher, Role::Viewer] {
                let payload_type = codec.payload_type(role);
                assert!(seen.insert(payload_type), "{payload_type} is used twice");
                assert_eq!(Codec::of_payload_type(payload_type, role), Some(codec));
                if let Some(repair) = codec.repair_payload_type(role) {
                    assert!(seen.insert(repair), "{repair} is used twice");
                }
            }
        }
    }

    #[test]
    fn a_codec_is_read_from_its_own_name() {
        for codec in Codec::ALL {
            assert_eq!(codec.to_string().to_uppercase().parse(), Ok(codec));
        }
        assert!("h265".parse::<Codec>().is_err());
    }
}
