//! Writes the answer, or an offer of ours: one bundled ICE-lite transport with all candidates, passive DTLS.
//! Also the fragment that answers an ICE restart, which has the same lines about ICE (RFC 9725 §4.3.3).

use super::codecs::{self, OfferedCodec};
use super::feedback::Feedback;
use super::offer::OfferedMedia;
use super::{Agreement, Line, Offer, extensions, simulcast};
use crate::channel::MAX_MESSAGE;
use crate::ids::{IcePwd, Ufrag};
use crate::negotiated::{Fingerprint, Kind, PayloadType, Role, Track};
use std::fmt::Write as _;
use std::net::SocketAddr;

/// An address that reaches the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Candidate {
    pub kind: CandidateKind,
    pub address: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CandidateKind {
    Udp,
    /// Over TCP; the client opens the connection (RFC 6544 §4.1).
    TcpPassive,
}

/// Our side of the session.
#[derive(Debug)]
pub struct Local<'a> {
    pub ufrag: Ufrag,
    pub pwd: IcePwd,
    pub fingerprint: Fingerprint,
    /// Addresses that reach the session, best first of each kind.
    pub candidates: &'a [Candidate],
    /// Session id of the origin line: any number below 2^62 (RFC 8829 §5.2.1).
    pub origin: u64,
    /// Bandwidth of the video m-line in kbit/s.
    pub video_kbps: u32,
}

/// Writes the answer to `offer` as `agreement` has it.
pub fn write_answer(offer: &Offer, agreement: &Agreement, local: &Local<'_>) -> String {
    write(offer, agreement, local, "passive", None)
}

/// Writes a description of ours. `stream` names the MediaStream that its tracks, named by their kind, belong
/// to; without, both have names that nobody else has.
pub(super) fn write(
    offer: &Offer,
    agreement: &Agreement,
    local: &Local<'_>,
    setup: &str,
    stream: Option<&str>,
) -> String {
    let negotiated = &agreement.negotiated;
    let mut sdp = Sdp(String::with_capacity(4096));
    sdp.line("v=0");
    sdp.line(format_args!(
        "o=- {} 2 IN IP4 127.0.0.1",
        local.origin & ((1 << 62) - 1)
    ));
    sdp.line("s=-");
    sdp.line("t=0 0");
    sdp.line(format_args!(
        "a=group:BUNDLE {}",
        used(offer, agreement).1.join(" ")
    ));
    ice_session(&mut sdp);
    if offer.extmap_allow_mixed {
        sdp.line("a=extmap-allow-mixed");
    }
    let stream_name = stream.unwrap_or(&negotiated.cname);
    sdp.line(format_args!("a=msid-semantic: WMS {stream_name}"));
    let mut tagged = false;
    for (media, line) in offer.media.iter().zip(&agreement.lines) {
        let track = match line {
            Line::Track(index) => &negotiated.tracks[*index],
            Line::DataChannels => {
                data_channels(&mut sdp, media, local, setup, !tagged);
                tagged = true;
                continue;
            }
            Line::Refused => {
                let formats = media.formats.first().map_or("0", String::as_str);
                sdp.line(format_args!(
                    "m={} 0 {} {formats}",
                    media.media, media.protocol
                ));
                sdp.line("c=IN IP4 0.0.0.0");
                sdp.line("a=inactive");
                sdp.line(format_args!("a=mid:{}", media.mid));
                continue;
            }
        };
        let pts: Vec<String> = track
            .payload_types
            .iter()
            .flat_map(|p| [Some(p.pt), p.rtx])
            .flatten()
            .map(|pt| pt.to_string())
            .collect();
        sdp.line(format_args!(
            "m={} 9 {} {}",
            media.media,
            media.protocol,
            pts.join(" ")
        ));
        sdp.line("c=IN IP4 0.0.0.0");
        if track.kind == Kind::Video {
            sdp.line(format_args!("b=AS:{}", local.video_kbps));
        }
        sdp.line(format_args!("a=mid:{}", track.mid));
        transport(&mut sdp, local, setup);
        // Candidates belong to the bundled transport: they stand once, in its first m-line.
        if !tagged {
            candidates(&mut sdp, local.candidates);
            tagged = true;
        }
        sdp.line(match negotiated.role {
            Role::Publisher => "a=recvonly",
            Role::Viewer => "a=sendonly",
        });
        sdp.line("a=rtcp-mux");
        sdp.line("a=rtcp-mux-only");
        sdp.line("a=rtcp-rsize");
        for (id, uri) in extensions::agreed(track.extensions) {
            sdp.line(format_args!("a=extmap:{id} {uri}"));
        }
        for payload_type in &track.payload_types {
            if let Some(codec) = media.codecs.iter().find(|c| c.pt() == payload_type.pt) {
                describe(&mut sdp, codec, payload_type);
                let agreed = Feedback::agreed(negotiated, track);
                agreed.write(codec, |line| sdp.line(line));
            }
            if let Some(pt) = payload_type.rtx {
                sdp.line(format_args!("a=rtpmap:{pt} rtx/90000"));
                sdp.line(format_args!("a=fmtp:{pt} apt={}", payload_type.pt));
            }
        }
        simulcast::write(&track.rids, |line| sdp.line(line));
        if negotiated.role == Role::Viewer {
            sender(&mut sdp, track, &negotiated.cname, stream);
        }
    }
    sdp.0
}

