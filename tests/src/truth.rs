//! What metrics say beside what is known from outside, as one table.
//!
//! Owns the rows' judgement and their print; how a truth comes about is for the tests to say. A row is right or
//! wrong by itself, and the table is shown whole either way.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

/// Pause between two looks at a row that is not right yet.
const PAUSE: Duration = Duration::from_millis(100);

/// One comparison.
#[derive(Debug, Clone)]
pub struct Row {
    pub family: &'static str,
    /// What was done, or measured, outside of the server.
    pub truth: String,
    pub expected: f64,
    /// Most that the figure may be off.
    pub allowed: f64,
    /// What the server said, if it did.
    pub read: Option<f64>,
}

impl Row {
    pub fn new(
        family: &'static str,
        truth: impl Into<String>,
        expected: f64,
        allowed: f64,
        read: Option<f64>,
    ) -> Self {
        Self {
            family,
            truth: truth.into(),
            expected,
            allowed,
            read,
        }
    }

    /// A figure that is as counted.
    pub fn exact(
        family: &'static str,
        truth: impl Into<String>,
        expected: f64,
        read: Option<f64>,
    ) -> Self {
        Self::new(family, truth, expected, 0.0, read)
    }

    pub fn difference(&self) -> Option<f64> {
        Some(self.read? - self.expected)
    }

    pub fn holds(&self) -> bool {
        self.difference()
            .is_some_and(|off| off.abs() <= self.allowed)
    }
}

/// Looks until the row holds, and again `apart` later, for at most `within`. Returns the last look, right or not.
pub async fn settle(within: Duration, apart: Duration, mut look: impl AsyncFnMut() -> Row) -> Row {
    let started = Instant::now();
    let mut held = false;
    loop {
        let row = look().await;
        let holds = row.holds();
        if holds && (held || apart.is_zero()) || started.elapsed() >= within {
            return row;
        }
        held = holds;
        tokio::time::sleep(if holds { apart } else { PAUSE }).await;
    }
}

/// Measures until all rows hold, so many times at most: a machine that is busy elsewhere spoils a measurement.
pub async fn measure(times: usize, mut once: impl AsyncFnMut() -> Vec<Row>) -> Vec<Row> {
    let mut rows = once().await;
    for _ in 1..times {
        if rows.iter().all(Row::holds) {
            break;
        }
        rows = once().await;
    }
    rows
}

/// Prints the table, to be seen whether the test passes or not.
///
/// # Panics
/// With the whole table, if a row does not hold, or the rows are not of exactly these families.
pub fn check(families: &[&str], rows: &[Row]) {
    // Not `eprintln!`, which the test harness keeps back while the test passes.
    let _ = writeln!(std::io::stderr().lock(), "\n{}", table(families, rows));
    if let Err(wrong) = judge(families, rows) {
        panic!("{wrong}");
    }
}

fn judge(families: &[&str], rows: &[Row]) -> Result<(), String> {
    let compared: BTreeSet<&str> = rows.iter().map(|row| row.family).collect();
    let promised: BTreeSet<&str> = families.iter().copied().collect();
    let others: Vec<_> = compared.symmetric_difference(&promised).collect();
    let off = rows.iter().filter(|row| !row.holds()).count();
    if others.is_empty() && off == 0 {
        return Ok(());
    }
    let table = table(families, rows);
    Err(format!(
        "{off} are off; too many or too few: {others:?}\n{table}"
    ))
}

/// The rows by family, in the order of the families, which are numbered.
fn table(families: &[&str], rows: &[Row]) -> String {
    let mut lines = vec![
        [
            "",
            "family",
            "truth",
            "expected",
            "read",
            "difference",
            "allowed",
            "",
        ]
        .map(str::to_owned),
    ];
    for (number, family) in (1..).zip(families) {
        let of_family = rows.iter().filter(|row| row.family == *family);
        for (index, row) in of_family.enumerate() {
            let first = index == 0;
            lines.push([
                if first {
                    format!("{number}")
                } else {
                    String::new()
                },
                if first {
                    (*family).to_owned()
                } else {
                    String::new()
                },
                row.truth.clone(),
                figure(row.expected),
                row.read.map_or("none".to_owned(), figure),
                row.difference().map_or(String::new(), figure),
                figure(row.allowed),
                if row.holds() { "ok" } else { "OFF" }.to_owned(),
            ]);
        }
    }
    let widths: [usize; 8] = std::array::from_fn(|column| {
        let lengths = lines.iter().map(|line| line[column].chars().count());
        lengths.max().unwrap_or(0)
    });
    let mut text = String::new();
    for line in &lines {
        let mut written = String::new();
        for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
            let _ = match column {
                1 | 2 | 7 => write!(written, "{cell:<width$}  "),
                _ => write!(written, "{cell:>width$}  "),
            };
        }
        text.push_str(written.trim_end());
        text.push('\n');
    }
    text
}

/// Whole numbers as such, others with four significant digits or all before the point.
fn figure(value: f64) -> String {
    let digits = match value.abs() {
        whole if whole.fract() == 0.0 || whole >= 1_000.0 => 0,
        hundreds if hundreds >= 100.0 => 1,
        tens if tens >= 10.0 => 2,
        ones if ones >= 1.0 => 3,
        _ => 4,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAMILIES: &[&str] = &["a", "b"];

    fn rows() -> Vec<Row> {
        vec![
            Row::exact("b", "three were opened", 3.0, Some(3.0)),
            Row::new("a", "a delay of 100 ms", 100.0, 10.0, Some(104.25)),
            Row::exact("b", "one was closed", 2.0, Some(2.0)),
        ]
    }

    #[test]
    fn a_table_has_a_number_for_each_family_and_what_was_found() {
        let shown = table(FAMILIES, &rows());
        let expected = "   family  truth              expected   read  difference  allowed
1  a       a delay of 100 ms       100  104.2       4.250       10  ok
2  b       three were opened         3      3           0        0  ok
           one was closed            2      2           0        0  ok
";
        assert_eq!(shown, expected);
        assert_eq!(judge(FAMILIES, &rows()), Ok(()));
    }

    #[test]
    fn a_row_that_is_off_or_unread_or_a_family_too_many_or_too_few_is_told() {
        let off = Row::exact("a", "none", 0.0, Some(1.0));
        let unread = Row::exact("a", "none", 0.0, None);
        let unknown = Row::exact("c", "none", 0.0, Some(0.0));
        for (row, says) in [
            (off, "1 are off"),
            (unread, "1 are off"),
            (unknown, r#"["c"]"#),
        ] {
            let said = judge(FAMILIES, &[rows(), vec![row]].concat()).expect_err("refused");
            assert!(said.contains(says), "{said}");
            assert!(
                said.contains("a delay of 100 ms"),
                "the whole table: {said}"
            );
        }
        let said = judge(FAMILIES, &rows()[..1]).expect_err("refused");
        assert!(said.contains(r#"["a"]"#), "{said}");
    }
}
