//! A viewer behind a narrow way of a device with temporal layers: which pictures it gets, and that it can
//! decode each of them.

use super::*;
use std::collections::BTreeSet;

const H264: Codec = Codec::H264 {
    packetization_mode: 1,
    profile_iop: 0x42e0,
};
const VP9: Codec = Codec::Vp9 { profile: 0 };

/// Three layers as browsers send them. Of 1.04 Mbit/s the base has 0.32, and both lower ones have 0.56.
const THREE: &[Shot] = &[
    shot(0, false, [4, 0]),
    shot(2, true, [1, 0]),
    shot(1, true, [2, 0]),
    shot(2, false, [1, 2]),
    shot(0, false, [4, 0]),
    shot(2, false, [1, 2]),
    shot(1, false, [2, 4]),
    shot(2, false, [1, 2]),
];
/// The same, but nothing says that a viewer can begin there.
const WITHOUT_SYNC: &[Shot] = &[
    shot(0, false, [4, 0]),
    shot(2, false, [1, 0]),
    shot(1, false, [2, 0]),
    shot(2, false, [1, 2]),
    shot(0, false, [4, 0]),
    shot(2, false, [1, 2]),
    shot(1, false, [2, 4]),
    shot(2, false, [1, 2]),
];
/// Pictures of H.264 that others need, 0.56 Mbit/s of them, and pictures that none needs.
const EVERY_OTHER: &[Shot] = &[shot(0, false, [2, 0]), shot(1, true, [1, 0])];

/// A descriptor with everything in it (RFC 7741 §4.2), and the first byte of a frame.
pub(super) fn vp8_head(first: bool, picture: u16, base: u8, shot: Shot, key: bool) -> Vec<u8> {
    let [high, low] = (picture | 0x8000).to_be_bytes();
    let start = if first { 0x90 } else { 0x80 };
    let place = shot.temporal << 6 | u8::from(shot.sync) << 5;
    vec![start, 0xe0, high, low, base, place, u8::from(!key)]
}

impl Room {
    /// How a payload begins: the descriptor of its codec, and what the server reads behind it.
    pub(super) fn head(&mut self, shot: Shot, key: bool, at: u32, of: u32) -> Vec<u8> {
        let (first, last) = (at == 0, at + 1 == of);
        if self.pattern == PLAIN {
            return vec![if first { 0x10 } else { 0 }, u8::from(!key)];
        }
        self.base = self
            .base
            .wrapping_add(u8::from(first && shot.temporal == 0));
        // Both numbers wrap while a test runs.
        let picture = 32_700 + self.frame as u16;
        match self.codec {
            Codec::Vp8 => vp8_head(first, picture, self.base, shot, key),
            Codec::Vp9 { .. } => {
                let [high, low] = (picture | 0x8000).to_be_bytes();
                let (begin, end) = (u8::from(first) << 3, u8::from(last) << 2);
                let place = shot.temporal << 5 | u8::from(shot.sync) << 4;
                let flags = 0xa0 | u8::from(!key) << 6 | begin | end;
                vec![flags, high, low, place, self.base]
            }
            _ => {
                let needed = u8::from(shot.temporal == 0) << 6;
                let unit = if key { 5 } else { 1 };
                vec![
                    needed | 28,
                    u8::from(first) << 7 | u8::from(last) << 6 | unit,
                ]
            }
        }
    }

    /// A viewer that tells its bandwidth, of a device that sent for a while.
    fn thinned(codec: Codec, pattern: &'static [Shot]) -> Room {
        let mut room = Room::filming(codec, pattern).watched(9, Feedback::Nothing, true);
        room.run(4 * SECOND);
        room
    }

    /// Runs, until the pictures of four seconds have had a second more to arrive: those of temporal layers
    /// up to `highest` did, and no others.
    fn sends_up_to(&mut self, highest: u8) {
        let from = self.frame;
        self.run(5 * SECOND);
        let came = self.watchers[0].whole.iter().map(|(_, number)| *number);
        let came: BTreeSet<u32> = came.collect();
        for number in from..from + 120 {
            let shot = self.shots[number as usize];
            let (due, came) = (shot.temporal <= highest, came.contains(&number));
            assert_eq!(came, due, "{} of {from}, {shot:?}", number - from);
        }
        self.assert_unbroken();
    }

    /// Tells that there is so much room, gives it time, and then it gets that.
    fn settles_at(&mut self, bits_per_second: u64, within: Duration, highest: u8) {
        self.tell_bandwidth(0, bits_per_second);
        self.run(within);
        self.sends_up_to(highest);
    }

    fn assert_unbroken(&self) {
        let watcher = &self.watchers[0];
        assert_eq!(watcher.broken, 0, "pictures without what they build on");
        assert_eq!((watcher.missing(), watcher.way.full), (0, 0));
        if self.codec == Codec::Vp8 && self.pattern != PLAIN {
            for pair in watcher.heads.windows(2) {
                let picture = |head: &[u8]| u16::from_be_bytes([head[2] & 0x7f, head[3]]);
                let passed = picture(&pair[1]).wrapping_sub(picture(&pair[0])) & 0x7fff;
                let base = pair[1][4].wrapping_sub(pair[0][4]);
                assert_eq!((passed, base), (1, u8::from(pair[1][5] >> 6 == 0)));
            }
        }
    }

