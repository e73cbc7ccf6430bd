//! Whether the delay towards a viewer grows: the sign that a queue fills on the way
//! (draft-ietf-rmcat-gcc-02 §5, with a line through the last delays in place of its Kalman filter).
//!
//! Pure arithmetic on the times of packets. Called for each packet that a viewer reports.

use std::collections::VecDeque;

/// Packets sent or received this close together are one group: what lies between them is not the
/// network's doing.
const BURST_MICROS: i64 = 5_000;
/// Arrivals further apart than this are of another time: nothing is to be learnt from the distance.
const GAP_MS: f64 = 3_000.0;
/// Groups that the line is laid through: two thirds of a second of 30 frames. Fewer react sooner and take
/// jitter for a trend.
const WINDOW: usize = 20;
/// Weight of what was before in the smoothed delay.
const SMOOTHING: f64 = 0.9;
/// Slope times groups times this is compared with the threshold, in milliseconds.
const GAIN: f64 = 4.0;
const MAX_GROUPS: f64 = 60.0;
/// The threshold begins here, and goes after what it sees, slowly upwards and faster down: so that a
/// competing flow does not starve this one (§5.4).
const THRESHOLD: f64 = 12.5;
const THRESHOLD_RANGE: (f64, f64) = (6.0, 600.0);
const THRESHOLD_UP: f64 = 0.0087;
const THRESHOLD_DOWN: f64 = 0.039;
/// Outliers beyond the threshold by more than this do not move it.
const OUTLIER: f64 = 15.0;
/// The least delay is forgotten at this pace, as clocks drift and ways change: half a millisecond a second.
const DRIFT: f64 = 0.0005;
/// The trend must last so long to count.
const OVERUSE_MS: f64 = 10.0;

/// What the delays say about the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Usage {
    #[default]
    Normal,
    /// A queue grows.
    Over,
    /// A queue empties.
    Under,
}

#[derive(Debug, Clone, Copy)]
struct Group {
    first_sent: i64,
    sent: i64,
    first_arrived: i64,
    arrived: i64,
}

/// See the module. Times are microseconds, each of its own clock.
#[derive(Debug)]
pub(super) struct Trend {
    current: Option<Group>,
    before: Option<Group>,
    groups: f64,
    delay: f64,
    /// The least delay there was: what is above it waits in a queue.
    least: f64,
    smoothed: f64,
    /// Arrival and smoothed delay, in milliseconds.
    line: VecDeque<(f64, f64)>,
    start: i64,
    slope: f64,
    threshold: f64,
    adapted: f64,
    /// For how long, and how often, the trend was above the threshold.
    over: Option<(f64, u32)>,
    pub(super) usage: Usage,
}

impl Trend {
    pub(super) fn new() -> Self {
        Trend {
            current: None,
            before: None,
            groups: 0.0,
            delay: 0.0,
            least: 0.0,
            smoothed: 0.0,
            line: VecDeque::with_capacity(WINDOW),
            start: 0,
            slope: 0.0,
            threshold: THRESHOLD,
            adapted: 0.0,
            over: None,
            usage: Usage::Normal,
        }
    }

    /// Takes a packet that arrived, in the order of sending.
    pub(super) fn add(&mut self, sent: i64, arrived: i64) {
        let new = Group {
            first_sent: sent,
            sent,
            first_arrived: arrived,
            arrived,
        };
        let Some(group) = self.current.as_mut() else {
            self.start = arrived;
            self.current = Some(new);
            return;
        };
        // Caught up on the way: it waited behind the group and came right after it.
        let queued = arrived - group.arrived <= BURST_MICROS
            && arrived - group.arrived < sent - group.sent
            && arrived - group.first_arrived < 20 * BURST_MICROS;
        if sent - group.first_sent <= BURST_MICROS || queued {
            group.sent = group.sent.max(sent);
            group.arrived = group.arrived.max(arrived);
            return;
        }
        let finished = *group;
        self.current = Some(new);
        if let Some(before) = self.before.replace(finished) {
            self.compare(before, finished);
        }
    }

    /// How long packets wait in a queue, in milliseconds.
    pub(super) fn queue(&self) -> f64 {
        self.delay - self.least
    }

