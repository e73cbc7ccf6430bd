//! Retransmissions to a viewer, and the whole way of a packet that was lost.

use super::*;
use crate::ring::WATCHED_BYTES;
use crate::testing::VIDEO_RTX_PT;

const RTX_SSRC: u32 = VIDEO_SSRC + 1_000;

impl Stage {
    fn repairing() -> Self {
        let mut stage = Stage::new(GCM);
        stage.ring.limit(WATCHED_BYTES);
        stage
    }

    /// The viewer asks for packets again, and gets what its session sends.
    fn ask_again(&mut self, seqs: &[u16]) {
        let mut compound = rtcp::Writer::default();
        compound.nack(1, VIDEO_SSRC, seqs);
        let sealed = self.watcher.seal_rtcp(&compound);
        self.bench
            .feed(&mut self.viewer, self.watcher.addr, &sealed);
        let lost = std::mem::take(&mut self.bench.out.lost);
        self.viewer.retransmit(
            self.bench.now,
            &lost,
            slice::from_ref(&self.ring),
            &mut self.bench.out,
        );
        self.deliver();
    }

    /// Header, original sequence number and payload of what came again since the last call.
    fn again(&mut self) -> Vec<(rtp::Header, u16, Vec<u8>)> {
        let packets = self.watcher.rtp.drain(..).map(|packet| {
            let header = rtp::Header::parse(&packet).expect("well-formed");
            let (seq, payload) = packet[header.len..].split_at(2);
            (
                header,
                u16::from_be_bytes([seq[0], seq[1]]),
                payload.to_vec(),
            )
        });
        packets
            .filter(|(header, ..)| header.ssrc == RTX_SSRC)
            .collect()
    }
}

#[test]
fn a_lost_packet_comes_again_in_the_stream_for_repair_as_it_was() {
    let mut stage = Stage::repairing();
    stage.send(&packet(VIDEO_PT, 1, 500, 7, false, VP8_KEY));
    stage.send(&packet(VIDEO_PT, 2, 3_500, 7, true, &[0x10, 1, 42]));
    stage.send(&packet(VIDEO_PT, 3, 6_500, 7, true, VP8_DELTA));
    let video = stage.video();
    stage.ask_again(&[video[1].0, video[0].0]);
    let again = stage.again();
    assert_eq!(again.len(), 2);
    let (header, seq, payload) = &again[0];
    assert_eq!((header.payload_type, header.ssrc), (VIDEO_RTX_PT, RTX_SSRC));
    assert_eq!(
        (*seq, header.timestamp, header.marker),
        (video[1].0, video[1].1, true)
    );
    assert_eq!(payload, &[0x10, 1, 42]);
    assert_eq!(
        again[1].0.seq,
        header.seq.wrapping_add(1),
        "its own numbers"
    );
    assert_eq!(stage.bench.shard.nacked_in(), 2);
    assert_eq!(stage.bench.shard.retransmitted_out(), 2);
}

#[test]
fn what_never_was_or_is_no_longer_held_does_not_come_again() {
    let mut stage = Stage::repairing();
    stage.send(&packet(VIDEO_PT, 1, 500, 7, true, VP8_KEY));
    let (seq, _) = stage.video()[0];
    stage.ask_again(&[
        seq.wrapping_sub(1),
        seq.wrapping_add(1),
        seq.wrapping_add(40_000),
    ]);
    assert!(stage.again().is_empty());
    assert_eq!(stage.bench.shard.drops(Drop::NotHeld), 3);
    stage.ring = Ring::default();
    stage.ask_again(&[seq]);
    assert!(stage.again().is_empty());
    assert_eq!(stage.bench.shard.drops(Drop::NotHeld), 4);
}

