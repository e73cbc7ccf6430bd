//! A publisher against an independent peer on a virtual clock.

use super::*;
use crate::cells::{IceState, SessionCells, VideoLimit};
use crate::negotiated::Role;
use crate::output::{End, SessionEvent};
use crate::rtcp::Item;
use crate::testing::{
    AUDIO_PT, Bench, GCM, Peer, SHA1, VIDEO_PT, VIDEO_RTX_PT, VP8_DELTA, VP8_KEY, packet,
};
use std::net::SocketAddr;
use std::sync::Arc;

mod simulcast;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Publisher {
    /// What a device can make it hold: how much there is, and how much there may be.
    pub(crate) fn held(&self) -> Vec<(&'static str, usize, usize)> {
        let mut held = self.transport.held();
        held.extend(self.opener.as_ref().map(Opener::held));
        let layers = self.tracks.iter().flat_map(|track| &track.layers);
        let streams = layers.filter_map(|layer| layer.stream.as_ref());
        held.extend(streams.map(|stream| stream.missing.held()));
        held
    }
}

fn connected() -> (Bench, Peer, Publisher, Arc<SessionCells>) {
    let mut bench = Bench::new();
    let mut peer = Peer::new(1, &[GCM, SHA1], ms(100));
    let (config, cells) = bench.config(1, Role::Publisher, &peer);
    let mut session = Publisher::new(bench.now, config);
    bench.connect(&mut session, &mut peer);
    (bench, peer, session, cells)
}

#[test]
fn video_at_its_limit_is_counted_by_the_second_and_beyond_it_the_device_is_told() {
    const MOST: u64 = 1_000_000;
    for (bytes, counted, told) in [
        (1_000, [0, 0], None),
        (1_250, [1, 0], None),
        (1_450, [0, 1], Some(MOST)),
    ] {
        let mut bench = Bench::new();
        let mut peer = Peer::new(1, &[GCM], ms(100));
        let (mut config, cells) = bench.config(1, Role::Publisher, &peer);
        config.negotiated.remb = true;
        let mut session = Publisher::new(bench.now, config);
        bench.connect(&mut session, &mut peer);
        let payload = vec![0x10; bytes];
        // Two seconds, of 100 packets each.
        for seq in 1..=200u16 {
            let time = u32::from(seq) * 900;
            let media = packet(VIDEO_PT, seq, time, 7, true, &payload);
            send(&mut bench, &mut session, &mut peer, &media);
            bench.run(ms(10), &mut session, &mut peer, |_, _| false);
        }
        let bits = cells.bitrate_bps().expect("a second has passed");
        assert!((bits / (bytes * 800) as f64 - 1.0).abs() < 0.03, "{bits}");
        peer.take_reports();
        session.limit_bandwidth(bench.now, Wanted::Any, MOST, &mut bench.out);
        for (_, datagram) in bench.sent() {
            peer.receive(bench.now, &datagram);
        }
        let asked = peer.take_reports().into_iter().find_map(|item| match item {
            Item::Bandwidth { bits_per_second } => Some(bits_per_second),
            _ => None,
        });
        let near = asked.is_none_or(|asked| asked.abs_diff(MOST) < MOST / 100);
        assert!(near && asked.is_some() == told.is_some(), "{asked:?}");
        let seconds = VideoLimit::ALL.map(|sent| bench.shard.video_limit(sent));
        assert_eq!(seconds, counted, "{bytes} bytes");
    }
}

fn send(bench: &mut Bench, session: &mut Publisher, peer: &mut Peer, packet: &[u8]) {
    let sealed = peer.seal_rtp(packet);
    for (_, datagram) in bench.feed(session, peer.addr, &sealed) {
        peer.receive(bench.now, &datagram);
    }
}

/// When sessions said that their media began.
fn began(bench: &Bench) -> Vec<Instant> {
    let events = bench.events.iter();
    events.filter_map(|event| event.media_began()).collect()
}