    fn dropped(&self) -> u64 {
        self.bench.shard.drops(Drop::Congestion)
    }
}

const AT_ONCE: Duration = Duration::from_millis(300);
/// Three seconds of room, and until a picture says that it can go on with it.
const UP: Duration = Duration::from_secs(5);

#[test]
fn a_viewer_gets_the_temporal_layers_that_its_way_has_room_for() {
    for codec in [Codec::Vp8, VP9] {
        let mut room = Room::thinned(codec, THREE);
        room.sends_up_to(2);
        assert_eq!(room.dropped(), 0);
        room.settles_at(800_000, AT_ONCE, 1);
        room.settles_at(420_000, AT_ONCE, 0);
        room.settles_at(640_000, UP, 0);
        room.settles_at(800_000, UP, 1);
        room.settles_at(5_000_000, UP, 2);
        assert!(room.dropped() > 0);
    }
}

#[test]
fn of_h264_it_gets_the_pictures_that_others_need() {
    let mut room = Room::thinned(H264, EVERY_OTHER);
    room.sends_up_to(1);
    assert_eq!(room.dropped(), 0);
    room.settles_at(700_000, AT_ONCE, 0);
    room.settles_at(5_000_000, UP, 1);
}

#[test]
fn pictures_go_before_the_rest_of_a_group_and_it_goes_only_where_not_even_the_base_fits() {
    let mut room = Room::thinned(Codec::Vp8, THREE);
    room.group = u32::MAX;
    room.run(3 * SECOND);
    room.settles_at(600_000, AT_ONCE, 1);
    // Still more than nine tenths of both lower layers, which with sound and headers is too little: they are
    // late sooner or later, and then fewer go.
    room.tell_bandwidth(0, 470_000);
    room.run(20 * SECOND);
    let base = |room: &Room, from: u32| {
        let came = room.watchers[0].whole.iter().map(|(_, number)| *number);
        let came: BTreeSet<u32> = came.collect();
        let filmed = from..room.frame - 40;
        let base = filmed.filter(|number| room.shots[*number as usize].temporal == 0);
        let (got, not): (Vec<u32>, _) = base.partition(|number| came.contains(number));
        (got.len(), not.len())
    };
    assert_eq!(base(&room, 0).1, 0, "every picture of the base");
    room.sends_up_to(0);
    room.group = GROUP;
    room.tell_bandwidth(0, 250_000);
    room.run(2 * SECOND);
    let from = room.frame;
    room.run(12 * SECOND);
    let (got, not) = base(&room, from);
    assert!(got >= 10 && not >= 10, "{got} and not {not}");
    room.assert_unbroken();
}

#[test]
fn a_way_that_narrows_and_widens_is_followed_by_what_it_delivers() {
    for codec in [Codec::Vp8, VP9] {
        let mut room = Room::filming(codec, THREE).watched(9, Feedback::EachPacket, false);
        room.run(5 * SECOND);
        room.watchers[0].way.bits_per_second = 500_000.0;
        room.run(5 * SECOND);
        let (since, from) = (room.now(), room.frame);
        let (full, broken) = (room.watchers[0].way.full, room.watchers[0].broken);
        room.run(10 * SECOND);
        let watcher = &room.watchers[0];
        // The base has 75 pictures in ten seconds.
        let shown = watcher.shown(since);
        assert!(
            (70..160).contains(&shown),
            "{shown} of {}",
            room.frame - from
        );
        assert_eq!((watcher.way.full - full, watcher.broken - broken), (0, 0));
        room.watchers[0].way.bits_per_second = 10.0 * STREAM;
        room.run(15 * SECOND);
        let since = room.now();
        room.run(3 * SECOND);
        let shown = room.watchers[0].shown(since);
        assert!(shown >= 88, "{shown} frames in 3 s, when there is room");
        assert_eq!(room.watchers[0].broken, broken);
    }
}

#[test]
fn a_device_that_never_says_where_more_can_begin_is_asked_for_a_keyframe() {
    let mut room = Room::thinned(Codec::Vp8, WITHOUT_SYNC);
    room.group = u32::MAX;
    room.settles_at(400_000, AT_ONCE, 0);
    let asked = room.keyframe_requests;
    room.settles_at(5_000_000, 9 * SECOND, 2);
    assert_eq!(room.keyframe_requests, asked + 1);
}

#[test]
fn what_a_viewer_asked_for_itself_is_no_congestion() {
    let mut room = Room::thinned(Codec::Vp8, THREE);
    room.watchers[0].viewer.set_max_temporal_layer(Some(1));
    room.run(AT_ONCE);
    room.sends_up_to(1);
    assert_eq!(room.dropped(), 0);
    room.settles_at(420_000, AT_ONCE, 0);
    assert!(room.dropped() > 0);
    room.settles_at(5_000_000, UP, 1);
}
