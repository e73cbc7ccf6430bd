//! Sealing and opening against `rtc-srtp`, an implementation of its own, and the use-once rule.

use super::*;
use proptest::prelude::*;
use rtc_crypto::RTCCryptoProvider;
use rtc_crypto::providers::AwsLcRsProvider;
use rtc_srtp::context::Context;
use rtc_srtp::protection_profile::ProtectionProfile;

const PROFILES: [Profile; 2] = [Profile::AeadAes128Gcm, Profile::Aes128CmHmacSha1_80];

fn material(profile: Profile) -> Vec<u8> {
    (0..profile.keying_material_len())
        .map(|i| i as u8 ^ 0x5a)
        .collect()
}

fn ours(profile: Profile, is_client: bool) -> Keys {
    Keys::new(profile, &material(profile), is_client).expect("keys")
}

fn context_profile(profile: Profile) -> ProtectionProfile {
    match profile {
        Profile::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        Profile::Aes128CmHmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
    }
}

/// The same keys as contexts: (what the server sends with, what the client sends with).
fn theirs(profile: Profile) -> (Context, Context) {
    let mut config = rtc_srtp::config::Config {
        profile: context_profile(profile),
        ..Default::default()
    };
    config
        .set_session_keys_from_keying_material(&material(profile), false)
        .expect("length fits");
    let context = |key: &[u8], salt: &[u8]| {
        Context::new(
            key,
            salt,
            context_profile(profile),
            None,
            None,
            AwsLcRsProvider::new().crypto(),
        )
        .expect("context")
    };
    let keys = &config.keys;
    (
        context(&keys.local_master_key, &keys.local_master_salt),
        context(&keys.remote_master_key, &keys.remote_master_salt),
    )
}

fn plain(seq: u16) -> Vec<u8> {
    let mut packet = crate::testing::packet(96, seq, 9_000, 77, true, b"some payload of a packet");
    packet[0] |= 0x10;
    packet.splice(12..12, [0xbe, 0xde, 0, 1, 0x10, 9, 0, 0]);
    packet
}

const HEADER: usize = 20;

#[test]
fn what_is_sealed_opens_elsewhere_across_roll_overs() {
    for profile in PROFILES {
        let (mut server, _) = theirs(profile);
        let mut sealer = Sealer::new(ours(profile, false).ours);
        for index in 65_500..65_600u64 {
            let mut packet = plain(index as u16);
            let text = packet.clone();
            packet.resize(packet.len() + sealer.tag_len(), 0);
            sealer
                .seal(77, index, &mut packet, HEADER)
                .expect("fresh index");
            assert_eq!(server.decrypt_rtp(&packet).expect("verifies")[..], text);
        }
    }
}

#[test]
fn what_others_seal_opens_across_roll_overs() {
    for profile in PROFILES {
        let (_, mut client) = theirs(profile);
        let mut opener = Opener::new(ours(profile, false).theirs);
        for index in 65_000..66_000u64 {
            let text = plain(index as u16);
            let mut packet = client.encrypt_rtp(&text).expect("seal").to_vec();
            let opened = opener
                .open(77, index as u16, &mut packet, HEADER)
                .expect("verifies");
            assert_eq!((opened.index, &packet[..opened.end]), (index, &text[..]));
        }
    }
}

#[test]
fn an_index_is_sealed_at_most_once_whatever_the_order() {
    for profile in PROFILES {
        let mut sealer = Sealer::new(ours(profile, false).ours);
        let mut sealed = std::collections::HashSet::new();
        let mut highest = 0u64;
        // A fixed generator: jumps forward and back, in and out of the window.
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..20_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let index = (highest + state % 1_500).saturating_sub(1_200);
            let mut packet = plain(index as u16);
            packet.resize(packet.len() + sealer.tag_len(), 0);
            if sealer.seal(77, index, &mut packet, HEADER).is_ok() {
                assert!(sealed.insert(index), "index {index} sealed twice");
            } else {
                assert!(
                    sealed.contains(&index) || index + 1024 <= highest,
                    "fresh index {index} refused"
                );
            }
            highest = highest.max(if sealed.contains(&index) { index } else { 0 });
        }
        assert!(sealed.len() > 5_000);
        // Another stream of the same key has indices of its own.
        let index = highest;
        let mut packet = plain(index as u16);
        packet.resize(packet.len() + sealer.tag_len(), 0);
        assert_eq!(
            sealer.seal(77, index, &mut packet.clone(), HEADER),
            Err(SealError::Used)
        );
        assert_eq!(sealer.seal(78, index, &mut packet, HEADER), Ok(()));
    }
}

