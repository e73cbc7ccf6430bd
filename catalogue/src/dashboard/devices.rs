//! Devices: the twenty that stand out, by what is counted for each.

use serde_json::Value;

use super::panel::{Head, Kind::Bars, Panel, Query, Row, Unit, model};
use super::{OF_PODS, uid, variables};
use crate::rules::Selector;

pub fn build(selector: &Selector<'_>) -> Value {
    let Selector { namespace, service } = selector;
    let head = Head {
        uid: uid(selector, "devices"),
        title: format!("MediaService devices {namespace}/{service}"),
        description: "The twenty devices of one MediaService that stand out. A device's figures go 15 minutes after its last session.",
        variables: variables::of_pods(selector),
    };
    model(head, ROWS, OF_PODS)
}

const ROWS: &[Row] = &[Row {
    title: "Top 20 of the last hour",
    panels: &[
        Panel {
            title: "Sessions opened",
            description: "Of the device and of its viewers, in the last hour. Many of few viewers are clients that connect again and again.",
            kind: Bars,
            unit: Unit::Count,
            queries: &[Query {
                expr: "topk(20, sum by (device_id) (increase(media_sessions_created_total{$S}[1h])))",
                legend: "{{device_id}}",
            }],
            red_from: None,
        },
        Panel {
            title: "Sessions that ended badly",
            description: "Ended in the last hour for another reason than a normal close.",
            kind: Bars,
            unit: Unit::Count,
            queries: &[Query {
                expr: "topk(20, sum by (device_id) (increase(media_sessions_closed_total{$S,reason!=\"normal_close\"}[1h])))",
                legend: "{{device_id}}",
            }],
            red_from: None,
        },
        Panel {
            title: "Share that ended badly",
            description: "Of the sessions that ended in the last hour, those that did so for another reason than a normal close.",
            kind: Bars,
            unit: Unit::Ratio,
            queries: &[Query {
                expr: "topk(20, sum by (device_id) (increase(media_sessions_closed_total{$S,reason!=\"normal_close\"}[1h])) / sum by (device_id) (increase(media_sessions_closed_total{$S}[1h])))",
                legend: "{{device_id}}",
            }],
            red_from: Some(0.2),
        },
        Panel {
            title: "Paths lost",
            description: "Sessions that ended in the last hour because no check came for 30 s: the device's network, or its viewers'.",
            kind: Bars,
            unit: Unit::Count,
            queries: &[Query {
                expr: "topk(20, sum by (device_id) (increase(media_sessions_closed_total{$S,reason=\"ice_failed\"}[1h])))",
                legend: "{{device_id}}",
            }],
            red_from: None,
        },
        Panel {
            title: "Shortest sessions",
            description: "Mean length of those that ended in the last hour.",
            kind: Bars,
            unit: Unit::Seconds,
            queries: &[Query {
                expr: "bottomk(20, sum by (device_id) (increase(media_session_duration_seconds_sum{$S}[1h])) / sum by (device_id) (increase(media_session_duration_seconds_count{$S}[1h])))",
                legend: "{{device_id}}",
            }],
            red_from: None,
        },
    ],
}];
