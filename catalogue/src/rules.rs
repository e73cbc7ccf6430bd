//! Recording rules and alerts of one MediaService, as the groups of a PrometheusRule.
//!
//! Owns what is worth waking somebody for and the words they then read. Every expression selects one
//! MediaService by `namespace` and `mediaservice`, and every recorded series keeps both, so two of
//! them in one namespace never mix. Never evaluates anything. Called by the operator, which applies
//! the groups, and by `cargo xtask gen`.

mod alerts;
mod operator;
pub mod slo;

use std::collections::BTreeMap;

use serde_json::{Value, json};

pub use alerts::{ALERTS, Alert, DRAIN_IS_OVER, Severity};
pub use operator::OPERATOR_ALERTS;
use slo::Objectives;

/// Labels that alerts have of their own: from their rules, from their expressions, and from Alertmanager.
pub const OWN_LABELS: &[&str] = &[
    "alertname",
    "severity",
    "namespace",
    "mediaservice",
    "job",
    "instance",
    "pod",
    "family",
    "sink",
    "reason",
    "long",
    "short",
];

/// Whether every Prometheus takes it for a label of an alert, and it is none of [`OWN_LABELS`]. A file of rules is
/// refused as a whole for one that is not; values are templates there.
pub fn is_alert_label(name: &str, value: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    name.bytes().all(word)
        && name.starts_with(|c: char| !c.is_ascii_digit())
        && !name.starts_with("__")
        && !OWN_LABELS.contains(&name)
        && !value.contains("{{")
}

/// The MediaService that expressions, titles and identifiers are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selector<'a> {
    /// Namespace of the MediaService and of all its children.
    pub namespace: &'a str,
    /// Name of the MediaService. The ServiceMonitor copies it from `app.kubernetes.io/instance` to
    /// the label `mediaservice`.
    pub service: &'a str,
}

impl Selector<'_> {
    /// Label matchers without braces: `namespace="media",mediaservice="cam"`. Both are DNS labels,
    /// so nothing in them needs escaping.
    pub fn matchers(&self) -> String {
        format!(
            "namespace=\"{}\",mediaservice=\"{}\"",
            self.namespace, self.service
        )
    }
}

/// What a MediaService changes about its rules.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// Goes before `docs/runbooks/<alert>.md`. Empty: the path in this repository.
    pub runbook_base_url: &'a str,
    /// Names of alerts to leave out. With no replica asked for, `MediaNoAcceptingPods` belongs here.
    pub disabled_alerts: &'a [String],
    pub objectives: Objectives,
    /// Labels that every alert carries beside its own; those win.
    pub alert_labels: Option<&'a BTreeMap<String, String>>,
    /// How long a pod may drain.
    pub drain_timeout_seconds: u32,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self {
            runbook_base_url: "",
            disabled_alerts: &[],
            objectives: Objectives::default(),
            alert_labels: None,
            drain_timeout_seconds: 540,
        }
    }
}

impl Options<'_> {
    /// The alert's `for`, a Prometheus duration.
    fn lasts(&self, alert: &Alert) -> String {
        match alert.lasts {
            DRAIN_IS_OVER => format!("{}s", self.drain_timeout_seconds.saturating_add(120)),
            lasts => lasts.to_owned(),
        }
    }

    fn enables(&self, alert: &str) -> bool {
        !self.disabled_alerts.iter().any(|name| name == alert)
    }
}

/// The value of `spec.groups` of a PrometheusRule, with every alert.
pub fn rule_groups(selector: &Selector<'_>) -> Value {
    rule_groups_with(selector, &Options::default())
}

/// The value of `spec.groups` of a PrometheusRule, without the alerts that `options` disables.
pub fn rule_groups_with(selector: &Selector<'_>, options: &Options<'_>) -> Value {
    let causes: Vec<Value> = ALERTS
        .iter()
        .filter(|alert| options.enables(alert.name))
        .map(|alert| alert_rule(alert, selector, options))
        .collect();
    let recordings = slo::recordings(selector, &options.objectives);
    let mut groups = vec![json!({"name": "mediaservice-slo", "rules": recordings})];
    for (name, rules) in [
        ("mediaservice-burn", slo::burn_alerts(selector, options)),
        ("mediaservice-causes", causes),
    ] {
        // An empty group is refused by Prometheus Operator's admission webhook.
        if !rules.is_empty() {
            groups.push(json!({"name": name, "rules": rules}));
        }
    }
    Value::Array(groups)
}

/// Writes a template's `$S` as the matchers of `selector`.
pub(crate) fn expand(template: &str, selector: &Selector<'_>) -> String {
    template.replace("$S", &selector.matchers())
}

fn alert_rule(alert: &Alert, selector: &Selector<'_>, options: &Options<'_>) -> Value {
    let base = options.runbook_base_url.trim_end_matches('/');
    let slash = if base.is_empty() { "" } else { "/" };
    let mut labels = json!(options.alert_labels.cloned().unwrap_or_default());
    labels["severity"] = alert.severity.as_str().into();
    labels["namespace"] = selector.namespace.into();
    labels["mediaservice"] = selector.service.into();
    json!({
        "alert": alert.name,
        "expr": expand(alert.expr, selector),
        "for": options.lasts(alert),
        "labels": labels,
        "annotations": {
            "summary": alert.summary,
            "description": alert.describe(selector.namespace, selector.service),
            "runbook_url": format!("{base}{slash}docs/runbooks/{}.md", alert.runbook),
        },
    })
}

#[cfg(test)]
mod tests;
