//! Viewers that join from the ring, and what of it they get when.

use super::*;
use crate::ring::WATCHED_BYTES;
use crate::viewer::pacer::{BURST_BYTES, CATCH_UP_FACTOR, CATCH_UP_RATE, OVERHEAD};

const DELTA: &[u8] = &[0x10, 0x01];
const KEY: &[u8] = &[0x10, 0x00];

impl Stage {
    /// A device that has sent a keyframe and `deltas` frames of 33 ms, of `packets` packets of
    /// `bytes` each; the viewer has seen nothing of it.
    fn playing(deltas: u32, packets: u16, bytes: usize) -> (Self, Camera) {
        let mut stage = Stage::new(GCM);
        stage.ring.limit(WATCHED_BYTES);
        let mut camera = Camera {
            seq: 1,
            timestamp: 500,
            packets,
            bytes,
        };
        for frame in 0..=deltas {
            camera.frame(&mut stage, frame == 0);
        }
        (stage, camera)
    }

    fn keep(&mut self) -> Arc<MediaBatch> {
        let batch = Arc::new(self.publisher.take_batch());
        self.ring.push(&batch);
        batch
    }

    fn join(&mut self) -> bool {
        let (now, out) = (self.bench.now, &mut self.bench.out);
        let wanted = self.viewer.join(now, slice::from_ref(&self.ring), out);
        self.deliver();
        wanted
    }

    /// The viewer asks for a keyframe.
    fn begin_again(&mut self) -> bool {
        let (now, out) = (self.bench.now, &mut self.bench.out);
        let rings = slice::from_ref(&self.ring);
        let begins = self.viewer.begin_again(now, rings, out);
        self.deliver();
        begins
    }

    /// The path of the viewer has moved.
    fn go_on(&mut self) -> bool {
        let (now, out) = (self.bench.now, &mut self.bench.out);
        let rings = slice::from_ref(&self.ring);
        let goes_on = self.viewer.go_on(now, rings, out);
        self.deliver();
        goes_on
    }

    fn catch_up(&mut self) {
        self.bench.now += SLOT;
        let (now, out) = (self.bench.now, &mut self.bench.out);
        self.viewer.catch_up(now, slice::from_ref(&self.ring), out);
        self.deliver();
    }
}

struct Camera {
    seq: u16,
    timestamp: u32,
    packets: u16,
    bytes: usize,
}

impl Camera {
    /// A frame into the ring alone.
    fn frame(&mut self, stage: &mut Stage, key: bool) -> Arc<MediaBatch> {
        for at in 0..self.packets {
            let start = if key && at == 0 { KEY } else { DELTA };
            let payload = [start, &vec![at as u8; self.bytes - 2]].concat();
            let marker = at + 1 == self.packets;
            let plain = packet(VIDEO_PT, self.seq, self.timestamp, 7, marker, &payload);
            let sealed = stage.device.seal_rtp(&plain);
            stage
                .bench
                .feed(&mut stage.publisher, stage.device.addr, &sealed);
            self.seq += 1;
        }
        self.timestamp = self.timestamp.wrapping_add(3_000);
        stage.bench.now += ms(33);
        stage.keep()
    }

    /// A frame that the viewer is offered too.
    fn live(&mut self, stage: &mut Stage) {
        self.live_frame(stage, false);
    }

    /// The same, or a keyframe; returns whether the viewer now waits for one.
    fn live_frame(&mut self, stage: &mut Stage, key: bool) -> bool {
        let batch = self.frame(stage, key);
        let (now, out) = (stage.bench.now, &mut stage.bench.out);
        let rings = slice::from_ref(&stage.ring);
        let waits = stage.viewer.forward(now, &batch, rings, out);
        stage.deliver();
        waits
    }
}

