//! Viewers of a device with simulcast layers: which one they get, and that their stream never breaks.

use super::*;
use crate::ring::WATCHED_BYTES;
use crate::testing::camera::{BEST, Camera, PARTS, RIDS};

pub(super) struct Scene {
    pub(super) bench: Bench,
    device: Peer,
    publisher: Publisher,
    pub(super) watcher: Peer,
    pub(super) viewer: Viewer,
    pub(super) rings: [Ring; 3],
    pub(super) camera: Camera,
    layers: Option<Arc<Layers>>,
    /// Layers that a keyframe was wanted of, in order.
    wanted: Vec<u8>,
}

/// A packet as the viewer got it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Got {
    pub(super) seq: u16,
    pub(super) timestamp: u32,
    pub(super) picture: u16,
    pub(super) base: u8,
    pub(super) temporal: u8,
    pub(super) layer: u8,
    pub(super) part: u8,
}

impl Scene {
    pub(super) fn new() -> Scene {
        let mut bench = Bench::new();
        let mut device = Peer::new(1, &[GCM], ms(100));
        let (mut config, _) = bench.config(1, Role::Publisher, &device);
        Camera::agree(&mut config.negotiated.tracks[1]);
        let mut publisher = Publisher::new(bench.now, config);
        bench.connect(&mut publisher, &mut device);
        let mut watcher = Peer::new(VIEWER_SEED, &[GCM], ms(100));
        let (config, _) = bench.config(VIEWER_SEED, Role::Viewer, &watcher);
        let mut viewer = Viewer::new(bench.now, config);
        bench.connect(&mut viewer, &mut watcher);
        viewer.set_publisher_live(bench.now, true);
        let mut rings: [Ring; 3] = Default::default();
        for ring in &mut rings {
            ring.limit(WATCHED_BYTES);
        }
        Scene {
            bench,
            device,
            publisher,
            watcher,
            viewer,
            rings,
            camera: Camera::new(),
            layers: None,
            wanted: Vec::new(),
        }
    }

    /// A packet of the device goes all the way.
    pub(super) fn send(&mut self, packet: &[u8]) {
        let sealed = self.device.seal_rtp(packet);
        self.bench
            .feed(&mut self.publisher, self.device.addr, &sealed);
        while self.publisher.has_batch() {
            let batch = Arc::new(self.publisher.take_batch());
            if self.layers.as_ref() != batch.layers() {
                self.layers = batch.layers().cloned();
                self.viewer.set_layers(batch.layers());
            }
            self.rings[usize::from(batch.packets()[0].layer)].push(&batch);
            let (now, out) = (self.bench.now, &mut self.bench.out);
            if self.viewer.forward(now, &batch, &self.rings, out) {
                self.wanted.push(self.viewer.target_layer());
            }
        }
        self.deliver();
    }

    pub(super) fn deliver(&mut self) {
        for (to, datagram) in self.bench.sent() {
            if to == self.watcher.addr {
                self.watcher.receive(self.bench.now, &datagram);
            }
        }
    }

    pub(super) fn tick(&mut self) {
        self.camera.next_frame();
        self.bench.now += Duration::from_nanos(33_333_333);
    }

    /// A frame of each of these layers; those of `keys` are keyframes.
    fn frame(&mut self, layers: &[usize], keys: &[usize]) {
        for at in layers {
            for packet in self.camera.frame(*at, keys.contains(at), 0, true) {
                self.send(&packet);
            }
        }
        self.tick();
    }

    fn pin(&mut self, rid: &str) {
        self.viewer.pin_layer(Some(rid.into()), None);
    }

    pub(super) fn got(&mut self) -> Vec<Got> {
        let packets: Vec<_> = self.watcher.rtp.drain(..).collect();
        packets.iter().map(|packet| read(packet, 0)).collect()
    }

    /// Layers of what came since the last call, each once.
    fn seen(&mut self) -> Vec<u8> {
        let mut layers: Vec<u8> = self.got().iter().map(|got| got.layer).collect();
        layers.dedup();
        layers
    }
}

