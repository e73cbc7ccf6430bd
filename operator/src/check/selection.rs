//! Whether a Prometheus reads a ServiceMonitor or a PrometheusRule, and what would make it. Pure.
//!
//! The rules are Prometheus Operator's: a selector that is not set selects no object, an empty one all;
//! a namespace selector that is not set selects the namespace of the Prometheus, an empty one all.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Expression, Selector, SelectorExt};
use serde_json::Value;

type Labels = BTreeMap<String, String>;

/// The two kinds that a MediaService brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    ServiceMonitor,
    PrometheusRule,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::ServiceMonitor, Self::PrometheusRule];

    pub fn name(self) -> &'static str {
        match self {
            Self::ServiceMonitor => "ServiceMonitor",
            Self::PrometheusRule => "PrometheusRule",
        }
    }

    /// Field of a MediaService with the labels of its object.
    pub fn setting(self) -> &'static str {
        match self {
            Self::ServiceMonitor => "spec.monitoring.serviceMonitor.labels",
            Self::PrometheusRule => "spec.monitoring.prometheusRule.labels",
        }
    }

    /// Fields of a Prometheus that select the objects and their namespaces.
    fn fields(self) -> (&'static str, &'static str) {
        match self {
            Self::ServiceMonitor => ("serviceMonitorSelector", "serviceMonitorNamespaceSelector"),
            Self::PrometheusRule => ("ruleSelector", "ruleNamespaceSelector"),
        }
    }
}

/// An object that shall be read.
#[derive(Debug, Clone)]
pub struct Subject {
    pub kind: Kind,
    pub labels: Labels,
    pub namespace: String,
    /// Labels of that namespace.
    pub namespace_labels: Labels,
}

/// What keeps a Prometheus from reading a subject, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
pub struct Obstacle {
    pub what: String,
    pub fix: String,
}

/// Everything that keeps `prometheus` (the object, as JSON) from reading `subject`; empty if it does.
pub fn obstacles(prometheus: &Value, subject: &Subject) -> Vec<Obstacle> {
    let (field, namespace_field) = subject.kind.fields();
    let mut found = Vec::new();
    match selector(&prometheus["spec"][field]) {
        Asked::NotSet => found.push(Obstacle {
            what: format!("has no {field}, so it selects nothing"),
            fix: format!("set its spec.{field}, to {{}} for every object"),
        }),
        Asked::Unreadable => found.push(unreadable(field)),
        Asked::For(wanted) => {
            let unmet = unmet(wanted, &subject.labels);
            if !unmet.is_empty() {
                found.push(Obstacle {
                    what: format!("its {field} asks for {}", words(&unmet)),
                    fix: changes(&unmet, subject.kind.setting()),
                });
            }
        }
    }
    let own = prometheus["metadata"]["namespace"]
        .as_str()
        .unwrap_or_default();
    match selector(&prometheus["spec"][namespace_field]) {
        Asked::NotSet if own == subject.namespace => {}
        Asked::NotSet => found.push(Obstacle {
            what: format!(
                "has no {namespace_field}, so it selects in its own namespace {own} alone"
            ),
            fix: format!("set its spec.{namespace_field}, to {{}} for every namespace"),
        }),
        Asked::Unreadable => found.push(unreadable(namespace_field)),
        Asked::For(wanted) => {
            let unmet = unmet(wanted, &subject.namespace_labels);
            if !unmet.is_empty() {
                found.push(Obstacle {
                    what: format!("its {namespace_field} asks for {}", words(&unmet)),
                    fix: changes(
                        &unmet,
                        &format!("the labels of namespace {}", subject.namespace),
                    ),
                });
            }
        }
    }
    found
}

enum Asked {
    NotSet,
    Unreadable,
    For(Selector),
}

fn selector(value: &Value) -> Asked {
    if value.is_null() {
        return Asked::NotSet;
    }
    let parsed = serde_json::from_value::<LabelSelector>(value.clone());
    match parsed.map(Selector::try_from) {
        Ok(Ok(selector)) => Asked::For(selector),
        _ => Asked::Unreadable,
    }
}

fn unreadable(field: &str) -> Obstacle {
    Obstacle {
        what: format!("its {field} is no label selector"),
        fix: format!("correct its spec.{field}"),
    }
}

fn unmet(selector: Selector, labels: &Labels) -> Vec<Expression> {
    selector
        .into_iter()
        .filter(|expression| !expression.matches(labels))
        .collect()
}

fn words(expressions: &[Expression]) -> String {
    let words: Vec<String> = expressions.iter().map(ToString::to_string).collect();
    words.join(" and ")
}

