//! Handshakes between the server and a client of other settings, with and without loss.

use crate::cells::Drop;
use crate::negotiated::Role;
use crate::output::{End, SessionEvent};
use crate::publisher::Publisher;
use crate::session::Session;
use crate::testing::{Bench, GCM, Peer, SHA1};
use std::time::Duration;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl super::Dtls {
    /// Datagrams of our last flight, and how many they may be.
    pub(crate) fn held(&self) -> (&'static str, usize, usize) {
        ("flight", self.flight.len(), 32)
    }
}

fn handshake(flight: Duration, lose: impl FnMut(bool, u32) -> bool) -> (Bench, Peer, Publisher) {
    let mut bench = Bench::new();
    let mut peer = Peer::new(1, &[GCM, SHA1], flight);
    let (config, _) = bench.config(1, Role::Publisher, &peer);
    let mut session = Publisher::new(bench.now, config);
    let check = peer.check(true);
    bench.feed(&mut session, peer.addr, &check);
    peer.start_handshake(bench.now);
    bench.run(ms(8_000), &mut session, &mut peer, lose);
    (bench, peer, session)
}

#[test]
fn a_handshake_completes_whichever_single_datagram_is_lost() {
    // libwebrtc starts at 50 ms, others at the 1 s of RFC 6347: faster and slower than the server.
    for flight in [ms(50), ms(100), ms(300)] {
        for from_peer in [true, false] {
            for lost in 1..=4 {
                let (bench, peer, _) =
                    handshake(flight, |up, number| up == from_peer && number == lost);
                let connected = bench.events.contains(&SessionEvent::Connected);
                assert!(
                    connected && peer.is_keyed(),
                    "client timer {flight:?}, lost datagram {lost} {}: server {connected}, client {}",
                    if from_peer {
                        "to the server"
                    } else {
                        "to the client"
                    },
                    peer.is_keyed(),
                );
            }
        }
    }
}

#[test]
fn gcm_is_chosen_even_if_the_client_prefers_sha1() {
    for (offer, expected) in [
        (&[SHA1, GCM][..], GCM),
        (&[GCM, SHA1], GCM),
        (&[SHA1], SHA1),
        (&[GCM], GCM),
    ] {
        let mut bench = Bench::new();
        let mut peer = Peer::new(1, offer, ms(100));
        let (config, _) = bench.config(1, Role::Publisher, &peer);
        bench.connect(&mut Publisher::new(bench.start, config), &mut peer);
        assert_eq!(peer.profile, Some(expected), "offered {offer:?}");
    }
}

#[test]
fn a_client_hello_in_pieces_is_read_whole_even_with_loss() {
    for mtu in [60, 100] {
        for lost in 0..=12 {
            let mut bench = Bench::new();
            let mut peer = Peer::with_mtu(1, &[SHA1, GCM], ms(100), mtu);
            let (config, _) = bench.config(1, Role::Publisher, &peer);
            let mut session = Publisher::new(bench.now, config);
            let check = peer.check(true);
            bench.feed(&mut session, peer.addr, &check);
            peer.start_handshake(bench.now);
            bench.run(ms(5_000), &mut session, &mut peer, |up, number| {
                up && number == lost
            });
            assert_eq!(peer.profile, Some(GCM), "pieces of {mtu}, lost {lost}");
        }
    }
}

#[test]
fn a_certificate_other_than_the_announced_one_ends_the_session() {
    let mut bench = Bench::new();
    let mut peer = Peer::new(1, &[GCM], ms(100));
    let (mut config, _) = bench.config(1, Role::Publisher, &peer);
    config.negotiated.fingerprint[7] ^= 1;
    let mut session = Publisher::new(bench.now, config);
    let check = peer.check(true);
    bench.feed(&mut session, peer.addr, &check);
    peer.start_handshake(bench.now);
    bench.run(ms(100), &mut session, &mut peer, |_, _| false);
    assert_eq!(bench.events.last(), Some(&SessionEvent::Ended(End::Failed)));
    assert!(!bench.events.contains(&SessionEvent::Connected));
}

