//! Optional APIs that are absent, come and go, or do not answer, and what is made of those that do.

use super::*;

const MONITORING: &str = "/apis/monitoring.coreos.com";
const MONITOR: &str = "/apis/monitoring.coreos.com/v1/namespaces/media/servicemonitors/cam";

/// An edit of a child is undone in time: the queue goes on.
async fn is_restored(fake: &FakeCluster, path: &str) {
    fake.delete(path);
    eventually(&format!("{path} to be back"), BACK, || {
        match fake.get(path) {
            Value::Null => Err("not there".into()),
            _ => Ok(()),
        }
    })
    .await;
}

#[tokio::test]
async fn a_monitoring_api_may_be_absent_appear_and_vanish_and_nothing_else_waits_for_it() {
    let fake = cluster(json!({}));
    fake.fail(MONITORING, 404);
    let operator = Operator::start(&fake).await;
    settled(&fake).await;
    becomes(&fake, "MonitoringReady", "False", "CRDAbsent").await;
    is_restored(&fake, PODS_SERVICE).await;

    fake.mend(MONITORING);
    operator.context.doubt.notify_one();
    becomes(&fake, "MonitoringReady", "True", "Created").await;
    is_restored(&fake, MONITOR).await;

    // The API server forgets the objects with their definition, and ends the watches.
    for kind in ["servicemonitors", "prometheusrules"] {
        fake.delete(&MONITOR.replace("servicemonitors", kind));
    }
    fake.fail(MONITORING, 404);
    is_restored(&fake, PODS_SERVICE).await;
    becomes(&fake, "MonitoringReady", "False", "CRDAbsent").await;
    assert_eq!(condition(&fake, SERVICE, "Ready").0, "True");

    fake.mend(MONITORING);
    operator.context.doubt.notify_one();
    becomes(&fake, "MonitoringReady", "True", "Created").await;
    operator.stop().await;
}

#[tokio::test]
async fn an_api_that_does_not_answer_costs_nothing_of_what_is_there() {
    let fake = cluster(json!({}));
    let operator = Operator::start(&fake).await;
    settled(&fake).await;
    becomes(&fake, "MonitoringReady", "True", "Created").await;
    for code in [503, 403] {
        fake.fail(MONITORING, code);
        is_restored(&fake, PODS_SERVICE).await;
        becomes(&fake, "MonitoringReady", "False", "DiscoveryUnknown").await;
        // By now its watches fail, one after the other and again and again.
        is_restored(&fake, PODS_SERVICE).await;
        assert_eq!(condition(&fake, SERVICE, "Ready").0, "True");
        fake.mend(MONITORING);
        operator.look(1).await;
        becomes(&fake, "MonitoringReady", "True", "Created").await;
    }
    let deleted = |write: &Write| write.method == axum::http::Method::DELETE;
    assert!(!writes(&fake).iter().any(deleted), "{:?}", writes(&fake));
    operator.stop().await;
}

#[tokio::test]
async fn an_operator_that_starts_while_discovery_fails_does_all_but_the_optional() {
    let fake = cluster(json!({}));
    fake.fail(MONITORING, 503);
    let operator = Operator::start(&fake).await;
    settled(&fake).await;
    becomes(&fake, "MonitoringReady", "False", "DiscoveryUnknown").await;
    fake.mend(MONITORING);
    becomes(&fake, "MonitoringReady", "True", "Created").await;
    operator.stop().await;
}

#[tokio::test]
async fn a_route_that_may_not_be_listed_is_missing_unless_it_was_there_before() {
    let routes = "/apis/gateway.networking.k8s.io/v1/namespaces/media/httproutes";
    let route = json!({"hostnames": ["media.example.com"], "parentRefs": [{"name": "gateway"}]});
    let fake = cluster(json!({"signalling": {"httpRoute": route}}));
    fake.fail(routes, 403);
    let operator = Operator::start(&fake).await;
    let message = becomes(&fake, "Degraded", "True", "DiscoveryUnknown").await;
    assert!(message.contains("spec.signalling.httpRoute"), "{message}");
    becomes(&fake, "Ready", "False", "SignallingNotReady").await;

    fake.mend(routes);
    operator.context.doubt.notify_one();
    becomes(&fake, "Degraded", "False", "AsExpected").await;
    fake.edit(&format!("{routes}/cam"), |route| {
        let accepted = json!({"type": "Accepted", "status": "True", "message": ""});
        route["status"] = json!({"parents": [{"conditions": [accepted]}]});
    });
    settled(&fake).await;
    fake.fail(routes, 503);
    operator.look(1).await;
    becomes(&fake, "Degraded", "True", "DiscoveryUnknown").await;
    assert_eq!(condition(&fake, SERVICE, "Ready").0, "True");
    operator.stop().await;
}

