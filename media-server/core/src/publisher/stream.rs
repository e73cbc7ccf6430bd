//! One stream of a publisher as received: what came, what is missing, what is reported.

use super::missing::Missing;
use crate::media::clock_rate;
use crate::negotiated::Kind;
use crate::rtcp::ReportBlock;
use crate::rtp;
use crate::stats::{Jitter, ticks};
use std::time::{Duration, Instant};

/// A picture that comes so much later than the one before it, as its timestamp has it, waited on its way.
const LATE: Duration = Duration::from_secs(1);

/// A stream as received.
pub(super) struct Stream {
    pub(super) ssrc: u32,
    pub(super) source: u64,
    first_seq: u64,
    pub(super) highest_seq: u64,
    pub(super) received: u64,
    pub(super) heard: Instant,
    pub(super) timestamp: u32,
    pub(super) jitter: Jitter,
    /// Expected and received at the last report.
    reported: (u64, u64),
    /// Compact NTP time of the last sender report, and when it came.
    pub(super) sender_report: Option<(u32, Instant)>,
    pub(super) missing: Missing,
}

impl Stream {
    /// One that begins with this packet.
    pub(super) fn new(now: Instant, source: u64, header: &rtp::Header, seq: u64) -> Stream {
        Stream {
            ssrc: header.ssrc,
            source,
            first_seq: seq,
            highest_seq: seq,
            received: 0,
            heard: now,
            timestamp: header.timestamp,
            jitter: Jitter::default(),
            reported: (0, 0),
            sender_report: None,
            missing: Missing::default(),
        }
    }

    /// Returns how many missing packets had to be given up for new ones.
    pub(super) fn handle_packet(
        &mut self,
        now: Instant,
        timestamp: u32,
        seq: u64,
        kind: Kind,
        nack: bool,
    ) -> u64 {
        let mut given_up = 0;
        if nack && self.received > 0 && seq > self.highest_seq + 1 {
            given_up = self.missing.gap(now, self.highest_seq + 1..seq);
        }
        self.received += 1;
        self.heard = now;
        self.first_seq = self.first_seq.min(seq);
        if seq >= self.highest_seq {
            self.highest_seq = seq;
            self.timestamp = timestamp;
        }
        self.jitter.add(now, timestamp, clock_rate(kind));
        given_up
    }

    /// Whether this packet shows that it was not the device that paused, but that what it sent did not come:
    /// as many packets are missing as there are seconds in the pause, so that they left no second without
    /// one, or it is late. One missing in a long pause is usual loss. A stream that begins shows nothing, and
    /// a device that was there the whole time goes on with the one that it had.
    pub(super) fn was_cut_off(&self, pause: Duration, timestamp: u32, seq: u64) -> bool {
        let missing = seq.saturating_sub(self.highest_seq + 1);
        let passed =
            f64::from(timestamp.wrapping_sub(self.timestamp)) / f64::from(clock_rate(Kind::Video));
        let late = passed + LATE.as_secs_f64() <= pause.as_secs_f64();
        self.received == 0 || missing >= pause.as_secs().max(1) || late
    }

    /// The report block (RFC 3550 appendix A.3), with what was expected and lost since the last.
    pub(super) fn report(&mut self, now: Instant) -> (ReportBlock, u32, i32) {
        let expected = self.highest_seq - self.first_seq + 1;
        let expected_now = expected.saturating_sub(self.reported.0);
        let received_now = self.received.saturating_sub(self.reported.1);
        self.reported = (expected, self.received);
        let lost_now = expected_now.saturating_sub(received_now);
        let block = ReportBlock {
            ssrc: self.ssrc,
            fraction_lost: (lost_now * 256)
                .checked_div(expected_now)
                .unwrap_or(0)
                .min(255) as u8,
            total_lost: (expected as i64 - self.received as i64).clamp(-0x80_0000, 0x7f_ffff)
                as i32,
            highest_seq: self.highest_seq as u32,
            jitter: self.jitter.ticks(),
            last_sr: self.sender_report.map_or(0, |(ntp, _)| ntp),
            delay: self.sender_report.map_or(0, |(_, at)| {
                ticks(now.saturating_duration_since(at), 65_536)
            }),
        };
        (
            block,
            expected_now.min(u64::from(u32::MAX)) as u32,
            (expected_now as i64 - received_now as i64).clamp(-0x80_0000, 0x7f_ffff) as i32,
        )
    }
}

/// The extended sequence number nearest to `highest` that ends in `seq`.
pub(super) fn extend(highest: u64, seq: u16) -> u64 {
    let step = i64::from(seq.wrapping_sub(highest as u16).cast_signed());
    highest.checked_add_signed(step).unwrap_or(u64::from(seq))
}
