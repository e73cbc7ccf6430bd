//! Media: what sessions carry, what is lost and what is repaired.

use super::super::panel::{Kind::Lines, Panel, Query, Row, Unit};

pub const ROW: Row = Row {
    title: "Media",
    panels: &[
        Panel {
            title: "Frame rate",
            description: "Frames received from publishers and forwarded to viewers: the twenty sessions with the fewest.",
            kind: Lines,
            unit: Unit::FramesPerSecond,
            queries: &[Query {
                expr: "bottomk(20, media_video_frame_rate{$S})",
                legend: "{{session_id}}",
            }],
            red_from: None,
        },
        Panel {
            title: "Bitrate",
            description: "Video payload, and what a viewer's link has room for: the twenty sessions with the most of the one, and with the least of the other.",
            kind: Lines,
            unit: Unit::BitsPerSecond,
            queries: &[
                Query {
                    expr: "topk(20, media_video_bitrate_bps{$S})",
                    legend: "{{session_id}}",
                },
                Query {
                    expr: "bottomk(20, media_bandwidth_estimate_bps{$S})",
                    legend: "{{session_id}} has room for",
                },
            ],
            red_from: None,
        },
        Panel {
            title: "Packet loss",
            description: "Publishers: gaps in what arrives. Viewers: what their receiver reports say. The twenty sessions that lose the most.",
            kind: Lines,
            unit: Unit::Ratio,
            queries: &[Query {
                expr: "topk(20, media_packet_loss_ratio{$S})",
                legend: "{{session_id}}",
            }],
            red_from: Some(0.05),
        },
        Panel {
            title: "Round trip",
            description: "Between this service and the client: the twenty sessions that are farthest away.",
            kind: Lines,
            unit: Unit::Milliseconds,
            queries: &[Query {
                expr: "topk(20, media_rtt_milliseconds{$S})",
                legend: "{{session_id}}",
            }],
            red_from: Some(300.0),
        },
        Panel {
            title: "Jitter",
            description: "Interarrival jitter (RFC 3550): the twenty sessions with the most.",
            kind: Lines,
            unit: Unit::Milliseconds,
            queries: &[Query {
                expr: "topk(20, media_jitter_milliseconds{$S})",
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
};
