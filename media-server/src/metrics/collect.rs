//! What is asked for at each scrape: sessions, shards and totals, as series.
//!
//! Reads the registry and the shards' cells; changes nothing but gauges and totals. Called by the
//! handler of `/metrics`.

use super::totals::Totals;
use super::{Metrics, render_labels, write_series};
use crate::app::App;
use crate::auth::jwks;
use crate::events::queue::Dropped;
use crate::registry::{Record, role_name};
use crate::shard::{Bound, Outcome};
use catalogue::families::{Family, Scope};
use media_core::cells::{Drop, Forgotten, IceState, KeyframeCause, Served, VideoLimit};
use media_core::negotiated::Role;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// The text of `/metrics`.
pub fn scrape(app: &App) -> String {
    let metrics = &app.metrics;
    set_totals(app, metrics);
    set_shards(app, metrics);
    set_recordings(app, metrics);
    let policy = app.config.series;
    if let Some(limit) = Instant::now().checked_sub(policy.session_grace) {
        app.registry.expire(limit);
    }
    let mut records = app.registry.sessions();
    records.extend(app.registry.ended());
    records.sort_by_key(|record| record.id);
    let totals = (!policy.per_session).then(|| app.registry.session_totals());
    let mut folded = Vec::new();
    let text = metrics.render(|family, room, text| {
        if family.scope == Scope::Session {
            let (own, rest) = records.split_at(room.min(records.len()));
            if policy.per_session {
                for record in own {
                    let id = record.id.to_string();
                    write_session(text, family, record, &id);
                }
                if !rest.is_empty() {
                    folded.push((family.name, rest.len()));
                    let mut sum = Totals::default();
                    rest.iter().for_each(|record| sum.add(&record.cells));
                    sum.write(text, family, &render_labels(&["session_id"], &["other"]));
                }
            }
            if let Some(totals) = &totals {
                totals.write(text, family, "");
            }
        }
    });
    for (family, count) in folded {
        metrics.count_folded(family, count);
    }
    text
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
    let forgotten = app.registry.forgotten() as f64;
    metrics.set("media_bound_hits_total", &["ended_sessions"], forgotten);
    for bound in [
        "http_connections",
        "event_streams",
        "candidates",
        "websockets",
        "websocket_queue",
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
        if let Some(age) = jwks.age() {
            metrics.set("media_jwks_age_seconds", &[], age.as_secs_f64());
        }
    }
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
    metrics.set("media_recordings", &[], active);
    metrics.set("media_recording_bytes_total", &[], of(&counts.bytes));
    for (result, count) in [("completed", &counts.completed), ("failed", &counts.failed)] {
        metrics.set("media_recordings_total", &[result], of(count));
    }
    for (cause, count) in [
        ("overflow", &counts.gaps_overflow),
        ("lost", &counts.gaps_lost),
    ] {
        metrics.set("media_recording_gaps_total", &[cause], of(count));
    }
}

/// Writes the series of one family for one session.
fn write_session(text: &mut String, family: &Family, record: &Record, id: &str) {
    let labels = render_labels(&["session_id"], &[id]);
    let gauge = |text: &mut String, value: Option<f64>| {
        if let Some(value) = value {
            write_series(text, family.name, "", &labels, value);
        }
    };
    let cells = &record.cells;
    let mut own = Totals::default();
    own.add(cells);
    if own.write(text, family, &labels) {
        return;
    }
    match family.name {
        "media_ice_connection_state" => {
            let state = cells.ice_state();
            let labels = format!("{labels},state=\"{}\"", state.as_str());
            write_series(text, family.name, "", &labels, f64::from(state as u8));
        }
        // Live figures end with the session: one that is over sends nothing at 30 frames a second.
        _ if matches!(cells.ice_state(), IceState::Failed | IceState::Closed) => {}
        "media_video_frame_rate" => gauge(text, cells.frame_rate()),
        "media_video_bitrate_bps" => gauge(text, cells.bitrate_bps()),
        "media_bandwidth_estimate_bps" => gauge(text, cells.estimate_bps()),
        "media_packet_loss_ratio" => gauge(text, cells.loss_ratio()),
        "media_rtt_milliseconds" => gauge(text, cells.rtt().map(|t| t.as_secs_f64() * 1e3)),
        "media_jitter_milliseconds" => gauge(text, cells.jitter().map(|t| t.as_secs_f64() * 1e3)),
        other => unreachable!("{other} has session scope and no source"),
    }
}
