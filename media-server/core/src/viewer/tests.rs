//! A publisher and a viewer, each against an independent peer, on a virtual clock.

use super::track::payload_type;
use super::*;
use crate::cells::IceState;
use crate::cells::{SessionCells, Watched};
use crate::clock::compact;
use crate::negotiated::{Codec, PayloadType, Role};
use crate::publisher::Publisher;
use crate::rtcp::{Item, ReportBlock};
use crate::stats::ticks;
use crate::testing::{AUDIO_PT, Bench, GCM, Peer, SHA1, VIDEO_PT, VP8_DELTA, VP8_KEY, packet};
use std::slice;
use std::sync::Arc;

mod congestion;
mod joins;
mod properties;
mod repair;
mod simulcast;
mod slow;
mod still;
mod thinning;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Viewer {
    /// What a peer can make it hold: how much there is, and how much there may be.
    pub(crate) fn held(&self) -> Vec<(&'static str, usize, usize)> {
        let mut held = self.transport.held();
        held.extend(self.sealer.as_ref().map(Sealer::held));
        held.extend(self.tracks.iter().map(Track::held));
        held.extend(self.repair.iter().map(Repair::held));
        held
    }
}

struct Stage {
    bench: Bench,
    device: Peer,
    publisher: Publisher,
    watcher: Peer,
    viewer: Viewer,
    ring: Ring,
    cells: Arc<SessionCells>,
}

const VIEWER_SEED: u8 = 9;
const VIDEO_SSRC: u32 = 2_000 + VIEWER_SEED as u32;

impl Stage {
    fn new(profile: rtc_dtls::extension::extension_use_srtp::SrtpProtectionProfile) -> Self {
        let mut bench = Bench::new();
        let mut device = Peer::new(1, &[GCM], ms(100));
        let (config, _) = bench.config(1, Role::Publisher, &device);
        let mut publisher = Publisher::new(bench.now, config);
        bench.connect(&mut publisher, &mut device);
        let mut watcher = Peer::new(VIEWER_SEED, &[profile], ms(100));
        let (mut config, cells) = bench.config(VIEWER_SEED, Role::Viewer, &watcher);
        config.negotiated.tracks[1].payload_types[0].pt = 120;
        let mut viewer = Viewer::new(bench.now, config);
        bench.connect(&mut viewer, &mut watcher);
        viewer.set_publisher_live(bench.now, true);
        Stage {
            bench,
            device,
            publisher,
            watcher,
            viewer,
            ring: Ring::default(),
            cells,
        }
    }

    /// The device sends, the viewer gets what is forwarded.
    fn send(&mut self, packet: &[u8]) {
        let sealed = self.device.seal_rtp(packet);
        self.bench
            .feed(&mut self.publisher, self.device.addr, &sealed);
        self.forward();
    }

    fn forward(&mut self) -> bool {
        let batch = Arc::new(self.publisher.take_batch());
        self.ring.push(&batch);
        let (now, out) = (self.bench.now, &mut self.bench.out);
        let wanted = self
            .viewer
            .forward(now, &batch, slice::from_ref(&self.ring), out);
        self.deliver();
        wanted
    }

    /// What the viewer's session sent arrives.
    fn deliver(&mut self) {
        for (to, datagram) in self.bench.sent() {
            assert_eq!(to, self.watcher.addr);
            self.watcher.receive(self.bench.now, &datagram);
        }
    }

    fn succeed(&mut self, seed: u8) {
        self.device = Peer::new(seed, &[GCM], ms(100));
        let (config, _) = self.bench.config(seed, Role::Publisher, &self.device);
        self.publisher = Publisher::new(self.bench.now, config);
        self.bench.connect(&mut self.publisher, &mut self.device);
    }

    /// Sequence numbers and timestamps of the video that arrived since the last call.
    fn video(&mut self) -> Vec<(u16, u32)> {
        let headers = self
            .watcher
            .rtp
            .drain(..)
            .map(|p| rtp::Header::parse(&p).expect("well-formed"));
        headers
            .filter(|h| h.ssrc == VIDEO_SSRC)
            .map(|h| (h.seq, h.timestamp))
            .collect()
    }
}

