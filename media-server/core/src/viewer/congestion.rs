//! What a viewer's way carries, and what of the stream it gets while that is less than all.
//!
//! The estimate comes from the best feedback that the viewer gives: on each packet (transport-wide
//! congestion control), else REMB, else the loss of its receiver reports. It sets the pace, and decides which
//! layers the viewer gets, see `acts`. One that falls too far behind even so gets nothing more of the group
//! of pictures, and goes on with the next keyframe: what it got can always be decoded. Audio is never held
//! back.
//!
//! Decides and counts; the viewer sends.

use super::estimate::{Estimator, HEADROOM, MAX_ESTIMATE, MIN_ESTIMATE, RECOVERED};
use super::history::History;
use super::pacer::{CATCH_UP_RATE, OVERHEAD, Pacer};
use super::probe::Probe;
use crate::negotiated::Negotiated;
use crate::rtcp::twcc;
use std::time::{Duration, Instant};

/// A frame that would begin so late is not sent, nor what follows it up to the next keyframe.
const MAX_LAG: Duration = Duration::from_secs(1);
/// Without a keyframe for so long after that the device is asked for one, and as often at most.
const KEYFRAME_INTERVAL: Duration = Duration::from_secs(2);
/// Below this there is no video, so that audio goes on, in bits per second; from the other on again.
const PAUSE: u64 = 50_000;
const RESUME: u64 = 60_000;
/// How often the stream's rate is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// What is paused gives no feedback to rise by: after so long without any it rises by itself.
const SILENCE: Duration = Duration::from_secs(5);
/// Stands for the round trip until one was measured.
const USUAL_ROUND_TRIP: Duration = Duration::from_millis(100);
/// Part of the estimate that is sent while a queue stands on the way.
const EMPTYING_TENTHS: u64 = 7;
/// A probe goes up to twice the estimate, and to so much of the stream that congestion ends.
const PROBE_TENTHS: u64 = 16;
/// Without padding to probe with, so long after congestion or the last try half as much again is sent.
const TRY_AFTER: Duration = Duration::from_secs(5);
/// From receiver reports: losses beyond the first part, in percent, mean congestion, below the second
/// there is room for more.
const HIGH_LOSS: u64 = 10;
const LOW_LOSS: u64 = 2;
/// Packets that a share of losses is told from.
const REPORTED: u64 = 50;

/// See the module.
#[derive(Debug)]
pub(super) struct Congestion {
    epoch: Instant,
    now: Instant,
    history: History,
    estimator: Option<Box<Estimator>>,
    probe: Probe,
    remb: bool,
    told: Option<u64>,
    /// From receiver reports: packets and losses since the last look, and a limit if they showed one.
    reported: (u64, i64),
    from_losses: Option<u64>,
    /// Bits per second of the stream.
    stream: u64,
    look_at: Instant,
    /// When media was last sent as a probe.
    tried: Instant,
    heard: Instant,
    pacer: Pacer,
    /// While video is cut off: since when, or when the device was last asked for a keyframe since.
    cut: Option<Instant>,
    paused: bool,
    /// When the viewer began with what there was: that is not late.
    began: Instant,
}

impl Congestion {
    pub(super) fn new(now: Instant, negotiated: &Negotiated) -> Self {
        Congestion {
            epoch: now,
            now,
            history: History::default(),
            estimator: None,
            probe: Probe::new(),
            remb: negotiated.remb,
            told: None,
            reported: (0, 0),
            from_losses: None,
            stream: 0,
            look_at: now,
            tried: now,
            heard: now,
            pacer: Pacer::new(now),
            cut: None,
            paused: false,
            began: now,
        }
    }

    /// Bits per second that there is room for.
    pub(super) fn estimate(&self) -> u64 {
        match &self.estimator {
            Some(estimator) => estimator.rate(),
            None => self.limit().unwrap_or(headroom(self.stream)),
        }
    }

    /// Whether the estimate is more than a guess.
    pub(super) fn is_known(&self) -> bool {
        self.estimator.is_some() || self.limit().is_some()
    }

    fn limit(&self) -> Option<u64> {
        self.told.into_iter().chain(self.from_losses).min()
    }

    /// The estimate, if it is less than the viewer would take otherwise.
    pub(super) fn bottleneck(&self) -> Option<u64> {
        let congested = match &self.estimator {
            Some(estimator) => estimator.is_congested(),
            None => self
                .limit()
                .is_some_and(|limit| (limit as f64) < RECOVERED * self.stream as f64),
        };
        congested.then(|| self.estimate())
    }

