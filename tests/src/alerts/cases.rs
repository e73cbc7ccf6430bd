//! The cases: one for each alert with a cause. `ax5` is six times `a`, `0+2x5` counts from 0 by 2.
//!
//! A rate over a window of minutes is what the last so many samples say: it ends, or falls below the
//! threshold, that much later than what it counts.

use super::{Case, Quiet};

/// For the alerts of the MediaService `cam` in the namespace `media`.
pub const CASES: &[Case] = &[
    Case {
        alert: "MediaPodDown",
        series: &[("up{@cam,pod=\"cam-0\"}", "1x1 0x3 1x3")],
        holds: 2,
        fires: 4,
        ends: 6,
        labels: "severity=critical,namespace=media,mediaservice=cam,job=media-server,pod=cam-0",
        description: "Pod cam-0 of media/cam has not answered on its metrics port for 2 minutes; its sessions are likely lost.",
    },
    Case {
        alert: "MediaNoAcceptingPods",
        // It drains, and its end is seen as nothing at all.
        series: &[
            (
                "media_drain_state{@cam,pod=\"cam-0\"}",
                "0x1 1x1 stale _x2 0x3",
            ),
            ("media_drain_state{@other,pod=\"cam-0\"}", "0x20"),
        ],
        holds: 2,
        fires: 5,
        ends: 7,
        labels: "severity=critical,namespace=media,mediaservice=cam",
        description: "For 3 minutes no pod of media/cam has both answered its scrape and been open to new sessions.",
    },
    Case {
        alert: "MediaAddressUnknown",
        series: &[(
            "media_advertised_addresses{@cam,pod=\"cam-0\"}",
            "2x1 0x6 1x3",
        )],
        holds: 2,
        fires: 7,
        ends: 9,
        labels: "severity=critical,namespace=media,mediaservice=cam,pod=cam-0",
        description: "Pod cam-0 of media/cam has known no media address for 5 minutes, so it is not ready and takes no session.",
    },
    Case {
        alert: "MediaDrainOverdue",
        // It may drain for nine minutes, and is drained before that; then it is gone.
        series: &[("media_drain_state{@cam,pod=\"cam-0\"}", "0x1 1x5 2x7 stale")],
        holds: 2,
        fires: 13,
        ends: 16,
        labels: "severity=warning,namespace=media,mediaservice=cam,pod=cam-0",
        description: "Pod cam-0 of media/cam has drained for 2 minutes longer than spec.rollout.drainTimeoutSeconds allows.",
    },
    Case {
        alert: "MediaSetupFailuresHigh",
        // Five in the window are the network of one client, more are the service.
        series: &[
            (
                "media_setup_total{@cam,role=\"viewer\",protocol=\"whep\",result=\"failed\"}",
                "0+1x20 20x40",
            ),
            (
                "media_setup_total{@cam,role=\"viewer\",protocol=\"whep\",result=\"connected\"}",
                "0+1x60",
            ),
            (
                "media_setup_total{@cam,role=\"viewer\",protocol=\"whep\",result=\"refused\"}",
                "0+9x60",
            ),
            (
                "media_setup_total{@cam,role=\"viewer\",protocol=\"whep\",result=\"cancelled\"}",
                "0+9x60",
            ),
        ],
        holds: 6,
        fires: 11,
        ends: 25,
        labels: "severity=critical,namespace=media,mediaservice=cam",
        description: "50% of the set-ups of media/cam in the last 10 minutes never connected. A wrong or closed media address is the usual cause.",
    },
    Case {
        alert: "MediaDropsHigh",
        // What is withheld from a viewer on purpose, and what strangers send, is no drop of this kind.
        series: &[
            (
                "media_drops_total{@cam,pod=\"cam-0\",where=\"socket_full\"}",
                "0+600x20 12000x40",
            ),
            (
                "media_drops_total{@cam,pod=\"cam-0\",where=\"unknown_address\"}",
                "0+6000x60",
            ),
            (
                "media_drops_total{@cam,pod=\"cam-0\",where=\"no_keyframe\"}",
                "0+60x60",
            ),
            (
                "media_drops_total{@cam,pod=\"cam-0\",where=\"codec_mismatch\"}",
                "0+60x60",
            ),
            (
                "media_drops_total{@cam,pod=\"cam-0\",where=\"congestion\"}",
                "0+60x60",
            ),
            (
                "media_drops_total{@cam,pod=\"cam-0\",where=\"tcp_full\"}",
                "0+60x60",
            ),
            (
                "media_packets_total{@cam,pod=\"cam-0\",direction=\"in\"}",
                "0+12000x60",
            ),
            (
                "media_packets_total{@cam,pod=\"cam-0\",direction=\"out\"}",
                "0+6000x60",
            ),
        ],
        holds: 1,
        fires: 6,
        ends: 23,
        labels: "severity=warning,namespace=media,mediaservice=cam,pod=cam-0",
        description: "Pod cam-0 drops 5% of the packets it receives: viewers see a broken picture although their links may be fine.",
    },
    Case {
        alert: "MediaShardSaturated",
        // One of two threads is enough.
        series: &[
            (
                "media_shard_busy_ratio{@cam,pod=\"cam-0\",shard=\"0\"}",
                "0.5x30",
            ),
            (
                "media_shard_busy_ratio{@cam,pod=\"cam-0\",shard=\"1\"}",
                "0.89x1 0.95x12 0.89x3",
            ),
        ],
        holds: 2,
        fires: 12,
        ends: 15,
        labels: "severity=warning,namespace=media,mediaservice=cam,pod=cam-0",
        description: "A shard of pod cam-0 has been busy more than 90 % of the time for 10 minutes; more viewers on it mean delay for all of them.",
    },
    Case {
        alert: "MediaSessionLimitNear",
        series: &[
            (
                "media_active_sessions{@cam,pod=\"cam-0\"}",
                "1780x1 1900x7 1780x5",
            ),
            ("media_session_limit{@cam,pod=\"cam-0\"}", "2000x30"),
        ],
        holds: 2,
        fires: 7,
        ends: 10,
        labels: "severity=warning,namespace=media,mediaservice=cam,pod=cam-0",
        description: "Pod cam-0 holds 95% of the sessions it may; beyond the limit new ones are answered with 503.",
    },
    Case {
        alert: "MediaRecordingGaps",
        // What the network lost is no fault of the server.
        series: &[
            (
                "media_recording_gaps_total{@cam,pod=\"cam-0\",cause=\"overflow\"}",
                "0x1 1x40",
            ),
            (
                "media_recording_gaps_total{@cam,pod=\"cam-1\",cause=\"lost\"}",
                "0+1x40",
            ),
        ],
        holds: 2,
        fires: 7,
        ends: 11,
        labels: "severity=warning,namespace=media,mediaservice=cam,pod=cam-0",
        description: "Writers of pod cam-0 of media/cam do not keep up: its recordings lack video from there to the next keyframe. Viewers are not affected.",
    },
    Case {
        alert: "MediaRecordingFailed",
        // A device that sends nothing to record is no fault of the disk.
        series: &[
            (
                "media_recordings_total{@cam,pod=\"cam-0\",result=\"failed\"}",
                "0x1 1x40",
            ),
            (
                "media_recordings_total{@cam,pod=\"cam-1\",result=\"empty\"}",
                "0+1x40",
            ),
            (
                "media_recordings_total{@cam,pod=\"cam-1\",result=\"completed\"}",
                "0+1x40",
            ),
        ],
        holds: 2,
        fires: 3,
        ends: 11,
        labels: "severity=warning,namespace=media,mediaservice=cam,pod=cam-0",
        description: "In the last 10 minutes recordings of pod cam-0 of media/cam ended early or could not begin, because what they write can't be kept: the disk or the room for recordings is full, or writing fails. Viewers are not affected.",
    },
    Case {
        alert: "MediaAuthFailuresHigh",
        // Two in a second, first of eighty requests and then of eight. Pages without tokens, and keys that can't be
        // had, are many more all the time.
        series: &[
            (
                "media_auth_failures_total{@cam,pod=\"cam-0\",reason=\"signature\"}",
                "0+120x45 5400x20",
            ),
            (
                "media_auth_failures_total{@cam,pod=\"cam-0\",reason=\"missing\"}",
                "0+600x60",
            ),
            (
                "media_auth_failures_total{@cam,pod=\"cam-0\",reason=\"no_keys\"}",
                "0+600x60",
            ),
            (
                "media_http_requests_total{@cam,pod=\"cam-0\",method=\"POST\",path=\"/whep/{device}\",status=\"401\"}",
                "0+4800x19 91680+480x40",
            ),
            (
                "media_http_requests_total{@cam,pod=\"cam-0\",method=\"GET\",path=\"/readyz\",status=\"200\"}",
                "0+9600x60",
            ),
        ],
        holds: 23,
        fires: 28,
        ends: 47,
        labels: "severity=warning,namespace=media,mediaservice=cam",
        description: "2 requests a second to media/cam come with a token that is not good. Either somebody tries tokens, or clients have ones that are signed, issued or granted wrongly, and are locked out.",
    },
    Case {
        alert: "MediaSeriesFolded",
        // All of them at once, and then they stay.
        series: &[(
            "media_metrics_series_folded_total{@cam,pod=\"cam-0\",family=\"media_rtt_milliseconds\"}",
            "0x5 5000x80",
        )],
        holds: 6,
        fires: 11,
        ends: 65,
        labels: "severity=warning,namespace=media,mediaservice=cam,family=media_rtt_milliseconds",
        description: "In the last hour family media_rtt_milliseconds of media/cam went beyond its cap: sums stay right, but some devices or sessions are shown as `other` or not at all.",
    },
    Case {
        alert: "MediaEventsDropped",
        // The ones that were delivered meanwhile change nothing.
        series: &[
            (
                "media_events_dropped_total{@cam,pod=\"cam-0\",sink=\"amqp\",reason=\"old\"}",
                "0x2 5x40",
            ),
            (
                "media_events_delivered_total{@cam,pod=\"cam-0\",sink=\"amqp\"}",
                "0+9x60",
            ),
        ],
        holds: 3,
        fires: 4,
        ends: 17,
        labels: "severity=warning,namespace=media,mediaservice=cam,pod=cam-0,sink=amqp,reason=old",
        description: "Pod cam-0 of media/cam dropped events for its receiver amqp (old): whoever counts sessions by them counts wrong.",
    },
    Case {
        alert: "MediaTaskLeak",
        series: &[(
            "media_potential_goroutine_leak{@cam,pod=\"cam-0\"}",
            "0x1 1x6 0x3",
        )],
        holds: 2,
        fires: 7,
        ends: 9,
        labels: "severity=warning,namespace=media,mediaservice=cam,pod=cam-0",
        description: "Pod cam-0 has held more tasks than 100 + 4 for each connection for at least 10 minutes: memory will grow until it is restarted.",
    },
];

