//! Whether what a MediaService brings for Prometheus is read by one.
//!
//! What the objects' own status says comes first (`status.bindings`, where Prometheus Operator's feature
//! gate StatusForConfigurationResources is on); else the selectors of every Prometheus decide. Asks only
//! what it may: reading other teams' objects is no right of the operator.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Client, ResourceExt};

use super::Report;
use super::rights::may_list;
use super::selection::{Kind, Obstacle, Subject, obstacles};
use crate::bindings::{self, Binding};
use crate::capabilities;
use crate::controller::build::meta;
use crate::crd::Monitoring;
use crate::scope;

/// Compares, once the API is known to be there. `namespaces` empty: all of them.
///
/// # Errors
/// If the API server does not answer.
pub async fn check(
    client: &Client,
    namespaces: &[String],
    report: &mut Report,
) -> Result<(), kube::Error> {
    let prometheuses = if may_list(client, None, "monitoring.coreos.com", "prometheuses").await? {
        let resource = ApiResource::from_gvk_with_plural(
            &GroupVersionKind::gvk("monitoring.coreos.com", "v1", "Prometheus"),
            "prometheuses",
        );
        let api = scope::dynamic(client, None, &resource);
        Some(api.list(&ListParams::default()).await?.items)
    } else {
        None
    };
    let labels = namespace_labels(client).await?;
    for kind in Kind::ALL {
        let found = objects(client, namespaces, kind).await?;
        if let (true, Some(prometheuses)) = (found.is_empty(), &prometheuses) {
            for namespace in scope::places(namespaces) {
                let subject = default_subject(kind, namespace, &labels);
                let words = Words::defaults(kind, namespace);
                tell(report, &words, prometheuses, &subject);
            }
        }
        for object in found {
            let words = Words::of(kind, &object);
            if tell_bindings(report, &words, &object) {
                continue;
            }
            if let Some(prometheuses) = &prometheuses {
                tell(
                    report,
                    &words,
                    prometheuses,
                    &subject(kind, &object, &labels),
                );
            }
        }
    }
    if prometheuses.is_none() {
        report.note(
            "whether a Prometheus selects the ServiceMonitors was not looked at",
            "run the check as somebody who may list Prometheus objects",
        );
    }
    Ok(())
}

/// What an object is called in the report.
struct Words {
    what: String,
    of: String,
}

impl Words {
    fn of(kind: Kind, object: &DynamicObject) -> Self {
        let namespace = object.namespace().unwrap_or_default();
        let service = object.labels().get(meta::INSTANCE_LABEL);
        Self {
            what: format!("{} {namespace}/{}", kind.name(), object.name_any()),
            of: format!(
                " of MediaService {namespace}/{}",
                service.map_or("?", String::as_str)
            ),
        }
    }

    fn defaults(kind: Kind, namespace: Option<&str>) -> Self {
        let place = namespace.map_or(String::new(), |name| format!(" in namespace {name}"));
        Self {
            what: format!("a {} with the default labels{place}", kind.name()),
            of: " of your MediaServices".to_owned(),
        }
    }
}

/// Says what the object's status says, if it says anything.
fn tell_bindings(report: &mut Report, words: &Words, object: &DynamicObject) -> bool {
    let bindings = bindings::of(object).unwrap_or_default();
    for Binding { reader, refusal } in &bindings {
        match refusal {
            Some(said) => report.note(
                &format!("{} is refused by {reader}", words.what),
                &format!("it says: {said}"),
            ),
            None => report.ok(&format!(
                "{} is read by {reader}, as its status says",
                words.what
            )),
        }
    }
    !bindings.is_empty()
}

fn tell(report: &mut Report, words: &Words, prometheuses: &[DynamicObject], subject: &Subject) {
    let mut kept_out = Vec::new();
    for prometheus in prometheuses {
        let name = format!(
            "Prometheus {}/{}",
            prometheus.namespace().unwrap_or_default(),
            prometheus.name_any()
        );
        let value = serde_json::to_value(prometheus).expect("Kubernetes objects are JSON");
        let found = obstacles(&value, subject);
        if found.is_empty() {
            report.ok(&format!("{} is selected by {name}", words.what));
            return;
        }
        kept_out.push((name, found));
    }
    let what = format!("{} is selected by no Prometheus", words.what);
    if kept_out.is_empty() {
        report.note(
            &what,
            "there is no Prometheus object; fix: make one, or scrape the headless Services by other means",
        );
        return;
    }
    let lines: Vec<String> = kept_out
        .iter()
        .flat_map(|(name, found)| found.iter().map(move |obstacle| (name, obstacle)))
        .map(|(name, Obstacle { what, fix })| {
            let fix = fix.replace(
                subject.kind.setting(),
                &format!("{}{}", subject.kind.setting(), words.of),
            );
            format!("{name}: {what}; fix: {fix}")
        })
        .collect();
    report.note(&what, &lines.join("\n         "));
}