    /// Tells the time, before anything is sent. `stream` gives the rate of the stream.
    pub(super) fn begin(&mut self, now: Instant, stream: impl FnOnce() -> u64) {
        self.now = now;
        self.pacer.fill(now);
        if now >= self.look_at {
            self.look_at = now + LOOK;
            self.stream = stream();
            self.set_pace();
        }
    }

    fn set_pace(&mut self) {
        if !self.is_known() {
            self.paused = false;
            return self.pacer.set_unknown(self.stream);
        }
        let estimate = self.estimate();
        match &self.estimator {
            // Half as much again as the stream has had is no limit to a picture that begins to move.
            Some(estimator) if !estimator.is_congested() => self.pacer.set_wide(estimate),
            Some(estimator) if estimator.is_queued(self.now) => {
                self.pacer.set_bandwidth(estimate * EMPTYING_TENTHS / 10);
            }
            _ => self.pacer.set_bandwidth(estimate),
        }
        let least = if self.paused { RESUME } else { PAUSE };
        self.paused = self.is_limited() && estimate < least;
    }

    /// Whether a packet with so much payload may go now.
    pub(super) fn has_room(&self, payload: usize) -> bool {
        self.pacer.has(payload + OVERHEAD)
    }

    /// Whether a live packet with so much payload may go now. Only a bandwidth that is known holds it.
    pub(super) fn has_room_live(&self, payload: usize) -> bool {
        self.has_room(payload) || !self.is_known()
    }

    /// The transport-wide number that the next packet takes.
    pub(super) fn transport_seq(&self) -> u16 {
        self.history.next()
    }

    /// Notes a packet that goes now; `numbered` if it has a transport-wide number.
    pub(super) fn sent(&mut self, payload: usize, numbered: bool) {
        let bytes = payload + OVERHEAD;
        self.pacer.spend(bytes);
        if numbered {
            let micros = self.now.saturating_duration_since(self.epoch).as_micros();
            self.history.push(micros as u32, bytes);
        }
    }

    /// Takes the transport-wide feedback of a compound; returns how many packets of it were of no use.
    pub(super) fn handle_feedback(
        &mut self,
        now: Instant,
        compound: &[u8],
        round_trip: Option<Duration>,
    ) -> u64 {
        if self.history.is_empty() {
            return 0;
        }
        let micros = now.saturating_duration_since(self.epoch).as_micros() as i64;
        let (mut useless, mut reported) = (0, None);
        let unread = twcc::read(compound, |feedback| {
            // Of a stream that has only begun, nothing is known.
            let rate = match self.stream {
                0 => CATCH_UP_RATE,
                stream => headroom(stream),
            };
            let estimator = self
                .estimator
                .get_or_insert_with(|| Box::new(Estimator::new(now, rate)));
            let whole = feedback.for_each(|seq, arrived| {
                let Some((at, bytes)) = self.history.take(seq) else {
                    useless += u64::from(arrived.is_some());
                    return;
                };
                reported = Some(seq.wrapping_add(1));
                let sent = micros - i64::from((micros as u32).wrapping_sub(at));
                match arrived {
                    Some(arrived) => {
                        estimator.delivered(sent, arrived, bytes);
                        self.probe.delivered(seq, sent, arrived, bytes);
                    }
                    None => estimator.lost(),
                }
            });
            useless += u64::from(whole.is_none());
        });
        if let (Some(estimator), Some(reported)) = (self.estimator.as_mut(), reported) {
            self.heard = now;
            let round_trip = round_trip.unwrap_or(USUAL_ROUND_TRIP);
            if let Some(rate) = self.probe.result(now, reported, estimator.rate()) {
                estimator.raise(rate);
            }
            estimator.update(now, round_trip, self.stream);
            self.now = now;
            self.set_pace();
        }
        useless + unread
    }

