//! The stages of `cargo xtask test --long`: what takes minutes of wall time, or another server's build.
//!
//! They run after the others; only the first needs a cluster, and starts its own. What is judged is what
//! holds on a busy machine too; the benchmarks' times are told.

use super::stages::{self, Stage};
use crate::bench;
use crate::clients::{self, Which};
use crate::fuzz;
use crate::soak;

/// Each is named and timed in the report like any other.
pub fn stages() -> Vec<Stage> {
    vec![
        Stage {
            name: "scale",
            run: stages::scale,
        },
        Stage {
            name: "GStreamer",
            run: |_, counts| clients::test(Which::Gstreamer, counts),
        },
        Stage {
            name: "soak",
            run: |_, _| soak::run(&soak::Args::default()),
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
            name: "fuzz",
            run: |_, _| fuzz::run(fuzz::Args::long()),
        },
    ]
}
