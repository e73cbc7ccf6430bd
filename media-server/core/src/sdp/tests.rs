//! Offers as Chromium and webrtc-rs write them, and every way an offer can be wrong.

use super::*;
use crate::ids::{IcePwd, Ufrag};
use crate::negotiated::{Codec, Kind, Role};
use std::time::Instant;

const PUBLISH: &str = include_str!("data/chromium-publish.sdp");
const VIEW: &str = include_str!("data/chromium-view.sdp");
const WEBRTC_RS: &str = include_str!("data/webrtc-rs-publish.sdp");

fn agreed(sdp: &str, role: Role) -> Result<(Offer, Agreement), OfferError> {
    let offer = Offer::parse(sdp.as_bytes())?;
    let agreement = offer.agree(role, [111, 222, 333], "cname".to_owned())?;
    Ok((offer, agreement))
}

fn candidate(kind: CandidateKind, address: &str) -> Candidate {
    let address = address.parse().expect("address");
    Candidate { kind, address }
}

fn answered(sdp: &str, role: Role) -> String {
    let (offer, agreement) = agreed(sdp, role).expect("a right offer");
    write_answer(
        &offer,
        &agreement,
        &Local {
            ufrag: Ufrag::new(&[0; 16], 0, 0, [1; 6]),
            pwd: IcePwd::new([2; 24]),
            fingerprint: [0xab; 32],
            candidates: &[
                candidate(CandidateKind::Udp, "192.0.2.1:8443"),
                candidate(CandidateKind::Udp, "[2001:db8::1]:8443"),
                candidate(CandidateKind::TcpPassive, "192.0.2.1:443"),
            ],
            origin: u64::MAX,
            video_kbps: 12_000,
        },
    )
}

fn refused(sdp: &str, role: Role) -> OfferError {
    agreed(sdp, role).map(drop).expect_err("a wrong offer")
}

fn count(answer: &str, line: &str) -> usize {
    answer.split("\r\n").filter(|l| *l == line).count()
}

#[test]
fn a_chromium_publisher_is_answered_recvonly_with_every_common_codec() {
    let answer = answered(PUBLISH, Role::Publisher);
    assert_eq!(count(&answer, "a=recvonly"), 2, "{answer}");
    assert_eq!(count(&answer, "a=group:BUNDLE 0 1"), 1, "{answer}");
    assert_eq!(count(&answer, "a=ice-lite"), 1, "{answer}");
    assert_eq!(count(&answer, "a=setup:passive"), 2, "{answer}");
    assert_eq!(count(&answer, "a=rtcp-mux-only"), 2, "{answer}");
    assert_eq!(count(&answer, "b=AS:12000"), 1, "{answer}");
    assert!(
        answer.contains("m=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\n"),
        "{answer}"
    );
    assert!(
        answer.contains(
            "m=video 9 UDP/TLS/RTP/SAVPF 96 97 103 104 107 108 109 114 115 116 117 118 39 40 45 46 \
             98 99 100 101 119 120\r\n"
        ),
        "{answer}"
    );
    assert_eq!(count(&answer, "a=rtpmap:97 rtx/90000"), 1, "{answer}");
    assert_eq!(count(&answer, "a=fmtp:97 apt=96"), 1, "{answer}");
    assert_eq!(count(&answer, "a=rtcp-fb:96 nack"), 1, "{answer}");
    assert_eq!(
        count(&answer, "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid"),
        2
    );
    assert!(answer.contains("a=rtcp-fb:96 nack pli\r\n"), "{answer}");
    for absent in ["a=rtcp-fb:111 nack", "apt=123", "a=ssrc", "a=msid:", "PCMU"] {
        assert!(!answer.contains(absent), "{absent} in {answer}");
    }
}

const DESCRIPTOR: &str =
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";

