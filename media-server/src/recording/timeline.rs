//! RTP timestamps of one kind → time in the file, on the wall clock that sound and picture share.
//!
//! A sender report says which wall-clock time a timestamp stands for. Time in the file follows the
//! timestamps, which are exact, and is drawn to what most of the last reports say, a little with each frame: a
//! first report after a start that went by arrival and a clock that drifts make no jump, and what a device
//! says while it is too busy to send in time changes nothing.

use media_core::media::{TimeMapping, clock_rate};
use media_core::negotiated::Kind;
use std::collections::VecDeque;

/// Sound and picture may be off by as much, each: together half of the 40 ms that a person notices.
const TOLERANCE_MS: i64 = 10;
/// How much a frame is drawn nearer: below what lies between two frames, so that none overtakes another. And what
/// lies between two frames at least: WebM counts milliseconds.
const STEP_MS: i64 = 1;
/// What is off by more is of another clock, and jumps.
const JUMP_MS: i64 = 1_000;
/// Reports that are looked at: one or five seconds of a device each. Four of them may be wrong.
const REPORTS: usize = 9;
/// A report that puts a packet further from its arrival is wrong, and timestamps that do have jumped.
const MOST_OFF_MS: i64 = 10_000;

/// Stream and time of a packet.
#[derive(Clone, Copy)]
pub struct Stamp {
    pub source: u64,
    pub timestamp: u32,
    pub mapping: Option<TimeMapping>,
    pub arrived: u64,
}

impl Stamp {
    /// The wall-clock time that it stands for, of a picture.
    pub fn wall_time(&self) -> u64 {
        let of_source = self.mapping.filter(|mapping| mapping.source == self.source);
        let reported = of_source.map(|mapping| {
            let since = self.timestamp.wrapping_sub(mapping.timestamp);
            let since = i128::from(since.cast_signed()) << 32;
            // Down, for a newer report too: a tick later, and the first picture would be from before the start.
            let since = since.div_euclid(i128::from(clock_rate(Kind::Video)));
            mapping.ntp.wrapping_add_signed(since as i64)
        });
        let off = |ntp: &u64| ntp.wrapping_sub(self.arrived).cast_signed().unsigned_abs();
        let most = (MOST_OFF_MS.unsigned_abs() << 32) / 1_000;
        let believed = reported.filter(|ntp| off(ntp) <= most);
        believed.unwrap_or(self.arrived)
    }
}

/// See the module.
pub struct Timeline {
    rate: i64,
    source: Option<u64>,
    /// Of the last packet.
    timestamp: u32,
    /// Its time by timestamps alone since the first of its source, in ticks.
    run: i64,
    /// From that to its place in the file.
    shift: i64,
    /// The newest report: a wall-clock time and its timestamp.
    newest: Option<(u64, u32)>,
    /// The shifts that the last reports of the source ask for.
    asked: VecDeque<i64>,
    /// Time of the last frame.
    last: Option<u64>,
}

impl Timeline {
    pub fn new(kind: Kind) -> Timeline {
        Timeline {
            rate: i64::from(clock_rate(kind)),
            source: None,
            timestamp: 0,
            run: 0,
            shift: 0,
            newest: None,
            asked: VecDeque::with_capacity(REPORTS),
            last: None,
        }
    }

