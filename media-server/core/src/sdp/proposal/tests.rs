//! Offers of ours, and answers as clients write them, right and wrong.

use super::super::{Candidate, CandidateKind};
use super::*;
use crate::ids::{IcePwd, Ufrag};
use crate::negotiated::Track;

const H264: Codec = Codec::H264 {
    packetization_mode: 1,
    profile_iop: 0x42e0,
};

fn proposal(video: &[Codec], audio: bool, control: bool) -> Proposal {
    let proposed = Proposed {
        video: video.to_vec(),
        audio,
        control,
        stream: "screen".to_owned(),
    };
    Proposal::new(proposed, [111, 222, 333], "cname".to_owned()).expect("a track")
}

fn usual() -> Proposal {
    proposal(&[H264, Codec::Vp8], true, true)
}

fn written(proposal: &Proposal) -> String {
    proposal.write(&Local {
        ufrag: Ufrag::new(&[0; 16], 0, 0, [1; 6]),
        pwd: IcePwd::new([2; 24]),
        fingerprint: [0xab; 32],
        candidates: &[Candidate {
            kind: CandidateKind::Udp,
            address: "192.0.2.1:8443".parse().expect("an address"),
        }],
        origin: 7,
        video_kbps: 12_000,
    })
}

/// An answer that takes all of an offer.
fn answer(offer: &str) -> String {
    let ours = ["a=ice-lite", "a=candidate", "a=ssrc", "a=msid"];
    let kept = offer
        .lines()
        .filter(|line| !ours.iter().any(|o| line.starts_with(o)));
    let lines = kept.map(|line| match line {
        "a=setup:actpass" => "a=setup:active\r\n".to_owned(),
        "a=sendonly" => "a=recvonly\r\n".to_owned(),
        line => format!("{line}\r\n"),
    });
    lines.collect()
}

fn agreed(proposal: &Proposal, answer: &str) -> Negotiated {
    proposal.agree(answer.as_bytes()).expect("a right answer").0
}

fn of(negotiated: &Negotiated, kind: Kind) -> Option<&Track> {
    negotiated.tracks.iter().find(|track| track.kind == kind)
}

fn count(text: &str, line: &str) -> usize {
    text.lines().filter(|l| *l == line).count()
}

#[test]
fn the_offer_has_what_clients_of_the_service_before_look_for() {
    let offer = written(&usual());
    for (line, times) in [
        ("a=ice-lite", 1),
        ("a=group:BUNDLE 0 1 2", 1),
        ("m=video 9 UDP/TLS/RTP/SAVPF 102 103 96 97", 1),
        ("m=application 9 UDP/DTLS/SCTP webrtc-datachannel", 1),
        ("m=audio 9 UDP/TLS/RTP/SAVPF 111", 1),
        ("a=setup:actpass", 3),
        ("a=sendonly", 2),
        ("a=rtpmap:102 H264/90000", 1),
        (
            "a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
            1,
        ),
        ("a=rtpmap:96 VP8/90000", 1),
        ("a=fmtp:97 apt=96", 1),
        ("a=rtcp-fb:96 nack pli", 1),
        ("a=rtcp-fb:96 transport-cc", 1),
        ("a=rtcp-fb:96 goog-remb", 1),
        ("a=msid:screen video", 1),
        ("a=msid:screen audio", 1),
        ("a=ssrc-group:FID 222 333", 1),
        ("a=ssrc:222 cname:cname", 1),
        ("a=sctp-port:5000", 1),
        ("a=end-of-candidates", 1),
    ] {
        assert_eq!(count(&offer, line), times, "{line} in {offer}");
    }
    let bare = written(&proposal(&[Codec::Vp8], false, false));
    assert!(!bare.contains("m=audio") && !bare.contains("m=application"));
    assert_eq!(usual().video(), Some((0, "0")));
    assert_eq!(&*usual().bundle().mids, "0 1 2");
}

