//! SLO: how much of each indicator's error budget is spent, and how fast. Shows what the burn alerts look at.

use serde_json::Value;

use super::panel::{Head, Kind::Lines, Kind::Stat, Panel, Query, Row, Unit, model};
use super::{OF_SERVICE, uid, variables};
use crate::rules::Selector;

pub fn build(selector: &Selector<'_>) -> Value {
    let Selector { namespace, service } = selector;
    let head = Head {
        uid: uid(selector, "slo"),
        title: format!("MediaService SLO {namespace}/{service}"),
        description: "Service levels of one MediaService: the share that fails, and how fast the budgets of 30 days are spent.",
        variables: variables::of_service(selector),
    };
    model(head, ROWS, OF_SERVICE)
}

/// How many times faster than the objective allows the budget of `$sli` is spent over a window.
macro_rules! burn {
    ($sli:literal, $window:literal) => {
        concat!(
            "mediaservice:",
            $sli,
            "_errors:ratio_rate",
            $window,
            "{$S} / on (namespace, mediaservice) (1 - mediaservice:slo_objective:ratio{$S,sli=\"",
            $sli,
            "\"})"
        )
    };
}

macro_rules! failed {
    ($sli:literal, $window:literal) => {
        concat!("mediaservice:", $sli, "_errors:ratio_rate", $window, "{$S}")
    };
}

macro_rules! three_days {
    ($title:literal, $sli:literal) => {
        Panel {
            title: $title,
            description: "Budget spent over the last 3 days, as a multiple of what the objective allows for that time: at 1, that of 30 days lasts 30 days.",
            kind: Stat,
            unit: Unit::Count,
            queries: &[Query {
                expr: burn!($sli, "3d"),
                legend: $sli,
            }],
            red_from: Some(1.0),
        }
    };
}

macro_rules! row {
    ($title:literal, $sli:literal, $failed:literal) => {
        Row {
            title: $title,
            panels: &[
                Panel {
                    title: concat!($title, ": share that fails"),
                    description: $failed,
                    kind: Lines,
                    unit: Unit::Ratio,
                    queries: &[
                        Query {
                            expr: failed!($sli, "5m"),
                            legend: "over 5 minutes",
                        },
                        Query {
                            expr: failed!($sli, "1h"),
                            legend: "over an hour",
                        },
                        Query {
                            expr: failed!($sli, "1d"),
                            legend: "over a day",
                        },
                    ],
                    red_from: None,
                },
                Panel {
                    title: concat!($title, ": fast burn"),
                    description: "Multiple of what the objective allows. Both windows of a pair above its number: 14.4 for an hour and 5 minutes, 6 for 6 hours and 30 minutes, wake somebody.",
                    kind: Lines,
                    unit: Unit::Count,
                    queries: &[
                        Query {
                            expr: burn!($sli, "5m"),
                            legend: "over 5 minutes",
                        },
                        Query {
                            expr: burn!($sli, "1h"),
                            legend: "over an hour",
                        },
                        Query {
                            expr: burn!($sli, "30m"),
                            legend: "over 30 minutes",
                        },
                        Query {
                            expr: burn!($sli, "6h"),
                            legend: "over 6 hours",
                        },
                    ],
                    red_from: Some(14.4),
                },
                Panel {
                    title: concat!($title, ": slow burn"),
                    description: "Multiple of what the objective allows. Both windows of a pair above its number: 3 for a day and 2 hours, 1 for 3 days and 6 hours, are a warning.",
                    kind: Lines,
                    unit: Unit::Count,
                    queries: &[
                        Query {
                            expr: burn!($sli, "2h"),
                            legend: "over 2 hours",
                        },
                        Query {
                            expr: burn!($sli, "1d"),
                            legend: "over a day",
                        },
                        Query {
                            expr: burn!($sli, "3d"),
                            legend: "over 3 days",
                        },
                    ],
                    red_from: Some(1.0),
                },
            ],
        }
    };
}

const ROWS: &[Row] = &[
    Row {
        title: "Last 3 days",
        panels: &[
            three_days!("Setup", "setup"),
            three_days!("Latency", "latency"),
            three_days!("Continuity", "continuity"),
            three_days!("Availability", "availability"),
            Panel {
                title: "Objectives",
                description: "What is aimed at over 30 days: spec.monitoring.sloTargets.",
                kind: Stat,
                unit: Unit::Ratio,
                queries: &[Query {
                    expr: "mediaservice:slo_objective:ratio{$S}",
                    legend: "{{sli}}",
                }],
                red_from: None,
            },
        ],
    },
    row!(
        "Setup",
        "setup",
        "Of sessions that connected or failed to: those that took longer than 10 s from their POST, or failed."
    ),
    row!(
        "Latency",
        "latency",
        "Of viewers whose device was there: those that were not sent the first of what they watch within 1 s of their POST."
    ),
    row!(
        "Continuity",
        "continuity",
        "Of the seconds of viewers whose device was there: those with a gap of a second, or a loss of 5 %."
    ),
    row!(
        "Availability",
        "availability",
        "Of the signalling requests that were right: those that failed or found no room."
    ),
];
