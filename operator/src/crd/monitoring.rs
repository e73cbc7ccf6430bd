//! `spec.monitoring`: objects for the Prometheus Operator and Grafana. Types only.

use std::collections::BTreeMap;

use catalogue::rules::OWN_LABELS;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BoundedString, rule};

/// Objects for Prometheus and Grafana, and what pods expose.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Monitoring {
    /// How Prometheus finds the pods.
    pub service_monitor: ServiceMonitor,
    /// Recording rules and alerts.
    pub prometheus_rule: PrometheusRule,
    /// ConfigMaps with Grafana dashboards.
    pub dashboards: Dashboards,
    /// What the service aims at, in percent over 30 days: the burn alerts say when it is missed. A change
    /// replaces no pod.
    pub slo_targets: SloTargets,

    /// Whether pods expose families with a series for each session (label `session_id`). Default true.
    /// False: histograms and counters come without that label and gauges not at all. A change replaces
    /// the pod.
    pub per_session_series: bool,

    /// Label sets of one family that a pod exposes, 1000-200000. Default 20000. Beyond it gauges are left
    /// out and counters go to the label value `other`; the alert MediaSeriesFolded says so. A change
    /// replaces the pod.
    #[schemars(extend("x-kubernetes-validations" = rule("self >= 1000 && self <= 200000", "maxSeriesPerFamily must be 1000 to 200000")))]
    pub max_series_per_family: i32,
}

impl Default for Monitoring {
    fn default() -> Self {
        Self {
            service_monitor: ServiceMonitor::default(),
            prometheus_rule: PrometheusRule::default(),
            dashboards: Dashboards::default(),
            slo_targets: SloTargets::default(),
            per_session_series: true,
            max_series_per_family: 20_000,
        }
    }
}

/// The ServiceMonitor.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = rule("self.scrapeTimeoutSeconds <= self.intervalSeconds", "scrapeTimeoutSeconds must not be above intervalSeconds")))]
pub struct ServiceMonitor {
    /// Whether to make one. Default true; without the API monitoring.coreos.com nothing is made
    /// and the condition MonitoringReady says so. False leaves the rules of prometheusRule: they then need a scrape
    /// of yours that sets the labels namespace, mediaservice and pod, or MediaNoAcceptingPods fires for ever.
    pub enabled: bool,
    /// Labels by which your Prometheus selects. Default `release: kube-prometheus-stack`, what the
    /// chart of that name asks for. The condition MonitoringReady is false with reason NotSelected while
    /// no Prometheus takes the object, where Prometheus Operator says so in its status.bindings.
    pub labels: BTreeMap<String, String>,
    /// Seconds between scrapes, 1-60. Default 15. Rules look back 5 minutes, and need some scrapes in that time; to
    /// scrape more rarely, disable prometheusRule and bring rules of your own. A pod keeps the series of an ended
    /// session for two of them; it takes a new value when it starts the next time.
    #[schemars(extend("x-kubernetes-validations" = rule("self >= 1 && self <= 60", "intervalSeconds must be 1 to 60: rules need some scrapes in 5 minutes")))]
    pub interval_seconds: i32,
    /// Seconds that a scrape may take, at most intervalSeconds. Default 10.
    #[schemars(extend("x-kubernetes-validations" = rule("self >= 1 && self <= 60", "scrapeTimeoutSeconds must be 1 to 60")))]
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
    /// Whether to make one. Default true. Without serviceMonitor it needs a scrape of yours, see there.
    pub enabled: bool,
    /// Labels by which your Prometheus selects. Default `release: kube-prometheus-stack`.
    pub labels: BTreeMap<String, String>,
    /// What goes before `docs/runbooks/<alert>.md` in the `runbook_url` of every alert, such as
    /// `https://example.com/media`. Default "": the path alone.
    #[serde(rename = "runbookBaseURL")]
    #[schemars(length(max = 1024))]
    #[schemars(extend("x-kubernetes-validations" = rule("self == '' || (isURL(self) && url(self).getScheme() in ['https', 'http'])", "runbookBaseURL must be a URL, such as https://example.com/media")))]
    pub runbook_base_url: String,
    /// Names of alerts to leave out, at most 64, such as MediaSessionLimitNear. Default: none. A name that
    /// is no alert's leaves out nothing.
    #[schemars(length(max = 64))]
    pub disabled_alerts: Vec<BoundedString>,
    /// Labels that every alert gets beside its own, at most 16, such as `team: video`: what your Alertmanager
    /// routes by. Default: none. A name is letters, digits and `_`, as every Prometheus takes it; a value is no
    /// template.
    #[schemars(schema_with = "alert_labels")]
    pub alert_labels: BTreeMap<String, String>,
}

impl Default for PrometheusRule {
    fn default() -> Self {
        Self {
            enabled: true,
            labels: release_label(),
            runbook_base_url: String::new(),
            disabled_alerts: Vec::new(),
            alert_labels: BTreeMap::new(),
        }
    }
}

/// Prometheus refuses a file of rules as a whole, for a label's name that it does not take and for a value that is
/// no right template. Bounded so that the API server can bound the cost of the rule.
fn alert_labels(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let own = OWN_LABELS.join("', '");
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {"type": "string", "maxLength": 253},
        "x-kubernetes-validations": rule(
            &format!(
                "self.all(k, k.matches('^[a-zA-Z_][a-zA-Z0-9_]*$') && !k.startsWith('__') && !(k in ['{own}']) && !self[k].contains('{{{{'))"
            ),
            &format!(
                "each name of prometheusRule.alertLabels is letters, digits and _, begins neither with a digit nor with __, and is none that alerts have themselves: {}; no value has {{{{",
                OWN_LABELS.join(", ")
            ),
        ),
    })
}

/// Objectives of the four service level indicators: percents from 94 to below 100, as text.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(default)]
pub struct SloTargets {
    /// Sessions that connect within 10 s of their POST, of those that connect or fail to. Default "99.5".
    #[schemars(schema_with = "percent")]
    pub setup: String,
    /// Viewers that are sent their first media within 1 s of their POST, of those whose device was there. Default "95".
    #[schemars(schema_with = "percent")]
    pub latency: String,
    /// Seconds of viewers without a gap of a second and with less than 5 % loss, of those with a live device.
    /// Default "99.9". A device that sends no video while its picture stands still makes gaps: aim lower for those.
    #[schemars(schema_with = "percent")]
    pub continuity: String,
    /// Signalling requests that neither fail nor find no room, of those that are right; while a pod drains they do not
    /// count. Default "99.9".
    #[schemars(schema_with = "percent")]
    pub availability: String,
}

impl Default for SloTargets {
    fn default() -> Self {
        let percent = |text: &str| text.to_owned();
        Self {
            setup: percent("99.5"),
            latency: percent("95"),
            continuity: percent("99.9"),
            availability: percent("99.9"),
        }
    }
}

/// Text, because the API's conventions have no fractions in numbers.
fn percent(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "string",
        "maxLength": 6,
        "x-kubernetes-validations": rule(
            "self.matches('^9[4-9]([.][0-9]{1,3})?$')",
            "each of monitoring.sloTargets must be percent from 94 to below 100 with at most three decimals, such as \"99.5\"",
        ),
    })
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
