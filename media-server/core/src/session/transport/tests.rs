//! Which address a session talks to.

use crate::cells::{Drop, Forgotten, KeyframeCause};
use crate::flow::{Flow, Local};
use crate::negotiated::{DataChannels, Role};
use crate::output::{End, SessionEvent};
use crate::publisher::Publisher;
use crate::session::{Credentials, Session};
use crate::stun;
use crate::testing::{Bench, GCM, Peer, REMOTE_UFRAG, VIDEO_PT, VP8_KEY, packet, pwd, ufrag};
use crate::viewer::Viewer;
use std::net::SocketAddr;
use std::time::Duration;

mod messages;
mod properties;

const ELSEWHERE: SocketAddr = SocketAddr::new(
    std::net::IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 7)),
    9_999,
);

impl super::Transport {
    /// What a peer can make it hold: how much there is, and how much there may be.
    pub(crate) fn held(&self) -> Vec<(&'static str, usize, usize)> {
        let control = self.control.iter().map(|control| control.rtcp_in.held());
        let mut held: Vec<_> = control.collect();
        held.push(("transactions", self.transactions.len(), super::TRANSACTIONS));
        held.push(self.dtls.held());
        held
    }
}

fn bound() -> (Bench, Peer, Publisher) {
    let mut bench = Bench::new();
    let mut peer = Peer::new(1, &[GCM], Duration::from_millis(100));
    let (config, _) = bench.config(1, Role::Publisher, &peer);
    let mut session = Publisher::new(bench.now, config);
    bench.connect(&mut session, &mut peer);
    (bench, peer, session)
}

/// Credentials of a restart.
fn fresh(seed: u8, remote_ufrag: &str) -> Credentials {
    Credentials {
        ufrag: ufrag(seed),
        pwd: pwd(seed),
        remote_ufrag: remote_ufrag.into(),
    }
}

fn count(bench: &Bench, event: SessionEvent) -> usize {
    bench.events.iter().filter(|e| **e == event).count()
}

fn bindings(bench: &Bench) -> Vec<SocketAddr> {
    let addr = |event: &SessionEvent| {
        if let SessionEvent::Bound(flow) = event {
            Some(flow.remote)
        } else {
            None
        }
    };
    bench.events.iter().filter_map(addr).collect()
}

#[test]
fn a_spoofed_ufrag_does_not_move_the_session() {
    let (mut bench, mut peer, mut session) = bound();
    let username = format!(
        "{}:{REMOTE_UFRAG}",
        std::str::from_utf8(&crate::testing::ufrag(1).0).expect("ASCII")
    );
    bench.now += Duration::from_secs(6);
    let spoofed = stun::request(&username, b"a guess", [1; 12], true);
    assert_eq!(bench.feed(&mut session, ELSEWHERE, &spoofed), []);
    let wrong_peer = stun::request(
        &username.replace(REMOTE_UFRAG, "other"),
        &pwd(1).0,
        [2; 12],
        true,
    );
    assert_eq!(bench.feed(&mut session, ELSEWHERE, &wrong_peer), []);
    assert_eq!(bench.shard.drops(Drop::StunUnauthenticated), 2);
    let media = peer.seal_rtp(&packet(96, 1, 1, 7, true, b"x"));
    assert_eq!(bench.feed(&mut session, ELSEWHERE, &media), []);
    assert_eq!(bindings(&bench), [peer.addr]);
}

#[test]
fn checks_and_reports_keep_a_session_and_are_not_what_it_is_there_for() {
    let mut bench = Bench::new();
    let mut peer = Peer::new(1, &[GCM], Duration::from_millis(100));
    let (config, cells) = bench.config(1, Role::Viewer, &peer);
    let mut session = Viewer::new(bench.now, config);
    session.set_publisher_live(bench.now, true);
    bench.connect(&mut session, &mut peer);
    // Forty minutes of a peer that is there.
    for _ in 0..40 * 60 / 5 {
        let check = peer.check(true);
        bench.feed(&mut session, peer.addr, &check);
        bench.timeout(&mut session);
        bench.now += Duration::from_secs(5);
    }
    let ended = |e: &SessionEvent| matches!(e, SessionEvent::Ended(_));
    assert!(!bench.events.iter().any(ended), "{:?}", bench.events);
    assert_eq!((cells.packets(), cells.messages()), (0, 0));
}

