//! Panels of what the service has to do with others: those who come with tokens, those it tells of sessions, and the one whose
//! keys it uses.

use super::super::panel::{Kind::Lines, Panel, Query, Unit};

/// Who comes with a token that is not taken.
pub const TOKENS: Panel = Panel {
    title: "Refused tokens",
    description: "By what was wrong with them.",
    kind: Lines,
    unit: Unit::PerSecond,
    queries: &[Query {
        expr: "sum by (reason) (rate(media_auth_failures_total{$S}[$__rate_interval]))",
        legend: "{{reason}}",
    }],
    red_from: None,
};

/// Receivers of events.
pub const EVENTS: Panel = Panel {
    title: "Events",
    description: "To the message broker and the webhook of spec.events: delivered and tried again a second, those that wait, and in the last hour those lost. Empty without them.",
    kind: Lines,
    unit: Unit::Count,
    queries: &[
        Query {
            expr: "sum by (sink) (rate(media_events_delivered_total{$S}[$__rate_interval]))",
            legend: "{{sink}} delivered a second",
        },
        Query {
            expr: "sum by (sink) (rate(media_events_retries_total{$S}[$__rate_interval]))",
            legend: "{{sink}} tried again a second",
        },
        Query {
            expr: "sum by (sink) (media_events_waiting{$S})",
            legend: "{{sink}} waiting",
        },
        Query {
            expr: "sum by (sink, reason) (increase(media_events_dropped_total{$S}[1h]))",
            legend: "{{sink}} lost: {{reason}}",
        },
    ],
    red_from: None,
};

/// The collector of traces, and what logs leave out.
pub const TELLING: Panel = Panel {
    title: "Spans and log lines",
    description: "Spans a second by what became of them, none without spec.observability.otlpEndpoint; and log lines a second left out of a flood.",
    kind: Lines,
    unit: Unit::PerSecond,
    queries: &[
        Query {
            expr: "sum by (result) (rate(media_trace_spans_total{$S}[$__rate_interval]))",
            legend: "spans {{result}}",
        },
        Query {
            expr: "sum(rate(media_log_lines_suppressed_total{$S}[$__rate_interval]))",
            legend: "lines left out",
        },
    ],
    red_from: None,
};

/// The identity provider.
pub const KEYS: Panel = Panel {
    title: "Keys of the identity provider",
    description: "Age of those in use, and times in the last hour that they could not be fetched. Empty without auth.jwksURL.",
    kind: Lines,
    unit: Unit::Seconds,
    queries: &[
        Query {
            expr: "max by (pod) (media_jwks_age_seconds{$S})",
            legend: "{{pod}} age",
        },
        Query {
            expr: "sum by (result) (increase(media_jwks_fetches_total{$S,result!=\"ok\"}[1h]))",
            legend: "failed: {{result}}",
        },
    ],
    red_from: Some(3600.0),
};