#[test]
fn asking_for_everything_again_and_again_costs_a_fifth_at_most() {
    let mut stage = Stage::repairing();
    let payload = [VP8_DELTA, &[0; 995]].concat();
    stage.send(&packet(VIDEO_PT, 1, 500, 7, true, VP8_KEY));
    let first = stage.video()[0].0;
    for i in 2..1_002u16 {
        stage.send(&packet(
            VIDEO_PT,
            i,
            u32::from(i) * 3_000,
            7,
            true,
            &payload,
        ));
    }
    stage.watcher.rtp.clear();
    for _ in 0..5 {
        for start in (0..1_000).step_by(200) {
            let seqs: Vec<u16> = (start..start + 200)
                .map(|i| first.wrapping_add(i))
                .collect();
            stage.ask_again(&seqs);
        }
    }
    let again: usize = stage
        .again()
        .iter()
        .map(|(_, _, payload)| payload.len())
        .sum();
    assert!(again <= 64 * 1024, "{again} bytes again at once");
    assert!(again > 60 * 1024, "{again}");
    assert_eq!(
        stage.bench.shard.drops(Drop::RetransmissionLimit) + stage.bench.shard.retransmitted_out(),
        5_000
    );
}

#[test]
fn a_packet_of_the_former_publisher_can_be_asked_for_no_more_but_the_new_ones_can() {
    let mut stage = Stage::repairing();
    stage.send(&packet(VIDEO_PT, 1, 500, 7, true, VP8_KEY));
    let old = stage.video()[0].0;
    stage.succeed(2);
    stage.send(&packet(VIDEO_PT, 900, 70_000, 7, true, VP8_KEY));
    let new = stage.video()[0];
    stage.ask_again(&[old, new.0]);
    let again = stage.again();
    assert_eq!(again.len(), 1);
    assert_eq!((again[0].1, again[0].0.timestamp), new);
}

#[test]
fn a_viewer_without_retransmission_gets_none() {
    let mut stage = Stage::repairing();
    stage.viewer.repair = None;
    stage.send(&packet(VIDEO_PT, 1, 500, 7, true, VP8_KEY));
    let (seq, _) = stage.video()[0];
    stage.ask_again(&[seq]);
    assert!(stage.again().is_empty());
}

#[test]
fn a_packet_that_the_publisher_had_to_repair_is_no_frame_of_its_own() {
    let mut stage = Stage::repairing();
    // Frames of two packets; the second of each comes late, behind the first of the next.
    for frame in 0..60u16 {
        let payload = if frame == 0 { VP8_KEY } else { VP8_DELTA };
        let at = u32::from(frame) * 3_000;
        stage.send(&packet(VIDEO_PT, frame * 2, at, 7, false, payload));
        if let Some(before) = frame.checked_sub(1) {
            let at = u32::from(before) * 3_000;
            let late = packet(VIDEO_PT, before * 2 + 1, at, 7, true, VP8_DELTA);
            stage.send(&late);
        }
        let (viewer, watcher) = (&mut stage.viewer, &mut stage.watcher);
        stage.bench.run(ms(40), viewer, watcher, |_, _| false);
    }
    let rate = stage.cells.frame_rate().expect("known");
    assert!((rate - 25.0).abs() <= 1.0, "{rate} frames a second");
}

#[test]
fn a_viewer_whose_connection_is_full_is_sent_nothing_again_and_has_no_keyframe_asked_for() {
    let mut stage = Stage::repairing();
    stage.send(&packet(VIDEO_PT, 1, 3_000, 7, true, VP8_KEY));
    let sent = stage.watcher.rtp.drain(..).next().expect("forwarded");
    let seq = rtp::Header::parse(&sent).expect("well-formed").seq;
    stage.viewer.set_congested(true);
    stage.ask_again(&[seq]);
    assert_eq!(stage.watcher.rtp.len(), 0);
    assert_eq!(stage.bench.shard.drops(Drop::RetransmissionLimit), 1);

    let asks = |stage: &mut Stage| {
        stage.bench.events.clear();
        let mut compound = rtcp::Writer::default();
        compound.picture_loss(1, VIDEO_SSRC);
        let sealed = stage.watcher.seal_rtcp(&compound);
        stage
            .bench
            .feed(&mut stage.viewer, stage.watcher.addr, &sealed);
        let events = &stage.bench.events;
        events.contains(&SessionEvent::KeyframeWanted(KeyframeCause::Lost))
    };
    assert!(!asks(&mut stage), "it could not take one");
    stage.viewer.set_congested(false);
    assert!(asks(&mut stage));
}
