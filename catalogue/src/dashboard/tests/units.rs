//! Whether a panel's unit is what its queries give, worked out from the units of the families; and its thresholds.

use super::*;
use crate::families::{Family, Kind, Unit};
use crate::rules::{ALERTS, OPERATOR_ALERTS};

/// A unit, and whether it is of so much in a second.
type Measure = (Unit, bool);

fn family(series: &str) -> Option<(&'static Family, Unit)> {
    let of_operator = crate::operator::FAMILIES.iter().copied();
    let all = crate::families::FAMILIES.iter().chain(of_operator);
    for family in all {
        if family.series_names().iter().any(|name| name == series) {
            let counted = series.ends_with("_count") || series.ends_with("_bucket");
            let is_count = family.kind == Kind::Histogram && counted;
            return Some((family, if is_count { Unit::Count } else { family.unit }));
        }
    }
    None
}

/// What an expression without a division measures.
fn of_part(part: &str) -> Measure {
    let series = crate::expr::names(part).series;
    let mut units = series.iter().map(|series| match family(series) {
        Some((_, Unit::State)) => Unit::Count,
        Some((family, _)) if part.contains("histogram_quantile(") => family.unit,
        Some((_, unit)) => unit,
        // `up`; an objective and what is failed are shares.
        None if series == "up" => Unit::Count,
        None => Unit::Ratio,
    });
    let unit = units
        .next()
        .unwrap_or_else(|| panic!("no series in {part}"));
    assert!(
        units.all(|other| other == unit),
        "{part} adds what does not add up"
    );
    if part.contains("count by (") {
        return (Unit::Count, false);
    }
    let is_rate = part.contains("rate(") && !part.contains("histogram_quantile(");
    // A minute of it, and bytes as bits.
    match (unit, is_rate) {
        (Unit::Count, true) if part.contains("60 * ") => (Unit::Count, false),
        (Unit::Bytes, true) if part.contains("8 * ") || part.contains(" * 8") => {
            (Unit::BitsPerSecond, false)
        }
        // Seconds in a second are how many there are.
        (Unit::Seconds, true) if !part.contains("_sum{") => (Unit::Count, false),
        measure => measure,
    }
}

fn of_query(query: &str) -> Measure {
    // Joined to have a version, which is always 1.
    let query = query.split(" * on (").next().expect("a part");
    let Some((dividend, divisor)) = query.split_once(" / ") else {
        return of_part(query);
    };
    if divisor.contains("1 - mediaservice:slo_objective:ratio") {
        return (Unit::Count, false);
    }
    match (of_part(dividend), of_part(divisor)) {
        (a, b) if a == b => (Unit::Ratio, false),
        ((unit, per), (Unit::Count, also)) if per == also => (unit, false),
        // Work of a thousand, of the share of a second that work takes.
        ((Unit::Ratio, false), (Unit::Count, true)) => (Unit::Seconds, false),
        (a, b) => panic!("{a:?} / {b:?}: {query}"),
    }
}

/// As Grafana names it.
fn shown(measure: Measure) -> &'static [&'static str] {
    match measure {
        (Unit::Count, false) => &["short"],
        (Unit::Count, true) => &["ops", "pps"],
        (Unit::Seconds, false) => &["s"],
        (Unit::Milliseconds, false) => &["ms"],
        (Unit::Bytes, false) => &["bytes"],
        (Unit::BitsPerSecond, false) => &["bps"],
        (Unit::PerSecond, false) => &["fps"],
        (Unit::Ratio, false) => &["percentunit"],
        other => panic!("no unit for {other:?}"),
    }
}

/// Panels whose lines are of two units: the unit is that of the first, and legends name the other.
const MIXED: &[&str] = &[
    "Events",
    "Keys of the identity provider",
    "Recent video held",
];

#[test]
fn every_panel_has_the_unit_of_what_its_queries_measure() {
    for (dashboard, title, panel) in panels() {
        let unit = panel["fieldConfig"]["defaults"]["unit"]
            .as_str()
            .expect("a unit");
        let right: Vec<bool> = queries(&panel)
            .iter()
            .map(|query| shown(of_query(query)).contains(&unit))
            .collect();
        let some = right.contains(&true) && right.contains(&false);
        let wanted = match MIXED.contains(&&*title) {
            true => some,
            false => !right.contains(&false),
        };
        assert!(
            wanted,
            "{dashboard}: {title}: {unit} for {:?}",
            queries(&panel)
        );
    }
}