    fn compare(&mut self, before: Group, group: Group) {
        let sent = (group.sent - before.sent) as f64 / 1e3;
        let arrived = (group.arrived - before.arrived) as f64 / 1e3;
        if !(0.0..GAP_MS).contains(&arrived) {
            let (threshold, current) = (self.threshold, self.current);
            *self = Trend::new();
            (self.threshold, self.current) = (threshold, current);
            self.start = current.map_or(0, |group| group.arrived);
            return;
        }
        self.groups = (self.groups + 1.0).min(MAX_GROUPS);
        self.delay += arrived - sent;
        self.least = self.delay.min(self.least + DRIFT * arrived);
        self.smoothed = SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * self.delay;
        if self.line.len() == WINDOW {
            self.line.pop_front();
        }
        let at = (group.arrived - self.start) as f64 / 1e3;
        self.line.push_back((at, self.smoothed));
        let slope = slope(&self.line).unwrap_or(self.slope);
        self.detect(slope, sent, at);
    }

    fn detect(&mut self, slope: f64, passed: f64, at: f64) {
        let trend = slope * self.groups * GAIN;
        if trend > self.threshold {
            let (lasted, count) = self.over.map_or((passed / 2.0, 1), |(lasted, count)| {
                (lasted + passed, count + 1)
            });
            self.over = Some((lasted, count));
            if lasted > OVERUSE_MS && count > 1 && slope >= self.slope {
                self.over = Some((0.0, 0));
                self.usage = Usage::Over;
            }
        } else {
            self.over = None;
            self.usage = if trend < -self.threshold {
                Usage::Under
            } else {
                Usage::Normal
            };
        }
        self.slope = slope;
        let size = trend.abs();
        if size <= self.threshold + OUTLIER {
            let pace = if size < self.threshold {
                THRESHOLD_DOWN
            } else {
                THRESHOLD_UP
            };
            let passed = (at - self.adapted).clamp(0.0, 100.0);
            let (least, most) = THRESHOLD_RANGE;
            self.threshold += pace * (size - self.threshold) * passed;
            self.threshold = self.threshold.clamp(least, most);
        }
        self.adapted = at;
    }
}

/// Slope of the line through the points (least squares); `None` for too few.
fn slope(points: &VecDeque<(f64, f64)>) -> Option<f64> {
    if points.len() < WINDOW {
        return None;
    }
    let count = points.len() as f64;
    let (x, y) = points
        .iter()
        .fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (x, y) = (x / count, y / count);
    let (above, below) = points.iter().fold((0.0, 0.0), |(above, below), point| {
        let run = point.0 - x;
        (above + run * (point.1 - y), below + run * run)
    });
    (below > 0.0).then(|| above / below)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames each 33 ms that wait `wait(frame)` microseconds on the way.
    fn usages(frames: i64, wait: impl Fn(i64) -> i64) -> Vec<Usage> {
        let mut trend = Trend::new();
        let usage = |frame| {
            for packet in 0..4 {
                let sent = frame * 33_000 + packet * 10;
                trend.add(sent, sent + 70_000_000 + wait(frame));
            }
            trend.usage
        };
        (0..frames).map(usage).collect()
    }

    #[test]
    fn a_steady_way_is_normal_whatever_its_jitter() {
        let jitter = |frame: i64| frame * 7_919 % 8_000;
        assert!(usages(1_000, jitter).iter().all(|u| *u == Usage::Normal));
        assert!(usages(1_000, |_| 0).iter().all(|u| *u == Usage::Normal));
    }

    #[test]
    fn a_queue_that_fills_is_seen_within_a_second_and_so_is_its_end() {
        // From frame 60 on each waits 10 ms longer, up to 300 ms, and from frame 200 on less again.
        let wait = |frame: i64| match frame {
            60..90 => (frame - 60) * 10_000,
            90..200 => 300_000,
            200..230 => (230 - frame) * 10_000,
            _ => 0,
        };
        let seen = usages(400, wait);
        assert!(seen[..60].iter().all(|u| *u == Usage::Normal));
        assert!(seen[60..90].contains(&Usage::Over), "{seen:?}");
        assert_eq!(seen[190], Usage::Normal);
        assert!(seen[200..240].contains(&Usage::Under), "{seen:?}");
        assert_eq!(seen[399], Usage::Normal);
    }

    #[test]
    fn a_break_of_some_seconds_is_no_trend() {
        let mut trend = Trend::new();
        for i in 0..200 {
            let late = if i < 100 { 0 } else { 20_000_000 };
            trend.add(i * 33_000, i * 33_000 + late);
            assert_eq!(trend.usage, Usage::Normal);
        }
    }
}
