//! ServiceMonitor and PrometheusRule. Their expressions come from the metric catalogue.

use catalogue::rules::{Options, Selector};
use catalogue::samples::most_samples;
use kube::api::DynamicObject;
use serde_json::json;

use super::meta;
use crate::capabilities;
use crate::controller::validate::ValidService;

pub fn build_service_monitor(service: &ValidService) -> DynamicObject {
    let wanted = &service.spec.monitoring.service_monitor;
    let spec = json!({
        "jobLabel": meta::NAME_LABEL,
        "selector": {"matchLabels": {
            (meta::SCRAPE_LABEL): "true",
            (meta::INSTANCE_LABEL): service.name,
        }},
        "namespaceSelector": {"matchNames": [service.namespace]},
        "sampleLimit": sample_limit(service),
        "endpoints": [{
            "port": "metrics",
            "path": "/metrics",
            "interval": format!("{}s", wanted.interval_seconds),
            "scrapeTimeout": format!("{}s", wanted.scrape_timeout_seconds),
            "honorLabels": false,
            "relabelings": [{
                "action": "replace",
                "sourceLabels": ["__meta_kubernetes_service_label_app_kubernetes_io_instance"],
                "targetLabel": "mediaservice",
            }],
        }],
    });
    let metadata = meta::object_with_labels(service, &service.name, &wanted.labels);
    meta::dynamic(&capabilities::service_monitor(), metadata, spec)
}

pub fn build_prometheus_rule(service: &ValidService) -> DynamicObject {
    let selector = Selector {
        namespace: &service.namespace,
        service: &service.name,
    };
    let wanted = &service.spec.monitoring.prometheus_rule;
    let mut disabled_alerts: Vec<String> = wanted
        .disabled_alerts
        .iter()
        .map(|name| name.0.clone())
        .collect();
    // A service that was stopped on purpose must wake nobody up.
    if service.spec.replicas == 0 {
        disabled_alerts.push("MediaNoAcceptingPods".to_owned());
    }
    let drain_timeout = service.spec.rollout.drain_timeout_seconds;
    let groups = catalogue::rules::rule_groups_with(
        &selector,
        &Options {
            disabled_alerts: &disabled_alerts,
            runbook_base_url: &wanted.runbook_base_url,
            objectives: service.objectives,
            alert_labels: Some(&wanted.alert_labels),
            drain_timeout_seconds: u32::try_from(drain_timeout).unwrap_or_default(),
        },
    );
    let metadata = meta::object_with_labels(service, &service.name, &wanted.labels);
    let spec = json!({"groups": groups});
    meta::dynamic(&capabilities::prometheus_rule(), metadata, spec)
}

/// A scrape beyond this limit fails as a whole, so that the pod's own cap on each family bites first.
fn sample_limit(service: &ValidService) -> u64 {
    let cap = service.spec.monitoring.max_series_per_family;
    most_samples(u32::try_from(cap).unwrap_or_default())
}
