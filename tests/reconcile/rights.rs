//! The chart grants what the operator uses, and `operator check` says so or what is missing.

use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use tests::{operator, process, wait_for};

use crate::service::Service;
use crate::turn;

/// A reconciliation, and a check of a second.
const SOON: Duration = Duration::from_secs(30);

/// Whether it succeeded, and what it said; asked with the rights of `user`, or of whoever runs the test.
fn check(user: Option<&str>) -> (bool, String) {
    let _turn = turn::shared();
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

#[tokio::test(flavor = "multi_thread")]
async fn operator_check_says_whether_prometheus_selects_and_its_fix_makes_it_select() {
    let service = Service::apply(
        "reconcile-check",
        "{media: {exposure: HostPort}, replicas: 0, monitoring: {serviceMonitor: {labels: {team: video}}}}",
    );
    let says = async |line: &str| {
        wait_for(
            &format!("`operator check` to say {line:?}"),
            SOON,
            || async {
                let (good, text) = check(None);
                ensure!(good && text.lines().any(|found| found == line), "{text}");
                Ok::<_, anyhow::Error>(text)
            },
        )
        .await
    };
    says("ok       the CRD mediaservices.mediaservice.io").await;
    says("ok       PrometheusRule reconcile-check/cam is selected by Prometheus monitoring/kube-prometheus-stack").await;
    let text =
        says("note     ServiceMonitor reconcile-check/cam is selected by no Prometheus").await;
    let fix = "fix: put {release: kube-prometheus-stack} into spec.monitoring.serviceMonitor.labels of MediaService reconcile-check/cam";
    assert!(text.contains(fix), "{text}");
    service.patch(
        r#"{"spec":{"monitoring":{"serviceMonitor":{"labels":{"release":"kube-prometheus-stack"}}}}}"#,
    );
    says("ok       ServiceMonitor reconcile-check/cam is selected by Prometheus monitoring/kube-prometheus-stack").await;
}

#[test]
fn helm_test_passes_where_an_operator_leads_and_says_what_it_checked() {
    let _turn = turn::shared();
    operator::install();
    let output = Command::new("helm")
        .args([
            "test",
            "mediaservice-operator",
            "--namespace",
            operator::NAMESPACE,
        ])
        .args(["--logs", "--timeout", "3m"])
        .output()
        .expect("helm can be started");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "{text}");
    for line in ["ok       all ", "leads in namespace mediaservice-system"] {
        assert!(text.contains(line), "{text}");
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