    /// Begins to look for more bandwidth than is known, if there is not enough. Without `padding` to probe
    /// with, media has to do: more of it is sent now and then.
    pub(super) fn look_for_more(&mut self, now: Instant, padding: bool) {
        let estimator = self.estimator.as_ref();
        let Some(estimator) = estimator.filter(|e| e.is_congested() && !e.is_queued(now)) else {
            return;
        };
        if !padding {
            let since = estimator
                .decreased()
                .map_or(self.tried, |at| at.max(self.tried));
            if now >= since + TRY_AFTER {
                let rate = (estimator.rate() as f64 * HEADROOM).min(RECOVERED * self.stream as f64);
                self.tried = now;
                if let Some(estimator) = self.estimator.as_mut() {
                    estimator.raise(rate);
                }
                self.set_pace();
            }
            return;
        }
        let wanted = self.stream.saturating_mul(PROBE_TENTHS) / 10;
        let rate = (2 * estimator.rate()).min(wanted).max(RESUME);
        let next = self.history.next();
        self.probe.begin(now, estimator.decreased(), rate, next);
    }

    pub(super) fn probe_due(&self) -> Option<Instant> {
        self.probe.due()
    }

    /// Packets of padding to send now; then [`probed`](Self::probed) is called.
    pub(super) fn take_probe(&mut self, now: Instant) -> u64 {
        self.now = now;
        self.probe.take(now)
    }

    pub(super) fn probed(&mut self) {
        self.probe.sent_up_to(self.history.next());
    }

    /// Takes a REMB of the viewer.
    pub(super) fn handle_bandwidth(&mut self, bits_per_second: u64) {
        if self.remb {
            let told = bits_per_second.clamp(MIN_ESTIMATE as u64, MAX_ESTIMATE as u64);
            self.told = Some(told);
            self.set_pace();
        }
    }

    /// Takes what receiver reports say of the packets since the last.
    pub(super) fn handle_loss(&mut self, expected: u32, lost: i32) {
        self.reported.0 += u64::from(expected);
        self.reported.1 += i64::from(lost);
        let (expected, lost) = self.reported;
        if self.estimator.is_some() || self.stream == 0 || expected < REPORTED {
            return;
        }
        self.reported = (0, 0);
        let lost = lost.max(0).cast_unsigned();
        let from = self.limit().unwrap_or(headroom(self.stream));
        if lost * 100 > expected * HIGH_LOSS {
            let less = from - (from / 2).min(from * lost.min(expected) / expected / 2);
            self.from_losses = Some(less.max(MIN_ESTIMATE as u64));
        } else if lost * 100 < expected * LOW_LOSS {
            // As fast as it takes to get from a third to all within ten reports.
            let more = self.from_losses.map(|limit| limit + limit / 7);
            self.from_losses = more.filter(|limit| *limit < headroom(self.stream));
        }
        self.set_pace();
    }

    /// Whether the pace is a limit that was seen.
    pub(super) fn is_limited(&self) -> bool {
        match &self.estimator {
            Some(estimator) => estimator.is_congested(),
            None => self.is_known(),
        }
    }

    /// Whether a frame that arrived then is too late to begin.
    pub(super) fn is_late(&self, now: Instant, arrived: Instant) -> bool {
        let lag = now.saturating_duration_since(self.due(arrived));
        self.paused || lag > MAX_LAG && self.is_limited()
    }

    /// When what arrived then should have been sent.
    pub(super) fn due(&self, arrived: Instant) -> Instant {
        arrived.max(self.began)
    }

    /// Whether there is no room for video at all.
    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    /// Video ends here until the next keyframe.
    pub(super) fn cut(&mut self, now: Instant) {
        self.cut = Some(now);
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.is_some()
    }

    /// Whether a packet is held back: all up to the next keyframe.
    pub(super) fn withholds(&self, starts_keyframe: bool) -> bool {
        self.cut.is_some() && (self.paused || !starts_keyframe)
    }

    /// Video goes on, with what arrived at `now` or before.
    pub(super) fn resume(&mut self, now: Instant) {
        self.cut = None;
        self.began = now;
    }

    /// Each second: whether the device should be asked for a keyframe, because none came by itself.
    pub(super) fn tick(&mut self, now: Instant) -> bool {
        if self.paused && now >= self.heard + SILENCE {
            self.heard = now;
            if let Some(estimator) = self.estimator.as_mut() {
                estimator.raise(RESUME as f64);
            } else {
                self.from_losses = self.from_losses.map(|limit| limit.max(RESUME));
            }
            self.set_pace();
        }
        let due = self.cut.as_mut();
        due.filter(|at| !self.paused && now >= **at + KEYFRAME_INTERVAL)
            .map(|at| *at = now)
            .is_some()
    }
}

fn headroom(stream: u64) -> u64 {
    (stream as f64 * HEADROOM) as u64
}