#[test]
fn header_extensions_that_are_passed_on_are_answered_under_the_offers_ids() {
    for (sdp, role) in [(PUBLISH, Role::Publisher), (VIEW, Role::Viewer)] {
        let sdp = sdp.replace(
            "a=extmap:13 urn:3gpp",
            &format!("a=extmap:12 {DESCRIPTOR}\r\na=extmap:13 urn:3gpp"),
        );
        let answer = answered(&sdp, role);
        for line in [
            "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            "a=extmap:13 urn:3gpp:video-orientation",
            &format!("a=extmap:12 {DESCRIPTOR}"),
            "a=extmap-allow-mixed",
        ] {
            assert_eq!(count(&answer, line), 1, "{line} in {answer}");
        }
        for absent in ["toffset", "playout-delay"] {
            assert!(!answer.contains(absent), "{absent} in {answer}");
        }
        // A descriptor does not always fit a one-byte header.
        let answer = answered(&sdp.replace("a=extmap-allow-mixed\r\n", ""), role);
        assert!(!answer.contains(DESCRIPTOR), "{answer}");
        assert!(!answer.contains("allow-mixed"), "{answer}");
    }
}

#[test]
fn an_id_that_no_one_byte_header_has_is_not_agreed_on() {
    let answer = answered(
        &PUBLISH.replace("a=extmap:13 ", "a=extmap:15 "),
        Role::Publisher,
    );
    assert!(!answer.contains("video-orientation"), "{answer}");
}

/// The video of a Chromium offer with layers: no SSRC is announced.
fn simulcast(lines: &str) -> String {
    let (head, video) = PUBLISH.split_once("m=video").expect("a video m-line");
    let video = video
        .lines()
        .filter(|line| !line.starts_with("a=ssrc"))
        .map(|line| format!("{line}\r\n"));
    format!("{head}m=video{}{lines}", video.collect::<String>())
}

#[test]
fn offered_layers_are_answered_with_recv_and_the_extensions_that_name_them() {
    let sdp =
        simulcast("a=rid:f send\r\na=rid:h send\r\na=rid:q send\r\na=simulcast:send f;h;~q\r\n");
    let answer = answered(&sdp, Role::Publisher);
    for line in [
        "a=rid:f recv",
        "a=rid:h recv",
        "a=rid:q recv",
        "a=simulcast:recv f;h;q",
        "a=extmap:10 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
        "a=extmap:11 urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
    ] {
        assert_eq!(count(&answer, line), 1, "{line} in {answer}");
    }
    let (_, agreement) = agreed(&sdp, Role::Publisher).expect("a right offer");
    let track = &agreement.negotiated.tracks[1];
    assert_eq!(track.rids, ["f".into(), "h".into(), "q".into()]);
    assert_eq!((track.extensions.rid, track.ssrc), (Some(10), None));
}

#[test]
fn of_alternatives_the_first_is_taken_and_of_many_layers_three() {
    let rids: String = (0..5).map(|n| format!("a=rid:r{n} send\r\n")).collect();
    let sdp = simulcast(&format!(
        "{rids}a=simulcast:send r0,r4;r1;nowhere;r1;r2;r3\r\n"
    ));
    let answer = answered(&sdp, Role::Publisher);
    assert_eq!(count(&answer, "a=simulcast:recv r0;r1;r2"), 1, "{answer}");
    assert!(!answer.contains("r3"), "{answer}");
}

#[test]
fn without_layers_there_is_no_word_of_them() {
    for (sdp, role) in [
        (PUBLISH.to_owned(), Role::Publisher),
        (VIEW.to_owned(), Role::Viewer),
        // Received, not sent; and of no use without the extension.
        (
            simulcast("a=rid:f recv\r\na=simulcast:recv f\r\n"),
            Role::Publisher,
        ),
        (
            simulcast("a=rid:f send\r\na=simulcast:send f\r\n").replace("sdes:rtp-stream", "x"),
            Role::Publisher,
        ),
    ] {
        let answer = answered(&sdp, role);
        for word in ["a=rid", "simulcast", "rtp-stream-id"] {
            assert!(!answer.contains(word), "{word} in {answer}");
        }
    }
}

