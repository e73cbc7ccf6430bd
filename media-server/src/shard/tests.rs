//! Shards from outside: the mailbox, the events and junk at the media port. Sessions with media are
//! tested in `media-core` and through the whole server.

mod checks;
mod moving;

use super::*;
use media_core::cells::Drop;
use media_core::negotiated::{Codec, Kind, PayloadType, Track};
use std::net::UdpSocket as StdSocket;

const KEY: [u8; 16] = [7; 16];

fn start(shards: u8) -> (Shards, mpsc::Receiver<Event>) {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    Shards::start(ShardConfig {
        listen,
        shards,
        tcp_connections: 1_000,
        ufrag_key: KEY,
        cache_bytes: 1 << 20,
        video_kbps: 12_000,
        idle_publisher_kbps: None,
    })
    .expect("starts")
}

fn session(shard: u8, number: u8, role: Role) -> OpenSession {
    let payload_type = PayloadType {
        pt: 96,
        codec: Codec::Vp8,
        nack: false,
        pli: true,
        rtx: None,
    };
    OpenSession {
        id: SessionId::new(3, shard, [number; 16]),
        ufrag: Ufrag::new(&KEY, 3, shard, [number; 6]),
        pwd: IcePwd::new([number; 24]),
        device: "cam".into(),
        negotiated: Negotiated {
            role,
            remote_ufrag: "peer".to_owned(),
            remote_pwd: "password of the peer..".to_owned(),
            fingerprint: [0; 32],
            tracks: vec![Track {
                kind: Kind::Video,
                mid: "0".to_owned(),
                payload_types: vec![payload_type],
                extensions: Default::default(),
                ssrc: Some(u32::from(number)),
                rtx_ssrc: None,
                rids: Vec::new(),
            }],
            data_channels: None,
            cname: "media".to_owned(),
            remb: false,
        },
        may_control: false,
        cells: Arc::new(SessionCells::new()),
    }
}

async fn next(events: &mut mpsc::Receiver<Event>) -> Event {
    let event = tokio::time::timeout(Duration::from_secs(20), events.recv()).await;
    event
        .expect("an event within 20 s")
        .expect("the shards run")
}