/// Kind of the first m-line in use, and the MIDs of all, in the order of the offer.
fn used<'a>(offer: &'a Offer, agreement: &Agreement) -> (Option<Option<Kind>>, Vec<&'a str>) {
    let lines = offer.media.iter().zip(&agreement.lines);
    let used = lines.filter(|(_, line)| **line != Line::Refused);
    let first = used.clone().next().map(|(media, _)| media.kind);
    (first, used.map(|(media, _)| media.mid.as_str()).collect())
}

/// Port of SCTP, which DTLS alone carries: any would do (RFC 8841 §5).
const SCTP_PORT: u16 = 5000;

fn data_channels(sdp: &mut Sdp, media: &OfferedMedia, local: &Local<'_>, setup: &str, first: bool) {
    sdp.line(format_args!(
        "m={} 9 {} webrtc-datachannel",
        media.media, media.protocol
    ));
    sdp.line("c=IN IP4 0.0.0.0");
    sdp.line(format_args!("a=mid:{}", media.mid));
    transport(sdp, local, setup);
    if first {
        candidates(sdp, local.candidates);
    }
    sdp.line(format_args!("a=sctp-port:{SCTP_PORT}"));
    sdp.line(format_args!("a=max-message-size:{MAX_MESSAGE}"));
}

/// The bundle of a session, as a fragment names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Kind of the first m-line in use, whose transport all share; `None` for data channels.
    pub kind: Option<Kind>,
    /// All of them, the first one first, with a space between.
    pub mids: Box<str>,
}

impl Bundle {
    /// The bundle of an answer; `None` without m-lines in use, which no answer is.
    pub fn of(offer: &Offer, agreement: &Agreement) -> Option<Bundle> {
        let (kind, mids) = used(offer, agreement);
        Some(Bundle {
            kind: kind?,
            mids: mids.join(" ").into(),
        })
    }
}

/// Writes the fragment that answers an ICE restart: new credentials and all candidates, for the
/// m-line that carries the bundle (RFC 8840 §9, RFC 9725 §4.3.3).
pub fn write_restart(
    bundle: &Bundle,
    ufrag: Ufrag,
    pwd: &IcePwd,
    addresses: &[Candidate],
) -> String {
    let mut sdp = Sdp(String::with_capacity(512));
    ice_session(&mut sdp);
    sdp.line(format_args!("a=group:BUNDLE {}", bundle.mids));
    let media = match bundle.kind {
        Some(Kind::Audio) => "audio",
        Some(Kind::Video) => "video",
        None => "application",
    };
    // Protocol and format of a fragment's m-line say nothing (RFC 8840 §9).
    sdp.line(format_args!("m={media} 9 UDP/TLS/RTP/SAVPF 0"));
    let first = bundle.mids.split(' ').next().unwrap_or_default();
    sdp.line(format_args!("a=mid:{first}"));
    credentials(&mut sdp, ufrag, pwd);
    candidates(&mut sdp, addresses);
    sdp.0
}

