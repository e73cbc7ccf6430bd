//! The table of metric families that `media-server` exposes.
//!
//! Owns names, kinds, units, labels, buckets and help texts; holds no values. The server announces and
//! renders every family from here, rules and dashboards are checked against it. Names that the
//! service which this one replaces had stay as they were, for the dashboards that use them.

mod entry;
mod kinds;
mod labels;
mod promised;

pub use kinds::*;
pub use labels::*;
pub use promised::*;

/// One metric family.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    pub help: &'static str,
    /// In the order in which they are written.
    pub labels: &'static [&'static str],
    /// Upper bounds, ascending, without +Inf; empty unless a histogram.
    pub buckets: &'static [f64],
    pub scope: Scope,
}

impl Family {
    /// Names that a query may use: the family's, or for a histogram those of its three parts.
    pub fn series_names(&self) -> Vec<String> {
        match self.kind {
            Kind::Histogram => ["_bucket", "_sum", "_count"]
                .iter()
                .map(|part| format!("{}{part}", self.name))
                .collect(),
            Kind::Counter | Kind::Gauge => vec![self.name.to_owned()],
        }
    }
}

/// The family called `name`, or the histogram that has a part of that name.
pub fn find(name: &str) -> Option<&'static Family> {
    FAMILIES
        .iter()
        .find(|family| family.series_names().iter().any(|known| known == name))
}

use Kind::{Counter, Gauge};
use entry::{family, histogram, of_device, of_session};

