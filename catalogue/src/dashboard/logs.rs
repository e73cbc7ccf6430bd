//! Logs and traces: what pods said, one session's life by its id, one request's by its trace.
//!
//! The one dashboard that asks no Prometheus. Its lines are found by the labels that collectors give on Kubernetes,
//! `namespace` and `pod`, and by the fields that the server writes.

use serde_json::Value;

use super::panel::{
    Head, Kind::LogCounts, Kind::LogLines, Kind::Traces, Panel, Query, Row, Unit, model,
};
use super::{uid, variables};
use crate::rules::Selector;

/// Pods have the name of their MediaService and a number.
const OF_LINES: &str = "namespace=\"$namespace\",pod=~\"$service-[0-9]+\"";

pub fn build(selector: &Selector<'_>) -> Value {
    let Selector { namespace, service } = selector;
    let head = Head {
        uid: uid(selector, "logs"),
        title: format!("MediaService logs and traces {namespace}/{service}"),
        description: "What the pods of one MediaService said, by session and by trace. Needs a Loki that has their logs, and for traces a Tempo.",
        variables: variables::of_logs(selector),
    };
    model(head, ROWS, OF_LINES)
}

const ROWS: &[Row] = &[
    Row {
        title: "All",
        panels: &[
            Panel {
                title: "Lines by level",
                description: "Lines in the interval.",
                kind: LogCounts,
                unit: Unit::Count,
                queries: &[Query {
                    expr: "sum by (level) (count_over_time({$S} | json | __error__=\"\" [$__auto]))",
                    legend: "{{level}}",
                }],
                red_from: None,
            },
            Panel {
                title: "Warnings and errors",
                description: "Of all pods, newest first.",
                kind: LogLines,
                unit: Unit::Count,
                queries: &[Query {
                    expr: "{$S} | json | level=~\"WARN|ERROR\"",
                    legend: "lines",
                }],
                red_from: None,
            },
        ],
    },
    Row {
        title: "One session or request",
        panels: &[
            Panel {
                title: "Life of the session",
                description: "Lines of the session whose id is in the field above.",
                kind: LogLines,
                unit: Unit::Count,
                queries: &[Query {
                    expr: "{$S} | json | session_id=\"$session\"",
                    legend: "lines",
                }],
                red_from: None,
            },
            Panel {
                title: "Lines of the trace",
                description: "Lines of the trace whose id is in the field above.",
                kind: LogLines,
                unit: Unit::Count,
                queries: &[Query {
                    expr: "{$S} | json | trace_id=\"$trace\"",
                    legend: "lines",
                }],
                red_from: None,
            },
            Panel {
                title: "Slow beginnings",
                description: "Traces in which more than a second passed between the POST and the first media.",
                kind: Traces,
                unit: Unit::Count,
                queries: &[Query {
                    expr: "{resource.service.name=\"media-server\" && name=\"session.establish\" && duration>1s}",
                    legend: "traces",
                }],
                red_from: None,
            },
        ],
    },
];
