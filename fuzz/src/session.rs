//! A session that an address has bound, and what comes from there before there are keys.

use aws_lc_rs::hmac;
use media_core::cells::{SessionCells, ShardCells};
use media_core::clock::WallClock;
use media_core::dtls::Identity;
use media_core::ids::{IcePwd, SessionId, Ufrag};
use media_core::negotiated::{Codec, Extensions, Kind, Negotiated, PayloadType, Role, Track};
use media_core::output::Output;
use media_core::publisher::Publisher;
use media_core::session::{Session, SessionConfig};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

const UFRAG: Ufrag = Ufrag(*b"ABCDEFGHIJKLMNOP");
const PWD: IcePwd = IcePwd(*b"abcdefghijklmnopqrstuvwxyz012345");
const FROM: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)),
    40_000,
);
/// Most that one datagram may be answered with: our flight, and what a timer repeats of it.
const MOST_SENT: usize = 16 * 1_024;

/// Datagrams lie behind each other, each with two bytes before it: how much later it comes, in units of
/// 100 ms (5 bits), and its length (11 bits).
pub fn session(data: &[u8]) {
    let mut now = Instant::now();
    let mut session = Publisher::new(now, config(now));
    let mut out = Output::new(Arc::new(ShardCells::default()));
    for number in 1..=2 {
        let mut check = check([number; 12]);
        session.handle_datagram(now, FROM.into(), &mut check, &mut out);
        assert!(!out.slab.is_empty(), "an authentic check is answered");
        out.slab.clear();
    }
    let mut rest = data;
    while let Some((head, behind)) = rest.split_first_chunk() {
        let head = u16::from_be_bytes(*head);
        now += Duration::from_millis(100) * u32::from(head >> 11);
        let len = usize::from(head & 0x7ff).min(behind.len());
        let (datagram, behind) = behind.split_at(len);
        rest = behind;
        session.handle_datagram(now, FROM.into(), &mut datagram.to_vec(), &mut out);
        if session.poll_timeout() <= now {
            session.handle_timeout(now, &mut out);
        }
        assert!(out.slab.runs().iter().all(|run| run.to == FROM.into()));
        assert!(out.slab.bytes().len() <= MOST_SENT);
        assert!(!session.has_batch(), "no media without keys");
        out.slab.clear();
        out.events.clear();
    }
}

fn config(now: Instant) -> SessionConfig {
    static IDENTITY: OnceLock<Identity> = OnceLock::new();
    let identity = IDENTITY.get_or_init(|| Identity::generate().expect("a certificate"));
    SessionConfig {
        id: SessionId([5; 16]),
        ufrag: UFRAG,
        pwd: PWD,
        negotiated: Negotiated {
            role: Role::Publisher,
            remote_ufrag: "peer".to_owned(),
            remote_pwd: "unused".to_owned(),
            fingerprint: [0; 32],
            tracks: vec![Track {
                kind: Kind::Video,
                mid: "0".to_owned(),
                payload_types: vec![PayloadType {
                    pt: 96,
                    codec: Codec::Vp8,
                    nack: true,
                    pli: true,
                    rtx: Some(97),
                }],
                extensions: Extensions::default(),
                ssrc: None,
                rtx_ssrc: None,
                rids: Vec::new(),
            }],
            cname: "media".to_owned(),
            remb: false,
        },
        cells: Arc::new(SessionCells::new()),
        identity: identity.clone(),
        clock: WallClock::new(now, Duration::from_secs(1_800_000_000)),
    }
}

/// A Binding request that nominates, with the session's credentials (RFC 8445 §7.1, RFC 8489 §14).
fn check(transaction: [u8; 12]) -> Vec<u8> {
    let mut message = b"\x00\x01\x00\x00\x21\x12\xa4\x42".to_vec();
    message.extend(transaction);
    let username = [&UFRAG.0[..], b":peer"].concat();
    attribute(&mut message, 0x0006, &username);
    attribute(&mut message, 0x0025, &[]);
    // Each of the two that close a message counts itself in the length.
    set_length(&mut message, 24);
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &PWD.0);
    let tag = hmac::sign(&key, &message);
    attribute(&mut message, 0x0008, tag.as_ref());
    set_length(&mut message, 8);
    let sum = crc32(&message) ^ 0x5354_554e;
    attribute(&mut message, 0x8028, &sum.to_be_bytes());
    message
}

fn attribute(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend(kind.to_be_bytes());
    message.extend((value.len() as u16).to_be_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

fn set_length(message: &mut [u8], to_come: usize) {
    let length = (message.len() - 20 + to_come) as u16;
    message[2..4].copy_from_slice(&length.to_be_bytes());
}

/// CRC-32 of ITU-T V.42, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            let carry = 0_u32.wrapping_sub(sum & 1);
            sum >> 1 ^ carry & 0xedb8_8320
        })
    })
}
