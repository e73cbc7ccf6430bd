//! Viewers that get fewer temporal layers: what they get can be decoded and has no gap.

use super::simulcast::{Scene, assert_unbroken, read};
use crate::cells::{Drop, Forgotten};
use crate::testing::camera::PARTS;

/// Temporal ids of a stream of three layers, and whether a picture builds on the base alone.
const PATTERN: [(u8, bool); 4] = [(0, false), (2, true), (1, true), (2, false)];

impl Scene {
    /// A frame of the lowest layer, the `n`th of the pattern.
    fn patterned(&mut self, n: usize) {
        let (temporal, sync) = PATTERN[n % 4];
        for packet in self.camera.frame(0, n == 0, temporal, sync) {
            self.send(&packet);
        }
        self.tick();
    }
}

#[test]
fn a_limit_takes_effect_with_the_next_picture_and_leaves_no_gap() {
    for (limit, kept) in [(0, 1), (1, 2), (2, 4)] {
        let mut scene = Scene::new();
        (0..4).for_each(|n| scene.patterned(n));
        scene.viewer.set_max_temporal_layer(Some(limit));
        (4..44).for_each(|n| scene.patterned(n));
        let got = scene.got();
        assert_unbroken(&got);
        assert_eq!(got.len(), (4 + 10 * kept) * PARTS);
        assert!(got[4 * PARTS..].iter().all(|got| got.temporal <= limit));
    }
}

#[test]
fn more_comes_only_where_it_can_be_decoded() {
    let mut scene = Scene::new();
    scene.viewer.set_max_temporal_layer(Some(0));
    (0..8).for_each(|n| scene.patterned(n));
    scene.got();
    scene.viewer.set_max_temporal_layer(None);
    (8..16).for_each(|n| scene.patterned(n));
    let got = scene.got();
    assert_unbroken(&got);
    let ids: Vec<u8> = got
        .iter()
        .filter(|got| got.part == 0)
        .map(|got| got.temporal)
        .collect();
    // One of id 2 may need one of id 1 until one says that it does not.
    assert_eq!(ids, [0, 1, 0, 2, 1, 2]);
}

#[test]
fn what_is_asked_for_again_is_what_was_sent_under_that_number() {
    let mut scene = Scene::new();
    scene.viewer.set_max_temporal_layer(Some(1));
    (0..40).for_each(|n| scene.patterned(n));
    let got = scene.got();
    for asked in got.iter().rev().take(30).step_by(4) {
        let (rings, out) = (&scene.rings, &mut scene.bench.out);
        scene
            .viewer
            .retransmit(scene.bench.now, &[asked.seq], rings, out);
        scene.deliver();
        let again = read(&scene.watcher.rtp.pop().expect("a packet"), 2);
        let fields = |got: &super::simulcast::Got| (got.picture, got.part, got.timestamp);
        assert_eq!(fields(&again), fields(asked));
    }
}

#[test]
fn what_is_too_old_to_be_known_by_its_number_is_counted() {
    let mut scene = Scene::new();
    scene.viewer.set_max_temporal_layer(Some(0));
    // A number is closed up behind each of 65 pictures that are kept.
    (0..4 * 65).for_each(|n| scene.patterned(n));
    let got = scene.got();
    let ask = |scene: &mut Scene, seq| {
        let (rings, out) = (&scene.rings, &mut scene.bench.out);
        scene.viewer.retransmit(scene.bench.now, &[seq], rings, out);
        scene.bench.shard.forgotten(Forgotten::Segment)
    };
    assert_eq!(ask(&mut scene, got[4 * PARTS].seq), 0, "it is remembered");
    assert_eq!(
        ask(&mut scene, got[0].seq.wrapping_sub(1)),
        0,
        "it never was"
    );
    assert_eq!(ask(&mut scene, got[0].seq), 1);
    assert_eq!(scene.bench.shard.drops(Drop::NotHeld), 2);
}

#[test]
fn a_late_packet_of_a_kept_picture_fills_its_place() {
    let mut scene = Scene::new();
    scene.viewer.set_max_temporal_layer(Some(0));
    scene.patterned(0);
    let mut held = Vec::new();
    for n in 1..9 {
        let (temporal, sync) = PATTERN[n % 4];
        let mut packets = scene.camera.frame(0, false, temporal, sync);
        if n == 4 {
            held.push(packets.remove(1));
        }
        packets.iter().for_each(|packet| scene.send(packet));
        scene.tick();
    }
    held.iter().for_each(|packet| scene.send(packet));
    let mut got = scene.got();
    assert_eq!(got.len(), 3 * PARTS);
    let first = got[0].seq;
    got.sort_by_key(|packet| packet.seq.wrapping_sub(first));
    assert_unbroken(&got);
}
