//! Recording rules and alerts of one MediaService, as the groups of a PrometheusRule.
//!
//! Owns what is worth waking somebody for and the words they then read. Every expression selects one
//! MediaService by `namespace` and `mediaservice`, and every recorded series keeps both, so two of
//! them in one namespace never mix. Never evaluates anything. Called by the operator, which applies
//! the groups, and by `cargo xtask gen`.

mod alerts;
mod operator;

use serde_json::{Value, json};

pub use alerts::{ALERTS, Alert, Severity};
pub use operator::OPERATOR_ALERTS;

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
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// Goes before `docs/runbooks/<alert>.md`. Empty: the path in this repository.
    pub runbook_base_url: &'a str,
    /// Names of alerts to leave out. With no replica asked for, `MediaNoAcceptingPods` belongs here.
    pub disabled_alerts: &'a [String],
}

/// The value of `spec.groups` of a PrometheusRule, with every alert.
pub fn rule_groups(selector: &Selector<'_>) -> Value {
    rule_groups_with(selector, &Options::default())
}

/// The value of `spec.groups` of a PrometheusRule, without the alerts that `options` disables.
pub fn rule_groups_with(selector: &Selector<'_>, options: &Options<'_>) -> Value {
    let enabled = |alert: &&Alert| {
        !options
            .disabled_alerts
            .iter()
            .any(|name| name == alert.name)
    };
    let causes: Vec<Value> = ALERTS
        .iter()
        .filter(enabled)
        .map(|alert| alert_rule(alert, selector, options))
        .collect();
    let burns: Vec<Value> = BURNS
        .iter()
        .filter(|burn| enabled(&&burn.alert()))
        .map(|burn| {
            let mut rule = alert_rule(&burn.alert(), selector, options);
            rule["expr"] = Value::String(burn.expr(selector));
            // Two alerts with the same labels are one to Alertmanager, and the first to end would end both.
            rule["labels"]["long"] = burn.long.into();
            rule["labels"]["short"] = burn.short.into();
            rule
        })
        .collect();
    let mut groups = vec![json!({"name": "mediaservice-slo", "rules": recordings(selector)})];
    for (name, rules) in [
        ("mediaservice-burn", burns),
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
    json!({
        "alert": alert.name,
        "expr": expand(alert.expr, selector),
        "for": alert.lasts,
        "labels": {
            "severity": alert.severity.as_str(),
            "namespace": selector.namespace,
            "mediaservice": selector.service,
        },
        "annotations": {
            "summary": alert.summary,
            "description": alert.describe(selector.namespace, selector.service),
            "runbook_url": format!("{base}{slash}docs/runbooks/{}.md", alert.runbook),
        },
    })
}

/// Windows over which the share of failed requests is recorded: those that the burn alerts name.
const WINDOWS: &[&str] = &["5m", "30m", "1h", "2h", "6h", "1d", "3d"];

/// Failed share of signalling requests. Probes and scrapes are left out: they would make the share
/// small on a quiet service.
const AVAILABILITY: &str = concat!(
    "sum by (namespace, mediaservice) (rate(media_http_requests_total{$S,path!~\"/metrics|/health|/livez|/readyz|/load\",status=~\"5..\"}[$W]))",
    " / ",
    "sum by (namespace, mediaservice) (rate(media_http_requests_total{$S,path!~\"/metrics|/health|/livez|/readyz|/load\"}[$W]))",
);

fn recordings(selector: &Selector<'_>) -> Vec<Value> {
    let record = |window: &&str| {
        json!({
            "record": format!("mediaservice:availability_errors:ratio_rate{window}"),
            "expr": expand(AVAILABILITY, selector).replace("$W", window),
        })
    };
    WINDOWS.iter().map(record).collect()
}

/// One pair of windows in which the error budget of availability is spent too fast. The objective is
/// 99.9 % over 30 days; factors, windows and waits are those of the SRE workbook, chapter 5.
struct Burn {
    /// How many times faster than the objective allows.
    factor: &'static str,
    long: &'static str,
    short: &'static str,
    lasts: &'static str,
    severity: Severity,
}

const BURNS: &[Burn] = &[
    Burn {
        factor: "14.4",
        long: "1h",
        short: "5m",
        lasts: "2m",
        severity: Severity::Critical,
    },
    Burn {
        factor: "6",
        long: "6h",
        short: "30m",
        lasts: "15m",
        severity: Severity::Critical,
    },
    Burn {
        factor: "3",
        long: "1d",
        short: "2h",
        lasts: "1h",
        severity: Severity::Warning,
    },
    Burn {
        factor: "1",
        long: "3d",
        short: "6h",
        lasts: "3h",
        severity: Severity::Warning,
    },
];

impl Burn {
    fn alert(&self) -> Alert {
        Alert {
            name: "MediaAvailabilityBurn",
            runbook: "MediaAvailabilityBurn",
            expr: "",
            lasts: self.lasts,
            severity: self.severity,
            summary: "Signalling answers 5xx so often that the month's error budget runs out early",
            description: "{{ $value | humanizePercentage }} of the signalling requests of {{ $labels.namespace }}/{{ $labels.mediaservice }} end in a 5xx status; the objective is at most 0.1 % over 30 days.",
        }
    }

    fn expr(&self, selector: &Selector<'_>) -> String {
        let over = |window: &str| {
            let series = format!(
                "mediaservice:availability_errors:ratio_rate{window}{{{}}}",
                selector.matchers()
            );
            format!("{series} > {} * 0.001", self.factor)
        };
        format!("{} and {}", over(self.long), over(self.short))
    }
}

#[cfg(test)]
mod tests;