#[test]
fn bandwidth_feedback_is_answered_to_those_that_offer_it() {
    let extension = |id| {
        let uri = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
        format!("a=extmap:{id} {uri}")
    };
    let answer = answered(PUBLISH, Role::Publisher);
    assert_eq!(count(&answer, &extension(3)), 2, "{answer}");
    for line in ["a=rtcp-fb:96 transport-cc", "a=rtcp-fb:96 goog-remb"] {
        assert_eq!(count(&answer, line), 1, "{answer}");
    }
    assert_eq!(count(&answer, "a=rtcp-fb:111 transport-cc"), 1, "{answer}");
    let answer = answered(VIEW, Role::Viewer);
    assert_eq!(count(&answer, &extension(3)), 2, "{answer}");
    assert_eq!(count(&answer, "a=rtcp-fb:96 transport-cc"), 1, "{answer}");
    assert!(!answer.contains("goog-remb"), "there is better: {answer}");
    // Either half alone is no offer of it.
    for half in ["transport-wide-cc-extensions", " transport-cc"] {
        let answer = answered(&VIEW.replace(half, " other"), Role::Viewer);
        assert!(!answer.contains("transport-cc") && !answer.contains("holmer"));
        assert_eq!(count(&answer, "a=rtcp-fb:96 goog-remb"), 1, "{answer}");
    }
}

#[test]
fn all_candidates_stand_once_in_the_answer_and_are_ended() {
    let answer = answered(PUBLISH, Role::Publisher);
    assert_eq!(
        count(
            &answer,
            "a=candidate:1 1 udp 2130706431 192.0.2.1 8443 typ host"
        ),
        1,
        "{answer}"
    );
    assert!(
        answer.contains(" 2001:db8::1 8443 typ host\r\n"),
        "{answer}"
    );
    // Below every UDP candidate: 90 << 24 | (4 << 13 | 8189) << 8 | 255.
    assert_eq!(
        count(
            &answer,
            "a=candidate:3 1 tcp 1520434687 192.0.2.1 443 typ host tcptype passive"
        ),
        1,
        "{answer}"
    );
    assert_eq!(answer.matches("a=candidate:").count(), 3, "{answer}");
    assert_eq!(count(&answer, "a=end-of-candidates"), 1, "{answer}");
}

#[test]
fn a_viewer_is_answered_sendonly_with_one_stream() {
    let answer = answered(VIEW, Role::Viewer);
    assert_eq!(count(&answer, "a=sendonly"), 2, "{answer}");
    assert_eq!(count(&answer, "a=msid:cname cname-audio"), 1, "{answer}");
    assert_eq!(count(&answer, "a=msid:cname cname-video"), 1, "{answer}");
    assert_eq!(count(&answer, "a=ssrc:111 cname:cname"), 1, "{answer}");
    assert_eq!(count(&answer, "a=ssrc:222 cname:cname"), 1, "{answer}");
    assert_eq!(count(&answer, "a=ssrc-group:FID 222 333"), 1, "{answer}");
    assert_eq!(count(&answer, "a=ssrc:333 cname:cname"), 1, "{answer}");
}

#[test]
fn the_answer_reads_back_with_the_same_parser() {
    for (sdp, role) in [
        (PUBLISH, Role::Publisher),
        (VIEW, Role::Viewer),
        (WEBRTC_RS, Role::Publisher),
    ] {
        let answer = answered(sdp, role);
        let parsed = rtc_sdp::description::session::SessionDescription::unmarshal(
            &mut std::io::Cursor::new(answer.as_bytes()),
        );
        assert!(parsed.is_ok(), "{parsed:?} of {answer}");
    }
}