#[test]
fn a_packet_arrives_under_the_viewers_ssrc_payload_type_and_extensions() {
    for profile in [GCM, SHA1] {
        let mut stage = Stage::new(profile);
        let mut sent = packet(VIDEO_PT, 40_000, 9_000, 7, true, VP8_KEY);
        sent[0] |= 0x10;
        // MID of the publisher, an orientation, and an extension that nobody negotiated.
        sent.splice(
            12..12,
            [0xbe, 0xde, 0, 2, 0x40, b'9', 0x30, 0x02, 0xd0, 1, 0, 0],
        );
        stage.send(&sent);
        let received = stage.watcher.rtp.remove(0);
        let header = rtp::Header::parse(&received).expect("well-formed");
        assert_eq!(
            (header.ssrc, header.payload_type, header.marker),
            (VIDEO_SSRC, 120, true)
        );
        assert_eq!(
            header.extensions(&received).collect::<Vec<_>>(),
            [(4, &b"1"[..]), (3, &[2][..])]
        );
        assert_eq!(&received[header.len..], VP8_KEY);
        stage.send(&packet(AUDIO_PT, 1, 1, 8, false, b"opus"));
        let header = rtp::Header::parse(&stage.watcher.rtp[0]).expect("well-formed");
        assert_eq!(
            (header.ssrc, header.payload_type),
            (1_000 + u32::from(VIEWER_SEED), AUDIO_PT)
        );
    }
}

#[test]
fn when_media_began_to_go_out_is_told_once() {
    let mut stage = Stage::new(GCM);
    let run = |stage: &mut Stage, time| {
        let (bench, viewer) = (&mut stage.bench, &mut stage.viewer);
        bench.run(time, viewer, &mut stage.watcher, |_, _| false);
    };
    let began = |stage: &Stage| -> Vec<Instant> {
        let events = stage.bench.events.iter();
        events.filter_map(|event| event.media_began()).collect()
    };
    stage.send(&packet(VIDEO_PT, 1, 0, 7, true, VP8_DELTA));
    run(&mut stage, ms(2_500));
    assert!(began(&stage).is_empty(), "what came does not go out");
    let first = stage.bench.now;
    for seq in 2..5 {
        stage.send(&packet(VIDEO_PT, seq, 3_000, 7, true, VP8_KEY));
        run(&mut stage, ms(1_100));
    }
    assert_eq!(began(&stage), [first]);
}

#[test]
fn video_starts_with_a_keyframe_and_audio_at_once() {
    let mut stage = Stage::new(GCM);
    assert!(stage.viewer.wants_keyframe());
    let sealed = stage
        .device
        .seal_rtp(&packet(VIDEO_PT, 1, 0, 7, true, VP8_DELTA));
    stage
        .bench
        .feed(&mut stage.publisher, stage.device.addr, &sealed);
    assert!(stage.forward(), "a keyframe is wanted");
    stage.send(&packet(AUDIO_PT, 1, 1, 8, false, b"opus"));
    stage.send(&packet(VIDEO_PT, 2, 3_000, 7, true, VP8_DELTA));
    assert_eq!(stage.watcher.rtp.len(), 1, "audio only");
    assert_eq!(stage.bench.shard.drops(Drop::NoKeyframe), 2);
    stage.watcher.rtp.clear();
    stage.send(&packet(VIDEO_PT, 3, 6_000, 7, false, VP8_KEY));
    stage.send(&packet(VIDEO_PT, 4, 6_000, 7, true, &[0, 1, 2]));
    stage.send(&packet(VIDEO_PT, 2, 3_000, 7, true, VP8_DELTA));
    stage.send(&packet(VIDEO_PT, 5, 9_000, 7, true, VP8_DELTA));
    let video = stage.video();
    assert_eq!(video.len(), 3, "the late delta stays out: {video:?}");
    assert!(video.windows(2).all(|w| w[1].0 == w[0].0.wrapping_add(1)));
    assert!(!stage.viewer.wants_keyframe());
}

#[test]
fn gaps_and_reordering_of_the_publisher_are_passed_on_as_they_are() {
    let mut stage = Stage::new(GCM);
    for seq in [65_533u16, 65_535, 65_534, 2, 1] {
        let payload = if seq == 65_533 { VP8_KEY } else { VP8_DELTA };
        stage.send(&packet(
            VIDEO_PT,
            seq,
            u32::from(seq) * 3_000,
            7,
            true,
            payload,
        ));
    }
    let video = stage.video();
    let steps: Vec<_> = video
        .iter()
        .map(|(seq, _)| seq.wrapping_sub(video[0].0))
        .collect();
    assert_eq!(steps, [0, 2, 1, 5, 4]);
}