    /// Time of a frame in the file, in ticks, above all before it; `None` if it is from before the start.
    /// `start` and `arrived` are wall-clock times (NTP) of the start and of the frame's arrival. One that
    /// others depend on can't be left out: it has a time of no less than `least`.
    pub fn place(
        &mut self,
        source: u64,
        timestamp: u32,
        mapping: Option<TimeMapping>,
        start: u64,
        arrived: u64,
        least: Option<i64>,
    ) -> Option<u64> {
        let by_arrival = self.ticks(start, arrived);
        let said = mapping
            .filter(|mapping| mapping.source == source)
            .map(|mapping| {
                let since = i64::from(timestamp.wrapping_sub(mapping.timestamp).cast_signed());
                (mapping, self.ticks(start, mapping.ntp) + since)
            })
            .filter(|(_, ticks)| (ticks - by_arrival).abs() <= self.millis(MOST_OFF_MS));
        let right = said.map_or(by_arrival, |(_, ticks)| ticks);
        if self.source == Some(source) {
            self.run += i64::from(timestamp.wrapping_sub(self.timestamp).cast_signed());
        } else {
            self.source = Some(source);
            (self.run, self.shift, self.newest) = (0, right, None);
            self.asked.clear();
        }
        self.timestamp = timestamp;
        let asked = right - self.run;
        if (self.run + self.shift - by_arrival).abs() > self.millis(MOST_OFF_MS) {
            // Its timestamps have jumped; what reports said of those before is of no use.
            self.shift = asked;
            self.newest = None;
            self.asked.clear();
        }
        if let Some((mapping, _)) = said.filter(|(mapping, _)| mapping.reported) {
            let wanted = self.hear((mapping.ntp, mapping.timestamp), asked);
            let off = wanted - self.shift;
            if off.abs() > self.millis(JUMP_MS) {
                self.shift = wanted;
            } else if off.abs() > self.millis(TOLERANCE_MS) {
                self.shift += off.signum() * self.millis(STEP_MS);
            }
        }
        let place = self.run + self.shift;
        let place = least.map_or(place, |least| place.max(least));
        let place = u64::try_from(place).ok()?;
        let step = self.millis(STEP_MS).unsigned_abs();
        let place = self.last.map_or(place, |last| place.max(last + step));
        self.last = Some(place);
        Some(place)
    }

