//! Seconds of a viewer whose device sends no picture: because there is none to send, or because nothing of
//! it arrives.

use super::*;

/// A viewer of a device that checks and reports as browsers do, each with its own clock of RTP.
struct Scene {
    stage: Stage,
    seq: u16,
    timestamp: u32,
    seconds: u64,
}

/// What becomes of what the device sends.
#[derive(PartialEq)]
enum Network {
    Works,
    Away,
    /// It all arrives at the end of the second in which this is over.
    Stalls,
}

const STEP: Duration = ms(100);

impl Scene {
    fn new() -> Self {
        let mut stage = Stage::new(GCM);
        stage.viewer.set_pulse(stage.publisher.pulse());
        let mut scene = Scene {
            stage,
            seq: 0,
            timestamp: 0,
            seconds: 0,
        };
        scene.runs(2, 10, &Network::Works);
        assert_eq!(watched(&scene.stage), [2, 0, 0, 0]);
        scene
    }

    /// Some seconds, with so many frames in each; returns the datagrams that wait on their way.
    fn runs(&mut self, seconds: u64, frames: u32, network: &Network) -> Vec<Vec<u8>> {
        let mut waiting = Vec::new();
        for second in 0..seconds {
            let check = self.stage.device.check(true);
            // Every 2.5 s, or nearly.
            if second % 2 == 0 && *network == Network::Works {
                let from = self.stage.device.addr;
                self.stage
                    .bench
                    .feed(&mut self.stage.publisher, from, &check);
            }
            let check = self.stage.watcher.check(true);
            let from = self.stage.watcher.addr;
            self.stage.bench.feed(&mut self.stage.viewer, from, &check);
            for step in 0..10 {
                if step < frames {
                    let sealed = self.frame();
                    match network {
                        Network::Works => self.arrives(&sealed),
                        Network::Away => {}
                        Network::Stalls => waiting.push(sealed),
                    }
                }
                self.timestamp += 9_000;
                self.passes(STEP);
            }
        }
        self.seconds += seconds;
        waiting
    }

    fn frame(&mut self) -> Vec<u8> {
        self.seq += 1;
        let body = if self.seq == 1 { VP8_KEY } else { VP8_DELTA };
        let plain = packet(VIDEO_PT, self.seq, self.timestamp, 7, true, body);
        self.stage.device.seal_rtp(&plain)
    }

    fn arrives(&mut self, sealed: &[u8]) {
        let from = self.stage.device.addr;
        self.stage
            .bench
            .feed(&mut self.stage.publisher, from, sealed);
        self.stage.forward();
    }

    fn passes(&mut self, time: Duration) {
        let stage = &mut self.stage;
        stage
            .bench
            .run(time, &mut stage.viewer, &mut stage.watcher, |_, _| false);
    }

    /// Seconds of gaps and of stillness. The rest were good, but for those that are still undecided.
    fn seen(&mut self) -> (u64, u64) {
        let [good, gap, loss, still] = watched(&self.stage);
        assert_eq!(loss, 0);
        assert!(good + gap + still <= self.seconds);
        (gap, still)
    }

    /// The same after two seconds with pictures, when all are decided.
    fn seen_at_last(&mut self) -> (u64, u64) {
        self.runs(2, 10, &Network::Works);
        let (gap, still) = self.seen();
        let [good, ..] = watched(&self.stage);
        assert_eq!(good + gap + still, self.seconds);
        (gap, still)
    }
}

impl Stage {
    /// The viewer joins after the packet came, and not when it did.
    fn passes_on_from_the_ring(&mut self) {
        let batch = Arc::new(self.publisher.take_batch());
        self.ring.push(&batch);
        let (now, out) = (self.bench.now, &mut self.bench.out);
        let wanted = self.viewer.join(now, slice::from_ref(&self.ring), out);
        assert!(!wanted && !self.viewer.is_behind());
        self.deliver();
    }
}

#[test]
fn a_screen_that_stands_still_is_no_gap_however_long() {
    let mut scene = Scene::new();
    scene.runs(60, 0, &Network::Works);
    let (gap, still) = scene.seen();
    assert_eq!(gap, 0);
    assert!((57..=60).contains(&still), "{still}");
    let (gap, still) = scene.seen_at_last();
    assert_eq!(gap, 0);
    assert!((59..=61).contains(&still), "{still}");
}

