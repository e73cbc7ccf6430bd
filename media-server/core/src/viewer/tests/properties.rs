//! Invariants of what a viewer is sent, over sequences of events that nobody wrote down: an index is
//! sealed once, one viewer never changes what another gets, and nothing grows without bound.

use super::*;
use crate::output::MAX_LOST;
use crate::ring::{IDLE_BYTES, WATCHED_BYTES};
use crate::session::Credentials;
use crate::testing::{VIDEO_RTX_PT, pwd, ufrag};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::HashSet;
use std::slice::from_ref;

const RTX_SSRC: u32 = VIDEO_SSRC + 1_000;
/// User fragment that the watcher has after a restart.
const ANEW: &str = "anew";

/// What may happen to a viewer and its device.
#[derive(Debug, Clone)]
enum Step {
    /// A frame; of its packets, those whose bit is set come only with the next [`Step::Late`].
    Frame {
        key: bool,
        packets: u8,
        late: u8,
    },
    /// What is late comes.
    Late,
    /// The device starts anew, under the other of its two SSRCs.
    NewStream,
    /// The viewer asks for these again: so far behind the newest, and which of the 16 after.
    Nack {
        back: u16,
        after: u16,
    },
    KeyframeRequest,
    Report,
    /// The viewer starts from the ring, if it has to.
    Join,
    /// A check from the address that it has.
    Check,
    /// ICE restarts, and the next check comes from elsewhere.
    Restart,
    Wait {
        millis: u16,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (prop::bool::weighted(0.2), 1..8u8, any::<u8>(), any::<bool>()).prop_map(
            |(key, packets, late, any_late)| {
                let late = if any_late { late } else { 0 };
                Step::Frame { key, packets, late }
            }
        ),
        3 => Just(Step::Late),
        1 => Just(Step::NewStream),
        5 => (0..60u16, any::<u16>()).prop_map(|(back, after)| Step::Nack { back, after }),
        1 => Just(Step::KeyframeRequest),
        1 => Just(Step::Report),
        2 => Just(Step::Join),
        1 => Just(Step::Check),
        1 => Just(Step::Restart),
        3 => (1..300u16).prop_map(|millis| Step::Wait { millis }),
    ]
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// A device whose packets may come late.
struct Device {
    ssrc: u32,
    seq: u16,
    timestamp: u32,
    late: Vec<Vec<u8>>,
}

impl Device {
    fn new() -> Self {
        Device {
            ssrc: 7,
            seq: 60_000,
            timestamp: 500,
            late: Vec::new(),
        }
    }

    /// Packets that the step makes arrive.
    fn step(&mut self, step: &Step) -> Vec<Vec<u8>> {
        match step {
            Step::Frame { key, packets, late } => {
                let mut arrive = Vec::new();
                self.timestamp = self.timestamp.wrapping_add(3_000);
                for at in 0..*packets {
                    let start = if *key && at == 0 { VP8_KEY } else { VP8_DELTA };
                    let payload = [start, &[at; 300]].concat();
                    let (seq, last) = (self.seq, at + 1 == *packets);
                    let media = packet(VIDEO_PT, seq, self.timestamp, self.ssrc, last, &payload);
                    self.seq = self.seq.wrapping_add(1);
                    if late & 1 << at == 0 {
                        arrive.push(media);
                    } else {
                        self.late.push(media);
                    }
                }
                arrive
            }
            Step::Late => std::mem::take(&mut self.late),
            Step::NewStream => {
                self.ssrc ^= 1;
                self.late.clear();
                Vec::new()
            }
            _ => Vec::new(),
        }
    }
}

impl Stage {
    fn watched() -> Self {
        let mut stage = Stage::new(GCM);
        stage.ring.limit(WATCHED_BYTES);
        stage
    }

    fn arrive(&mut self, media: Vec<Vec<u8>>) -> Option<Arc<MediaBatch>> {
        for packet in media {
            let sealed = self.device.seal_rtp(&packet);
            let from = self.device.addr;
            self.bench.feed(&mut self.publisher, from, &sealed);
        }
        let batch = self
            .publisher
            .has_batch()
            .then(|| self.publisher.take_batch());
        let batch = Arc::new(batch?);
        self.ring.push(&batch);
        Some(batch)
    }