#[test]
fn when_media_began_is_told_once_and_before_the_end() {
    let (mut bench, mut peer, mut session, _) = connected();
    bench.run(ms(2_500), &mut session, &mut peer, |_, _| false);
    assert!(began(&bench).is_empty(), "nothing has come");
    let first = bench.now;
    for seq in 1..=300 {
        let media = packet(VIDEO_PT, seq, u32::from(seq) * 900, 7, true, VP8_KEY);
        send(&mut bench, &mut session, &mut peer, &media);
        bench.run(ms(10), &mut session, &mut peer, |_, _| false);
    }
    assert_eq!(began(&bench), [first], "though three seconds passed");

    let (mut bench, mut peer, mut session, _) = connected();
    let first = bench.now;
    let media = packet(AUDIO_PT, 1, 960, 8, false, b"opus");
    send(&mut bench, &mut session, &mut peer, &media);
    session.close(bench.now, &mut bench.out);
    bench.sent();
    assert_eq!(began(&bench), [first], "it lasted less than a second");
}

#[test]
fn media_comes_out_opened_with_extended_sequence_numbers() {
    let (mut bench, mut peer, mut session, _) = connected();
    for (seq, payload) in [
        (65_534, VP8_KEY),
        (65_535, VP8_DELTA),
        (0, VP8_DELTA),
        (1, VP8_DELTA),
    ] {
        send(
            &mut bench,
            &mut session,
            &mut peer,
            &packet(VIDEO_PT, seq, 9_000, 7, true, payload),
        );
    }
    send(
        &mut bench,
        &mut session,
        &mut peer,
        &packet(AUDIO_PT, 5, 960, 8, false, b"opus"),
    );
    let batch = session.take_batch();
    let seqs: Vec<_> = batch
        .packets()
        .iter()
        .map(|p| (p.kind, p.seq, p.starts_keyframe))
        .collect();
    assert_eq!(
        seqs,
        [
            (Kind::Video, 65_534, true),
            (Kind::Video, 65_535, false),
            (Kind::Video, 65_536, false),
            (Kind::Video, 65_537, false),
            (Kind::Audio, 5, true),
        ]
    );
    assert_eq!(batch.slice(&batch.packets()[0].payload), VP8_KEY);
    assert_eq!(batch.slice(&batch.packets()[4].payload), b"opus");
}

#[test]
fn junk_replays_and_unknown_streams_are_counted_and_go_nowhere() {
    let (mut bench, mut peer, mut session, _) = connected();
    let sealed = peer.seal_rtp(&packet(VIDEO_PT, 1, 1, 7, true, VP8_KEY));
    bench.feed(&mut session, peer.addr, &sealed);
    bench.feed(&mut session, peer.addr, &sealed);
    let mut forged = peer.seal_rtp(&packet(VIDEO_PT, 2, 1, 7, true, VP8_KEY));
    forged[14] ^= 1;
    bench.feed(&mut session, peer.addr, &forged);
    let other = peer.seal_rtp(&packet(35, 3, 1, 7, true, VP8_KEY));
    bench.feed(&mut session, peer.addr, &other);
    let second = peer.seal_rtp(&packet(VIDEO_PT, 3, 1, 70, true, VP8_KEY));
    bench.feed(&mut session, peer.addr, &second);
    bench.feed(
        &mut session,
        SocketAddr::from(([192, 0, 2, 99], 1)),
        &sealed,
    );
    let counts = [
        Drop::SrtpReplay,
        Drop::SrtpUnauthenticated,
        Drop::UnknownStream,
        Drop::UnknownAddress,
    ];
    assert_eq!(counts.map(|reason| bench.shard.drops(reason)), [1, 1, 2, 1]);
    assert_eq!(session.take_batch().packets().len(), 1);

    // Whatever bytes arrive, nothing is sent and nothing breaks.
    let mut state = 1u64;
    for len in (0..600).map(|i| i % 200) {
        let junk: Vec<u8> = (0..len)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as u8
            })
            .collect();
        assert_eq!(bench.feed(&mut session, peer.addr, &junk), []);
    }
    assert!(!session.has_batch());
}

