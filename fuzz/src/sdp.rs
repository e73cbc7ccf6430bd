//! Bodies of signalling requests.

use media_core::ids::{IcePwd, Ufrag};
use media_core::negotiated::{Codec, Role};
use media_core::sdp::{
    Candidate, CandidateKind, Fragment, Local, MAX_CANDIDATES, MAX_CODECS, MAX_MEDIA, Offer,
    Proposal, Proposed, write_answer,
};
use std::net::SocketAddr;

pub fn offer(data: &[u8]) {
    let Ok(offer) = Offer::parse(data) else {
        return;
    };
    assert!(offer.media.len() <= MAX_MEDIA);
    assert!(offer.candidates as usize <= MAX_CANDIDATES);
    let candidates = [CandidateKind::Udp, CandidateKind::TcpPassive].map(|kind| Candidate {
        kind,
        address: SocketAddr::from(([192, 0, 2, 1], 8_443)),
    });
    for role in [Role::Publisher, Role::Viewer] {
        let Ok(agreement) = offer.agree(role, [111, 222, 333], "media".to_owned()) else {
            continue;
        };
        let negotiated = &agreement.negotiated;
        assert!((1..=2).contains(&negotiated.tracks.len()));
        for track in &negotiated.tracks {
            assert!((1..=MAX_CODECS).contains(&track.payload_types.len()));
            assert!(track.payload_types.iter().all(|p| p.pt < 128));
        }
        let local = Local {
            ufrag: Ufrag::new(&[0; 16], 0, 0, [1; 6]),
            pwd: IcePwd::new([2; 24]),
            fingerprint: [0xab; 32],
            candidates: &candidates,
            origin: u64::MAX,
            video_kbps: 12_000,
        };
        let answer = write_answer(&offer, &agreement, &local);
        // No word of the offer becomes a line of its own.
        for line in answer.split_terminator("\r\n") {
            let (key, value) = line.split_once('=').expect("a line has a key");
            assert_eq!(key.len(), 1, "{line:?}");
            assert!(!value.contains(['\r', '\n']), "{line:?}");
        }
        let lines = |start: &str| {
            answer
                .lines()
                .filter(|line| line.starts_with(start))
                .count()
        };
        assert_eq!(lines("m="), offer.media.len());
        assert_eq!(lines("a=candidate:"), candidates.len());
        assert_eq!(lines("a=setup:"), lines("a=setup:passive"));
    }
}

/// An answer to an offer of ours: nothing is agreed on that was not in it.
pub fn answer(data: &[u8]) {
    let h264 = Codec::H264 {
        packetization_mode: 1,
        profile_iop: 0x42e0,
    };
    let proposed = [h264, Codec::Vp8, Codec::Opus];
    let proposal = Proposed {
        video: proposed[..2].to_vec(),
        audio: true,
        control: true,
        stream: "screen".to_owned(),
    };
    let ssrcs = [111, 222, 333];
    let proposal = Proposal::new(proposal, ssrcs, "media".to_owned()).expect("a track");
    let Ok((negotiated, candidates)) = proposal.agree(data) else {
        return;
    };
    assert!(candidates as usize <= MAX_CANDIDATES);
    assert_eq!(negotiated.role, Role::Viewer);
    assert!((1..=2).contains(&negotiated.tracks.len()));
    for track in &negotiated.tracks {
        assert!((1..=2).contains(&track.payload_types.len()));
        for payload_type in &track.payload_types {
            let known = proposed
                .iter()
                .any(|codec| codec.is_like(&payload_type.codec));
            assert!(known, "{payload_type:?}");
            assert!([96, 102, 111].contains(&payload_type.pt));
            assert!(matches!(payload_type.rtx, None | Some(97 | 103)));
        }
        assert!(track.ssrc.is_some_and(|ssrc| ssrcs.contains(&ssrc)));
    }
}

pub fn fragment(data: &[u8]) {
    let Ok(fragment) = Fragment::parse(data) else {
        return;
    };
    assert!(fragment.candidates as usize <= MAX_CANDIDATES);
    assert_eq!(fragment.ufrag.is_some(), fragment.pwd.is_some());
    for word in [&fragment.ufrag, &fragment.pwd].into_iter().flatten() {
        assert!((4..=256).contains(&word.len()));
        assert!(
            word.bytes()
                .all(|c| c.is_ascii_alphanumeric() || b"+/".contains(&c))
        );
    }
}
