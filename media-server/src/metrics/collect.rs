//! What is asked for at each scrape: sessions, shards and totals, as series.
//!
//! Reads the registry and the shards' cells; changes nothing but gauges and totals. Called by the
//! handler of `/metrics`.

use super::sessions::{self, Session};
use super::text::Format;
use super::{Metrics, OTHER, render_labels};
use crate::app::App;
use crate::auth::jwks;
use crate::events::queue::Dropped;
use crate::log;
use crate::registry::role_name;
use crate::shard::{Bound, Outcome};
use crate::trace;
use catalogue::families::{FAMILIES, Scope};
use media_core::cells::{Drop, Forgotten, KeyframeCause, Served, VideoLimit, Watched};
use media_core::negotiated::Role;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// The text of `/metrics`. Takes a while with thousands of sessions, and waits for nothing.
pub fn scrape(app: &App, format: Format) -> String {
    let metrics = &app.metrics;
    set_totals(app, metrics);
    set_shards(app, metrics);
    set_recordings(app, metrics);
    if !app.config.series.per_session {
        let totals = app.registry.session_totals();
        return metrics.render(format, |lines| totals.write(lines, ""));
    }
    if let Some(limit) = Instant::now().checked_sub(app.config.series.session_grace) {
        app.registry.expire(limit);
    }
    let (folded, others) = app.registry.folded();
    if folded > 0 {
        for family in FAMILIES.iter().filter(|f| f.scope == Scope::Session) {
            metrics.set_folded(family.name, folded);
        }
    }
    let records = app.registry.with_series();
    let sessions: Vec<Session<'_>> = records
        .iter()
        .map(|record| Session {
            labels: render_labels(&["session_id"], &[&record.id.to_string()]),
            cells: &record.cells,
        })
        .collect();
    let other = render_labels(&["session_id"], &[OTHER]);
    metrics.render(format, |lines| {
        if lines.family.scope == Scope::Session {
            sessions::write(lines, &sessions);
            if folded > 0 {
                others.write(lines, &other);
            }
        }
    })
}

fn set_totals(app: &App, metrics: &Metrics) {
    let (publishers, viewers) = app.registry.totals();
    metrics.set(
        "media_active_sessions",
        &[],
        f64::from(publishers + viewers),
    );
    for (role, count) in [(Role::Publisher, publishers), (Role::Viewer, viewers)] {
        metrics.set("media_sessions", &[role_name(role)], f64::from(count));
    }
    metrics.set(
        "media_session_limit",
        &[],
        f64::from(app.config.limits.sessions_per_pod),
    );
    metrics.set(
        "media_video_limit_bps",
        &[],
        f64::from(app.config.limits.video_kbps) * 1e3,
    );
    metrics.set("media_waiting_viewers", &[], app.registry.waiting() as f64);
    let handshakes = &app.limiter.handshakes;
    for (state, count) in [
        ("in_flight", handshakes.in_flight()),
        ("waiting", handshakes.waiting()),
    ] {
        metrics.set("media_handshakes", &[state], count as f64);
    }
    metrics.set("media_drain_state", &[], app.drain_state() as u8 as f64);
    let candidates = app.addresses.current();
    let addresses: HashSet<_> = candidates.iter().map(|c| c.address).collect();
    metrics.set("media_advertised_addresses", &[], addresses.len() as f64);
    for bound in [
        "http_connections",
        "event_streams",
        "candidates",
        "websockets",
        "websocket_queue",
        "scrapes",
    ] {
        metrics.touch("media_bound_hits_total", &[bound], Instant::now());
    }
    for (sink, queue) in app.events.queues() {
        let figures = [
            ("media_events_waiting", queue.waiting() as u64),
            ("media_events_delivered_total", queue.delivered()),
            ("media_events_retries_total", queue.retries()),
        ];
        for (family, figure) in figures {
            metrics.set(family, &[sink], figure as f64);
        }
        for reason in Dropped::ALL {
            let labels = [sink, reason.as_str()];
            metrics.set(
                "media_events_dropped_total",
                &labels,
                queue.dropped(reason) as f64,
            );
        }
    }
    if let Some(jwks) = app.auth.jwks() {
        for outcome in jwks::Outcome::ALL {
            let (count, result) = (jwks.count(outcome) as f64, [outcome.as_str()]);
            metrics.set("media_jwks_fetches_total", &result, count);
        }
        let crowded = jwks.crowded() as f64;
        metrics.set("media_bound_hits_total", &["token_keys"], crowded);
        if let Some(age) = jwks.age() {
            metrics.set("media_jwks_age_seconds", &[], age.as_secs_f64());
        }
    }
    if let Some(traces) = &app.traces {
        for outcome in trace::Outcome::ALL {
            let (count, result) = (traces.count(outcome) as f64, [outcome.as_str()]);
            metrics.set("media_trace_spans_total", &result, count);
        }
    }
    let suppressed = log::suppressed() as f64;
    metrics.set("media_log_lines_suppressed_total", &[], suppressed);
    let sockets = app.sockets.open() as f64;
    metrics.set("media_websocket_connections", &[], sockets);
    metrics.set("media_build_info", &[env!("CARGO_PKG_VERSION")], 1.0);
}

