//! Invariants of the path, over sequences of datagrams that nobody wrote down: an address is bound, and
//! sent to, only once it authenticated itself, and no session outlives its consent.

use super::*;
use crate::output::End;
use crate::ring::Ring;
use crate::rtcp;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::HashSet;
use std::slice::from_ref;
use std::sync::Arc;
use std::time::Instant;

const ADDRESSES: u8 = 4;

fn address(at: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 1 + at % ADDRESSES], 4_000))
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// What arrives, from which address.
#[derive(Debug, Clone)]
enum Arrival {
    /// A check with the right credentials.
    Check {
        nominates: bool,
    },
    /// One that was recorded, so long ago.
    Recorded {
        back: u8,
    },
    /// One with the right names and a guessed password.
    Guessed,
    /// One of the user fragment before the last restart, or of one that never was.
    OtherNames,
    /// An authentic one of which a byte changed on its way.
    Changed {
        at: u8,
    },
    Dtls(Vec<u8>),
    Hello,
    Media(Vec<u8>),
    Noise(Vec<u8>),
    Restart,
    Wait {
        millis: u16,
    },
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let bytes = || vec(any::<u8>(), 0..60);
    prop_oneof![
        3 => any::<bool>().prop_map(|nominates| Arrival::Check { nominates }),
        2 => any::<u8>().prop_map(|back| Arrival::Recorded { back }),
        2 => Just(Arrival::Guessed),
        1 => Just(Arrival::OtherNames),
        2 => any::<u8>().prop_map(|at| Arrival::Changed { at }),
        2 => (20..64u8, bytes()).prop_map(|(first, rest)| {
            Arrival::Dtls([&[first][..], &rest].concat())
        }),
        2 => Just(Arrival::Hello),
        2 => (128..192u8, bytes()).prop_map(|(first, rest)| {
            Arrival::Media([&[first][..], &rest].concat())
        }),
        1 => bytes().prop_map(Arrival::Noise),
        1 => Just(Arrival::Restart),
        2 => (1..4_000u16).prop_map(|millis| Arrival::Wait { millis }),
    ]
}

fn is_stun_answer(datagram: &[u8]) -> bool {
    stun::is_stun(datagram) && datagram[..2] == [1, 1]
}

/// What is known of the addresses so far.
#[derive(Default)]
struct Known {
    /// Checks that were sent, and from where: what somebody may have recorded.
    checks: Vec<(Vec<u8>, SocketAddr)>,
    authentic: HashSet<SocketAddr>,
    bound: Option<SocketAddr>,
}

proptest! {
    #![proptest_config(config(64))]

    #[test]
    fn an_address_is_bound_and_answered_only_after_it_authenticated_itself(
        role in prop_oneof![Just(Role::Publisher), Just(Role::Viewer)],
        arrivals in vec((0..ADDRESSES, arrival()), 1..80),
    ) {
        let mut bench = Bench::new();
        let mut peer = Peer::new(1, &[GCM], Duration::from_millis(100));
        let (config, _) = bench.config(1, role, &peer);
        let mut session: Box<dyn Session> = match role {
            Role::Publisher => Box::new(Publisher::new(bench.now, config)),
            Role::Viewer => Box::new(Viewer::new(bench.now, config)),
        };
        peer.start_handshake(bench.now);
        let hello = peer.poll_transmit().expect("ClientHello");
        let (mut known, mut restarts) = (Known::default(), 0);
        for (at, arrival) in arrivals {
            let from = address(at);
            let (datagram, authenticates) = match arrival {
                Arrival::Check { nominates } => {
                    let check = peer.check(nominates);
                    known.checks.push((check.clone(), from));
                    (check, true)
                }
                Arrival::Recorded { back } => {
                    let back = usize::from(back) % known.checks.len().max(1);
                    let Some((check, first)) = known.checks.iter().rev().nth(back) else {
                        continue;
                    };
                    // Its own sender may repeat it; that of an earlier restart is worth nothing.
                    (check.clone(), *first == from)
                }
                Arrival::Guessed => {
                    let username = format!("{}:{REMOTE_UFRAG}", String::from_utf8_lossy(&ufrag(1).0));
                    (stun::request(&username, b"a guess", [at; 12], true), false)
                }
                Arrival::OtherNames => {
                    (stun::request("nobody:peer", &pwd(1).0, [at; 12], true), false)
                }
                Arrival::Changed { at } => {
                    let mut check = peer.check(true);
                    let at = usize::from(at) % check.len();
                    check[at] ^= 0x40;
                    (check, false)
                }
                Arrival::Dtls(bytes) | Arrival::Media(bytes) | Arrival::Noise(bytes) => {
                    (bytes, false)
                }
                Arrival::Hello => (hello.clone(), false),
                Arrival::Restart => {
                    restarts += 1;
                    session.restart(fresh(1 + restarts % 20, REMOTE_UFRAG));
                    peer.restart(1 + restarts % 20, REMOTE_UFRAG);
                    continue;
                }
                Arrival::Wait { millis } => {
                    bench.now += Duration::from_millis(millis.into());
                    for (to, _) in bench.timeout(&mut *session) {
                        prop_assert_eq!(Some(to), known.bound, "a timer's datagram");
                    }
                    continue;
                }
            };
            let events = bench.events.len();
            let sent = bench.feed(&mut *session, from, &datagram);
            for event in &bench.events[events..] {
                if let SessionEvent::Bound(bound) = event {
                    prop_assert!(authenticates, "bound by {datagram:?}");
                    prop_assert_eq!(*bound, from.into());
                    known.bound = Some(from);
                }
            }
            if authenticates && sent.iter().any(|(to, sent)| *to == from && is_stun_answer(sent)) {
                known.authentic.insert(from);
            }
            for (to, sent) in sent {
                prop_assert!(known.authentic.contains(&to), "to {to}: {sent:?}");
                if is_stun_answer(&sent) {
                    prop_assert!(authenticates && to == from, "an answer to {datagram:?}");
                    prop_assert!(sent.len() <= datagram.len() + 20, "it amplifies");
                } else {
                    prop_assert_eq!(Some(to), known.bound, "more than an answer");
                }
            }
        }
    }
}