#[test]
fn a_publishers_successor_continues_the_stream_from_its_keyframe() {
    let mut stage = Stage::new(GCM);
    for i in 0..10u32 {
        let payload = if i == 0 { VP8_KEY } else { VP8_DELTA };
        stage.send(&packet(
            VIDEO_PT,
            500 + i as u16,
            1_000_000 + i * 3_000,
            7,
            true,
            payload,
        ));
        stage.bench.now += Duration::from_nanos(33_333_333);
    }
    let before = *stage.video().last().expect("frames");
    for seed in [2, 3, 4] {
        let last = stage.bench.now;
        stage.succeed(seed);
        stage.bench.now += ms(2_000);
        let start = 17 * u32::from(seed);
        stage.send(&packet(VIDEO_PT, 60_000, start, 7, true, VP8_DELTA));
        assert_eq!(stage.video(), [], "deltas of the new source are withheld");
        stage.send(&packet(VIDEO_PT, 60_001, start + 3_000, 7, true, VP8_KEY));
        stage.send(&packet(VIDEO_PT, 60_002, start + 6_000, 7, true, VP8_DELTA));
        let video = stage.video();
        let next = before.0.wrapping_add(1 + 2 * u16::from(seed - 2));
        assert_eq!(
            video.iter().map(|v| v.0).collect::<Vec<_>>(),
            [next, next.wrapping_add(1)]
        );
        assert_eq!(video[1].1.wrapping_sub(video[0].1), 3_000);
        if seed == 2 {
            let passed = video[0].1.wrapping_sub(before.1);
            let elapsed = ticks(
                stage.bench.now - last + Duration::from_nanos(33_333_333),
                90_000,
            );
            assert!(
                passed.abs_diff(elapsed) < 900,
                "{passed} ticks for {elapsed}"
            );
        }
    }
}

#[test]
fn another_codec_of_the_publisher_is_withheld_unless_negotiated() {
    let mut stage = Stage::new(GCM);
    stage.send(&packet(VIDEO_PT, 1, 0, 7, true, VP8_KEY));
    assert_eq!(stage.video().len(), 1);
    // The next publisher sends a codec that this viewer did not offer.
    stage.device = Peer::new(2, &[GCM], ms(100));
    let (mut config, _) = stage.bench.config(2, Role::Publisher, &stage.device);
    config.negotiated.tracks[1].payload_types[0].codec = Codec::Av1 { profile: 0 };
    stage.publisher = Publisher::new(stage.bench.now, config);
    stage.bench.connect(&mut stage.publisher, &mut stage.device);
    stage.send(&packet(VIDEO_PT, 1, 0, 7, true, &[0x18, 1]));
    assert_eq!(stage.video(), []);
    assert_eq!(stage.bench.shard.drops(Drop::CodecMismatch), 1);
}

/// A device that sends redundant audio under 63, and Opus under its usual type, and a viewer that takes these.
fn hearing(own: &[(u8, Codec)]) -> Stage {
    let types = |types: &[(u8, Codec)]| -> Vec<PayloadType> {
        let each = types.iter().map(|(pt, codec)| PayloadType {
            pt: *pt,
            codec: codec.clone(),
            nack: false,
            pli: false,
            rtx: None,
        });
        each.collect()
    };
    let mut bench = Bench::new();
    let mut device = Peer::new(1, &[GCM], ms(100));
    let (mut config, _) = bench.config(1, Role::Publisher, &device);
    config.negotiated.tracks[0].payload_types = types(&[(AUDIO_PT, Codec::Opus), (63, Codec::Red)]);
    let mut publisher = Publisher::new(bench.now, config);
    bench.connect(&mut publisher, &mut device);
    let mut watcher = Peer::new(VIEWER_SEED, &[GCM], ms(100));
    let (mut config, cells) = bench.config(VIEWER_SEED, Role::Viewer, &watcher);
    config.negotiated.tracks[0].payload_types = types(own);
    let mut viewer = Viewer::new(bench.now, config);
    bench.connect(&mut viewer, &mut watcher);
    viewer.set_publisher_live(bench.now, true);
    Stage {
        bench,
        device,
        publisher,
        watcher,
        viewer,
        ring: Ring::default(),
        cells,
    }
}