#[test]
fn every_codec_of_a_device_is_offered_once_under_a_number_of_its_own() {
    let all = [
        Codec::Vp9 { profile: 0 },
        Codec::Av1 { profile: 0 },
        Codec::H264 {
            packetization_mode: 0,
            profile_iop: 0x6400,
        },
        H264,
        Codec::Vp8,
    ];
    let proposal = proposal(&all, false, false);
    let negotiated = agreed(&proposal, &answer(&written(&proposal)));
    let track = of(&negotiated, Kind::Video).expect("video");
    let codecs: Vec<_> = track
        .payload_types
        .iter()
        .map(|p| p.codec.clone())
        .collect();
    assert_eq!(codecs, all);
    let numbers = track.payload_types.iter().flat_map(|p| [Some(p.pt), p.rtx]);
    let mut numbers: Vec<u8> = numbers.flatten().collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 10, "{numbers:?}");
    let many = vec![Codec::Vp8; 40];
    let offer = written(&super::tests::proposal(&many, false, false));
    assert!(offer.lines().filter(|l| l.contains("VP8")).count() <= 15);
}

/// libwebrtc answers with the canonical name of the profile, and chooses the level.
#[test]
fn h264_is_agreed_on_in_a_browsers_spelling_of_the_profile_and_not_in_another_packetization() {
    for (profile_iop, answered) in [(0x42c0, "42e01f"), (0x4d40, "4d001f"), (0x4240, "420029")] {
        let device = Codec::H264 {
            packetization_mode: 1,
            profile_iop,
        };
        let proposal = proposal(&[device], false, false);
        let offer = written(&proposal);
        let offered = format!("profile-level-id={profile_iop:04x}1f");
        let spelled = answer(&offer).replace(&offered, &format!("profile-level-id={answered}"));
        let negotiated = agreed(&proposal, &spelled);
        let track = of(&negotiated, Kind::Video).expect("video");
        let (pt, rtx) = (track.payload_types[0].pt, track.payload_types[0].rtx);
        assert_eq!((pt, rtx), (102, Some(103)), "{answered}");
        let other = spelled.replace("packetization-mode=1", "packetization-mode=0");
        assert!(proposal.agree(other.as_bytes()).is_err(), "mode 0");
    }
}

#[test]
fn an_answer_that_takes_all_gives_what_the_session_needs() {
    let proposal = usual();
    let text = answer(&written(&proposal))
        + "a=candidate:1 1 udp 1 192.0.2.7 9 typ host\r\na=candidate:1 2 udp 1 192.0.2.7 9 typ host\r\n";
    let (negotiated, candidates) = proposal.agree(text.as_bytes()).expect("a right answer");
    assert_eq!(candidates, 1, "of component 1");
    assert_eq!(negotiated.role, Role::Viewer);
    assert_eq!(negotiated.cname, "cname");
    let video = of(&negotiated, Kind::Video).expect("video");
    assert_eq!((video.ssrc, video.rtx_ssrc), (Some(222), Some(333)));
    assert_eq!(video.payload_types[0].pt, 102);
    assert_eq!(video.payload_types[0].rtx, Some(103));
    assert!(video.payload_types.iter().all(|p| p.nack && p.pli));
    assert_eq!(video.extensions.transport_cc, Some(3));
    assert!(!negotiated.remb, "there is better");
    assert_eq!(
        of(&negotiated, Kind::Audio).map(|t| t.ssrc),
        Some(Some(111))
    );
    let data_channels = negotiated.data_channels.expect("agreed");
    assert!(data_channels.opens);
}

