//! RTP timestamps of one kind → time in the file, on the wall clock that sound and picture share.
//!
//! A sender report says which wall-clock time a timestamp stands for. Time in the file follows the
//! timestamps, which are exact, and is drawn to what reports say, a little with each frame: a first report
//! after a start that went by arrival, a clock that drifts or a report that was late make no jump.

use media_core::media::{TimeMapping, clock_rate};
use media_core::negotiated::Kind;

/// Sound and picture may be off by as much, each: together half of the 40 ms that a person notices.
const TOLERANCE_MS: i64 = 10;
/// How much a frame is drawn nearer: below what lies between two frames, so that none overtakes another.
const STEP_MS: i64 = 1;
/// What is off by more is of another clock, and jumps.
const JUMP_MS: i64 = 1_000;
/// A report that puts a packet so far from its arrival is wrong.
const MOST_OFF_MS: i64 = 10_000;

/// See the module.
pub struct Timeline {
    rate: i64,
    source: Option<u64>,
    /// Of the last packet.
    timestamp: u32,
    /// Its time by timestamps alone, in ticks.
    place: i64,
    /// Time of the last frame.
    last: Option<u64>,
}

impl Timeline {
    pub fn new(kind: Kind) -> Timeline {
        Timeline {
            rate: i64::from(clock_rate(kind)),
            source: None,
            timestamp: 0,
            place: 0,
            last: None,
        }
    }

    /// Time of a frame in the file, in ticks, above all before it; `None` if it is from before the start.
    /// `start` and `arrived` are wall-clock times (NTP) of the start and of the frame's arrival.
    pub fn place(
        &mut self,
        source: u64,
        timestamp: u32,
        mapping: Option<TimeMapping>,
        start: u64,
        arrived: u64,
    ) -> Option<u64> {
        let by_arrival = self.ticks(start, arrived);
        let by_report = mapping
            .filter(|mapping| mapping.source == source)
            .map(|mapping| {
                let since = i64::from(timestamp.wrapping_sub(mapping.timestamp).cast_signed());
                self.ticks(start, mapping.ntp) + since
            })
            .filter(|ticks| (ticks - by_arrival).abs() <= self.millis(MOST_OFF_MS));
        let right = by_report.unwrap_or(by_arrival);
        if self.source == Some(source) {
            self.place += i64::from(timestamp.wrapping_sub(self.timestamp).cast_signed());
        } else {
            self.source = Some(source);
            self.place = right;
        }
        self.timestamp = timestamp;
        let off = right - self.place;
        let reported = by_report.is_some() && mapping.is_some_and(|mapping| mapping.reported);
        let jump = if reported { JUMP_MS } else { MOST_OFF_MS };
        if off.abs() > self.millis(jump) {
            self.place = right;
        } else if reported && off.abs() > self.millis(TOLERANCE_MS) {
            self.place += off.signum() * self.millis(STEP_MS);
        }
        let place = u64::try_from(self.place).ok()?;
        let place = self.last.map_or(place, |last| place.max(last + 1));
        self.last = Some(place);
        Some(place)
    }

    fn ticks(&self, from: u64, to: u64) -> i64 {
        let span = i128::from(to.wrapping_sub(from).cast_signed());
        ((span * i128::from(self.rate)) >> 32) as i64
    }

    fn millis(&self, millis: i64) -> i64 {
        millis * self.rate / 1_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 4_000_000_000 << 32;

    /// So many 128ths of a second after the start, which are exact in NTP's format.
    fn ntp(parts: u64) -> u64 {
        START + (parts << 25)
    }

    fn mapping(timestamp: u32, parts: u64) -> Option<TimeMapping> {
        Some(TimeMapping {
            source: 1,
            ntp: ntp(parts),
            timestamp,
            reported: true,
        })
    }

    #[test]
    fn time_follows_timestamps_and_is_drawn_to_what_reports_say() {
        let mut line = Timeline::new(Kind::Audio);
        let mut at = |n: u32, mapping| line.place(1, 1_000 + 960 * n, mapping, START, ntp(20));
        assert_eq!(at(0, mapping(1_000, 16)), Some(6_000));
        assert_eq!(at(1, mapping(1_000, 17)), Some(6_960), "8 ms are let alone");
        let mut last = 6_960;
        for n in 2..60 {
            let place = at(n, mapping(1_000, 20)).expect("after the start");
            assert!((960..=1_008).contains(&(place - last)), "{last}, {place}");
            last = place;
        }
        let right = 7_500 + 59 * 960;
        assert!(
            (right - 480..=right).contains(&last),
            "31 ms, a little with each"
        );
        let place = at(60, mapping(1_000, 12)).expect("after the start");
        assert_eq!(place - last, 912, "back too");
        assert_eq!(at(61, mapping(1_000, 276)), Some(103_500 + 61 * 960), "2 s");
        assert_eq!(
            at(62, mapping(1_000, 20)),
            Some(103_501 + 61 * 960),
            "never back"
        );
    }

    #[test]
    fn until_a_report_comes_a_late_packet_changes_nothing() {
        let mut line = Timeline::new(Kind::Audio);
        let mut at = |n: u32, parts| {
            let by_arrival = TimeMapping {
                source: 1,
                ntp: ntp(parts),
                timestamp: 960 * n,
                reported: false,
            };
            line.place(1, 960 * n, Some(by_arrival), START, ntp(parts))
        };
        assert_eq!(at(0, 0), Some(0));
        assert_eq!(at(1, 60), Some(960), "half a second late");
        assert_eq!(at(2, 61), Some(1_920));
    }

    #[test]
    fn timestamps_wrap() {
        let mut line = Timeline::new(Kind::Video);
        let first = u32::MAX - 1_499;
        let at = |line: &mut Timeline, timestamp, arrived| {
            line.place(1, timestamp, mapping(first, 0), START, ntp(arrived))
        };
        assert_eq!(at(&mut line, first, 0), Some(0));
        assert_eq!(at(&mut line, 1_500, 33), Some(3_000));
        // Nor does what arrives late hide it, where there is no report.
        let mut line = Timeline::new(Kind::Video);
        assert_eq!(line.place(1, first, None, START, ntp(0)), Some(0));
        assert_eq!(line.place(1, 1_500, None, START, ntp(33)), Some(3_000));
    }

    #[test]
    fn what_is_from_before_the_start_has_no_time() {
        let mut line = Timeline::new(Kind::Audio);
        let before = Some(TimeMapping {
            source: 1,
            ntp: START - (1 << 32),
            timestamp: 0,
            reported: true,
        });
        assert_eq!(line.place(1, 960, before, START, START - (1 << 32)), None);
        assert_eq!(line.place(1, 48_000, before, START, START), Some(0));
    }

    #[test]
    fn a_report_that_is_absurd_is_not_believed() {
        let mut line = Timeline::new(Kind::Video);
        let absurd = mapping(0, 10_000_000);
        assert_eq!(line.place(1, 0, absurd, START, ntp(8)), Some(5_625));
        assert_eq!(line.place(1, 9_000, absurd, START, ntp(16)), Some(14_625));
    }
}
