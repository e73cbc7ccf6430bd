//! From reports to a table: medians over the rounds, or the worst of them where there is a bound that none may
//! exceed; ratios to ours; and whether goals are met. Pure.

use std::fmt::Write as _;

use serde_json::Value;

use super::scenarios::{FLOORS, Goal, Measure, Scenario};

/// What was measured of one scenario.
pub struct Results<'a> {
    pub scenario: &'a Scenario,
    /// By server, ours first: its name and the report of each round.
    pub servers: Vec<(String, Vec<Value>)>,
    /// µs a packet, of each round.
    pub floors: Vec<f64>,
}

impl Results<'_> {
    /// A Markdown table: a line for each measure, a column for each server, and for each of the
    /// others how many times ours it is. `all` are the results of this run, these among them.
    pub fn table(&self, all: &[Results<'_>]) -> String {
        let (ours, others) = self
            .servers
            .split_first()
            .map_or(("", &[][..]), |(o, rest)| (o.0.as_str(), rest));
        let mut out = String::from("| What |");
        for (name, _) in &self.servers {
            let _ = write!(out, " {name} |");
        }
        for (name, _) in others {
            let _ = write!(out, " {name} ÷ {ours} |");
        }
        out.push_str(" to reach |\n|---|");
        out.push_str(&"---|".repeat(self.servers.len() + others.len() + 1));
        out.push('\n');
        for measure in self.scenario.measures {
            self.line(measure, all, &mut out);
        }
        if !self.floors.is_empty() {
            self.floor_line(&mut out);
        }
        out
    }

    /// Of each round in which it was measured.
    fn values(&self, server: &str, measure: &Measure) -> Vec<f64> {
        let of_server = self.servers.iter().filter(|(name, _)| name == server);
        of_server
            .flat_map(|(_, reports)| reports)
            .filter_map(|report| report.pointer(measure.at)?.as_f64())
            .collect()
    }

    /// What the table has.
    fn value(&self, server: &str, measure: &Measure) -> Option<f64> {
        let values = self.values(server, measure);
        match measure.goals {
            [Goal::AtMost(_)] => values.into_iter().reduce(f64::max),
            _ => median(values),
        }
    }

    fn line(&self, measure: &Measure, all: &[Results<'_>], out: &mut String) {
        let values: Vec<Option<f64>> = self
            .servers
            .iter()
            .map(|(name, _)| self.value(name, measure))
            .collect();
        let unit = match measure.unit {
            "" => String::new(),
            unit => format!(", {unit}"),
        };
        let _ = write!(out, "| {}{unit} |", measure.what);
        for value in &values {
            let _ = write!(out, " {} |", shown(*value, measure.decimals));
        }
        let ours = values.first().copied().flatten();
        for value in values.iter().skip(1) {
            let _ = write!(out, " {} |", shown(ratio(*value, ours), 1));
        }
        // The first of the others is the yardstick.
        let times = values.get(1).and_then(|value| ratio(*value, ours));
        let of_server = |name: &str| self.value(name, measure);
        let in_load = |name: &str| {
            let results = all.iter().find(|results| results.scenario.name == name)?;
            let (ours, _) = results.servers.first()?;
            results.value(ours, measure)
        };
        let judged: Vec<String> = measure
            .goals
            .iter()
            .map(|goal| match *goal {
                Goal::Times(bound) => at_least(bound, times),
                Goal::AtMost(bound) => {
                    at_most(&format!("≤ {bound}{}", suffix(measure)), ours, Some(bound))
                }
                Goal::AtMostOf(server, bound) => at_most(
                    &format!("≤ {bound} × {server}"),
                    ours,
                    of_server(server).map(|value| value * bound),
                ),
                Goal::NoMoreThanIn(load) => at_most(&format!("≤ {load}"), ours, in_load(load)),
            })
            .collect();
        let _ = writeln!(out, " {} |", judged.join("; "));
    }

    fn floor_line(&self, out: &mut String) {
        let floor = median(self.floors.clone());
        let measure = &self.scenario.measures[0];
        let ours = self.servers.first();
        let ours = ours.and_then(|(name, _)| median(self.values(name, measure)));
        let floors = ratio(ours, floor);
        let met = floors.map_or("not measured", |floors| met(floors <= FLOORS));
        let _ = write!(
            out,
            "| the machine's floor: {} µs; ours is {} × that |",
            shown(floor, 2),
            shown(floors, 2)
        );
        out.push_str(&" |".repeat(self.servers.len() * 2 - 1));
        let _ = writeln!(out, " ≤ {FLOORS} × the floor: {met} |");
    }
}

fn suffix(measure: &Measure) -> String {
    match measure.unit {
        "" => String::new(),
        unit => format!(" {unit}"),
    }
}

/// The goal in words, and whether it is met.
fn at_least(bound: f64, times: Option<f64>) -> String {
    match times {
        None => format!("≥ {bound} ×: not measured"),
        Some(times) => format!("≥ {bound} ×: {}", met(times >= bound)),
    }
}

/// The same, where there is a bound if what it comes from was measured.
pub fn at_most(goal: &str, ours: Option<f64>, bound: Option<f64>) -> String {
    match ours.zip(bound) {
        None => format!("{goal}: not measured"),
        Some((ours, bound)) => format!("{goal}: {}", met(ours <= bound)),
    }
}

fn met(met: bool) -> &'static str {
    if met { "met" } else { "missed" }
}