#[test]
fn a_viewer_that_joins_gets_the_cached_keyframe_and_all_after_it_without_asking_the_device() {
    let (mut stage, mut camera) = Stage::playing(10, 3, 500);
    assert!(!stage.join(), "no keyframe is wanted");
    assert!(stage.viewer.is_behind() || stage.watcher.rtp.len() == 33);
    camera.live(&mut stage);
    let video = stage.video();
    assert_eq!(video.len(), 36, "eleven frames of the ring and one live");
    assert!(video.windows(2).all(|w| w[1].0 == w[0].0.wrapping_add(1)));
    assert!(!stage.viewer.is_behind() && !stage.viewer.wants_keyframe());
    assert_eq!(stage.bench.shard.joins(Served::Cache), 1);
    assert_eq!(stage.bench.shard.joins(Served::Keyframe), 0);
}

#[test]
fn a_viewer_that_lost_what_it_began_with_is_sent_it_again_and_the_device_is_not_asked() {
    let (mut stage, mut camera) = Stage::playing(10, 3, 500);
    stage.cells.set_rtt(ms(50));
    assert!(!stage.join());
    let lost = stage.video();
    assert!(stage.begin_again(), "it can't have known yet");
    assert_eq!(stage.video(), []);
    camera.live(&mut stage);
    camera.live(&mut stage);
    stage.video();
    assert!(stage.begin_again());
    let again = stage.video();
    assert_eq!(
        again.len(),
        13 * 3,
        "from the keyframe on, with the live ones"
    );
    assert_eq!(
        again[0].0,
        lost[32].0.wrapping_add(7),
        "under numbers of its own"
    );
    assert!(again.windows(2).all(|w| w[1].0 == w[0].0.wrapping_add(1)));
    assert!(again[0].1.wrapping_sub(lost[32].1).cast_signed() > 0);
    camera.live(&mut stage);
    let live = stage.video();
    assert_eq!(live.len(), 3);
    assert_eq!(live[0].1.wrapping_sub(again[38].1), 3_000);
    assert_eq!(stage.bench.shard.joins(Served::Cache), 1);
    assert_eq!(stage.bench.shard.joins(Served::Again), 1);
}

#[test]
fn a_beginning_is_sent_again_twice_at_most_and_only_while_it_is_one() {
    let (mut stage, mut camera) = Stage::playing(10, 3, 500);
    stage.cells.set_rtt(ms(20));
    assert!(!stage.begin_again(), "it has not begun");
    assert!(!stage.join());
    let asked: Vec<bool> = (0..4)
        .map(|_| {
            camera.live(&mut stage);
            stage.begin_again()
        })
        .collect();
    assert_eq!(asked, [true, true, false, false]);
    let (mut stage, mut camera) = Stage::playing(10, 3, 500);
    assert!(!stage.join());
    (0..61).for_each(|_| camera.live(&mut stage));
    assert!(!stage.begin_again(), "two seconds later");
    let (mut stage, mut camera) = Stage::playing(80, 3, 100);
    stage.cells.set_rtt(ms(20));
    assert!(!stage.join());
    (0..10).for_each(|_| camera.live(&mut stage));
    assert!(!stage.begin_again(), "a new keyframe is cheaper by now");
}

#[test]
fn a_viewer_whose_path_moved_goes_on_with_the_cached_keyframe_at_any_time() {
    let (mut stage, mut camera) = Stage::playing(0, 3, 500);
    assert!(!stage.go_on(), "it has not begun");
    assert!(!stage.join());
    (0..70).for_each(|_| camera.live(&mut stage));
    let before = stage.video();
    assert!(stage.go_on(), "two seconds after it began");
    while stage.viewer.is_behind() {
        stage.catch_up();
    }
    let again = stage.video();
    assert_eq!(again.len(), 71 * 3, "from the keyframe on");
    assert_eq!(again[0].0, before.last().expect("sent").0.wrapping_add(1));
    assert!(again.windows(2).all(|w| w[1].0 == w[0].0.wrapping_add(1)));
    assert_eq!(stage.bench.shard.joins(Served::Again), 1);
    stage.viewer.congested = true;
    assert!(stage.go_on(), "it gets one when there is room");
    assert_eq!(stage.video(), []);
    stage.viewer.congested = false;
    (0..30).for_each(|_| camera.live(&mut stage));
    assert!(!stage.go_on(), "a new keyframe is cheaper by now");
}

