//! Simulcast layers of a device: told apart, reported on, repaired and asked one by one.

use super::*;
use crate::testing::camera::{BEST, Camera, RID_EXTENSION, RIDS, name, repair};

struct Scene {
    bench: Bench,
    peer: Peer,
    session: Publisher,
    camera: Camera,
    cells: Arc<SessionCells>,
}

impl Scene {
    fn new() -> Scene {
        Scene::of(false)
    }

    /// With a device that takes REMB, or does not.
    fn of(remb: bool) -> Scene {
        let mut bench = Bench::new();
        let mut peer = Peer::new(1, &[GCM, SHA1], ms(100));
        let (mut config, cells) = bench.config(1, Role::Publisher, &peer);
        config.negotiated.remb = remb;
        Camera::agree(&mut config.negotiated.tracks[1]);
        let mut session = Publisher::new(bench.now, config);
        bench.connect(&mut session, &mut peer);
        Scene {
            bench,
            peer,
            session,
            camera: Camera::new(),
            cells,
        }
    }

    fn send(&mut self, packet: &[u8]) {
        send(&mut self.bench, &mut self.session, &mut self.peer, packet);
    }

    /// A frame of each of these layers, and a thirtieth of a second.
    fn frame(&mut self, layers: &[usize], key: bool) {
        for at in layers {
            for packet in self.camera.frame(*at, key, 0, true) {
                self.send(&packet);
            }
        }
        self.camera.next_frame();
        self.pass(Duration::from_nanos(33_333_333));
    }

    fn pass(&mut self, time: Duration) {
        let end = self.bench.now + time;
        self.bench
            .run(time, &mut self.session, &mut self.peer, |_, _| false);
        self.bench.now = end;
    }

    /// Layers and sources of what came since the last call.
    fn taken(&mut self) -> Vec<(u8, u64)> {
        let mut taken = Vec::new();
        while self.session.has_batch() {
            let batch = self.session.take_batch();
            let packets = batch.packets().iter();
            taken.extend(packets.map(|packet| (packet.layer, packet.source)));
        }
        taken
    }

    fn layers(&mut self) -> Arc<Layers> {
        self.session.layers.clone().expect("layers")
    }

    /// What the device is told of its bandwidth.
    fn told(&mut self, wanted: Wanted) -> Vec<u64> {
        let (now, out) = (self.bench.now, &mut self.bench.out);
        self.session.limit_bandwidth(now, wanted, 1_000_000, out);
        self.pass(ms(200));
        let reports = self.peer.take_reports().into_iter();
        let told = reports.filter_map(|item| match item {
            Item::Bandwidth { bits_per_second } => Some(bits_per_second),
            _ => None,
        });
        told.collect()
    }

    fn asked(&mut self) -> Vec<u32> {
        let reports = self.peer.take_reports().into_iter();
        reports
            .filter_map(|item| match item {
                Item::KeyframeRequest { ssrc } => Some(ssrc),
                _ => None,
            })
            .collect()
    }
}

#[test]
fn layers_are_told_apart_by_their_rid_and_then_by_their_ssrc() {
    let mut scene = Scene::new();
    scene.frame(&[0, 1, 2], true);
    scene.camera.layers.iter_mut().for_each(|l| l.named = false);
    scene.frame(&[2, 0, 1], false);
    let taken = scene.taken();
    assert_eq!(taken.len(), 18);
    for layer in 0..3 {
        let mut sources: Vec<u64> = taken
            .iter()
            .filter(|(own, _)| *own == layer)
            .map(|(_, source)| *source)
            .collect();
        assert_eq!(sources.len(), 6, "layer {layer} of {taken:?}");
        sources.dedup();
        assert_eq!(sources.len(), 1, "layer {layer} is one stream");
    }
    assert_eq!(scene.bench.shard.drops(Drop::UnknownLayer), 0);
}

#[test]
fn what_names_no_layer_or_another_one_is_dropped_and_counted() {
    let mut scene = Scene::new();
    let mut stranger = packet(VIDEO_PT, 1, 1, 99, true, VP8_KEY);
    scene.send(&stranger);
    stranger[3] = 2;
    name(&mut stranger, RID_EXTENSION, "x");
    scene.send(&stranger);
    assert_eq!(scene.taken(), []);
    assert_eq!(scene.bench.shard.drops(Drop::UnknownStream), 1);
    assert_eq!(scene.bench.shard.drops(Drop::UnknownLayer), 1);
}

