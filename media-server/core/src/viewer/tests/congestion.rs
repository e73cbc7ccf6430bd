//! Viewers behind ways that carry less than the stream, on a virtual clock: what of it they get.

use super::*;
use crate::media::MediaBatch;
use crate::output::SessionEvent;
use crate::rtcp::twcc;
use crate::testing::VIDEO_RTX_PT;
use std::collections::{BTreeMap, VecDeque};

mod layers;
mod temporal;

const TRANSPORT_CC: u8 = 2;
const STEP: Duration = Duration::from_millis(1);
const PACKET: usize = 1_000;
const KEY_PACKETS: u32 = 24;
const DELTA_PACKETS: u32 = 4;
/// Frames of a group of pictures: two seconds.
const GROUP: u32 = 60;
/// The stream: 1.04 Mbit/s of payload.
const STREAM: f64 = 1_040_000.0;
const IP_UDP: usize = 28;

fn wants_keyframe(events: &[SessionEvent]) -> bool {
    let wants = |event: &SessionEvent| matches!(event, SessionEvent::KeyframeWanted(_));
    events.iter().any(wants)
}

/// One picture of a pattern: its temporal layer, whether it says that this layer can be taken up there,
/// and how many pictures before are those that it builds on; 0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shot {
    temporal: u8,
    sync: bool,
    refs: [u8; 2],
}

const fn shot(temporal: u8, sync: bool, refs: [u8; 2]) -> Shot {
    Shot {
        temporal,
        sync,
        refs,
    }
}

/// Each picture builds on the one before.
const PLAIN: &[Shot] = &[shot(0, false, [1, 0])];

/// What a test reads of a payload: the number of its picture, the packets that this has, its temporal layer
/// and what it builds on.
struct Trailer {
    number: u32,
    of: u8,
    shot: Shot,
}

const TRAILER: usize = 9;

impl Trailer {
    fn append(&self, bytes: usize, payload: &mut Vec<u8>) {
        payload.resize(bytes - TRAILER, 0);
        payload.extend(self.number.to_be_bytes());
        let Shot {
            temporal,
            sync,
            refs,
        } = self.shot;
        payload.extend([self.of, temporal, u8::from(sync), refs[0], refs[1]]);
    }

    fn read(payload: &[u8]) -> Trailer {
        let (_, trailer) = payload.split_last_chunk::<TRAILER>().expect("a trailer");
        let [a, b, c, d, of, temporal, sync, refs @ ..] = *trailer;
        Trailer {
            number: u32::from_be_bytes([a, b, c, d]),
            of,
            shot: shot(temporal, sync == 1, refs),
        }
    }
}

/// A narrow place with a queue in front, then a delay.
struct Way {
    bits_per_second: f64,
    /// Bytes that may wait.
    queue: usize,
    delay: Duration,
    free: Instant,
    on_it: VecDeque<(Instant, Vec<u8>)>,
    full: u64,
    carried: usize,
}

impl Way {
    fn enter(&mut self, now: Instant, datagram: Vec<u8>) {
        let start = self.free.max(now);
        let bytes = datagram.len() + IP_UDP;
        let waiting = (start - now).as_secs_f64() * self.bits_per_second / 8.0;
        if waiting + bytes as f64 > self.queue as f64 {
            self.full += 1;
            return;
        }
        self.carried += bytes;
        self.free = start + Duration::from_secs_f64(bytes as f64 * 8.0 / self.bits_per_second);
        self.on_it.push_back((self.free + self.delay, datagram));
    }

    fn leave(&mut self, now: Instant) -> Option<Vec<u8>> {
        let due = self.on_it.front().is_some_and(|(at, _)| *at <= now);
        due.then(|| self.on_it.pop_front())
            .flatten()
            .map(|(_, d)| d)
    }
}

/// How a viewer tells what it gets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Feedback {
    EachPacket,
    /// The same without retransmissions of the device's codec: there is nothing to send padding in.
    EachPacketUnpadded,
    Reports,
    Nothing,
}

