//! `operator check`: what the cluster lacks, each with its fix.
//!
//! Reads only. Asks with the rights of whoever runs it, or of the service account given by `--as`.

use std::fmt::Write;

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, PostParams};
use kube::{Client, CustomResourceExt, ResourceExt};

use crate::capabilities::{self, Availability, OptionalApi};
use crate::crd::{MediaService, Monitoring};
use crate::lease;
use crate::rbac::{RULES, Scope};

/// What was found, as lines for people.
#[derive(Debug, Default)]
pub struct Report {
    pub text: String,
    /// Findings without which the operator can't work.
    pub failures: usize,
}

impl Report {
    fn ok(&mut self, what: &str) {
        let _ = writeln!(self.text, "ok       {what}");
    }

    fn missing(&mut self, what: &str, fix: &str) {
        self.failures += 1;
        let _ = writeln!(self.text, "MISSING  {what}\n         fix: {fix}");
    }

    fn note(&mut self, what: &str, fix: &str) {
        let _ = writeln!(self.text, "note     {what}\n         {fix}");
    }
}

/// Asks the cluster. `namespaces` empty: the operator shall watch all.
///
/// # Errors
/// If the API server does not answer at all.
pub async fn check(
    client: &Client,
    own_namespace: &str,
    namespaces: &[String],
) -> Result<Report, kube::Error> {
    let mut report = Report::default();
    version(client, &mut report).await?;
    crd(client, &mut report).await;
    rights(client, own_namespace, namespaces, &mut report).await?;
    monitoring(client, &mut report).await;
    pod_security(client, namespaces, &mut report).await;
    Ok(report)
}

async fn version(client: &Client, report: &mut Report) -> Result<(), kube::Error> {
    let version = client.apiserver_version().await?;
    let minor: u32 = version.minor.trim_end_matches('+').parse().unwrap_or(0);
    if version.major == "1" && minor < 33 {
        report.missing(
            &format!("Kubernetes is {}", version.git_version),
            "MediaService needs 1.33 or later",
        );
    } else {
        report.ok(&format!("Kubernetes {}", version.git_version));
    }
    Ok(())
}

async fn crd(client: &Client, report: &mut Report) {
    let name = MediaService::crd_name();
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    // Most users of the API may not read CRDs; that the resource is served is enough then.
    let served = client
        .list_api_group_resources("mediaservice.io/v1alpha1")
        .await
        .is_ok_and(|list| {
            list.resources
                .iter()
                .any(|resource| resource.name == "mediaservices")
        });
    if !served {
        report.missing(
            &format!("the CRD {name}"),
            "operator crd | kubectl apply --server-side -f -   (or install the chart with crds.enabled=true)",
        );
        return;
    }
    match api.get_opt(name).await {
        Ok(Some(live)) => {
            let schema = |crd: &CustomResourceDefinition| {
                crd.spec
                    .versions
                    .first()
                    .and_then(|v| v.schema.clone())
                    .and_then(|s| s.open_api_v3_schema)
            };
            if schema(&live) == schema(&MediaService::crd()) {
                report.ok(&format!("the CRD {name}"));
            } else {
                report.note(
                    &format!("the CRD {name} is of another version than this operator"),
                    "operator crd | kubectl apply --server-side --force-conflicts -f -",
                );
            }
        }
        _ => report.ok(&format!("the CRD {name} is served")),
    }
}

