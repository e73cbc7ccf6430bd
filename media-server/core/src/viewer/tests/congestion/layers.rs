//! A viewer behind a narrow way of a device with three simulcast layers, each with two temporal ones: which
//! it gets.

use super::temporal::vp8_head;
use super::*;
use crate::testing::camera::{self, RID_EXTENSION};

/// RID, packets of a frame and bytes of each: 1.2 Mbit/s, 0.4 and 0.2 at 30 frames a second.
const LAYERS: [(&str, u32, usize); 3] = [("f", 5, 1_000), ("h", 2, 830), ("q", 1, 830)];

/// Bits per second of the best layer.
const BEST: f64 = 1_200_000.0;

struct Studio {
    bench: Bench,
    device: Peer,
    publisher: Publisher,
    rings: [Ring; 3],
    layers: Option<Arc<Layers>>,
    watcher: Watcher,
    seqs: [u16; 3],
    frame: u32,
    since_key: [u32; 3],
    key_wanted: [bool; 3],
    steps: u64,
}

impl Studio {
    fn new() -> Self {
        Self::watched(Feedback::EachPacket)
    }

    fn watched(feedback: Feedback) -> Self {
        let mut bench = Bench::new();
        let mut device = Peer::new(1, &[GCM], ms(100));
        let (mut config, _) = bench.config(1, Role::Publisher, &device);
        let track = &mut config.negotiated.tracks[1];
        track.rids = LAYERS.map(|(rid, ..)| rid.into()).into();
        track.extensions.rid = Some(RID_EXTENSION);
        let mut publisher = Publisher::new(bench.now, config);
        bench.connect(&mut publisher, &mut device);
        let watcher = Watcher::new(&mut bench, 9, feedback, false, &Codec::Vp8);
        let mut rings: [Ring; 3] = Default::default();
        for ring in &mut rings {
            ring.limit(crate::ring::WATCHED_BYTES);
        }
        Studio {
            bench,
            device,
            publisher,
            rings,
            layers: None,
            watcher,
            seqs: [1; 3],
            frame: 0,
            since_key: [0; 3],
            key_wanted: [true; 3],
            steps: 0,
        }
    }

    fn film(&mut self) {
        for (at, (rid, of, bytes)) in LAYERS.into_iter().enumerate() {
            let key = std::mem::take(&mut self.key_wanted[at]);
            self.since_key[at] = if key { 0 } else { self.since_key[at] + 1 };
            // Pictures of all layers are counted together, four for each moment.
            let shot = match (key, self.since_key[at] % 2) {
                (true, _) => shot(0, false, [0, 0]),
                (false, 0) => shot(0, false, [8, 0]),
                (false, _) => shot(1, true, [4, 0]),
            };
            for part in 0..of {
                let mut payload = vp8_head(part == 0, self.frame as u16, 0, shot, key);
                let trailer = Trailer {
                    number: 4 * self.frame + at as u32,
                    of: of as u8,
                    shot,
                };
                trailer.append(bytes, &mut payload);
                let (seq, time) = (self.seqs[at], self.frame * 3_000);
                let ssrc = 70 + at as u32;
                let mut plain = packet(VIDEO_PT, seq, time, ssrc, part + 1 == of, &payload);
                camera::name(&mut plain, RID_EXTENSION, rid);
                let sealed = self.device.seal_rtp(&plain);
                self.bench
                    .feed(&mut self.publisher, self.device.addr, &sealed);
                self.bench.events.clear();
                self.seqs[at] = seq.wrapping_add(1);
            }
        }
        self.frame += 1;
    }

    fn forward(&mut self) {
        while self.publisher.has_batch() {
            let batch = Arc::new(self.publisher.take_batch());
            let viewer = &mut self.watcher.viewer;
            if self.layers.as_ref() != batch.layers() {
                self.layers = batch.layers().cloned();
                viewer.set_layers(batch.layers());
            }
            self.rings[usize::from(batch.packets()[0].layer)].push(&batch);
            let (now, out) = (self.bench.now, &mut self.bench.out);
            if viewer.forward(now, &batch, &self.rings, out) {
                self.key_wanted[usize::from(viewer.target_layer())] = true;
            }
            self.settle();
        }
    }

    /// Carries what the viewer's session sent, and does what it wants.
    fn settle(&mut self) {
        let sent = self.bench.sent();
        let events = std::mem::take(&mut self.bench.events);
        for (_, datagram) in sent {
            self.watcher.way.enter(self.bench.now, datagram);
        }
        let (now, out) = (self.bench.now, &mut self.bench.out);
        let viewer = &mut self.watcher.viewer;
        if wants_keyframe(&events) {
            if !viewer.wants_keyframe() {
                self.key_wanted[usize::from(viewer.layer())] = true;
            } else if viewer.join(now, &self.rings, out) {
                self.key_wanted[usize::from(viewer.target_layer())] = true;
            }
        }
    }

    fn hear(&mut self, datagram: &[u8]) {
        let (now, from) = (self.bench.now, self.watcher.peer.addr);
        let (viewer, out) = (&mut self.watcher.viewer, &mut self.bench.out);
        viewer.handle_datagram(now, from.into(), &mut datagram.to_vec(), out);
        self.settle();
    }