    /// What the shard does for the viewer after each of its calls.
    fn serve(&mut self) {
        let lost = std::mem::take(&mut self.bench.out.lost);
        let now = self.bench.now;
        self.viewer
            .retransmit(now, &lost, from_ref(&self.ring), &mut self.bench.out);
        self.viewer
            .catch_up(now, from_ref(&self.ring), &mut self.bench.out);
    }

    fn control(&mut self, compound: &rtcp::Writer) {
        let sealed = self.watcher.seal_rtcp(compound);
        let (now, from) = (self.bench.now, self.watcher.addr);
        self.viewer
            .handle_datagram(now, from.into(), &mut sealed.clone(), &mut self.bench.out);
        self.serve();
    }
}

fn nack(newest: u16, back: u16, after: u16) -> rtcp::Writer {
    let first = newest.wrapping_sub(back);
    let more = (0..16).filter(|bit| after & 1 << bit != 0);
    let seqs: Vec<u16> = std::iter::once(first)
        .chain(more.map(|bit| first.wrapping_add(bit + 1)))
        .collect();
    let mut compound = rtcp::Writer::default();
    compound.nack(1, VIDEO_SSRC, &seqs);
    compound
}

/// Plays the steps for a viewer; `sent` sees all that it is sent, in order.
fn play(stage: &mut Stage, steps: &[Step], sent: &mut dyn FnMut(&mut Stage, Vec<u8>)) {
    let mut device = Device::new();
    let (mut newest, mut moves) = (0, 0);
    for step in steps {
        let media = device.step(step);
        if matches!(step, Step::NewStream) {
            // The old one yields once it is silent.
            stage.bench.now += ms(600);
        }
        if let Some(batch) = stage.arrive(media) {
            let (now, out) = (stage.bench.now, &mut stage.bench.out);
            stage
                .viewer
                .forward(now, &batch, from_ref(&stage.ring), out);
        }
        match step {
            Step::Nack { back, after } => stage.control(&nack(newest, *back, *after)),
            Step::KeyframeRequest => {
                let mut compound = rtcp::Writer::default();
                compound.picture_loss(1, VIDEO_SSRC);
                stage.control(&compound);
            }
            Step::Report => {
                let mut compound = rtcp::Writer::default();
                let ssrc = VIDEO_SSRC;
                compound.receiver_report(
                    1,
                    &[ReportBlock {
                        ssrc,
                        ..ReportBlock::default()
                    }],
                );
                stage.control(&compound);
            }
            Step::Join => {
                let (now, out) = (stage.bench.now, &mut stage.bench.out);
                stage.viewer.join(now, from_ref(&stage.ring), out);
            }
            Step::Restart => {
                moves += 1;
                stage.viewer.restart(Credentials {
                    ufrag: ufrag(10 + moves),
                    pwd: pwd(10 + moves),
                    remote_ufrag: ANEW.into(),
                });
                stage.watcher.restart(10 + moves, ANEW);
                stage.watcher.addr.set_port(40_000 + u16::from(moves));
            }
            Step::Wait { millis } => {
                for _ in 0..millis.div_ceil(5) {
                    stage.bench.now += ms(5);
                    let (now, out) = (stage.bench.now, &mut stage.bench.out);
                    if stage.viewer.poll_timeout() <= now {
                        stage.viewer.handle_timeout(now, out);
                    }
                    stage.serve();
                }
            }
            _ => {}
        }
        if matches!(step, Step::Check | Step::Restart) {
            let mut check = stage.watcher.check(true);
            let (now, from) = (stage.bench.now, stage.watcher.addr);
            let out = &mut stage.bench.out;
            stage
                .viewer
                .handle_datagram(now, from.into(), &mut check, out);
        }
        for (to, datagram) in stage.bench.sent() {
            assert_eq!(to, stage.watcher.addr);
            if !rtp::is_rtcp(&datagram)
                && let Some(header) = rtp::Header::parse(&datagram)
                && header.ssrc == VIDEO_SSRC
            {
                newest = header.seq;
            }
            sent(stage, datagram);
        }
    }
}

proptest! {
    #![proptest_config(config(48))]

    #[test]
    fn no_index_goes_out_twice_whatever_is_lost_asked_for_or_restarted(
        steps in vec(step(), 1..120),
    ) {
        let mut stage = Stage::watched();
        let (mut media, mut control) = (HashSet::new(), HashSet::new());
        play(&mut stage, &steps, &mut |stage, datagram| {
            match datagram[0] {
                128..=191 if rtp::is_rtcp(&datagram) => {
                    // The index of SRTCP under GCM is the last word (RFC 7714 §9.2).
                    let word = datagram.last_chunk::<4>().expect("an index");
                    assert!(control.insert(*word), "control index {word:?} twice");
                }
                128..=191 => {
                    let header = rtp::Header::parse(&datagram).expect("well-formed");
                    // Fewer than 2^16 packets, and all begin below 2^15: no number wraps.
                    let index = (header.ssrc, header.seq);
                    assert!(media.insert(index), "{index:?} twice");
                    assert!([VIDEO_SSRC, RTX_SSRC].contains(&header.ssrc), "{header:?}");
                }
                _ => {}
            }
            let now = stage.bench.now;
            stage.watcher.receive(now, &datagram);
        });
        prop_assert_eq!(stage.bench.shard.drops(Drop::NotSealed), 0, "one picked twice");
    }
}

/// What fills a viewer's tables: many sources, and all of them asked for again.
fn insatiable() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1..8u8).prop_map(|packets| Step::Frame { key: true, packets, late: 0 }),
        6 => (0..100u16, any::<u16>()).prop_map(|(back, after)| Step::Nack { back, after }),
        3 => Just(Step::NewStream),
        1 => Just(Step::Check),
    ]
}