#[test]
fn close_notify_from_the_peer_ends_the_session_and_ours_reaches_it() {
    let (mut bench, mut peer, mut session) = handshake(ms(100), |_, _| false);
    peer.close(bench.now);
    bench.run(ms(20), &mut session, &mut peer, |_, _| false);
    assert_eq!(
        bench.events.last(),
        Some(&SessionEvent::Ended(End::PeerClosed))
    );

    let (mut bench, mut peer, mut session) = handshake(ms(100), |_, _| false);
    session.close(bench.now, &mut bench.out);
    bench
        .sent()
        .into_iter()
        .for_each(|(_, datagram)| peer.receive(bench.now, &datagram));
    assert!(peer.closed);
}

#[test]
fn a_peer_cannot_make_the_handshake_hold_more_than_its_bound() {
    let mut bench = Bench::new();
    let mut peer = Peer::new(1, &[GCM], ms(100));
    let (config, _) = bench.config(1, Role::Publisher, &peer);
    let mut session = Publisher::new(bench.now, config);
    let check = peer.check(true);
    bench.feed(&mut session, peer.addr, &check);
    let record = |epoch: u8, number: u64, kind: u8| {
        let mut record = vec![kind, 254, 253, 0, epoch];
        record.extend(&number.to_be_bytes()[2..]);
        record.extend(1_000u16.to_be_bytes());
        record.resize(1_013, 0);
        record
    };
    // Encrypted records of the next epoch, which the library would queue without end.
    (0..1_000).for_each(|n| drop(bench.feed(&mut session, peer.addr, &record(1, n, 23))));
    assert!(
        bench.shard.drops(Drop::Dtls) >= 900,
        "{}",
        bench.shard.drops(Drop::Dtls)
    );

    let (mut bench, peer, mut session) = handshake(ms(100), |_, _| false);
    // Plain handshake records, which anyone at that address can send.
    (0..1_000).for_each(|n| drop(bench.feed(&mut session, peer.addr, &record(0, 100 + n, 22))));
    assert!(
        bench.shard.drops(Drop::Dtls) >= 990,
        "{}",
        bench.shard.drops(Drop::Dtls)
    );
    assert!(
        !bench
            .events
            .iter()
            .any(|e| matches!(e, SessionEvent::Ended(_)))
    );
}

#[test]
fn a_datagram_that_is_no_dtls_ends_neither_a_handshake_nor_a_session() {
    let record = |kind: u8, epoch: u8, len: u16, bytes: usize| {
        let mut record = vec![kind, 254, 253, 0, epoch, 0, 0, 0, 0, 0, 9];
        record.extend(len.to_be_bytes());
        record.resize(13 + bytes, 0);
        record
    };
    let mut broken: Vec<Vec<u8>> = Vec::new();
    for kind in [20, 21, 22, 23, 63] {
        for epoch in 0..=1 {
            // Too long, too short, empty, cut, and a whole one with a broken one behind.
            broken.push(record(kind, epoch, 200, 1));
            broken.push(record(kind, epoch, 1, 40));
            broken.push(record(kind, epoch, 0, 0));
            broken.push(record(kind, epoch, 5, 5)[..9].to_vec());
            broken.push([record(kind, epoch, 2, 2), vec![kind; 14]].concat());
        }
    }
    let ended = |bench: &Bench| {
        let is_end = |e: &&SessionEvent| matches!(e, SessionEvent::Ended(_));
        bench.events.iter().find(is_end).copied()
    };

    let (mut bench, peer, mut session) = handshake(ms(100), |_, _| false);
    for datagram in &broken {
        bench.feed(&mut session, peer.addr, datagram);
        assert_eq!(ended(&bench), None, "after {datagram:?}");
    }
    assert_eq!(bench.shard.drops(Drop::Dtls), broken.len() as u64);

    let mut bench = Bench::new();
    let mut peer = Peer::new(1, &[GCM], ms(100));
    let (config, _) = bench.config(1, Role::Publisher, &peer);
    let mut session = Publisher::new(bench.now, config);
    let check = peer.check(true);
    bench.feed(&mut session, peer.addr, &check);
    for datagram in &broken {
        bench.feed(&mut session, peer.addr, datagram);
        assert_eq!(ended(&bench), None, "after {datagram:?}");
    }
    assert_eq!(bench.shard.drops(Drop::Dtls), broken.len() as u64);
    peer.start_handshake(bench.now);
    bench.run(ms(50), &mut session, &mut peer, |_, _| false);
    assert!(peer.is_keyed(), "and the handshake completes");
}
