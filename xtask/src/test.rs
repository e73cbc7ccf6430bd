//! `cargo xtask test`: the gate, stage by stage, with what each took.
//!
//! Owns the order of the stages and the report. Every stage is run even when an earlier one failed,
//! so that one run shows everything that is wrong. The last line counts all tests.

mod report;
mod stages;

use std::time::Instant;

use crate::sh::Counts;
use report::{Outcome, Report};

#[derive(clap::Args, Clone, Copy)]
pub struct Args {
    /// Only what needs no cluster
    #[arg(long, conflicts_with = "long")]
    pub fast: bool,
    /// Also what takes minutes of wall time
    #[arg(long)]
    pub long: bool,
}

/// Runs the stages in order and prints the table.
///
/// # Errors
/// If any stage failed.
pub fn run(args: Args) -> anyhow::Result<()> {
    let mut report = Report::default();
    for stage in stages::all(args) {
        println!("\n=== {}", stage.name);
        let mut counts = Counts::default();
        let started = Instant::now();
        let result = (stage.run)(&mut counts);
        if let Err(error) = &result {
            eprintln!("{}: {error:#}", stage.name);
        }
        report.add(Outcome {
            name: stage.name,
            took: started.elapsed(),
            counts,
            passed: result.is_ok(),
        });
    }
    report.finish()
}
