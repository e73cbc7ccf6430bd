//! Tests of the rules: what they select, name and link to.

use super::*;

const CAM: Selector<'static> = Selector {
    namespace: "media",
    service: "cam",
};

fn rules(groups: &Value) -> Vec<&Value> {
    groups
        .as_array()
        .expect("a list")
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("a list"))
        .collect()
}

#[test]
fn every_selector_names_the_namespace_and_the_mediaservice() {
    let groups = rule_groups(&CAM);
    for rule in rules(&groups) {
        let expr = rule["expr"].as_str().expect("an expression");
        assert!(!expr.contains('$'), "left over placeholder in {expr}");
        for series in crate::expr::names(expr).series {
            let selected = expr.matches(&format!("{series}{{")).count();
            assert_eq!(selected, expr.matches(&*series).count(), "{series}: {expr}");
        }
        for part in expr.split('{').skip(1) {
            assert!(
                part.starts_with("namespace=\"media\",mediaservice=\"cam\""),
                "a selector without its MediaService: {expr}"
            );
        }
    }
}

#[test]
fn every_alert_has_severity_words_and_a_runbook_that_is_in_the_repository() {
    for rule in rules(&rule_groups(&CAM))
        .into_iter()
        .filter(|rule| rule["alert"].is_string())
    {
        let name = rule["alert"].as_str().expect("a name");
        assert!(
            matches!(
                rule["labels"]["severity"].as_str(),
                Some("critical" | "warning")
            ),
            "{name}"
        );
        assert!(
            rule["annotations"]["summary"]
                .as_str()
                .is_some_and(|text| text.len() > 10),
            "{name}"
        );
        assert!(
            rule["annotations"]["description"]
                .as_str()
                .is_some_and(|text| text.len() > 10),
            "{name}"
        );
        sections_are_there(name);
        let url = rule["annotations"]["runbook_url"].as_str();
        assert_eq!(url, Some(&*format!("docs/runbooks/{name}.md")));
    }
}

#[test]
fn every_alert_of_the_operator_has_a_runbook_too() {
    for alert in OPERATOR_ALERTS {
        sections_are_there(alert.runbook);
    }
}

/// The page says what it is, whom it hurts, how to see it, what to do and when it is over, in that order.
fn sections_are_there(runbook: &str) {
    let runbooks = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runbooks");
    let page = std::fs::read_to_string(runbooks.join(format!("{runbook}.md")));
    let page = page.unwrap_or_else(|error| panic!("docs/runbooks/{runbook}.md: {error}"));
    let headings = page.lines().filter_map(|line| line.strip_prefix("## "));
    let wanted = ["Meaning", "Impact", "Diagnosis", "Fix", "Over when"];
    assert_eq!(
        headings.collect::<Vec<_>>(),
        wanted,
        "docs/runbooks/{runbook}.md"
    );
    assert!(page.starts_with(&format!("# {runbook}\n")), "{runbook}");
    let parts = page.split("\n## ").skip(1);
    for part in parts {
        let words = part.split_whitespace().count();
        assert!(
            words >= 8,
            "docs/runbooks/{runbook}.md: hardly anything in {part}"
        );
    }
}

#[test]
fn the_list_of_runbooks_has_every_alert_with_its_severity() {
    let list = include_str!("../../../docs/runbooks/README.md");
    let groups = rule_groups(&CAM);
    let of_services = rules(&groups).into_iter().filter_map(|rule| {
        let severity = rule["labels"]["severity"].as_str()?;
        Some((rule["alert"].as_str()?.to_owned(), severity.to_owned()))
    });
    let of_operator = OPERATOR_ALERTS.iter();
    let of_operator = of_operator.map(|a| (a.name.to_owned(), a.severity.as_str().to_owned()));
    for (name, severity) in of_services.chain(of_operator) {
        let start = format!("| [{name}]({name}.md) | ");
        let line = list.lines().find_map(|line| line.strip_prefix(&*start));
        assert!(
            line.is_some_and(|line| line.contains(&*severity)),
            "{name}: {severity}"
        );
    }
}

