//! A session that an address has bound, and what comes from there before there are keys.

use media_core::cells::{SessionCells, ShardCells};
use media_core::clock::WallClock;
use media_core::dtls::Identity;
use media_core::ids::{IcePwd, SessionId, Ufrag};
use media_core::negotiated::{Codec, Extensions, Kind, Negotiated, PayloadType, Role, Track};
use media_core::output::Output;
use media_core::publisher::Publisher;
use media_core::session::{Session, SessionConfig};
use media_core::stun;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

const UFRAG: Ufrag = Ufrag(*b"ABCDEFGHIJKLMNOP");
const USERNAME: &str = "ABCDEFGHIJKLMNOP:peer";
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
        let mut check = stun::request(USERNAME, &PWD.0, [number; 12], true);
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
            data_channels: None,
            cname: "media".to_owned(),
            remb: false,
        },
        cells: Arc::new(SessionCells::new()),
        identity: identity.clone(),
        clock: WallClock::new(now, Duration::from_secs(1_800_000_000)),
    }
}