/// A viewer at the end of a way.
struct Watcher {
    seed: u8,
    peer: Peer,
    viewer: Viewer,
    cells: Arc<SessionCells>,
    way: Way,
    feedback: Feedback,
    /// Transport-wide numbers and arrivals since the last feedback, and the number after the last.
    arrived: Vec<(u64, i64)>,
    reported: u64,
    /// First and highest sequence number of the video, packets of it, and of all sound.
    video: Option<(u16, u32, u32)>,
    sound: u64,
    padding: u64,
    /// Packets that came of each frame, and how many it has.
    frames: BTreeMap<u32, (u32, u32)>,
    whole: Vec<(Instant, u32)>,
    /// What came before the trailer of each frame's first packet.
    heads: Vec<Vec<u8>>,
    /// Frames that came whole without all that they build on.
    broken: u64,
}

impl Watcher {
    fn new(bench: &mut Bench, seed: u8, feedback: Feedback, remb: bool, codec: &Codec) -> Self {
        let mut peer = Peer::new(seed, &[GCM], ms(100));
        let (mut config, cells) = bench.config(seed, Role::Viewer, &peer);
        config.negotiated.remb = remb;
        config.negotiated.tracks[1].payload_types[0].codec = codec.clone();
        if feedback == Feedback::EachPacketUnpadded {
            config.negotiated.tracks[1].payload_types[0].rtx = None;
        }
        if matches!(
            feedback,
            Feedback::EachPacket | Feedback::EachPacketUnpadded
        ) {
            for track in &mut config.negotiated.tracks {
                track.extensions.transport_cc = Some(TRANSPORT_CC);
            }
        }
        let mut viewer = Viewer::new(bench.now, config);
        bench.connect(&mut viewer, &mut peer);
        viewer.set_publisher_live(bench.now, true);
        Watcher {
            seed,
            peer,
            viewer,
            cells,
            way: Way {
                bits_per_second: 10.0 * STREAM,
                queue: 60_000,
                delay: ms(20),
                free: bench.now,
                on_it: VecDeque::new(),
                full: 0,
                carried: 0,
            },
            feedback,
            arrived: Vec::new(),
            reported: 0,
            video: None,
            sound: 0,
            padding: 0,
            frames: BTreeMap::new(),
            whole: Vec::new(),
            heads: Vec::new(),
            broken: 0,
        }
    }

    fn receive(&mut self, start: Instant, now: Instant) {
        while let Some(datagram) = self.way.leave(now) {
            self.peer.receive(now, &datagram);
        }
        for packet in std::mem::take(&mut self.peer.rtp) {
            let header = rtp::Header::parse(&packet).expect("well-formed");
            if let Some(seq) = header.transport_seq(&packet, TRANSPORT_CC) {
                // Nothing is reordered here.
                let last = self
                    .arrived
                    .last()
                    .map_or(self.reported, |(seq, _)| seq + 1);
                let seq = last + u64::from(seq.wrapping_sub(last as u16));
                self.arrived.push((seq, (now - start).as_micros() as i64));
            }
            if header.ssrc == 2_000 + u32::from(self.seed) {
                let (first, highest, packets) =
                    self.video
                        .get_or_insert((header.seq, u32::from(header.seq), 0));
                let _ = first;
                let step = header.seq.wrapping_sub(*highest as u16).cast_signed();
                *highest = highest.wrapping_add_signed(i32::from(step.max(0)));
                *packets += 1;
                self.frame(now, &packet[header.len..]);
            } else if header.payload_type == VIDEO_RTX_PT {
                assert!(header.padding, "nothing is asked for again");
                self.padding += 1;
            } else {
                self.sound += 1;
            }
        }
    }

