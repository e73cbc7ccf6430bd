//! A viewer over TCP whose connection takes no more for a while.

use super::*;

/// Payload types of the packets that arrived since the last call, with their sequence numbers.
fn arrived(stage: &mut Stage) -> Vec<(u8, u16)> {
    let packets = stage.watcher.rtp.drain(..);
    packets
        .map(|p| rtp::Header::parse(&p).expect("well-formed"))
        .map(|h| (h.payload_type, h.seq))
        .collect()
}

#[test]
fn its_video_is_withheld_up_to_a_keyframe_without_a_gap_and_its_sound_is_not() {
    let mut stage = Stage::new(GCM);
    stage.send(&packet(VIDEO_PT, 1, 3_000, 7, true, VP8_KEY));
    let (_, first) = arrived(&mut stage)[0];
    stage.viewer.set_congested(true);
    stage.send(&packet(VIDEO_PT, 2, 6_000, 7, true, VP8_DELTA));
    stage.send(&packet(VIDEO_PT, 3, 9_000, 7, true, VP8_KEY));
    assert_eq!(arrived(&mut stage), [], "not even a keyframe");
    assert_eq!(stage.bench.shard.drops(Drop::TcpFull), 2);
    stage.send(&packet(AUDIO_PT, 1, 960, 8, true, b"sound"));
    assert_eq!(arrived(&mut stage).len(), 1, "sound goes on");
    assert!(!stage.viewer.wants_keyframe(), "it could not take one");

    stage.viewer.set_congested(false);
    assert!(stage.viewer.wants_keyframe());
    stage.send(&packet(VIDEO_PT, 4, 12_000, 7, true, VP8_DELTA));
    assert_eq!(arrived(&mut stage), [], "it builds on what was withheld");
    stage.send(&packet(VIDEO_PT, 5, 15_000, 7, true, VP8_KEY));
    stage.send(&packet(VIDEO_PT, 6, 18_000, 7, true, VP8_DELTA));
    let seqs: Vec<u16> = arrived(&mut stage)
        .into_iter()
        .map(|(_, seq)| seq)
        .collect();
    assert_eq!(
        seqs,
        [first.wrapping_add(1), first.wrapping_add(2)],
        "nothing seems lost, so nothing is asked for again"
    );
}
