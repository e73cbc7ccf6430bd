//! RTP header extensions that are agreed on (RFC 8285): their URIs, and where each is kept.

use crate::negotiated::{Extensions, Kind};
use rtc_sdp::description::media::MediaDescription;

type Field = fn(&mut Extensions) -> &mut Option<u8>;

/// Every extension known here. What an offer has of these the answer repeats under the same id.
const KNOWN: [(&str, Field); 7] = [
    // RFC 9143 §15.
    ("urn:ietf:params:rtp-hdrext:sdes:mid", |e| &mut e.mid),
    // RFC 8852 §4.
    ("urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id", |e| {
        &mut e.rid
    }),
    (
        "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
        |e| &mut e.repaired_rid,
    ),
    // draft-holmer-rmcat-transport-wide-cc-extensions-01 §2.
    (
        "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
        |e| &mut e.transport_cc,
    ),
    // RFC 6464.
    ("urn:ietf:params:rtp-hdrext:ssrc-audio-level", |e| {
        &mut e.audio_level
    }),
    // 3GPP TS 26.114 §7.4.5.
    ("urn:3gpp:video-orientation", |e| &mut e.video_orientation),
    // AV1 RTP specification, appendix A.
    (
        "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension",
        |e| &mut e.dependency_descriptor,
    ),
];

/// The known extensions of an m-line. `mixed`: the offer takes two-byte headers among one-byte ones.
pub(super) fn read(description: &MediaDescription, mixed: bool) -> Extensions {
    let mut extensions = Extensions::default();
    let lines = description
        .attributes
        .iter()
        .filter(|a| a.key == "extmap")
        .filter_map(|a| a.value.as_deref()?.split_once(' '));
    for (id, rest) in lines {
        let uri = rest.split(' ').next();
        let known = KNOWN.iter().find(|(known, _)| Some(*known) == uri);
        // One-byte header extensions only have the ids 1 to 14 (RFC 8285 §4.2).
        let id = id.split('/').next().and_then(|id| id.parse().ok());
        if let (Some((_, field)), Some(id @ 1..=14)) = (known, id) {
            field(&mut extensions).get_or_insert(id);
        }
    }
    // Descriptors with a template structure are longer than a one-byte header can say.
    if !mixed {
        extensions.dependency_descriptor = None;
    }
    extensions
}

/// What an offer of ours has, under the ids that Chromium gives them.
pub(super) fn propose(kind: Kind) -> Extensions {
    let video = (kind == Kind::Video).then_some(());
    Extensions {
        mid: Some(4),
        transport_cc: Some(3),
        audio_level: video.is_none().then_some(1),
        video_orientation: video.map(|()| 13),
        dependency_descriptor: video.map(|()| 12),
        ..Extensions::default()
    }
}

/// What both have under the same id.
pub(super) fn common(mut theirs: Extensions, mut ours: Extensions) -> Extensions {
    for (_, field) in KNOWN {
        if field(&mut theirs) != field(&mut ours) {
            *field(&mut theirs) = None;
        }
    }
    theirs
}

/// Id and URI of each extension that was agreed on.
pub(super) fn agreed(mut extensions: Extensions) -> Vec<(u8, &'static str)> {
    KNOWN
        .iter()
        .filter_map(|(uri, field)| Some(((*field(&mut extensions))?, *uri)))
        .collect()
}