impl Stage {
    /// Payload type, sequence number and payload of what was heard since the last call.
    fn heard(&mut self) -> Vec<(u8, u16, Vec<u8>)> {
        let packets = self.watcher.rtp.drain(..);
        let each = packets.map(|packet| {
            let header = rtp::Header::parse(&packet).expect("well-formed");
            let payload = packet[header.len..].to_vec();
            (header.payload_type, header.seq, payload)
        });
        each.collect()
    }
}

/// A redundant block and the newest, both of that type.
fn redundant(pt: u8, newest: &[u8]) -> Vec<u8> {
    [&[0x80 | pt, 0x0f, 0x00, 6, pt], &b"before"[..], newest].concat()
}

#[test]
fn redundant_audio_goes_to_a_viewer_that_takes_it_as_it_is_but_for_its_payload_types() {
    let mut stage = hearing(&[(110, Codec::Red), (97, Codec::Opus)]);
    for (seq, newest) in [(1, &b"one"[..]), (2, b"two")] {
        let payload = redundant(AUDIO_PT, newest);
        stage.send(&packet(63, seq, 960 * u32::from(seq), 8, false, &payload));
    }
    stage.send(&packet(AUDIO_PT, 3, 2_880, 8, false, b"opus"));
    let heard = stage.heard();
    let first = heard[0].1;
    let expected = [
        (110, redundant(97, b"one")),
        (110, redundant(97, b"two")),
        (97, b"opus".to_vec()),
    ];
    for (at, (pt, payload)) in (0..).zip(expected) {
        assert_eq!(heard[at], (pt, first.wrapping_add(at as u16), payload));
    }
}

#[test]
fn a_viewer_that_takes_opus_alone_hears_the_newest_block_of_redundant_audio() {
    let mut stage = hearing(&[(97, Codec::Opus)]);
    stage.send(&packet(63, 1, 960, 8, false, &redundant(AUDIO_PT, b"one")));
    stage.send(&packet(63, 2, 1_920, 8, false, &[0x80, 0, 0]));
    stage.send(&packet(AUDIO_PT, 3, 2_880, 8, false, b"opus"));
    let heard = stage.heard();
    assert_eq!((heard[0].0, &heard[0].2[..]), (97, &b"one"[..]));
    assert_eq!((heard[1].0, &heard[1].2[..]), (97, &b"opus"[..]));
    assert_eq!(heard.len(), 2);
    assert_eq!(stage.bench.shard.drops(Drop::Malformed), 1, "cut short");
    assert_eq!(stage.bench.shard.drops(Drop::CodecMismatch), 0);
}

#[test]
fn h264_profiles_may_differ_but_packetization_modes_may_not() {
    let h264 = |packetization_mode, profile_iop| Codec::H264 {
        packetization_mode,
        profile_iop,
    };
    let pt = |pt, codec| PayloadType {
        pt,
        codec,
        nack: false,
        pli: true,
        rtx: None,
    };
    let own = [
        pt(102, h264(1, 0x42e0)),
        pt(103, h264(1, 0x640c)),
        pt(104, Codec::Vp8),
    ];
    assert_eq!(
        payload_type(&own, &h264(1, 0x640c)).map(|p| p.pt),
        Some(103)
    );
    assert_eq!(
        payload_type(&own, &h264(1, 0x4d00)).map(|p| p.pt),
        Some(102)
    );
    assert!(payload_type(&own, &h264(0, 0x42e0)).is_none());
    assert!(payload_type(&own, &Codec::Vp9 { profile: 0 }).is_none());
}

