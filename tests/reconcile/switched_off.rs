//! What a spec no longer asks for goes, kind by kind, and comes back when it is asked for again.

use std::time::Duration;

use anyhow::bail;
use tests::wait_for;

use crate::service::{START, Service};

/// What the product promises.
const SOON: Duration = Duration::from_secs(10);

/// Kind and name, the patch that does without, and the patch that asks for it again.
const PARTS: &[(&str, &str, &str, &str)] = &[
    (
        "servicemonitor",
        "cam",
        r#"{"spec":{"monitoring":{"serviceMonitor":{"enabled":false}}}}"#,
        r#"{"spec":{"monitoring":{"serviceMonitor":{"enabled":true}}}}"#,
    ),
    (
        "prometheusrule",
        "cam",
        r#"{"spec":{"monitoring":{"prometheusRule":{"enabled":false}}}}"#,
        r#"{"spec":{"monitoring":{"prometheusRule":{"enabled":true}}}}"#,
    ),
    (
        "configmap",
        "cam-dashboard-overview",
        r#"{"spec":{"monitoring":{"dashboards":{"enabled":false}}}}"#,
        r#"{"spec":{"monitoring":{"dashboards":{"enabled":true}}}}"#,
    ),
    (
        "serviceaccount",
        "cam-media",
        r#"{"spec":{"pod":{"serviceAccountName":"default"}}}"#,
        r#"{"spec":{"pod":{"serviceAccountName":""}}}"#,
    ),
    (
        "ingress",
        "cam",
        r#"{"spec":{"signalling":{"ingress":null}}}"#,
        r#"{"spec":{"signalling":{"ingress":{"host":"media.example.com"}}}}"#,
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_switched_off_goes_and_comes_back_when_it_is_switched_on() {
    let spec = "{media: {exposure: HostPort}, signalling: {ingress: {host: media.example.com}}, replicas: 0}";
    let service = Service::apply("reconcile-parts", spec);
    service.condition("Progressing", "False", START).await;
    for (kind, name, off, on) in PARTS {
        let there = async |wanted: bool| {
            wait_for(&format!("{kind} {name}: {wanted}"), SOON, || async {
                let args = ["get", kind, name, "--ignore-not-found", "--output=name"];
                let found = service.kubectl.run(&args)?;
                match found.is_empty() {
                    empty if empty != wanted => Ok(()),
                    _ => bail!("{found:?}"),
                }
            })
            .await;
        };
        there(true).await;
        service.patch(off);
        there(false).await;
        service.patch(on);
        there(true).await;
    }
}
