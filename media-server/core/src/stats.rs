//! The arithmetic behind a session's figures: rates, loss, jitter. Pure; told the time.

use std::time::{Duration, Instant};

/// Temporal ids that a payload can name (RFC 9628 §4.2: three bits).
const TEMPORAL_IDS: usize = 8;
/// A stream's rates are counted over this.
const RATE_TIME: Duration = Duration::from_secs(1);
/// Seconds that the loss figure looks back on. One holds some 200 packets, too few to tell 5 % from 4 %.
const LOSS_SECONDS: usize = 10;

/// Totals, and what came in the current window.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    video_bytes: u64,
    frames: u64,
    window: Option<(Instant, u64, u64)>,
    told: bool,
}

impl Rates {
    /// A packet of `payload` bytes; of video, whether it begins a frame.
    pub(crate) fn add(&mut self, payload: usize, video: Option<bool>) {
        self.packets += 1;
        self.bytes += payload as u64;
        if let Some(new_frame) = video {
            self.video_bytes += payload as u64;
            self.frames += u64::from(new_frame);
        }
    }

    /// Whether there were packets, and this is the first time that it is asked since.
    pub(crate) fn begins(&mut self) -> bool {
        self.packets > 0 && !std::mem::replace(&mut self.told, true)
    }

    /// Frames and bits of video per second since the last call; `None` at the first.
    pub(crate) fn roll(&mut self, now: Instant) -> Option<(f64, f64)> {
        let (since, frames, bytes) = self.window.replace((now, self.frames, self.video_bytes))?;
        let seconds = now.saturating_duration_since(since).as_secs_f64();
        (seconds > 0.0).then(|| {
            (
                (self.frames - frames) as f64 / seconds,
                (self.video_bytes - bytes) as f64 * 8.0 / seconds,
            )
        })
    }
}

/// Bits per second of a stream by temporal layer, each with all below it, as its device sends them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TemporalRates {
    rates: [u64; TEMPORAL_IDS],
    /// The highest id that came, plus one.
    layers: u8,
}

impl TemporalRates {
    /// From the base on; empty while nothing is known.
    pub(crate) fn by_layer(&self) -> &[u64] {
        let known = usize::from(self.layers).min(TEMPORAL_IDS);
        &self.rates[..if self.total() > 0 { known } else { 0 }]
    }

    pub(crate) fn total(&self) -> u64 {
        self.rates[TEMPORAL_IDS - 1]
    }
}

/// Counts a stream's payload by temporal layer, over a second or, until more comes, longer.
#[derive(Debug, Default)]
pub(crate) struct TemporalCount {
    since: Option<Instant>,
    bytes: [u64; TEMPORAL_IDS],
    last: TemporalRates,
}

impl TemporalCount {
    /// Ends the time that was counted over if it was long enough. Called before what arrived `now` is added.
    pub(crate) fn roll(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(*self.since.get_or_insert(now));
        if passed < RATE_TIME {
            return;
        }
        self.since = Some(now);
        let mut sum = 0;
        for (bytes, rate) in self.bytes.iter_mut().zip(&mut self.last.rates) {
            sum += std::mem::take(bytes);
            *rate = sum * 8_000 / passed.as_millis() as u64;
        }
    }

    /// A packet of a picture with that temporal id.
    pub(crate) fn add(&mut self, id: u8, payload: usize) {
        let id = usize::from(id).min(TEMPORAL_IDS - 1);
        self.bytes[id] += payload as u64;
        self.last.layers = self.last.layers.max(id as u8 + 1);
    }

    /// Of the last time.
    pub(crate) fn rates(&self) -> TemporalRates {
        self.last
    }
}

/// Loss over the reports of the last ten seconds, however many they are.
#[derive(Debug, Default)]
pub(crate) struct Loss {
    began: Option<Instant>,
    /// What the reports of one second say, each in the place of the second ten before it.
    seconds: [LossSecond; LOSS_SECONDS],
}

#[derive(Debug, Default, Clone, Copy)]
struct LossSecond {
    /// Since the first report.
    second: u64,
    expected: u64,
    lost: i64,
}

impl Loss {
    /// What a report says that the one before did not. Fewer are lost then, if some were only late.
    pub(crate) fn add(&mut self, now: Instant, expected: u32, lost: i32) {
        let second = whole_seconds(*self.began.get_or_insert(now), now);
        let place = &mut self.seconds[second as usize % LOSS_SECONDS];
        if place.second != second {
            *place = LossSecond {
                second,
                ..LossSecond::default()
            };
        }
        place.expected += u64::from(expected);
        place.lost += i64::from(lost);
    }

    /// 0 to 1; `None` while nothing was expected.
    pub(crate) fn ratio(&self, now: Instant) -> Option<f64> {
        let current = whole_seconds(self.began?, now);
        let recent = self.seconds.iter();
        let recent = recent.filter(|place| place.second + LOSS_SECONDS as u64 > current);
        let (expected, lost) = recent.fold((0, 0), |sum, place| {
            (sum.0 + place.expected, sum.1 + place.lost)
        });
        (expected > 0).then(|| (lost as f64 / expected as f64).clamp(0.0, 1.0))
    }
}

