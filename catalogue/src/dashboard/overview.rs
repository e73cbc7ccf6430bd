//! The overview: is it up, what does it carry, how does it look for viewers, what does it cost.

mod outside;
mod recordings;
mod resources;

use serde_json::Value;

use super::panel::{Head, Kind::Lines, Kind::Stat, Panel, Query, Row, Unit, model};
use super::{uid, variables};
use crate::rules::Selector;

/// What the dashboard's variables select: the matchers that `$S` stands for.
const SELECTION: &str = "namespace=\"$namespace\",mediaservice=\"$service\",pod=~\"$pod\"";

pub fn build(selector: &Selector<'_>) -> Value {
    let Selector { namespace, service } = selector;
    let head = Head {
        uid: uid(selector, "overview"),
        title: format!("MediaService overview {namespace}/{service}"),
        description: "Sessions, media, signalling and resources of one MediaService.",
        variables: variables::of_service(selector),
    };
    model(head, ROWS, SELECTION)
}

const ROWS: &[Row] = &[
    Row {
        title: "Now",
        panels: &[
            Panel {
                title: "Sessions",
                description: "Publishers and viewers that are open.",
                kind: Stat,
                unit: Unit::Count,
                queries: &[Query {
                    expr: "sum by (role) (media_sessions{$S})",
                    legend: "{{role}}s",
                }],
                red_from: None,
            },
            Panel {
                title: "Pods up",
                description: "Media pods that answered their last scrape.",
                kind: Stat,
                unit: Unit::Count,
                queries: &[Query {
                    expr: "sum(up{$S})",
                    legend: "pods",
                }],
                red_from: None,
            },
            Panel {
                title: "Video carried",
                description: "Video payload, from publishers and to viewers together.",
                kind: Stat,
                unit: Unit::BitsPerSecond,
                queries: &[Query {
                    expr: "sum(media_video_bitrate_bps{$S})",
                    legend: "video",
                }],
                red_from: None,
            },
            Panel {
                title: "Requests that failed",
                description: "Share of HTTP requests that ended in a 5xx status, last 5 minutes. The objective is at most 0.1 %.",
                kind: Stat,
                unit: Unit::Ratio,
                queries: &[Query {
                    expr: "sum(rate(media_http_requests_total{$S,status=~\"5..\"}[5m])) / sum(rate(media_http_requests_total{$S}[5m]))",
                    legend: "5xx",
                }],
                red_from: Some(0.001),
            },
            Panel {
                title: "Sessions that ended badly",
                description: "Share of sessions that ended for another reason than a normal close, last 5 minutes.",
                kind: Stat,
                unit: Unit::Ratio,
                queries: &[Query {
                    expr: "sum(rate(media_sessions_closed_total{$S,reason!=\"normal_close\"}[5m])) / sum(rate(media_sessions_closed_total{$S}[5m]))",
                    legend: "not normal",
                }],
                red_from: Some(0.2),
            },
            Panel {
                title: "Busiest CPU",
                description: "CPU used of what the pod may use, in the busiest pod.",
                kind: Stat,
                unit: Unit::Ratio,
                queries: &[Query {
                    expr: "max(media_cpu_usage_ratio{$S})",
                    legend: "cpu",
                }],
                red_from: Some(0.9),
            },
        ],
    },
    Row {
        title: "Sessions",
        panels: &[
            Panel {
                title: "Open sessions by pod",
                description: "Publishers and viewers, and the TCP connections on the media port of those that can't use UDP.",
                kind: Lines,
                unit: Unit::Count,
                queries: &[
                    Query {
                        expr: "sum by (pod) (media_active_sessions{$S})",
                        legend: "{{pod}}",
                    },
                    Query {
                        expr: "sum(media_tcp_connections{$S})",
                        legend: "TCP connections",
                    },
                ],
                red_from: None,
            },
            Panel {
                title: "Sessions opened and closed",
                description: "Closed ones by reason. The first of a new device can be missing: Prometheus sees a rate from the second sample on.",
                kind: Lines,
                unit: Unit::PerSecond,
                queries: &[
                    Query {
                        expr: "sum(rate(media_sessions_created_total{$S}[$__rate_interval]))",
                        legend: "opened",
                    },
                    Query {
                        expr: "sum by (reason) (rate(media_sessions_closed_total{$S}[$__rate_interval]))",
                        legend: "closed: {{reason}}",
                    },
                ],
                red_from: None,
            },
            Panel {
                title: "Length of sessions that ended",
                description: "Mean over those that ended in the interval.",
                kind: Lines,
                unit: Unit::Seconds,
                queries: &[Query {
                    expr: "sum(rate(media_session_duration_seconds_sum{$S}[$__rate_interval])) / sum(rate(media_session_duration_seconds_count{$S}[$__rate_interval]))",
                    legend: "mean",
                }],
                red_from: None,
            },
            Panel {
                title: "Time to connect",
                description: "From the first connectivity check to connected.",
                kind: Lines,
                unit: Unit::Milliseconds,
                queries: &[
                    Query {
                        expr: "histogram_quantile(0.5, sum by (le) (rate(media_ice_connection_time_milliseconds_bucket{$S}[$__rate_interval])))",
                        legend: "half within",
                    },
                    Query {
                        expr: "histogram_quantile(0.95, sum by (le) (rate(media_ice_connection_time_milliseconds_bucket{$S}[$__rate_interval])))",
                        legend: "95 % within",
                    },
                ],
                red_from: None,
            },
            Panel {
                title: "Sessions by ICE state",
                description: "Each session is in one state.",
                kind: Lines,
                unit: Unit::Count,
                queries: &[Query {
                    expr: "count by (state) (media_ice_connection_state{$S})",
                    legend: "{{state}}",
                }],
                red_from: None,
            },
            Panel {
                title: "Set-ups",
                description: "Admitted and refused set-ups by how they went. `failed` never connected.",
                kind: Lines,
                unit: Unit::PerSecond,
                queries: &[Query {
                    expr: "sum by (role, result) (rate(media_setup_total{$S}[$__rate_interval]))",
                    legend: "{{role}} {{result}}",
                }],
                red_from: None,
            },
            Panel {
                title: "Set-up time, 95 % within",
                description: "From the request to the end of the DTLS handshake, of sessions that connected.",
                kind: Lines,
                unit: Unit::Seconds,
                queries: &[Query {
                    expr: "histogram_quantile(0.95, sum by (le, role) (rate(media_setup_seconds_bucket{$S}[$__rate_interval])))",
                    legend: "{{role}}",
                }],
                red_from: Some(1.0),
            },
            Panel {
                title: "Share of limits",
                description: "Sessions: beyond the limit new ones are answered with 503. Video: the session with the most, of the bandwidth that publishers are asked to keep.",
                kind: Lines,
                unit: Unit::Ratio,
                queries: &[
                    Query {
                        expr: "media_active_sessions{$S} / media_session_limit{$S}",
                        legend: "{{pod}} sessions",
                    },
                    Query {
                        expr: "max by (pod) (media_video_bitrate_bps{$S}) / max by (pod) (media_video_limit_bps{$S})",
                        legend: "{{pod}} video",
                    },
                ],
                red_from: Some(0.9),
            },
            Panel {
                title: "Video at its limit",
                description: "Publishers whose video is at limits.videoKbps (reached: it would be more without it) or a tenth beyond it (exceeded: the device does not keep to what it is asked).",
                kind: Lines,
                unit: Unit::Count,
                queries: &[Query {
                    expr: "sum by (pod, video) (rate(media_video_limit_seconds_total{$S}[$__rate_interval]))",
                    legend: "{{pod}} {{video}}",
                }],
                red_from: None,
            },
            Panel {
                title: "Refused by limits",
                description: "Requests refused because one asks too often (429: subject, device) or the pod has enough (503: sessions, viewers, handshakes).",
                kind: Lines,
                unit: Unit::PerSecond,
                queries: &[Query {
                    expr: "sum by (limit) (rate(media_refused_total{$S}[$__rate_interval]))",
                    legend: "{{limit}}",
                }],
                red_from: None,
            },
            Panel {
                title: "Set-ups under way",
                description: "Sessions between their POST and their keys, those that wait for a place among them, viewers that wait for their device, and ICE restarts a minute.",
                kind: Lines,
                unit: Unit::Count,
                queries: &[
                    Query {
                        expr: "sum by (state) (media_handshakes{$S}) or label_replace(sum(media_waiting_viewers{$S}), \"state\", \"for a device\", \"\", \"\")",
                        legend: "{{state}}",
                    },
                    Query {
                        expr: "60 * sum(rate(media_ice_restarts_total{$S}[$__rate_interval]))",
                        legend: "ICE restarts a minute",
                    },
                ],
                red_from: None,
            },
            Panel {
                title: "Candidates from clients",
                description: "Remote ICE candidates accepted.",
                kind: Lines,
                unit: Unit::PerSecond,
                queries: &[Query {
                    expr: "sum(rate(media_ice_candidates_added_total{$S}[$__rate_interval]))",
                    legend: "candidates",
                }],
                red_from: None,
            },
        ],
    },
    Row {
        title: "Media",
        panels: &[
            Panel {
                title: "Frame rate",
                description: "Frames received from publishers and forwarded to viewers. One line a session.",
                kind: Lines,
                unit: Unit::FramesPerSecond,
                queries: &[Query {
                    expr: "media_video_frame_rate{$S}",
                    legend: "{{session_id}}",
                }],
                red_from: None,
            },
            Panel {
                title: "Bitrate",
                description: "Video payload, and what a viewer's link has room for. Two lines a viewer, one a publisher.",
                kind: Lines,
                unit: Unit::BitsPerSecond,
                queries: &[
                    Query {
                        expr: "media_video_bitrate_bps{$S}",
                        legend: "{{session_id}}",
                    },
                    Query {
                        expr: "media_bandwidth_estimate_bps{$S}",
                        legend: "{{session_id}} has room for",
                    },
                ],
                red_from: None,
            },
            Panel {
                title: "Packet loss",
                description: "Publishers: gaps in what arrives. Viewers: what their receiver reports say.",
                kind: Lines,
                unit: Unit::Ratio,
                queries: &[Query {
                    expr: "media_packet_loss_ratio{$S}",
                    legend: "{{session_id}}",
                }],
                red_from: Some(0.05),
            },
            Panel {
                title: "Round trip",
                description: "Between this service and the client.",
                kind: Lines,
                unit: Unit::Milliseconds,
                queries: &[Query {
                    expr: "media_rtt_milliseconds{$S}",
                    legend: "{{session_id}}",
                }],
                red_from: Some(300.0),
            },
            Panel {
                title: "Jitter",
                description: "Interarrival jitter (RFC 3550).",
                kind: Lines,
                unit: Unit::Milliseconds,
                queries: &[Query {
                    expr: "media_jitter_milliseconds{$S}",
                    legend: "{{session_id}}",
                }],
                red_from: None,
            },
            Panel {
                title: "Packets",
                description: "Datagrams in and out, all sessions.",
                kind: Lines,
                unit: Unit::PacketsPerSecond,
                queries: &[Query {
                    expr: "sum by (direction) (rate(media_packets_total{$S}[$__rate_interval]))",
                    legend: "{{direction}}",
                }],
                red_from: None,
            },
            Panel {
                title: "Traffic",
                description: "Bits in and out, all sessions.",
                kind: Lines,
                unit: Unit::BitsPerSecond,
                queries: &[Query {
                    expr: "8 * sum by (direction) (rate(media_bytes_total{$S}[$__rate_interval]))",
                    legend: "{{direction}}",
                }],
                red_from: None,
            },
            Panel {
                title: "Packets dropped here",
                description: "By the place that dropped them. Loss on a client's link is not in here.",
                kind: Lines,
                unit: Unit::PacketsPerSecond,
                queries: &[Query {
                    expr: "sum by (where) (rate(media_drops_total{$S}[$__rate_interval]))",
                    legend: "{{where}}",
                }],
                red_from: None,
            },
            Panel {
                title: "Key frames asked for",
                description: "Picture loss indications sent to publishers.",
                kind: Lines,
                unit: Unit::PerSecond,
                queries: &[Query {
                    expr: "sum by (cause) (rate(media_keyframe_requests_total{$S}[$__rate_interval]))",
                    legend: "{{cause}}",
                }],
                red_from: None,
            },
            Panel {
                title: "Repair",
                description: "Lost packets asked for again, and sent again: in from publishers, out to viewers.",
                kind: Lines,
                unit: Unit::PacketsPerSecond,
                queries: &[
                    Query {
                        expr: "sum by (direction) (rate(media_nacked_packets_total{$S}[$__rate_interval]))",
                        legend: "asked for, {{direction}}",
                    },
                    Query {
                        expr: "sum by (direction) (rate(media_retransmitted_packets_total{$S}[$__rate_interval]))",
                        legend: "sent again, {{direction}}",
                    },
                ],
                red_from: None,
            },
            Panel {
                title: "First pictures",
                description: "Viewers that began, from the cache at once or with the keyframe that they waited for.",
                kind: Lines,
                unit: Unit::PerSecond,
                queries: &[Query {
                    expr: "sum by (served) (rate(media_join_total{$S}[$__rate_interval]))",
                    legend: "{{served}}",
                }],
                red_from: None,
            },
            Panel {
                title: "Recent video held",
                description: "For joins and repair, by pod; and how often it was cut short, because all of it reached a quarter of the memory.",
                kind: Lines,
                unit: Unit::Bytes,
                queries: &[
                    Query {
                        expr: "media_cache_bytes{$S}",
                        legend: "{{pod}}",
                    },
                    Query {
                        expr: "increase(media_cache_shrinks_total{$S}[$__rate_interval])",
                        legend: "cut short, {{pod}}",
                    },
                ],
                red_from: None,
            },
        ],
    },
    recordings::ROW,
    Row {
        title: "Signalling",
        panels: &[
            Panel {
                title: "Requests",
                description: "By route and status.",
                kind: Lines,
                unit: Unit::PerSecond,
                queries: &[Query {
                    expr: "sum by (method, path, status) (rate(media_http_requests_total{$S}[$__rate_interval]))",
                    legend: "{{method}} {{path}} {{status}}",
                }],
                red_from: None,
            },
            Panel {
                title: "Time to answer, 99 % within",
                description: "By route.",
                kind: Lines,
                unit: Unit::Seconds,
                queries: &[Query {
                    expr: "histogram_quantile(0.99, sum by (le, path) (rate(media_http_duration_seconds_bucket{$S}[$__rate_interval])))",
                    legend: "{{path}}",
                }],
                red_from: None,
            },
            Panel {
                title: "Requests in flight",
                description: "Requests and WebSockets open now.",
                kind: Lines,
                unit: Unit::Count,
                queries: &[
                    Query {
                        expr: "sum(media_http_requests_in_flight{$S})",
                        legend: "HTTP",
                    },
                    Query {
                        expr: "sum(media_websocket_connections{$S})",
                        legend: "WebSocket",
                    },
                ],
                red_from: None,
            },
            Panel {
                title: "Messages",
                description: "On WebSockets by kind and direction, on data channels by what became of them.",
                kind: Lines,
                unit: Unit::PerSecond,
                queries: &[
                    Query {
                        expr: "sum by (type, direction) (rate(media_websocket_messages_total{$S}[$__rate_interval]))",
                        legend: "{{type}} {{direction}}",
                    },
                    Query {
                        expr: "sum by (result) (rate(media_control_messages_total{$S}[$__rate_interval]))",
                        legend: "control {{result}}",
                    },
                ],
                red_from: None,
            },
            Panel {
                title: "Size of WebSocket messages",
                description: "Mean by kind.",
                kind: Lines,
                unit: Unit::Bytes,
                queries: &[Query {
                    expr: "sum by (type) (rate(media_websocket_message_size_bytes_sum{$S}[$__rate_interval])) / sum by (type) (rate(media_websocket_message_size_bytes_count{$S}[$__rate_interval]))",
                    legend: "{{type}}",
                }],
                red_from: None,
            },
            outside::TOKENS,
            outside::EVENTS,
            outside::KEYS,
            Panel {
                title: "Errors",
                description: "Every error answered or swallowed.",
                kind: Lines,
                unit: Unit::PerSecond,
                queries: &[Query {
                    expr: "sum by (type, operation) (rate(media_errors_total{$S}[$__rate_interval]))",
                    legend: "{{operation}}: {{type}}",
                }],
                red_from: None,
            },
        ],
    },
    resources::ROW,
];
