//! Recordings: how many, how much, and whether the disk keeps up.

use super::super::panel::{Kind::Lines, Panel, Query, Row, Unit};

pub const ROW: Row = Row {
    title: "Recordings",
    panels: &[
        Panel {
            title: "Recordings under way",
            description: "By pod, and those that failed, because the disk or the room for recordings was full or writing failed, or were empty, because nothing came that a file could hold.",
            kind: Lines,
            unit: Unit::Count,
            queries: &[
                Query {
                    expr: "sum by (pod) (media_recordings_active{$S})",
                    legend: "{{pod}}",
                },
                Query {
                    expr: "sum by (result) (increase(media_recordings_total{$S,result!=\"completed\"}[$__rate_interval]))",
                    legend: "{{result}}",
                },
            ],
            red_from: None,
        },
        Panel {
            title: "Gaps in recordings",
            description: "Times that video is missing up to the next keyframe. Overflow: the disk did not keep up. Lost: the device's packets never came.",
            kind: Lines,
            unit: Unit::PerSecond,
            queries: &[Query {
                expr: "sum by (cause) (rate(media_recording_gaps_total{$S}[$__rate_interval]))",
                legend: "{{cause}}",
            }],
            red_from: None,
        },
        Panel {
            title: "Written to recordings",
            description: "Bits per second that go to the disk, by pod.",
            kind: Lines,
            unit: Unit::BitsPerSecond,
            queries: &[Query {
                expr: "sum by (pod) (rate(media_recording_bytes_total{$S}[$__rate_interval])) * 8",
                legend: "{{pod}}",
            }],
            red_from: None,
        },
    ],
};