fn shown(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.decimals$}"))
}

/// How many times `ours` it is; `None` where one is missing or ours is nothing.
fn ratio(value: Option<f64>, ours: Option<f64>) -> Option<f64> {
    let (value, ours) = (value?, ours?);
    (ours > 0.0).then(|| value / ours)
}

/// The middle value; of two in the middle, their mean.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some((values[middle - 1] + upper) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    const SCENARIO: Scenario = Scenario {
        name: "s",
        about: "",
        load: &[],
        floor: Some(&[]),
        measures: &[
            Measure {
                what: "cost",
                unit: "µs",
                at: "/server/cost",
                decimals: 2,
                goals: &[Goal::Times(7.0)],
            },
            Measure {
                what: "memory",
                unit: "KiB",
                at: "/rss",
                decimals: 0,
                goals: &[Goal::Times(6.0), Goal::AtMost(64.0)],
            },
            Measure {
                what: "failed",
                unit: "",
                at: "/failed",
                decimals: 0,
                goals: &[Goal::AtMost(0.0)],
            },
        ],
        limit: Duration::ZERO,
    };

    #[test]
    fn a_table_has_medians_ratios_to_ours_and_what_is_met() {
        let report =
            |cost: f64, rss: f64| json!({"server": {"cost": cost}, "rss": rss, "failed": 0});
        let results = Results {
            scenario: &SCENARIO,
            servers: vec![
                (
                    "ours".into(),
                    vec![report(9.0, 50.0), report(2.0, 70.0), report(2.0, 80.0)],
                ),
                ("pion".into(), vec![report(20.0, 350.0), json!({})]),
            ],
            floors: vec![1.0, 0.5],
        };
        assert_eq!(
            results.table(&[]),
            "| What | ours | pion | pion ÷ ours | to reach |\n\
             |---|---|---|---|---|\n\
             | cost, µs | 2.00 | 20.00 | 10.0 | ≥ 7 ×: met |\n\
             | memory, KiB | 70 | 350 | 5.0 | ≥ 6 ×: missed; ≤ 64 KiB: missed |\n\
             | failed | 0 | 0 | – | ≤ 0: met |\n\
             | the machine's floor: 0.75 µs; ours is 2.67 × that | | | | ≤ 3 × the floor: met |\n"
        );
    }

    #[test]
    fn a_bound_is_missed_by_the_worst_round_alone() {
        let failed = |count: u64| json!({"failed": count});
        let results = Results {
            scenario: &SCENARIO,
            servers: vec![("ours".into(), vec![failed(0), failed(1), failed(0)])],
            floors: vec![],
        };
        let table = results.table(&[]);
        assert!(table.contains("| failed | 1 | ≤ 0: missed |"), "{table}");
    }

    #[test]
    fn what_was_not_measured_is_neither_met_nor_missed() {
        let results = Results {
            scenario: &SCENARIO,
            servers: vec![("ours".into(), vec![])],
            floors: vec![],
        };
        let table = results.table(&[]);
        assert!(
            table.contains("| cost, µs | – | ≥ 7 ×: not measured |"),
            "{table}"
        );
        assert!(
            table.contains("| failed | – | ≤ 0: not measured |"),
            "{table}"
        );
    }

    #[test]
    fn a_load_is_judged_by_another_load_and_by_another_server_of_the_same() {
        const GROWN: Scenario = Scenario {
            name: "grown",
            measures: &[Measure {
                what: "cost",
                unit: "µs",
                at: "/server/cost",
                decimals: 1,
                goals: &[Goal::AtMostOf("one", 1.5), Goal::NoMoreThanIn("s")],
            }],
            floor: None,
            ..SCENARIO
        };
        let costs = |scenario, of: &[(&str, f64)]| Results {
            scenario,
            servers: of
                .iter()
                .map(|(name, cost)| {
                    let report = json!({"server": {"cost": cost}});
                    ((*name).to_owned(), vec![report])
                })
                .collect(),
            floors: vec![],
        };
        let all = [
            costs(&SCENARIO, &[("ours", 4.0)]),
            costs(&GROWN, &[("ours", 3.0), ("one", 2.0)]),
        ];
        let table = all[1].table(&all);
        assert!(
            table.contains("| 0.7 | ≤ 1.5 × one: met; ≤ s: met |"),
            "{table}"
        );
        let all = [
            costs(&SCENARIO, &[("ours", 2.9)]),
            costs(&GROWN, &[("ours", 3.0), ("one", 1.9)]),
        ];
        let table = all[1].table(&all);
        assert!(
            table.contains("≤ 1.5 × one: missed; ≤ s: missed |"),
            "{table}"
        );
        let table = all[1].table(&[]);
        assert!(table.contains("≤ s: not measured |"), "{table}");
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_two_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }
}