/// An INIT of RFC 9260 §3.3.2 that asks for as many streams as there are, with its checksum.
const INIT: [u8; 32] = [
    0x13, 0x88, 0x13, 0x88, 0, 0, 0, 0, 0xc8, 0x93, 0xbb, 0xde, 1, 0, 0, 20, 0, 0, 0, 7, 0, 2, 0,
    0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 9,
];

#[test]
fn data_goes_to_the_channel_where_one_is_negotiated_and_nowhere_else() {
    for data_channels in [
        None,
        Some(DataChannels {
            mid: "2".to_owned(),
            max_message: None,
            opens: false,
        }),
    ] {
        let negotiated = data_channels.is_some();
        let mut bench = Bench::new();
        let mut peer = Peer::new(1, &[GCM], Duration::from_millis(100));
        let (mut config, _) = bench.config(1, Role::Viewer, &peer);
        config.negotiated.data_channels = data_channels;
        let mut session = Viewer::new(bench.now, config);
        bench.connect(&mut session, &mut peer);
        for _ in 0..20 {
            peer.write(bench.now, &INIT);
            bench.run(
                Duration::from_millis(10),
                &mut session,
                &mut peer,
                |_, _| false,
            );
        }
        assert_eq!(peer.data.len(), if negotiated { 20 } else { 0 });
        assert!(peer.data.iter().all(|answer| answer[12] == 2), "INIT ACK");
        let dropped = bench.shard.drops(Drop::Dtls);
        assert_eq!(
            dropped,
            if negotiated { 0 } else { 12 },
            "beyond the eight late ones"
        );
        peer.write(bench.now, b"no SCTP");
        bench.run(
            Duration::from_millis(10),
            &mut session,
            &mut peer,
            |_, _| false,
        );
        assert_eq!(bench.shard.drops(Drop::Sctp), u64::from(negotiated));
        assert!(
            !bench
                .events
                .iter()
                .any(|e| matches!(e, SessionEvent::Ended(_)))
        );
        peer.close(bench.now);
        bench.run(
            Duration::from_millis(20),
            &mut session,
            &mut peer,
            |_, _| false,
        );
        assert_eq!(count(&bench, SessionEvent::Ended(End::PeerClosed)), 1);
    }
}

#[test]
fn a_recorded_check_played_from_elsewhere_is_dropped() {
    let (mut bench, mut peer, mut session) = bound();
    let check = peer.check(true);
    bench.feed(&mut session, peer.addr, &check);
    assert_eq!(bench.feed(&mut session, ELSEWHERE, &check), []);
    assert_eq!(bench.shard.drops(Drop::StunReplay), 1);
    assert_eq!(
        bench.feed(&mut session, peer.addr, &check).len(),
        1,
        "a retransmission is answered"
    );
    assert_eq!(bindings(&bench), [peer.addr]);
}

#[test]
fn a_check_that_is_played_again_from_its_own_address_moves_no_path_and_consents_to_nothing() {
    let (mut bench, mut peer, mut session) = bound();
    let recorded = peer.check(true);
    bench.feed(&mut session, peer.addr, &recorded);
    let moved = peer.check(true);
    bench.feed(&mut session, ELSEWHERE, &moved);
    for _ in 0..29 {
        bench.now += Duration::from_secs(1);
        let answer = bench.feed(&mut session, peer.addr, &recorded);
        assert_eq!(answer.len(), 1, "as a retransmission is");
    }
    assert_eq!(bindings(&bench), [peer.addr, ELSEWHERE]);
    assert_eq!(count(&bench, SessionEvent::Ended(End::IceFailed)), 0);
    bench.now += Duration::from_secs(1);
    bench.timeout(&mut session);
    assert_eq!(count(&bench, SessionEvent::Ended(End::IceFailed)), 1);
}