proptest! {
    #![proptest_config(config(8))]

    #[test]
    fn a_viewers_tables_stay_within_their_bounds_however_much_it_asks_for(
        // Of half as many one in five sequences leaves some room.
        steps in vec(insatiable(), 2_000),
    ) {
        let mut stage = Stage::watched();
        play(&mut stage, &steps, &mut |stage, _| {
            for (what, held, most) in stage.viewer.held() {
                assert!(held <= most, "{what}: {held} held, {most} at most");
            }
        });
        // Or it shows nothing.
        let full = |name: &str| stage.viewer.held().iter().any(|(what, held, most)| {
            *what == name && held == most
        });
        prop_assert!(full("segments") && full("counted"), "{:?}", stage.viewer.held());
    }
}

/// A second viewer, which does all that it can to be a burden.
fn burden(stage: &mut Stage) -> (Peer, Viewer) {
    let mut peer = Peer::new(5, &[GCM], ms(100));
    let (config, _) = stage.bench.config(5, Role::Viewer, &peer);
    let mut viewer = Viewer::new(stage.bench.now, config);
    stage.bench.connect(&mut viewer, &mut peer);
    viewer.set_publisher_live(stage.bench.now, true);
    (peer, viewer)
}

/// What the good viewer is sent, decrypted, and when, if its device does `steps`; with a burden beside it,
/// if there is any, that does `bad` meanwhile.
fn received(steps: &[Step], bad: Option<&[Step]>) -> Vec<(Duration, Vec<u8>)> {
    let mut stage = Stage::watched();
    let mut received = Vec::new();
    let mut burden = bad.map(|_| burden(&mut stage));
    // Set up at the same time in both runs.
    stage.bench.now = stage.bench.start + ms(500);
    let mut bad = bad.unwrap_or_default().iter().cycle();
    let mut device = Device::new();
    for step in steps {
        stage.bench.now += ms(10);
        let now = stage.bench.now;
        let batch = stage.arrive(device.step(step));
        if let Some((peer, viewer)) = &mut burden {
            let step = bad.next().unwrap_or(&Step::Join);
            let out = &mut stage.bench.out;
            let mut compound = rtcp::Writer::default();
            match step {
                // For all that it ever got, and much that it did not.
                Step::Nack { back, .. } => {
                    let seqs: Vec<u16> = (0..MAX_LOST as u16 * 2).map(|n| n + *back).collect();
                    compound.nack(1, 2_005, &seqs);
                }
                Step::KeyframeRequest => compound.picture_loss(1, 2_005),
                _ => {
                    viewer.join(now, from_ref(&stage.ring), out);
                }
            }
            if !compound.is_empty() {
                let mut sealed = peer.seal_rtcp(&compound);
                viewer.handle_datagram(now, peer.addr.into(), &mut sealed, out);
            }
            let lost = std::mem::take(&mut out.lost);
            viewer.retransmit(now, &lost, from_ref(&stage.ring), out);
            if let Some(batch) = &batch {
                viewer.forward(now, batch, from_ref(&stage.ring), out);
            }
            viewer.catch_up(now, from_ref(&stage.ring), out);
            // The shard flushes before a viewer that the slab has no room for.
            let own = peer.addr;
            let flushed = stage.bench.sent();
            assert!(flushed.iter().all(|(to, _)| *to == own));
        }
        let out = &mut stage.bench.out;
        if let Some(batch) = &batch {
            stage.viewer.forward(now, batch, from_ref(&stage.ring), out);
        }
        stage.viewer.catch_up(now, from_ref(&stage.ring), out);
        stage.deliver();
        let at = now - stage.bench.start;
        received.extend(stage.watcher.rtp.drain(..).map(|packet| (at, packet)));
    }
    received
}