fn set_shards(app: &App, metrics: &Metrics) {
    let cells = app.shards.cells();
    let sum = |figure: &dyn Fn(&media_core::cells::ShardCells) -> u64| {
        cells.iter().map(|c| figure(c)).sum::<u64>() as f64
    };
    metrics.set("media_packets_total", &["in"], sum(&|c| c.packets_in()));
    metrics.set("media_packets_total", &["out"], sum(&|c| c.packets_out()));
    metrics.set("media_bytes_total", &["in"], sum(&|c| c.bytes_in()));
    metrics.set("media_bytes_total", &["out"], sum(&|c| c.bytes_out()));
    for reason in Drop::ALL {
        let count = sum(&|c| c.drops(reason));
        metrics.set("media_drops_total", &[reason.as_str()], count);
    }
    for bound in Bound::ALL {
        let hits: u64 = app.shards.bounds().iter().map(|b| b.hits(bound)).sum();
        metrics.set("media_bound_hits_total", &[bound.as_str()], hits as f64);
    }
    for what in Forgotten::ALL {
        let count = sum(&|c| c.forgotten(what));
        metrics.set("media_bound_hits_total", &[what.as_str()], count);
    }
    for sent in VideoLimit::ALL {
        let seconds = sum(&|c| c.video_limit(sent));
        metrics.set("media_video_limit_seconds_total", &[sent.as_str()], seconds);
    }
    for how in Watched::ALL {
        let seconds = sum(&|c| c.watched(how));
        metrics.set("media_viewer_seconds_total", &[how.as_str()], seconds);
    }
    for outcome in Outcome::ALL {
        let count: u64 = app.shards.control().iter().map(|c| c.of(outcome)).sum();
        let result = [outcome.as_str()];
        metrics.set("media_control_messages_total", &result, count as f64);
    }
    for cause in KeyframeCause::ALL {
        let count = sum(&|c| c.keyframe_requests(cause));
        metrics.set("media_keyframe_requests_total", &[cause.as_str()], count);
    }
    let nacked = [
        ("in", sum(&|c| c.nacked_in())),
        ("out", sum(&|c| c.nacked_out())),
    ];
    for (direction, count) in nacked {
        metrics.set("media_nacked_packets_total", &[direction], count);
    }
    let sent_again = [
        ("in", sum(&|c| c.retransmitted_in())),
        ("out", sum(&|c| c.retransmitted_out())),
    ];
    for (direction, count) in sent_again {
        metrics.set("media_retransmitted_packets_total", &[direction], count);
    }
    for served in Served::ALL {
        let count = sum(&|c| c.joins(served));
        metrics.set("media_join_total", &[served.as_str()], count);
    }
    metrics.set("media_cache_bytes", &[], sum(&|c| c.cache_bytes()));
    let connections = sum(&|c| c.tcp_connections());
    metrics.set("media_tcp_connections", &[], connections);
    metrics.set(
        "media_cache_shrinks_total",
        &[],
        sum(&|c| c.cache_shrinks()),
    );
    for (shard, cells) in cells.iter().enumerate() {
        metrics.set(
            "media_shard_sessions",
            &[&shard.to_string()],
            cells.sessions() as f64,
        );
    }
}

fn set_recordings(app: &App, metrics: &Metrics) {
    let counts = &app.recordings.counts;
    let of = |count: &AtomicU64| count.load(Relaxed) as f64;
    let active = app.recordings.all_active().len() as f64;
    metrics.set("media_recordings_active", &[], active);
    metrics.set("media_recording_bytes_total", &[], of(&counts.bytes));
    for (result, count) in [
        ("completed", &counts.completed),
        ("failed", &counts.failed),
        ("empty", &counts.empty),
    ] {
        metrics.set("media_recordings_total", &[result], of(count));
    }
    for (cause, count) in [
        ("overflow", &counts.gaps_overflow),
        ("lost", &counts.gaps_lost),
    ] {
        metrics.set("media_recording_gaps_total", &[cause], of(count));
    }
}
