//! What was found, as a table a person can read. Holds results and decides nothing.

use super::Protocol;
use std::fmt;

/// How strongly the text asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// MUST or SHALL.
    Must,
    /// SHOULD, or described as what servers do.
    Should,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Pass,
    Fail,
    /// Could not be looked at; the check says why.
    Skip,
}

/// One check and its result.
#[derive(Debug, Clone)]
pub struct Check {
    /// Row of the checklist (docs/conformance.md).
    pub row: u8,
    pub protocol: Protocol,
    pub level: Level,
    pub name: &'static str,
    pub outcome: Outcome,
    /// What the server did, or why nothing was looked at.
    pub seen: String,
}

/// All checks in the order of the checklist.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub checks: Vec<Check>,
}

/// Characters of what was seen that a line of the table shows.
const MAX_SEEN: usize = 100;

impl Report {
    pub(super) fn add(
        &mut self,
        row: u8,
        protocol: Protocol,
        level: Level,
        name: &'static str,
        outcome: Outcome,
        seen: String,
    ) {
        self.checks.push(Check {
            row,
            protocol,
            level,
            name,
            outcome,
            seen,
        });
    }

    pub(super) fn sort(&mut self) {
        self.checks
            .sort_by_key(|check| (check.protocol == Protocol::Whep, check.row));
    }

    /// Checks with that outcome.
    pub fn with(&self, outcome: Outcome) -> impl Iterator<Item = &Check> {
        self.checks
            .iter()
            .filter(move |check| check.outcome == outcome)
    }

    /// Whether no MUST failed.
    pub fn conforms(&self) -> bool {
        self.with(Outcome::Fail)
            .all(|check| check.level != Level::Must)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.checks.iter().map(|c| c.name.len()).max().unwrap_or(0);
        writeln!(f, "row  protocol  level   result  {:width$}  seen", "check")?;
        for check in &self.checks {
            let level = match check.level {
                Level::Must => "MUST",
                Level::Should => "SHOULD",
            };
            let outcome = match check.outcome {
                Outcome::Pass => "pass",
                Outcome::Fail => "FAIL",
                Outcome::Skip => "skip",
            };
            let seen: String = check
                .seen
                .chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .take(MAX_SEEN)
                .collect();
            writeln!(
                f,
                "{:>3}  {:8}  {level:6}  {outcome:6}  {:width$}  {seen}",
                check.row, check.protocol, check.name
            )?;
        }
        let count = |outcome| self.with(outcome).count();
        let must = self
            .with(Outcome::Fail)
            .filter(|check| check.level == Level::Must)
            .count();
        writeln!(
            f,
            "\n{} passed, {} failed ({must} of them a MUST), {} skipped",
            count(Outcome::Pass),
            count(Outcome::Fail),
            count(Outcome::Skip)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failed_must_means_that_a_server_does_not_conform() {
        let mut report = Report::default();
        let mut add = |level, outcome| {
            report.add(1, Protocol::Whip, level, "a check", outcome, "a\nb".into());
            report.conforms()
        };
        assert!(add(Level::Must, Outcome::Pass));
        assert!(add(Level::Should, Outcome::Fail));
        assert!(add(Level::Must, Outcome::Skip));
        assert!(!add(Level::Must, Outcome::Fail));
        let table = report.to_string();
        assert_eq!(table.lines().count(), 1 + 4 + 2, "{table}");
        assert!(table.contains("2 failed (1 of them a MUST)"), "{table}");
    }
}