#[test]
fn an_answer_takes_away_what_it_does_not_want() {
    let proposal = usual();
    let whole = answer(&written(&proposal));
    let without = |from: &str, to: &str| agreed(&proposal, &whole.replace(from, to));
    let no_audio = without("m=audio 9", "m=audio 0");
    assert!(of(&no_audio, Kind::Audio).is_none() && of(&no_audio, Kind::Video).is_some());
    let no_channel = without("m=application 9", "m=application 0");
    assert_eq!(no_channel.data_channels, None);
    let only_vp8 = without("SAVPF 102 103 96 97", "SAVPF 96");
    let video = of(&only_vp8, Kind::Video).expect("video");
    assert_eq!(video.payload_types.len(), 1);
    assert!(!video.payload_types[0].nack, "without RTX there is none");
    assert_eq!(video.rtx_ssrc, None);
    let moved = without("a=extmap:3 ", "a=extmap:9 ");
    let video = of(&moved, Kind::Video).expect("video");
    assert_eq!(video.extensions.transport_cc, None, "under another id");
    assert!(moved.remb, "the next best");
    let idle = whole.replacen("a=recvonly", "a=inactive", 1);
    let idle = agreed(&proposal, &idle);
    assert!(of(&idle, Kind::Video).is_none() && of(&idle, Kind::Audio).is_some());
}

#[test]
fn what_was_not_offered_is_not_agreed_on() {
    let proposal = usual();
    let whole = answer(&written(&proposal));
    for (from, to) in [
        // Another codec under a number of ours, and one of ours under another number.
        ("a=rtpmap:96 VP8", "a=rtpmap:96 VP9"),
        ("a=rtpmap:96 VP8", "a=rtpmap:98 VP8"),
    ] {
        let negotiated = agreed(
            &proposal,
            &whole.replace(from, to).replace(" 96 97", " 96 98 97"),
        );
        let video = of(&negotiated, Kind::Video).expect("video");
        let pts: Vec<u8> = video.payload_types.iter().map(|p| p.pt).collect();
        assert_eq!(pts, [102], "{to}");
    }
}

#[test]
fn a_wrong_answer_is_refused_with_what_would_be_right_and_a_right_one_is_taken_after_it() {
    let proposal = usual();
    let offer = written(&proposal);
    let whole = answer(&offer);
    let passive = whole.replace("a=setup:active", "a=setup:passive");
    let (head, _) = whole.split_once("m=audio").expect("audio");
    for (text, says) in [
        (String::new(), "v=0"),
        ("v=0\r\n".to_owned(), "no SDP"),
        (passive, "answer a=setup:active"),
        (offer.clone(), "ice-lite"),
        (whole.replace("setup:active", "setup:actpass"), "actpass"),
        (head.to_owned(), "m-lines"),
        (
            whole
                .replace("a=mid:0", "a=mid:9")
                .replace("BUNDLE 0", "BUNDLE 9"),
            "m-lines",
        ),
        (whole.replace("a=group:BUNDLE 0 1 2", "a=x:y"), "BUNDLE"),
        (
            whole.replace("a=fingerprint", "a=nothing"),
            "the answer lacks a=fingerprint",
        ),
        (
            whole.replace("a=ice-pwd", "a=nothing"),
            "the answer lacks a=ice-pwd",
        ),
        (whole.replace("recvonly", "inactive"), "in use"),
        (
            whole
                .replace("H264", "X")
                .replace("VP8", "Y")
                .replace("opus", "Z"),
            "known here",
        ),
    ] {
        let error = proposal.agree(text.as_bytes()).expect_err(says);
        assert!(error.to_string().contains(says), "{says:?} not in {error}");
    }
    assert!(proposal.agree(whole.as_bytes()).is_ok());
}

#[test]
fn no_cut_or_changed_answer_panics() {
    let proposal = usual();
    let whole = answer(&written(&proposal)).into_bytes();
    for at in 0..whole.len() {
        let _ = proposal.agree(&whole[..at]);
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        let _ = proposal.agree(&changed);
    }
}

#[test]
fn an_offer_needs_a_track() {
    let nothing = Proposed {
        video: Vec::new(),
        audio: false,
        control: true,
        stream: "screen".to_owned(),
    };
    assert!(Proposal::new(nothing, [1, 2, 3], "cname".to_owned()).is_err());
}
