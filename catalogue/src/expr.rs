//! Reads which families, labels and functions a PromQL expression names.
//!
//! Test help of this crate: enough of the grammar for the expressions written here. Never evaluates.

use std::collections::BTreeSet;

/// What an expression names.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Series, as written: with `_bucket`, `_sum` or `_count` where a histogram's is meant.
    pub series: BTreeSet<String>,
    /// Labels in matchers and in `by (…)`.
    pub labels: BTreeSet<String>,
    pub functions: BTreeSet<String>,
}

const WORDS: &[&str] = &["and", "or", "unless", "bool", "offset"];
const GROUPING: &[&str] = &[
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];

pub fn names(expr: &str) -> Names {
    let mut names = Names::default();
    let mut rest = expr;
    let mut in_braces = false;
    let mut in_labels = false;
    let mut after_grouping = false;
    while let Some(first) = rest.chars().next() {
        if first.is_ascii_alphabetic() || first == '_' || first == ':' {
            let end = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
                .unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            rest = after;
            let called = after.trim_start().starts_with('(');
            if in_braces || in_labels {
                names.labels.insert(word.to_owned());
            } else if GROUPING.contains(&word) {
                after_grouping = true;
            } else if WORDS.contains(&word) {
            } else if called || after.trim_start().starts_with("by ") {
                names.functions.insert(word.to_owned());
            } else {
                names.series.insert(word.to_owned());
            }
            continue;
        }
        let skip = match first {
            '"' => rest[1..].find('"').map_or(rest.len(), |at| at + 2),
            '[' => rest.find(']').map_or(rest.len(), |at| at + 1),
            '0'..='9' => rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '.')
                .unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        match first {
            '{' => in_braces = true,
            '}' => in_braces = false,
            '(' if after_grouping => (in_labels, after_grouping) = (true, false),
            ')' => in_labels = false,
            _ => {}
        }
        rest = &rest[skip..];
    }
    names
}

#[cfg(test)]
mod tests;