#[test]
fn a_device_that_sends_a_picture_now_and_then_makes_no_gap_if_one_is_lost() {
    let mut scene = Scene::new();
    for lost in [false, true, false, false] {
        scene.runs(2, 0, &Network::Works);
        let sealed = scene.frame();
        if !lost {
            scene.arrives(&sealed);
        }
        scene.runs(1, 0, &Network::Works);
    }
    let (gap, still) = scene.seen_at_last();
    assert_eq!(gap, 0);
    assert!((8..=13).contains(&still), "{still}");
}

#[test]
fn a_network_that_is_gone_is_a_gap_from_its_first_second_once_that_is_sure() {
    for frames in [10, 0] {
        let mut scene = Scene::new();
        // Nobody can know what a device has to send that nobody hears.
        scene.runs(13, frames, &Network::Away);
        assert_eq!(scene.seen(), (0, 0), "{frames}: it may be back");
        scene.runs(3, frames, &Network::Away);
        let (gap, still) = scene.seen();
        assert_eq!(still, 0, "{frames}");
        assert!((14..=16).contains(&gap), "{frames}: {gap}");
        scene.runs(12, frames, &Network::Away);
        assert_eq!(scene.seen(), (gap + 12, 0), "{frames}");
    }
}

#[test]
fn a_network_that_is_gone_for_a_moment_is_a_gap_by_what_is_missing() {
    for away in [2, 3, 9] {
        let mut scene = Scene::new();
        scene.runs(away, 10, &Network::Away);
        let (gap, still) = scene.seen_at_last();
        assert_eq!(still, 0, "{away}");
        assert!((away..=away + 1).contains(&gap), "{away}: {gap}");
    }
}

#[test]
fn a_network_that_stalls_is_a_gap_though_nothing_is_missing() {
    let mut scene = Scene::new();
    for sealed in scene.runs(3, 10, &Network::Stalls) {
        scene.arrives(&sealed);
    }
    let (gap, still) = scene.seen_at_last();
    assert_eq!(still, 0);
    assert!((3..=4).contains(&gap), "{gap}");
}

#[test]
fn a_device_that_closes_while_it_stands_still_leaves_no_gap() {
    let mut scene = Scene::new();
    scene.runs(5, 0, &Network::Works);
    let now = scene.stage.bench.now;
    scene.stage.viewer.set_publisher_live(now, false);
    scene.runs(3, 0, &Network::Works);
    let (gap, still) = scene.seen();
    assert_eq!(gap, 0);
    assert!((4..=5).contains(&still), "{still}");
}

#[test]
fn a_device_that_begins_anew_without_a_word_leaves_a_gap() {
    let mut scene = Scene::new();
    scene.runs(4, 10, &Network::Away);
    scene.stage.succeed(5);
    scene.stage.viewer.set_pulse(scene.stage.publisher.pulse());
    let now = scene.stage.bench.now;
    scene.stage.viewer.set_publisher_live(now, true);
    scene.seq = 0;
    let (gap, still) = scene.seen_at_last();
    assert_eq!(still, 0);
    assert!((4..=5).contains(&gap), "{gap}");
}

#[test]
fn who_joins_a_still_screen_waits_for_a_picture_or_has_it() {
    for cached in [true, false] {
        let mut stage = Stage::new(GCM);
        stage.viewer.set_pulse(stage.publisher.pulse());
        let plain = packet(VIDEO_PT, 1, 0, 7, true, VP8_KEY);
        let sealed = stage.device.seal_rtp(&plain);
        let from = stage.device.addr;
        stage.bench.feed(&mut stage.publisher, from, &sealed);
        if cached {
            stage.passes_on_from_the_ring();
        }
        let mut scene = Scene {
            stage,
            seq: 0,
            timestamp: 0,
            seconds: 0,
        };
        scene.runs(10, 0, &Network::Works);
        let (gap, still) = scene.seen();
        let (waits, has) = if cached { (gap, still) } else { (still, gap) };
        assert_eq!(waits, 0, "{cached}");
        assert!((7..=10).contains(&has), "{cached}: {has}");
    }
}