#[test]
fn sound_and_picture_stay_together_when_the_clock_of_their_device_is_set() {
    for by in [3_000_i64, -3_000, -40_000] {
        let (mut bench, mut peer, mut session, _) = connected();
        for tick in 0..250u32 {
            let (video, audio) = (tick * 9_000, tick * 4_800);
            for media in [
                packet(VIDEO_PT, tick as u16, video, 7, true, VP8_DELTA),
                packet(AUDIO_PT, tick as u16, audio, 8, false, b"opus"),
            ] {
                send(&mut bench, &mut session, &mut peer, &media);
            }
            // A report of the picture each second and one of the sound each five, and a clock that is set after ten.
            let clock = i64::from(tick) * 100 + if tick < 103 { 0 } else { by };
            let since = ((i128::from(clock) << 32) / 1_000) as i64;
            let ntp = (4_000_000_000_u64 << 32).wrapping_add_signed(since);
            for (ssrc, timestamp, every, at) in [(7, video, 10, 4), (8, audio, 50, 9)] {
                if tick % every == at {
                    let mut report = rtcp::Writer::default();
                    report.sender_report(ssrc, ntp, timestamp, 50, 250);
                    let sealed = peer.seal_rtcp(&report);
                    bench.feed(&mut session, peer.addr, &sealed);
                }
            }
            let batch = session.take_batch();
            let at = |kind, timestamp: u32| {
                let mapping = batch.mapping(kind).expect("a packet came");
                let since = i64::from(timestamp.wrapping_sub(mapping.timestamp).cast_signed());
                let since = (since << 32) / i64::from(crate::media::clock_rate(kind));
                mapping.ntp.wrapping_add_signed(since)
            };
            let apart = at(Kind::Video, video).wrapping_sub(at(Kind::Audio, audio));
            let apart = (apart.cast_signed() * 1_000) >> 32;
            assert!(apart.abs() <= 2, "{by}: {apart} ms apart at {tick}");
            bench.run(ms(100), &mut session, &mut peer, |_, _| false);
        }
    }
}

#[test]
fn until_the_device_reports_its_clock_each_packet_is_taken_for_sent_when_it_came() {
    let (mut bench, mut peer, mut session, _) = connected();
    let mut mapped = |bench: &mut Bench, peer: &mut Peer, seq: u16, timestamp| {
        let media = packet(VIDEO_PT, seq, timestamp, 7, true, VP8_KEY);
        send(bench, &mut session, peer, &media);
        let mapping = session.take_batch().mapping(Kind::Video);
        let mapping = mapping.expect("a packet came");
        (mapping.ntp, mapping.timestamp, mapping.reported)
    };
    for (seq, timestamp) in [(1, 90_000), (2, 93_000)] {
        let found = mapped(&mut bench, &mut peer, seq, timestamp);
        let now = bench.clock.ntp(bench.now);
        assert_eq!(found, (now, timestamp, false), "{seq}");
        bench.now += ms(500);
    }
}

