//! A device on a virtual clock, and what its packets become.

use super::*;
use crate::recording::container::tests::apply;
use crate::recording::testing::{ZERO, keyframe, packet, sound, video};
use media_core::media::TimeMapping;
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
        Device::wanted(Wanted {
            max,
            ..Wanted::default()
        })
    }

    fn wanted(wanted: Wanted) -> Device {
        let start = Instant::now();
        // The wall clock of the batches, whose timestamps are 0 at the start.
        let unix = Duration::from_secs((ZERO >> 32) - 2_208_988_800);
        Device {
            recorder: Recorder::new(WallClock::new(start, unix), start, wanted),
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
        while let Some(part) = self.recorder.poll_output(now) {
            self.written = apply(std::mem::take(&mut self.written), part);
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
        let parts = self.recorder.finish(now).expect("there was a picture");
        parts.into_iter().fold(self.written, apply)
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
fn a_format_that_does_not_hold_what_comes_and_another_codec_are_an_end_without_a_file() {
    for (format, codec, end) in [
        (
            Some(Format::Mp4),
            None,
            End::Format(Codec::Vp8, Format::Mp4),
        ),
        (None, Some("H264"), End::Codec(Codec::Vp8, "H264")),
    ] {
        let mut device = Device::wanted(Wanted {
            format,
            codec,
            max: None,
        });
        device.run(1_000, &[0], &[]);
        assert_eq!(device.recorder.ended(), Some(&end));
        let now = device.now();
        assert!(device.recorder.finish(now).is_none());
    }
}

/// Duration in milliseconds that a file says of itself.
fn length(file: &[u8]) -> f64 {
    let mut file = file;
    let mut tags = WebmIterator::new(&mut file, &[]);
    let duration = tags.find_map(|tag| match tag.expect("well-formed") {
        Tag::Duration(duration) => Some(duration),
        _ => None,
    });
    duration.expect("a finished file")
}

#[test]
fn what_came_before_the_start_is_shown_at_once_and_takes_nothing_of_the_length() {
    let mut device = Device::new(Some(Duration::from_secs(10)));
    // Ten minutes ago: a keyframe, two pictures and a word.
    let (start, unix) = (
        device.start,
        Duration::from_secs((ZERO >> 32) - 2_208_988_800),
    );
    let begun = start + Duration::from_secs(600);
    let wanted = device.recorder.wanted;
    device.recorder = Recorder::new(WallClock::new(start, unix), begun, wanted);
    let picture = |n| video(start, n, n as u32 * 90_000, &[0x10, 0x11, 0, 0]);
    let early = [
        keyframe(start, 0, 0),
        sound(start, 9, 0),
        picture(1),
        picture(2),
    ];
    device.millis = 600_000;
    early.iter().for_each(|batch| device.give(batch));
    for n in 0..125 {
        let now = device.now();
        let timestamp = (device.millis * 90) as u32;
        device.give(&video(now, 3 + n, timestamp, &[0x10, 0x11, 0, 0]));
        device.give(&sound(now, 1_000 + 2 * n, (device.millis * 48) as u32));
        device.millis += 20;
        let now = device.now();
        device.give(&sound(now, 1_001 + 2 * n, (device.millis * 48) as u32));
        device.millis += 20;
    }
    assert_eq!(device.recorder.ended(), None);
    let progress = device.recorder.progress();
    assert!(
        (4_900_000..=5_100_000).contains(&progress.micros),
        "{progress:?}"
    );
    let frames = frames(&device.finish());
    let at_once = frames.iter().filter(|(track, at)| *track == 1 && *at < 10);
    assert_eq!(at_once.count(), 4, "{frames:?}");
    assert!(frames.is_sorted_by_key(|(_, at)| *at), "{frames:?}");
    let sounds = frames.iter().filter(|(track, _)| *track == 2);
    assert!((249..=250).contains(&sounds.count()), "none from before");
}

#[test]
fn a_picture_that_does_not_move_is_recorded_to_the_end() {
    let mut device = Device::new(None);
    device.give(&keyframe(device.now(), 0, 0));
    for _ in 0..90 {
        device.millis += 1_000;
        device.recorder.handle_device(device.now(), true);
        device.look();
    }
    assert_eq!(device.recorder.ended(), None);
    let picture = video(device.now(), 1, 90 * 90_000, &[0x10, 0x11, 0, 0]);
    device.give(&picture);
    device.millis += 5_000;
    let file = device.finish();
    assert_eq!(frames(&file), [(1, 0), (1, 90_000)]);
    assert!((length(&file) - 95_000.0).abs() < 0.01);
}

/// A screen where nothing moves any more, for so many seconds.
fn stands(device: &mut Device, seconds: u64) {
    for _ in 0..seconds {
        device.millis += 1_000;
        device.recorder.handle_device(device.now(), true);
        device.look();
    }
}

#[test]
fn a_picture_that_nothing_follows_is_written_within_seconds_and_its_recording_gets_on() {
    let mut device = Device::new(None);
    device.give(&keyframe(device.now(), 0, 0));
    stands(&mut device, 5);
    assert_eq!(frames(&device.written), [(1, 0)]);
    assert_eq!(device.recorder.progress().micros, 5_000_000);
    // The last picture before each still time too.
    for (seq, second) in [(1, 5), (2, 10)] {
        let picture = video(device.now(), seq, second * 90_000, &[0x10, 0x11, 0, 0]);
        device.give(&picture);
        stands(&mut device, 5);
    }
    let whole = [(1, 0), (1, 5_000), (1, 10_000)];
    assert_eq!(frames(&device.written), whole);
    let file = device.finish();
    assert_eq!(frames(&file), whole);
    assert_eq!(length(&file), 15_000.0);
}

#[test]
fn a_file_begins_when_it_was_asked_for_or_with_its_first_picture() {
    let asked = Duration::from_secs((ZERO >> 32) - 2_208_988_800);
    let mut device = Device::new(None);
    device.give(&keyframe(device.start - Duration::from_secs(3), 0, 0));
    assert_eq!(device.recorder.start(), Some(asked));

    let mut device = Device::new(None);
    device.run(5_000, &[], &[]);
    assert_eq!(device.recorder.start(), None);
    device.run(1_000, &[125], &[]);
    let start = device.recorder.start();
    assert_eq!(start, Some(asked + Duration::from_secs(5)));
}

#[test]
fn a_picture_that_stood_still_lasts_until_its_device_left() {
    let mut device = Device::new(None);
    device.give(&keyframe(device.now(), 0, 0));
    stands(&mut device, 90);
    device.recorder.handle_device(device.now(), false);
    device.millis += 5_000;
    device.look();
    assert_eq!(length(&device.finish()), 90_000.0);
}

#[test]
fn what_waited_while_the_disk_was_slow_is_taken_before_it_is_judged_what_is_over() {
    let mut device = Device::new(Some(Duration::from_secs(20)));
    device.run(10_000, &[0], &[]);
    let picture = |n: u64| {
        let sent = device.start + Duration::from_millis(n * 40);
        video(sent, n, (n * 3_600) as u32, &[0x10, 0x11, 0, 0])
    };
    let waiting: Vec<_> = (250..500).map(picture).collect();
    device.millis = 23_000;
    let now = device.now();
    for batch in &waiting {
        device.recorder.handle_batch(now, batch, 0, false);
    }
    device.look();
    assert_eq!(device.recorder.ended(), Some(&End::MaxDuration));
    let frames = frames(&device.finish());
    assert_eq!(frames.iter().filter(|(track, _)| *track == 1).count(), 500);

    // A device that came back meanwhile.
    let mut device = Device::new(None);
    device.run(2_000, &[0], &[]);
    device.recorder.handle_device(device.now(), false);
    device.millis += 31_000;
    let now = device.now();
    let picture = video(now, 50, 33_000 * 90, &[0x10, 0x11, 0, 0]);
    device.recorder.handle_batch(now, &picture, 0, false);
    device.recorder.handle_device(now, true);
    device.look();
    assert_eq!(device.recorder.ended(), None);
}

#[test]
fn a_picture_that_does_not_move_ends_when_it_is_as_long_as_it_may_be() {
    let mut device = Device::new(Some(Duration::from_secs(60)));
    device.give(&keyframe(device.now(), 0, 0));
    device.millis = 62_000;
    device.look();
    assert_eq!(device.recorder.ended(), None);
    device.millis += 20;
    device.look();
    assert_eq!(device.recorder.ended(), Some(&End::MaxDuration));
    assert_eq!(length(&device.finish()), 60_000.0);
}

#[test]
fn a_device_may_be_away_for_half_a_minute() {
    let mut device = Device::new(None);
    device.run(2_000, &[0], &[]);
    for (there, after, end) in [
        (false, 30_000, None),
        (true, 1_000, None),
        (false, 30_000, None),
        (false, 1, Some(End::Gone)),
    ] {
        let now = device.now();
        device.recorder.handle_device(now, there);
        device.millis += after;
        device.look();
        assert_eq!(device.recorder.ended(), end.as_ref(), "{there}, {after} ms");
    }
    assert_eq!(length(&device.finish()), 33_000.0, "up to where it went");
}

#[test]
fn without_a_picture_there_is_an_end_after_half_a_minute() {
    let mut device = Device::new(Some(Duration::from_secs(60)));
    device.run(30_000, &[], &(0..1_000).collect::<Vec<_>>());
    assert_eq!(device.recorder.ended(), None);
    device.run(100, &[], &(0..1_000).collect::<Vec<_>>());
    assert_eq!(device.recorder.ended(), Some(&End::NoPicture));
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
        let start = stamp.wall_time();
        let mut line = Timeline::new(Kind::Video);
        let place = line.place(
            1,
            stamp.timestamp,
            stamp.mapping,
            start,
            stamp.arrived,
            None,
        );
        assert_eq!(place, Some(0), "{since}");
    }
}

#[test]
fn a_picture_whose_end_did_not_come_is_not_in_the_file() {
    for (marked, pictures) in [(true, 25), (false, 26)] {
        let mut device = Device::new(None);
        for n in 0..25 {
            let packet = media_core::media::MediaPacket {
                marker: marked,
                starts_keyframe: n == 0,
                ..packet(Kind::Video, n, n as u32 * 3_600)
            };
            let payload = [
                0x10, 0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01, 7,
            ];
            let batch = crate::recording::testing::batch(device.now(), packet, &payload);
            device.give(&batch);
            device.millis += 40;
        }
        let cut = media_core::media::MediaPacket {
            marker: false,
            ..packet(Kind::Video, 25, 25 * 3_600)
        };
        let cut = crate::recording::testing::batch(device.now(), cut, &[0x10, 0x11, 0, 0]);
        device.give(&cut);
        let frames = frames(&device.finish());
        assert_eq!(frames.len(), pictures, "marked: {marked}");
    }
}

#[test]
fn the_index_knows_each_keyframe_wherever_sound_lies_between() {
    let mut device = Device::new(None);
    for n in 0..60 {
        // 3 ms after the second the first time, then 5 ms, and sound 4 ms after it.
        let late = if n == 0 { 3 } else { 5 };
        for ms in 0..1_000u64 {
            device.millis = n * 1_000 + ms;
            let now = device.now();
            if ms == late {
                device.give(&keyframe(now, n * 25, (device.millis * 90) as u32));
            } else if ms > late && (ms - late).is_multiple_of(40) {
                let seq = n * 25 + (ms - late) / 40;
                let timestamp = (device.millis * 90) as u32;
                device.give(&video(now, seq, timestamp, &[0x10, 0x11, 0, 0]));
            }
            if ms % 20 == 4 {
                device.give(&sound(now, n * 50 + ms / 20, (device.millis * 48) as u32));
            }
        }
    }
    let file = device.finish();
    let mut bytes = &file[..];
    let tags = WebmIterator::new(&mut bytes, &[]);
    let cues = tags
        .filter(|tag| matches!(tag, Ok(Tag::CueTime(_))))
        .count();
    assert_eq!(cues, 60);
}

#[test]
fn pictures_far_apart_that_are_there_at_once_stand_in_their_order() {
    let mut device = Device::new(None);
    device.give(&keyframe(device.now(), 0, 0));
    for (seq, second) in [(1, 20), (2, 40)] {
        device.millis = second * 1_000;
        let picture = video(
            device.now(),
            seq,
            second as u32 * 90_000,
            &[0x10, 0x11, 0, 0],
        );
        let now = device.now();
        device.recorder.handle_batch(now, &picture, 0, false);
    }
    assert_eq!(frames(&device.finish()), [(1, 0), (1, 20_000), (1, 40_000)]);
}

#[test]
fn a_picture_behind_sound_that_was_given_out_is_shown_late_and_not_left_out() {
    let mut device = Device::new(None);
    device.run(3_000, &[0], &[]);
    let still: Vec<u64> = (75..1_000).collect();
    device.run(5_000, &[], &still);
    assert!(device.recorder.given > 6_000_000);
    // It was taken half a second before it came.
    let picture = video(device.now(), 75, 7_500 * 90 - 90_000, &[0x10, 0x11, 0, 0]);
    device.give(&picture);
    let frames = frames(&device.finish());
    assert!(frames.is_sorted_by_key(|(_, at)| *at), "{frames:?}");
    let pictures = frames.iter().filter(|(track, _)| *track == 1);
    assert_eq!(pictures.count(), 76);
}

#[test]
fn a_keyframe_right_behind_a_gap_is_where_it_goes_on() {
    let mut device = Device::new(None);
    device.run(4_000, &[0, 26], &[25]);
    assert_eq!(device.recorder.progress().gaps, 1);
    let frames = frames(&device.finish());
    assert_eq!(frames.iter().filter(|(track, _)| *track == 1).count(), 99);
}

#[test]
fn what_is_on_its_way_at_the_end_is_not_lost() {
    let mut device = Device::new(None);
    device.run(2_000, &[0], &[48]);
    let now = device.now();
    device.recorder.finish(now).expect("there was a picture");
    assert_eq!(device.recorder.progress().gaps, 0);
}

#[test]
fn a_layer_that_takes_over_is_no_gap() {
    let mut device = Device::new(None);
    device.run(2_000, &[0], &[]);
    let other = media_core::media::MediaPacket {
        source: 7,
        ..packet(Kind::Video, 0, 0)
    };
    let batch = crate::recording::testing::batch(device.now(), other, &[0x10, 0x11, 0, 0]);
    device.give(&batch);
    assert_eq!(device.recorder.progress().gaps, 0);
    assert!(device.recorder.needs_keyframe);
}

#[test]
fn a_length_beyond_all_numbers_is_none() {
    let most = Duration::from_secs(18_446_744_073_710);
    let mut device = Device::new(Some(most));
    device.run(2_000, &[0], &[]);
    assert_eq!(device.recorder.ended(), None);
}
