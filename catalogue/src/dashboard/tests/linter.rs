//! The published rules of Grafana's dashboard-linter, which can't be had here, as tests: one for each rule that is
//! kept, named after it in its comment.
//!
//! Left out: `template-job-rule`, `template-instance-rule`, `target-job-rule` and `target-instance-rule`. Every
//! MediaService has the same job, and an instance is an address that is another after each restart: what tells
//! series apart here is namespace, MediaService and pod, and a test beside this file asks for those in every query.
//! `target-promql-rule` needs a parser of PromQL: `tests/chart` has promtool read every query. `target-logql-rule`
//! needs one of LogQL, which nothing here has: only brackets are looked at. Five numbers are no exception to
//! `target-rate-interval-rule` by oversight: `RATES_OF_A_NUMBER` has them.

use super::*;

fn variables(dashboard: &Dashboard) -> Vec<Value> {
    let list = dashboard.json["templating"]["list"].as_array();
    list.expect("a list").clone()
}

/// template-datasource-rule
#[test]
fn every_dashboard_lets_its_data_sources_be_chosen_under_the_names_that_are_usual() {
    for dashboard in all() {
        let variables = variables(&dashboard);
        let sources = variables.iter().filter(|v| v["type"] == "datasource");
        let sources: Vec<&Value> = sources.collect();
        assert!(!sources.is_empty(), "{}", dashboard.id);
        for source in &sources {
            let kind = source["query"].as_str().expect("a kind");
            let (first, rest) = kind.split_at(1);
            let label = format!("{}{rest} data source", first.to_uppercase());
            let own = (format!("{kind}_datasource"), label);
            let only = ("datasource".to_owned(), "Data source".to_owned());
            let text = |field: &str| source[field].as_str().unwrap_or_default().to_owned();
            let named = (text("name"), text("label"));
            assert!(
                named == own || (sources.len() == 1 && named == only),
                "{source}"
            );
        }
    }
}

/// template-label-promql-rule
#[test]
fn every_variable_that_is_asked_for_names_a_family_and_a_label() {
    for dashboard in all() {
        for variable in variables(&dashboard)
            .iter()
            .filter(|v| v["type"] == "query")
        {
            let query = variable["query"]["query"].as_str().expect("a query");
            let inside = query
                .strip_prefix("label_values(")
                .and_then(|q| q.strip_suffix(')'));
            let (series, label) = inside.and_then(|q| q.rsplit_once(", ")).expect(query);
            let family = series.split('{').next().expect("a name");
            let of_operator = crate::operator::FAMILIES.iter().any(|f| f.name == family);
            assert!(of_operator || find(family).is_some(), "{query}");
            assert!(
                ["namespace", "mediaservice", "pod"].contains(&label),
                "{query}"
            );
        }
    }
}

/// Or pods of another MediaService could be chosen, whose panels are empty.
#[test]
fn a_variable_offers_what_there_is_of_those_before_it() {
    for dashboard in all() {
        for variable in variables(&dashboard)
            .iter()
            .filter(|v| v["type"] == "query")
        {
            let query = variable["query"]["query"].as_str().expect("a query");
            let selected = match variable["name"].as_str() {
                Some("namespace") => "",
                Some("service") => "{namespace=\"$namespace\"}",
                Some("pod") => "{namespace=\"$namespace\",mediaservice=\"$service\"}",
                other => panic!("{}: {other:?}", dashboard.id),
            };
            let (_, selector) = query.split_at(query.find(['{', ',']).expect("a label"));
            let (selector, _) = selector.rsplit_once(", ").expect("a label");
            assert_eq!(selector, selected, "{query}");
        }
    }
}

/// template-on-time-change-reload-rule
#[test]
fn values_of_variables_are_asked_for_again_when_the_time_range_changes() {
    for dashboard in all() {
        for variable in variables(&dashboard)
            .iter()
            .filter(|v| v["type"] == "query")
        {
            assert_eq!(variable["refresh"], 2, "{variable}");
        }
    }
}

/// uneditable-dashboard
#[test]
fn no_dashboard_can_be_changed_in_place() {
    for dashboard in all() {
        assert_eq!(dashboard.json["editable"], false, "{}", dashboard.id);
    }
}

/// panel-datasource-rule
#[test]
fn every_panel_and_query_asks_the_data_source_of_a_variable_of_its_dashboard() {
    for dashboard in all() {
        let names: Vec<String> = variables(&dashboard)
            .iter()
            .filter(|v| v["type"] == "datasource")
            .map(|v| format!("${{{}}}", v["name"].as_str().expect("a name")))
            .collect();
        for (of, title, panel) in panels() {
            if of == dashboard.id {
                for asked in panel["targets"]
                    .as_array()
                    .expect("a list")
                    .iter()
                    .chain([&panel])
                {
                    let uid = asked["datasource"]["uid"].as_str().unwrap_or_default();
                    assert!(names.iter().any(|name| name == uid), "{of}: {title}: {uid}");
                }
            }
        }
    }
}

