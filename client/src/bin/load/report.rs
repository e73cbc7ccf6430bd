//! The report: its shape, which is the JSON, and the percentiles in it. Every duration is in
//! milliseconds unless its name says seconds.

use std::time::Duration;

use client::{Codec, TrafficCounts};
use serde::Serialize;

use crate::blind::Blind;
use crate::layers::LayersReport;

/// The whole report. Field names are part of the tool's contract.
#[derive(Debug, Serialize)]
pub struct Report {
    pub shape: Shape,
    pub devices: Vec<DeviceReport>,
    /// Over all viewers, from the first media packet to the drained end.
    pub expected_packets: u64,
    pub delivered_packets: u64,
    pub delivered_payload_bytes: u64,
    /// Missing by sequence gaps after all repair, over all viewers.
    pub lost_packets: u64,
    pub delivered_ratio: f64,
    pub video_frames: u64,
    pub viewers_connected: usize,
    pub viewers_failed: usize,
    /// Connected viewers that never had a whole keyframe. Only known of our own publishers.
    pub viewers_without_picture: Option<u64>,
    /// Those, and who failed to come, churn's included. Of what others publish only who got no packet is known.
    /// If there is one, the tool ends with exit code 3.
    pub viewers_that_saw_nothing: u64,
    /// Why these had none, and those who failed. Churn tells of its failures itself.
    pub blind: Option<Blind>,
    /// The first few reasons why a session failed.
    pub failures: Vec<String>,
    /// What `--loss` was; what it dropped is in `traffic`, and not in `lost_packets` unless nobody sent it again.
    pub loss: Option<LossReport>,
    /// At the sockets of all sessions, from the first handshake on, those that failed too.
    pub traffic: TrafficReport,
    /// With `--layers` or `--viewer-layer`.
    pub layers: Option<LayersReport>,
    /// When a datagram has arrived, in every time of a set-up and in the latency: when the `kernel` had it, or
    /// with `--tcp`, of which the kernel does not tell, when this tool had read it (`tcp_read`).
    pub arrival_clock: &'static str,
    /// Viewers joined `at_rest` (before media flowed) or `live`.
    pub joined: &'static str,
    pub publisher_setup_ms: SetupReport,
    /// Of `--viewers`; a wave and churn have their own.
    pub viewer_setup_ms: SetupReport,
    pub wave: Option<WaveReport>,
    pub churn: Option<ChurnReport>,
    /// The measured window, after the warm-up.
    pub window_seconds: f64,
    pub window_delivered_packets: u64,
    /// From the publisher's send call to the viewer's socket read, over the window. Both are in this
    /// process, on one clock; the time that this tool's own tasks waited for a core is in it.
    pub forwarding_latency_ms: Option<Percentiles>,
    pub forwarding_latency_samples: u64,
    /// CPU time of this tool over the window, in parts of one core.
    pub own_cpu_cores: f64,
    pub own_cpu_us_per_received_packet: f64,
    pub server: Option<ServerReport>,
}

/// Loss on purpose.
#[derive(Debug, Serialize)]
pub struct LossReport {
    pub percent: f64,
    pub seed: u64,
    /// Handshakes of publishers that it ended, and that were tried again.
    pub publisher_setups_repeated: u64,
}

/// What crossed the tool's sockets, and what was dropped there on purpose.
#[derive(Debug, Serialize)]
pub struct TrafficReport {
    pub viewers: TrafficCounts,
    pub publishers: TrafficCounts,
}

#[derive(Debug, Serialize)]
pub struct Shape {
    pub codec: Codec,
    pub publishers: u32,
    pub viewers: u32,
    pub frames_per_second: u32,
    pub packets_per_frame: u32,
    pub packet_bytes: u32,
    pub keyframe_seconds: u32,
    pub joins_per_second: Option<f64>,
    pub wave: u32,
    pub churn_per_second: Option<f64>,
    pub layers: u32,
}

#[derive(Debug, Serialize)]
pub struct DeviceReport {
    pub device: String,
    pub packets_sent: u64,
    /// PLI and FIR that the publisher received.
    pub keyframe_requests: u64,
    pub viewers: u64,
    pub delivered_packets: u64,
    pub lost_packets: u64,
}

/// How long set-ups took.
#[derive(Debug, Default, Serialize)]
pub struct SetupReport {
    /// From the start, with the making of the offer.
    pub answered: Percentiles,
    pub connected: Percentiles,
    /// Only of viewers that joined live: the others wait for media to begin.
    pub first_packet: Option<Percentiles>,
    /// From the POST.
    pub post_to_connected: Percentiles,
    /// To the last missing packet of the first whole keyframe. Only of viewers that joined live.
    pub post_to_first_keyframe: Option<Percentiles>,
    /// Of each of them, from the end of its handshake.
    pub connected_to_first_keyframe: Option<Percentiles>,
}

/// One set-up, each time from its start.
#[derive(Debug, Clone, Default)]
pub struct Joined {
    pub offered: Duration,
    pub answered: Duration,
    pub connected: Duration,
    pub first_packet: Option<Duration>,
    pub picture: Option<Duration>,
}

