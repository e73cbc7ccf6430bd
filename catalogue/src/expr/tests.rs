//! Tests of what expressions name: in rules, in panels, in runbooks and in pages.

use super::*;
use crate::dashboard::{dashboards, of_operator};
use crate::families::{FAMILIES, find, values};
use crate::operator;
use crate::rules::slo::{BURNS, OBJECTIVE, SLIS, WINDOWS};
use crate::rules::{ALERTS, OPERATOR_ALERTS, OWN_LABELS, Selector, rule_groups};
use serde_json::Value;

const CAM: Selector<'static> = Selector {
    namespace: "media",
    service: "cam",
};

/// Labels that Prometheus, the ServiceMonitor or a histogram adds to every series.
const TARGET_LABELS: &[&str] = &["namespace", "mediaservice", "pod", "le"];

/// Families that no rule and no panel needs. None so far.
const NOT_SHOWN: &[&str] = &[];

fn is_recorded(series: &str) -> bool {
    let mut shares = SLIS
        .iter()
        .flat_map(|sli| WINDOWS.iter().map(|window| sli.series(window)));
    let mut counts = SLIS.iter().flat_map(|sli| {
        let woken = BURNS.iter().filter(|burn| burn.wakes());
        woken.map(|burn| sli.count(burn.long))
    });
    series == OBJECTIVE
        || shares.any(|share| share == series)
        || counts.any(|count| count == series)
}

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Every value called `expr` anywhere in `value`, but for those that a Loki is asked.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) if value["datasource"]["type"] != "loki" => {
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
            if series == OBJECTIVE {
                known.insert("sli");
            }
            if series == "up" || is_recorded(series) {
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

/// Labels whose values nobody can list.
const OPEN: &[(&str, &str)] = &[
    ("media_http_requests_total", "path"),
    ("media_http_requests_total", "status"),
];

/// Matchers of values that there are not: every part of an alternative is one value.
fn unknown_values(expr: &str) -> Vec<String> {
    let mut unknown = Vec::new();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let mut parts = expr.split('{').peekable();
    while let Some(part) = parts.next() {
        let Some(matchers) = parts.peek().and_then(|next| next.split('}').next()) else {
            break;
        };
        let series = part.rsplit(|c| !is_name(c)).next().unwrap_or_default();
        let Some(family) = find(series) else { continue };
        for matcher in matchers.split("\",") {
            let Some((label, value)) = matcher.trim_end_matches('"').split_once('"') else {
                continue;
            };
            let label = label.trim_end_matches(['=', '!', '~']);
            if TARGET_LABELS.contains(&label) || OPEN.contains(&(family.name, label)) {
                continue;
            }
            let known = values(family.name, label).unwrap_or_default();
            let wrong = value.split('|').filter(|value| !known.contains(value));
            unknown.extend(wrong.map(|value| format!("{}: {label} {value}", family.name)));
        }
    }
    unknown
}

#[test]
fn a_value_that_there_is_not_is_found() {
    let of = |matchers: &str| {
        unknown_values(&format!(
            "rate(media_viewer_seconds_total{{{matchers}}}[5m]) / x"
        ))
    };
    assert_eq!(of("namespace=\"a\",quality=~\"gap|loss\""), [""; 0]);
    assert_eq!(
        of("quality=\"bad\""),
        ["media_viewer_seconds_total: quality bad"]
    );
    assert_eq!(of("pod=\"a\",quality!~\"gap|bad\"").len(), 1);
    let second = "sum(media_active_sessions{pod=\"x\"}) / sum(rate(media_drops_total{where=\"nowhere\"}[5m]))";
    assert_eq!(unknown_values(second), ["media_drops_total: where nowhere"]);
}

#[test]
fn every_expression_chooses_among_the_values_that_there_are() {
    let pages = queries_of_pages().into_iter();
    let pages = pages.flat_map(|(_, queries)| queries.into_iter().map(|(_, query)| query));
    for expr in all_expressions().into_iter().chain(pages) {
        assert_eq!(unknown_values(&expr), [""; 0], "{expr}");
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
        for series in found.series.iter().filter(|series| *series != "up") {
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
fn a_label_that_an_alert_is_told_apart_by_is_among_its_own() {
    for alert in ALERTS {
        for grouped in alert.expr.split("by (").skip(1) {
            let (labels, _) = grouped.split_once(')').expect("closed");
            for label in labels.split(", ") {
                assert!(OWN_LABELS.contains(&label), "{}: {label}", alert.name);
            }
        }
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

/// Pages with queries, and those queries: the lines of their `promql` blocks, with the heading they stand under.
fn queries_of_pages() -> Vec<(String, Vec<(String, String)>)> {
    let docs = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let runbooks = std::fs::read_dir(docs.join("runbooks")).expect("docs/runbooks is there");
    let runbooks = runbooks.map(|entry| entry.expect("a readable folder").path());
    let pages = runbooks.chain([docs.join("monitoring.md")]);
    pages
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("a page");
            let name = path
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            let (mut heading, mut inside, mut queries) = (String::new(), false, Vec::new());
            for line in text.lines() {
                match line {
                    "```promql" => inside = true,
                    "```" => inside = false,
                    line if inside => queries.push((heading.clone(), line.to_owned())),
                    line if line.starts_with("## ") => heading = line[3..].to_owned(),
                    _ => {}
                }
            }
            (name, queries)
        })
        .collect()
}

/// Labels of what a series is a part of, whichever program has it; `None` if there is no such series.
fn labels_of(series: &str) -> Option<Vec<&'static str>> {
    if series == "up" || series == OBJECTIVE {
        return Some(vec!["job", "sli"]);
    }
    if is_recorded(series) {
        return Some(Vec::new());
    }
    let of_operator = operator::FAMILIES
        .iter()
        .find(|family| family.series_names().iter().any(|name| name == series));
    let family = find(series).or(of_operator.copied())?;
    Some(family.labels.to_vec())
}

#[test]
fn every_query_of_a_page_names_only_families_and_labels_that_there_are() {
    for (page, queries) in queries_of_pages() {
        for (_, query) in queries {
            let found = names(&query);
            let by_pattern = found.labels.contains("__name__");
            assert!(by_pattern || !found.series.is_empty(), "{page}: {query}");
            let mut known: Vec<&str> = TARGET_LABELS.to_vec();
            known.push("__name__");
            for series in &found.series {
                let labels = labels_of(series);
                known.extend(labels.unwrap_or_else(|| panic!("{page}: no family {series}")));
            }
            for label in &found.labels {
                assert!(
                    known.contains(&label.as_str()),
                    "{page}: no label {label}: {query}"
                );
            }
        }
    }
}

#[test]
fn every_runbook_has_queries_for_the_cause_and_for_the_end() {
    for (page, queries) in queries_of_pages() {
        for heading in ["Diagnosis", "Over when"] {
            let there = queries.iter().any(|(under, _)| under == heading);
            assert!(
                there || ["README", "monitoring"].contains(&&*page),
                "{page}: {heading}"
            );
        }
    }
}

#[test]
fn a_query_of_a_runbook_of_a_media_service_selects_one() {
    for (page, queries) in queries_of_pages() {
        let of_operator = page.starts_with("MediaOperator") || page == "monitoring";
        for (_, query) in queries.iter().filter(|_| !of_operator) {
            for series in names(query).series {
                // Another of that name may be in another namespace, with pods of the same names.
                let of_one = "namespace=\"media\",mediaservice=\"cam\"";
                let selected = query.contains(&format!("{series}{{{of_one}"));
                assert!(
                    selected || series.starts_with("mediaservice_operator"),
                    "{page}: {query}"
                );
            }
        }
    }
}
