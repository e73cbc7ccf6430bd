//! A case for every alert: what makes it fire and when, in promtool's words for rules.
//!
//! Owns the cases and the file that promtool reads; knows the rules by their names alone. A unit test
//! compares the names with the catalogue, `tests/chart` hands the rules that the operator and its chart
//! render to promtool.

mod burns;
mod cases;

use serde_json::{Value, json};

pub use burns::BURN_CASES;
pub use cases::{CASES, OPERATOR_CASES, QUIET};

/// One alert: silent up to the minute before it is due, firing then and up to the minute before its end, and silent
/// again. A number is a minute from the beginning.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub alert: &'static str,
    /// Series and their values, minute by minute, as promtool writes them. `@cam` and `@ops` stand for the
    /// labels of the target that the rules are about, `@other` for those of one beside it: that has the
    /// same values, unless the case gives it others.
    pub series: &'static [(&'static str, &'static str)],
    /// The first minute in which the expression holds.
    pub holds: u64,
    /// The first minute in which somebody is told.
    pub fires: u64,
    /// The first minute in which it is over.
    pub ends: u64,
    /// Every label, without the alert's name, as `name=value` with commas between.
    pub labels: &'static str,
    /// As somebody reads it.
    pub description: &'static str,
}

/// What an alert says nothing about, though it looks alike; written as in [`Case`].
#[derive(Debug, Clone, Copy)]
pub struct Quiet {
    pub what: &'static str,
    pub alert: &'static str,
    pub series: &'static [(&'static str, &'static str)],
}

/// Minutes that it is looked at.
const QUIET_FOR: u64 = 30;

/// Rules that promtool shall try.
pub struct Rules<'a> {
    /// `spec.groups` of the PrometheusRule.
    pub groups: &'a Value,
    /// Labels of the target, as in a selector.
    pub target: &'a str,
    /// The same of another.
    pub other: &'a str,
}

impl Rules<'_> {
    /// What `promtool test rules` reads, for rules that lie in `file` beside it. Summary and runbook are
    /// those of the rule: they have no template.
    pub fn document(&self, file: &str, cases: &[Case], quiet: &[Quiet]) -> Value {
        let groups = self.groups.as_array().into_iter().flatten();
        // Alerts are about what other groups record.
        let order: Vec<&Value> = groups.map(|group| &group["name"]).collect();
        let loud = cases.iter().map(|case| self.test(case));
        let tests: Vec<Value> = loud
            .chain(quiet.iter().map(|quiet| self.silence(quiet)))
            .collect();
        json!({
            "rule_files": [file],
            "evaluation_interval": "1m",
            "group_eval_order": order,
            "tests": tests,
        })
    }

    fn test(&self, case: &Case) -> Value {
        let at = |minute: u64, alerts: Value| json!({"eval_time": format!("{minute}m"), "alertname": case.alert, "exp_alerts": alerts});
        let fires =
            json!([{"exp_labels": labels(case.labels), "exp_annotations": self.annotations(case)}]);
        json!({
            "name": format!("{} {}", case.alert, case.labels),
            "interval": "1m",
            "input_series": self.series(case.series),
            "alert_rule_test": [
                at(case.fires - 1, json!([])),
                at(case.fires, fires),
                at(case.ends, json!([])),
            ],
            // Its words may have another value by then.
            "promql_expr_test": [{
                "expr": firing(case),
                "eval_time": format!("{}m", case.ends - 1),
                "exp_samples": [{"labels": firing(case), "value": 1}],
            }],
        })
    }

    fn silence(&self, quiet: &Quiet) -> Value {
        let at = |minute: u64| json!({"eval_time": format!("{minute}m"), "alertname": quiet.alert, "exp_alerts": []});
        json!({
            "name": format!("{}: {}", quiet.alert, quiet.what),
            "interval": "1m",
            "input_series": self.series(quiet.series),
            "alert_rule_test": (1..=QUIET_FOR).map(at).collect::<Vec<_>>(),
        })
    }

    fn annotations(&self, case: &Case) -> Value {
        let groups = self.groups.as_array().into_iter().flatten();
        let rules = groups.flat_map(|group| group["rules"].as_array().into_iter().flatten());
        let mut rules = rules.filter(|rule| rule["alert"] == case.alert);
        let rule = rules
            .next()
            .unwrap_or_else(|| panic!("no rule makes {}", case.alert));
        let mut annotations = rule["annotations"].clone();
        annotations["description"] = case.description.into();
        annotations
    }

    fn series(&self, series: &[(&'static str, &'static str)]) -> Vec<Value> {
        let mut all = series.to_vec();
        let twin = !all.iter().any(|(series, _)| series.contains("@other"));
        let mut written = Vec::new();
        for (series, values) in &mut all {
            let of = |target: &str| {
                let series = ["@cam", "@ops", "@other"]
                    .iter()
                    .fold((*series).to_owned(), |text, mark| {
                        text.replace(mark, target)
                    });
                json!({"series": series, "values": values})
            };
            match series.contains("@other") {
                true => written.push(of(self.other)),
                false => written.push(of(self.target)),
            }
            if twin {
                written.push(of(self.other));
            }
        }
        written
    }
}

/// The series that Prometheus has of an alert that fires.
fn firing(case: &Case) -> String {
    let labels = case
        .labels
        .split(',')
        .filter_map(|pair| pair.split_once('='));
    let labels = labels.map(|(name, value)| format!(",{name}=\"{value}\""));
    let of_case: String = labels.collect();
    format!(
        "ALERTS{{alertname=\"{}\",alertstate=\"firing\"{of_case}}}",
        case.alert
    )
}

fn labels(text: &str) -> Value {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), Value::from(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use catalogue::rules::{OPERATOR_ALERTS, Selector, rule_groups};

    /// Name and minutes: `MediaAvailabilityBurn` is four alerts.
    type Due = (String, u64);

    fn minutes(duration: &str) -> u64 {
        let (number, unit) = duration.split_at(duration.len() - 1);
        let number: u64 = number.parse().expect("a number and a unit");
        match unit {
            "s" if number.is_multiple_of(60) => number / 60,
            "m" => number,
            "h" => number * 60,
            _ => panic!("no case can name {duration}"),
        }
    }

    fn due(cases: &[Case]) -> Vec<Due> {
        let mut due: Vec<Due> = cases
            .iter()
            .map(|case| (case.alert.to_owned(), case.fires - case.holds))
            .collect();
        due.sort();
        due
    }

    #[test]
    fn every_alert_has_a_case_and_every_case_an_alert() {
        let cam = Selector {
            namespace: "media",
            service: "cam",
        };
        let groups = rule_groups(&cam);
        let groups = groups.as_array().expect("a list");
        let mut alerts: Vec<Due> = groups
            .iter()
            .flat_map(|group| group["rules"].as_array().expect("a list"))
            .filter_map(|rule| {
                let lasts = rule["for"].as_str()?;
                Some((rule["alert"].as_str()?.to_owned(), minutes(lasts)))
            })
            .collect();
        alerts.sort();
        let cases = [CASES, BURN_CASES].concat();
        assert_eq!(due(&cases), alerts, "tests/src/alerts");
        let mut alerts: Vec<Due> = OPERATOR_ALERTS
            .iter()
            .map(|alert| (alert.name.to_owned(), minutes(alert.lasts)))
            .collect();
        alerts.sort();
        assert_eq!(due(OPERATOR_CASES), alerts, "tests/src/alerts/cases.rs");
    }
}