proptest! {
    #![proptest_config(config(24))]

    #[test]
    fn what_one_viewer_does_changes_no_packet_of_another_and_delays_none(
        steps in vec(step(), 1..60),
        bad in vec(step(), 1..20),
    ) {
        prop_assert_eq!(received(&steps, Some(&bad)), received(&steps, None));
    }
}

/// A datagram of a peer that has keys and no good intentions.
#[derive(Debug, Clone)]
enum Hostile {
    /// As it comes: no key was used.
    Raw(Vec<u8>),
    /// RTP under real keys, so much further than the one before.
    Media {
        pt: u8,
        jump: u16,
        timestamp: u32,
        ssrc: u32,
        first: u8,
        payload: Vec<u8>,
    },
    /// RTCP under real keys: a header, an SSRC, anything.
    Control {
        count: u8,
        kind: u8,
        ssrc: u32,
        body: Vec<u8>,
    },
    /// Asks again for what was sent.
    Nack {
        back: u16,
        after: u16,
    },
    Check,
    Wait {
        millis: u16,
    },
}

fn hostile() -> impl Strategy<Value = Hostile> {
    let bytes = |most: usize| vec(any::<u8>(), 0..most);
    let ssrc = || prop_oneof![6 => 7..9u32, 1 => 0..40u32];
    let media = (
        prop_oneof![6 => Just(VIDEO_PT), 1 => Just(VIDEO_RTX_PT), 1 => Just(AUDIO_PT), 1 => 0..128u8],
        prop_oneof![8 => Just(1u16), 2 => 2..700u16, 1 => any::<u16>()],
        any::<u32>(),
        ssrc(),
        prop_oneof![8 => Just(0x80u8), 1 => 0x80..0xc0u8],
        prop_oneof![1 => Just(VP8_KEY.to_vec()), 1 => Just(VP8_DELTA.to_vec()), 1 => bytes(64)],
    );
    let control = (0..32u8, 200..=207u8, ssrc(), vec(any::<u32>(), 0..20));
    prop_oneof![
        1 => bytes(100).prop_map(Hostile::Raw),
        1 => (0..64u8, bytes(100)).prop_map(|(first, rest)| {
            Hostile::Raw([&[first][..], &rest].concat())
        }),
        8 => media.prop_map(|(pt, jump, timestamp, ssrc, first, payload)| {
            Hostile::Media { pt, jump, timestamp, ssrc, first, payload }
        }),
        4 => control.prop_map(|(count, kind, ssrc, words)| {
            let body = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            Hostile::Control { count, kind, ssrc, body }
        }),
        4 => (0..200u16, any::<u16>()).prop_map(|(back, after)| Hostile::Nack { back, after }),
        2 => Just(Hostile::Check),
        3 => (300..1_500u16).prop_map(|millis| Hostile::Wait { millis }),
    ]
}

/// A peer's datagrams: its last sequence number, and the newest that it was sent.
struct Sender {
    seq: u16,
    newest: u16,
    /// The stream that its RTCP is about.
    about: u32,
}

