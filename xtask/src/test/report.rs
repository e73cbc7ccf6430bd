//! What the stages of the gate took and found: the table and the last line.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::bail;

use crate::sh::Counts;

pub struct Outcome {
    pub name: &'static str,
    pub took: Duration,
    pub counts: Counts,
    pub passed: bool,
}

#[derive(Default)]
pub struct Report {
    outcomes: Vec<Outcome>,
}

impl Report {
    pub fn add(&mut self, outcome: Outcome) {
        self.outcomes.push(outcome);
    }

    /// Number of stages that were run.
    #[cfg(test)]
    pub fn stages(&self) -> usize {
        self.outcomes.len()
    }

    /// Prints the table, then one line with all tests counted: a failed stage in which no test
    /// failed (a warning, a build error) counts as one failure, so that the line never reads well
    /// when the gate did not pass.
    ///
    /// # Errors
    /// If any stage failed.
    pub fn finish(self) -> anyhow::Result<()> {
        println!("\n{}", self.table());
        let total = self.total();
        println!("{} passed, {} failed", total.passed, total.failed);
        if total.failed > 0 {
            bail!("the gate did not pass");
        }
        Ok(())
    }

    fn table(&self) -> String {
        let mut table = String::new();
        for outcome in &self.outcomes {
            let Counts { passed, failed } = outcome.counts;
            let tests = if passed + failed == 0 {
                String::new()
            } else {
                format!("{passed} tests, {failed} failed")
            };
            let word = if outcome.passed { "ok" } else { "FAILED" };
            let row = format!(
                "{:<22} {:>9} {word:<7} {tests}",
                outcome.name,
                clock(outcome.took)
            );
            writeln!(table, "{}", row.trim_end()).expect("a String takes every write");
        }
        let sum: Duration = self.outcomes.iter().map(|outcome| outcome.took).sum();
        writeln!(table, "{:<22} {:>9}", "all stages", clock(sum))
            .expect("a String takes every write");
        table
    }

    fn total(&self) -> Counts {
        let mut total = Counts::default();
        for outcome in &self.outcomes {
            total.passed += outcome.counts.passed;
            total.failed += outcome.counts.failed.max(u64::from(!outcome.passed));
        }
        total
    }
}

fn clock(took: Duration) -> String {
    format!(
        "{}m{:04.1}s",
        took.as_secs() / 60,
        took.as_secs_f64() % 60.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(passed: u64, failed: u64, ok: bool) -> Outcome {
        Outcome {
            name: "unit",
            took: Duration::from_millis(61_500),
            counts: Counts { passed, failed },
            passed: ok,
        }
    }

    #[test]
    fn a_stage_that_fails_without_a_failed_test_counts_as_one_failure() {
        let mut report = Report::default();
        report.add(outcome(4, 0, true));
        report.add(outcome(0, 0, false));
        report.add(outcome(2, 3, false));
        assert_eq!(
            report.total(),
            Counts {
                passed: 6,
                failed: 4
            }
        );
        assert!(report.finish().is_err());
    }

    #[test]
    fn the_table_names_what_each_stage_took() {
        let mut report = Report::default();
        report.add(outcome(4, 0, true));
        assert_eq!(
            report.table().lines().next(),
            Some("unit                     1m01.5s ok      4 tests, 0 failed")
        );
    }
}
