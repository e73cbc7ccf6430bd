//! `spec.monitoring`: objects for the Prometheus Operator and Grafana. Types only.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rule;

/// Objects for Prometheus and Grafana.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Monitoring {
    /// How Prometheus finds the pods.
    pub service_monitor: ServiceMonitor,
    /// Recording rules and alerts.
    pub prometheus_rule: PrometheusRule,
    /// ConfigMaps with Grafana dashboards.
    pub dashboards: Dashboards,
}

/// The ServiceMonitor.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rule("self.scrapeTimeoutSeconds <= self.intervalSeconds", "scrapeTimeoutSeconds must not be above intervalSeconds")))]
pub struct ServiceMonitor {
    /// Whether to make one. Default true; without the API monitoring.coreos.com nothing is made
    /// and the condition MonitoringReady says so.
    pub enabled: bool,
    /// Labels by which your Prometheus selects. Default `release: kube-prometheus-stack`, what the
    /// chart of that name asks for.
    pub labels: BTreeMap<String, String>,
    /// Seconds between scrapes, 1-3600. Default 15. A pod keeps the series of an ended session for two
    /// of them; it takes a new value when it starts the next time.
    #[schemars(extend("x-kubernetes-validations" = rule("self >= 1 && self <= 3600", "intervalSeconds must be 1 to 3600")))]
    pub interval_seconds: i32,
    /// Seconds that a scrape may take, at most intervalSeconds. Default 10.
    #[schemars(extend("x-kubernetes-validations" = rule("self >= 1 && self <= 3600", "scrapeTimeoutSeconds must be 1 to 3600")))]
    pub scrape_timeout_seconds: i32,
}

impl Default for ServiceMonitor {
    fn default() -> Self {
        Self {
            enabled: true,
            labels: release_label(),
            interval_seconds: 15,
            scrape_timeout_seconds: 10,
        }
    }
}

/// The PrometheusRule.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct PrometheusRule {
    /// Whether to make one. Default true.
    pub enabled: bool,
    /// Labels by which your Prometheus selects. Default `release: kube-prometheus-stack`.
    pub labels: BTreeMap<String, String>,
}

impl Default for PrometheusRule {
    fn default() -> Self {
        Self {
            enabled: true,
            labels: release_label(),
        }
    }
}

/// Dashboard ConfigMaps, as Grafana's sidecar loads them.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Dashboards {
    /// Whether to make them. Default true.
    pub enabled: bool,
    /// Labels by which the sidecar selects. Default `grafana_dashboard: "1"`.
    pub labels: BTreeMap<String, String>,
    /// Annotations, such as the sidecar's folder. Default: none.
    pub annotations: BTreeMap<String, String>,
}

impl Default for Dashboards {
    fn default() -> Self {
        Self {
            enabled: true,
            labels: BTreeMap::from([("grafana_dashboard".into(), "1".into())]),
            annotations: BTreeMap::new(),
        }
    }
}

fn release_label() -> BTreeMap<String, String> {
    BTreeMap::from([("release".into(), "kube-prometheus-stack".into())])
}