impl Sender {
    fn datagram(&mut self, peer: &mut Peer, hostile: &Hostile) -> Option<Vec<u8>> {
        match hostile {
            Hostile::Raw(bytes) => Some(bytes.clone()),
            Hostile::Media {
                pt,
                jump,
                timestamp,
                ssrc,
                first,
                payload,
            } => {
                self.seq = self.seq.wrapping_add(*jump);
                let mut media = packet(*pt, self.seq, *timestamp, *ssrc, false, payload);
                media[0] = *first;
                peer.try_seal_rtp(&media)
            }
            Hostile::Control {
                count,
                kind,
                ssrc,
                body,
            } => {
                let mut compound = vec![0x80 | count, *kind];
                compound.extend((1 + body.len() as u16 / 4).to_be_bytes());
                compound.extend(ssrc.to_be_bytes());
                compound.extend(body);
                // Half of it is about a stream that is there.
                if ssrc % 2 == 0
                    && let Some(named) = compound.get_mut(8..12)
                {
                    named.copy_from_slice(&self.about.to_be_bytes());
                }
                peer.try_seal_rtcp(&compound)
            }
            Hostile::Nack { back, after } => {
                peer.try_seal_rtcp(nack(self.newest, *back, *after).bytes())
            }
            Hostile::Check => Some(peer.check(true)),
            Hostile::Wait { .. } => None,
        }
    }
}

fn within(bounds: &[(&'static str, usize, usize)]) -> Result<(), TestCaseError> {
    for (what, held, most) in bounds {
        prop_assert!(held <= most, "{what}: {held} held, {most} at most");
    }
    Ok(())
}

proptest! {
    #![proptest_config(config(12))]

    #[test]
    fn nothing_grows_beyond_its_bound_whatever_a_device_and_a_viewer_send(
        device in vec(hostile(), 1_200),
        viewer in vec(hostile(), 1_200),
        idle in prop::bool::weighted(0.25),
    ) {
        let mut stage = Stage::watched();
        let limit = if idle { IDLE_BYTES } else { WATCHED_BYTES };
        stage.ring.limit(limit);
        let sender = |about| Sender { seq: 0, newest: 0, about };
        let (mut theirs, mut ours) = (sender(7), sender(VIDEO_SSRC));
        for (own, other) in device.iter().zip(&viewer) {
            if let Some(mut bytes) = theirs.datagram(&mut stage.device, own) {
                let (now, from) = (stage.bench.now, stage.device.addr);
                let out = &mut stage.bench.out;
                stage.publisher.handle_datagram(now, from.into(), &mut bytes, out);
            }
            if let Some(batch) = stage.arrive(Vec::new()) {
                let (now, out) = (stage.bench.now, &mut stage.bench.out);
                stage.viewer.forward(now, &batch, from_ref(&stage.ring), out);
            }
            if let Some(mut bytes) = ours.datagram(&mut stage.watcher, other) {
                let (now, from) = (stage.bench.now, stage.watcher.addr);
                let out = &mut stage.bench.out;
                stage.viewer.handle_datagram(now, from.into(), &mut bytes, out);
                prop_assert!(out.lost.len() <= MAX_LOST);
                stage.serve();
            }
            for step in [own, other] {
                if let Hostile::Wait { millis } = step {
                    stage.bench.now += ms(u64::from(*millis));
                }
            }
            let (now, out) = (stage.bench.now, &mut stage.bench.out);
            for session in [&mut stage.publisher as &mut dyn Session, &mut stage.viewer] {
                if session.poll_timeout() <= now {
                    session.handle_timeout(now, out);
                }
            }
            for (_, sent) in stage.bench.sent() {
                if let Some(header) = rtp::Header::parse(&sent).filter(|h| h.ssrc == VIDEO_SSRC) {
                    ours.newest = header.seq;
                }
            }
            stage.bench.events.clear();
            within(&stage.publisher.held())?;
            within(&stage.viewer.held())?;
            within(&[
                ("ring packets", (stage.ring.next() - stage.ring.first()) as usize, 2_048),
                ("ring bytes", stage.ring.bytes(), limit),
            ])?;
        }
    }
}
