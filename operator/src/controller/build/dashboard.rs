//! ConfigMaps with the dashboards of the metric catalogue, as Grafana's sidecar loads them.

use catalogue::dashboard::{dashboards, dashboards_without_sessions};
use catalogue::rules::Selector;
use k8s_openapi::api::core::v1::ConfigMap;

use super::meta;
use crate::controller::validate::ValidService;

pub fn build_dashboards(service: &ValidService) -> Vec<ConfigMap> {
    let wanted = &service.spec.monitoring.dashboards;
    let selector = Selector {
        namespace: &service.namespace,
        service: &service.name,
    };
    let dashboards = match service.spec.monitoring.per_session_series {
        true => dashboards(&selector),
        false => dashboards_without_sessions(&selector),
    };
    dashboards
        .into_iter()
        .map(|dashboard| {
            let name = format!("{}-dashboard-{}", service.name, dashboard.id);
            // Grafana's sidecar writes every file to one folder: names must not meet.
            let file = format!(
                "{}-{}-{}.json",
                service.namespace, service.name, dashboard.id
            );
            let mut metadata = meta::object_with_labels(service, name, &wanted.labels);
            if !wanted.annotations.is_empty() {
                metadata.annotations = Some(wanted.annotations.clone());
            }
            ConfigMap {
                metadata,
                data: Some([(file, dashboard.json.to_string())].into()),
                ..ConfigMap::default()
            }
        })
        .collect()
}