/// A viewer with keys, and a ring that always has something to send to it.
fn watching() -> (Bench, Peer, Viewer, Publisher, Peer, Ring) {
    let mut bench = Bench::new();
    let mut device = Peer::new(2, &[GCM], Duration::from_millis(100));
    let (config, _) = bench.config(2, Role::Publisher, &device);
    let mut publisher = Publisher::new(bench.now, config);
    bench.connect(&mut publisher, &mut device);
    let mut peer = Peer::new(1, &[GCM], Duration::from_millis(100));
    let (config, _) = bench.config(1, Role::Viewer, &peer);
    let mut viewer = Viewer::new(bench.now, config);
    bench.connect(&mut viewer, &mut peer);
    viewer.set_publisher_live(bench.now, true);
    bench.events.clear();
    (bench, peer, viewer, publisher, device, Ring::default())
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn nothing_is_sent_without_a_check_or_a_report_in_the_last_thirty_seconds(
        gaps in vec(prop_oneof![8 => 100..12_000u32, 1 => 12_000..40_000u32], 1..12),
        reports in any::<u32>(),
        forged in any::<bool>(),
    ) {
        let (mut bench, mut peer, mut viewer, mut publisher, mut device, mut ring) = watching();
        let limit = Duration::from_secs(30);
        let (mut consented, mut seq) = (bench.start, 0);
        let mut ended: Option<Instant> = None;
        let mut last_sent = bench.now;
        for (n, gap) in gaps.into_iter().enumerate() {
            let check = peer.check(true);
            if !bench.feed(&mut viewer, peer.addr, &check).is_empty() {
                prop_assert_eq!(ended, None, "a check is answered after the end");
                consented = bench.now;
            }
            let until = bench.now + Duration::from_millis(gap.into());
            while bench.now < until {
                bench.now += Duration::from_millis(100);
                // Its reports consent, and media of others does not.
                seq += 1;
                let media = packet(VIDEO_PT, seq, u32::from(seq) * 9_000, 7, true, VP8_KEY);
                let sealed = device.seal_rtp(&media);
                publisher.handle_datagram(bench.now, device.addr.into(), &mut sealed.clone(), &mut bench.out);
                let batch = Arc::new(publisher.take_batch());
                ring.push(&batch);
                bench.sent();
                if reports & 1 << (n % 32) != 0 {
                    let mut report = rtcp::Writer::default();
                    report.receiver_report(1, &[]);
                    let mut sealed = peer.seal_rtcp(&report);
                    if forged {
                        sealed[4] ^= 1;
                    } else if ended.is_none() {
                        consented = bench.now;
                    }
                    bench.feed(&mut viewer, peer.addr, &sealed);
                }
                let events = bench.events.len();
                let mut sent = bench.timeout(&mut viewer);
                viewer.forward(bench.now, &batch, from_ref(&ring), &mut bench.out);
                sent.extend(bench.sent());
                if !sent.is_empty() {
                    last_sent = bench.now;
                }
                if bench.events[events..].contains(&SessionEvent::Ended(End::IceFailed)) {
                    prop_assert_eq!(ended, None, "it ends once");
                    ended = Some(bench.now);
                    prop_assert!(bench.now >= consented + limit, "too early");
                }
                let over = bench.now >= consented + limit;
                prop_assert!(ended.is_some() == over, "{:?} since the last", bench.now - consented);
            }
        }
        prop_assert!(last_sent < consented + limit);
        // The shard then closes it, and not even a goodbye goes out.
        viewer.close(bench.now, &mut bench.out);
        prop_assert_eq!(bench.sent().is_empty(), ended.is_some());
    }
}
