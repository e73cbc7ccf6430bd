//! Tests of the dashboard: what an import would stumble over.

use super::*;

const CAM: Selector<'static> = Selector {
    namespace: "media",
    service: "cam",
};

fn panels() -> Vec<Value> {
    panels_of(&dashboards(&CAM).remove(0).json)
}

fn panels_of(model: &Value) -> Vec<Value> {
    model["panels"]
        .as_array()
        .expect("a list")
        .iter()
        .filter(|panel| panel["type"] != "row")
        .cloned()
        .collect()
}

#[test]
fn the_uid_is_stable_short_and_different_for_each_mediaservice() {
    assert_eq!(
        uid(&CAM, "overview"),
        dashboards(&CAM)[0].json["uid"].as_str().expect("a uid")
    );
    assert_ne!(
        uid(&CAM, "overview"),
        uid(
            &Selector {
                namespace: "media",
                service: "cam2"
            },
            "overview"
        )
    );
    assert!(uid(&CAM, "overview").len() <= 40);
}

#[test]
fn the_title_ends_with_the_mediaservice_and_the_variables_are_preset_to_it() {
    let model = dashboards(&CAM).remove(0).json;
    assert!(
        model["title"]
            .as_str()
            .expect("a title")
            .ends_with("media/cam")
    );
    let names: Vec<&str> = model["templating"]["list"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|variable| variable["name"].as_str())
        .collect();
    assert_eq!(names, ["datasource", "namespace", "service", "pod"]);
    assert_eq!(model["templating"]["list"][1]["current"]["value"], "media");
    assert_eq!(model["templating"]["list"][2]["current"]["value"], "cam");
}

#[test]
fn every_panel_has_a_description_a_unit_a_data_source_and_legends() {
    let of_operator = panels_of(&of_operator().json);
    assert!(of_operator.len() > 8, "{} panels", of_operator.len());
    for panel in panels().into_iter().chain(of_operator) {
        let title = panel["title"].as_str().expect("a title");
        assert!(
            panel["description"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{title}"
        );
        assert!(
            panel["fieldConfig"]["defaults"]["unit"].is_string(),
            "{title}"
        );
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        for target in panel["targets"].as_array().expect("a list") {
            assert!(
                target["legendFormat"]
                    .as_str()
                    .is_some_and(|text| !text.is_empty()),
                "{title}"
            );
        }
    }
}

#[test]
fn every_query_selects_one_mediaservice_and_lines_use_the_rate_interval() {
    for panel in panels() {
        for target in panel["targets"].as_array().expect("a list") {
            let expr = target["expr"].as_str().expect("an expression");
            for part in expr.split('{').skip(1) {
                assert!(
                    part.starts_with(
                        "namespace=\"$namespace\",mediaservice=\"$service\",pod=~\"$pod\""
                    ),
                    "{expr}"
                );
            }
            if panel["type"] == "timeseries" && expr.contains("rate(") {
                assert!(expr.contains("[$__rate_interval]"), "{expr}");
            }
        }
    }
}

#[test]
fn every_query_of_the_operator_selects_one_release() {
    for panel in panels_of(&of_operator().json) {
        for target in panel["targets"].as_array().expect("a list") {
            let expr = target["expr"].as_str().expect("an expression");
            for part in expr.split('{').skip(1) {
                assert!(part.starts_with("namespace=\"$namespace\""), "{expr}");
            }
        }
    }
}

#[test]
fn panels_neither_overlap_nor_leave_the_grid() {
    for model in [dashboards(&CAM).remove(0).json, of_operator().json] {
        stays_on_the_grid(&model);
    }
}

fn stays_on_the_grid(model: &Value) {
    let mut taken = std::collections::HashSet::new();
    let mut ids = std::collections::HashSet::new();
    for panel in model["panels"].as_array().expect("a list") {
        assert!(ids.insert(panel["id"].as_u64().expect("an id")));
        let at = |key: &str| panel["gridPos"][key].as_u64().expect("a number");
        assert!(at("x") + at("w") <= 24);
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(
                    taken.insert((x, y)),
                    "{} overlaps at {x},{y}",
                    panel["title"]
                );
            }
        }
    }
}