/// panel-title-description-rule
#[test]
fn every_panel_has_a_title_of_its_own_and_says_what_to_take_from_it() {
    let mut seen = std::collections::HashSet::new();
    for (dashboard, title, panel) in panels() {
        let description = panel["description"].as_str().unwrap_or_default();
        assert!(
            description.ends_with('.') && !title.is_empty(),
            "{dashboard}: {title}"
        );
        assert!(
            seen.insert((dashboard, title.clone())),
            "{dashboard}: {title} is there twice"
        );
    }
}

/// panel-units-rule; whether the unit is the right one is in `units.rs`.
#[test]
fn every_panel_has_a_unit_that_grafana_knows() {
    let known = [
        "short",
        "ops",
        "pps",
        "bps",
        "bytes",
        "percentunit",
        "s",
        "ms",
        "fps",
    ];
    for (dashboard, title, panel) in panels() {
        let unit = panel["fieldConfig"]["defaults"]["unit"].as_str();
        assert!(
            unit.is_some_and(|unit| known.contains(&unit)),
            "{dashboard}: {title}"
        );
    }
}

/// panel-no-targets-rule, and no query that is hidden.
#[test]
fn every_panel_has_queries_and_hides_none() {
    for (dashboard, title, panel) in panels() {
        let targets = panel["targets"].as_array().expect("a list");
        assert!(!targets.is_empty(), "{dashboard}: {title}");
        for target in targets {
            assert!(target["hide"].is_null(), "{dashboard}: {title}");
        }
    }
}

/// Numbers that are a rate over the time that their description names. An exception to `target-rate-interval-rule`, which
/// asks for the interval of a panel's width in pixels: of a number that has no meaning, and it would be another number
/// on another screen.
const RATES_OF_A_NUMBER: &[(&str, &str)] = &[
    ("overview", "Requests that failed"),
    ("overview", "Sessions that ended badly"),
    ("quality", "Watched badly"),
    ("quality", "First media, 95 % within"),
    ("operator", "Failed"),
];

/// target-rate-interval-rule, but for those. What grew in an hour is no rate, and a prediction is made from an hour.
#[test]
fn rates_over_time_use_the_interval_of_the_panel_and_others_say_which_time_they_are_about() {
    for (dashboard, title, panel) in panels() {
        let description = panel["description"].as_str().unwrap_or_default();
        for query in queries(&panel) {
            let windows = query.split('[').skip(1);
            let windows: Vec<&str> = windows.filter_map(|rest| rest.split(']').next()).collect();
            let is_lines = panel["type"] == "timeseries";
            for window in windows {
                let right = match window {
                    "$__rate_interval" => is_lines,
                    "5m" => {
                        let mut listed = RATES_OF_A_NUMBER.iter();
                        let listed = listed.any(|(id, of)| *id == dashboard && *of == title);
                        !is_lines && listed && description.contains("last 5 minutes")
                    }
                    "1h" if query.contains("predict_linear(") => description.contains("last hour"),
                    "1h" => description.contains("last hour"),
                    _ => false,
                };
                assert!(right, "{dashboard}: {title}: {window}: {description}");
            }
        }
    }
}

/// target-counter-agg-rule
#[test]
fn a_counter_is_shown_by_how_it_grows() {
    for (dashboard, title, panel) in panels() {
        for query in queries(&panel) {
            for series in crate::expr::names(query).series {
                if !series.ends_with("_total") {
                    continue;
                }
                let grown = ["rate", "increase"].iter().any(|function| {
                    let all = query.matches(&*series).count();
                    all > 0 && query.matches(&format!("{function}({series}{{")).count() == all
                });
                assert!(grown, "{dashboard}: {title}: {series} in {query}");
            }
        }
    }
}

/// target-logql-auto-rule
#[test]
fn counts_of_lines_use_the_interval_of_the_panel() {
    let mut counted = 0;
    for (dashboard, title, panel) in panels() {
        for target in panel["targets"].as_array().expect("a list") {
            if target["datasource"]["type"] == "loki" {
                let query = target["expr"].as_str().expect("an expression");
                let windows = query.matches(" [").count();
                assert_eq!(
                    query.matches("[$__auto]").count(),
                    windows,
                    "{dashboard}: {title}"
                );
                assert_eq!(
                    query.matches('{').count(),
                    query.matches('}').count(),
                    "{query}"
                );
                counted += windows;
            }
        }
    }
    assert!(counted > 0);
}