#[test]
fn the_path_moves_by_nomination_or_when_it_is_silent() {
    let (mut bench, mut peer, mut session) = bound();
    let check = peer.check(false);
    assert_eq!(
        bench.feed(&mut session, ELSEWHERE, &check).len(),
        1,
        "answered"
    );
    assert_eq!(
        bindings(&bench),
        [peer.addr],
        "but not moved: the path is alive"
    );
    bench.now += Duration::from_secs(5);
    let check = peer.check(false);
    bench.feed(&mut session, ELSEWHERE, &check);
    assert_eq!(
        bindings(&bench),
        [peer.addr, ELSEWHERE],
        "silent for five seconds"
    );
    let check = peer.check(true);
    bench.feed(&mut session, peer.addr, &check);
    assert_eq!(
        bindings(&bench),
        [peer.addr, ELSEWHERE, peer.addr],
        "nominated"
    );
}

#[test]
fn packets_that_anyone_could_have_sent_from_there_keep_no_path_alive() {
    let media = |peer: &mut Peer, seq| peer.seal_rtp(&packet(VIDEO_PT, seq, 1, 7, true, VP8_KEY));
    // Changed on the way, played again, and as it should be.
    for kept in [None, Some(false), Some(true)] {
        let (mut bench, mut peer, mut session) = bound();
        let first = media(&mut peer, 1);
        bench.feed(&mut session, peer.addr, &first);
        for seq in 2..7 {
            bench.now += Duration::from_secs(1);
            let mut datagram = match kept {
                Some(false) => first.clone(),
                _ => media(&mut peer, seq),
            };
            if kept.is_none() {
                datagram[15] ^= 1;
            }
            bench.feed(&mut session, peer.addr, &datagram);
        }
        let check = peer.check(false);
        bench.feed(&mut session, ELSEWHERE, &check);
        let moved = bindings(&bench).last() == Some(&ELSEWHERE);
        assert_eq!(moved, kept != Some(true), "{kept:?}");
    }
}

#[test]
fn checks_that_come_too_fast_to_be_remembered_are_counted() {
    let (mut bench, mut peer, mut session) = bound();
    for _ in 0..200 {
        bench.now += Duration::from_millis(2_500);
        let check = peer.check(true);
        bench.feed(&mut session, peer.addr, &check);
    }
    let forgotten = |bench: &Bench| bench.shard.forgotten(Forgotten::Transaction);
    assert_eq!(forgotten(&bench), 0, "as often as peers do");
    for _ in 0..super::TRANSACTIONS + 3 {
        let check = peer.check(true);
        bench.feed(&mut session, peer.addr, &check);
    }
    // 24 of those before came within a minute.
    assert_eq!(forgotten(&bench), 24 + 3);
}

#[test]
fn before_a_check_nothing_is_answered() {
    let mut bench = Bench::new();
    let mut peer = Peer::new(1, &[GCM], Duration::from_millis(100));
    let (config, _) = bench.config(1, Role::Publisher, &peer);
    let mut session = Publisher::new(bench.now, config);
    peer.start_handshake(bench.now);
    let hello = peer.poll_transmit().expect("ClientHello");
    assert_eq!(bench.feed(&mut session, peer.addr, &hello), []);
    assert_eq!(bench.shard.drops(Drop::UnknownAddress), 1);
    session.close(bench.now, &mut bench.out);
    assert_eq!(bench.sent(), []);
}

#[test]
fn forged_control_packets_are_dropped_and_counted() {
    let (mut bench, mut peer, mut session) = bound();
    let mut report = crate::rtcp::Writer::default();
    report.receiver_report(1, &[]);
    let sealed = peer.seal_rtcp(&report);
    let mut forged = sealed.clone();
    for ssrc in 2..100_002u32 {
        forged[4..8].copy_from_slice(&ssrc.to_be_bytes());
        bench.feed(&mut session, peer.addr, &forged);
    }
    assert_eq!(bench.shard.drops(Drop::SrtpUnauthenticated), 100_000);
    bench.feed(&mut session, peer.addr, &sealed);
    assert_eq!(
        bench.shard.drops(Drop::SrtpReplay),
        0,
        "the true one is taken"
    );
    bench.feed(&mut session, peer.addr, &sealed);
    assert_eq!(bench.shard.drops(Drop::SrtpReplay), 1, "and taken once");
}

