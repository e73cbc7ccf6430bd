//! The JSON report: its shape and the percentiles in it. Every duration is in milliseconds.

use std::time::Duration;

use client::Codec;
use serde::Serialize;

/// The whole report. Field names are part of the tool's contract.
#[derive(Debug, Serialize)]
pub struct Report {
    pub shape: Shape,
    pub devices: Vec<DeviceReport>,
    /// Over all viewers, from the first media packet to the drained end.
    pub expected_packets: u64,
    pub delivered_packets: u64,
    pub delivered_payload_bytes: u64,
    /// Missing by sequence gaps, over all viewers.
    pub lost_packets: u64,
    pub delivered_ratio: f64,
    pub video_frames: u64,
    pub viewers_connected: usize,
    pub viewers_failed: usize,
    /// The first few reasons why a session failed.
    pub failures: Vec<String>,
    /// Viewers joined `at_rest` (before media flowed) or `live`.
    pub joined: &'static str,
    pub publisher_setup_ms: SetupReport,
    pub viewer_setup_ms: SetupReport,
    /// The measured window, after the warm-up.
    pub window_seconds: f64,
    pub window_delivered_packets: u64,
    /// CPU time of this tool over the window, in parts of one core.
    pub own_cpu_cores: f64,
    pub server: Option<ServerReport>,
}

#[derive(Debug, Serialize)]
pub struct Shape {
    pub codec: Codec,
    pub publishers: u32,
    pub viewers: u32,
    pub frames_per_second: u32,
    pub packets_per_frame: u32,
    pub packet_bytes: u32,
}

#[derive(Debug, Serialize)]
pub struct DeviceReport {
    pub device: String,
    pub packets_sent: u64,
    pub keyframe_requests: u64,
    pub viewers: usize,
    pub delivered_packets: u64,
    pub lost_packets: u64,
}

/// From the start of a set-up.
#[derive(Debug, Serialize)]
pub struct SetupReport {
    pub answered: Percentiles,
    pub connected: Percentiles,
    /// Only of viewers that joined live: the others wait for media to begin.
    pub first_packet: Option<Percentiles>,
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

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Percentiles {
    /// Nearest-rank percentiles; all zero without values.
    pub fn of(values: impl IntoIterator<Item = Duration>) -> Self {
        let mut values: Vec<f64> = values
            .into_iter()
            .map(|value| (value.as_secs_f64() * 1e6).round() / 1e3)
            .collect();
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

/// Rounded for people: four significant decimals are more than the measurement has.
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
}