/// Waits for a figure to become what it should; it is written by another thread.
async fn eventually(what: &str, figure: impl Fn() -> u64, expected: u64) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while figure() != expected {
        assert!(
            Instant::now() < deadline,
            "{what} is {}, not {expected}",
            figure()
        );
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_shard_hangs_once_it_has_not_beaten_for_five_seconds() {
    let (shards, _events) = start(2);
    let now = Instant::now();
    assert_eq!(shards.stuck(now), [0usize; 0]);
    assert_eq!(shards.stuck(now + STUCK_AFTER * 2), [0, 1], "none since");
    shards.shutdown().await;
    let ended = Instant::now();
    assert_eq!(shards.stuck(ended + STUCK_AFTER * 2), [0, 1]);
}

#[tokio::test]
async fn every_opened_session_gives_exactly_one_closed_event() {
    let (shards, mut events) = start(2);
    let mut ids = Vec::new();
    for number in 0..20 {
        let role = if number == 0 {
            Role::Publisher
        } else {
            Role::Viewer
        };
        let open = session(number % 2, number, role);
        ids.push(open.id);
        shards.open(open).await.expect("taken");
    }
    eventually(
        "sessions",
        || shards.cells().iter().map(|c| c.sessions()).sum(),
        20,
    )
    .await;
    for id in &ids[..10] {
        assert_eq!(shards.close(*id, CloseReason::Normal).await, Ok(true));
        assert_eq!(
            shards.close(*id, CloseReason::Superseded).await,
            Ok(false),
            "closed already"
        );
    }
    shards.shutdown().await;
    let mut closed = Vec::new();
    for _ in 0..20 {
        match next(&mut events).await {
            Event::Closed { id, reason } => closed.push((id, reason)),
            event => panic!("nothing connected, but {event:?}"),
        }
    }
    let reason = |id| {
        closed
            .iter()
            .filter(|c| c.0 == id)
            .map(|c| c.1)
            .collect::<Vec<_>>()
    };
    for (at, id) in ids.iter().enumerate() {
        let expected = if at < 10 {
            CloseReason::Normal
        } else {
            CloseReason::Drained
        };
        assert_eq!(reason(*id), [expected]);
    }
    assert_eq!(
        shards.close(ids[0], CloseReason::Normal).await,
        Err(MailboxError::Stopped)
    );
}

#[tokio::test]
async fn a_thousand_random_datagrams_get_no_answer_and_are_counted() {
    let (shards, _events) = start(2);
    shards
        .open(session(0, 1, Role::Viewer))
        .await
        .expect("taken");
    let socket = StdSocket::bind("127.0.0.1:0").expect("bind");
    let (mut state, mut sent) = (1u64, 0);
    let mut random = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    for i in 0..1_000 {
        let mut datagram: Vec<u8> = (0..1 + usize::from(random()) * 6)
            .map(|_| random())
            .collect();
        // A fifth looks like STUN up to its cookie.
        if i % 5 == 0 && datagram.len() >= 20 {
            datagram[0] &= 3;
            datagram[4..8].copy_from_slice(&[0x21, 0x12, 0xa4, 0x42]);
        }
        socket
            .send_to(&datagram, shards.local_addr())
            .expect("sent");
        sent += 1;
        // No more on the way than any socket buffer holds.
        if i % 50 == 49 {
            eventually(
                "received",
                || shards.cells().iter().map(|c| c.packets_in()).sum(),
                sent,
            )
            .await;
        }
    }
    let dropped = || {
        Drop::ALL
            .iter()
            .map(|r| shards.cells().iter().map(|c| c.drops(*r)).sum::<u64>())
            .sum()
    };
    eventually("dropped", dropped, 1_000).await;
    assert_eq!(
        shards.cells().iter().map(|c| c.packets_out()).sum::<u64>(),
        0
    );
    assert_eq!(shards.cells().iter().map(|c| c.sessions()).sum::<u64>(), 1);
}

#[tokio::test]
async fn viewers_are_placed_with_their_publisher_up_to_fifty() {
    let (shards, _events) = start(4);
    shards
        .open(session(2, 200, Role::Publisher))
        .await
        .expect("taken");
    for number in 0..50 {
        assert_eq!(shards.place(Role::Viewer, "cam"), 2, "viewer {number}");
        shards
            .open(session(2, number, Role::Viewer))
            .await
            .expect("taken");
    }
    eventually("sessions", || shards.cells()[2].sessions(), 51).await;
    assert_ne!(shards.place(Role::Viewer, "cam"), 2);
    assert_ne!(shards.place(Role::Publisher, "cam"), 2, "the least loaded");
    shards
        .close(session(2, 0, Role::Viewer).id, CloseReason::Normal)
        .await
        .expect("answered");
    assert_eq!(shards.place(Role::Viewer, "cam"), 2, "one left");
}

#[test]
fn impossible_configurations_are_refused() {
    let config = |listen: &str, shards| {
        let listen = listen.parse().expect("address");
        Shards::start(ShardConfig {
            listen,
            shards,
            tcp_connections: 100,
            ufrag_key: KEY,
            cache_bytes: 1 << 20,
            video_kbps: 12_000,
            idle_publisher_kbps: None,
        })
        .err()
    };
    assert!(matches!(
        config("127.0.0.1:0", 0),
        Some(StartError::Shards { shards: 0 })
    ));
    assert!(matches!(
        config("127.0.0.1:0", 65),
        Some(StartError::Shards { shards: 65 })
    ));
    // TEST-NET-1 is no address of this machine.
    assert!(matches!(
        config("192.0.2.1:0", 1),
        Some(StartError::Bind { .. })
    ));
}