#[test]
fn sender_reports_map_our_timestamps_to_the_time_they_stand_for() {
    let mut stage = Stage::new(GCM);
    stage.send(&packet(VIDEO_PT, 1, 90_000, 7, true, VP8_KEY));
    let (_, first) = stage.video()[0];
    // The device's clock is an hour off: one second of its time is one of ours all the same.
    let device_ntp = stage.bench.clock.ntp(stage.bench.now) + (3_600 << 32);
    let mut report = rtcp::Writer::default();
    report.sender_report(7, device_ntp, 90_000, 1, 5);
    let sealed = stage.device.seal_rtcp(&report);
    stage
        .bench
        .feed(&mut stage.publisher, stage.device.addr, &sealed);
    let reported = stage.bench.now;
    stage.send(&packet(VIDEO_PT, 2, 93_000, 7, true, VP8_DELTA));
    stage
        .bench
        .run(ms(3_100), &mut stage.viewer, &mut stage.watcher, |_, _| {
            false
        });
    let reports = stage.watcher.take_reports();
    let infos: Vec<_> = reports
        .iter()
        .filter_map(|item| match item {
            Item::SenderInfo {
                ssrc,
                ntp,
                timestamp,
            } => Some((*ssrc, *ntp, *timestamp)),
            _ => None,
        })
        .collect();
    assert_eq!(
        infos.len(),
        3,
        "one each second, for the stream that is there"
    );
    for (ssrc, ntp, timestamp) in infos {
        assert_eq!(ssrc, VIDEO_SSRC);
        let since = crate::clock::from_compact(
            compact(ntp).wrapping_sub(compact(stage.bench.clock.ntp(reported))),
        );
        let expected = first.wrapping_add(ticks(since, 90_000));
        assert!(
            timestamp.wrapping_sub(expected).cast_signed().abs() < 90,
            "{timestamp} for {expected}"
        );
    }
}

#[test]
fn receiver_reports_give_loss_jitter_and_round_trip() {
    let mut stage = Stage::new(GCM);
    stage.send(&packet(VIDEO_PT, 1, 90_000, 7, true, VP8_KEY));
    stage
        .bench
        .run(ms(1_100), &mut stage.viewer, &mut stage.watcher, |_, _| {
            false
        });
    let reports = stage.watcher.take_reports();
    let Some(Item::SenderInfo { ntp, .. }) = reports
        .iter()
        .find(|i| matches!(i, Item::SenderInfo { .. }))
    else {
        panic!("no sender report among {reports:?}");
    };
    let sent_at = crate::clock::from_compact(
        compact(stage.bench.clock.ntp(stage.bench.now)).wrapping_sub(compact(*ntp)),
    );
    // The peer holds the report for 500 ms; the rest of the 600 that pass is the round trip.
    stage.bench.now += ms(600) - sent_at;
    let block = |highest_seq, total_lost| ReportBlock {
        ssrc: VIDEO_SSRC,
        fraction_lost: 0,
        total_lost,
        highest_seq,
        jitter: 450,
        last_sr: compact(*ntp),
        delay: 65_536 / 2,
    };
    for block in [block(1_000, 10), block(1_200, 20)] {
        let mut compound = rtcp::Writer::default();
        compound.receiver_report(1, &[block]);
        let sealed = stage.watcher.seal_rtcp(&compound);
        stage
            .bench
            .feed(&mut stage.viewer, stage.watcher.addr, &sealed);
    }
    let rtt = stage.cells.rtt().expect("known");
    assert!(rtt.abs_diff(ms(100)) < ms(2), "{rtt:?}");
    assert_eq!(stage.cells.loss_ratio(), Some(0.05));
    assert_eq!(stage.cells.jitter(), Some(ms(5)));
    stage.send(&packet(VIDEO_PT, 2, 93_000, 7, true, VP8_DELTA));
    let received = stage.watcher.rtp.pop().expect("forwarded");
    let header = rtp::Header::parse(&received).expect("well-formed");
    assert_eq!(
        header.extensions(&received).count(),
        0,
        "the MID is not needed any more"
    );
}

#[test]
fn picture_loss_of_the_viewer_becomes_a_wish_for_a_keyframe() {
    let mut stage = Stage::new(GCM);
    let wishes = |stage: &Stage| {
        stage
            .bench
            .events
            .iter()
            .filter(|e| **e == SessionEvent::KeyframeWanted(KeyframeCause::Lost))
            .count()
    };
    let before = wishes(&stage);
    for ssrc in [VIDEO_SSRC, 1_000 + u32::from(VIEWER_SEED), 5] {
        let mut compound = rtcp::Writer::default();
        compound.picture_loss(1, ssrc);
        let sealed = stage.watcher.seal_rtcp(&compound);
        stage
            .bench
            .feed(&mut stage.viewer, stage.watcher.addr, &sealed);
    }
    assert_eq!(wishes(&stage) - before, 1, "for the video stream only");
}