    fn run(&mut self, time: Duration) {
        let end = self.bench.now + time;
        while self.bench.now < end {
            let step = self.steps;
            self.steps += 1;
            if step * 30 / 1_000 != (step + 1) * 30 / 1_000 {
                self.film();
            }
            if step.is_multiple_of(2_500) {
                let check = self.device.check(true);
                self.bench
                    .feed(&mut self.publisher, self.device.addr, &check);
                self.bench.events.clear();
                let check = self.watcher.peer.check(true);
                self.hear(&check);
            }
            self.forward();
            let (start, now) = (self.bench.start, self.bench.now);
            if self.publisher.poll_timeout() <= now {
                self.publisher.handle_timeout(now, &mut self.bench.out);
                self.bench.sent();
            }
            self.watcher.receive(start, now);
            if step.is_multiple_of(50) {
                let feedback = self.watcher.feedback();
                if !feedback.is_empty() {
                    let datagram = self.watcher.peer.seal_rtcp(&feedback);
                    self.hear(&datagram);
                }
            }
            let (viewer, out) = (&mut self.watcher.viewer, &mut self.bench.out);
            if viewer.poll_timeout() <= now {
                viewer.handle_timeout(now, out);
                viewer.catch_up(now, &self.rings, out);
            }
            self.settle();
            self.bench.now += STEP;
        }
    }

    /// How long after `since` the last moment was at which the best layer did not go on: each of its
    /// pictures comes since.
    fn best_since(&self, since: Instant) -> Duration {
        let pictures = self.watcher.whole.iter().filter(|(at, _)| *at >= since);
        let (mut expected, mut came) = (None, Duration::ZERO);
        for (at, number) in pictures {
            if number % 4 != 0 || expected.is_some_and(|expected| expected != *number) {
                came = *at - since;
            }
            expected = Some(number + 4);
        }
        came
    }

    /// Narrows or widens the way and gives the viewer time; then it must be on that layer and stay there,
    /// with most of so many pictures a second.
    fn settles_on(&mut self, bits_per_second: f64, time: Duration, layer: u8, pictures: usize) {
        self.watcher.way.bits_per_second = bits_per_second;
        self.run(time);
        let (since, broken) = (self.bench.now, self.watcher.broken);
        for _ in 0..5 {
            self.run(SECOND);
            let viewer = &self.watcher.viewer;
            let estimate = viewer.bottleneck();
            assert_eq!(viewer.layer(), layer, "{bits_per_second}, {estimate:?}");
        }
        let shown = self.watcher.shown(since);
        let most = 5 * pictures;
        assert!(
            (most * 9 / 10..=most + 5).contains(&shown),
            "{shown} frames in 5 s at {bits_per_second}"
        );
        assert_eq!(self.watcher.broken, broken, "{bits_per_second}");
    }
}

#[test]
fn a_viewer_gets_the_layer_that_its_way_has_room_for_and_all_of_its_pictures() {
    let mut studio = Studio::new();
    studio.settles_on(10_000_000.0, 3 * SECOND, 0, 30);
    studio.watcher.way.bits_per_second = 700_000.0;
    for _ in 0..50 {
        studio.run(ms(100));
        let left_out = studio.watcher.viewer.temporal_choice.highest();
        assert_eq!(left_out, None, "there is a lower layer to go to");
    }
    studio.settles_on(700_000.0, Duration::ZERO, 1, 30);
    studio.settles_on(300_000.0, 2 * SECOND, 2, 30);
    studio.settles_on(10_000_000.0, 10 * SECOND, 0, 30);
}

#[test]
fn of_the_least_layer_it_gets_fewer_pictures_where_all_are_too_much() {
    let mut studio = Studio::new();
    studio.run(3 * SECOND);
    studio.settles_on(175_000.0, 20 * SECOND, 2, 15);
    studio.settles_on(10_000_000.0, 10 * SECOND, 0, 30);
}

/// The longest times until a lower layer is gone to, after the way narrows to three tenths of the best, and
/// until each picture of the best comes again, after it widened.
fn slowest(feedback: Feedback) -> (Duration, Duration) {
    let mut slowest = (Duration::ZERO, Duration::ZERO);
    for (held, queue, delay) in NARROWED {
        let mut studio = Studio::watched(feedback);
        let way = &mut studio.watcher.way;
        (way.queue, way.delay) = (queue, ms(delay));
        studio.run(5 * SECOND);
        studio.watcher.way.bits_per_second = 0.3 * BEST;
        let narrowed = studio.bench.now;
        while studio.watcher.viewer.target_layer() == 0 {
            studio.run(STEP);
            assert!(studio.bench.now < narrowed + 10 * SECOND, "all is sent");
        }
        let less = studio.bench.now - narrowed;
        studio.run(ms(held));
        studio.watcher.way.bits_per_second = 10.0 * BEST;
        let widened = studio.bench.now;
        studio.run(4 * ALL_WITHIN);
        let all = studio.best_since(widened);
        println!("{held} ms, {queue} bytes, {delay} ms: less {less:?}, all {all:?}");
        slowest = (slowest.0.max(less), slowest.1.max(all));
    }
    println!(
        "less after {:?} at most, all again after {:?}",
        slowest.0, slowest.1
    );
    slowest
}

#[test]
fn at_three_tenths_of_the_way_a_lower_layer_comes_within_two_seconds_and_the_best_within_ten() {
    let (less, all) = slowest(Feedback::EachPacket);
    assert!(
        less <= LESS_WITHIN && all <= ALL_WITHIN,
        "{less:?}, {all:?}"
    );
}

#[test]
fn without_a_stream_to_send_padding_in_the_best_layer_takes_longer_to_come_back() {
    let (less, all) = slowest(Feedback::EachPacketUnpadded);
    assert!(less <= LESS_WITHIN, "{less:?}");
    assert!(all <= 25 * SECOND, "{all:?}");
}