#[test]
fn a_restart_takes_the_session_to_a_new_network_with_the_keys_it_had() {
    let (mut bench, mut peer, mut session) = bound();
    let before = peer.seal_rtp(&packet(VIDEO_PT, 1, 1, 7, true, VP8_KEY));
    bench.feed(&mut session, peer.addr, &before);
    assert_eq!(session.take_batch().packets().len(), 1);

    session.restart(fresh(2, "anew"));
    let old_check = peer.check(false);
    assert_eq!(
        bench.feed(&mut session, peer.addr, &old_check).len(),
        1,
        "the old credentials hold until the new ones are used"
    );
    assert_eq!(count(&bench, SessionEvent::Restarted), 0);

    peer.restart(2, "anew");
    peer.addr = ELSEWHERE;
    let check = peer.check(true);
    assert_eq!(bench.feed(&mut session, ELSEWHERE, &check).len(), 1);
    assert_eq!(count(&bench, SessionEvent::Restarted), 1);
    assert_eq!(
        count(&bench, SessionEvent::KeyframeWanted(KeyframeCause::Moved)),
        1
    );
    assert_eq!(bindings(&bench).last(), Some(&ELSEWHERE));

    let after = peer.seal_rtp(&packet(VIDEO_PT, 2, 2, 7, true, VP8_KEY));
    bench.feed(&mut session, ELSEWHERE, &after);
    assert_eq!(session.take_batch().packets().len(), 1, "the same keys");
    bench.run(Duration::from_secs(2), &mut session, &mut peer, |_, _| {
        false
    });
    assert!(
        !peer.take_reports().is_empty(),
        "and reports to the new address"
    );
}

#[test]
fn the_credentials_before_a_restart_end_with_the_first_check_of_the_new() {
    let (mut bench, mut peer, mut session) = bound();
    let old_check = peer.check(true);
    session.restart(fresh(2, "anew"));
    peer.restart(2, "anew");
    let check = peer.check(false);
    bench.feed(&mut session, peer.addr, &check);
    assert_eq!(bench.feed(&mut session, peer.addr, &old_check), []);
    assert_eq!(bench.shard.drops(Drop::StunUnauthenticated), 1);
    let check = peer.check(true);
    assert_eq!(bench.feed(&mut session, peer.addr, &check).len(), 1);
    assert_eq!(count(&bench, SessionEvent::Restarted), 1, "only once");
    assert_eq!(bindings(&bench).len(), 1, "the path was right all the time");
}

#[test]
fn a_restart_whose_answer_was_lost_is_followed_by_another() {
    let (mut bench, mut peer, mut session) = bound();
    session.restart(fresh(2, "lost"));
    session.restart(fresh(3, "anew"));
    let check = peer.check(true);
    assert_eq!(
        bench.feed(&mut session, peer.addr, &check).len(),
        1,
        "what worked before the first still works"
    );
    peer.restart(2, "lost");
    let check = peer.check(true);
    assert_eq!(bench.feed(&mut session, peer.addr, &check), []);
    peer.restart(3, "anew");
    let check = peer.check(true);
    assert_eq!(bench.feed(&mut session, peer.addr, &check).len(), 1);
    assert_eq!(count(&bench, SessionEvent::Restarted), 1);
}

#[test]
fn a_viewer_whose_path_moved_gets_a_keyframe_asked_for() {
    let mut bench = Bench::new();
    let mut peer = Peer::new(1, &[GCM], Duration::from_millis(100));
    let (config, _) = bench.config(1, Role::Viewer, &peer);
    let mut session = Viewer::new(bench.now, config);
    bench.connect(&mut session, &mut peer);
    let before = count(&bench, SessionEvent::KeyframeWanted(KeyframeCause::Moved));
    session.restart(fresh(2, "anew"));
    peer.restart(2, "anew");
    let check = peer.check(true);
    bench.feed(&mut session, ELSEWHERE, &check);
    assert_eq!(
        count(&bench, SessionEvent::KeyframeWanted(KeyframeCause::Moved)),
        before + 1
    );
}