#[test]
fn a_new_address_gets_little_until_a_second_check_proves_it() {
    let mut bench = Bench::new();
    let mut watcher = Peer::new(VIEWER_SEED, &[GCM], ms(100));
    let (config, _) = bench.config(VIEWER_SEED, Role::Viewer, &watcher);
    let mut viewer = Viewer::new(bench.now, config);
    let check = watcher.check(true);
    bench.feed(&mut viewer, watcher.addr, &check);
    watcher.start_handshake(bench.now);
    bench.run(ms(50), &mut viewer, &mut watcher, |_, _| false);
    let mut stage_device = Peer::new(1, &[GCM], ms(100));
    let (config, _) = bench.config(1, Role::Publisher, &stage_device);
    let mut publisher = Publisher::new(bench.now, config);
    bench.connect(&mut publisher, &mut stage_device);
    let payload = [VP8_KEY, &[0; 1_000]].concat();
    let mut ring = Ring::default();
    ring.limit(crate::ring::WATCHED_BYTES);
    for seq in 0..200 {
        let sealed = stage_device.seal_rtp(&packet(VIDEO_PT, seq, 0, 7, false, &payload));
        bench.feed(&mut publisher, stage_device.addr, &sealed);
    }
    let batch = Arc::new(publisher.take_batch());
    ring.push(&batch);
    viewer.forward(bench.now, &batch, slice::from_ref(&ring), &mut bench.out);
    let mut sent = bench.sent().len();
    let mut catch_up = |bench: &mut Bench, viewer: &mut Viewer| {
        for _ in 0..100 {
            bench.now += SLOT;
            viewer.catch_up(bench.now, slice::from_ref(&ring), &mut bench.out);
            sent += bench.sent().len();
        }
        sent
    };
    let few = 128 * 1024 / payload.len();
    assert_eq!(catch_up(&mut bench, &mut viewer), few);
    let check = watcher.check(true);
    bench.feed(&mut viewer, watcher.addr, &check);
    assert_eq!(catch_up(&mut bench, &mut viewer), 200);
}

#[test]
fn the_time_that_a_viewer_takes_for_its_keys_is_no_gap() {
    let mut stage = Stage::new(GCM);
    let bench = &mut stage.bench;
    let mut late = Peer::new(VIEWER_SEED, &[GCM], ms(100));
    let (config, _) = bench.config(VIEWER_SEED, Role::Viewer, &late);
    stage.viewer = Viewer::new(bench.now, config);
    stage.viewer.set_publisher_live(bench.now, true);
    bench.now += ms(3_000);
    bench.connect(&mut stage.viewer, &mut late);
    stage.watcher = late;
    for seq in 1..=25 {
        let body = if seq == 1 { VP8_KEY } else { VP8_DELTA };
        let timestamp = 9_000 * u32::from(seq);
        stage.send(&packet(VIDEO_PT, seq, timestamp, 7, true, body));
        stage
            .bench
            .run(ms(100), &mut stage.viewer, &mut stage.watcher, |_, _| false);
    }
    let [good, gap] = [Watched::Good, Watched::Gap].map(|how| stage.bench.shard.watched(how));
    assert!(good >= 2, "{good}");
    assert_eq!(gap, 0);
}

#[test]
fn a_viewer_waits_thirty_seconds_for_a_publisher() {
    let mut stage = Stage::new(GCM);
    stage.viewer.set_publisher_live(stage.bench.now, false);
    let check = stage.watcher.check(true);
    stage
        .bench
        .feed(&mut stage.viewer, stage.watcher.addr, &check);
    stage
        .bench
        .run(ms(20_000), &mut stage.viewer, &mut stage.watcher, |_, _| {
            false
        });
    let check = stage.watcher.check(true);
    stage
        .bench
        .feed(&mut stage.viewer, stage.watcher.addr, &check);
    stage
        .bench
        .run(ms(9_900), &mut stage.viewer, &mut stage.watcher, |_, _| {
            false
        });
    assert!(
        !stage
            .bench
            .events
            .iter()
            .any(|e| matches!(e, SessionEvent::Ended(_)))
    );
    stage
        .bench
        .run(ms(200), &mut stage.viewer, &mut stage.watcher, |_, _| false);
    assert_eq!(
        stage.bench.events.last(),
        Some(&SessionEvent::Ended(End::PublisherGone))
    );
}

/// Good, gap, loss, still.
fn watched(stage: &Stage) -> [u64; 4] {
    Watched::ALL.map(|how| stage.bench.shard.watched(how))
}