#[test]
fn a_batch_holds_one_layer_and_says_which_there_are() {
    let mut scene = Scene::new();
    scene.frame(&[0, 1, 2], true);
    while scene.session.has_batch() {
        let batch = scene.session.take_batch();
        let first = batch.packets()[0].layer;
        assert!(batch.packets().iter().all(|packet| packet.layer == first));
        let layers = batch.layers().expect("simulcast");
        let rids: Vec<&str> = layers.all.iter().map(|layer| &*layer.rid).collect();
        assert_eq!(rids, RIDS);
        assert_eq!(layers.best(), Some(BEST as u8));
        assert_eq!(
            (layers.all[BEST].width, layers.all[BEST].height),
            (1280, 720)
        );
    }
}

#[test]
fn each_layer_is_asked_for_a_keyframe_by_itself_and_not_too_often() {
    let mut scene = Scene::new();
    scene.frame(&[0, 1, 2], true);
    let start = scene.bench.now;
    let (mut q, mut h) = (0, 0);
    for _ in 0..100 {
        for layer in [0, 0, 2, 7] {
            let (now, out) = (scene.bench.now, &mut scene.bench.out);
            let cause = KeyframeCause::Start;
            scene.session.request_keyframe(now, layer, cause, out);
        }
        for (_, datagram) in scene.bench.sent() {
            scene.peer.receive(scene.bench.now, &datagram);
        }
        scene.pass(ms(20));
        for ssrc in scene.asked() {
            match ssrc {
                70 => q += 1,
                72 => h += 1,
                other => panic!("nobody wants a keyframe of {other}"),
            }
        }
    }
    assert_eq!(scene.bench.now - start, ms(2_000));
    assert!((4..=5).contains(&q) && q == h, "{q} and {h} in two seconds");
    // One of the layers gives it: the other is still asked.
    scene.frame(&[0], true);
    scene.pass(ms(1_000));
    let asked = scene.asked();
    assert!(
        !asked.is_empty() && asked.iter().all(|ssrc| *ssrc == 72),
        "{asked:?}"
    );
}

#[test]
fn a_lost_packet_is_asked_of_its_layer_and_its_repair_is_known_by_the_repaired_rid() {
    let mut scene = Scene::new();
    scene.frame(&[0, 1, 2], true);
    scene.camera.layers.iter_mut().for_each(|l| l.named = false);
    let sent = scene.camera.frame(2, false, 0, true);
    scene.send(&sent[0]);
    scene.send(&sent[2]);
    scene.taken();
    scene.pass(ms(100));
    let lost = u16::from_be_bytes([sent[1][2], sent[1][3]]);
    let mut nacked: Vec<_> = scene
        .peer
        .take_reports()
        .into_iter()
        .filter(|item| matches!(item, Item::Lost { .. }))
        .collect();
    nacked.dedup();
    assert_eq!(
        nacked,
        [Item::Lost {
            ssrc: 72,
            seq: lost
        }]
    );
    // Of an unnamed repair nobody can say what it repairs.
    scene.send(&repair(&sent[1], 500, 1, None));
    assert_eq!(scene.taken(), []);
    scene.send(&repair(&sent[1], 500, 2, Some("h")));
    assert_eq!(scene.taken().len(), 1);
    assert_eq!(scene.bench.shard.retransmitted_in(), 1);
}

#[test]
fn every_layer_is_reported_on() {
    let mut scene = Scene::new();
    (0..40).for_each(|n| scene.frame(&[0, 1, 2], n == 0));
    let reports = scene.peer.take_reports().into_iter();
    let mut ssrcs: Vec<u32> = reports
        .filter_map(|item| match item {
            Item::Report(block) => Some(block.ssrc),
            _ => None,
        })
        .collect();
    ssrcs.sort_unstable();
    ssrcs.dedup();
    assert_eq!(ssrcs, [70, 71, 72]);
}

