//! Tests of the dashboards: what an import would stumble over, and what would mislead who reads them.

mod linter;
mod units;

use super::*;
use crate::families::find;

const CAM: Selector<'static> = Selector {
    namespace: "media",
    service: "cam",
};

/// Every dashboard, by its id.
fn all() -> Vec<Dashboard> {
    let mut all = dashboards(&CAM);
    all.push(of_operator());
    all
}

/// Dashboard, title and model of every panel.
fn panels() -> Vec<(&'static str, String, Value)> {
    let of = |dashboard: &Dashboard| {
        let panels = dashboard.json["panels"].as_array().expect("a list");
        let panels = panels.iter().filter(|panel| panel["type"] != "row");
        let titled = |panel: &Value| {
            let title = panel["title"].as_str().expect("a title");
            (dashboard.id, title.to_owned(), panel.clone())
        };
        panels.map(titled).collect::<Vec<_>>()
    };
    all().iter().flat_map(of).collect()
}

/// Queries of a panel that Prometheus answers.
fn queries(panel: &Value) -> Vec<&str> {
    let targets = panel["targets"].as_array().expect("a list");
    let asked = targets
        .iter()
        .filter(|target| target["datasource"]["type"] == "prometheus");
    asked
        .map(|target| target["expr"].as_str().expect("an expression"))
        .collect()
}

#[test]
fn there_is_a_dashboard_for_each_question_whose_figures_there_are() {
    let ids: Vec<&str> = dashboards(&CAM).iter().map(|d| d.id).collect();
    assert_eq!(
        ids,
        ["overview", "quality", "devices", "slo", "capacity", "logs"]
    );
}

#[test]
fn the_uid_is_stable_short_and_different_for_each_mediaservice_and_dashboard() {
    let mut seen = std::collections::HashSet::new();
    for selector in [
        CAM,
        Selector {
            service: "cam2",
            ..CAM
        },
    ] {
        for dashboard in dashboards(&selector) {
            let wanted = uid(&selector, dashboard.id);
            assert_eq!(dashboard.json["uid"], *wanted);
            assert!(wanted.len() <= 40 && seen.insert(wanted));
        }
    }
}

#[test]
fn the_title_ends_with_the_mediaservice_and_the_variables_are_preset_to_it() {
    for dashboard in dashboards(&CAM) {
        let model = &dashboard.json;
        let title = model["title"].as_str().expect("a title");
        assert!(title.ends_with(" media/cam"), "{title}");
        let variables = model["templating"]["list"].as_array().expect("a list");
        let preset = |name: &str| {
            let found = variables.iter().find(|variable| variable["name"] == name);
            found.unwrap_or_else(|| panic!("{title}: no {name}"))["current"]["value"].clone()
        };
        assert_eq!(
            (preset("namespace"), preset("service")),
            ("media".into(), "cam".into())
        );
    }
}

/// A selector without one of both would mix MediaServices of one name in two namespaces, or of one namespace.
#[test]
fn every_query_selects_one_mediaservice_or_one_release_of_the_operator() {
    for (dashboard, title, panel) in panels() {
        let selection = match dashboard {
            "operator" => "namespace=\"$namespace\"",
            "slo" => "namespace=\"$namespace\",mediaservice=\"$service\"",
            "logs" => "namespace=\"$namespace\",pod=~\"$service-[0-9]+\"",
            _ => "namespace=\"$namespace\",mediaservice=\"$service\",pod=~\"$pod\"",
        };
        for target in panel["targets"].as_array().expect("a list") {
            let query = target["expr"].as_str().unwrap_or_default();
            let metrics = target["datasource"]["type"] == "prometheus";
            if metrics {
                let named = crate::expr::names(query).series.len();
                assert!(
                    query.matches('{').count() >= named,
                    "{dashboard}: {title}: {query}"
                );
            }
            for part in query.split('{').skip(1) {
                assert!(part.starts_with(selection), "{dashboard}: {title}: {query}");
            }
        }
    }
}