#[test]
fn seconds_are_counted_by_what_the_viewer_was_sent_and_only_while_its_device_is_there() {
    let mut stage = Stage::new(GCM);
    let mut seq = 0;
    let mut second = |stage: &mut Stage, frames: u16| {
        for frame in 0..frames {
            seq += 1;
            let body = if seq == 1 { VP8_KEY } else { VP8_DELTA };
            stage.send(&packet(
                VIDEO_PT,
                seq,
                3_000 * u32::from(seq),
                7,
                true,
                body,
            ));
            if frame + 1 < frames {
                stage
                    .bench
                    .run(ms(100), &mut stage.viewer, &mut stage.watcher, |_, _| false);
            }
        }
        let rest = ms(1_000) - ms(100) * u32::from(frames.saturating_sub(1));
        stage
            .bench
            .run(rest, &mut stage.viewer, &mut stage.watcher, |_, _| false);
    };
    let first = stage.bench.now;
    (0..3).for_each(|_| second(&mut stage, 10));
    assert_eq!(watched(&stage), [3, 0, 0, 0]);
    let told = |stage: &Stage| -> Vec<Instant> {
        let events = stage.bench.events.iter();
        events.filter_map(|event| event.media_began()).collect()
    };
    let [at] = told(&stage)[..] else {
        panic!("{:?}", stage.bench.events);
    };
    // Video begins a moment after the handshake.
    assert!(at >= first && at - first < ms(500), "{:?}", at - first);

    (0..2).for_each(|_| second(&mut stage, 0));
    let [good, gap, loss, still] = watched(&stage);
    assert_eq!((good + gap, loss, still), (5, 0, 0));
    assert!(gap >= 1, "nothing is known of its device: {gap}");
    stage.viewer.set_publisher_live(stage.bench.now, false);
    let before = watched(&stage);
    (0..3).for_each(|_| second(&mut stage, 0));
    assert_eq!(watched(&stage), before, "there is no device to watch");
    stage.viewer.set_publisher_live(stage.bench.now, true);
    second(&mut stage, 10);
    assert_eq!(watched(&stage)[0], before[0] + 1);

    let block = |highest_seq, total_lost| ReportBlock {
        ssrc: VIDEO_SSRC,
        fraction_lost: 0,
        total_lost,
        highest_seq,
        jitter: 0,
        last_sr: 0,
        delay: 0,
    };
    for block in [block(1_000, 0), block(1_100, 5)] {
        let mut compound = rtcp::Writer::default();
        compound.receiver_report(1, &[block]);
        let sealed = stage.watcher.seal_rtcp(&compound);
        stage
            .bench
            .feed(&mut stage.viewer, stage.watcher.addr, &sealed);
    }
    second(&mut stage, 10);
    assert_eq!(watched(&stage)[2], 1, "5 of 100 were lost");
    assert_eq!(told(&stage).len(), 1);
}

#[test]
fn seconds_of_a_viewer_that_is_cut_off_are_gaps_though_packets_are_sent_to_it() {
    let mut stage = Stage::new(GCM);
    let mut seq = 0;
    let mut send = |stage: &mut Stage, seconds: u16| {
        let before = watched(stage);
        for _ in 0..seconds * 10 {
            seq += 1;
            let body = if seq == 1 { VP8_KEY } else { VP8_DELTA };
            let timestamp = 9_000 * u32::from(seq);
            stage.send(&packet(VIDEO_PT, seq, timestamp, 7, true, body));
            stage
                .bench
                .run(ms(100), &mut stage.viewer, &mut stage.watcher, |_, _| false);
        }
        let after = watched(stage);
        [0, 1, 2].map(|how| after[how] - before[how])
    };
    let [good, gap, _] = send(&mut stage, 13);
    assert!(
        good >= 12 && gap == 0,
        "its checks may be lost: {good} {gap}"
    );
    send(&mut stage, 3);
    assert_eq!(stage.cells.ice_state(), IceState::Disconnected);
    assert_eq!(send(&mut stage, 5), [0, 5, 0]);
    let check = stage.watcher.check(true);
    stage
        .bench
        .feed(&mut stage.viewer, stage.watcher.addr, &check);
    let [good, gap, _] = send(&mut stage, 5);
    assert!(good >= 4 && gap <= 1, "it is back: {good} {gap}");
}