#[test]
fn a_receiver_report_each_second_tells_loss_jitter_and_the_last_sender_report() {
    let (mut bench, mut peer, mut session, cells) = connected();
    let ntp = 0x1234_5678_9abc_def0;
    for i in 0..100u16 {
        // Each tenth is lost, and every other comes 4 ms late: 360 ticks of deviation.
        if i % 10 != 5 {
            let before = bench.now;
            bench.now += ms(4 * u64::from(i % 2));
            send(
                &mut bench,
                &mut session,
                &mut peer,
                &packet(VIDEO_PT, i, u32::from(i) * 900, 7, true, VP8_DELTA),
            );
            bench.now = before;
        }
        if i == 50 {
            let mut report = rtcp::Writer::default();
            report.sender_report(7, ntp, 45_000, 50, 250);
            let sealed = peer.seal_rtcp(&report);
            bench.feed(&mut session, peer.addr, &sealed);
        }
        bench.run(ms(10), &mut session, &mut peer, |_, _| false);
    }
    let blocks: Vec<_> = peer
        .take_reports()
        .into_iter()
        .filter_map(|item| {
            if let Item::Report(block) = item {
                Some(block)
            } else {
                None
            }
        })
        .collect();
    let block = blocks.last().expect("a report in the first second");
    assert_eq!(block.ssrc, 7);
    // 26 of 256 are a tenth.
    assert!(
        (24..=28).contains(&block.fraction_lost),
        "{}",
        block.fraction_lost
    );
    assert!((8..=10).contains(&block.total_lost), "{}", block.total_lost);
    assert!((250..=450).contains(&block.jitter), "{}", block.jitter);
    assert_eq!(block.last_sr, compact(ntp));
    assert!(
        (25_000..33_000).contains(&block.delay),
        "about 450 ms in 1/65536 s: {}",
        block.delay
    );
    let loss = cells.loss_ratio().expect("known");
    assert!((loss - 0.1).abs() < 0.01, "{loss}");
    let jitter = cells.jitter().expect("known");
    assert!(jitter > ms(2) && jitter < ms(6), "{jitter:?}");
}

#[test]
fn frame_rate_and_bitrate_cover_the_last_second() {
    let (mut bench, mut peer, mut session, cells) = connected();
    let payload = [&VP8_DELTA[..1], &[1; 999]].concat();
    for frame in 0..75u32 {
        for part in 0..7 {
            let seq = (frame * 7 + part) as u16;
            send(
                &mut bench,
                &mut session,
                &mut peer,
                &packet(VIDEO_PT, seq, frame * 3_000, 7, part == 6, &payload),
            );
        }
        bench.run(
            ms(if frame % 3 == 0 { 40 } else { 30 }),
            &mut session,
            &mut peer,
            |_, _| false,
        );
    }
    let (rate, bits) = (
        cells.frame_rate().expect("known"),
        cells.bitrate_bps().expect("known"),
    );
    assert!((rate - 30.0).abs() <= 1.0, "{rate}");
    assert!((bits - 30.0 * 7.0 * 8_000.0).abs() < 60_000.0, "{bits}");
}

#[test]
fn keyframe_requests_are_throttled_and_repeated_until_a_keyframe_starts() {
    let (mut bench, mut peer, mut session, _) = connected();
    send(
        &mut bench,
        &mut session,
        &mut peer,
        &packet(VIDEO_PT, 1, 0, 7, true, VP8_DELTA),
    );
    let plis = |peer: &mut Peer| {
        peer.take_reports()
            .iter()
            .filter(|i| matches!(i, Item::KeyframeRequest { ssrc: 7 }))
            .count()
    };
    for _ in 0..1_000 {
        session.request_keyframe(bench.now, 0, KeyframeCause::Start, &mut bench.out);
    }
    bench.run(ms(400), &mut session, &mut peer, |_, _| false);
    assert_eq!(plis(&mut peer), 1, "a thousand viewers at once");
    bench.run(ms(1_000), &mut session, &mut peer, |_, _| false);
    assert_eq!(plis(&mut peer), 2, "asked again each 500 ms");
    send(
        &mut bench,
        &mut session,
        &mut peer,
        &packet(VIDEO_PT, 2, 3_000, 7, true, VP8_KEY),
    );
    bench.run(ms(2_000), &mut session, &mut peer, |_, _| false);
    assert_eq!(plis(&mut peer), 0, "it came");
    assert_eq!(bench.shard.keyframe_requests(KeyframeCause::Start), 3);
}