async fn rights(
    client: &Client,
    own_namespace: &str,
    namespaces: &[String],
    report: &mut Report,
) -> Result<(), kube::Error> {
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let mut asked = 0;
    let mut all_there = true;
    for rule in RULES {
        let watched: Vec<Option<&str>> = if namespaces.is_empty() {
            vec![None]
        } else {
            namespaces
                .iter()
                .map(|namespace| Some(namespace.as_str()))
                .collect()
        };
        let places = match rule.scope {
            Scope::Watched => watched,
            Scope::Own => vec![Some(own_namespace)],
            Scope::Cluster if namespaces.is_empty() => vec![None],
            Scope::Cluster => continue,
        };
        let (resource, subresource) = match rule.resource.split_once('/') {
            Some((resource, sub)) => (resource, Some(sub)),
            None => (rule.resource, None),
        };
        for place in places {
            let mut lacking = Vec::new();
            for verb in rule.verbs {
                let attributes = ResourceAttributes {
                    group: Some(rule.group.into()),
                    resource: Some(resource.into()),
                    subresource: subresource.map(Into::into),
                    verb: Some((*verb).into()),
                    namespace: place.map(Into::into),
                    // The chart grants what can be narrowed to a name for the one Lease only.
                    name: (rule.scope == Scope::Own && *verb != "create")
                        .then(|| lease::NAME.into()),
                    ..ResourceAttributes::default()
                };
                let review = SelfSubjectAccessReview {
                    spec: SelfSubjectAccessReviewSpec {
                        resource_attributes: Some(attributes),
                        non_resource_attributes: None,
                    },
                    ..SelfSubjectAccessReview::default()
                };
                asked += 1;
                let answer = api.create(&PostParams::default(), &review).await?;
                if !answer.status.is_some_and(|status| status.allowed) {
                    lacking.push(*verb);
                }
            }
            if !lacking.is_empty() {
                all_there = false;
                let group = if rule.group.is_empty() {
                    "core"
                } else {
                    rule.group
                };
                let place = place.map_or("in all namespaces".to_owned(), |ns| {
                    format!("in namespace {ns}")
                });
                report.missing(
                    &format!(
                        "the right to {} {} ({group}) {place}",
                        lacking.join(", "),
                        rule.resource
                    ),
                    &format!(
                        "install the chart with rbac.create=true, or grant it; without it {}",
                        rule.why
                    ),
                );
            }
        }
    }
    if all_there {
        report.ok(&format!("all {asked} rights"));
    }
    Ok(())
}

async fn monitoring(client: &Client, report: &mut Report) {
    match capabilities::discover(client, OptionalApi::Monitoring).await {
        Availability::Present => report.ok(&format!(
            "the API {}",
            capabilities::MONITORING_GROUP_VERSION
        )),
        Availability::Absent => {
            report.note(
                &format!(
                    "the API {} is absent: no scraping and no alerts are set up",
                    capabilities::MONITORING_GROUP_VERSION
                ),
                "fix: install Prometheus Operator, for instance by the chart kube-prometheus-stack",
            );
            return;
        }
        Availability::Unknown => {
            report.note(
                "can't find out whether the monitoring API is served",
                "try again",
            );
            return;
        }
    }
    let resource = ApiResource::from_gvk_with_plural(
        &GroupVersionKind::gvk("monitoring.coreos.com", "v1", "Prometheus"),
        "prometheuses",
    );
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let Ok(list) = api.list(&ListParams::default()).await else {
        report.note(
            "can't list Prometheus objects to compare their selectors",
            "run the check as somebody who may",
        );
        return;
    };
    if list.items.is_empty() {
        report.note(
            "there is no Prometheus object",
            "ServiceMonitors are made, and nothing reads them",
        );
    }
    let defaults = Monitoring::default();
    for prometheus in list.items {
        let name = format!(
            "Prometheus {}/{}",
            prometheus.namespace().unwrap_or_default(),
            prometheus.name_any()
        );
        for (field, labels, setting) in [
            (
                "serviceMonitorSelector",
                &defaults.service_monitor.labels,
                "spec.monitoring.serviceMonitor.labels",
            ),
            (
                "ruleSelector",
                &defaults.prometheus_rule.labels,
                "spec.monitoring.prometheusRule.labels",
            ),
        ] {
            let selector: Option<LabelSelector> =
                serde_json::from_value(prometheus.data["spec"][field].clone()).unwrap_or_default();
            match selector {
                None => report.note(
                    &format!("{name} has no {field}: it selects nothing"),
                    "set it",
                ),
                Some(selector) => {
                    let wanted = selector.match_labels.unwrap_or_default();
                    let missing: Vec<String> = wanted
                        .iter()
                        .filter(|(key, value)| labels.get(*key) != Some(value))
                        .map(|(key, value)| format!("{key}: {value}"))
                        .collect();
                    if missing.is_empty() {
                        report.ok(&format!("{name} selects the default labels ({field})"));
                    } else {
                        report.note(
                            &format!("{name} does not select the default labels ({field})"),
                            &format!(
                                "fix: put {{{}}} into {setting} of your MediaServices",
                                missing.join(", ")
                            ),
                        );
                    }
                }
            }
        }
    }
}

async fn pod_security(client: &Client, namespaces: &[String], report: &mut Report) {
    let api: Api<Namespace> = Api::all(client.clone());
    for name in namespaces {
        let Ok(namespace) = api.get(name).await else {
            continue;
        };
        let level = namespace.labels().get("pod-security.kubernetes.io/enforce");
        if level.is_some_and(|level| level != "privileged") {
            report.note(
                &format!("namespace {name} refuses host ports, which exposure HostPort needs"),
                &format!("fix: kubectl label namespace {name} pod-security.kubernetes.io/enforce=privileged --overwrite"),
            );
        }
    }
}
