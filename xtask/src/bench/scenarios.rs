//! The loads of the benchmark and what is read from their reports. Plain data.

use std::time::Duration;

/// One load, given to every server.
pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    /// Flags of `media-load`, beside endpoints, key and process.
    pub load: &'static [&'static str],
    /// Flags of the `floor` example for the same bytes at the same pace, if it is measured.
    pub floor: Option<&'static [&'static str]>,
    pub measures: &'static [Measure],
    /// Longest that one run may take.
    pub limit: Duration,
}

/// A number of a report.
pub struct Measure {
    pub what: &'static str,
    pub unit: &'static str,
    /// JSON pointer (RFC 6901) into the report of `media-load`.
    pub at: &'static str,
    pub decimals: usize,
    /// None: it is told, not judged.
    pub goals: &'static [Goal],
}

/// What the project wants of a number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// The other server's number is at least so many times ours.
    Times(f64),
    /// Ours is at most so much.
    AtMost(f64),
    /// Ours is at most so many times that of the server of that name.
    AtMostOf(&'static str, f64),
    /// Ours is no more than in the load of that name.
    NoMoreThanIn(&'static str),
}

const fn measure(
    what: &'static str,
    unit: &'static str,
    at: &'static str,
    decimals: usize,
    goals: &'static [Goal],
) -> Measure {
    Measure {
        what,
        unit,
        at,
        decimals,
        goals,
    }
}

/// Most that a forwarded packet may cost, in floors of the machine.
pub const FLOORS: f64 = 3.0;

/// With ten times the viewers a packet costs no more.
const NO_MORE: Goal = Goal::NoMoreThanIn("grow-100");

/// Two shards cost at most so many times what one does.
const SHARDS: Goal = Goal::AtMostOf("one-shard", 1.1);

const PACKET: &str = "/server/cpu_us_per_forwarded_packet";
const CPU: &str = "server CPU per forwarded packet";
const DELIVERED: Measure = measure("delivered", "of 1", "/delivered_ratio", 4, &[]);
const LOST: Measure = measure("lost packets", "", "/lost_packets", 0, &[]);
const TOOL: Measure = measure("the load tool's own CPU", "cores", "/own_cpu_cores", 2, &[]);

/// All of them, in the order in which they run.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "fanout-100",
        about: "1 device → 100 viewers, 30 frames/s of 7 packets of 1200 B; joined before media",
        load: &["--viewers", "100", "--duration", "10"],
        floor: Some(&["--viewers", "100"]),
        measures: &[
            measure(CPU, "µs", PACKET, 2, &[Goal::Times(7.0)]),
            measure(
                "forwarding latency p50",
                "ms",
                "/forwarding_latency_ms/p50",
                2,
                &[Goal::Times(3.0)],
            ),
            measure(
                "forwarding latency p99",
                "ms",
                "/forwarding_latency_ms/p99",
                2,
                &[Goal::Times(3.0)],
            ),
            measure(
                "memory for an idle viewer",
                "KiB",
                "/server/rss_kib_per_viewer_at_rest",
                1,
                &[Goal::Times(6.0), Goal::AtMost(64.0)],
            ),
            measure(
                "CPU per join, POST to connected",
                "ms",
                "/server/cpu_ms_per_setup",
                2,
                &[Goal::Times(4.0)],
            ),
            DELIVERED,
            TOOL,
        ],
        limit: Duration::from_secs(90),
    },
    Scenario {
        name: "fanout-200",
        about: "1 device → 200 viewers, 30 frames/s of 7 packets of 1200 B",
        load: &["--viewers", "200", "--duration", "10"],
        floor: Some(&["--viewers", "200"]),
        measures: &[
            measure(CPU, "µs", PACKET, 2, &[Goal::Times(7.0)]),
            measure(
                "forwarding latency p50",
                "ms",
                "/forwarding_latency_ms/p50",
                2,
                &[],
            ),
            measure(
                "forwarding latency p99",
                "ms",
                "/forwarding_latency_ms/p99",
                2,
                &[],
            ),
            DELIVERED,
            TOOL,
        ],
        limit: Duration::from_secs(120),
    },
    Scenario {
        name: "fleet",
        about: "50 devices × 4 viewers, each 30 frames/s of 7 packets of 1200 B",
        load: &["--publishers", "50", "--viewers", "200", "--duration", "10"],
        floor: Some(&["--devices", "50", "--viewers", "200"]),
        measures: &[
            measure(CPU, "µs", PACKET, 2, &[Goal::Times(6.0)]),
            measure(
                "forwarding latency p50",
                "ms",
                "/forwarding_latency_ms/p50",
                2,
                &[],
            ),
            measure(
                "forwarding latency p99",
                "ms",
                "/forwarding_latency_ms/p99",
                2,
                &[],
            ),
            DELIVERED,
            TOOL,
        ],
        limit: Duration::from_secs(120),
    },
    Scenario {
        name: "idle",
        about: "200 viewers at rest, no media: what a session alone costs",
        load: &[
            "--viewers",
            "200",
            "--duration",
            "1",
            "--frames-per-second",
            "1",
        ],
        floor: None,
        measures: &[
            measure(
                "memory for an idle viewer",
                "KiB",
                "/server/rss_kib_per_viewer_at_rest",
                1,
                &[Goal::Times(6.0), Goal::AtMost(64.0)],
            ),
            measure(
                "CPU per join, POST to connected",
                "ms",
                "/server/cpu_ms_per_setup",
                2,
                &[Goal::Times(4.0)],
            ),
        ],
        limit: Duration::from_secs(90),
    },
    Scenario {
        name: "joins",
        about: "100 viewers join a live device (30 frames/s of 7 packets, a keyframe each 10 s), 10 a second",
        load: &[
            "--viewers",
            "100",
            "--joins-per-second",
            "10",
            "--keyframe-seconds",
            "10",
            "--duration",
            "1",
        ],
        floor: None,
        measures: &[
            measure(
                "POST → connected p50",
                "ms",
                "/viewer_setup_ms/post_to_connected/p50",
                1,
                &[],
            ),
            measure(
                "POST → connected p99",
                "ms",
                "/viewer_setup_ms/post_to_connected/p99",
                1,
                &[],
            ),
            measure(
                "POST → first whole keyframe p50",
                "ms",
                "/viewer_setup_ms/post_to_first_keyframe/p50",
                1,
                &[],
            ),
            measure(
                "POST → first whole keyframe p99",
                "ms",
                "/viewer_setup_ms/post_to_first_keyframe/p99",
                1,
                &[Goal::Times(2.0)],
            ),
            measure(
                "connected → first whole keyframe p50",
                "ms",
                "/viewer_setup_ms/connected_to_first_keyframe/p50",
                1,
                &[Goal::AtMost(10.0)],
            ),
            measure(
                "viewers without a picture",
                "",
                "/viewers_without_picture",
                0,
                &[Goal::AtMost(0.0)],
            ),
            measure(
                "keyframe requests to the device",
                "",
                "/devices/0/keyframe_requests",
                0,
                &[],
            ),
            LOST,
        ],
        limit: Duration::from_secs(90),
    },
    Scenario {
        name: "wave",
        about: "1000 viewers of one device arrive within a second, each with its own token, beside 20 who watch (10 frames/s of 2 packets)",
        load: &[
            "--viewers",
            "20",
            "--wave",
            "1000",
            "--frames-per-second",
            "10",
            "--packets-per-frame",
            "2",
            "--keyframe-seconds",
            "60",
            "--duration",
            "3",
        ],
        floor: None,
        measures: &[
            measure(
                "last POST left after",
                "s",
                "/wave/last_post_after_seconds",
                2,
                &[],
            ),
            measure(
                "half see a picture after",
                "s",
                "/wave/half_see_after_seconds",
                2,
                &[],
            ),
            measure(
                "99 % see a picture after",
                "s",
                "/wave/most_see_after_seconds",
                2,
                &[],
            ),
            measure("failed", "", "/wave/failed", 0, &[Goal::AtMost(0.0)]),
            measure(
                "without a picture",
                "",
                "/wave/without_picture",
                0,
                &[Goal::AtMost(0.0)],
            ),
            measure(
                "keyframe requests to the device",
                "",
                "/wave/keyframe_requests",
                0,
                &[Goal::AtMost(2.0)],
            ),
            measure(
                "packets lost by those who watched before",
                "",
                "/wave/lost_by_earlier_viewers",
                0,
                &[Goal::AtMost(0.0)],
            ),
            measure(
                "server CPU meanwhile",
                "cores",
                "/wave/server_cpu_cores",
                2,
                &[],
            ),
            measure(
                "the load tool's CPU meanwhile",
                "cores",
                "/wave/own_cpu_cores",
                2,
                &[],
            ),
        ],
        limit: Duration::from_secs(180),
    },
    Scenario {
        name: "grow-100",
        about: "1 device → 100 viewers at 5 frames/s of 4 packets: to compare with grow-1000",
        load: GROW_100,
        floor: Some(&[
            "--viewers",
            "100",
            "--frames-per-second",
            "5",
            "--packets-per-frame",
            "4",
        ]),
        measures: &[measure(CPU, "µs", PACKET, 2, &[SHARDS]), DELIVERED, TOOL],
        limit: Duration::from_secs(120),
    },
    Scenario {
        name: "grow-1000",
        about: "1 device → 1000 viewers at 5 frames/s of 4 packets",
        load: GROW_1000,
        floor: Some(&[
            "--viewers",
            "1000",
            "--frames-per-second",
            "5",
            "--packets-per-frame",
            "4",
        ]),
        measures: &[
            measure(CPU, "µs", PACKET, 2, &[SHARDS, NO_MORE]),
            DELIVERED,
            TOOL,
        ],
        limit: Duration::from_secs(180),
    },
];

const GROW_100: &[&str] = &[
    "--viewers",
    "100",
    "--frames-per-second",
    "5",
    "--packets-per-frame",
    "4",
    "--duration",
    "10",
];

const GROW_1000: &[&str] = &[
    "--viewers",
    "1000",
    "--frames-per-second",
    "5",
    "--packets-per-frame",
    "4",
    "--duration",
    "10",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_has_a_name_of_its_own_and_something_to_measure() {
        let mut names: Vec<&str> = ALL.iter().map(|scenario| scenario.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
        for scenario in ALL {
            assert!(!scenario.measures.is_empty(), "{}", scenario.name);
            assert!(
                scenario.measures.iter().all(|m| m.at.starts_with('/')),
                "{}",
                scenario.name
            );
            let goals = scenario.measures.iter().flat_map(|measure| measure.goals);
            for goal in goals {
                if let Goal::NoMoreThanIn(other) = goal {
                    let other = ALL.iter().find(|scenario| scenario.name == *other);
                    let of = |scenario: &Scenario| scenario.measures[0].at;
                    assert_eq!(other.map(of), Some(of(scenario)), "{}", scenario.name);
                }
            }
        }
    }
}