#[test]
fn replays_forgeries_and_old_packets_do_not_open() {
    for profile in PROFILES {
        let (_, mut client) = theirs(profile);
        let mut opener = Opener::new(ours(profile, false).theirs);
        let packets: Vec<_> = (0..2_000u16)
            .map(|seq| client.encrypt_rtp(&plain(seq)).expect("seal").to_vec())
            .collect();
        let mut open = |seq: u16, packet: &[u8]| {
            opener
                .open(77, seq, &mut packet.to_vec(), HEADER)
                .map(|o| o.index)
        };
        for (at, byte) in [(3, 1), (15, 1), (25, 1), (packets[0].len() - 1, 1)] {
            let mut forged = packets[5].clone();
            forged[at] ^= byte;
            let seq = u16::from_be_bytes([forged[2], forged[3]]);
            assert_eq!(
                open(seq, &forged),
                Err(OpenError::Unauthenticated),
                "byte {at}"
            );
        }
        assert_eq!(open(5, &packets[5]), Ok(5));
        assert_eq!(open(5, &packets[5]), Err(OpenError::Replay));
        assert_eq!(open(3, &packets[3]), Ok(3), "late but new");
        assert_eq!(open(1_999, &packets[1_999]), Ok(1_999));
        assert_eq!(
            open(4, &packets[4]),
            Err(OpenError::Replay),
            "older than the window"
        );
        assert_eq!(open(1_000, &packets[1_000]), Ok(1_000));
    }
}

#[test]
fn a_session_opens_a_bounded_number_of_streams() {
    let (_, mut client) = theirs(Profile::AeadAes128Gcm);
    let mut opener = Opener::new(ours(Profile::AeadAes128Gcm, false).theirs);
    let opened = (0..100u32)
        .filter(|ssrc| {
            let text = crate::testing::packet(96, 1, 1, *ssrc, false, b"x");
            let mut packet = client.encrypt_rtp(&text).expect("seal").to_vec();
            opener.open(*ssrc, 1, &mut packet, 12).is_ok()
        })
        .count();
    assert_eq!(opened, 32);
}

/// A compound packet whose first SSRC is `ssrc`.
fn compound(ssrc: u32) -> Vec<u8> {
    let mut writer = crate::rtcp::Writer::default();
    writer.receiver_report(ssrc, &[crate::rtcp::ReportBlock::default(); 2]);
    writer.cname(ssrc, "media");
    writer.bytes().to_vec()
}

#[test]
fn control_packets_that_are_sealed_open_elsewhere() {
    for profile in PROFILES {
        let (mut server, _) = theirs(profile);
        let mut sealer = ours(profile, false).rtcp_out;
        for ssrc in [7, 7, 9, 7] {
            let text = compound(ssrc);
            let mut packet = vec![0; text.len() + sealer.overhead()];
            assert_eq!(sealer.seal(&text, &mut packet), Some(packet.len()));
            assert_eq!(server.decrypt_rtcp(&packet).expect("verifies")[..], text);
        }
        assert_eq!(sealer.seal(&compound(7), &mut [0; 40]), None, "no room");
        assert_eq!(sealer.seal(&[0x80; 7], &mut [0; 100]), None, "no header");
    }
}