#[test]
fn a_publisher_agreement_has_what_the_session_needs() {
    let (offer, agreement) = agreed(PUBLISH, Role::Publisher).expect("a right offer");
    let negotiated = &agreement.negotiated;
    assert_eq!(negotiated.remote_ufrag, "EsAw");
    assert_eq!(negotiated.remote_pwd, "P2uYro0UCOQ4zxjKXaWCBui1");
    assert_eq!(negotiated.fingerprint[..3], [0x5a, 0x1c, 0x0f]);
    assert_eq!(offer.candidates, 6);
    let [audio, video] = &negotiated.tracks[..] else {
        panic!("two tracks, not {:?}", negotiated.tracks);
    };
    assert_eq!((audio.kind, audio.ssrc), (Kind::Audio, Some(1_712_750_552)));
    assert_eq!((video.kind, video.ssrc), (Kind::Video, Some(3_463_951_252)));
    assert_eq!(video.extensions.mid, Some(4));
    let codecs: Vec<&Codec> = video.payload_types.iter().map(|p| &p.codec).collect();
    assert_eq!(codecs[0], &Codec::Vp8);
    assert_eq!(
        codecs[1],
        &Codec::H264 {
            packetization_mode: 1,
            profile_iop: 0x4200
        }
    );
    assert!(codecs.contains(&&Codec::Av1 { profile: 0 }));
    assert!(codecs.contains(&&Codec::Vp9 { profile: 2 }));
    assert!(video.payload_types.iter().all(|p| p.pli && p.nack));
    assert!(
        audio
            .payload_types
            .iter()
            .all(|p| !p.nack && p.rtx.is_none())
    );
    assert_eq!(video.payload_types[0].rtx, Some(97));
}

#[test]
fn a_webrtc_rs_publisher_with_session_level_fingerprint_is_understood() {
    let (offer, agreement) = agreed(WEBRTC_RS, Role::Publisher).expect("a right offer");
    assert_eq!(offer.candidates, 1);
    let pts: Vec<u8> = agreement.negotiated.tracks[0]
        .payload_types
        .iter()
        .map(|p| p.pt)
        .collect();
    assert_eq!(pts, [102, 106]);
    assert_eq!(agreement.negotiated.tracks[0].ssrc, Some(2_596_996_162));
}

const DATA: &str = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:2\r\na=sctp-port:5000\r\n";

#[test]
fn data_channels_are_accepted_in_the_bundle() {
    for (sdp, role) in [(PUBLISH, Role::Publisher), (VIEW, Role::Viewer)] {
        let sdp = sdp.replace("BUNDLE 0 1", "BUNDLE 0 1 2") + DATA;
        let answer = answered(&sdp, role);
        let (_, own) = answer
            .split_once("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n")
            .unwrap_or_else(|| panic!("{answer}"));
        for line in [
            "a=mid:2",
            "a=sctp-port:5000",
            "a=max-message-size:16384",
            "a=setup:passive",
        ] {
            assert_eq!(count(own, line), 1, "{line} in {answer}");
        }
        assert!(!own.contains("a=candidate"), "{answer}");
        assert_eq!(count(&answer, "a=group:BUNDLE 0 1 2"), 1, "{answer}");
    }
}

#[test]
fn an_offer_that_begins_with_data_channels_is_answered_in_its_order() {
    let media = VIEW.find("m=").expect("an m-line");
    let (session, media) = VIEW.split_at(media);
    let sdp = session.replace("BUNDLE 0 1", "BUNDLE 2 0 1")
        + DATA
        + "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\na=fingerprint:sha-256 "
        + &["AB"; 32].join(":")
        + "\r\n"
        + media;
    let answer = answered(&sdp, Role::Viewer);
    assert_eq!(count(&answer, "a=group:BUNDLE 2 0 1"), 1, "{answer}");
    let at = |what: &str| {
        answer
            .find(what)
            .unwrap_or_else(|| panic!("{what}: {answer}"))
    };
    assert!(at("m=application 9") < at("a=candidate:"), "{answer}");
    assert!(at("a=end-of-candidates") < at("m=audio 9"), "{answer}");
    let (offer, agreement) = agreed(&sdp, Role::Viewer).expect("a right offer");
    let bundle = Bundle::of(&offer, &agreement).expect("m-lines");
    assert_eq!((bundle.kind, &*bundle.mids), (None, "2 0 1"));
}

#[test]
fn what_an_offer_says_of_its_data_channels_must_be_right() {
    let with = |line: &str| {
        PUBLISH.replace("BUNDLE 0 1", "BUNDLE 0 1 2") + &DATA.replace("a=sctp-port:5000", line)
    };
    for bad in [
        "a=sctp-port:0",
        "a=sctp-port:x",
        "a=sctp-port:70000",
        "a=max-message-size:-1",
    ] {
        match refused(&with(bad), Role::Publisher) {
            OfferError::Malformed(message) => assert!(message.contains("a="), "{message}"),
            other => panic!("{bad}: {other:?}"),
        }
    }
    for (line, max) in [
        ("a=sctp-port:1", Some(65_536)),
        ("a=max-message-size:0", None),
        ("a=max-message-size:1200", Some(1200)),
    ] {
        let (_, agreement) = agreed(&with(line), Role::Publisher).expect("a right offer");
        let agreed = agreement.negotiated.data_channels.expect("data channels");
        assert_eq!(agreed.max_message, max, "{line}");
    }
}

