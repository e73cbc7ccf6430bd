//! A device on a virtual clock, and what its packets become.

use super::*;
use crate::recording::testing::{ZERO, keyframe, packet, sound, video};
use webm_iterable::WebmIterator;
use webm_iterable::matroska_spec::{MatroskaSpec as Tag, SimpleBlock};

/// A device on a virtual clock: 25 pictures a second, and 50 packets of sound.
struct Device {
    recorder: Recorder,
    start: Instant,
    millis: u64,
    written: Vec<u8>,
    asked: usize,
}

impl Device {
    fn new(max: Option<Duration>) -> Device {
        let start = Instant::now();
        // The wall clock of the batches, whose timestamps are 0 at the start.
        let unix = Duration::from_secs((ZERO >> 32) - 2_208_988_800);
        Device {
            recorder: Recorder::new(WallClock::new(start, unix), None, max),
            start,
            millis: 0,
            written: Vec::new(),
            asked: 0,
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.millis)
    }

    fn give(&mut self, batch: &Arc<MediaBatch>) {
        let now = self.now();
        self.recorder.handle_batch(now, batch, 0, false);
        self.look();
    }

    fn look(&mut self) {
        let now = self.now();
        self.recorder.handle_timeout(now);
        self.asked += usize::from(self.recorder.poll_keyframe(now));
        while let Some(bytes) = self.recorder.poll_output(now) {
            self.written.extend(bytes);
        }
    }

    /// Sends so long; pictures that `lost` names do not come, and those that `key` names are keyframes.
    fn run(&mut self, millis: u64, key: &[u64], lost: &[u64]) {
        let end = self.millis + millis;
        while self.millis < end {
            let (now, ms) = (self.now(), self.millis);
            if ms.is_multiple_of(40) {
                let (n, timestamp) = (ms / 40, (ms * 90) as u32);
                if key.contains(&n) {
                    self.give(&keyframe(now, n, timestamp));
                } else if !lost.contains(&n) {
                    self.give(&video(now, n, timestamp, &[0x10, 0x11, 0, 0]));
                }
            }
            self.give(&sound(now, ms / 20, (ms * 48) as u32));
            self.millis += 20;
        }
    }

    fn finish(mut self) -> Vec<u8> {
        let now = self.now();
        let (bytes, ending) = self.recorder.finish(now).expect("there was a picture");
        self.written.extend(bytes);
        crate::recording::container::tests::apply(self.written, ending)
    }
}

/// Track and milliseconds of every frame of a file.
fn frames(file: &[u8]) -> Vec<(u64, u64)> {
    let mut cluster = 0;
    let mut frames = Vec::new();
    for tag in WebmIterator::new(&mut &file[..], &[]) {
        match tag.expect("well-formed") {
            Tag::Timestamp(at) => cluster = at,
            tag @ Tag::SimpleBlock(_) => {
                let block = SimpleBlock::try_from(&tag).expect("a block");
                frames.push((
                    block.track,
                    cluster.strict_add_signed(block.timestamp.into()),
                ));
            }
            _ => {}
        }
    }
    frames
}

#[test]
fn a_file_begins_with_a_keyframe_and_has_all_that_follows_in_the_order_of_time() {
    let mut device = Device::new(None);
    device.run(200, &[], &[]);
    assert_eq!(device.asked, 1, "a keyframe");
    device.run(4_000, &[5], &[]);
    let progress = device.recorder.progress();
    assert_eq!((progress.pictures, progress.gaps), (100, 0));
    assert_eq!((progress.width, progress.height), (640, 360));
    let frames = frames(&device.finish());
    assert_eq!(frames[..3], [(1, 0), (2, 0), (2, 20)]);
    assert!(frames.is_sorted_by_key(|(_, at)| *at), "{frames:?}");
    let of = |track| frames.iter().filter(move |(of, _)| *of == track);
    assert_eq!((of(1).count(), of(2).count()), (100, 200));
    assert_eq!(
        of(1).map(|(_, at)| *at).collect::<Vec<_>>(),
        (0..100).map(|n| n * 40).collect::<Vec<_>>()
    );
}

#[test]
fn what_was_written_at_any_moment_lacks_two_seconds_at_most() {
    let mut device = Device::new(None);
    device.run(10_000, &[0], &[]);
    let last = frames(&device.written).last().expect("some").1;
    assert!(last >= 8_000, "{last}");
}