    fn frame(&mut self, now: Instant, payload: &[u8]) {
        let Trailer { number, of, shot } = Trailer::read(payload);
        let frame = self.frames.entry(number).or_insert((0, of.into()));
        frame.0 += 1;
        if frame.0 == 1 {
            self.heads.push(payload[..8].into());
        }
        if frame.0 < u32::from(of) {
            return;
        }
        let whole = |number: u32| {
            self.frames
                .get(&number)
                .is_some_and(|(came, of)| came == of)
        };
        let mut refs = shot.refs.iter().filter(|back| **back > 0);
        if refs.all(|back| whole(number.wrapping_sub(u32::from(*back)))) {
            self.whole.push((now, number));
        } else {
            self.broken += 1;
        }
    }

    /// Packets of the video that the sequence numbers say were lost.
    fn missing(&self) -> u32 {
        self.video.map_or(0, |(first, highest, packets)| {
            highest - u32::from(first) + 1 - packets
        })
    }

    /// Frames that could be shown since then.
    fn shown(&self, since: Instant) -> usize {
        self.whole.iter().filter(|(at, _)| *at >= since).count()
    }

    /// How long after `since` the last picture was missing: each one comes since.
    fn gap_ended(&self, since: Instant) -> Duration {
        let at = self.whole.partition_point(|(at, _)| *at < since).max(1);
        let mut pairs = self.whole[at - 1..].windows(2);
        let gap = pairs.rfind(|pair| pair[1].1 != pair[0].1 + 1);
        gap.map_or(Duration::ZERO, |pair| pair[1].0 - since)
    }

    fn feedback(&mut self) -> rtcp::Writer {
        let mut writer = rtcp::Writer::default();
        match self.feedback {
            Feedback::EachPacket | Feedback::EachPacketUnpadded => {
                let mut rest = &self.arrived[..];
                while !rest.is_empty() {
                    let written = twcc::write(&mut writer, [1, 2], 0, self.reported, rest);
                    self.reported = rest[written - 1].0 + 1;
                    rest = &rest[written..];
                }
                self.arrived.clear();
            }
            Feedback::Reports => {
                if let Some((first, highest, packets)) = self.video {
                    let expected = highest - u32::from(first) + 1;
                    let block = ReportBlock {
                        ssrc: 2_000 + u32::from(self.seed),
                        total_lost: expected.wrapping_sub(packets).cast_signed(),
                        highest_seq: highest,
                        ..ReportBlock::default()
                    };
                    writer.receiver_report(1, &[block]);
                }
            }
            Feedback::Nothing => {}
        }
        writer
    }
}

/// A device and its viewers.
struct Room {
    bench: Bench,
    device: Peer,
    publisher: Publisher,
    ring: Ring,
    watchers: Vec<Watcher>,
    codec: Codec,
    pattern: &'static [Shot],
    /// By the number of the picture.
    shots: Vec<Shot>,
    seq: u16,
    base: u8,
    frame: u32,
    group: u32,
    delta_packets: u32,
    bytes: usize,
    since_key: u32,
    key_wanted: bool,
    keyframe_requests: u64,
    steps: u64,
    /// When each picture was taken.
    filmed: Vec<Instant>,
}

impl Room {
    fn new() -> Self {
        Self::filming(Codec::Vp8, PLAIN)
    }

    fn filming(codec: Codec, pattern: &'static [Shot]) -> Self {
        let mut bench = Bench::new();
        let mut device = Peer::new(1, &[GCM], ms(100));
        let (mut config, _) = bench.config(1, Role::Publisher, &device);
        config.negotiated.tracks[1].payload_types[0].codec = codec.clone();
        let mut publisher = Publisher::new(bench.now, config);
        bench.connect(&mut publisher, &mut device);
        let mut ring = Ring::default();
        ring.limit(crate::ring::WATCHED_BYTES);
        Room {
            bench,
            device,
            publisher,
            ring,
            watchers: Vec::new(),
            codec,
            pattern,
            shots: Vec::new(),
            seq: 1,
            base: 250,
            frame: 0,
            group: GROUP,
            delta_packets: DELTA_PACKETS,
            bytes: PACKET,
            since_key: 0,
            key_wanted: true,
            keyframe_requests: 0,
            steps: 0,
            filmed: Vec::new(),
        }
    }

