//! ServiceMonitor and PrometheusRule. Their expressions come from the metric catalogue.

use catalogue::rules::{Options, Selector};
use kube::api::{ApiResource, DynamicObject, TypeMeta};
use serde_json::{Value, json};

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
    object(
        service,
        &capabilities::service_monitor(),
        &wanted.labels,
        spec,
    )
}

pub fn build_prometheus_rule(service: &ValidService) -> DynamicObject {
    let selector = Selector {
        namespace: &service.namespace,
        service: &service.name,
    };
    // A service that was stopped on purpose must wake nobody up.
    let stopped = ["MediaNoAcceptingPods".to_owned()];
    let disabled_alerts: &[String] = if service.spec.replicas == 0 {
        &stopped
    } else {
        &[]
    };
    let groups = catalogue::rules::rule_groups_with(
        &selector,
        &Options {
            disabled_alerts,
            ..Options::default()
        },
    );
    object(
        service,
        &capabilities::prometheus_rule(),
        &service.spec.monitoring.prometheus_rule.labels,
        json!({"groups": groups}),
    )
}

/// Samples that a pod at its limits exposes, twice over: 24 a session, 40 a device, where every
/// session may be a device's, and 2000 for the process. A scrape beyond this limit fails as a whole.
fn sample_limit(service: &ValidService) -> i64 {
    2 * (2000 + (24 + 40) * i64::from(service.spec.limits.sessions_per_pod))
}

fn object(
    service: &ValidService,
    resource: &ApiResource,
    labels: &std::collections::BTreeMap<String, String>,
    spec: Value,
) -> DynamicObject {
    DynamicObject {
        types: Some(TypeMeta {
            api_version: resource.api_version.clone(),
            kind: resource.kind.clone(),
        }),
        metadata: meta::object_with_labels(service, &service.name, labels),
        data: json!({"spec": spec}),
    }
}