#[test]
fn frames_of_the_ring_are_due_at_once_and_live_ones_at_their_own_distance() {
    let (mut stage, mut camera) = Stage::playing(30, 1, 500);
    stage.join();
    (0..3).for_each(|_| camera.live(&mut stage));
    let times: Vec<u32> = stage.video().iter().map(|v| v.1).collect();
    assert_eq!(times.len(), 34);
    let steps: Vec<u32> = times.windows(2).map(|w| w[1].wrapping_sub(w[0])).collect();
    // A second of video within 31 ms, every frame with a timestamp of its own.
    assert!(
        steps[..30].iter().all(|step| (93..=94).contains(step)),
        "{steps:?}"
    );
    assert_eq!(steps[30..], [3_000, 3_000, 3_000]);
}

#[test]
fn a_join_over_a_connection_that_takes_no_more_waits_and_goes_on_where_it_was() {
    let (mut stage, _) = Stage::playing(0, 200, 1_000);
    assert!(!stage.join());
    let burst = stage.watcher.rtp.len();
    stage.viewer.set_congested(true);
    for _ in 0..10 {
        stage.catch_up();
    }
    assert_eq!(stage.watcher.rtp.len(), burst, "nothing meanwhile");
    let timer = stage.viewer.poll_timeout();
    assert!(timer > stage.bench.now, "and no timer runs for it");
    stage.viewer.set_congested(false);
    while stage.viewer.is_behind() {
        stage.catch_up();
    }
    let seqs: Vec<u16> = stage.video().into_iter().map(|(seq, _)| seq).collect();
    assert_eq!(seqs.len(), 200);
    assert!(seqs.windows(2).all(|w| w[1] == w[0].wrapping_add(1)));
    assert_eq!(stage.bench.shard.drops(Drop::TcpFull), 0);
}

#[test]
fn a_late_packet_does_not_end_a_join_that_waits() {
    let (mut stage, _) = Stage::playing(0, 200, 1_000);
    assert!(!stage.join());
    stage.viewer.set_congested(true);
    let (batch, _) = stage.ring.packet(stage.ring.first()).expect("held");
    let (now, rings) = (stage.bench.now, slice::from_ref(&stage.ring));
    let wanted = stage
        .viewer
        .forward(now, batch, rings, &mut stage.bench.out);
    assert!(!wanted);
    assert!(stage.bench.shard.drops(Drop::TcpFull) > 0, "it was late");
    stage.viewer.set_congested(false);
    assert!(!stage.viewer.wants_keyframe());
    while stage.viewer.is_behind() {
        stage.catch_up();
    }
    assert_eq!(stage.video().len(), 200);
}

#[test]
fn a_large_keyframe_is_paced_and_nothing_is_lost_or_overtaken() {
    let (mut stage, mut camera) = Stage::playing(3, 100, 1_000);
    stage.join();
    let burst = stage.watcher.rtp.len();
    assert_eq!(burst, BURST_BYTES / (1_000 + OVERHEAD));
    camera.live(&mut stage);
    let mut slots = 0;
    while stage.viewer.is_behind() {
        let before = stage.watcher.rtp.len();
        stage.catch_up();
        let share = (stage.watcher.rtp.len() - before) * 1_000;
        let rate = CATCH_UP_RATE.max(CATCH_UP_FACTOR * stage.ring.bits_per_second());
        let most = rate as usize / 8 / 200 + 1_000;
        assert!(share <= most, "{share} bytes in 5 ms are more than {most}");
        slots += 1;
        assert!(slots < 1_000);
    }
    let video = stage.video();
    assert_eq!(video.len(), 500);
    assert!(video.windows(2).all(|w| w[1].0 == w[0].0.wrapping_add(1)));
}