#[test]
fn data_channels_of_the_drafts_are_answered_with_port_zero() {
    let sdp = PUBLISH.replace("BUNDLE 0 1", "BUNDLE 0 1 2")
        + "m=application 9 DTLS/SCTP 5000\r\nc=IN IP4 0.0.0.0\r\na=mid:2\r\na=sctpmap:5000 webrtc-datachannel 1024\r\n";
    let answer = answered(&sdp, Role::Publisher);
    assert!(
        answer.contains("m=application 0 DTLS/SCTP 5000\r\n"),
        "{answer}"
    );
    assert_eq!(count(&answer, "a=group:BUNDLE 0 1"), 1, "{answer}");
}

#[test]
fn a_stopped_m_line_is_answered_with_port_zero() {
    let sdp = VIEW
        .replace("m=audio 9", "m=audio 0")
        .replace("BUNDLE 0 1", "BUNDLE 1");
    let answer = answered(&sdp, Role::Viewer);
    assert!(
        answer.contains("m=audio 0 UDP/TLS/RTP/SAVPF 111\r\n"),
        "{answer}"
    );
    assert_eq!(answer.matches("a=candidate:").count(), 3, "{answer}");
    assert_eq!(count(&answer, "a=group:BUNDLE 1"), 1, "{answer}");
}

#[test]
fn a_viewer_without_a_common_audio_codec_still_gets_video() {
    let sdp = VIEW.replace("opus/48000/2", "speex/48000/2");
    let answer = answered(&sdp, Role::Viewer);
    assert!(answer.contains("m=audio 0 "), "{answer}");
    assert!(answer.contains("m=video 9 "), "{answer}");
}

#[test]
fn what_is_no_offer_is_malformed_and_the_message_says_why() {
    let cases = [
        ("hello".to_owned(), "v=0"),
        ("v=0\r\n".to_owned(), "no SDP"),
        (
            "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n".to_owned(),
            "m-line",
        ),
        (PUBLISH.replace("a=ice-ufrag:EsAw\r\n", ""), "a=ice-ufrag"),
        (
            PUBLISH.replace("a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n", ""),
            "a=ice-pwd",
        ),
        (PUBLISH.replace("ice-ufrag:EsAw", "ice-ufrag:E"), "4 to 256"),
        (
            PUBLISH.replace("a=fingerprint:sha-256", "a=nothing:sha-256"),
            "a=fingerprint",
        ),
        (PUBLISH.replace("5A:1C:0F", "5A:1C"), "32 bytes"),
        (PUBLISH.replace("a=mid:1", "a=mid:0"), "same a=mid"),
        (PUBLISH.replace("a=mid:1", "a=mid:\u{e9}"), "a=mid"),
        (
            PUBLISH.replace("minptime=10", "minptime=1\ra=setup:active"),
            "carriage return",
        ),
    ];
    for (sdp, says) in cases {
        match refused(&sdp, Role::Publisher) {
            OfferError::Malformed(message) => {
                assert!(message.contains(says), "{says:?} not in {message:?}")
            }
            other => panic!("{other:?} where {says:?} was expected"),
        }
    }
}