/// Where a value turns red, and the alert that has the same number, if there is one.
const RED: &[(&str, &str, f64, Option<&str>)] = &[
    ("overview", "Requests that failed", 0.001, None),
    ("overview", "Sessions that ended badly", 0.2, None),
    ("overview", "Busiest CPU", 0.9, None),
    ("overview", "Set-up time, 95 % within", 1.0, None),
    (
        "overview",
        "Share of limits",
        0.9,
        Some("MediaSessionLimitNear"),
    ),
    ("overview", "Packet loss", 0.05, None),
    ("overview", "Round trip", 300.0, None),
    ("overview", "Keys of the identity provider", 3600.0, None),
    ("overview", "CPU", 0.9, Some("MediaShardSaturated")),
    ("quality", "Watched badly", 0.001, None),
    ("quality", "First media, 95 % within", 1.0, None),
    ("quality", "Worst loss", 0.05, None),
    ("quality", "Longest round trip", 300.0, None),
    ("quality", "Viewers without media", 1.0, None),
    ("quality", "First media", 1.0, None),
    ("quality", "Loss over sessions", 0.05, None),
    (
        "quality",
        "Round trip and jitter over sessions",
        300.0,
        None,
    ),
    ("quality", "Sent again", 0.05, None),
    (
        "quality",
        "Dropped of what comes in",
        0.02,
        Some("MediaDropsHigh"),
    ),
    ("devices", "Share that ended badly", 0.2, None),
    ("slo", "Setup", 1.0, None),
    ("slo", "Latency", 1.0, None),
    ("slo", "Continuity", 1.0, None),
    ("slo", "Availability", 1.0, None),
    ("slo", "Setup: fast burn", 14.4, None),
    ("slo", "Setup: slow burn", 1.0, None),
    ("slo", "Latency: fast burn", 14.4, None),
    ("slo", "Latency: slow burn", 1.0, None),
    ("slo", "Continuity: fast burn", 14.4, None),
    ("slo", "Continuity: slow burn", 1.0, None),
    ("slo", "Availability: fast burn", 14.4, None),
    ("slo", "Availability: slow burn", 1.0, None),
    ("capacity", "Sessions", 0.9, Some("MediaSessionLimitNear")),
    (
        "capacity",
        "Busiest media thread",
        0.9,
        Some("MediaShardSaturated"),
    ),
    ("capacity", "CPU", 0.9, None),
    ("capacity", "Set-ups under way", 200.0, None),
    ("capacity", "Refused for want of room", 1.0, None),
    (
        "capacity",
        "Busiest media thread by pod",
        0.9,
        Some("MediaShardSaturated"),
    ),
    ("operator", "Leaders", 2.0, None),
    ("operator", "Failed", 0.1, None),
    (
        "operator",
        "Definition missing",
        1.0,
        Some("MediaOperatorCRDMissing"),
    ),
];

#[test]
fn a_value_turns_red_where_the_list_says_and_where_its_alert_begins() {
    let mut found = Vec::new();
    for (dashboard, title, panel) in panels() {
        let steps = &panel["fieldConfig"]["defaults"]["thresholds"]["steps"];
        let steps = steps.as_array().expect("a list");
        assert!(
            steps[0]["value"].is_null() && steps[0]["color"] == "green",
            "{title}"
        );
        let drawn = &panel["fieldConfig"]["defaults"]["custom"]["thresholdsStyle"]["mode"];
        let is_lines = panel["type"] == "timeseries";
        assert_eq!(
            drawn == "dashed",
            is_lines && steps.len() > 1,
            "{dashboard}: {title}: {drawn}"
        );
        if let [_, red] = &steps[..] {
            assert_eq!(red["color"], "red", "{title}");
            let value = red["value"].as_f64().expect("a number");
            let unit = &panel["fieldConfig"]["defaults"]["unit"];
            assert!(unit != "percentunit" || value <= 1.0, "{title}: {value}");
            found.push((dashboard, title, value));
        }
    }
    let listed = RED.iter();
    let listed: Vec<_> = listed
        .map(|(id, title, value, _)| (*id, (*title).to_owned(), *value))
        .collect();
    assert_eq!(found, listed);
    for (_, title, value, alert) in RED {
        let Some(alert) = alert else { continue };
        let found = ALERTS
            .iter()
            .chain(OPERATOR_ALERTS)
            .find(|a| a.name == *alert);
        let expr = found.unwrap_or_else(|| panic!("no {alert}")).expr;
        let begins = expr.contains(&format!("> {value}")) || expr.ends_with(&format!("== {value}"));
        assert!(begins, "{title}: {value} is not in {expr}");
    }
}