#[test]
fn the_frame_rate_is_the_cameras_and_the_bitrate_that_of_all_layers() {
    let mut scene = Scene::new();
    (0..75).for_each(|n| scene.frame(&[0, 1, 2], n == 0));
    let rate = scene.cells.frame_rate().expect("known");
    assert!((rate - 30.0).abs() <= 1.0, "{rate}");
    let bits = scene.cells.bitrate_bps().expect("known");
    let of_layers: u64 = (0..3).map(|at| scene.cells.layer(at).2).sum();
    assert!(
        bits > 1.0 && (of_layers as f64 - bits).abs() < 4_000.0,
        "{of_layers} {bits}"
    );
    let (width, height, _) = scene.cells.layer(BEST);
    assert_eq!((width, height), (1280, 720));
}

#[test]
fn a_layer_that_the_device_stops_is_dead_within_a_second_and_alive_with_its_next_packet() {
    let mut scene = Scene::new();
    (0..30).for_each(|n| scene.frame(&[0, 1, 2], n == 0));
    assert_eq!(scene.layers().best(), Some(BEST as u8));
    (0..33).for_each(|_| scene.frame(&[0, 2], false));
    let layers = scene.layers();
    assert_eq!(
        (layers.best(), layers.is_live(BEST as u8)),
        (Some(2), false)
    );
    scene.frame(&[0, 1, 2], false);
    assert_eq!(scene.layers().best(), Some(BEST as u8));
    scene.pass(ms(1_000));
    (0..40).for_each(|_| scene.frame(&[0, 2], false));
    assert_eq!(scene.cells.layer(BEST).2, 0, "no bitrate");
}

#[test]
fn a_picture_that_stands_still_stops_no_layer() {
    let mut scene = Scene::new();
    scene.frame(&[0, 1, 2], true);
    scene.pass(ms(10_000));
    for at in [0, 2, 1] {
        let sent = scene.camera.frame(at, false, 0, true);
        scene.send(&sent[0]);
        let live = scene.layers().all.iter().filter(|layer| layer.live).count();
        assert_eq!(live, 3, "after layer {at}");
    }
}

#[test]
fn a_layer_that_stopped_is_asked_for_no_keyframe_until_it_comes_again() {
    let mut scene = Scene::new();
    scene.frame(&[0, 1, 2], true);
    let layer = u8::try_from(BEST).expect("three layers");
    scene.session.request_keyframe(
        scene.bench.now,
        layer,
        KeyframeCause::Layer,
        &mut scene.bench.out,
    );
    assert_eq!(scene.asked().len(), 0, "what was sent is still on its way");
    let others: Vec<usize> = (0..3).filter(|at| *at != BEST).collect();
    for _ in 0..90 {
        scene.frame(&others, false);
    }
    let while_stopping = scene.asked().len();
    assert!((1..=3).contains(&while_stopping), "{while_stopping}");
    scene.session.request_keyframe(
        scene.bench.now,
        layer,
        KeyframeCause::Layer,
        &mut scene.bench.out,
    );
    for _ in 0..60 {
        scene.frame(&others, false);
    }
    assert_eq!(scene.asked().len(), 0);
    scene.frame(&[0, 1, 2], false);
    scene.session.request_keyframe(
        scene.bench.now,
        layer,
        KeyframeCause::Layer,
        &mut scene.bench.out,
    );
    scene.pass(ms(50));
    assert_eq!(scene.asked().len(), 1);
}

#[test]
fn a_device_with_layers_is_asked_for_less_of_them_all_only_while_nobody_watches() {
    let mut scene = Scene::of(true);
    scene.frame(&[0, 1, 2], true);
    assert_eq!(scene.told(Wanted::AtMost(400_000)), [0; 0]);
    let near = |told: Vec<u64>, bits: u64| {
        // REMB has 18 bits of mantissa.
        assert!(
            told.len() == 1 && told[0].abs_diff(bits) * 1_000 < bits,
            "{told:?}"
        );
    };
    near(scene.told(Wanted::Idle(150_000)), 150_000);
    near(scene.told(Wanted::Any), 3_000_000);
}

#[test]
fn a_device_that_takes_no_remb_is_left_alone_while_nobody_watches() {
    let mut scene = Scene::of(false);
    scene.frame(&[0, 1, 2], true);
    assert_eq!(scene.told(Wanted::Idle(150_000)), [0; 0]);
}
