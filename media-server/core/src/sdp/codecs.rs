//! Codecs of an m-line: which are known here, and how they are written back.

use super::feedback::Feedback;
use crate::negotiated::{Codec, Kind, PayloadType};
use rtc_sdp::description::media::MediaDescription;

/// Most payload types answered for a track. Chromium offers up to ten H.264 variants among about 25.
const MAX_COMMON: usize = 32;

/// One payload type of an offer.
#[derive(Debug)]
pub(super) struct OfferedCodec {
    pt: u8,
    name: String,
    clock: u32,
    channels: u8,
    pub(super) fmtp: Option<String>,
    nack: bool,
    pli: bool,
    pub(super) fir: bool,
    pub(super) feedback: Feedback,
}

impl OfferedCodec {
    pub(super) fn pt(&self) -> u8 {
        self.pt
    }

    /// Value of the `a=rtpmap` line after the payload type.
    pub(super) fn encoding(&self) -> String {
        if self.channels > 1 {
            format!("{}/{}/{}", self.name, self.clock, self.channels)
        } else {
            format!("{}/{}", self.name, self.clock)
        }
    }

    fn parameter(&self, key: &str) -> Option<&str> {
        parameters(self.fmtp.as_deref()?)
            .find(|(name, _)| name.eq_ignore_ascii_case(key))
            .map(|(_, value)| value)
    }

    /// The payload type that this one retransmits, if it is RTX (RFC 4588 §8.6).
    fn repairs(&self) -> Option<u8> {
        self.name
            .eq_ignore_ascii_case("rtx")
            .then(|| self.parameter("apt")?.parse().ok())?
    }

    /// Whether it stands for the same under the same number, as far as decoders tell.
    pub(super) fn is_same(&self, other: &OfferedCodec, kind: Kind) -> bool {
        let alike = match (self.codec(kind), other.codec(kind)) {
            (Some(codec), Some(other)) => codec.is_like(&other),
            (codec, other) => codec == other,
        };
        self.pt == other.pt
            && self.name.eq_ignore_ascii_case(&other.name)
            && alike
            && self.repairs() == other.repairs()
    }

    fn codec(&self, kind: Kind) -> Option<Codec> {
        let name = self.name.to_ascii_lowercase();
        match (kind, name.as_str(), self.clock) {
            (Kind::Video, "h264", 90_000) => {
                let packetization_mode = match self.parameter("packetization-mode") {
                    None | Some("0") => 0,
                    Some("1") => 1,
                    // Interleaved: nobody sends it to a browser.
                    Some(_) => return None,
                };
                // Absent is Baseline, level 1 (RFC 6184 §8.1).
                let level = self.parameter("profile-level-id").unwrap_or("42000a");
                let profile_iop = u16::from_str_radix(level.get(..4)?, 16).ok()?;
                Some(Codec::H264 {
                    packetization_mode,
                    profile_iop,
                })
            }
            (Kind::Video, "vp8", 90_000) => Some(Codec::Vp8),
            (Kind::Video, "vp9", 90_000) => Some(Codec::Vp9 {
                profile: self.profile("profile-id")?,
            }),
            (Kind::Video, "av1", 90_000) => Some(Codec::Av1 {
                profile: self.profile("profile")?,
            }),
            (Kind::Audio, "opus", 48_000) => Some(Codec::Opus),
            (Kind::Audio, "red", 48_000) => Some(Codec::Red),
            _ => None,
        }
    }

    fn profile(&self, key: &str) -> Option<u8> {
        self.parameter(key)
            .map_or(Some(0), |value| value.parse().ok())
    }
}

/// What the server forwards, for a message.
pub(super) fn names(kind: Kind) -> &'static str {
    match kind {
        Kind::Audio => "opus, red",
        Kind::Video => "H264, VP8, VP9, AV1",
    }
}

/// Attributes of a payload type.
#[derive(Debug, Clone, Copy, Default)]
struct Attributes<'a> {
    rtpmap: Option<&'a str>,
    fmtp: Option<&'a str>,
    nack: bool,
    pli: bool,
    fir: bool,
    feedback: Feedback,
}

impl<'a> Attributes<'a> {
    fn add(&mut self, key: &str, value: &'a str) {
        match (key, value.trim()) {
            // Of two the first one holds.
            ("rtpmap", map) => self.rtpmap = self.rtpmap.or(Some(map)),
            ("fmtp", parameters) => self.fmtp = self.fmtp.or(Some(parameters)),
            ("rtcp-fb", "nack") => self.nack = true,
            ("rtcp-fb", "nack pli") => self.pli = true,
            ("rtcp-fb", "ccm fir") => self.fir = true,
            ("rtcp-fb", "transport-cc") => self.feedback.transport_cc = true,
            ("rtcp-fb", "goog-remb") => self.feedback.remb = true,
            _ => {}
        }
    }
}