#[test]
fn a_round_trip_follows_from_the_peers_answer_to_our_reference_time() {
    let (mut bench, mut peer, mut session, cells) = connected();
    bench.run(ms(1_000), &mut session, &mut peer, |_, _| false);
    let sent = compact(bench.clock.ntp(bench.now));
    bench.now += ms(150);
    let mut dlrr = vec![0x80, 207, 0, 5, 0, 0, 0, 7, 5, 0, 0, 3, 0, 0, 0, 2];
    dlrr.extend(sent.to_be_bytes());
    dlrr.extend((65_536u32 / 20).to_be_bytes());
    session.handle_rtcp(bench.now, &dlrr);
    let rtt = cells.rtt().expect("known");
    assert!(rtt.abs_diff(ms(100)) < ms(2), "{rtt:?}");
}

#[test]
fn the_ice_state_walks_from_new_to_failed() {
    let mut bench = Bench::new();
    let mut peer = Peer::new(1, &[GCM], ms(100));
    let (config, cells) = bench.config(1, Role::Publisher, &peer);
    let mut session = Publisher::new(bench.now, config);
    assert_eq!(cells.ice_state(), IceState::New);
    let check = peer.check(true);
    assert_eq!(bench.feed(&mut session, peer.addr, &check).len(), 1);
    assert_eq!(cells.ice_state(), IceState::Checking);
    bench.now += ms(120);
    peer.start_handshake(bench.now);
    bench.run(ms(50), &mut session, &mut peer, |_, _| false);
    assert_eq!(cells.ice_state(), IceState::Connected);
    assert_eq!(cells.connection_time(), Some(ms(120)));
    bench.run(ms(16_000), &mut session, &mut peer, |_, _| false);
    assert_eq!(cells.ice_state(), IceState::Disconnected);
    let check = peer.check(true);
    bench.feed(&mut session, peer.addr, &check);
    assert_eq!(
        cells.ice_state(),
        IceState::Connected,
        "a check brings it back"
    );
    bench.run(ms(29_900), &mut session, &mut peer, |_, _| false);
    assert!(!bench.events.contains(&SessionEvent::Ended(End::IceFailed)));
    bench.run(ms(200), &mut session, &mut peer, |_, _| false);
    assert_eq!(
        bench.events.last(),
        Some(&SessionEvent::Ended(End::IceFailed))
    );
    assert_eq!(cells.ice_state(), IceState::Failed);
}

#[test]
fn a_session_that_is_not_set_up_in_fifteen_seconds_ends() {
    let mut bench = Bench::new();
    let mut peer = Peer::new(1, &[GCM], ms(100));
    let (config, _) = bench.config(1, Role::Publisher, &peer);
    let mut session = Publisher::new(bench.now, config);
    bench.run(ms(15_000), &mut session, &mut peer, |_, _| false);
    assert_eq!(bench.events, []);
    bench.run(ms(20), &mut session, &mut peer, |_, _| false);
    assert_eq!(bench.events, [SessionEvent::Ended(End::SetupTimeout)]);
}

/// Numbers that the session asked for again since the last call.
fn nacks(peer: &mut Peer) -> Vec<u16> {
    let items = peer.take_reports();
    let lost = items.iter().filter_map(|item| match item {
        Item::Lost { ssrc: 7, seq } => Some(*seq),
        _ => None,
    });
    lost.collect()
}

