//! `operator check`: what the cluster lacks, each with its fix.
//!
//! Reads only, and only what it may: what it may is asked first. With the rights of whoever runs it, or
//! of the service account given by `--as`.

mod monitoring;
mod rights;
mod selection;

use std::fmt::Write;
use std::time::{Duration, Instant};

use k8s_openapi::api::authorization::v1::ResourceAttributes;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use kube::{Client, CustomResourceExt, ResourceExt};

use self::rights::may;
use crate::capabilities::{self, Absence, Availability, OptionalApi};
use crate::crd::MediaService;
use crate::lease;

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

/// What is asked.
pub struct Questions<'a> {
    /// Where the operator's Lease is.
    pub own_namespace: &'a str,
    /// Those that the operator shall watch; empty: all.
    pub namespaces: &'a [String],
    /// Whether an operator has to lead by now.
    pub leader: bool,
}

/// Asks the cluster.
///
/// # Errors
/// If the API server does not answer at all.
pub async fn check(client: &Client, questions: &Questions<'_>) -> Result<Report, kube::Error> {
    let Questions {
        own_namespace,
        namespaces,
        leader: _,
    } = questions;
    let mut report = Report::default();
    version(client, &mut report).await?;
    crd(client, &mut report).await?;
    rights::check(client, own_namespace, namespaces, &mut report).await?;
    leader(client, questions, &mut report).await?;
    if optional_apis(client, &mut report).await {
        monitoring::check(client, namespaces, &mut report).await?;
    }
    pod_security(client, namespaces, &mut report).await?;
    Ok(report)
}

async fn version(client: &Client, report: &mut Report) -> Result<(), kube::Error> {
    let version = client.apiserver_version().await?;
    let minor: u32 = version.minor.trim_end_matches('+').parse().unwrap_or(0);
    if version.major == "1" && minor < 33 {
        report.missing(
            &format!("Kubernetes is {}", version.git_version),
            "MediaService needs 1.33 or later: upgrade the cluster",
        );
    } else {
        report.ok(&format!("Kubernetes {}", version.git_version));
    }
    Ok(())
}

async fn crd(client: &Client, report: &mut Report) -> Result<(), kube::Error> {
    let name = MediaService::crd_name();
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
        return Ok(());
    }
    let attributes = ResourceAttributes {
        group: Some("apiextensions.k8s.io".into()),
        resource: Some("customresourcedefinitions".into()),
        name: Some(name.into()),
        verb: Some("get".into()),
        ..ResourceAttributes::default()
    };
    if !may(client, attributes).await? {
        report.ok(&format!("the CRD {name} is served"));
        return Ok(());
    }
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    match api.get_opt(name).await? {
        Some(live) => {
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
        // Deleted in between.
        None => report.missing(&format!("the CRD {name}"), "try again"),
    }
    Ok(())
}

/// An operator that has just started, or follows one that was killed, takes the Lease within this time.
const LEADS_WITHIN: Duration = Duration::from_secs(30);

async fn leader(
    client: &Client,
    questions: &Questions<'_>,
    report: &mut Report,
) -> Result<(), kube::Error> {
    let namespace = questions.own_namespace;
    let attributes = ResourceAttributes {
        group: Some("coordination.k8s.io".into()),
        resource: Some("leases".into()),
        name: Some(lease::NAME.into()),
        namespace: Some(namespace.into()),
        verb: Some("get".into()),
        ..ResourceAttributes::default()
    };
    if !may(client, attributes).await? {
        return Ok(());
    }
    let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let started = Instant::now();
    loop {
        if let Some(holder) = api
            .get_opt(lease::NAME)
            .await?
            .and_then(|lease| holder(&lease))
        {
            report.ok(&format!("{holder} leads in namespace {namespace}"));
            return Ok(());
        }
        if !questions.leader {
            report.note(
                &format!("no operator leads in namespace {namespace}"),
                "fix: install the chart there, or say where it is by --namespace",
            );
            return Ok(());
        }
        if started.elapsed() > LEADS_WITHIN {
            report.missing(
                &format!("an operator that leads in namespace {namespace}"),
                "look at the operator's pods and their logs; see docs/runbooks/MediaOperatorNoLeader.md",
            );
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Who holds the Lease and has renewed it in time, by this machine's clock.
fn holder(lease: &Lease) -> Option<String> {
    let spec = lease.spec.as_ref()?;
    let valid = spec.lease_duration_seconds.unwrap_or(0);
    let renewed = spec.renew_time.as_ref()?.0;
    let age = Timestamp::now().duration_since(renewed).as_secs();
    let holder = spec.holder_identity.clone()?;
    (!holder.is_empty() && age <= i64::from(valid)).then_some(holder)
}

/// Says which optional APIs are there; whether that of monitoring is.
async fn optional_apis(client: &Client, report: &mut Report) -> bool {
    let mut monitoring = false;
    for api in OptionalApi::ALL {
        let name = api.group_version();
        match capabilities::discover(client, api).await {
            Availability::Present => {
                report.ok(&format!("the API {name}"));
                monitoring |= api == OptionalApi::Monitoring;
            }
            Availability::Absent => {
                let Absence { field, lost, fix } = api.absence();
                let what = format!("the API {name}, which {field} needs, is absent: {lost}");
                report.note(&what, &format!("fix: {fix}"));
            }
            Availability::Unknown => report.note(
                &format!("can't find out whether the API {name} is served"),
                "fix: try again",
            ),
        }
    }
    monitoring
}

async fn pod_security(
    client: &Client,
    namespaces: &[String],
    report: &mut Report,
) -> Result<(), kube::Error> {
    let api: Api<Namespace> = Api::all(client.clone());
    for name in namespaces {
        let attributes = ResourceAttributes {
            resource: Some("namespaces".into()),
            name: Some(name.clone()),
            namespace: Some(name.clone()),
            verb: Some("get".into()),
            ..ResourceAttributes::default()
        };
        if !may(client, attributes).await? {
            continue;
        }
        let Some(namespace) = api.get_opt(name).await? else {
            report.missing(
                &format!("namespace {name}, which the operator shall watch"),
                &format!("kubectl create namespace {name}"),
            );
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
    Ok(())
}