/// Payload types of an m-line, in its order of preference. Looks at each line once: there may be thousands,
/// and as many formats.
pub(super) fn read(description: &MediaDescription) -> Vec<OfferedCodec> {
    let mut of_each = [Attributes::default(); 128];
    let mut of_all = Attributes::default();
    for attribute in &description.attributes {
        let value = attribute.value.as_deref().unwrap_or_default();
        let Some((to, value)) = value.split_once(' ') else {
            continue;
        };
        let of = match to {
            "*" => Some(&mut of_all),
            pt => pt.parse().ok().and_then(|pt: usize| of_each.get_mut(pt)),
        };
        if let Some(of) = of {
            of.add(&attribute.key, value);
        }
    }
    let mut codecs: Vec<OfferedCodec> = Vec::new();
    for format in &description.media_name.formats {
        let Some(pt) = format.parse().ok().filter(|pt: &u8| *pt < 128) else {
            continue;
        };
        let own = &of_each[usize::from(pt)];
        let Some(encoding) = own.rtpmap else {
            continue;
        };
        let mut parts = encoding.split('/');
        let (Some(name), Some(clock)) = (parts.next(), parts.next().and_then(|c| c.parse().ok()))
        else {
            continue;
        };
        if codecs.iter().any(|c| c.pt == pt) {
            continue;
        }
        codecs.push(OfferedCodec {
            pt,
            name: name.to_owned(),
            clock,
            channels: parts.next().and_then(|c| c.parse().ok()).unwrap_or(1),
            fmtp: own.fmtp.map(str::to_owned),
            nack: own.nack || of_all.nack,
            pli: own.pli || of_all.pli,
            fir: own.fir || of_all.fir,
            feedback: Feedback {
                transport_cc: own.feedback.transport_cc || of_all.feedback.transport_cc,
                remb: own.feedback.remb || of_all.feedback.remb,
            },
        });
    }
    codecs
}

/// Payload types to offer, in the order of preference; for video each with one for retransmissions. VP8 and
/// the first H.264 have the numbers of the service that this one replaces. What finds no
/// number is left out.
pub(super) fn propose(kind: Kind, wanted: &[Codec]) -> Vec<OfferedCodec> {
    let mut free = Vec::from(match kind {
        Kind::Audio => &AUDIO_NUMBERS[..],
        Kind::Video => &VIDEO_NUMBERS[..],
    });
    let mut proposed = Vec::new();
    for codec in wanted {
        let favourite = match codec {
            Codec::Vp8 => Some(96),
            Codec::H264 { .. } => Some(102),
            _ => None,
        };
        let at = free.iter().position(|pt| Some(*pt) == favourite);
        // Not VP8's number for another, which may come first.
        let at = at.or_else(|| free.iter().position(|pt| *pt != 96 && *pt != 102));
        let Some(at) = at else { continue };
        let pt = free.remove(at);
        let Some((name, clock, channels, fmtp)) = description(codec) else {
            continue;
        };
        let video = kind == Kind::Video;
        let feedback = Feedback {
            transport_cc: true,
            remb: video,
        };
        proposed.push(OfferedCodec {
            pt,
            name: name.to_owned(),
            clock,
            channels,
            fmtp,
            nack: video,
            pli: video,
            fir: video,
            feedback,
        });
        if video {
            proposed.push(OfferedCodec {
                pt: pt + 1,
                name: "rtx".to_owned(),
                clock,
                channels: 1,
                fmtp: Some(format!("apt={pt}")),
                nack: false,
                pli: false,
                fir: false,
                feedback: Feedback {
                    transport_cc: false,
                    remb: false,
                },
            });
        }
    }
    proposed
}

/// Numbers of codecs that we offer; those of their retransmissions are one more. Opus has its usual one.
const VIDEO_NUMBERS: [u8; 15] = [
    96, 98, 100, 102, 104, 106, 108, 112, 114, 116, 118, 120, 122, 124, 126,
];
const AUDIO_NUMBERS: [u8; 1] = [111];

/// Name, clock, channels and parameters of a codec in an offer of ours; `None` for RED, which clients that
/// wait for an offer have not asked for.
fn description(codec: &Codec) -> Option<(&'static str, u32, u8, Option<String>)> {
    let video = |name, fmtp| Some((name, 90_000, 1, fmtp));
    match codec {
        Codec::H264 {
            packetization_mode,
            profile_iop,
        } => {
            // Level 3.1, as everybody says; with asymmetry allowed it binds nobody (RFC 6184 §8.1).
            let fmtp = format!(
                "level-asymmetry-allowed=1;packetization-mode={packetization_mode};\
                 profile-level-id={profile_iop:04x}1f"
            );
            video("H264", Some(fmtp))
        }
        Codec::Vp8 => video("VP8", None),
        Codec::Vp9 { profile } => video("VP9", Some(format!("profile-id={profile}"))),
        Codec::Av1 { profile } => video("AV1", Some(format!("profile={profile}"))),
        Codec::Opus => {
            let fmtp = "minptime=10;useinbandfec=1".to_owned();
            Some(("opus", 48_000, 2, Some(fmtp)))
        }
        Codec::Red => None,
    }
}

/// The payload types that both sides know, in the offer's order, each with that of its
/// retransmissions.
pub(super) fn common(kind: Kind, offered: &[OfferedCodec]) -> Vec<PayloadType> {
    let known: Vec<PayloadType> = offered
        .iter()
        .filter_map(|codec| {
            Some(PayloadType {
                pt: codec.pt,
                codec: codec.codec(kind)?,
                nack: codec.nack,
                pli: codec.pli,
                rtx: offered
                    .iter()
                    .find(|other| other.repairs() == Some(codec.pt))
                    .map(|other| other.pt),
            })
        })
        .take(MAX_COMMON)
        .collect();
    // RED without the codec that it repeats carries nothing.
    if known.iter().all(|p| p.codec == Codec::Red) {
        return Vec::new();
    }
    known
}

/// Parameters to answer with: the offer's, without those that describe the offerer's own stream.
pub(super) fn answered_fmtp(offered: &OfferedCodec) -> Option<String> {
    let fmtp = offered.fmtp.as_deref()?;
    if !fmtp.contains('=') {
        // RED: a list of payload types.
        return Some(fmtp.to_owned());
    }
    let kept: Vec<String> = parameters(fmtp)
        .filter(|(key, _)| !key.starts_with("sprop-"))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    (!kept.is_empty()).then(|| kept.join(";"))
}

fn parameters(fmtp: &str) -> impl Iterator<Item = (&str, &str)> {
    fmtp.split(';')
        .filter_map(|part| part.trim().split_once('='))
}