/// `skip` bytes stand before the payload.
pub(super) fn read(packet: &[u8], skip: usize) -> Got {
    let header = rtp::Header::parse(packet).expect("well-formed");
    let payload = &packet[header.len + skip..];
    Got {
        seq: header.seq,
        timestamp: header.timestamp,
        picture: u16::from_be_bytes([payload[2], payload[3]]) & 0x7fff,
        base: payload[4],
        temporal: payload[5] >> 6,
        layer: payload[payload.len() - 2],
        part: payload[payload.len() - 1],
    }
}

/// What a decoder relies on, from one packet to the next.
pub(super) fn assert_unbroken(got: &[Got]) {
    for pair in got.windows(2) {
        let [before, after] = pair else { continue };
        assert_eq!(after.seq, before.seq.wrapping_add(1), "{pair:?}");
        let ticks = after.timestamp.wrapping_sub(before.timestamp);
        let pictures = after.picture.wrapping_sub(before.picture) & 0x7fff;
        if pictures == 0 {
            assert_eq!((ticks, after.part), (0, before.part + 1), "{pair:?}");
        } else {
            assert_eq!((pictures, after.part), (1, 0), "{pair:?}");
            assert!((1..90_000).contains(&ticks), "{ticks}: {pair:?}");
            let base = after.base.wrapping_sub(before.base);
            assert_eq!(base, u8::from(after.temporal == 0), "{pair:?}");
        }
    }
}

#[test]
fn without_a_wish_a_viewer_gets_the_best_layer() {
    let mut scene = Scene::new();
    scene.frame(&[0, 1, 2], &[0, 1, 2]);
    scene.frame(&[0, 1, 2], &[]);
    // The first that came, then the best as soon as it began.
    assert_eq!(scene.seen(), [0, BEST as u8]);
    assert_eq!(scene.viewer.layer(), BEST as u8);
}

#[test]
fn a_pinned_viewer_changes_at_a_keyframe_of_its_layer_and_not_before() {
    let mut scene = Scene::new();
    scene.frame(&[0, 1, 2], &[0, 1, 2]);
    scene.seen();
    scene.pin("h");
    assert!(scene.viewer.wants_keyframe());
    assert_eq!(scene.viewer.target_layer(), 2);
    (0..3).for_each(|_| scene.frame(&[0, 1, 2], &[0, 1]));
    assert_eq!(scene.seen(), [BEST as u8], "nothing of it began");
    scene.frame(&[0, 1, 2], &[2]);
    (0..3).for_each(|_| scene.frame(&[0, 1, 2], &[0, 1]));
    assert_eq!(scene.seen(), [BEST as u8, 2]);
    assert!(!scene.viewer.wants_keyframe());
    scene.viewer.pin_layer(None, None);
    scene.frame(&[0, 1, 2], &[1]);
    assert_eq!(scene.seen().last(), Some(&(BEST as u8)));
}

#[test]
fn the_advice_of_congestion_control_holds_until_the_viewer_asks_for_a_layer_itself() {
    let mut scene = Scene::new();
    scene.frame(&[0, 1, 2], &[0, 1, 2]);
    scene.viewer.set_target_layer(Some(0));
    assert_eq!(scene.viewer.target_layer(), 0);
    scene.pin("h");
    assert_eq!(scene.viewer.target_layer(), 2);
    scene.viewer.pin_layer(None, None);
    assert_eq!(scene.viewer.target_layer(), 0);
    scene.viewer.set_target_layer(None);
    assert_eq!(scene.viewer.target_layer(), BEST as u8);
    let layers = scene.viewer.layers().expect("simulcast");
    assert_eq!(layers.all.len(), RIDS.len());
}

#[test]
fn when_the_device_stops_a_layer_its_viewers_go_to_another_and_come_back() {
    let mut scene = Scene::new();
    scene.frame(&[0, 1, 2], &[0, 1, 2]);
    scene.pin("f");
    (0..40).for_each(|_| scene.frame(&[0, 2], &[]));
    assert_eq!(scene.viewer.target_layer(), 2, "the best that is left");
    scene.frame(&[0, 2], &[2]);
    scene.frame(&[0, 2], &[]);
    assert_eq!(scene.seen().last(), Some(&2));
    scene.frame(&[0, 1, 2], &[1]);
    assert_eq!(scene.seen().last(), Some(&1), "what was asked for");
}

