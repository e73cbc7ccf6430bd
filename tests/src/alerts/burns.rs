//! A case for each burn alert: an indicator and a pair of windows.
//!
//! The share that fails is one that the faster pairs allow: 20, 10, 5 and 2 times the budget of the indicator.

use super::Case;

pub const BURN_CASES: &[Case] = &[
    Case {
        alert: "MediaSetupBurn",
        // None has ever connected, so that nothing says how long that took. What a client gave up says nothing.
        series: &[
            (
                "media_setup_total{@cam,pod=\"cam-0\",role=\"viewer\",protocol=\"whep\",result=\"failed\"}",
                "0+10x10 100x40",
            ),
            (
                "media_setup_total{@cam,pod=\"cam-0\",role=\"viewer\",protocol=\"whep\",result=\"cancelled\"}",
                "0+90x50",
            ),
        ],
        holds: 1,
        fires: 3,
        ends: 14,
        labels: "severity=critical,long=1h,short=5m,namespace=media,mediaservice=cam",
        description: "100% of the sessions of media/cam did not connect within 10 s; the objective is at most 0.5 % over 30 days.",
    },
    Case {
        alert: "MediaSetupBurn",
        // All connect, some late; and the bound as Prometheus 2 writes it.
        series: &[
            (
                "media_setup_total{@cam,pod=\"cam-0\",role=\"viewer\",protocol=\"whep\",result=\"connected\"}",
                "0+100x60",
            ),
            (
                "media_setup_seconds_bucket{@cam,pod=\"cam-0\",role=\"viewer\",le=\"10\"}",
                "0+95x20 2000+100x40",
            ),
            (
                "media_setup_total{@cam,pod=\"cam-0\",role=\"viewer\",protocol=\"whep\",result=\"failed\"}",
                "0x60",
            ),
        ],
        holds: 1,
        fires: 16,
        ends: 32,
        labels: "severity=critical,long=6h,short=30m,namespace=media,mediaservice=cam",
        description: "5% of the sessions of media/cam did not connect within 10 s; the objective is at most 0.5 % over 30 days.",
    },
    Case {
        alert: "MediaSetupBurn",
        series: &[
            (
                "media_setup_total{@cam,pod=\"cam-0\",role=\"viewer\",protocol=\"whep\",result=\"failed\"}",
                "0+1x70 70x80",
            ),
            (
                "media_setup_total{@cam,pod=\"cam-0\",role=\"viewer\",protocol=\"whep\",result=\"connected\"}",
                "0+39x150",
            ),
            (
                "media_setup_seconds_bucket{@cam,pod=\"cam-0\",role=\"viewer\",le=\"10.0\"}",
                "0+39x150",
            ),
        ],
        holds: 1,
        fires: 61,
        ends: 118,
        labels: "severity=warning,long=1d,short=2h,namespace=media,mediaservice=cam",
        description: "2.5% of the sessions of media/cam did not connect within 10 s; the objective is at most 0.5 % over 30 days.",
    },
    Case {
        alert: "MediaSetupBurn",
        series: &[
            (
                "media_setup_total{@cam,pod=\"cam-0\",role=\"viewer\",protocol=\"whep\",result=\"failed\"}",
                "0+1x190 190x190",
            ),
            (
                "media_setup_total{@cam,pod=\"cam-0\",role=\"viewer\",protocol=\"whep\",result=\"connected\"}",
                "0+99x380",
            ),
            (
                "media_setup_seconds_bucket{@cam,pod=\"cam-0\",role=\"viewer\",le=\"10.0\"}",
                "0+99x380",
            ),
        ],
        holds: 1,
        fires: 181,
        ends: 371,
        labels: "severity=warning,long=3d,short=6h,namespace=media,mediaservice=cam",
        description: "1% of the sessions of media/cam did not connect within 10 s; the objective is at most 0.5 % over 30 days.",
    },
    Case {
        alert: "MediaLatencyBurn",
        // Of ten one in time and one late; the others never.
        series: &[
            (
                "media_first_media_seconds_bucket{@cam,pod=\"cam-0\",le=\"1.0\"}",
                "0+1x10 20+10x39",
            ),
            (
                "media_first_media_seconds_count{@cam,pod=\"cam-0\"}",
                "0+2x10 30+10x39",
            ),
            (
                "media_viewers_without_media_total{@cam,pod=\"cam-0\"}",
                "0+8x10 80x40",
            ),
        ],
        holds: 1,
        fires: 3,
        ends: 11,
        labels: "severity=critical,long=1h,short=5m,namespace=media,mediaservice=cam",
        description: "90% of the viewers of media/cam got no media within 1 s; the objective is at most 5 % over 30 days.",
    },
    Case {
        alert: "MediaLatencyBurn",
        series: &[
            (
                "media_first_media_seconds_bucket{@cam,pod=\"cam-0\",le=\"1.0\"}",
                "0+5x20 110+10x39",
            ),
            (
                "media_first_media_seconds_count{@cam,pod=\"cam-0\"}",
                "0+10x60",
            ),
            (
                "media_viewers_without_media_total{@cam,pod=\"cam-0\"}",
                "0x60",
            ),
        ],
        holds: 1,
        fires: 16,
        ends: 32,
        labels: "severity=critical,long=6h,short=30m,namespace=media,mediaservice=cam",
        description: "50% of the viewers of media/cam got no media within 1 s; the objective is at most 5 % over 30 days.",
    },
    Case {
        alert: "MediaLatencyBurn",
        series: &[
            (
                "media_first_media_seconds_bucket{@cam,pod=\"cam-0\",le=\"1.0\"}",
                "0+3x70 214+4x79",
            ),
            (
                "media_first_media_seconds_count{@cam,pod=\"cam-0\"}",
                "0+4x150",
            ),
            (
                "media_viewers_without_media_total{@cam,pod=\"cam-0\"}",
                "0x150",
            ),
        ],
        holds: 1,
        fires: 61,
        ends: 117,
        labels: "severity=warning,long=1d,short=2h,namespace=media,mediaservice=cam",
        description: "25% of the viewers of media/cam got no media within 1 s; the objective is at most 5 % over 30 days.",
    },
    Case {
        alert: "MediaLatencyBurn",
        series: &[
            (
                "media_first_media_seconds_bucket{@cam,pod=\"cam-0\",le=\"1.0\"}",
                "0+9x190 1720+10x189",
            ),
            (
                "media_first_media_seconds_count{@cam,pod=\"cam-0\"}",
                "0+10x380",
            ),
            (
                "media_viewers_without_media_total{@cam,pod=\"cam-0\"}",
                "0x380",
            ),
        ],
        holds: 1,
        fires: 181,
        ends: 370,
        labels: "severity=warning,long=3d,short=6h,namespace=media,mediaservice=cam",
        description: "10% of the viewers of media/cam got no media within 1 s; the objective is at most 5 % over 30 days.",
    },
    Case {
        alert: "MediaContinuityBurn",
        // Gaps and losses add up, and still seconds are watched ones.
        series: &[
            (
                "media_viewer_seconds_total{@cam,pod=\"cam-0\",quality=\"gap\"}",
                "0+10x10 100x40",
            ),
            (
                "media_viewer_seconds_total{@cam,pod=\"cam-0\",quality=\"loss\"}",
                "0+10x10 100x40",
            ),
            (
                "media_viewer_seconds_total{@cam,pod=\"cam-0\",quality=\"good\"}",
                "0+80x50",
            ),
            (
                "media_viewer_seconds_total{@cam,pod=\"cam-0\",quality=\"still\"}",
                "0+900x50",
            ),
        ],
        holds: 1,
        fires: 3,
        ends: 12,
        labels: "severity=critical,long=1h,short=5m,namespace=media,mediaservice=cam",
        description: "2% of the time that media/cam was watched had a gap of 1 s or a loss of 5 %; the objective is at most 0.1 % over 30 days.",
    },
    Case {
        alert: "MediaContinuityBurn",
        series: &[
            (
                "media_viewer_seconds_total{@cam,pod=\"cam-0\",quality=\"gap\"}",
                "0+20x20 400x40",
            ),
            (
                "media_viewer_seconds_total{@cam,pod=\"cam-0\",quality=\"good\"}",
                "0+1980x60",
            ),
        ],
        holds: 1,
        fires: 16,
        ends: 32,
        labels: "severity=critical,long=6h,short=30m,namespace=media,mediaservice=cam",
        description: "1% of the time that media/cam was watched had a gap of 1 s or a loss of 5 %; the objective is at most 0.1 % over 30 days.",
    },
    Case {
        alert: "MediaContinuityBurn",
        series: &[
            (
                "media_viewer_seconds_total{@cam,pod=\"cam-0\",quality=\"loss\"}",
                "0+1x70 70x80",
            ),
            (
                "media_viewer_seconds_total{@cam,pod=\"cam-0\",quality=\"good\"}",
                "0+199x150",
            ),
        ],
        holds: 1,
        fires: 61,
        ends: 117,
        labels: "severity=warning,long=1d,short=2h,namespace=media,mediaservice=cam",
        description: "0.5% of the time that media/cam was watched had a gap of 1 s or a loss of 5 %; the objective is at most 0.1 % over 30 days.",
    },
    Case {
        alert: "MediaContinuityBurn",
        series: &[
            (
                "media_viewer_seconds_total{@cam,pod=\"cam-0\",quality=\"gap\"}",
                "0+1x190 190x190",
            ),
            (
                "media_viewer_seconds_total{@cam,pod=\"cam-0\",quality=\"good\"}",
                "0+499x380",
            ),
        ],
        holds: 1,
        fires: 181,
        ends: 370,
        labels: "severity=warning,long=3d,short=6h,namespace=media,mediaservice=cam",
        description: "0.2% of the time that media/cam was watched had a gap of 1 s or a loss of 5 %; the objective is at most 0.1 % over 30 days.",
    },
    Case {
        alert: "MediaAvailabilityBurn",
        // However much its clients do wrong, or are sent away by a pod that drains.
        series: &[
            (
                "media_signalling_total{@cam,pod=\"cam-0\",result=\"failed\"}",
                "0+20x10 200x40",
            ),
            (
                "media_signalling_total{@cam,pod=\"cam-0\",result=\"ok\"}",
                "0+980x50",
            ),
            (
                "media_signalling_total{@cam,pod=\"cam-0\",result=\"client\"}",
                "0+5000x50",
            ),
            (
                "media_signalling_total{@cam,pod=\"cam-0\",result=\"draining\"}",
                "0+5000x50",
            ),
        ],
        holds: 1,
        fires: 3,
        ends: 12,
        labels: "severity=critical,long=1h,short=5m,namespace=media,mediaservice=cam",
        description: "2% of the right signalling requests of media/cam fail or find no room; the objective is at most 0.1 % over 30 days.",
    },
    Case {
        alert: "MediaAvailabilityBurn",
        series: &[
            (
                "media_signalling_total{@cam,pod=\"cam-0\",result=\"refused\"}",
                "0+5x20 100x40",
            ),
            (
                "media_signalling_total{@cam,pod=\"cam-0\",result=\"failed\"}",
                "0+5x20 100x40",
            ),
            (
                "media_signalling_total{@cam,pod=\"cam-0\",result=\"ok\"}",
                "0+990x60",
            ),
        ],
        holds: 1,
        fires: 16,
        ends: 32,
        labels: "severity=critical,long=6h,short=30m,namespace=media,mediaservice=cam",
        description: "1% of the right signalling requests of media/cam fail or find no room; the objective is at most 0.1 % over 30 days.",
    },
    Case {
        alert: "MediaAvailabilityBurn",
        series: &[
            (
                "media_signalling_total{@cam,pod=\"cam-0\",result=\"failed\"}",
                "0+1x70 70x80",
            ),
            (
                "media_signalling_total{@cam,pod=\"cam-0\",result=\"ok\"}",
                "0+199x150",
            ),
        ],
        holds: 1,
        fires: 61,
        ends: 117,
        labels: "severity=warning,long=1d,short=2h,namespace=media,mediaservice=cam",
        description: "0.5% of the right signalling requests of media/cam fail or find no room; the objective is at most 0.1 % over 30 days.",
    },
    Case {
        alert: "MediaAvailabilityBurn",
        series: &[
            (
                "media_signalling_total{@cam,pod=\"cam-0\",result=\"failed\"}",
                "0+1x190 190x190",
            ),
            (
                "media_signalling_total{@cam,pod=\"cam-0\",result=\"ok\"}",
                "0+499x380",
            ),
        ],
        holds: 1,
        fires: 181,
        ends: 370,
        labels: "severity=warning,long=3d,short=6h,namespace=media,mediaservice=cam",
        description: "0.2% of the right signalling requests of media/cam fail or find no room; the objective is at most 0.1 % over 30 days.",
    },
];