impl SetupReport {
    pub fn of(joined: impl IntoIterator<Item = Joined>) -> Self {
        let joined: Vec<Joined> = joined.into_iter().collect();
        let all = |time: fn(&Joined) -> Duration| Percentiles::of(joined.iter().map(time));
        let some = |time: fn(&Joined) -> Option<Duration>| {
            let values: Vec<Duration> = joined.iter().filter_map(time).collect();
            (!values.is_empty()).then(|| Percentiles::of(values))
        };
        Self {
            answered: all(|join| join.answered),
            connected: all(|join| join.connected),
            first_packet: some(|join| join.first_packet),
            post_to_connected: all(|join| join.connected.saturating_sub(join.offered)),
            post_to_first_keyframe: some(|join| {
                join.picture.map(|at| at.saturating_sub(join.offered))
            }),
            connected_to_first_keyframe: some(|join| {
                join.picture.map(|at| at.saturating_sub(join.connected))
            }),
        }
    }
}

/// What became of a wave.
#[derive(Debug, Serialize)]
pub struct WaveReport {
    pub viewers: usize,
    pub connected: usize,
    pub failed: usize,
    /// Of those who connected.
    pub without_picture: usize,
    /// Both of them.
    pub blind: Blind,
    /// From the first POST: when the last one left. Later than was asked for, this tool was late.
    pub last_post_after_seconds: f64,
    pub all_connected_after_seconds: f64,
    /// From the first POST until half of all viewers had a whole keyframe.
    pub half_see_after_seconds: Option<f64>,
    /// The same for 99 of 100.
    pub most_see_after_seconds: Option<f64>,
    pub setup_ms: SetupReport,
    /// Keyframe requests that the publishers had from the first POST to the last picture.
    pub keyframe_requests: u64,
    pub earlier_viewers: usize,
    /// Packets that went missing meanwhile for those who were there before.
    pub lost_by_earlier_viewers: u64,
    /// CPU of this tool from the first POST to the last picture, in parts of one core. Near the
    /// machine's cores, the times above are this tool's more than the server's.
    pub own_cpu_cores: f64,
    pub server_cpu_cores: Option<f64>,
}

/// What became of the coming and going.
#[derive(Debug, Default, Serialize)]
pub struct ChurnReport {
    pub joined: u64,
    pub left: u64,
    pub failed: u64,
    pub first_failure: Option<String>,
    /// Ends whose DELETE the server did not take.
    pub not_deleted: u64,
    /// Changes that were due while too many others were under way.
    pub left_out: u64,
    pub setup_ms: SetupReport,
}

#[derive(Debug, Serialize)]
pub struct ServerReport {
    pub cpu_us_per_forwarded_packet: f64,
    /// Over the measured window, in parts of one core.
    pub cpu_cores: f64,
    /// Growth of resident memory over the set-ups, divided by the viewers, before media flows.
    pub rss_kib_per_viewer_at_rest: Option<f64>,
    pub rss_kib_at_end: u64,
    /// CPU over the set-ups of the viewers, HTTP included, divided by their number.
    pub cpu_ms_per_setup: Option<f64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Percentiles {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Percentiles {
    /// Nearest-rank percentiles; all zero without values.
    pub fn of(values: impl IntoIterator<Item = Duration>) -> Self {
        let mut values: Vec<f64> = values.into_iter().map(milliseconds).collect();
        values.sort_by(f64::total_cmp);
        let rank = |part: f64| {
            let rank = (part * values.len() as f64).ceil() as usize;
            values.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
        };
        Self {
            p50: rank(0.5),
            p99: rank(0.99),
            max: rank(1.0),
        }
    }
}

/// In milliseconds, to the microsecond.
pub fn milliseconds(value: Duration) -> f64 {
    (value.as_secs_f64() * 1e6).round() / 1e3
}

/// Rounded for people: four decimals are more than the measurement has.
pub fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values = (1..=100).map(Duration::from_millis);
        assert_eq!(
            Percentiles::of(values),
            Percentiles {
                p50: 50.0,
                p99: 99.0,
                max: 100.0
            }
        );
        let none: [Duration; 0] = [];
        assert_eq!(Percentiles::of(none).p99, 0.0);
    }

    #[test]
    fn times_from_the_post_leave_the_making_of_the_offer_out() {
        let ms = Duration::from_millis;
        let joined = |picture| Joined {
            offered: ms(5),
            answered: ms(8),
            connected: ms(20),
            first_packet: picture,
            picture,
        };
        let report = SetupReport::of([joined(None), joined(Some(ms(45)))]);
        assert_eq!(report.connected.p50, 20.0);
        assert_eq!(report.post_to_connected.p50, 15.0);
        let picture = report.post_to_first_keyframe.expect("one saw a picture");
        assert_eq!(picture.p50, 40.0);
        let picture = report.connected_to_first_keyframe.expect("one did");
        assert_eq!(picture.p50, 25.0);
        let blind = SetupReport::of([joined(None)]);
        assert_eq!(blind.post_to_first_keyframe, None);
    }
}