#[test]
fn a_ring_without_a_start_makes_the_viewer_wait_for_a_keyframe() {
    let (mut stage, mut camera) = Stage::playing(100, 1, 100);
    assert!(stage.join(), "more than ninety frames");
    camera.live(&mut stage);
    assert_eq!(stage.video(), []);
    camera.live_frame(&mut stage, true);
    camera.live(&mut stage);
    assert_eq!(stage.video().len(), 2);
    assert_eq!(stage.bench.shard.joins(Served::Keyframe), 1);
}

#[test]
fn a_viewer_whose_place_in_the_ring_is_gone_needs_a_keyframe_again() {
    let (mut stage, mut camera) = Stage::playing(3, 100, 1_000);
    stage.join();
    assert!(stage.viewer.is_behind());
    stage.ring.limit(10_000);
    stage.catch_up();
    assert!(!stage.viewer.is_behind());
    assert!(stage.viewer.wants_keyframe());
    stage.video();
    camera.live(&mut stage);
    assert_eq!(stage.video(), []);
}

#[test]
fn a_viewer_whose_place_in_the_ring_is_gone_goes_on_with_a_newer_keyframe_of_the_ring() {
    // Two seconds and a half, of which the first burst is a tenth.
    let (mut stage, mut camera) = Stage::playing(79, 7, 1_000);
    assert!(!stage.join());
    let burst = stage.video();
    assert!(stage.viewer.is_behind());
    let waits = camera.live_frame(&mut stage, true);
    assert!(
        stage.ring.first() > 1 + burst.len() as u64,
        "its place is gone"
    );
    assert!(!waits && !stage.viewer.wants_keyframe());
    camera.live(&mut stage);
    while stage.viewer.is_behind() {
        stage.catch_up();
    }
    let video = stage.video();
    assert_eq!(video.len(), 2 * 7, "the keyframe and the frame after it");
    assert_eq!(video[0].0, burst.last().expect("a burst").0.wrapping_add(1));
    assert!(video.windows(2).all(|w| w[1].0 == w[0].0.wrapping_add(1)));
    let squeezed = burst.last().expect("a burst").1;
    assert!(video[0].1.wrapping_sub(squeezed).cast_signed() > 0, "later");
    assert_eq!(video[13].1.wrapping_sub(video[0].1), 3_000);
    assert_eq!(stage.bench.shard.drops(Drop::Congestion), 0);
}

#[test]
fn a_packet_that_is_repaired_late_reaches_viewers_that_have_gone_past_it() {
    let (mut stage, _) = Stage::playing(3, 2, 100);
    stage.join();
    stage.video();
    // Number 10 comes after 11.
    for seq in [9, 11, 10] {
        stage.send(&packet(VIDEO_PT, seq, 90_000, 7, false, DELTA));
    }
    let seqs: Vec<u16> = stage.video().iter().map(|v| v.0).collect();
    assert_eq!(seqs.len(), 3);
    assert_eq!(seqs[1], seqs[0].wrapping_add(2));
    assert_eq!(seqs[2], seqs[0].wrapping_add(1));
}

#[test]
fn a_viewer_without_the_devices_codec_asks_for_no_keyframe() {
    let (mut stage, _) = Stage::playing(1, 1, 100);
    stage.device = Peer::new(2, &[GCM], ms(100));
    let (mut config, _) = stage.bench.config(2, Role::Publisher, &stage.device);
    config.negotiated.tracks[1].payload_types[0].codec = Codec::Av1 { profile: 0 };
    stage.publisher = Publisher::new(stage.bench.now, config);
    stage.bench.connect(&mut stage.publisher, &mut stage.device);
    stage.send(&packet(VIDEO_PT, 1, 0, 7, true, &[0x18, 1]));
    assert!(!stage.viewer.wants_keyframe());
    assert!(!stage.join());
}
