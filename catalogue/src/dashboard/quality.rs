//! Quality: how it looks for viewers, how soon they see something, and what is done about loss.

use serde_json::Value;

use super::panel::{Head, Kind::Lines, Kind::Stat, Panel, Query, Row, Unit, model};
use super::{OF_PODS, uid, variables};
use crate::rules::Selector;

pub fn build(selector: &Selector<'_>) -> Value {
    let Selector { namespace, service } = selector;
    let head = Head {
        uid: uid(selector, "quality"),
        title: format!("MediaService quality {namespace}/{service}"),
        description: "How it looks for the viewers of one MediaService.",
        variables: variables::of_pods(selector),
    };
    model(head, ROWS, OF_PODS)
}

const ROWS: &[Row] = &[
    Row {
        title: "Now",
        panels: &[
            Panel {
                title: "Watched badly",
                description: "Share of the time that devices were watched with a gap of a second or a loss of 5 %, last 5 minutes. The objective is at most 0.1 %, where sloTargets say nothing else.",
                kind: Stat,
                unit: Unit::Ratio,
                queries: &[Query {
                    expr: "sum(rate(media_viewer_seconds_total{$S,quality=~\"gap|loss\"}[5m])) / sum(rate(media_viewer_seconds_total{$S}[5m]))",
                    legend: "badly",
                }],
                red_from: Some(0.001),
            },
            Panel {
                title: "First media, 95 % within",
                description: "From a viewer's POST to the first packet of what it watches, last 5 minutes.",
                kind: Stat,
                unit: Unit::Seconds,
                queries: &[Query {
                    expr: "histogram_quantile(0.95, sum by (le) (rate(media_first_media_seconds_bucket{$S}[5m])))",
                    legend: "first media",
                }],
                red_from: Some(1.0),
            },
            Panel {
                title: "Worst loss",
                description: "Of the session that loses the most.",
                kind: Stat,
                unit: Unit::Ratio,
                queries: &[Query {
                    expr: "max(media_packet_loss_ratio{$S})",
                    legend: "loss",
                }],
                red_from: Some(0.05),
            },
            Panel {
                title: "Longest round trip",
                description: "Of the session that is farthest away.",
                kind: Stat,
                unit: Unit::Milliseconds,
                queries: &[Query {
                    expr: "max(media_rtt_milliseconds{$S})",
                    legend: "round trip",
                }],
                red_from: Some(300.0),
            },
            Panel {
                title: "Lowest frame rate",
                description: "Of the session with the fewest frames.",
                kind: Stat,
                unit: Unit::FramesPerSecond,
                queries: &[Query {
                    expr: "min(media_video_frame_rate{$S})",
                    legend: "frames",
                }],
                red_from: None,
            },
            Panel {
                title: "Viewers without media",
                description: "That connected to a live device and went without a packet, in the last hour.",
                kind: Stat,
                unit: Unit::Count,
                queries: &[Query {
                    expr: "sum(increase(media_viewers_without_media_total{$S}[1h]))",
                    legend: "viewers",
                }],
                red_from: Some(1.0),
            },
        ],
    },
    Row {
        title: "Viewers",
        panels: &[
            Panel {
                title: "Time watched",
                description: "Viewers by how the second was: good, with a gap, with loss, or still, when their device had no new picture. Added up they are the viewers of live devices.",
                kind: Lines,
                unit: Unit::Count,
                queries: &[Query {
                    expr: "sum by (quality) (rate(media_viewer_seconds_total{$S}[$__rate_interval]))",
                    legend: "{{quality}}",
                }],
                red_from: None,
            },
            Panel {
                title: "First media",
                description: "From a viewer's POST to the first packet of what it watches, where the device was there.",
                kind: Lines,
                unit: Unit::Seconds,
                queries: &[
                    Query {
                        expr: "histogram_quantile(0.5, sum by (le) (rate(media_first_media_seconds_bucket{$S}[$__rate_interval])))",
                        legend: "half within",
                    },
                    Query {
                        expr: "histogram_quantile(0.95, sum by (le) (rate(media_first_media_seconds_bucket{$S}[$__rate_interval])))",
                        legend: "95 % within",
                    },
                ],
                red_from: Some(1.0),
            },
            Panel {
                title: "First picture from",
                description: "Share of viewers that began from the cache at once; the others waited for a keyframe.",
                kind: Lines,
                unit: Unit::Ratio,
                queries: &[Query {
                    expr: "sum by (served) (rate(media_join_total{$S}[$__rate_interval])) / on () group_left () sum(rate(media_join_total{$S}[$__rate_interval]))",
                    legend: "{{served}}",
                }],
                red_from: None,
            },
            Panel {
                title: "Loss over sessions",
                description: "Of half of the sessions, of 95 %, and of all.",
                kind: Lines,
                unit: Unit::Ratio,
                queries: &[
                    Query {
                        expr: "quantile(0.5, media_packet_loss_ratio{$S})",
                        legend: "half at most",
                    },
                    Query {
                        expr: "quantile(0.95, media_packet_loss_ratio{$S})",
                        legend: "95 % at most",
                    },
                    Query {
                        expr: "max(media_packet_loss_ratio{$S})",
                        legend: "all at most",
                    },
                ],
                red_from: Some(0.05),
            },
            Panel {
                title: "Round trip and jitter over sessions",
                description: "Of half of the sessions and of 95 %.",
                kind: Lines,
                unit: Unit::Milliseconds,
                queries: &[
                    Query {
                        expr: "quantile(0.5, media_rtt_milliseconds{$S})",
                        legend: "round trip, half at most",
                    },
                    Query {
                        expr: "quantile(0.95, media_rtt_milliseconds{$S})",
                        legend: "round trip, 95 % at most",
                    },
                    Query {
                        expr: "quantile(0.95, media_jitter_milliseconds{$S})",
                        legend: "jitter, 95 % at most",
                    },
                ],
                red_from: Some(300.0),
            },
            Panel {
                title: "Frame rate over sessions",
                description: "Of half of the sessions and of the slowest twentieth.",
                kind: Lines,
                unit: Unit::FramesPerSecond,
                queries: &[
                    Query {
                        expr: "quantile(0.5, media_video_frame_rate{$S})",
                        legend: "half at least",
                    },
                    Query {
                        expr: "quantile(0.05, media_video_frame_rate{$S})",
                        legend: "95 % at least",
                    },
                ],
                red_from: None,
            },
            Panel {
                title: "Room on the way to viewers",
                description: "What the links of viewers have room for: the narrowest twentieth, and half; and the video that sessions carry, half of them.",
                kind: Lines,
                unit: Unit::BitsPerSecond,
                queries: &[
                    Query {
                        expr: "quantile(0.05, media_bandwidth_estimate_bps{$S})",
                        legend: "room, 95 % at least",
                    },
                    Query {
                        expr: "quantile(0.5, media_bandwidth_estimate_bps{$S})",
                        legend: "room, half at least",
                    },
                    Query {
                        expr: "quantile(0.5, media_video_bitrate_bps{$S})",
                        legend: "video, half at least",
                    },
                ],
                red_from: None,
            },
        ],
    },
    Row {
        title: "Repair",
        panels: &[
            Panel {
                title: "Sent again",
                description: "Share of the datagrams to viewers that repair what was lost.",
                kind: Lines,
                unit: Unit::Ratio,
                queries: &[Query {
                    expr: "sum(rate(media_retransmitted_packets_total{$S,direction=\"out\"}[$__rate_interval])) / sum(rate(media_packets_total{$S,direction=\"out\"}[$__rate_interval]))",
                    legend: "of what is sent",
                }],
                red_from: Some(0.05),
            },
            Panel {
                title: "Keyframes for lost pictures",
                description: "Asked of devices because a viewer could not go on from what it had.",
                kind: Lines,
                unit: Unit::PerSecond,
                queries: &[Query {
                    expr: "sum by (pod) (rate(media_keyframe_requests_total{$S,cause=\"lost\"}[$__rate_interval]))",
                    legend: "{{pod}}",
                }],
                red_from: None,
            },
            Panel {
                title: "Dropped of what comes in",
                description: "Of what a pod receives, without what is withheld on purpose and what strangers send: the share that MediaDropsHigh looks at.",
                kind: Lines,
                unit: Unit::Ratio,
                queries: &[Query {
                    expr: "sum by (pod) (rate(media_drops_total{$S,where!~\"no_keyframe|codec_mismatch|congestion|tcp_full|malformed|unknown_address|stun_unauthenticated|stun_replay\"}[$__rate_interval])) / sum by (pod) (rate(media_packets_total{$S,direction=\"in\"}[$__rate_interval]))",
                    legend: "{{pod}}",
                }],
                red_from: Some(0.02),
            },
        ],
    },
];
