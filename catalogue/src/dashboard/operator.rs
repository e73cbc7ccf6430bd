//! The operator's own dashboard: does it keep up, what does it ask, what can't it do. There is one for
//! many MediaServices, so it belongs to the chart.

use serde_json::Value;

use super::panel::{Head, Kind::Lines, Kind::Stat, Panel, Query, Row, Unit, model};
use super::variables;

/// What the variables select: a chart's release is a namespace.
const SELECTION: &str = "namespace=\"$namespace\"";

pub fn build() -> Value {
    let head = Head {
        uid: "ms-operator".to_owned(),
        title: "MediaService operator".to_owned(),
        description: "The operator that runs MediaServices: no stream depends on it.",
        variables: variables::of_operator(),
    };
    model(head, ROWS, SELECTION)
}

const ROWS: &[Row] = &[
    Row {
        title: "Now",
        panels: &[
            Panel {
                title: "Leaders",
                description: "Operators that hold the Lease. One; none while it changes hands.",
                kind: Stat,
                unit: Unit::Count,
                queries: &[Query {
                    expr: "sum(mediaservice_operator_leader{$S})",
                    legend: "leaders",
                }],
                red_from: Some(2.0),
            },
            Panel {
                title: "Waiting",
                description: "MediaServices whose present generation no reconciliation has reported on yet. Back at 0 within seconds.",
                kind: Stat,
                unit: Unit::Count,
                queries: &[Query {
                    expr: "sum(mediaservice_operator_queue_depth{$S})",
                    legend: "waiting",
                }],
                red_from: None,
            },
            Panel {
                title: "Failed",
                description: "Share of reconciliations that failed, last 5 minutes.",
                kind: Stat,
                unit: Unit::Ratio,
                queries: &[Query {
                    expr: "sum(rate(mediaservice_operator_reconciles_total{$S,result=\"error\"}[5m])) / sum(rate(mediaservice_operator_reconciles_total{$S}[5m]))",
                    legend: "failed",
                }],
                red_from: Some(0.1),
            },
            Panel {
                title: "Definition missing",
                description: "1 if the API server does not serve MediaServices.",
                kind: Stat,
                unit: Unit::Count,
                queries: &[Query {
                    expr: "max(mediaservice_operator_crd_missing{$S})",
                    legend: "missing",
                }],
                red_from: Some(1.0),
            },
        ],
    },
    Row {
        title: "Reconciliations",
        panels: &[
            Panel {
                title: "By result",
                description: "Reconciliations a second.",
                kind: Lines,
                unit: Unit::PerSecond,
                queries: &[Query {
                    expr: "sum by (result) (rate(mediaservice_operator_reconciles_total{$S}[$__rate_interval]))",
                    legend: "{{result}}",
                }],
                red_from: None,
            },
            Panel {
                title: "Errors by reason",
                description: "The word is that of the condition and of the event.",
                kind: Lines,
                unit: Unit::PerSecond,
                queries: &[Query {
                    expr: "sum by (reason) (rate(mediaservice_operator_reconcile_errors_total{$S}[$__rate_interval]))",
                    legend: "{{reason}}",
                }],
                red_from: None,
            },
            Panel {
                title: "Time of one",
                description: "Half of them, and 99 of 100, took less.",
                kind: Lines,
                unit: Unit::Seconds,
                queries: &[
                    Query {
                        expr: "histogram_quantile(0.5, sum by (le) (rate(mediaservice_operator_reconcile_duration_seconds_bucket{$S}[$__rate_interval])))",
                        legend: "p50",
                    },
                    Query {
                        expr: "histogram_quantile(0.99, sum by (le) (rate(mediaservice_operator_reconcile_duration_seconds_bucket{$S}[$__rate_interval])))",
                        legend: "p99",
                    },
                ],
                red_from: None,
            },
            Panel {
                title: "Under way and waiting",
                description: "8 at most are under way at once, for each of `watchNamespaces` where those are named.",
                kind: Lines,
                unit: Unit::Count,
                queries: &[
                    Query {
                        expr: "sum(mediaservice_operator_reconciles_in_flight{$S})",
                        legend: "under way",
                    },
                    Query {
                        expr: "sum(mediaservice_operator_queue_depth{$S})",
                        legend: "waiting",
                    },
                ],
                red_from: None,
            },
        ],
    },
    Row {
        title: "API server",
        panels: &[
            Panel {
                title: "Writes by kind",
                description: "Objects written a second. Nothing while nothing changes.",
                kind: Lines,
                unit: Unit::PerSecond,
                queries: &[Query {
                    expr: "sum by (kind) (rate(mediaservice_operator_writes_total{$S}[$__rate_interval]))",
                    legend: "{{kind}}",
                }],
                red_from: None,
            },
            Panel {
                title: "Requests by verb",
                description: "Requests a second, the Lease included.",
                kind: Lines,
                unit: Unit::PerSecond,
                queries: &[Query {
                    expr: "sum by (verb) (rate(mediaservice_operator_api_requests_total{$S}[$__rate_interval]))",
                    legend: "{{verb}}",
                }],
                red_from: None,
            },
            Panel {
                title: "Refused, failed and unanswered",
                description: "Requests by status; 404 and 409 are answers that the operator reckons with.",
                kind: Lines,
                unit: Unit::PerSecond,
                queries: &[
                    Query {
                        expr: "sum by (verb, code) (rate(mediaservice_operator_api_requests_total{$S,code!~\"2..|404|409\"}[$__rate_interval]))",
                        legend: "{{verb}} {{code}}",
                    },
                    Query {
                        expr: "sum(rate(mediaservice_operator_watch_errors_total{$S}[$__rate_interval]))",
                        legend: "watches that failed",
                    },
                ],
                red_from: None,
            },
        ],
    },
];
