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
mod tests {
    use super::*;
    use crate::dashboard::{dashboards, of_operator};
    use crate::families::{FAMILIES, find};
    use crate::operator;
    use crate::rules::{OPERATOR_ALERTS, Selector, rule_groups};
    use serde_json::Value;

    const CAM: Selector<'static> = Selector {
        namespace: "media",
        service: "cam",
    };

    /// Labels that Prometheus, the ServiceMonitor or a histogram adds to every series.
    const TARGET_LABELS: &[&str] = &["namespace", "mediaservice", "pod", "le"];

    /// Families that no rule and no panel needs.
    const NOT_SHOWN: &[&str] = &[
        // At 0 in all but a flood or a hang, which other panels show; read when one is looked into.
        "media_bound_hits_total",
    ];

    fn set(words: &[&str]) -> BTreeSet<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// Every value called `expr` anywhere in `value`.
    fn expressions(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (key, inner) in map {
                    match inner {
                        Value::String(text) if key == "expr" => found.push(text.clone()),
                        inner => expressions(inner, found),
                    }
                }
            }
            Value::Array(list) => list.iter().for_each(|inner| expressions(inner, found)),
            _ => {}
        }
    }

    fn all_expressions() -> Vec<String> {
        let mut found = Vec::new();
        expressions(&rule_groups(&CAM), &mut found);
        for dashboard in dashboards(&CAM) {
            expressions(&dashboard.json, &mut found);
        }
        assert!(found.len() > 40, "rules and panels were found");
        found
    }

    #[test]
    fn series_labels_and_functions_are_told_apart() {
        let found = names(
            "histogram_quantile(0.99, sum by (le, path) (rate(a_bucket{x=\"1 y{\",z=~\"b|c\"}[5m]))) > 1e3 and b:c == 0",
        );
        assert_eq!(found.series, set(&["a_bucket", "b:c"]));
        assert_eq!(found.labels, set(&["le", "path", "x", "z"]));
        assert_eq!(found.functions, set(&["histogram_quantile", "rate", "sum"]));
    }

    #[test]
    fn every_expression_names_only_families_and_labels_of_the_catalogue() {
        for expr in all_expressions() {
            let found = names(&expr);
            let mut known: BTreeSet<&str> = TARGET_LABELS.iter().copied().collect();
            for series in &found.series {
                if series == "up"
                    || series.starts_with("mediaservice:availability_errors:ratio_rate")
                {
                    continue;
                }
                let family = find(series).unwrap_or_else(|| panic!("no family {series}: {expr}"));
                known.extend(family.labels);
            }
            for label in &found.labels {
                assert!(known.contains(label.as_str()), "no label {label}: {expr}");
            }
        }
    }

    #[test]
    fn every_family_is_in_a_rule_or_a_panel_or_is_exempt_by_name() {
        let shown: BTreeSet<&str> = all_expressions()
            .iter()
            .flat_map(|expr| names(expr).series)
            .filter_map(|series| find(&series))
            .map(|family| family.name)
            .collect();
        for family in FAMILIES {
            assert!(
                shown.contains(family.name) != NOT_SHOWN.contains(&family.name),
                "{}",
                family.name
            );
        }
    }

    /// Of the operator's alerts and panels.
    fn expressions_of_operator() -> Vec<String> {
        let alerts = OPERATOR_ALERTS.iter();
        let mut found: Vec<String> = alerts
            .map(|alert| alert.expr.replace("$S", "namespace=\"ops\""))
            .collect();
        expressions(&of_operator().json, &mut found);
        found
    }

    #[test]
    fn every_family_of_the_operator_is_used_and_no_other_is_named() {
        let mut used = BTreeSet::new();
        for expr in expressions_of_operator() {
            let found = names(&expr);
            let mut known = vec!["namespace", "le"];
            for series in &found.series {
                let name = series.strip_suffix("_bucket").unwrap_or(series);
                let family = operator::FAMILIES.iter().find(|family| family.name == name);
                let family = family.unwrap_or_else(|| panic!("no family {series}: {expr}"));
                known.extend(family.labels);
                used.insert(family.name);
            }
            for label in &found.labels {
                assert!(known.contains(&label.as_str()), "no label {label}: {expr}");
            }
        }
        for family in operator::FAMILIES {
            assert!(used.contains(family.name), "{}", family.name);
        }
    }

    #[test]
    fn brackets_of_every_expression_are_closed() {
        for expr in all_expressions()
            .into_iter()
            .chain(expressions_of_operator())
        {
            for (open, close) in [('(', ')'), ('{', '}'), ('[', ']')] {
                assert_eq!(
                    expr.matches(open).count(),
                    expr.matches(close).count(),
                    "{expr}"
                );
            }
        }
    }
}