/// What holds for the whole session and never changes in it.
fn ice_session(sdp: &mut Sdp) {
    sdp.line("a=ice-lite");
    sdp.line("a=ice-options:trickle ice2");
}

fn credentials(sdp: &mut Sdp, ufrag: Ufrag, pwd: &IcePwd) {
    sdp.line(format_args!("a=ice-ufrag:{ufrag}"));
    sdp.line(format_args!("a=ice-pwd:{}", pwd.as_str()));
}

fn transport(sdp: &mut Sdp, local: &Local<'_>, setup: &str) {
    credentials(sdp, local.ufrag, &local.pwd);
    let digits: Vec<String> = local
        .fingerprint
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    sdp.line(format_args!("a=fingerprint:sha-256 {}", digits.join(":")));
    sdp.line(format_args!("a=setup:{setup}"));
}

fn candidates(sdp: &mut Sdp, candidates: &[Candidate]) {
    for (index, candidate) in (0..).zip(candidates) {
        let (ip, port) = (candidate.address.ip(), candidate.address.port());
        // RFC 8445 §5.1.2.1 for component 1. The type preferences are those of browsers: 126 for hosts,
        // 90 for hosts over TCP, so that TCP is what is left when UDP is not.
        match candidate.kind {
            CandidateKind::Udp => {
                let priority = 126 << 24 | 65_535u32.saturating_sub(index) << 8 | 255;
                sdp.line(format_args!(
                    "a=candidate:{} 1 udp {priority} {ip} {port} typ host",
                    index + 1
                ));
            }
            // RFC 6544 §4.2: three bits for the direction, 4 for passive, and 13 for the rest.
            CandidateKind::TcpPassive => {
                let local_preference = 4 << 13 | 8_191u32.saturating_sub(index);
                let priority = 90 << 24 | local_preference << 8 | 255;
                sdp.line(format_args!(
                    "a=candidate:{} 1 tcp {priority} {ip} {port} typ host tcptype passive",
                    index + 1
                ));
            }
        }
    }
    sdp.line("a=end-of-candidates");
}

fn describe(sdp: &mut Sdp, codec: &OfferedCodec, agreed: &PayloadType) {
    let pt = codec.pt();
    sdp.line(format_args!("a=rtpmap:{pt} {}", codec.encoding()));
    if codec.fir {
        sdp.line(format_args!("a=rtcp-fb:{pt} ccm fir"));
    }
    if agreed.nack {
        sdp.line(format_args!("a=rtcp-fb:{pt} nack"));
    }
    if agreed.pli {
        sdp.line(format_args!("a=rtcp-fb:{pt} nack pli"));
    }
    if let Some(fmtp) = codecs::answered_fmtp(codec) {
        sdp.line(format_args!("a=fmtp:{pt} {fmtp}"));
    }
}

fn sender(sdp: &mut Sdp, track: &Track, cname: &str, stream: Option<&str>) {
    let kind = match track.kind {
        Kind::Audio => "audio",
        Kind::Video => "video",
    };
    let msid = match stream {
        Some(stream) => format!("{stream} {kind}"),
        None => format!("{cname} {cname}-{kind}"),
    };
    sdp.line(format_args!("a=msid:{msid}"));
    if let (Some(ssrc), Some(rtx)) = (track.ssrc, track.rtx_ssrc) {
        sdp.line(format_args!("a=ssrc-group:FID {ssrc} {rtx}"));
    }
    for ssrc in [track.ssrc, track.rtx_ssrc].into_iter().flatten() {
        sdp.line(format_args!("a=ssrc:{ssrc} cname:{cname}"));
        sdp.line(format_args!("a=ssrc:{ssrc} msid:{msid}"));
    }
}

struct Sdp(String);

impl Sdp {
    fn line(&mut self, line: impl std::fmt::Display) {
        let _ = write!(self.0, "{line}\r\n");
    }
}