async fn objects(
    client: &Client,
    namespaces: &[String],
    kind: Kind,
) -> Result<Vec<DynamicObject>, kube::Error> {
    let resource = match kind {
        Kind::ServiceMonitor => capabilities::service_monitor(),
        Kind::PrometheusRule => capabilities::prometheus_rule(),
    };
    let ours =
        ListParams::default().labels(&format!("{}={}", meta::MANAGED_BY_LABEL, meta::MANAGED_BY));
    let mut found = Vec::new();
    for place in scope::places(namespaces) {
        // Where it may not, the report names that right already.
        if may_list(client, place, &resource.group, &resource.plural).await? {
            let list = scope::dynamic(client, place, &resource).list(&ours).await?;
            found.extend(list.items);
        }
    }
    Ok(found)
}

type Labels = BTreeMap<String, String>;

/// Labels of every namespace; none where they may not be read.
async fn namespace_labels(client: &Client) -> Result<BTreeMap<String, Labels>, kube::Error> {
    if !may_list(client, None, "", "namespaces").await? {
        return Ok(BTreeMap::new());
    }
    let api: Api<Namespace> = Api::all(client.clone());
    let list = api.list(&ListParams::default()).await?;
    Ok(list
        .into_iter()
        .map(|namespace| (namespace.name_any(), namespace.labels().clone()))
        .collect())
}

fn labels_of(namespace: &str, known: &BTreeMap<String, Labels>) -> Labels {
    known.get(namespace).cloned().unwrap_or_else(|| {
        // The one that every namespace has.
        [(
            "kubernetes.io/metadata.name".to_owned(),
            namespace.to_owned(),
        )]
        .into()
    })
}

fn subject(kind: Kind, object: &DynamicObject, known: &BTreeMap<String, Labels>) -> Subject {
    let namespace = object.namespace().unwrap_or_default();
    Subject {
        kind,
        labels: object.labels().clone(),
        namespace_labels: labels_of(&namespace, known),
        namespace,
    }
}

fn default_subject(
    kind: Kind,
    namespace: Option<&str>,
    known: &BTreeMap<String, Labels>,
) -> Subject {
    let defaults = Monitoring::default();
    let namespace = namespace.unwrap_or("default");
    Subject {
        kind,
        labels: match kind {
            Kind::ServiceMonitor => defaults.service_monitor.labels,
            Kind::PrometheusRule => defaults.prometheus_rule.labels,
        },
        namespace: namespace.to_owned(),
        namespace_labels: labels_of(namespace, known),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: serde_json::Value) -> DynamicObject {
        serde_json::from_value(value).expect("an object")
    }

    fn monitor(status: serde_json::Value) -> DynamicObject {
        object(json!({
            "apiVersion": "monitoring.coreos.com/v1", "kind": "ServiceMonitor",
            "metadata": {"name": "cam", "namespace": "media", "labels": {
                "release": "mine", "app.kubernetes.io/instance": "cam"}},
            "status": status,
        }))
    }

    fn prometheus(name: &str, release: &str) -> DynamicObject {
        object(json!({
            "apiVersion": "monitoring.coreos.com/v1", "kind": "Prometheus",
            "metadata": {"name": name, "namespace": "monitoring"},
            "spec": {"serviceMonitorSelector": {"matchLabels": {"release": release}}, "serviceMonitorNamespaceSelector": {}},
        }))
    }

    #[test]
    fn one_prometheus_that_selects_is_enough_and_without_one_each_says_why() {
        let cam = monitor(json!({}));
        let words = Words::of(Kind::ServiceMonitor, &cam);
        let subject = subject(Kind::ServiceMonitor, &cam, &BTreeMap::new());
        let mut report = Report::default();
        let both = [prometheus("a", "other"), prometheus("b", "mine")];
        tell(&mut report, &words, &both, &subject);
        assert_eq!(
            report.text,
            "ok       ServiceMonitor media/cam is selected by Prometheus monitoring/b\n"
        );
        let mut report = Report::default();
        tell(&mut report, &words, &both[..1], &subject);
        assert_eq!(
            report.text,
            "note     ServiceMonitor media/cam is selected by no Prometheus\n         \
             Prometheus monitoring/a: its serviceMonitorSelector asks for release=other; fix: put {release: other} into \
             spec.monitoring.serviceMonitor.labels of MediaService media/cam\n"
        );
        assert_eq!(report.failures, 0);
    }

    #[test]
    fn what_the_status_says_counts_more_than_selectors() {
        let binding = |status: &str| {
            json!({"bindings": [{
                "group": "monitoring.coreos.com", "resource": "prometheuses", "namespace": "monitoring", "name": "a",
                "conditions": [{"type": "Accepted", "status": status, "message": "bad relabeling"}],
            }]})
        };
        for (status, text) in [
            (
                binding("True"),
                "ok       ServiceMonitor media/cam is read by prometheuses monitoring/a, as its status says\n",
            ),
            (
                binding("False"),
                "note     ServiceMonitor media/cam is refused by prometheuses monitoring/a\n         it says: bad relabeling\n",
            ),
            (json!({}), ""),
        ] {
            let cam = monitor(status);
            let mut report = Report::default();
            let told = tell_bindings(&mut report, &Words::of(Kind::ServiceMonitor, &cam), &cam);
            assert_eq!(told, !text.is_empty());
            assert_eq!(report.text, text);
        }
    }
}
