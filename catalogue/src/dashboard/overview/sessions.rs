//! Sessions: how many there are, how they begin and how they end.

use super::super::panel::{Kind::Lines, Panel, Query, Row, Unit};

pub const ROW: Row = Row {
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
            description: "From the first connectivity check to connected, of the sessions that are open. Each comes with its own time, so that there is nothing that a rate could show.",
            kind: Lines,
            unit: Unit::Milliseconds,
            queries: &[
                Query {
                    expr: "histogram_quantile(0.5, sum by (le) (media_ice_connection_time_milliseconds_bucket{$S}))",
                    legend: "half within",
                },
                Query {
                    expr: "histogram_quantile(0.95, sum by (le) (media_ice_connection_time_milliseconds_bucket{$S}))",
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
};