    fn watched(mut self, seed: u8, feedback: Feedback, remb: bool) -> Self {
        let watcher = Watcher::new(&mut self.bench, seed, feedback, remb, &self.codec);
        self.watchers.push(watcher);
        self
    }

    /// Carries what a session sent, and does what it wants.
    fn settle(&mut self) {
        loop {
            let sent = self.bench.sent();
            let events = std::mem::take(&mut self.bench.events);
            if sent.is_empty() && events.is_empty() {
                return;
            }
            for (to, datagram) in sent {
                let watcher = self.watchers.iter_mut().find(|w| w.peer.addr == to);
                if let Some(watcher) = watcher {
                    watcher.way.enter(self.bench.now, datagram);
                }
            }
            if wants_keyframe(&events) {
                let (now, out) = (self.bench.now, &mut self.bench.out);
                let mut wanted = true;
                for watcher in &mut self.watchers {
                    if watcher.viewer.wants_keyframe() {
                        wanted = watcher
                            .viewer
                            .join(now, std::slice::from_ref(&self.ring), out);
                    }
                }
                self.key_wanted |= wanted;
                self.keyframe_requests += u64::from(wanted);
            }
        }
    }

    fn send(&mut self, plain: &[u8]) {
        let sealed = self.device.seal_rtp(plain);
        self.bench
            .feed(&mut self.publisher, self.device.addr, &sealed);
        self.bench.events.clear();
    }

    fn film(&mut self) {
        let key = std::mem::take(&mut self.key_wanted) || self.since_key >= self.group;
        self.since_key = if key { 0 } else { self.since_key } + 1;
        let of = if key { KEY_PACKETS } else { self.delta_packets };
        let shot = match key {
            true => shot(0, false, [0, 0]),
            // The pattern begins anew behind a keyframe.
            false => self.pattern[(self.since_key - 1) as usize % self.pattern.len()],
        };
        self.shots.push(shot);
        self.filmed.push(self.bench.now);
        let timestamp = self.frame * 3_000;
        for at in 0..of {
            let mut payload = self.head(shot, key, at, of);
            let trailer = Trailer {
                number: self.frame,
                of: of as u8,
                shot,
            };
            trailer.append(self.bytes, &mut payload);
            let plain = packet(VIDEO_PT, self.seq, timestamp, 7, at + 1 == of, &payload);
            self.send(&plain);
            self.seq = self.seq.wrapping_add(1);
        }
        self.frame += 1;
    }

