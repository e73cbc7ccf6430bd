//! Whether somebody has a right, asked of the API server, which then writes nothing into its log about
//! attempts that were refused.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::{Api, PostParams};

use super::Report;
use crate::lease;
use crate::rbac::{RULES, Rule, Scope};
use crate::scope;

/// Whether the verb is allowed.
///
/// # Errors
/// If the API server does not say.
pub async fn may(client: &Client, attributes: ResourceAttributes) -> Result<bool, kube::Error> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            non_resource_attributes: None,
        },
        ..SelfSubjectAccessReview::default()
    };
    let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answer = api.create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// Whether objects can be listed in one place, see [`scope::places`].
///
/// # Errors
/// If the API server does not say.
pub async fn may_list(
    client: &Client,
    place: Option<&str>,
    group: &str,
    resource: &str,
) -> Result<bool, kube::Error> {
    let attributes = ResourceAttributes {
        namespace: place.map(Into::into),
        group: Some(group.into()),
        resource: Some(resource.into()),
        verb: Some("list".into()),
        ..ResourceAttributes::default()
    };
    may(client, attributes).await
}

/// Asks for every right of the table. `namespaces` empty: all of them.
///
/// # Errors
/// If the API server does not say.
pub async fn check(
    client: &Client,
    own_namespace: &str,
    namespaces: &[String],
    report: &mut Report,
) -> Result<(), kube::Error> {
    let watched = scope::places(namespaces);
    let mut asked = 0;
    let mut all_there = true;
    for rule in RULES {
        let places = match rule.scope {
            Scope::Watched => watched.clone(),
            Scope::Own => vec![Some(own_namespace)],
            Scope::Cluster if namespaces.is_empty() => vec![None],
            Scope::Cluster => continue,
        };
        for place in places {
            asked += rule.verbs.len();
            let lacking = lacking(client, rule, place).await?;
            if !lacking.is_empty() {
                all_there = false;
                missing(rule, place, &lacking, report);
            }
        }
    }
    if all_there {
        report.ok(&format!("all {asked} rights"));
    }
    Ok(())
}

async fn lacking(
    client: &Client,
    rule: &Rule,
    place: Option<&str>,
) -> Result<Vec<&'static str>, kube::Error> {
    let (resource, subresource) = match rule.resource.split_once('/') {
        Some((resource, sub)) => (resource, Some(sub)),
        None => (rule.resource, None),
    };
    let mut lacking = Vec::new();
    for verb in rule.verbs {
        let attributes = ResourceAttributes {
            group: Some(rule.group.into()),
            resource: Some(resource.into()),
            subresource: subresource.map(Into::into),
            verb: Some((*verb).into()),
            namespace: place.map(Into::into),
            // The chart grants what can be narrowed to a name for the one Lease only.
            name: (rule.scope == Scope::Own && *verb != "create").then(|| lease::NAME.into()),
            ..ResourceAttributes::default()
        };
        if !may(client, attributes).await? {
            lacking.push(*verb);
        }
    }
    Ok(lacking)
}

fn missing(rule: &Rule, place: Option<&str>, lacking: &[&str], report: &mut Report) {
    let group = if rule.group.is_empty() {
        "core"
    } else {
        rule.group
    };
    let place = place.map_or("in all namespaces".to_owned(), |namespace| {
        format!("in namespace {namespace}")
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
