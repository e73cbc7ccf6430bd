//! `cargo xtask test`: the gate, stage by stage, with what each took.
//!
//! Owns the order of the stages and the report. Every stage is run even when an earlier one failed,
//! so that one run shows everything that is wrong; only what needs the cluster is left out when the
//! cluster did not come up, and everything when the machine lacks something. The last line counts all
//! tests.

mod background;
mod deny;
mod long;
pub mod packages;
mod report;
pub mod rights;
mod stages;

use std::path::PathBuf;
use std::time::Instant;

use clap::builder::PossibleValuesParser;

use crate::cluster::Cluster;
use crate::sh::{self, Counts};
use background::Background;
use report::{Outcome, Report};
use stages::Stage;

#[derive(clap::Args, Clone, Default)]
pub struct Args {
    /// Only what needs no cluster
    #[arg(long, conflicts_with = "long")]
    pub fast: bool,
    /// Also what takes minutes of wall time: a thousand MediaServices, faults and their alerts, GStreamer, a soak, benchmarks, fuzzing
    #[arg(long)]
    pub long: bool,
    /// Only this one of the stages that `--long` adds, and what it needs
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with_all = ["fast", "long"],
        ignore_case = true,
        value_parser = PossibleValuesParser::new(long::stages().iter().map(|stage| stage.name)),
    )]
    pub stage: Option<String>,
}

impl Args {
    /// Whether a long stage is among those that run.
    fn is_long(&self) -> bool {
        self.long || self.stage.is_some()
    }
}

/// Runs the stages in order and prints the table.
///
/// # Errors
/// If any stage failed.
pub fn run(args: Args) -> anyhow::Result<()> {
    let stages = stages::all(&args);
    run_stages(&mut Gate::new(args)?, &stages).finish()
}

fn run_stages(gate: &mut Gate, stages: &[Stage]) -> Report {
    let mut report = Report::default();
    for stage in stages {
        println!("\n=== {}", stage.name);
        let mut counts = Counts::default();
        let started = Instant::now();
        let result = (stage.run)(gate, &mut counts);
        if let Err(error) = &result {
            eprintln!("{}: {error:#}", stage.name);
        }
        let passed = result.is_ok();
        report.add(Outcome {
            name: stage.name,
            took: started.elapsed(),
            counts,
            passed,
        });
        if !passed && stage.name == stages::MACHINE {
            break;
        }
    }
    report
}

/// What the stages share.
pub struct Gate {
    pub args: Args,
    /// The cluster of this run: not the one of `cargo xtask demo`, which may be in use.
    pub cluster: Cluster,
    /// Why the stages on the cluster can't run, once something that they need has failed.
    pub no_cluster: Option<&'static str>,
    /// The images, for the cluster's nodes.
    pub archives: Vec<PathBuf>,
    /// Programs of the cluster, compiled while Rust's stages run.
    pub cluster_build: Option<Background>,
    /// cargo-deny, likewise.
    pub deny_build: Option<Background>,
    /// Where logs and screenshots are kept: `target/gate`.
    pub logs: PathBuf,
}

impl Gate {
    fn new(args: Args) -> anyhow::Result<Self> {
        let logs = sh::target()?.join("gate");
        std::fs::create_dir_all(&logs)?;
        let state =
            std::env::var_os("CLUSTER_DIR").unwrap_or_else(|| "/tmp/mediaservice-test".into());
        Ok(Self {
            args,
            cluster: Cluster::at(state.into()),
            no_cluster: None,
            archives: Vec::new(),
            cluster_build: None,
            deny_build: None,
            logs,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    fn run(stages: &[Stage]) -> (usize, Gate) {
        let args = Args {
            fast: true,
            ..Args::default()
        };
        let mut gate = Gate::new(args).expect("cargo names the target folder");
        let report = run_stages(&mut gate, stages);
        (report.stages(), gate)
    }

    /// A stage that leaves a trace.
    const LATER: Stage = Stage {
        name: "later",
        run: |gate, _| {
            gate.no_cluster = Some("it was run");
            Ok(())
        },
    };

    #[test]
    fn nothing_is_begun_on_a_machine_that_lacks_something() {
        let machine = Stage {
            name: stages::MACHINE,
            run: |_, _| bail!("missing: go, 1.21 or later"),
        };
        let (stages, gate) = run(&[machine, LATER]);
        assert_eq!((stages, gate.no_cluster), (1, None));
        assert_eq!(stages::all(&gate.args)[0].name, stages::MACHINE);
    }

    #[test]
    fn a_stage_that_fails_does_not_keep_the_next_from_running() {
        let fmt = Stage {
            name: "fmt",
            run: |_, _| bail!("not formatted"),
        };
        let (stages, gate) = run(&[fmt, LATER]);
        assert_eq!((stages, gate.no_cluster), (2, Some("it was run")));
    }

    #[test]
    fn the_long_gate_is_the_whole_gate_and_more_each_stage_with_a_name_of_its_own() {
        let names = |fast, long| -> Vec<&str> {
            let stage = None;
            let stages = stages::all(&Args { fast, long, stage });
            stages.iter().map(|stage| stage.name).collect()
        };
        let (whole, long) = (names(false, false), names(false, true));
        assert_eq!(long[..whole.len()], whole);
        let more = [
            "scale",
            "alerts",
            "GStreamer",
            "broker",
            "traces",
            "recordings",
            "sockets",
            "soak",
            "turnover",
            "bench",
            "bench stages",
            "bench metrics",
            "fuzz",
        ];
        assert_eq!(long[whole.len()..], more);
        assert!(whole.starts_with(&names(true, false)));
        let mut once = long.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), long.len());
    }

    #[test]
    fn a_long_stage_runs_alone_with_what_it_needs() {
        let names = |name: &str| -> Vec<&str> {
            let args = Args {
                stage: Some(name.to_owned()),
                ..Args::default()
            };
            stages::all(&args).iter().map(|stage| stage.name).collect()
        };
        assert_eq!(names("scale"), ["machine", "images", "scale"]);
        assert_eq!(names("gstreamer"), ["machine", "build", "GStreamer"]);
    }
}
