//! The series of sessions: read from their cells at each scrape, a family at a time.
//!
//! Keeps nothing, so a session that is gone has no series. Called by `collect.rs`.

use super::text::Lines;
use super::totals::{CANDIDATES, CONNECTION_TIME, Totals};
use media_core::cells::{IceState, SessionCells};
use std::time::Duration;

/// A session with its `session_id` label, which is rendered once for all families.
pub struct Session<'a> {
    pub labels: String,
    pub cells: &'a SessionCells,
}

/// Writes the series that sessions have in a family of theirs.
pub fn write(lines: &mut Lines<'_>, sessions: &[Session<'_>]) {
    let millis = |time: Option<Duration>| time.map(|time| time.as_secs_f64() * 1e3);
    match lines.family.name {
        "media_ice_connection_state" => {
            let mut labels = String::new();
            for session in sessions {
                let state = session.cells.ice_state();
                labels.clear();
                for part in [&session.labels, ",state=\"", state.as_str(), "\""] {
                    labels.push_str(part);
                }
                lines.value(&labels, f64::from(state as u8));
            }
        }
        CANDIDATES | CONNECTION_TIME => {
            for session in sessions {
                Totals::of(session.cells).write(lines, &session.labels);
            }
        }
        "media_video_frame_rate" => gauges(lines, sessions, SessionCells::frame_rate),
        "media_video_bitrate_bps" => gauges(lines, sessions, SessionCells::bitrate_bps),
        "media_bandwidth_estimate_bps" => gauges(lines, sessions, SessionCells::estimate_bps),
        "media_packet_loss_ratio" => gauges(lines, sessions, SessionCells::loss_ratio),
        "media_rtt_milliseconds" => gauges(lines, sessions, |cells| millis(cells.rtt())),
        "media_jitter_milliseconds" => gauges(lines, sessions, |cells| millis(cells.jitter())),
        other => unreachable!("{other} has session scope and no source"),
    }
}

/// Live figures: they end with the session, as one that is over sends nothing at 30 frames a second.
fn gauges(
    lines: &mut Lines<'_>,
    sessions: &[Session<'_>],
    figure: impl Fn(&SessionCells) -> Option<f64>,
) {
    for session in sessions {
        if matches!(
            session.cells.ice_state(),
            IceState::Failed | IceState::Closed
        ) {
            continue;
        }
        if let Some(value) = figure(session.cells) {
            lines.value(&session.labels, value);
        }
    }
}