/// Nobody is woken by these, in half an hour.
pub const QUIET: &[Quiet] = &[
    Quiet {
        what: "the only client of an hour can't connect",
        alert: "MediaSetupBurn",
        series: &[
            (
                "media_setup_total{@cam,pod=\"cam-0\",role=\"viewer\",protocol=\"whep\",result=\"failed\"}",
                "0x1 1x40",
            ),
            (
                "media_setup_seconds_bucket{@cam,pod=\"cam-0\",role=\"viewer\",le=\"10.0\"}",
                "0x40",
            ),
        ],
    },
    Quiet {
        what: "the only viewer of an hour waits",
        alert: "MediaLatencyBurn",
        series: &[
            (
                "media_first_media_seconds_bucket{@cam,pod=\"cam-0\",le=\"1.0\"}",
                "0x40",
            ),
            (
                "media_first_media_seconds_count{@cam,pod=\"cam-0\"}",
                "0x1 1x40",
            ),
            (
                "media_viewers_without_media_total{@cam,pod=\"cam-0\"}",
                "0x40",
            ),
        ],
    },
    Quiet {
        what: "a gap of five seconds in five minutes of watching",
        alert: "MediaContinuityBurn",
        series: &[
            (
                "media_viewer_seconds_total{@cam,pod=\"cam-0\",quality=\"gap\"}",
                "0x1 5x40",
            ),
            (
                "media_viewer_seconds_total{@cam,pod=\"cam-0\",quality=\"good\"}",
                "0+60x5 300x40",
            ),
        ],
    },
    Quiet {
        what: "four requests of a quiet night fail",
        alert: "MediaAvailabilityBurn",
        series: &[
            (
                "media_signalling_total{@cam,pod=\"cam-0\",result=\"failed\"}",
                "0x1 4x40",
            ),
            (
                "media_signalling_total{@cam,pod=\"cam-0\",result=\"ok\"}",
                "0+1x40",
            ),
        ],
    },
    Quiet {
        what: "clients that are wrong, and a rollout",
        alert: "MediaAvailabilityBurn",
        series: &[
            (
                "media_signalling_total{@cam,pod=\"cam-0\",result=\"client\"}",
                "0+600x40",
            ),
            (
                "media_signalling_total{@cam,pod=\"cam-0\",result=\"draining\"}",
                "0+600x40",
            ),
            (
                "media_signalling_total{@cam,pod=\"cam-0\",result=\"ok\"}",
                "0+1x40",
            ),
            (
                "media_signalling_total{@cam,pod=\"cam-0\",result=\"failed\"}",
                "0x40",
            ),
        ],
    },
    Quiet {
        what: "datagrams of strangers, and hardly a drop besides",
        alert: "MediaDropsHigh",
        series: &[
            (
                "media_drops_total{@cam,pod=\"cam-0\",where=\"unknown_address\"}",
                "0+600x40",
            ),
            (
                "media_drops_total{@cam,pod=\"cam-0\",where=\"dtls\"}",
                "0+30x40",
            ),
            (
                "media_packets_total{@cam,pod=\"cam-0\",direction=\"in\"}",
                "0+630x40",
            ),
        ],
    },
    Quiet {
        what: "a healthy pod that is scraped once a minute",
        alert: "MediaNoAcceptingPods",
        series: &[("media_drain_state{@cam,pod=\"cam-0\"}", "0x40")],
    },
];

