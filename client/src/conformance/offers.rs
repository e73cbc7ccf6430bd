//! Offers and fragments that the checks send, written out line by line after RFC 8829 and RFC 8840.
//! They belong to no connection: their sessions answer checks and never get further.

use super::Protocol;
use std::hash::BuildHasher as _;

pub(super) const SDP: &str = "application/sdp";
pub(super) const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// ICE credentials of our end (RFC 8839 §5.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Credentials {
    pub(super) ufrag: String,
    pub(super) pwd: String,
}

impl Credentials {
    /// New ones, which no other check of this run has.
    pub(super) fn new() -> Credentials {
        let random = || std::hash::RandomState::new().hash_one(0u8);
        Credentials {
            ufrag: format!("{:08x}", random() as u32),
            pwd: format!("{:016x}{:016x}", random(), random()),
        }
    }

    fn lines(&self) -> String {
        format!("a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", self.ufrag, self.pwd)
    }
}

/// What an offer has beside the usual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variant {
    /// One audio and one video m-line.
    Plain,
    /// Two video m-lines.
    TwoVideos,
    /// Two m-lines of a MediaStream each.
    TwoStreams,
    /// An audio m-line whose only codec exists nowhere.
    UnknownAudio,
    /// Three layers by RID (RFC 8853).
    Simulcast,
    /// Data channels beside audio and video (RFC 8841).
    DataChannels,
}

/// The names that a simulcast offer gives its layers.
pub(super) const RIDS: [&str; 3] = ["q", "h", "f"];

/// An offer to publish or to watch.
pub(super) fn offer(protocol: Protocol, credentials: &Credentials, variant: Variant) -> String {
    let kinds = match variant {
        Variant::TwoVideos => ["video", "video"],
        _ => ["audio", "video"],
    };
    let (mids, application) = match variant {
        Variant::DataChannels => ("0 1 2", Some("application")),
        _ => ("0 1", None),
    };
    let mut sdp = format!(
        "v=0\r\no=- 4611731400430051336 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n\
         a=group:BUNDLE {mids}\r\na=extmap-allow-mixed\r\na=msid-semantic: WMS *\r\n",
    );
    for (mid, kind) in kinds.into_iter().chain(application).enumerate() {
        let (formats, codecs) = match (kind, variant) {
            ("audio", Variant::UnknownAudio) => ("120", "a=rtpmap:120 no-such-codec/48000/2\r\n"),
            ("audio", _) => (
                "111",
                "a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n",
            ),
            _ => (
                "96 97",
                "a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack pli\r\na=rtpmap:97 H264/90000\r\n\
                 a=fmtp:97 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n",
            ),
        };
        sdp += &match application {
            Some(application) if application == kind => {
                "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n".to_owned()
            }
            _ => format!("m={kind} 9 UDP/TLS/RTP/SAVPF {formats}\r\n"),
        };
        sdp += "c=IN IP4 0.0.0.0\r\n";
        sdp += &credentials.lines();
        sdp += "a=ice-options:trickle\r\na=fingerprint:sha-256 ";
        // Of no certificate: nobody will get as far as to show one.
        sdp += &["AB"; 32].join(":");
        sdp += "\r\na=setup:actpass\r\n";
        sdp += &format!("a=mid:{mid}\r\n");
        if Some(kind) == application {
            sdp += "a=sctp-port:5000\r\na=max-message-size:262144\r\n";
            continue;
        }
        sdp += "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid\r\n";
        sdp += match protocol {
            Protocol::Whip => "a=sendonly\r\n",
            Protocol::Whep => "a=recvonly\r\n",
        };
        if protocol == Protocol::Whip {
            let stream = match variant {
                Variant::TwoStreams => kind,
                _ => "stream",
            };
            sdp += &format!("a=msid:{stream} {kind}{mid}\r\n");
        }
        sdp += "a=rtcp-mux\r\na=rtcp-mux-only\r\na=rtcp-rsize\r\n";
        sdp += codecs;
        if variant == Variant::Simulcast && kind == "video" {
            sdp += "a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n";
            for rid in RIDS {
                sdp += &format!("a=rid:{rid} send\r\n");
            }
            sdp += &format!("a=simulcast:send {}\r\n", RIDS.join(";"));
        }
    }
    sdp
}

/// A fragment for the first m-line of [`offer`]: candidates of a generation, or an ICE restart where
/// the credentials are new.
pub(super) fn fragment(credentials: &Credentials, candidates: &[&str]) -> String {
    let mut fragment = String::from("a=ice-options:trickle\r\na=group:BUNDLE 0 1\r\n");
    fragment += "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n";
    fragment += &credentials.lines();
    for candidate in candidates {
        fragment += &format!("a=candidate:{candidate}\r\n");
    }
    fragment + "a=end-of-candidates\r\n"
}

/// A candidate as a host behind a NAT has it (TEST-NET-2).
pub(super) const CANDIDATE: &str = "1 1 udp 2122260223 198.51.100.7 50632 typ host generation 0";
/// Candidates that a server may not be able to use: a name, an active TCP one, another component, a
/// type of the future.
pub(super) const ODD_CANDIDATES: [&str; 4] = [
    "2 1 udp 2122194687 8f6a2a4e-1c0b-4d1e-9f3a-2b6c7d8e9f00.local 50633 typ host",
    "3 1 tcp 1518280447 198.51.100.7 9 typ host tcptype active",
    "4 2 udp 2122260222 198.51.100.7 50634 typ host",
    "5 1 udp 1 198.51.100.7 50635 typ futuristic",
];