/// Rounded: reports that come each second do so a little early or late.
fn whole_seconds(since: Instant, now: Instant) -> u64 {
    (now.saturating_duration_since(since) + Duration::from_millis(500)).as_secs()
}

/// Interarrival jitter (RFC 3550 §6.4.1, appendix A.8).
#[derive(Debug, Default)]
pub(crate) struct Jitter {
    last: Option<(Instant, u32)>,
    /// In timestamp units.
    estimate: f64,
}

impl Jitter {
    pub(crate) fn add(&mut self, now: Instant, timestamp: u32, clock_rate: u32) {
        if let Some((then, before)) = self.last.replace((now, timestamp)) {
            let arrival = now.saturating_duration_since(then).as_secs_f64() * f64::from(clock_rate);
            let sent = f64::from(timestamp.wrapping_sub(before).cast_signed());
            self.estimate += ((arrival - sent).abs() - self.estimate) / 16.0;
        }
    }

    pub(crate) fn ticks(&self) -> u32 {
        self.estimate as u32
    }
}

/// A duration in timestamp units, wrapped as timestamps are.
pub(crate) fn ticks(time: Duration, clock_rate: u32) -> u32 {
    (time.as_nanos() * u128::from(clock_rate) / 1_000_000_000) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_cover_the_time_since_the_last_window() {
        let start = Instant::now();
        let mut rates = Rates::default();
        assert_eq!(rates.roll(start), None);
        (0..210).for_each(|i| rates.add(1000, Some(i % 7 == 0)));
        (0..50).for_each(|_| rates.add(100, None));
        let (frames, bits) = rates
            .roll(start + Duration::from_secs(1))
            .expect("second window");
        assert_eq!((frames, bits), (30.0, 1_680_000.0));
        assert_eq!(rates.roll(start + Duration::from_secs(2)), Some((0.0, 0.0)));
    }

    #[test]
    fn temporal_layers_have_the_rate_of_all_below_them_too() {
        let (start, mut count) = (Instant::now(), TemporalCount::default());
        for n in 0..=120u64 {
            count.roll(start + Duration::from_millis(n * 25));
            if n == 39 {
                assert!(count.rates().by_layer().is_empty(), "nothing is known yet");
            }
            count.add([0, 2, 1, 2][n as usize % 4], 100);
        }
        assert_eq!(count.rates().by_layer(), [8_000, 16_000, 32_000]);
        assert_eq!(count.rates().total(), 32_000);
        count.roll(start + Duration::from_secs(60));
        count.roll(start + Duration::from_secs(120));
        let rates = count.rates();
        assert!(rates.by_layer().is_empty(), "nothing came for a minute");
    }

    #[test]
    fn loss_looks_back_on_ten_seconds_however_often_reports_come() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut loss = Loss::default();
        assert_eq!(loss.ratio(start), None);
        // Two streams, each with a report a second.
        for second in 0..10 {
            loss.add(at(second * 1_000), 100, 10);
            loss.add(at(second * 1_000 + 300), 100, 0);
        }
        assert_eq!(loss.ratio(at(9_400)), Some(0.05));
        // What was late at five reports, as those with a NACK tell it, and came.
        for ms in [9_410, 9_420, 9_430, 9_440, 9_450] {
            loss.add(at(ms), 0, 20);
            loss.add(at(ms + 5), 0, -20);
        }
        assert_eq!(loss.ratio(at(9_460)), Some(0.05));
        // One that comes each five seconds.
        let mut loss = Loss::default();
        loss.add(at(0), 100, 50);
        loss.add(at(5_000), 100, 0);
        assert_eq!(loss.ratio(at(9_400)), Some(0.25));
        assert_eq!(loss.ratio(at(10_000)), Some(0.0), "the first is over");
        loss.add(at(10_000), 100, 0);
        assert_eq!(loss.ratio(at(10_000)), Some(0.0));
        // And then none.
        assert_eq!(loss.ratio(at(19_400)), Some(0.0));
        assert_eq!(loss.ratio(at(20_000)), None);
    }

    #[test]
    fn jitter_is_the_smoothed_deviation_between_arrival_and_timestamps() {
        let (start, mut even, mut uneven) = (Instant::now(), Jitter::default(), Jitter::default());
        for i in 0..2000u32 {
            let due = start + Duration::from_millis(u64::from(i) * 20);
            even.add(due, i * 1800, 90_000);
            // Every other packet 10 ms late: each difference deviates by 10 ms.
            uneven.add(
                due + Duration::from_millis(u64::from(i % 2) * 10),
                i * 1800,
                90_000,
            );
        }
        assert!(even.ticks() <= 1, "{}", even.ticks());
        assert!(uneven.ticks().abs_diff(900) <= 1, "{}", uneven.ticks());
    }
}