#[test]
fn what_cannot_be_served_is_refused_with_what_would_be_right() {
    let two_videos = PUBLISH.replace("m=audio", "m=video");
    let two_streams = PUBLISH.replacen("a=msid:7b2f", "a=msid:8b2f", 1);
    let cases = [
        (two_videos, Role::Publisher, "more than one video"),
        (two_streams, Role::Publisher, "one MediaStream"),
        (
            PUBLISH.replace("setup:actpass", "setup:passive"),
            Role::Publisher,
            "a=setup:actpass",
        ),
        (PUBLISH.to_owned(), Role::Viewer, "recvonly"),
        (VIEW.to_owned(), Role::Publisher, "sendonly"),
        (
            PUBLISH.replace("a=group:BUNDLE 0 1\r\n", ""),
            Role::Publisher,
            "BUNDLE",
        ),
        (
            PUBLISH.replace(
                "a=group:BUNDLE 0 1\r\n",
                "a=group:BUNDLE 0\r\na=group:BUNDLE 1\r\n",
            ),
            Role::Publisher,
            "BUNDLE",
        ),
        (
            PUBLISH.replace("a=rtcp-mux\r\n", ""),
            Role::Publisher,
            "rtcp-mux",
        ),
        (
            PUBLISH.replace("sha-256", "sha-512"),
            Role::Publisher,
            "sha-256",
        ),
        (
            PUBLISH.replace("s=-\r\nt=0 0\r\n", "s=-\r\nt=0 0\r\na=ice-lite\r\n"),
            Role::Publisher,
            "ice-lite",
        ),
        (
            PUBLISH.replace("UDP/TLS/RTP/SAVPF", "RTP/AVP"),
            Role::Publisher,
            "UDP/TLS/RTP/SAVPF",
        ),
        (
            PUBLISH
                .replace("m=video 9", "m=video 0")
                .replace("m=audio 9", "m=audio 0"),
            Role::Publisher,
            "in use",
        ),
    ];
    for (sdp, role, says) in cases {
        match refused(&sdp, role) {
            OfferError::Unsupported(message) => {
                assert!(message.contains(says), "{says:?} not in {message:?}")
            }
            other => panic!("{other:?} where {says:?} was expected"),
        }
    }
}

#[test]
fn an_offer_without_a_known_codec_is_told_which_are_known() {
    let sdp = PUBLISH.replace("opus/48000", "speex/48000");
    assert!(matches!(
        refused(&sdp, Role::Publisher),
        OfferError::NoCommonCodec(message) if message.contains("opus")
    ));
}

#[test]
fn every_limit_refuses_one_beyond_it() {
    let line = "a=x:".to_owned() + &"y".repeat(MAX_LINE_BYTES) + "\r\n";
    let candidate = "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n";
    let media = "m=application 9 UDP/DTLS/SCTP x\r\na=mid:";
    let formats: String = (0..MAX_CODECS).map(|n| format!(" {n}")).collect();
    let cases = [
        (PUBLISH.to_owned() + &"a=y:z\r\n".repeat(10_000), "bytes"),
        (PUBLISH.to_owned() + &line, "line"),
        (
            PUBLISH.to_owned() + &candidate.repeat(MAX_CANDIDATES),
            "candidates",
        ),
        (
            (2..=MAX_MEDIA).fold(PUBLISH.to_owned(), |sdp, n| format!("{sdp}{media}{n}\r\n")),
            "m-lines",
        ),
        (PUBLISH.replace(" 111 63", &formats), "codecs"),
    ];
    for (sdp, says) in cases {
        match refused(&sdp, Role::Publisher) {
            OfferError::Malformed(message) => {
                assert!(message.contains(says), "{says:?} not in {message:?}")
            }
            other => panic!("{other:?} where {says:?} was expected"),
        }
    }
}

#[test]
fn no_cut_or_changed_offer_panics() {
    for sdp in [PUBLISH, VIEW, WEBRTC_RS] {
        for end in 0..sdp.len() {
            let _ = agreed(&sdp[..end], Role::Publisher);
        }
        let mut bytes = sdp.as_bytes().to_vec();
        // A small linear congruential generator: the same bytes change on every run.
        let mut random: u32 = 7;
        for _ in 0..3_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = (random >> 8) as usize % bytes.len();
            let old = std::mem::replace(&mut bytes[at], random as u8);
            if let Ok(offer) = Offer::parse(&bytes) {
                let _ = offer.agree(Role::Viewer, [1, 2, 3], String::new());
            }
            let _ = Fragment::parse(&bytes);
            bytes[at] = old;
        }
    }
}