#[tokio::test]
async fn a_certificate_that_may_not_be_listed_degrades() {
    let fake = cluster(json!({"signalling": {
        "ingress": {"host": "media.example.com", "tlsSecretName": "tls"},
        "certificateIssuerRef": {"name": "issuer"},
    }}));
    fake.fail("/apis/cert-manager.io", 403);
    let operator = Operator::start(&fake).await;
    let message = becomes(&fake, "Degraded", "True", "DiscoveryUnknown").await;
    let field = "spec.signalling.certificateIssuerRef";
    assert!(message.contains(field), "{message}");
    becomes(&fake, "Ready", "True", "Accepting").await;
    operator.stop().await;
}

#[tokio::test]
async fn objects_of_optional_apis_go_each_by_itself_when_they_are_asked_for_no_longer() {
    let fake = cluster(json!({"signalling": {
        "ingress": {"host": "media.example.com", "tlsSecretName": "tls"},
        "certificateIssuerRef": {"name": "issuer"},
        "httpRoute": {"hostnames": ["media.example.com"], "parentRefs": [{"name": "gateway"}]},
    }}));
    let kinds = OptionalApi::ALL.into_iter().flat_map(OptionalApi::kinds);
    let paths: Vec<String> = kinds
        .map(|kind| {
            let start = format!("/apis/{}/namespaces/media", kind.api_version);
            let is_certificate = kind.kind == "Certificate";
            let name = if is_certificate { "cam-tls" } else { "cam" };
            format!("{start}/{}/{name}", kind.plural)
        })
        .collect();
    let there = || {
        let there = paths.iter().filter(|path| !fake.get(path).is_null());
        there.map(String::as_str).collect::<Vec<_>>()
    };
    let operator = Operator::start(&fake).await;
    becomes(&fake, "Progressing", "False", "UpToDate").await;
    assert_eq!(there(), paths);
    let off = json!({"enabled": false});
    let both_off = json!({"serviceMonitor": off, "prometheusRule": off});
    let changes = [
        ("monitoring", json!({"serviceMonitor": off}), &paths[1..]),
        ("monitoring", both_off, &paths[2..]),
        ("signalling", json!({}), &[]),
    ];
    for (field, spec, left) in changes {
        fake.edit(SERVICE, |service| service["spec"][field] = spec.clone());
        eventually("what is left", PATIENCE, || match there() {
            found if found == left => Ok(()),
            found => Err(format!("{found:?}")),
        })
        .await;
    }
    operator.stop().await;
}

#[tokio::test]
async fn a_service_monitor_that_its_prometheus_refuses_shows_until_it_is_taken() {
    let fake = cluster(json!({}));
    let operator = Operator::start(&fake).await;
    settled(&fake).await;
    let before = writes(&fake).len();
    let says = |accepted: &str| {
        let condition =
            json!({"type": "Accepted", "status": accepted, "message": "bad relabeling"});
        let binding = json!({"resource": "prometheuses", "namespace": "ops", "name": "main",
            "conditions": [condition]});
        fake.edit(MONITOR, |monitor| {
            monitor["status"] = json!({"bindings": [binding]})
        });
    };
    says("False");
    let message = becomes(&fake, "MonitoringReady", "False", "NotSelected").await;
    assert!(message.contains("bad relabeling"), "{message}");
    assert_eq!(condition(&fake, SERVICE, "Ready").0, "True");
    says("True");
    becomes(&fake, "MonitoringReady", "True", "Created").await;
    let after = writes(&fake).split_off(before);
    let of_status = |write: &Write| write.path.ends_with("/status");
    assert!(after.iter().all(of_status), "{after:?}");
    operator.stop().await;
}

#[tokio::test]
async fn other_targets_and_labels_reach_the_rules_and_nothing_else_is_written() {
    let fake = cluster(json!({}));
    let operator = Operator::start(&fake).await;
    settled(&fake).await;
    let rule = MONITOR.replace("servicemonitors", "prometheusrules");
    let groups = || fake.get(&rule)["spec"]["groups"].to_string();
    assert!(groups().contains("> 14.4 * 0.05 and"), "{}", groups());
    let before = writes(&fake).len();
    fake.edit(SERVICE, |service| {
        service["spec"]["monitoring"] = json!({
            "sloTargets": {"latency": "98"},
            "prometheusRule": {"alertLabels": {"team": "video"}},
        });
    });
    eventually("the rules to have both", PATIENCE, || {
        let groups = groups();
        let both = groups.contains("> 14.4 * 0.02 and") && groups.contains("\"team\":\"video\"");
        if both { Ok(()) } else { Err(groups) }
    })
    .await;
    settled(&fake).await;
    let meanwhile = writes(&fake).split_off(before);
    let expected =
        |write: &Write| write.path == rule || write.path.ends_with("/mediaservices/cam/status");
    assert!(meanwhile.iter().all(expected), "{meanwhile:?}");
    operator.stop().await;
}