#[test]
fn a_gap_is_asked_for_and_the_retransmission_comes_out_as_the_packet_that_was_lost() {
    let (mut bench, mut peer, mut session, cells) = connected();
    for seq in [1, 2, 5, 6, 4] {
        let media = packet(VIDEO_PT, seq, u32::from(seq) * 3_000, 7, true, VP8_DELTA);
        send(&mut bench, &mut session, &mut peer, &media);
    }
    assert!(nacks(&mut peer).is_empty(), "it may only be late");
    bench.run(ms(40), &mut session, &mut peer, |_, _| false);
    assert_eq!(nacks(&mut peer), [3]);
    session.take_batch();
    let payload = [&3u16.to_be_bytes()[..], VP8_DELTA].concat();
    let again = packet(VIDEO_RTX_PT, 77, 9_000, 70, true, &payload);
    send(&mut bench, &mut session, &mut peer, &again);
    let batch = session.take_batch();
    let media = &batch.packets()[0];
    assert_eq!(
        (media.seq, media.timestamp, media.kind),
        (3, 9_000, Kind::Video)
    );
    assert_eq!(batch.slice(&media.payload), VP8_DELTA);
    // Once more, and one that was never missed, as a device that probes its line sends them.
    for (rtx_seq, seq) in [(78, 3u16), (79, 6)] {
        let payload = [&seq.to_be_bytes()[..], VP8_DELTA].concat();
        let again = packet(VIDEO_RTX_PT, rtx_seq, 9_000, 70, true, &payload);
        send(&mut bench, &mut session, &mut peer, &again);
    }
    assert!(!session.has_batch());
    assert_eq!(bench.shard.drops(Drop::Duplicate), 2);
    bench.run(ms(1_000), &mut session, &mut peer, |_, _| false);
    assert!(nacks(&mut peer).is_empty(), "it came");
    assert_eq!(
        (bench.shard.nacked_out(), bench.shard.retransmitted_in()),
        (1, 1)
    );
    let loss = cells.loss_ratio().expect("known");
    assert!(
        (loss - 1.0 / 6.0).abs() < 0.01,
        "lost on the line all the same: {loss}"
    );
}

#[test]
fn a_device_that_sends_lost_packets_itself_once_more_does_not_hide_the_loss() {
    let (mut bench, mut peer, mut session, cells) = connected();
    for seq in [1, 2, 4] {
        let media = packet(VIDEO_PT, seq, u32::from(seq) * 3_000, 7, true, VP8_DELTA);
        send(&mut bench, &mut session, &mut peer, &media);
    }
    bench.run(ms(50), &mut session, &mut peer, |_, _| false);
    assert!(!nacks(&mut peer).is_empty());
    session.take_batch();
    let again = packet(VIDEO_PT, 3, 9_000, 7, true, VP8_DELTA);
    send(&mut bench, &mut session, &mut peer, &again);
    assert_eq!(session.take_batch().packets()[0].seq, 3);
    assert_eq!(bench.shard.retransmitted_in(), 1);
    bench.run(ms(1_000), &mut session, &mut peer, |_, _| false);
    assert!(nacks(&mut peer).is_empty(), "it came");
    assert_eq!(cells.loss_ratio(), Some(0.25));
}

#[test]
fn five_percent_loss_is_repaired_but_for_less_than_one_in_a_hundred() {
    let (mut bench, mut peer, mut session, _) = connected();
    let (mut random, mut rtx_seq, mut lost) = (7u32, 0u16, 0);
    let mut chance = || {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        random >> 16 & 0xff
    };
    let mut arrived = std::collections::HashSet::new();
    for seq in 0..2_500u16 {
        let sealed = peer.seal_rtp(&packet(
            VIDEO_PT,
            seq,
            u32::from(seq) * 450,
            7,
            true,
            VP8_DELTA,
        ));
        if chance() < 13 {
            lost += 1;
        } else {
            bench.feed(&mut session, peer.addr, &sealed);
        }
        bench.run(ms(10), &mut session, &mut peer, |_, _| false);
        // Repairs are lost as often.
        for seq in nacks(&mut peer) {
            let payload = [&seq.to_be_bytes()[..], VP8_DELTA].concat();
            rtx_seq += 1;
            let timestamp = u32::from(seq) * 450;
            let sealed = peer.seal_rtp(&packet(
                VIDEO_RTX_PT,
                rtx_seq,
                timestamp,
                70,
                true,
                &payload,
            ));
            if chance() >= 13 {
                bench.feed(&mut session, peer.addr, &sealed);
            }
        }
        arrived.extend(session.take_batch().packets().iter().map(|p| p.seq));
    }
    assert!(lost > 100, "{lost}");
    let missing = 2_500 - arrived.len();
    assert!(missing * 100 <= lost, "{missing} of {lost} not repaired");
}