/// Every family of `media-server`.
pub const FAMILIES: &[Family] = &[
    // Sessions.
    family(
        "media_active_sessions",
        Gauge,
        Unit::Count,
        &[],
        "Sessions open now, publishers and viewers.",
    ),
    of_device(family(
        "media_sessions_created_total",
        Counter,
        Unit::Count,
        &["device_id"],
        "Sessions admitted.",
    )),
    of_device(family(
        "media_sessions_closed_total",
        Counter,
        Unit::Count,
        &["device_id", "reason"],
        "Sessions ended, by reason.",
    )),
    of_device(histogram(
        "media_session_duration_seconds",
        Unit::Seconds,
        &["device_id"],
        &[60.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0],
        "Time from a session's admission to its end.",
    )),
    family(
        "media_sessions",
        Gauge,
        Unit::Count,
        &["role"],
        "Sessions open now, by role: publisher or viewer.",
    ),
    family(
        "media_session_limit",
        Gauge,
        Unit::Count,
        &[],
        "Sessions that this process admits at most.",
    ),
    family(
        "media_setup_total",
        Counter,
        Unit::Count,
        &["role", "protocol", "result"],
        "Session set-ups, by result: connected; failed (never connected, and was not ended by its client before it should have: 10 s after its POST, or 3 s where its device asked anew); cancelled (ended by its client, or with its device, before that); refused (overload or draining).",
    ),
    histogram(
        "media_setup_seconds",
        Unit::Seconds,
        &["role"],
        &[0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0],
        "Time from the POST, where the server offers from the answer, to the end of the DTLS handshake, of sessions that connected.",
    ),
    histogram(
        "media_first_media_seconds",
        Unit::Seconds,
        &[],
        &[0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0],
        "Time from a viewer's POST to the first packet that it was sent of what it watches (of video, if it takes some), where the device was live at its POST.",
    ),
    family(
        "media_viewers_without_media_total",
        Counter,
        Unit::Count,
        &[],
        "Viewers of devices that were live at their POST, which connected, stayed for 3 s or longer, and ended without a packet of media.",
    ),
    family(
        "media_viewer_seconds_total",
        Counter,
        Unit::Seconds,
        &["quality"],
        "Seconds that viewers watched live devices, by how they were: good; still, the device was there and sent no picture for a second or longer, and viewers have its last one; gap, nothing was sent for a second or longer though there was something to send, or the device was out of reach; loss, 5 % or more of what was sent in the last ten seconds was lost. A second without a picture is counted when the device is heard again, or after 15 s without a sign of it.",
    ),
    family(
        "media_handshakes",
        Gauge,
        Unit::Count,
        &["state"],
        "Session set-ups under way: in_flight (200 at most), waiting for a place (2000 at most, for 10 s).",
    ),
    family(
        "media_waiting_viewers",
        Gauge,
        Unit::Count,
        &[],
        "Viewers of the older API that came before their device (500 at most), and wait for it.",
    ),
    family(
        "media_refused_total",
        Counter,
        Unit::Count,
        &["limit"],
        "Requests refused by a limit: with 429 subject and device (rates); with 503 sessions, viewers, waiting and handshakes; with 500 recordings (64 at once).",
    ),
    family(
        "media_ice_restarts_total",
        Counter,
        Unit::Count,
        &[],
        "ICE restarts that sessions asked for and got.",
    ),
    family(
        "media_video_limit_bps",
        Gauge,
        Unit::BitsPerSecond,
        &[],
        "Bits per second of one video that publishers are asked to keep (b=AS of the answer).",
    ),
    family(
        "media_video_limit_seconds_total",
        Counter,
        Unit::Seconds,
        &["video"],
        "Seconds that publishers sent as much video as they are asked to keep (limits.videoKbps): reached is nine tenths of it or more, so that it is the limit that holds the video down; exceeded is a tenth more than it, by a device that does not keep to it.",
    ),
    // Transport of one session.
    of_session(family(
        "media_ice_connection_state",
        Gauge,
        Unit::State,
        &["session_id", "state"],
        "ICE state of a session: new 0, checking 1, connected 2, completed 3, disconnected 4, failed 5, closed 6.",
    )),
    of_session(family(
        "media_ice_candidates_added_total",
        Counter,
        Unit::Count,
        &["session_id"],
        "Remote candidates accepted from offers and trickled fragments.",
    )),
    of_session(histogram(
        "media_ice_connection_time_milliseconds",
        Unit::Milliseconds,
        &["session_id"],
        &[100.0, 200.0, 400.0, 800.0, 1600.0, 3200.0, 6400.0, 12800.0],
        "Time from the first ICE check to connected.",
    )),
    of_session(family(
        "media_video_frame_rate",
        Gauge,
        Unit::PerSecond,
        &["session_id"],
        "Video frames per second received (publisher) or forwarded (viewer) in the last window.",
    )),
    of_session(family(
        "media_video_bitrate_bps",
        Gauge,
        Unit::BitsPerSecond,
        &["session_id"],
        "Video payload bits per second in the last window; of a device with layers, those of all together.",
    )),
    of_session(family(
        "media_bandwidth_estimate_bps",
        Gauge,
        Unit::BitsPerSecond,
        &["session_id"],
        "Bits per second that there is room for on the way to a viewer, as its feedback tells; without any, half as much again as the video has.",
    )),
    of_session(family(
        "media_packet_loss_ratio",
        Gauge,
        Unit::Ratio,
        &["session_id"],
        "Packets lost, 0 to 1: from sequence gaps (publisher) or receiver reports (viewer).",
    )),
    of_session(family(
        "media_rtt_milliseconds",
        Gauge,
        Unit::Milliseconds,
        &["session_id"],
        "Round-trip time (RFC 3550 section 6.4.1).",
    )),
    of_session(family(
        "media_jitter_milliseconds",
        Gauge,
        Unit::Milliseconds,
        &["session_id"],
        "Interarrival jitter (RFC 3550 section 6.4.1).",
    )),
    // Shards.
    family(
        "media_packets_total",
        Counter,
        Unit::Count,
        &["direction"],
        "Datagrams on the media port, in and out, over UDP and TCP.",
    ),
    family(
        "media_bytes_total",
        Counter,
        Unit::Bytes,
        &["direction"],
        "Bytes of those datagrams, without the headers below them.",
    ),
    family(
        "media_drops_total",
        Counter,
        Unit::Count,
        &["where"],
        "Datagrams and packets that went no further, by the place and cause: malformed, stun_unauthenticated, stun_replay, unknown_address, dtls, srtp_unauthenticated, srtp_replay, unknown_stream, unknown_layer, duplicate, nack_overflow, no_keyframe, codec_mismatch, socket_full, tcp_full, tcp_closed, receive_overflow, ring_full, unproven_path, not_sealed, not_held, retransmission_limit, congestion, feedback, sctp.",
    ),
    family(
        "media_bound_hits_total",
        Counter,
        Unit::Count,
        &["bound"],
        "Times that a bounded table or queue had no room, other than for packets: routes, closed_sessions, notices, http_connections, event_streams, websockets, scrapes, tcp_connections, tcp_source, tcp_unproven, tcp_session; remote candidates of a session beyond 50: candidates; requests whose tokens name unknown keys, beyond 64 that wait for the provider's: token_keys; messages to a WebSocket whose client takes none: websocket_queue; ICE checks of a session that were forgotten within a minute, beyond 64: transactions; packets that a viewer asked for again, or that came late, and whose number in its stream was forgotten, beyond 64 changes of it: segments; and TCP connections whose time to prove themselves, or without anything for a session, was over: tcp_late, tcp_idle.",
    ),
    family(
        "media_tcp_connections",
        Gauge,
        Unit::Count,
        &[],
        "TCP connections open on the media port: of clients that can reach TCP alone, and of those that still try both.",
    ),
    family(
        "media_keyframe_requests_total",
        Counter,
        Unit::Count,
        &["cause"],
        "Keyframe requests (PLI) sent to publishers: start, for a viewer that starts where the cache has nothing for it to start with; lost, because a viewer asked that can't go on from what it has; layer, for a change of simulcast layer; room, for what was held back for want of bandwidth; moved, after a change of path; recording, for one that begins, or that has lost some.",
    ),
    family(
        "media_nacked_packets_total",
        Counter,
        Unit::Count,
        &["direction"],
        "Lost packets asked for again (NACK): in by viewers, out of publishers.",
    ),
    family(
        "media_retransmitted_packets_total",
        Counter,
        Unit::Count,
        &["direction"],
        "Lost packets sent again: in by publishers, as far as they were missing; out to viewers.",
    ),
    family(
        "media_join_total",
        Counter,
        Unit::Count,
        &["served"],
        "Viewers that were sent their first keyframe: from the cache, or the keyframe that they waited for. Served again, from the cache, are those that asked for one right after, because they had lost it, and those whose path moved.",
    ),
    family(
        "media_cache_bytes",
        Gauge,
        Unit::Bytes,
        &[],
        "Recent video held for joins and repair.",
    ),
    family(
        "media_cache_shrinks_total",
        Counter,
        Unit::Count,
        &[],
        "Times that a device's recent video was cut short, because that of all devices reached a quarter of the memory.",
    ),
    family(
        "media_shard_busy_ratio",
        Gauge,
        Unit::Ratio,
        &["shard"],
        "Share of time that a shard thread worked, over the last 10 s.",
    ),
    family(
        "media_shard_sessions",
        Gauge,
        Unit::Count,
        &["shard"],
        "Sessions that a shard holds.",
    ),
    // Recordings.
    family(
        "media_recordings_active",
        Gauge,
        Unit::Count,
        &[],
        "Recordings under way.",
    ),
    family(
        "media_recordings_total",
        Counter,
        Unit::Count,
        &["result"],
        "Recordings by how they ended: completed; failed, also before they began, because what they write could not be kept (the disk or the room for recordings was full, or writing failed); empty, because nothing came that a file could hold.",
    ),
    family(
        "media_recording_gaps_total",
        Counter,
        Unit::Count,
        &["cause"],
        "Times that a recording lacks video up to the next keyframe: overflow, because its writer did not keep up, so that 2048 packets waited for it; lost, because packets of the device never came.",
    ),
    family(
        "media_recording_bytes_total",
        Counter,
        Unit::Bytes,
        &[],
        "Bytes written to recordings.",
    ),
    // HTTP.
    family(
        "media_http_requests_total",
        Counter,
        Unit::Count,
        &["method", "path", "status"],
        "HTTP requests answered; path is the route template.",
    ),
    histogram(
        "media_http_duration_seconds",
        Unit::Seconds,
        &["method", "path"],
        &[
            0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512,
        ],
        "Time from the end of a request's head to the head of its response.",
    ),
    family(
        "media_http_requests_in_flight",
        Gauge,
        Unit::Count,
        &[],
        "HTTP requests being handled.",
    ),
    family(
        "media_signalling_total",
        Counter,
        Unit::Count,
        &["result"],
        "Requests about sessions and recordings (WHIP, WHEP, /api/media, WebSockets; not pages, lists of /api/v1, probes and unknown routes) by whose doing their answer is: ok; client, its own mistake, or it asked for what this server is not set up for, with whichever status; refused, there was no room or no media address; draining; failed, for want of a thread, a disk or the identity provider's keys.",
    ),
    family(
        "media_errors_total",
        Counter,
        Unit::Count,
        &["type", "operation"],
        "Errors answered or swallowed.",
    ),
    family(
        "media_auth_failures_total",
        Counter,
        Unit::Count,
        &["reason"],
        "Requests refused for their token: missing, malformed, algorithm, key_id, signature, expired, claims, lifetime, tenant, grant, user_id; no_keys: those of the identity provider can't be had.",
    ),
    family(
        "media_jwks_fetches_total",
        Counter,
        Unit::Count,
        &["result"],
        "Times that the identity provider was asked for its keys: ok, unreachable (no connection, no TLS, no answer in 5 s), address (one that is never asked), status (not 200; redirects are not followed), too_large, malformed, empty (no usable key).",
    ),
    family(
        "media_jwks_age_seconds",
        Gauge,
        Unit::Seconds,
        &[],
        "Age of the identity provider's keys in use: about 600 at the most while it answers. After 86400 they are not used any more.",
    ),
    family(
        "media_events_waiting",
        Gauge,
        Unit::Count,
        &["sink"],
        "Events of sessions and recordings that wait for a receiver (amqp, webhook), 10000 at most.",
    ),
    family(
        "media_events_delivered_total",
        Counter,
        Unit::Count,
        &["sink"],
        "Events that a receiver took.",
    ),
    family(
        "media_events_retries_total",
        Counter,
        Unit::Count,
        &["sink"],
        "Attempts to deliver events after one that failed.",
    ),
    family(
        "media_events_dropped_total",
        Counter,
        Unit::Count,
        &["sink", "reason"],
        "Events that a receiver never gets: full (10000 younger ones waited), old (it had waited for an hour), refused (the receiver does not take it: 400, 413 or 422).",
    ),
    family(
        "media_trace_spans_total",
        Counter,
        Unit::Count,
        &["result"],
        "Spans of traces that are kept, by what became of them: exported (the collector took them), full (2048 others waited), failed (the collector did not take them, tried four times).",
    ),
    family(
        "media_log_lines_suppressed_total",
        Counter,
        Unit::Count,
        &[],
        "Log lines left out: of one kind, more than 2000 at once or 500 a second.",
    ),
    family(
        "media_control_messages_total",
        Counter,
        Unit::Count,
        &["result"],
        "Messages on data channels by what became of them: forwarded to the device, answered by it, and refused with the code that its sender was answered: forbidden, bad_request, no_publisher, busy, too_large, rate_limited; undeliverable are those of them whose receiver is gone or takes no more.",
    ),
    // WebSocket.
    family(
        "media_websocket_connections",
        Gauge,
        Unit::Count,
        &[],
        "WebSocket connections open.",
    ),
    family(
        "media_websocket_messages_total",
        Counter,
        Unit::Count,
        &["type", "direction"],
        "WebSocket messages, inbound and outbound, by type: signaling; control, and its answers; invalid, what was understood as neither.",
    ),
    histogram(
        "media_websocket_message_size_bytes",
        Unit::Bytes,
        &["type"],
        &[
            64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262144.0, 1048576.0,
        ],
        "Size of WebSocket messages.",
    ),
    // Process.
    family(
        "media_memory_usage_bytes",
        Gauge,
        Unit::Bytes,
        &[],
        "Resident set of the process.",
    ),
    family(
        "media_memory_heap_alloc_bytes",
        Gauge,
        Unit::Bytes,
        &[],
        "Bytes that the program has allocated.",
    ),
    family(
        "media_memory_heap_sys_bytes",
        Gauge,
        Unit::Bytes,
        &[],
        "Bytes that the allocator holds from the system.",
    ),
    family(
        "media_goroutine_count",
        Gauge,
        Unit::Count,
        &[],
        "Live tokio tasks and shard threads.",
    ),
    family(
        "media_goroutine_count_max",
        Gauge,
        Unit::Count,
        &[],
        "Highest media_goroutine_count seen.",
    ),
    family(
        "media_potential_goroutine_leak",
        Gauge,
        Unit::State,
        &[],
        "1 when tasks have exceeded 100 + 4 x (HTTP and WebSocket connections) for 5 min.",
    ),
    family(
        "media_cpu_usage_ratio",
        Gauge,
        Unit::Ratio,
        &[],
        "CPU used of the CPU allowed: the cgroup's quota, else the machine's cores.",
    ),
    family(
        "media_drain_state",
        Gauge,
        Unit::State,
        &[],
        "Accepting 0, draining 1, drained 2.",
    ),
    family(
        "media_advertised_addresses",
        Gauge,
        Unit::Count,
        &[],
        "Addresses that answers name as candidates.",
    ),
    family(
        "media_metrics_series_folded_total",
        Counter,
        Unit::Count,
        &["family"],
        "Values left out, or counted under the label value other, because a family was full; of sessions, those without series, once each.",
    ),
    family(
        "media_build_info",
        Gauge,
        Unit::Count,
        &["version"],
        "Always 1; the label tells the version.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_follow_the_naming_rules() {
        let mut seen = HashSet::new();
        for family in FAMILIES {
            assert!(seen.insert(family.name), "{} is there twice", family.name);
            assert!(
                family
                    .name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{}",
                family.name
            );
            assert_eq!(
                family.kind == Kind::Counter,
                family.name.ends_with("_total"),
                "{}: counters, and only they, end with _total",
                family.name
            );
            assert!(family.help.ends_with('.'), "{}", family.name);
        }
    }

    /// OpenMetrics announces a counter without its `_total`, and a part of a histogram is no family of its own.
    #[test]
    fn names_are_unique_in_openmetrics_too() {
        let mut seen = HashSet::new();
        for family in FAMILIES {
            let name = family.name.strip_suffix("_total").unwrap_or(family.name);
            let parts = match family.kind {
                Kind::Histogram => vec!["", "_bucket", "_sum", "_count"],
                Counter => vec!["", "_total"],
                Gauge => vec![""],
            };
            for part in parts {
                let name = format!("{name}{part}");
                assert!(seen.insert(name.clone()), "{name} is there twice");
            }
        }
    }

    /// What dashboards and alerts of users build on; a change here breaks theirs.
    #[test]
    fn the_promised_families_keep_their_name_kind_labels_and_buckets() {
        let powers = |first: f64, factor: i32, count: i32| -> Vec<f64> {
            (0..count)
                .map(|n| first * f64::from(factor).powi(n))
                .collect()
        };
        let none = Vec::new;
        let promised: [(&str, Kind, &[&str], Vec<f64>); 26] = [
            ("media_active_sessions", Gauge, &[], none()),
            (
                "media_sessions_created_total",
                Counter,
                &["device_id"],
                none(),
            ),
            (
                "media_sessions_closed_total",
                Counter,
                &["device_id", "reason"],
                none(),
            ),
            (
                "media_session_duration_seconds",
                Kind::Histogram,
                &["device_id"],
                vec![60.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0],
            ),
            (
                "media_ice_connection_state",
                Gauge,
                &["session_id", "state"],
                none(),
            ),
            (
                "media_ice_candidates_added_total",
                Counter,
                &["session_id"],
                none(),
            ),
            (
                "media_ice_connection_time_milliseconds",
                Kind::Histogram,
                &["session_id"],
                powers(100.0, 2, 8),
            ),
            ("media_video_frame_rate", Gauge, &["session_id"], none()),
            ("media_video_bitrate_bps", Gauge, &["session_id"], none()),
            ("media_packet_loss_ratio", Gauge, &["session_id"], none()),
            ("media_rtt_milliseconds", Gauge, &["session_id"], none()),
            ("media_jitter_milliseconds", Gauge, &["session_id"], none()),
            (
                "media_http_requests_total",
                Counter,
                &["method", "path", "status"],
                none(),
            ),
            (
                "media_http_duration_seconds",
                Kind::Histogram,
                &["method", "path"],
                powers(0.001, 2, 10),
            ),
            ("media_http_requests_in_flight", Gauge, &[], none()),
            ("media_websocket_connections", Gauge, &[], none()),
            (
                "media_websocket_messages_total",
                Counter,
                &["type", "direction"],
                none(),
            ),
            (
                "media_websocket_message_size_bytes",
                Kind::Histogram,
                &["type"],
                powers(64.0, 4, 8),
            ),
            ("media_memory_usage_bytes", Gauge, &[], none()),
            ("media_memory_heap_alloc_bytes", Gauge, &[], none()),
            ("media_memory_heap_sys_bytes", Gauge, &[], none()),
            ("media_goroutine_count", Gauge, &[], none()),
            ("media_goroutine_count_max", Gauge, &[], none()),
            ("media_potential_goroutine_leak", Gauge, &[], none()),
            ("media_cpu_usage_ratio", Gauge, &[], none()),
            (
                "media_errors_total",
                Counter,
                &["type", "operation"],
                none(),
            ),
        ];
        assert_eq!(promised.each_ref().map(|(name, ..)| *name), PROMISED);
        for (name, kind, labels, buckets) in promised {
            let family = FAMILIES.iter().find(|family| family.name == name);
            let family = family.unwrap_or_else(|| panic!("{name} is gone"));
            assert_eq!(family.kind, kind, "{name}");
            assert_eq!(family.labels, labels, "{name}");
            assert_eq!(family.buckets, buckets, "{name}");
        }
    }

    #[test]
    fn only_histograms_have_buckets_and_they_ascend() {
        for family in FAMILIES {
            assert_eq!(
                family.kind == Kind::Histogram,
                !family.buckets.is_empty(),
                "{}",
                family.name
            );
            assert!(
                family.buckets.windows(2).all(|pair| pair[0] < pair[1]),
                "{}",
                family.name
            );
        }
    }

    #[test]
    fn scope_and_labels_agree() {
        for family in FAMILIES {
            assert_eq!(
                family.scope == Scope::Device,
                family.labels.contains(&"device_id"),
                "{}",
                family.name
            );
            assert_eq!(
                family.scope == Scope::Session,
                family.labels.contains(&"session_id"),
                "{}",
                family.name
            );
        }
    }

    #[test]
    fn the_parts_of_a_histogram_are_found_by_name() {
        assert_eq!(
            find("media_http_duration_seconds_bucket").map(|f| f.name),
            Some("media_http_duration_seconds")
        );
        assert!(find("media_http_duration_seconds").is_none());
        assert!(find("media_active_sessions").is_some());
    }
}
