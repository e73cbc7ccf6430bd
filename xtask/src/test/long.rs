//! The stages of `cargo xtask test --long`: what takes minutes of wall time, or another server's build.
//!
//! They run after the others, or one of them alone (`--stage`); the first two need a cluster, and start
//! their own. What is judged is what holds on a busy machine too; the benchmarks' times are told.

use super::stages::{self, Stage};
use crate::bench;
use crate::clients::{self, Which};
use crate::fuzz;
use crate::soak;

/// These need the cluster, and the images on it.
const SCALE: &str = "scale";
const ALERTS: &str = "alerts";
/// These do not build what they start.
const GSTREAMER: &str = "GStreamer";
const BROKER: &str = "broker";
const TRACES: &str = "traces";

/// Each is named and timed in the report like any other.
pub fn stages() -> Vec<Stage> {
    vec![
        Stage {
            name: SCALE,
            run: stages::scale,
        },
        Stage {
            name: ALERTS,
            run: stages::alerts,
        },
        Stage {
            name: GSTREAMER,
            run: |_, counts| clients::test(Which::Gstreamer, counts),
        },
        Stage {
            name: BROKER,
            run: stages::broker,
        },
        Stage {
            name: TRACES,
            run: stages::traces,
        },
        Stage {
            name: "recordings",
            run: stages::long_recordings,
        },
        Stage {
            name: "sockets",
            run: stages::crowd,
        },
        Stage {
            name: "soak",
            run: |_, _| soak::run(&soak::Args::default()),
        },
        Stage {
            name: "turnover",
            run: |_, _| soak::run(&soak::Args::turnover()),
        },
        Stage {
            name: "bench",
            run: |_, _| bench::run(bench::Args::named(&[])),
        },
        Stage {
            name: "bench stages",
            run: |_, _| bench::run(bench::Args::named(&[bench::STAGES])),
        },
        Stage {
            name: "bench metrics",
            run: |_, _| bench::run(bench::Args::named(&[bench::METRICS])),
        },
        Stage {
            name: "fuzz",
            run: |_, _| fuzz::run(fuzz::Args::long()),
        },
    ]
}

/// One of them with what the stages before it would have made; none if there is no such stage.
pub fn alone(name: &str) -> Vec<Stage> {
    let before = [
        needs_cluster(name).then_some(stages::IMAGES),
        [GSTREAMER, BROKER, TRACES]
            .iter()
            .any(|stage| name.eq_ignore_ascii_case(stage))
            .then_some(stages::BUILD),
    ];
    let of_name = |stage: &Stage| stage.name.eq_ignore_ascii_case(name);
    let one = stages().into_iter().filter(of_name);
    before.into_iter().flatten().chain(one).collect()
}

/// Whether that stage starts a cluster.
pub fn needs_cluster(name: &str) -> bool {
    [SCALE, ALERTS]
        .iter()
        .any(|stage| name.eq_ignore_ascii_case(stage))
}