/// Gives the session a datagram that came to an address of ours, or over a connection; returns the flows
/// that its answers leave by.
fn feed_at(
    bench: &mut Bench,
    session: &mut Publisher,
    remote: SocketAddr,
    local: Local,
    datagram: &[u8],
) -> Vec<Flow> {
    let from = Flow { remote, local };
    session.handle_datagram(bench.now, from, &mut datagram.to_vec(), &mut bench.out);
    let flows = bench.out.slab.runs().iter().map(|run| run.to).collect();
    bench.sent();
    flows
}

fn local(last: u8) -> Local {
    Local::Udp(Some(std::net::IpAddr::from([192, 0, 2, last])))
}

#[test]
fn each_check_is_answered_from_the_address_it_came_to_and_nomination_moves_media_there() {
    let (mut bench, mut peer, mut session) = bound();
    let flow = |local| Flow {
        remote: ELSEWHERE,
        local,
    };
    let check = peer.check(true);
    let answers = feed_at(&mut bench, &mut session, ELSEWHERE, local(1), &check);
    assert_eq!(answers, [flow(local(1))]);
    let wanted = count(&bench, SessionEvent::KeyframeWanted(KeyframeCause::Moved));

    let check = peer.check(false);
    let answers = feed_at(&mut bench, &mut session, ELSEWHERE, local(2), &check);
    assert_eq!(answers, [flow(local(2))], "answered");
    assert!(
        !bench.events.contains(&SessionEvent::Bound(flow(local(2)))),
        "but not moved"
    );
    let media = peer.seal_rtp(&packet(VIDEO_PT, 1, 1, 7, true, VP8_KEY));
    feed_at(&mut bench, &mut session, ELSEWHERE, local(2), &media);
    assert_eq!(
        session.take_batch().packets().len(),
        1,
        "a peer may use it before it says so"
    );
    let check = peer.check(true);
    feed_at(&mut bench, &mut session, ELSEWHERE, local(2), &check);
    assert_eq!(
        bench.events.last(),
        Some(&SessionEvent::Bound(flow(local(2))))
    );
    assert_eq!(
        count(&bench, SessionEvent::KeyframeWanted(KeyframeCause::Moved)),
        wanted,
        "nothing that was sent to it is lost"
    );
}

#[test]
fn a_connection_is_a_peers_by_a_check_alone_and_another_is_not() {
    let (mut bench, mut peer, mut session) = bound();
    let (one, two) = (Local::Tcp(1), Local::Tcp(2));
    let media = peer.seal_rtp(&packet(VIDEO_PT, 1, 1, 7, true, VP8_KEY));
    assert_eq!(
        feed_at(&mut bench, &mut session, ELSEWHERE, one, &media),
        []
    );
    assert_eq!(bench.shard.drops(Drop::UnknownAddress), 1);
    let flow = |local| Flow {
        remote: ELSEWHERE,
        local,
    };
    let check = peer.check(true);
    let answers = feed_at(&mut bench, &mut session, ELSEWHERE, one, &check);
    assert_eq!(answers, [flow(one)]);
    assert_eq!(count(&bench, SessionEvent::Checked(flow(one))), 1);
    assert_eq!(count(&bench, SessionEvent::Bound(flow(one))), 1);
    // The same address by another connection, and by UDP.
    for other in [two, Local::Udp(None)] {
        assert_eq!(
            feed_at(&mut bench, &mut session, ELSEWHERE, other, &media),
            []
        );
    }
    assert_eq!(bench.shard.drops(Drop::UnknownAddress), 3);
    feed_at(&mut bench, &mut session, ELSEWHERE, one, &media);
    assert_eq!(session.take_batch().packets().len(), 1);
}