    fn forward(&mut self) {
        if !self.publisher.has_batch() {
            return;
        }
        let batch: Arc<MediaBatch> = Arc::new(self.publisher.take_batch());
        self.ring.push(&batch);
        let now = self.bench.now;
        for at in 0..self.watchers.len() {
            let viewer = &mut self.watchers[at].viewer;
            if viewer.forward(
                now,
                &batch,
                std::slice::from_ref(&self.ring),
                &mut self.bench.out,
            ) {
                self.key_wanted = true;
                self.keyframe_requests += 1;
            }
            self.settle();
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.bench.now + time;
        while self.bench.now < end {
            let step = self.steps;
            self.steps += 1;
            if step * 30 / 1_000 != (step + 1) * 30 / 1_000 {
                self.film();
            }
            if step.is_multiple_of(20) {
                let at = (step / 20) as u32;
                let plain = packet(AUDIO_PT, at as u16, at * 960, 8, false, &[7; 100]);
                self.send(&plain);
            }
            if step.is_multiple_of(2_500) {
                let check = self.device.check(true);
                self.bench
                    .feed(&mut self.publisher, self.device.addr, &check);
                self.bench.events.clear();
            }
            self.forward();
            let (start, now) = (self.bench.start, self.bench.now);
            if self.publisher.poll_timeout() <= now {
                self.publisher.handle_timeout(now, &mut self.bench.out);
                self.bench.sent();
            }
            for at in 0..self.watchers.len() {
                let watcher = &mut self.watchers[at];
                watcher.receive(start, now);
                let mut datagrams = Vec::new();
                let due = match watcher.feedback {
                    Feedback::EachPacket | Feedback::EachPacketUnpadded => 50,
                    Feedback::Reports | Feedback::Nothing => 1_000,
                };
                if step.is_multiple_of(due) {
                    let compound = watcher.feedback();
                    if !compound.is_empty() {
                        datagrams.push(watcher.peer.seal_rtcp(&compound));
                    }
                }
                if step.is_multiple_of(2_500) {
                    datagrams.push(watcher.peer.check(true));
                }
                for datagram in datagrams {
                    self.hear(at, &datagram);
                }
                let (viewer, out) = (&mut self.watchers[at].viewer, &mut self.bench.out);
                if viewer.poll_timeout() <= now {
                    viewer.handle_timeout(now, out);
                    viewer.catch_up(now, std::slice::from_ref(&self.ring), out);
                }
                self.settle();
            }
            self.bench.now += STEP;
        }
    }

    fn hear(&mut self, at: usize, datagram: &[u8]) {
        let watcher = &mut self.watchers[at];
        let (now, from, out) = (self.bench.now, watcher.peer.addr, &mut self.bench.out);
        let mut datagram = datagram.to_vec();
        watcher
            .viewer
            .handle_datagram(now, from.into(), &mut datagram, out);
        self.settle();
    }

    fn tell_bandwidth(&mut self, at: usize, bits_per_second: u64) {
        let mut compound = rtcp::Writer::default();
        compound.bandwidth(1, 2, bits_per_second);
        let datagram = self.watchers[at].peer.seal_rtcp(&compound);
        self.hear(at, &datagram);
    }

    fn now(&self) -> Instant {
        self.bench.now
    }

    /// How long each picture took to a watcher, if it came whole.
    fn delays(&self, at: usize) -> Vec<(u32, Duration)> {
        let whole = self.watchers[at].whole.iter();
        whole
            .map(|(came, number)| (*number, *came - self.filmed[*number as usize]))
            .collect()
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_viewer_whose_way_narrows_gets_what_it_carries_and_all_again_when_it_widens() {
    let mut room = Room::new().watched(9, Feedback::EachPacket, false).watched(
        10,
        Feedback::EachPacket,
        false,
    );
    room.run(5 * SECOND);
    let before = room.watchers[0].shown(room.now() - 3 * SECOND);
    assert!(before >= 88, "{before} frames in 3 s on a wide way");
    assert_eq!(room.watchers[0].viewer.bottleneck(), None);
    assert_eq!(room.bench.shard.drops(Drop::Congestion), 0);

    let narrow = 0.3 * STREAM;
    room.watchers[0].way.bits_per_second = narrow;
    room.run(2 * SECOND);
    let estimate = room.watchers[0].viewer.bottleneck().expect("it is known");
    assert!((estimate as f64) < 1.3 * narrow, "{estimate} for {narrow}");

    let narrowed = room.now();
    let watcher = &room.watchers[0];
    let (full, carried, sound) = (watcher.way.full, watcher.way.carried, watcher.sound);
    let broken = watcher.broken;
    room.run(10 * SECOND);
    let watcher = &room.watchers[0];
    let rate = (watcher.way.carried - carried) as f64 * 8.0 / 10.0;
    assert!(rate < 1.05 * narrow, "{rate} sent into {narrow}");
    assert!(rate > 0.4 * narrow, "{rate} of {narrow} used");
    assert!(watcher.way.full - full <= 20, "{}", watcher.way.full - full);
    assert!(watcher.sound - sound >= 490, "{}", watcher.sound - sound);
    let shown = watcher.shown(narrowed);
    assert!((5..250).contains(&shown), "{shown} frames in 10 s");
    assert!(watcher.broken - broken <= 2, "{}", watcher.broken - broken);
    assert!(room.bench.shard.drops(Drop::Congestion) > 0);

    room.watchers[0].way.bits_per_second = 10.0 * STREAM;
    room.run(10 * SECOND);
    let widened = room.now();
    room.run(3 * SECOND);
    let after = room.watchers[0].shown(widened);
    assert!(after >= 88, "{after} frames in 3 s, ten seconds later");
    assert_eq!(room.watchers[0].viewer.bottleneck(), None);
    assert!(room.watchers[0].padding > 0, "it was probed");

    // To the other one nothing happened: it got every frame since it joined.
    let other = &room.watchers[1];
    let frames: Vec<u32> = other.whole.iter().map(|(_, number)| *number).collect();
    assert!(frames.windows(2).all(|w| w[1] == w[0] + 1));
    assert!(room.frame - frames.last().expect("frames") <= 2);
    assert_eq!((other.broken, other.way.full, other.padding), (0, 0, 0));
}

/// Time at a narrow place in milliseconds, bytes that may wait there, and the delay behind it: probes come
/// at other times after each.
const NARROWED: [(u64, usize, u64); 7] = [
    (2_000, 60_000, 20),
    (5_000, 20_000, 20),
    (7_300, 200_000, 20),
    (11_900, 60_000, 100),
    (20_000, 20_000, 100),
    (33_700, 200_000, 100),
    (60_100, 60_000, 20),
];
/// Times of the design (§11, "Viewer bandwidth falls to 0.3 ×"): until less is sent, and until all is again.
const LESS_WITHIN: Duration = Duration::from_secs(2);
const ALL_WITHIN: Duration = Duration::from_secs(10);

#[test]
fn at_three_tenths_of_the_way_less_is_sent_within_two_seconds_and_all_again_within_ten() {
    let mut slowest = (Duration::ZERO, Duration::ZERO);
    for (held, queue, delay) in NARROWED {
        for group in [GROUP, u32::MAX] {
            let mut room = Room::new().watched(9, Feedback::EachPacket, false);
            let way = &mut room.watchers[0].way;
            (way.queue, way.delay) = (queue, ms(delay));
            room.group = group;
            room.run(5 * SECOND);
            room.watchers[0].way.bits_per_second = 0.3 * STREAM;
            let narrowed = room.now();
            while room.bench.shard.drops(Drop::Congestion) == 0 {
                room.run(STEP);
                assert!(room.now() < narrowed + 10 * SECOND, "all is sent");
            }
            let less = room.now() - narrowed;
            room.run(ms(held));
            room.watchers[0].way.bits_per_second = 10.0 * STREAM;
            let widened = room.now();
            room.run(3 * ALL_WITHIN);
            let all = room.watchers[0].gap_ended(widened);
            println!("{held} ms, {queue} bytes, {delay} ms: less {less:?}, all {all:?}");
            slowest = (slowest.0.max(less), slowest.1.max(all));
        }
    }
    let (less, all) = slowest;
    println!("less after {less:?} at most, all again after {all:?}");
    assert!(
        less <= LESS_WITHIN && all <= ALL_WITHIN,
        "{less:?}, {all:?}"
    );
}

#[test]
fn whatever_happens_to_one_viewer_each_picture_reaches_another_as_soon_as_if_it_were_alone() {
    let beside = |room: Room| room.watched(10, Feedback::EachPacket, false);
    let mut alone = beside(Room::new());
    let mut narrow = beside(Room::new().watched(9, Feedback::EachPacket, false));
    let mut lossy = beside(Room::new().watched(9, Feedback::Reports, false));
    let mut stuck = beside(Room::new().watched(9, Feedback::Nothing, false));
    let mut told = beside(Room::new().watched(9, Feedback::Nothing, true));
    for (part, carries) in [(0, 10.0), (1, 0.3), (2, 0.02), (3, 10.0)] {
        let way = |room: &mut Room| room.watchers[0].way.bits_per_second = carries * STREAM;
        way(&mut narrow);
        way(&mut lossy);
        told.tell_bandwidth(0, (carries * STREAM) as u64);
        // A connection over TCP that is not read from.
        stuck.watchers[0]
            .viewer
            .set_congested(part == 1 || part == 2);
        for room in [&mut alone, &mut narrow, &mut lossy, &mut stuck, &mut told] {
            room.run(8 * SECOND);
        }
    }
    let undisturbed = alone.delays(0);
    assert!(undisturbed.len() >= 955, "{} pictures", undisturbed.len());
    for (room, what) in [
        (&narrow, "narrow"),
        (&lossy, "lossy"),
        (&stuck, "stuck"),
        (&told, "told"),
    ] {
        let first = &room.watchers[0];
        assert!(first.whole.len() < 800, "{what}: {}", first.whole.len());
        let delays = room.delays(1);
        let differs = undisturbed.iter().zip(&delays).find(|(a, b)| a != b);
        assert_eq!((differs, delays.len()), (None, undisturbed.len()), "{what}");
    }
}

#[test]
fn a_picture_that_begins_to_move_is_not_held_up_where_there_is_room() {
    let mut room = Room::new().watched(9, Feedback::EachPacket, false);
    room.group = u32::MAX;
    room.delta_packets = 1;
    room.watchers[0].way.bits_per_second = 30e6;
    room.run(12 * SECOND);
    // From a quarter of a megabit to five at once.
    room.delta_packets = 20;
    let since = room.now();
    room.run(4 * SECOND);
    let watcher = &room.watchers[0];
    assert!(watcher.shown(since) >= 118, "{}", watcher.shown(since));
    assert_eq!((watcher.broken, watcher.way.full), (0, 0));
    assert_eq!(room.bench.shard.drops(Drop::Congestion), 0);
    assert_eq!(watcher.viewer.bottleneck(), None);
    let estimate = watcher.viewer.congestion.estimate();
    assert!(estimate > 5_000_000, "{estimate}");
}

#[test]
fn a_picture_that_hardly_moves_is_no_sign_of_congestion() {
    let mut room = Room::new().watched(9, Feedback::EachPacket, false);
    (room.group, room.delta_packets) = (u32::MAX, 1);
    room.run(SECOND);
    // Three kilobits a second.
    room.bytes = 12;
    let since = room.now();
    room.run(8 * SECOND);
    let watcher = &room.watchers[0];
    assert!(watcher.shown(since) >= 238, "{}", watcher.shown(since));
    assert_eq!(room.bench.shard.drops(Drop::Congestion), 0);
    assert_eq!(watcher.viewer.bottleneck(), None);
}

#[test]
fn reports_of_loss_make_a_viewer_get_less_until_nothing_is_lost() {
    let mut room = Room::new().watched(9, Feedback::Reports, false);
    room.run(5 * SECOND);
    let narrow = 0.5 * STREAM;
    room.watchers[0].way.bits_per_second = narrow;
    room.run(8 * SECOND);
    let watcher = &room.watchers[0];
    let (full, since) = (watcher.way.full, room.now());
    let estimate = watcher.viewer.bottleneck().expect("losses tell");
    assert!((estimate as f64) < 1.4 * narrow, "{estimate} for {narrow}");
    room.run(6 * SECOND);
    let watcher = &room.watchers[0];
    assert!(watcher.way.full - full < 100, "{}", watcher.way.full - full);
    assert!(watcher.shown(since) >= 20, "{}", watcher.shown(since));
    room.watchers[0].way.bits_per_second = 10.0 * STREAM;
    room.run(10 * SECOND);
    let widened = room.now();
    room.run(3 * SECOND);
    let after = room.watchers[0].shown(widened);
    assert!(after >= 88, "{after} frames in 3 s, ten seconds later");
}

#[test]
fn a_viewer_that_tells_its_bandwidth_gets_no_more_and_no_video_at_all_below_fifty_kilobits() {
    let mut room = Room::new().watched(9, Feedback::Nothing, true);
    room.run(3 * SECOND);
    room.tell_bandwidth(0, 400_000);
    room.run(2 * SECOND);
    let (carried, since) = (room.watchers[0].way.carried, room.now());
    room.run(8 * SECOND);
    let watcher = &room.watchers[0];
    let rate = (watcher.way.carried - carried) as f64;
    assert!(rate < 1.1 * 400_000.0, "{rate}");
    assert!(watcher.shown(since) >= 8, "{}", watcher.shown(since));
    assert_eq!((watcher.broken, watcher.way.full), (0, 0));
    assert_eq!(watcher.missing(), 0, "to the viewer nothing is lost");
    assert_eq!(watcher.viewer.bottleneck(), Some(400_000));

    room.tell_bandwidth(0, 40_000);
    room.run(3 * SECOND);
    let (sound, since) = (room.watchers[0].sound, room.now());
    let frames = room.keyframe_requests;
    room.run(4 * SECOND);
    let watcher = &room.watchers[0];
    assert_eq!(watcher.shown(since), 0, "no video");
    assert!(watcher.sound - sound >= 198, "{}", watcher.sound - sound);
    assert_eq!(room.keyframe_requests, frames, "nor is any asked for");

    room.tell_bandwidth(0, 5_000_000);
    let since = room.now();
    room.run(3 * SECOND);
    let watcher = &room.watchers[0];
    assert!(watcher.shown(since) >= 28, "{}", watcher.shown(since));
    assert_eq!((watcher.broken, watcher.missing()), (0, 0));
    assert_eq!(watcher.cells.estimate_bps(), Some(5e6));
}

#[test]
fn a_bandwidth_without_measure_is_no_more_than_any_way_has() {
    let bench = Bench::new();
    let watcher = Peer::new(VIEWER_SEED, &[GCM], ms(100));
    let (mut config, _) = bench.config(VIEWER_SEED, Role::Viewer, &watcher);
    config.negotiated.remb = true;
    let mut congestion = crate::viewer::Congestion::new(bench.now, &config.negotiated);
    congestion.handle_bandwidth(u64::MAX);
    assert_eq!(congestion.estimate(), 1_000_000_000);
}

#[test]
fn a_device_without_regular_keyframes_is_asked_for_one_every_two_seconds_at_most() {
    let mut room = Room::new().watched(9, Feedback::Nothing, true);
    room.group = u32::MAX;
    room.run(3 * SECOND);
    let before = room.keyframe_requests;
    room.tell_bandwidth(0, 300_000);
    let since = room.now();
    room.run(20 * SECOND);
    let asked = room.keyframe_requests - before;
    assert!((3..=10).contains(&asked), "{asked} keyframes in 20 s");
    let watcher = &room.watchers[0];
    assert!(watcher.shown(since) >= 10, "{}", watcher.shown(since));
    assert_eq!(watcher.broken, 0);
}

#[test]
fn a_known_bandwidth_is_kept_in_every_slot() {
    let mut room = Room::new().watched(9, Feedback::Nothing, true);
    room.run(3 * SECOND);
    for bandwidth in [2_000_000u64, 1_200_000, 600_000, 200_000] {
        room.tell_bandwidth(0, bandwidth);
        room.run(SECOND);
        let mut sent = Vec::new();
        for _ in 0..600 {
            let before = room.watchers[0].way.carried;
            room.run(SLOT);
            sent.push(room.watchers[0].way.carried - before);
        }
        let burst = pacer::FRAME_BYTES + (bandwidth / 1_600 * pacer::PACE_TENTHS / 10) as usize;
        // Sound, reports and a packet's worth of what one slot leaves to the next go on top.
        let most = *sent.iter().max().expect("slots");
        assert!(most <= burst + 2_000, "{most} in a slot at {bandwidth}");
        let total = sent.iter().sum::<usize>() as f64 * 8.0 / 3.0;
        let ahead = (pacer::AHEAD_BYTES as f64).max(bandwidth as f64 * 0.15 / 8.0) * 8.0 / 3.0;
        assert!(
            total <= bandwidth as f64 * 1.05 + ahead,
            "{total} at {bandwidth}"
        );
    }
}