#[test]
fn a_viewer_that_joins_starts_from_the_ring_of_its_layer() {
    let mut scene = Scene::new();
    scene.frame(&[0, 1, 2], &[0, 1, 2]);
    (0..5).for_each(|_| scene.frame(&[0, 1, 2], &[]));
    let mut watcher = Peer::new(VIEWER_SEED, &[GCM], ms(100));
    let (config, _) = scene.bench.config(VIEWER_SEED, Role::Viewer, &watcher);
    let mut viewer = Viewer::new(scene.bench.now, config);
    scene.bench.connect(&mut viewer, &mut watcher);
    viewer.set_publisher_live(scene.bench.now, true);
    viewer.pin_layer(Some("q".into()), None);
    viewer.set_layers(scene.layers.as_ref());
    (scene.viewer, scene.watcher) = (viewer, watcher);
    let (now, out) = (scene.bench.now, &mut scene.bench.out);
    assert!(!scene.viewer.join(now, &scene.rings, out), "none is wanted");
    scene.deliver();
    let got = scene.got();
    assert_eq!(got.len(), 6 * PARTS);
    assert!(got.iter().all(|got| got.layer == 0));
    assert_unbroken(&got);
}

#[test]
fn a_packet_lost_before_a_switch_comes_again_from_the_layer_that_it_was_of() {
    let mut scene = Scene::new();
    scene.frame(&[0, 1, 2], &[0, 1, 2]);
    scene.pin("q");
    scene.frame(&[0, 1, 2], &[]);
    scene.frame(&[0, 1, 2], &[0]);
    let got = scene.got();
    assert_unbroken(&got);
    for asked in got.iter().filter(|got| got.part == 1) {
        let (rings, out) = (&scene.rings, &mut scene.bench.out);
        scene
            .viewer
            .retransmit(scene.bench.now, &[asked.seq], rings, out);
        scene.deliver();
        let again: Vec<_> = scene.watcher.rtp.drain(..).collect();
        let [again] = &again[..] else {
            panic!("{} packets for {asked:?}", again.len());
        };
        let again = read(again, 2);
        assert_eq!(
            Got {
                seq: asked.seq,
                ..again
            },
            *asked
        );
    }
}

#[test]
fn over_any_switches_the_viewers_stream_has_no_gap_and_goes_forward() {
    for seed in 1..=20u64 {
        let mut scene = Scene::new();
        let mut state = seed;
        let mut random = move |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let (mut got, mut switches) = (Vec::new(), 0);
        for n in 0..300 {
            if random(4) == 0 {
                let rid = RIDS.get(random(4) as usize).map(|rid| (*rid).into());
                scene.viewer.pin_layer(rid, None);
            }
            let mut frames: Vec<_> = (0..3)
                .map(|at| scene.camera.frame(at, n == 0 || random(5) == 0, 0, true))
                .map(std::collections::VecDeque::from)
                .collect();
            // Packets of the layers come in any order among each other.
            while frames.iter().any(|frame| !frame.is_empty()) {
                let at = random(3) as usize;
                if let Some(packet) = frames[at].pop_front() {
                    scene.send(&packet);
                }
            }
            scene.tick();
            got.extend(scene.got());
        }
        assert_unbroken(&got);
        switches += got.windows(2).filter(|w| w[0].layer != w[1].layer).count();
        assert!(switches > 10, "seed {seed}: {switches} switches");
        // Time passes for the viewer as it does for the device.
        let frames = got.iter().filter(|got| got.part == 0).count() as u32;
        let passed = got[got.len() - 1].timestamp.wrapping_sub(got[0].timestamp);
        let due = 3_000 * 299;
        assert!(frames >= 300, "seed {seed}: {frames}");
        assert!(
            passed.abs_diff(due) < 2 * switches as u32,
            "seed {seed}: {passed} ticks, not {due}"
        );
    }
}