#[test]
fn panels_neither_overlap_nor_leave_the_grid() {
    for dashboard in all() {
        let mut taken = std::collections::HashSet::new();
        let mut ids = std::collections::HashSet::new();
        for panel in dashboard.json["panels"].as_array().expect("a list") {
            assert!(ids.insert(panel["id"].as_u64().expect("an id")));
            let at = |key: &str| panel["gridPos"][key].as_u64().expect("a number");
            assert!(at("x") + at("w") <= 24);
            for x in at("x")..at("x") + at("w") {
                for y in at("y")..at("y") + at("h") {
                    let free = taken.insert((x, y));
                    assert!(free, "{} overlaps at {x},{y}", panel["title"]);
                }
            }
        }
    }
}

#[test]
fn every_line_has_a_name_of_its_own_in_its_panel() {
    for (dashboard, title, panel) in panels() {
        let mut seen = std::collections::HashSet::new();
        for target in panel["targets"].as_array().expect("a list") {
            if target["datasource"]["type"] == "tempo" {
                continue;
            }
            let legend = target["legendFormat"].as_str().unwrap_or_default();
            assert!(
                !legend.is_empty() && seen.insert(legend),
                "{dashboard}: {title}: {legend}"
            );
            // What a legend names is what the query groups by, or a label of the family; a level is of log
            // lines, and an indicator of objectives.
            let query = target["expr"].as_str().expect("an expression");
            for label in legend.split("{{").skip(1) {
                let label = label.split("}}").next().expect("closed");
                let names = crate::expr::names(query);
                let has = |series: &String| {
                    find(series).is_some_and(|family| family.labels.contains(&label))
                };
                let grouped = query.contains(" by (");
                let known = names.labels.contains(label)
                    || (!grouped && (label == "pod" || names.series.iter().any(has)))
                    || ["level", "sli"].contains(&label);
                assert!(known, "{dashboard}: {title}: no {label} in {query}");
            }
        }
    }
}

#[test]
fn without_series_of_sessions_no_panel_asks_for_them_and_none_is_empty() {
    let (mut all, mut left) = (0, 0);
    for (with, without) in dashboards(&CAM)
        .iter()
        .zip(dashboards_without_sessions(&CAM))
    {
        let count = |dashboard: &Dashboard| dashboard.json["panels"].as_array().map(Vec::len);
        all += count(with).expect("a list");
        left += count(&without).expect("a list");
        let mut places = std::collections::HashSet::new();
        for panel in without.json["panels"].as_array().expect("a list") {
            let at = &panel["gridPos"];
            assert!(
                places.insert((at["x"].as_u64(), at["y"].as_u64())),
                "{panel}"
            );
            for query in panel["targets"].as_array().into_iter().flatten() {
                let query = query["expr"].as_str().unwrap_or_default();
                for series in crate::expr::names(query).series {
                    let is_gauge_of_session = find(&series).is_some_and(|family| {
                        family.scope == Scope::Session && family.kind == Kind::Gauge
                    });
                    assert!(!is_gauge_of_session, "{query}");
                }
            }
            let is_row = panel["type"] == "row";
            assert!(
                is_row || panel["targets"] != serde_json::json!([]),
                "{panel}"
            );
        }
    }
    assert!(left < all && left > all / 2, "{left} of {all}");
}

/// Thousands of sessions would be as many lines, of a dashboard that is opened first and asked again each half minute.
#[test]
fn no_panel_draws_a_line_for_each_session() {
    for (dashboard, title, panel) in panels() {
        for query in queries(&panel) {
            let names = crate::expr::names(query);
            let of_session = names
                .series
                .iter()
                .any(|series| find(series).is_some_and(|f| f.scope == Scope::Session));
            let few = [
                "sum",
                "max",
                "min",
                "count",
                "quantile",
                "histogram_quantile",
                "topk",
                "bottomk",
            ];
            let is_bounded = few
                .iter()
                .any(|function| names.functions.contains(*function));
            assert!(!of_session || is_bounded, "{dashboard}: {title}: {query}");
        }
    }
}

#[test]
fn a_family_that_may_be_empty_is_one_that_a_panel_asks_for() {
    for (family, needs) in EMPTY_WITHOUT {
        let asked = |panel: &Value| {
            let mut all = queries(panel).into_iter();
            all.any(|query| crate::expr::names(query).series.contains(*family))
        };
        assert!(
            panels().iter().any(|(_, _, panel)| asked(panel)),
            "{family}"
        );
        assert!(!needs.is_empty());
    }
}
