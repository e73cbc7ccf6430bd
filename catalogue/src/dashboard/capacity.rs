//! Capacity: how far each pod is from what it can carry, and what grows.

use serde_json::Value;

use super::panel::{Head, Kind::Lines, Kind::Stat, Panel, Query, Row, Unit, model};
use super::{OF_PODS, uid, variables};
use crate::rules::Selector;

pub fn build(selector: &Selector<'_>) -> Value {
    let Selector { namespace, service } = selector;
    let head = Head {
        uid: uid(selector, "capacity"),
        title: format!("MediaService capacity {namespace}/{service}"),
        description: "How far one MediaService is from what its pods can carry.",
        variables: variables::of_pods(selector),
    };
    model(head, ROWS, OF_PODS)
}

const ROWS: &[Row] = &[
    Row {
        title: "Now, in the fullest pod",
        panels: &[
            Panel {
                title: "Sessions",
                description: "Of spec.limits.sessionsPerPod; beyond it new ones are answered with 503.",
                kind: Stat,
                unit: Unit::Ratio,
                queries: &[Query {
                    expr: "max(media_active_sessions{$S} / media_session_limit{$S})",
                    legend: "sessions",
                }],
                red_from: Some(0.9),
            },
            Panel {
                title: "Busiest media thread",
                description: "Time that it worked, last 10 seconds.",
                kind: Stat,
                unit: Unit::Ratio,
                queries: &[Query {
                    expr: "max(media_shard_busy_ratio{$S})",
                    legend: "thread",
                }],
                red_from: Some(0.9),
            },
            Panel {
                title: "CPU",
                description: "Used of what the pod may use.",
                kind: Stat,
                unit: Unit::Ratio,
                queries: &[Query {
                    expr: "max(media_cpu_usage_ratio{$S})",
                    legend: "cpu",
                }],
                red_from: Some(0.9),
            },
            Panel {
                title: "Memory",
                description: "Resident set.",
                kind: Stat,
                unit: Unit::Bytes,
                queries: &[Query {
                    expr: "max(media_memory_usage_bytes{$S})",
                    legend: "resident",
                }],
                red_from: None,
            },
            Panel {
                title: "Set-ups under way",
                description: "200 at most are at once; others wait.",
                kind: Stat,
                unit: Unit::Count,
                queries: &[Query {
                    expr: "max(media_handshakes{$S,state=\"in_flight\"})",
                    legend: "set-ups",
                }],
                red_from: Some(200.0),
            },
            Panel {
                title: "Refused for want of room",
                description: "Requests that were answered with 503 in the last hour, or recordings with 500.",
                kind: Stat,
                unit: Unit::Count,
                queries: &[Query {
                    expr: "sum(increase(media_refused_total{$S,limit!~\"subject|device\"}[1h]))",
                    legend: "refused",
                }],
                red_from: Some(1.0),
            },
        ],
    },
    Row {
        title: "Load by pod",
        panels: &[
            Panel {
                title: "Sessions by role",
                description: "A viewer costs more than a publisher: what a device sends once goes out to each.",
                kind: Lines,
                unit: Unit::Count,
                queries: &[Query {
                    expr: "sum by (pod, role) (media_sessions{$S})",
                    legend: "{{pod}} {{role}}s",
                }],
                red_from: None,
            },
            Panel {
                title: "Datagrams out",
                description: "What media threads spend most of their time on.",
                kind: Lines,
                unit: Unit::PacketsPerSecond,
                queries: &[Query {
                    expr: "sum by (pod) (rate(media_packets_total{$S,direction=\"out\"}[$__rate_interval]))",
                    legend: "{{pod}}",
                }],
                red_from: None,
            },
            Panel {
                title: "Traffic out",
                description: "What the node's link has to carry.",
                kind: Lines,
                unit: Unit::BitsPerSecond,
                queries: &[Query {
                    expr: "8 * sum by (pod) (rate(media_bytes_total{$S,direction=\"out\"}[$__rate_interval]))",
                    legend: "{{pod}}",
                }],
                red_from: None,
            },
            Panel {
                title: "Busiest media thread by pod",
                description: "Above 90 % packets wait. More cores are more threads, from the pod's next restart on.",
                kind: Lines,
                unit: Unit::Ratio,
                queries: &[Query {
                    expr: "max by (pod) (media_shard_busy_ratio{$S})",
                    legend: "{{pod}}",
                }],
                red_from: Some(0.9),
            },
            Panel {
                title: "Time of a thread for a thousand datagrams",
                description: "Of all threads over what they send. Rises when sessions are many and small, or CPU is scarce.",
                kind: Lines,
                unit: Unit::Seconds,
                queries: &[Query {
                    expr: "1000 * sum by (pod) (media_shard_busy_ratio{$S}) / sum by (pod) (rate(media_packets_total{$S,direction=\"out\"}[$__rate_interval]))",
                    legend: "{{pod}}",
                }],
                red_from: None,
            },
            Panel {
                title: "TCP connections for media",
                description: "Each costs a file and more CPU than UDP does.",
                kind: Lines,
                unit: Unit::Count,
                queries: &[Query {
                    expr: "sum by (pod) (media_tcp_connections{$S})",
                    legend: "{{pod}}",
                }],
                red_from: None,
            },
        ],
    },
    Row {
        title: "Growth",
        panels: &[
            Panel {
                title: "Memory, and in four hours",
                description: "Resident set, and where it will be if it goes on as in the last hour.",
                kind: Lines,
                unit: Unit::Bytes,
                queries: &[
                    Query {
                        expr: "max by (pod) (media_memory_usage_bytes{$S})",
                        legend: "{{pod}}",
                    },
                    Query {
                        expr: "max by (pod) (predict_linear(media_memory_usage_bytes{$S}[1h], 14400))",
                        legend: "{{pod}} in four hours",
                    },
                ],
                red_from: None,
            },
            Panel {
                title: "Memory by session",
                description: "Resident set over open sessions. With few of them the program itself is most of it.",
                kind: Lines,
                unit: Unit::Bytes,
                queries: &[Query {
                    expr: "sum by (pod) (media_memory_usage_bytes{$S}) / sum by (pod) (media_active_sessions{$S})",
                    legend: "{{pod}}",
                }],
                red_from: None,
            },
            Panel {
                title: "Recent video held by pod",
                description: "For joins and repair: a quarter of the pod's memory at most.",
                kind: Lines,
                unit: Unit::Bytes,
                queries: &[Query {
                    expr: "sum by (pod) (media_cache_bytes{$S})",
                    legend: "{{pod}}",
                }],
                red_from: None,
            },
            Panel {
                title: "Bounds reached",
                description: "Times that a table or a queue had no room, in the interval, and label sets that metrics folded.",
                kind: Lines,
                unit: Unit::Count,
                queries: &[
                    Query {
                        expr: "sum by (bound) (increase(media_bound_hits_total{$S}[$__rate_interval]))",
                        legend: "{{bound}}",
                    },
                    Query {
                        expr: "sum by (family) (increase(media_metrics_series_folded_total{$S}[$__rate_interval]))",
                        legend: "folded: {{family}}",
                    },
                ],
                red_from: None,
            },
        ],
    },
];