/// For the alerts of the operator in the namespace `ops`.
pub const OPERATOR_CASES: &[Case] = &[
    Case {
        alert: "MediaOperatorNoLeader",
        // Of two one leads; then the other answers still, and leads no more than before.
        series: &[
            (
                "mediaservice_operator_leader{@ops,pod=\"a\"}",
                "1x1 stale _x5 1x3",
            ),
            ("mediaservice_operator_leader{@ops,pod=\"b\"}", "0x20"),
            ("up{@ops,pod=\"b\"}", "1x20"),
            ("mediaservice_operator_leader{@other,pod=\"a\"}", "1x20"),
        ],
        holds: 2,
        fires: 7,
        ends: 8,
        labels: "severity=warning,namespace=ops",
        description: "For 5 minutes operators in ops have answered, and none has held the Lease. Streams go on, but changes, new pods and changed addresses wait.",
    },
    Case {
        alert: "MediaOperatorUnseen",
        // One does not answer, then there is none to be asked.
        series: &[
            ("up{@ops,pod=\"a\"}", "1x1 0x2 stale _x3 1x3"),
            ("up{@other,pod=\"a\"}", "1x20"),
        ],
        holds: 2,
        fires: 7,
        ends: 9,
        labels: "severity=warning,namespace=ops",
        description: "For 5 minutes no operator in ops has answered a scrape. Either none runs, or Prometheus does not find or reach it. Streams go on; the other alerts about the operator are blind.",
    },
    Case {
        alert: "MediaOperatorReconcileErrors",
        series: &[(
            "mediaservice_operator_reconcile_errors_total{@ops,pod=\"a\",reason=\"ApplyFailed\"}",
            "0x1 1+1x20 21x30",
        )],
        holds: 2,
        fires: 17,
        ends: 31,
        labels: "severity=warning,namespace=ops,reason=ApplyFailed",
        description: "Reconciliations in ops have failed with ApplyFailed for 15 minutes. The condition of that reason on the MediaService has the API server's words.",
    },
    Case {
        alert: "MediaOperatorQueueStuck",
        series: &[(
            "mediaservice_operator_queue_depth{@ops,pod=\"a\"}",
            "0x1 3x16 0x3",
        )],
        holds: 2,
        fires: 17,
        ends: 19,
        labels: "severity=warning,namespace=ops",
        description: "3 MediaServices have waited in ops for 15 minutes: no reconciliation has reported on what their specs say now.",
    },
    Case {
        alert: "MediaOperatorWatchErrors",
        // Six in ten minutes are a burst, seven are not.
        series: &[(
            "mediaservice_operator_watch_errors_total{@ops,pod=\"a\"}",
            "0+1x40 40x30",
        )],
        holds: 7,
        fires: 22,
        ends: 44,
        labels: "severity=warning,namespace=ops",
        description: "Watches of the operator in ops have failed for 15 minutes. Changes are seen late or not at all.",
    },
    Case {
        alert: "MediaOperatorCRDMissing",
        series: &[(
            "mediaservice_operator_crd_missing{@ops,pod=\"a\"}",
            "0x1 1x6 0x3",
        )],
        holds: 2,
        fires: 7,
        ends: 9,
        labels: "severity=warning,namespace=ops",
        description: "For 5 minutes the API server has said to the operator in ops that it does not serve MediaServices.",
    },
];
