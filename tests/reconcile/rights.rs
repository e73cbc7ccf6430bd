//! The chart grants what the operator uses, and `operator check` says so or what is missing.

use std::process::Command;

use tests::{operator, process};

/// Whether it succeeded, and what it said; asked with the rights of `user`, or of whoever runs the test.
fn check(user: Option<&str>) -> (bool, String) {
    operator::install();
    let mut command = Command::new(process::program("OPERATOR", "operator"));
    command.args(["check", "--namespace", operator::NAMESPACE]);
    if let Some(user) = user {
        command.args(["--as", user]);
    }
    let output = command.output().expect("the operator can be started");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.success(), text)
}

#[test]
fn operator_check_finds_every_right_of_the_charts_account() {
    let account = format!(
        "system:serviceaccount:{}:mediaservice-operator",
        operator::NAMESPACE
    );
    let (good, text) = check(Some(&account));
    assert!(good, "{text}");
    assert!(text.contains("ok       all "), "{text}");
    assert!(!text.contains("MISSING"), "{text}");
}

#[test]
fn operator_check_compares_the_definition_and_the_labels_that_prometheus_selects() {
    let (good, text) = check(None);
    assert!(good, "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines.contains(&"ok       the CRD mediaservices.mediaservice.io"),
        "{text}"
    );
    for field in ["serviceMonitorSelector", "ruleSelector"] {
        let selects = format!("selects the default labels ({field})");
        assert!(
            lines
                .iter()
                .any(|line| line.starts_with("ok ") && line.ends_with(&selects)),
            "{field}: {text}"
        );
    }
}

#[test]
fn operator_check_fails_for_an_account_without_rights_and_says_how_to_mend_it() {
    let (good, text) = check(Some("system:serviceaccount:default:default"));
    assert!(!good, "{text}");
    let lines: Vec<&str> = text.lines().collect();
    let missing = lines.iter().position(|line| line.starts_with("MISSING"));
    let missing = missing.unwrap_or_else(|| panic!("{text}"));
    assert!(
        lines[missing + 1].trim_start().starts_with("fix: "),
        "{text}"
    );
}
