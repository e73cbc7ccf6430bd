//! The overview: is it up, what does it carry, how does it look for viewers, what does it cost.

mod media;
mod outside;
mod recordings;
mod resources;
mod sessions;
mod signalling;

use serde_json::Value;

use super::panel::{Head, Kind::Stat, Panel, Query, Row, Unit, model};
use super::{OF_PODS, uid, variables};
use crate::rules::Selector;

pub fn build(selector: &Selector<'_>) -> Value {
    let Selector { namespace, service } = selector;
    let head = Head {
        uid: uid(selector, "overview"),
        title: format!("MediaService overview {namespace}/{service}"),
        description: "Sessions, media, signalling and resources of one MediaService.",
        variables: variables::of_pods(selector),
    };
    model(head, ROWS, OF_PODS)
}

const ROWS: &[Row] = &[
    Row {
        title: "Now",
        panels: &[
            Panel {
                title: "Sessions",
                description: "Publishers and viewers that are open.",
                kind: Stat,
                unit: Unit::Count,
                queries: &[Query {
                    expr: "sum by (role) (media_sessions{$S})",
                    legend: "{{role}}s",
                }],
                red_from: None,
            },
            Panel {
                title: "Pods up",
                description: "Media pods that answered their last scrape.",
                kind: Stat,
                unit: Unit::Count,
                queries: &[Query {
                    expr: "sum(up{$S})",
                    legend: "pods",
                }],
                red_from: None,
            },
            Panel {
                title: "Video carried",
                description: "Video payload, from publishers and to viewers together.",
                kind: Stat,
                unit: Unit::BitsPerSecond,
                queries: &[Query {
                    expr: "sum(media_video_bitrate_bps{$S})",
                    legend: "video",
                }],
                red_from: None,
            },
            Panel {
                title: "Requests that failed",
                description: "Share of the right signalling requests that failed or found no room, last 5 minutes. The objective is at most 0.1 %, where sloTargets say nothing else.",
                kind: Stat,
                unit: Unit::Ratio,
                queries: &[Query {
                    expr: "sum(rate(media_signalling_total{$S,result=~\"failed|refused\"}[5m])) / sum(rate(media_signalling_total{$S,result=~\"ok|failed|refused\"}[5m]))",
                    legend: "failed",
                }],
                red_from: Some(0.001),
            },
            Panel {
                title: "Sessions that ended badly",
                description: "Share of sessions that ended for another reason than a normal close, last 5 minutes.",
                kind: Stat,
                unit: Unit::Ratio,
                queries: &[Query {
                    expr: "sum(rate(media_sessions_closed_total{$S,reason!=\"normal_close\"}[5m])) / sum(rate(media_sessions_closed_total{$S}[5m]))",
                    legend: "not normal",
                }],
                red_from: Some(0.2),
            },
            Panel {
                title: "Busiest CPU",
                description: "CPU used of what the pod may use, in the busiest pod.",
                kind: Stat,
                unit: Unit::Ratio,
                queries: &[Query {
                    expr: "max(media_cpu_usage_ratio{$S})",
                    legend: "cpu",
                }],
                red_from: Some(0.9),
            },
        ],
    },
    sessions::ROW,
    media::ROW,
    recordings::ROW,
    signalling::ROW,
    resources::ROW,
];
