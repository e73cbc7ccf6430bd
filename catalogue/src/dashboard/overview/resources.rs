//! Resources: what a pod uses of the machine, and what state it is in.

use super::super::panel::{Kind::Lines, Panel, Query, Row, Unit};

pub const ROW: Row = Row {
    title: "Resources",
    panels: &[
        Panel {
            title: "Memory",
            description: "Resident set, and what the allocator gave out and holds, over the selected pods.",
            kind: Lines,
            unit: Unit::Bytes,
            queries: &[
                Query {
                    expr: "sum by (pod) (media_memory_usage_bytes{$S})",
                    legend: "{{pod}} resident",
                },
                Query {
                    expr: "sum by (pod) (media_memory_heap_alloc_bytes{$S})",
                    legend: "{{pod}} allocated",
                },
                Query {
                    expr: "sum by (pod) (media_memory_heap_sys_bytes{$S})",
                    legend: "{{pod}} held by the allocator",
                },
            ],
            red_from: None,
        },
        Panel {
            title: "CPU",
            description: "Used of what the pod may use; media threads by how busy they are.",
            kind: Lines,
            unit: Unit::Ratio,
            queries: &[
                Query {
                    expr: "media_cpu_usage_ratio{$S}",
                    legend: "{{pod}}",
                },
                Query {
                    expr: "media_shard_busy_ratio{$S}",
                    legend: "{{pod}} shard {{shard}}",
                },
            ],
            red_from: Some(0.9),
        },
        Panel {
            title: "Sessions by media thread",
            description: "Even is good: a device's viewers stay together up to a point.",
            kind: Lines,
            unit: Unit::Count,
            queries: &[Query {
                expr: "media_shard_sessions{$S}",
                legend: "{{pod}} shard {{shard}}",
            }],
            red_from: None,
        },
        Panel {
            title: "State and version",
            description: "Accepting 0, draining 1, drained 2; and addresses that answers name.",
            kind: Lines,
            unit: Unit::Count,
            queries: &[
                Query {
                    expr: "media_drain_state{$S} * on (namespace, mediaservice, pod) group_left (version) topk by (namespace, mediaservice, pod) (1, media_build_info{$S})",
                    legend: "{{pod}} {{version}} state",
                },
                Query {
                    expr: "media_advertised_addresses{$S}",
                    legend: "{{pod}} addresses",
                },
            ],
            red_from: None,
        },
        Panel {
            title: "Tasks",
            description: "Live tasks and media threads, and the most seen. The families keep an older service's names.",
            kind: Lines,
            unit: Unit::Count,
            queries: &[
                Query {
                    expr: "media_goroutine_count{$S}",
                    legend: "{{pod}}",
                },
                Query {
                    expr: "media_goroutine_count_max{$S}",
                    legend: "{{pod}} most",
                },
            ],
            red_from: None,
        },
    ],
};