#[test]
fn a_fragment_counts_usable_candidates_and_drops_others_silently() {
    let fragment = Fragment::parse(
        b"a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n\
          a=candidate:1 1 udp 2122260223 192.168.1.20 50632 typ host\r\n\
          a=candidate:1 2 udp 2122260222 192.168.1.20 50633 typ host\r\n\
          a=candidate:nonsense\r\n\
          a=candidate:2 1 UDP 2122260223 x.local 50632 typ host generation 0\r\na=end-of-candidates\r\n",
    )
    .expect("a right fragment");
    assert_eq!(fragment.ufrag.as_deref(), Some("EsAw"));
    assert_eq!(fragment.candidates, 2);
    assert!(fragment.end_of_candidates);
}

#[test]
fn a_malformed_fragment_is_refused() {
    for bad in [
        &b""[..],
        b"hello",
        b"{\"candidate\":\"\"}",
        b"a=ice-ufrag:EsAw\r\n",
        b"a=ice-ufrag:E\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n",
        b"a=mid:0\r\n",
        b"\xff\xfe",
    ] {
        assert!(
            Fragment::parse(bad).is_err(),
            "{:?}",
            String::from_utf8_lossy(bad)
        );
    }
}

#[test]
fn a_restart_is_answered_with_the_same_ice_lines_as_the_offer_was() {
    let answer = answered(PUBLISH, Role::Publisher);
    let (offer, agreement) = agreed(PUBLISH, Role::Publisher).expect("a right offer");
    let bundle = Bundle::of(&offer, &agreement).expect("tracks");
    let fragment = write_restart(
        &bundle,
        Ufrag::new(&[0; 16], 0, 0, [3; 6]),
        &IcePwd::new([4; 24]),
        &[candidate(CandidateKind::Udp, "192.0.2.1:8443")],
    );
    for start in ["a=ice-lite", "a=ice-options:", "a=group:BUNDLE ", "a=mid:"] {
        let first = |text: &str| {
            text.lines()
                .find(|l| l.starts_with(start))
                .map(str::to_owned)
        };
        assert_eq!(first(&fragment), first(&answer), "{start}");
    }
    let read = Fragment::parse(fragment.as_bytes()).expect("a right fragment");
    assert_eq!((read.candidates, read.end_of_candidates), (1, true));
    assert_eq!(read.pwd.map(|pwd| pwd.len()), Some(32));
    assert!(fragment.contains("m=audio 9 "), "{fragment}");
}

/// An offer of 60 KB with these formats of video, and this line over and over.
fn swollen(formats: &str, simulcast: &str, line: &str) -> String {
    let (head, video) = PUBLISH.split_once("m=video").expect("a video m-line");
    let mut offer = format!("{head}m=video 9 UDP/TLS/RTP/SAVPF {formats}\r\n");
    let (_, rest) = video.split_once("\r\n").expect("more lines");
    offer.push_str(rest.split_once("a=rtpmap").expect("codecs").0);
    offer.push_str(simulcast);
    while offer.len() < 60_000 {
        offer.push_str(line);
    }
    offer
}

#[test]
fn an_offer_costs_what_its_length_says_whatever_its_lines_are() {
    let time = |offer: &str| {
        let once = |_| {
            let begun = Instant::now();
            // Most of them are refused, for their many formats.
            let _ = Offer::parse(offer.as_bytes());
            begun.elapsed()
        };
        (0..9).map(once).min().expect("nine times")
    };
    let formats = "9 ".repeat(1_900);
    let rids: Vec<_> = (100..1_100).map(|n| n.to_string()).collect();
    let layers = format!("a=simulcast:send {}\r\n", rids.join(";"));
    let plain = time(&swollen("96", "", "a=unknown:9 x\r\n"));
    for (what, offer) in [
        ("formats", swollen(formats.trim(), "", "a=rtpmap:8 x\r\n")),
        ("feedback", swollen(formats.trim(), "", "a=rtcp-fb:8 x\r\n")),
        ("layers", swollen("96", &layers, "a=rid:x send\r\n")),
    ] {
        let bomb = time(&offer);
        assert!(bomb < 20 * plain, "{what}: {bomb:?}, a plain one {plain:?}");
    }
}