    /// Takes a report, once; returns the shift that most of the last ones ask for, the lesser of two: who is busy is late.
    fn hear(&mut self, report: (u64, u32), asked: i64) -> i64 {
        if self.newest != Some(report) {
            self.newest = Some(report);
            self.asked.truncate(REPORTS - 1);
            self.asked.push_front(asked);
        }
        let mut sorted = [0; REPORTS];
        let sorted = &mut sorted[..self.asked.len()];
        for (place, asked) in sorted.iter_mut().zip(&self.asked) {
            *place = *asked;
        }
        sorted.sort_unstable();
        sorted[(sorted.len() - 1) / 2]
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

    /// A report so many 128ths of a second after the first, of a clock that the first one puts there.
    fn later(parts: u32, first: u64) -> Option<TimeMapping> {
        mapping(1_000 + 375 * parts, first + u64::from(parts))
    }

    #[test]
    fn time_follows_timestamps_and_is_drawn_to_what_reports_say() {
        let mut line = Timeline::new(Kind::Audio);
        let mut at =
            |n: u32, mapping| line.place(1, 1_000 + 960 * n, mapping, START, ntp(20), None);
        assert_eq!(at(0, later(0, 16)), Some(6_000));
        assert_eq!(at(1, later(1, 17)), Some(6_960), "8 ms are let alone");
        assert_eq!(at(2, later(2, 20)), Some(7_920), "one says more");
        let mut last = 7_920;
        for n in 3..60 {
            let place = at(n, later(n, 20)).expect("after the start");
            assert!((960..=1_008).contains(&(place - last)), "{last}, {place}");
            last = place;
        }
        let right = 7_500 + 59 * 960;
        assert!(
            (right - 480..=right).contains(&last),
            "31 ms, a little with each"
        );
        for n in 60..64 {
            last += 960;
            assert_eq!(at(n, later(n, 12)), Some(last), "four may be wrong");
        }
        last += 960 - 48;
        assert_eq!(at(64, later(64, 12)), Some(last), "back too");
        for n in 65..69 {
            last += 960 - 48;
            assert_eq!(at(n, later(n, 276)), Some(last), "2 s, four times");
        }
        let jump = 103_500 + 69 * 960;
        assert_eq!(at(69, later(69, 276)), Some(jump));
        for n in 70..74 {
            let place = jump + 960 * u64::from(n - 69);
            assert_eq!(at(n, later(n, 20)), Some(place));
        }
        let place = jump + 960 * 4 + 48;
        assert_eq!(at(74, later(74, 20)), Some(place), "never back");
        assert_eq!(
            at(75, later(75, 20)),
            Some(place + 48),
            "a millisecond each"
        );
    }

    #[test]
    fn reports_of_a_device_that_is_busy_for_a_while_move_nothing() {
        let mut line = Timeline::new(Kind::Audio);
        for n in 0..1_000 {
            // One a second; some are 70 ms late, or two seconds.
            let second = n / 50;
            let late = match second {
                1 | 5 | 6 => 9,
                13..=16 => 256,
                _ => 0,
            };
            let report = later(128 * second, 16 + late);
            let arrived = ntp(20 + u64::from(128 * second));
            let place = line.place(1, 1_000 + 960 * n, report, START, arrived, None);
            assert_eq!(place, Some(6_000 + 960 * u64::from(n)), "frame {n}");
        }
    }

    #[test]
    fn timestamps_that_jump_begin_anew_and_reports_of_those_before_are_forgotten() {
        // A sender without a track for a minute, an encoder that starts anew, and a wrap of the picture's clock.
        for (kind, pause, jump) in [
            (Kind::Audio, 60, -60_i64 * 48_000),
            (Kind::Audio, 0, 20 * 48_000),
            (Kind::Video, 0, 5 * 3_600 * 90_000),
            (Kind::Video, 30_000, 0),
        ] {
            let mut line = Timeline::new(kind);
            let rate = u64::from(clock_rate(kind));
            let mut report = None;
            for n in 0..2_000 {
                let (after, jump) = match n {
                    0..1_000 => (0, 0),
                    _ => (pause, jump),
                };
                let ticks = n * rate / 50 + after * rate;
                let timestamp = (ticks as i64 + jump) as u32;
                let arrived = START + (u128::from(ticks) << 32).div_ceil(rate.into()) as u64;
                if n % 50 == 10 {
                    report = Some(TimeMapping {
                        source: 1,
                        ntp: arrived,
                        timestamp,
                        reported: true,
                    });
                }
                let place = line.place(1, timestamp, report, START, arrived, None);
                let off = place.expect("after the start").abs_diff(ticks);
                assert!(
                    off <= rate,
                    "{kind:?}, {pause} s, {jump}: frame {n} is {off} off"
                );
            }
        }
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
            line.place(1, 960 * n, Some(by_arrival), START, ntp(parts), None)
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
            line.place(1, timestamp, mapping(first, 0), START, ntp(arrived), None)
        };
        assert_eq!(at(&mut line, first, 0), Some(0));
        assert_eq!(at(&mut line, 1_500, 33), Some(3_000));
        // Nor does what arrives late hide it, where there is no report.
        let mut line = Timeline::new(Kind::Video);
        assert_eq!(line.place(1, first, None, START, ntp(0), None), Some(0));
        assert_eq!(
            line.place(1, 1_500, None, START, ntp(33), None),
            Some(3_000)
        );
    }

    #[test]
    fn what_is_from_before_the_start_has_no_time_or_the_first_ones() {
        let mut line = Timeline::new(Kind::Audio);
        let before = Some(TimeMapping {
            source: 1,
            ntp: START - (1 << 32),
            timestamp: 0,
            reported: true,
        });
        let mut at = |timestamp: u32, least: Option<i64>| {
            let arrived = START - (1 << 32) + (u64::from(timestamp) << 32) / 48_000;
            line.place(1, timestamp, before, START, arrived, least)
        };
        assert_eq!(at(960, None), None);
        assert_eq!(at(1_920, Some(0)), Some(0));
        assert_eq!(at(2_880, Some(0)), Some(48));
        assert_eq!(at(48_000 + 960, Some(0)), Some(960));
        assert_eq!(at(48_000 + 1_920, Some(5_000)), Some(5_000));
    }

    #[test]
    fn a_report_that_is_absurd_is_not_believed() {
        let mut line = Timeline::new(Kind::Video);
        let absurd = mapping(0, 10_000_000);
        let mut at = |timestamp, parts| line.place(1, timestamp, absurd, START, ntp(parts), None);
        assert_eq!(at(0, 8), Some(5_625));
        assert_eq!(at(9_000, 16), Some(14_625));
    }
}
