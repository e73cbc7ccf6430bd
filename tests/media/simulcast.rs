//! A device that sends three simulcast layers, and viewers that get the one they ask for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use client::synthetic::FrameSource;
use client::{Codec, Options, Publisher};
use tests::link::{Conditions, Direction, Link};
use tests::{MediaServer, wait_for};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::media::{GAP, PATIENCE, Watching, publish_with, until_apart, watch, watch_with};

/// Three times what it may take (design §11), for a busy machine.
pub const RISE: Duration = Duration::from_secs(30);

/// RID, size, and bytes of every payload, by which a test knows the layer again. The best layer is
/// neither the first nor the last.
const LAYERS: [(&str, u16, u16, usize); 3] = [
    ("h", 640, 360, 600),
    ("f", 1280, 720, 900),
    ("q", 320, 180, 150),
];

/// A device that sends all layers until it is dropped, with a keyframe wherever one is asked for.
pub struct Device {
    pub publisher: Arc<Publisher>,
    /// Layers it sends, from the end of the table.
    sent: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Device {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Device {
    pub async fn start(server: &MediaServer, name: &str) -> Device {
        let options = Options {
            rids: LAYERS.iter().map(|(rid, ..)| (*rid).to_owned()).collect(),
            transport_cc: true,
            ..Options::default()
        };
        let publisher = Arc::new(publish_with(server, name, &[Codec::Vp8], &options).await);
        let sent = Arc::new(AtomicUsize::new(LAYERS.len()));
        let task = tokio::spawn(send_layers(publisher.clone(), sent.clone()));
        Device {
            publisher,
            sent,
            task,
        }
    }

    fn keyframe_requests(&self, rid: &str) -> u64 {
        let track = self.publisher.layer(rid).expect("a layer");
        self.publisher.keyframe_requests_of(track)
    }
}

async fn send_layers(publisher: Arc<Publisher>, sent: Arc<AtomicUsize>) {
    let mut sources = LAYERS.map(|(rid, width, height, bytes)| {
        let source = FrameSource::new(Codec::Vp8, 3, bytes, u64::from(width));
        (rid, source.with_size(width, height), None)
    });
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for frame in 0u32.. {
        tick.tick().await;
        let skipped = LAYERS.len() - sent.load(Ordering::Relaxed);
        for (rid, source, answered) in sources.iter_mut().skip(skipped) {
            let track = publisher.layer(rid).expect("a layer");
            let asked = publisher.keyframe_requests_of(track);
            let payloads = source.frame(answered.replace(asked) != Some(asked));
            let last = payloads.len() - 1;
            for (position, payload) in payloads.into_iter().enumerate() {
                let sent = track.send(frame * 1_800, position == last, payload).await;
                sent.unwrap_or_else(|error| panic!("frame {frame} of {rid}: {error:?}"));
            }
        }
    }
}

/// Waits until what the viewer gets is of that layer and no other.
async fn shows(watching: &Watching, rid: &str) {
    shows_within(watching, rid, PATIENCE).await;
}

pub async fn shows_within(watching: &Watching, rid: &str, within: Duration) {
    let (.., bytes) = LAYERS
        .iter()
        .find(|(own, ..)| *own == rid)
        .expect("a layer");
    wait_for(&format!("the viewer to get {rid}"), within, || async {
        let payloads = watching.record.payloads(Codec::Vp8);
        let newest: Vec<usize> = payloads.iter().rev().take(60).map(Vec::len).collect();
        if newest.len() == 60 && newest.iter().all(|len| len == bytes) {
            return Ok(());
        }
        Err(format!("payloads of {newest:?} bytes, not {bytes}"))
    })
    .await;
}

#[tokio::test]
async fn a_viewer_behind_a_narrow_link_gets_a_lower_layer_until_there_is_room() {
    let server = MediaServer::open(&[]).await;
    let _device = Device::start(&server, "cam-1").await;
    let link = Link::start(server.media, 1);
    let options = Options {
        transport_cc: true,
        media_address: Some(link.address()),
        ..Options::default()
    };
    let behind = watch_with(&server, "cam-1", &[Codec::Vp8], &options).await;
    let beside = watch(&server, "cam-1", &[Codec::Vp8]).await;
    shows(&behind, "f").await;
    shows(&beside, "f").await;
    let start = Instant::now();
    // Three tenths of the best, of 1.2 Mbit/s with its headers: room for the lowest, of 0.3, but not for the
    // next.
    link.set(Direction::ToClient, Conditions::narrow(350_000, 30_000));
    shows_within(&behind, "q", RISE).await;
    let lower = times(&behind, start, "q").0;
    let widened = Instant::now();
    link.set(Direction::ToClient, Conditions::default());
    shows_within(&behind, "f", RISE).await;
    let best = times(&behind, widened, "q").1;
    println!(
        "the lowest layer came after {lower:?}, and none but the best {best:?} after there was room"
    );
    assert!(lower < PATIENCE && best < RISE, "{lower:?}, {best:?}");
    // The other sees nothing of it.
    let came = beside.record.since(start);
    let (gap, time) = (beside.record.largest_gap(start), start.elapsed());
    let rate = came.len() as f64 / time.as_secs_f64();
    println!("another viewer: {rate:.0} packets a second for {time:?}, none for {gap:?} at most");
    assert!(came.iter().all(|(_, bytes)| *bytes == 900), "another layer");
    assert!(gap < GAP && rate > 75.0, "{gap:?}, {rate} of 150");
    assert_unbroken(&beside);
}

/// How long after `start` the first packet of a layer came, and the last.
fn times(watching: &Watching, start: Instant, rid: &str) -> (Duration, Duration) {
    let bytes = LAYERS
        .iter()
        .find(|(own, ..)| *own == rid)
        .map(|layer| layer.3);
    let came = watching.record.since(start);
    let mut of = came.iter().filter(|(_, len)| Some(*len) == bytes);
    let first = of.next().map_or(Duration::MAX, |(at, _)| *at - start);
    (first, of.next_back().map_or(first, |(at, _)| *at - start))
}

fn assert_unbroken(watching: &Watching) {
    let reception = watching.viewer.reception();
    assert_eq!(reception.streams().len(), 1, "{reception:?}");
    assert_eq!(reception.lost(), 0, "{reception:?}");
    assert_eq!(reception.streams()[0].out_of_order, 0, "{reception:?}");
}

#[tokio::test]
async fn each_viewer_gets_the_layer_that_it_asks_for_and_without_a_wish_the_best() {
    let server = MediaServer::open(&[]).await;
    let device = Device::start(&server, "cam-1").await;
    let free = watch(&server, "cam-1", &[Codec::Vp8]).await;
    shows(&free, "f").await;
    let mut pinned = Vec::new();
    for (rid, ..) in LAYERS {
        let viewer = watch(&server, "cam-1", &[Codec::Vp8]).await;
        let chosen = viewer.viewer.select_layer(Some(rid)).await;
        chosen.unwrap_or_else(|error| panic!("{rid}: {error:?}"));
        pinned.push((rid, viewer));
    }
    for (rid, viewer) in &pinned {
        shows(viewer, rid).await;
    }
    // Around once more, all at the same time.
    for (at, (rid, viewer)) in pinned.iter_mut().enumerate() {
        *rid = LAYERS[(at + 1) % LAYERS.len()].0;
        let chosen = viewer.viewer.select_layer(Some(rid)).await;
        chosen.unwrap_or_else(|error| panic!("{rid}: {error:?}"));
    }
    for (rid, viewer) in &pinned {
        shows(viewer, rid).await;
        assert_unbroken(viewer);
    }
    shows(&free, "f").await;
    assert_unbroken(&free);
    assert!(device.keyframe_requests("h") > 0 && device.keyframe_requests("q") > 0);
}

#[tokio::test]
async fn a_layer_that_the_device_lacks_is_refused_and_the_choice_can_be_given_back() {
    let server = MediaServer::open(&[]).await;
    let _device = Device::start(&server, "cam-1").await;
    let watching = watch(&server, "cam-1", &[Codec::Vp8]).await;
    let refused = watching.viewer.select_layer(Some("x")).await;
    let error = refused.expect_err("there is no such layer");
    assert_eq!(error.status(), Some(422), "{error:?}");
    assert!(error.to_string().contains("h, f, q"), "{error}");
    watching
        .viewer
        .select_layer(Some("q"))
        .await
        .expect("taken");
    shows(&watching, "q").await;
    watching.viewer.select_layer(None).await.expect("taken");
    shows(&watching, "f").await;
    assert_unbroken(&watching);
}

#[tokio::test]
async fn a_device_that_comes_back_without_layers_reaches_viewers_who_had_chosen_one() {
    let server = MediaServer::open(&[]).await;
    let first = Device::start(&server, "cam-1").await;
    let viewer = watch(&server, "cam-1", &[Codec::Vp8]).await;
    viewer.viewer.select_layer(Some("q")).await.expect("taken");
    shows(&viewer, "q").await;
    let second = crate::media::publish(&server, "cam-1", &[Codec::Vp8]).await;
    drop(first);
    let sent = crate::media::send_frames(&second, Codec::Vp8, 30, 9).await;
    wait_for("the frames of the second device", PATIENCE, || async {
        let got = viewer.record.payloads(Codec::Vp8);
        let same = got.ends_with(&sent);
        same.then_some(()).ok_or(got.len())
    })
    .await;
    assert_unbroken(&viewer);
}

#[tokio::test]
async fn when_the_device_stops_a_layer_its_viewers_go_to_the_best_that_is_left_and_come_back() {
    let server = MediaServer::open(&[]).await;
    let device = Device::start(&server, "cam-1").await;
    let watching = watch(&server, "cam-1", &[Codec::Vp8]).await;
    watching
        .viewer
        .select_layer(Some("h"))
        .await
        .expect("taken");
    shows(&watching, "h").await;
    device.sent.store(2, Ordering::Relaxed);
    shows(&watching, "f").await;
    device.sent.store(1, Ordering::Relaxed);
    shows(&watching, "q").await;
    device.sent.store(3, Ordering::Relaxed);
    shows(&watching, "h").await;
    assert_unbroken(&watching);
}

#[tokio::test]
async fn a_device_that_comes_back_on_another_shard_reaches_viewers_on_the_layers_they_chose() {
    let server = MediaServer::open(&["--shards", "2"]).await;
    let first = Device::start(&server, "cam-1").await;
    let mut pinned = Vec::new();
    for rid in ["q", "h"] {
        let viewer = watch(&server, "cam-1", &[Codec::Vp8]).await;
        viewer.viewer.select_layer(Some(rid)).await.expect("taken");
        shows(&viewer, rid).await;
        pinned.push((rid, viewer));
    }
    // The first one and its viewers are on one shard.
    let start = || Device::start(&server, "cam-1");
    let second = until_apart(&server, 3.0, start).await;
    drop(first);
    for (rid, viewer) in &pinned {
        shows(viewer, rid).await;
        viewer.viewer.select_layer(Some("f")).await.expect("taken");
        shows(viewer, "f").await;
        assert_unbroken(viewer);
    }
    assert!(second.keyframe_requests("f") > 0);
}