#[test]
fn control_packets_that_others_seal_open_once() {
    for profile in PROFILES {
        let (_, mut client) = theirs(profile);
        let mut opener = ours(profile, false).rtcp_in;
        let text = compound(7);
        let mut seal = || client.encrypt_rtcp(&text).expect("seal").to_vec();
        let packets: Vec<_> = (0..2_000).map(|_| seal()).collect();
        let mut open = |packet: &[u8]| opener.open(&mut packet.to_vec()).map(<[u8]>::to_vec);
        for at in 0..packets[0].len() {
            let mut forged = packets[0].clone();
            forged[at] ^= 1;
            assert_eq!(open(&forged), Err(OpenError::Unauthenticated), "byte {at}");
            let cut = open(&packets[0][..at]);
            assert_eq!(cut, Err(OpenError::Unauthenticated), "cut to {at}");
        }
        let flag = packets[0].len() - if profile.tag_len() == 16 { 4 } else { 14 };
        let mut open_text = packets[0].clone();
        open_text[flag] &= 0x7f;
        assert_eq!(open(&open_text), Err(OpenError::Unauthenticated));
        assert_eq!(open(&packets[1]), Ok(text.clone()));
        assert_eq!(open(&packets[1]), Err(OpenError::Replay));
        assert_eq!(open(&packets[0]), Ok(text.clone()), "late but new");
        assert_eq!(open(&packets[1_999]), Ok(text.clone()));
        assert_eq!(
            open(&packets[5]),
            Err(OpenError::Replay),
            "older than the window"
        );
    }
}

#[test]
fn forged_control_packets_leave_no_state_and_true_ones_a_bounded_one() {
    for profile in PROFILES {
        let (_, mut client) = theirs(profile);
        let mut opener = ours(profile, false).rtcp_in;
        let mut forged = client.encrypt_rtcp(&compound(1)).expect("seal").to_vec();
        for ssrc in 2..100_002u32 {
            forged[4..8].copy_from_slice(&ssrc.to_be_bytes());
            let opened = opener.open(&mut forged.clone()).map(drop);
            assert_eq!(opened, Err(OpenError::Unauthenticated));
        }
        assert_eq!(opener.senders(), 0);
        let mut open = |ssrc| {
            let mut packet = client.encrypt_rtcp(&compound(ssrc)).expect("seal").to_vec();
            opener.open(&mut packet).map(drop)
        };
        assert!((0..32).all(|ssrc| open(ssrc).is_ok()));
        assert_eq!(open(32), Err(OpenError::Streams));
        assert_eq!(open(31), Ok(()), "known ones go on");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn no_pair_of_stream_and_index_is_sealed_twice_and_no_fresh_one_refused(
        picks in proptest::collection::vec((0..6u32, -1_100..1_100i64), 1..300),
    ) {
        let mut sealer = Sealer::new(ours(Profile::AeadAes128Gcm, false).ours);
        let mut sealed = std::collections::HashSet::new();
        let mut highest = [None::<u64>; 6];
        for (ssrc, step) in picks {
            let known = &mut highest[ssrc as usize];
            let index = known.unwrap_or(3_000).saturating_add_signed(step);
            let mut packet = plain(index as u16);
            packet.resize(packet.len() + sealer.tag_len(), 0);
            let old = known.is_some_and(|highest| index + WINDOW as u64 <= highest);
            match sealer.seal(ssrc, index, &mut packet, HEADER) {
                Ok(()) => {
                    prop_assert!(sealed.insert((ssrc, index)), "{} of {} twice", index, ssrc);
                    *known = Some(known.map_or(index, |highest| highest.max(index)));
                }
                Err(SealError::Used) => {
                    prop_assert!(old || sealed.contains(&(ssrc, index)), "{} refused", index);
                }
                Err(SealError::Streams) => {
                    prop_assert!(known.is_none());
                    let streams = highest.iter().flatten().count();
                    prop_assert_eq!(streams, 4);
                }
                Err(SealError::Room) => prop_assert!(false, "there is room"),
            }
        }
    }
}