/// What to write where, so that every expression is met.
fn changes(expressions: &[Expression], place: &str) -> String {
    let (mut put, mut remove) = (Vec::new(), Vec::new());
    for expression in expressions {
        match expression {
            Expression::Equal(key, value) => put.push(format!("{key}: {}", quoted(value))),
            Expression::In(key, values) => {
                let first = values.iter().next().map(String::as_str).unwrap_or_default();
                put.push(format!("{key}: {}", quoted(first)));
            }
            Expression::Exists(key) => put.push(format!("{key}: \"\"")),
            Expression::NotEqual(key, _)
            | Expression::NotIn(key, _)
            | Expression::DoesNotExist(key) => remove.push(key.as_str()),
        }
    }
    let mut steps = Vec::new();
    if !put.is_empty() {
        steps.push(format!("put {{{}}} into {place}", put.join(", ")));
    }
    if !remove.is_empty() {
        steps.push(format!("take {} out of {place}", remove.join(" and ")));
    }
    steps.join(", and ")
}

/// Values that YAML would read as something else than a string.
fn quoted(value: &str) -> String {
    match serde_yaml::from_str::<serde_yaml::Value>(value) {
        Ok(serde_yaml::Value::String(_)) => value.to_owned(),
        _ => format!("\"{value}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn monitor() -> Subject {
        Subject {
            kind: Kind::ServiceMonitor,
            labels: labels(&[("release", "kube-prometheus-stack")]),
            namespace: "media".into(),
            namespace_labels: labels(&[("kubernetes.io/metadata.name", "media")]),
        }
    }

    fn prometheus(spec: Value) -> Value {
        json!({"metadata": {"name": "main", "namespace": "monitoring"}, "spec": spec})
    }

    fn of_monitor(spec: Value) -> Vec<Obstacle> {
        obstacles(&prometheus(spec), &monitor())
    }

    #[test]
    fn labels_and_expressions_that_match_are_no_obstacle() {
        for selector in [
            json!({}),
            json!({"matchLabels": {"release": "kube-prometheus-stack"}}),
            json!({"matchExpressions": [{"key": "release", "operator": "In", "values": ["a", "kube-prometheus-stack"]}]}),
            json!({"matchExpressions": [{"key": "release", "operator": "Exists"}, {"key": "x", "operator": "DoesNotExist"}]}),
        ] {
            let spec =
                json!({"serviceMonitorSelector": selector, "serviceMonitorNamespaceSelector": {}});
            assert_eq!(of_monitor(spec.clone()), [], "{spec}");
        }
    }

    #[test]
    fn what_is_not_met_is_named_with_the_labels_that_would_meet_it() {
        let spec = json!({
            "serviceMonitorSelector": {
                "matchLabels": {"team": "1"},
                "matchExpressions": [
                    {"key": "tier", "operator": "In", "values": ["gold", "silver"]},
                    {"key": "release", "operator": "NotIn", "values": ["kube-prometheus-stack"]},
                ],
            },
            "serviceMonitorNamespaceSelector": {"matchLabels": {"monitored": "yes"}},
        });
        let found = of_monitor(spec);
        assert_eq!(
            found,
            [
                Obstacle {
                    what: "its serviceMonitorSelector asks for team=1 and tier in (gold,silver) and release notin (kube-prometheus-stack)".into(),
                    fix: "put {team: \"1\", tier: gold} into spec.monitoring.serviceMonitor.labels, and take release out of \
                          spec.monitoring.serviceMonitor.labels".into(),
                },
                Obstacle {
                    what: "its serviceMonitorNamespaceSelector asks for monitored=yes".into(),
                    fix: "put {monitored: yes} into the labels of namespace media".into(),
                },
            ]
        );
    }

    #[test]
    fn a_selector_that_is_not_set_selects_no_object_and_only_the_own_namespace() {
        let found = of_monitor(json!({}));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].what.contains("selects nothing"), "{found:?}");
        assert!(
            found[1].what.contains("own namespace monitoring alone"),
            "{found:?}"
        );
        let beside = Subject {
            namespace: "monitoring".into(),
            ..monitor()
        };
        let selects = prometheus(json!({"serviceMonitorSelector": {}}));
        assert_eq!(obstacles(&selects, &beside), []);
    }

    #[test]
    fn rules_are_selected_by_fields_of_their_own() {
        let rule = Subject {
            kind: Kind::PrometheusRule,
            ..monitor()
        };
        let only_rules = prometheus(json!({"ruleSelector": {}, "ruleNamespaceSelector": {}}));
        assert_eq!(obstacles(&only_rules, &rule), []);
        assert_eq!(obstacles(&only_rules, &monitor()).len(), 2);
    }
}
