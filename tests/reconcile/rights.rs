//! The chart grants what the operator uses.

use std::process::Command;

use tests::{operator, process};

#[test]
fn operator_check_finds_every_right_and_the_labels_that_prometheus_selects() {
    operator::install();
    let output = Command::new(process::program("OPERATOR", "operator"))
        .args(["check", "--namespace", operator::NAMESPACE])
        .args([
            "--as",
            &format!(
                "system:serviceaccount:{}:mediaservice-operator",
                operator::NAMESPACE
            ),
        ])
        .output()
        .expect("the operator can be started");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("ok       all "), "{text}");
    assert!(!text.contains("MISSING"), "{text}");
}
