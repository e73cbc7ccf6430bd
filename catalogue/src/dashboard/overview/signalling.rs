//! Signalling: requests and messages, and what goes wrong with them.

use super::super::panel::{Kind::Lines, Panel, Query, Row, Unit};
use super::outside;

pub const ROW: Row = Row {
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
        outside::TELLING,
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
};