#[test]
fn a_runbook_without_an_alert_is_not_kept() {
    let runbooks = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/runbooks");
    let groups = rule_groups(&CAM);
    let rules = rules(&groups);
    let of_services = rules.iter().filter_map(|rule| rule["alert"].as_str());
    let alerts: Vec<&str> = of_services
        .chain(OPERATOR_ALERTS.iter().map(|alert| alert.name))
        .collect();
    for entry in std::fs::read_dir(runbooks).expect("docs/runbooks is there") {
        let name = entry
            .expect("a readable folder")
            .file_name()
            .into_string()
            .expect("UTF-8");
        let stem = name.trim_end_matches(".md");
        assert!(
            stem == "README" || alerts.contains(&stem),
            "{name} belongs to no alert"
        );
    }
}

#[test]
fn a_disabled_alert_is_left_out_and_the_base_goes_before_the_runbook() {
    let disabled = ["MediaNoAcceptingPods".to_owned()];
    let options = Options {
        runbook_base_url: "https://example.com/wiki/",
        disabled_alerts: &disabled,
        ..Options::default()
    };
    let groups = rule_groups_with(&CAM, &options);
    let rules = rules(&groups);
    assert!(
        !rules
            .iter()
            .any(|rule| rule["alert"] == "MediaNoAcceptingPods")
    );
    let down = rules
        .iter()
        .find(|rule| rule["alert"] == "MediaPodDown")
        .expect("the others stay");
    assert_eq!(
        down["annotations"]["runbook_url"],
        "https://example.com/wiki/docs/runbooks/MediaPodDown.md"
    );
}

#[test]
fn a_group_that_would_be_empty_is_not_there() {
    let mut disabled: Vec<String> = ALERTS.iter().map(|alert| alert.name.to_owned()).collect();
    disabled.extend(slo::SLIS.iter().map(|sli| sli.alert.to_owned()));
    let groups = rule_groups_with(
        &CAM,
        &Options {
            disabled_alerts: &disabled,
            ..Options::default()
        },
    );
    assert_eq!(groups.as_array().expect("a list").len(), 1);
}

#[test]
fn labels_of_the_users_are_on_every_alert_and_change_none_of_its_own() {
    let own = [("team", "video"), ("severity", "none")];
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let own = BTreeMap::from(own);
    let options = Options {
        alert_labels: Some(&own),
        ..Options::default()
    };
    let groups = rule_groups_with(&CAM, &options);
    for rule in rules(&groups) {
        let labels = &rule["labels"];
        assert_eq!(
            labels["team"] == "video",
            rule["alert"].is_string(),
            "{rule}"
        );
        assert_ne!(labels["severity"], "none", "{rule}");
    }
}

/// The definition of MediaService refuses those, so that nobody is told that a label of theirs is there.
#[test]
fn every_label_that_a_rule_gives_its_alert_is_one_of_its_own() {
    for rule in rules(&rule_groups(&CAM)) {
        if rule["alert"].is_string() {
            let labels = rule["labels"].as_object().expect("a map");
            for label in labels.keys() {
                assert!(OWN_LABELS.contains(&&**label), "{}: {label}", rule["alert"]);
            }
        }
    }
}

#[test]
fn what_is_absent_is_described_without_labels() {
    let groups = rule_groups(&CAM);
    let of_service = rules(&groups).into_iter().map(|rule| {
        let description = rule["annotations"]["description"].as_str();
        (
            rule["expr"].as_str().expect("an expression").to_owned(),
            description.unwrap_or_default().to_owned(),
        )
    });
    let of_operator = OPERATOR_ALERTS
        .iter()
        .map(|alert| (alert.expr.to_owned(), alert.describe("ops", "")));
    for (expr, description) in of_service.chain(of_operator) {
        // `absent` keeps labels of a selector alone, not of a comparison.
        let nothing = expr.starts_with("absent(") && description.contains("$labels");
        assert!(!nothing, "{description}");
        assert!(!description.contains("$N") && !description.contains("$M"));
    }
}

#[test]
fn what_is_withheld_on_purpose_or_sent_by_strangers_sets_off_no_alert() {
    let drops = ALERTS.iter().find(|alert| alert.name == "MediaDropsHigh");
    let expr = drops.expect("the alert is there").expr;
    assert!(
        expr.contains("where!~\"no_keyframe|codec_mismatch|congestion|tcp_full|malformed|unknown_address|stun_unauthenticated|stun_replay\""),
        "{expr}"
    );
}