#[test]
fn a_lost_picture_is_a_gap_up_to_the_next_keyframe_which_is_asked_for() {
    let mut device = Device::new(None);
    device.run(6_000, &[0, 100], &[25]);
    assert_eq!(device.recorder.progress().gaps, 1);
    assert_eq!(device.asked, 2, "each second from when it was given up");
    let frames = frames(&device.finish());
    let pictures = frames.iter().filter(|(track, _)| *track == 1);
    let pictures: Vec<u64> = pictures.map(|(_, at)| at / 40).collect();
    assert_eq!(pictures, (0..25).chain(100..150).collect::<Vec<_>>());
    let sounds = frames.iter().filter(|(track, _)| *track == 2);
    assert_eq!(sounds.count(), 300, "sound goes on");
}

#[test]
fn a_packet_that_was_repaired_within_a_second_leaves_no_gap() {
    let mut device = Device::new(None);
    device.run(1_800, &[0], &[25]);
    let late = video(device.now(), 25, 90_000, &[0x10, 0x11, 0, 0]);
    device.give(&late);
    device.run(2_200, &[], &[]);
    assert_eq!(device.recorder.progress().gaps, 0);
    let frames = frames(&device.finish());
    assert!(frames.is_sorted_by_key(|(_, at)| *at), "sound did not wait");
    assert_eq!(frames.iter().filter(|(track, _)| *track == 1).count(), 100);
}

#[test]
fn a_gap_in_the_tap_costs_what_is_up_to_the_next_keyframe() {
    let mut device = Device::new(None);
    device.run(2_000, &[0], &[]);
    let now = device.now();
    let batch = video(now, 80, 80 * 3_600, &[0x10, 0x11, 0, 0]);
    device.recorder.handle_batch(now, &batch, 0, true);
    let before = device.asked;
    device.look();
    assert_eq!(device.asked, before + 1, "a keyframe, at once");
    device.millis = 80 * 40 + 40;
    device.run(2_000, &[100], &[]);
    assert_eq!(device.recorder.progress().gaps, 1);
    let frames = frames(&device.finish());
    let pictures = frames.iter().filter(|(track, _)| *track == 1);
    let pictures: Vec<u64> = pictures.map(|(_, at)| at / 40).collect();
    assert_eq!(pictures, (0..50).chain(100..131).collect::<Vec<_>>());
}

#[test]
fn a_file_ends_when_it_is_as_long_as_it_may_be() {
    let mut device = Device::new(Some(Duration::from_secs(3)));
    device.run(5_000, &[0], &[]);
    assert_eq!(device.recorder.ended(), Some(&End::MaxDuration));
    let frames = frames(&device.finish());
    assert_eq!(frames.last().map(|(_, at)| *at), Some(2_980));
}

#[test]
fn a_device_that_goes_over_to_another_codec_ends_the_file() {
    let mut device = Device::new(None);
    device.run(1_000, &[0], &[]);
    let other = media_core::media::MediaPacket {
        codec: Codec::Vp9 { profile: 0 },
        source: 7,
        ..packet(Kind::Video, 0, 0)
    };
    let batch = crate::recording::testing::batch(device.now(), other, &[0x08, 1, 2]);
    device.give(&batch);
    assert_eq!(device.recorder.ended(), Some(&End::CodecChanged));
    assert!(!frames(&device.finish()).is_empty(), "and leaves it whole");
}

#[test]
fn a_format_that_does_not_hold_what_comes_is_an_end_without_a_file() {
    let mut device = Device::new(None);
    device.recorder.wanted = Some(Format::Mp4);
    device.run(1_000, &[0], &[]);
    let end = End::Format(Codec::Vp8, Format::Mp4);
    assert_eq!(device.recorder.ended(), Some(&end));
    let now = device.now();
    assert!(device.recorder.finish(now).is_none());
}

#[test]
fn the_first_picture_is_at_the_start_also_where_a_newer_report_came() {
    let mapping = TimeMapping {
        source: 1,
        ntp: 4_000_000_000 << 32,
        timestamp: 1_000_000,
        reported: true,
    };
    for since in [-90_001, -3_601, -1, 0, 1, 3_601, 90_001] {
        let stamp = Stamp {
            source: 1,
            timestamp: 1_000_000_u32.wrapping_add_signed(since),
            mapping: Some(mapping),
            arrived: mapping.ntp,
        };
        let start = begin(&stamp);
        let mut line = Timeline::new(Kind::Video);
        let place = line.place(1, stamp.timestamp, stamp.mapping, start, stamp.arrived);
        assert_eq!(place, Some(0), "{since}");
    }
}
