//! Fourth step: makes the cluster hold the children that were built, and no others of ours.
//!
//! Writes by server-side apply, and only if the live object is not as wanted or was last applied from
//! other input: an apply that changes nothing can still raise the resourceVersion, and the watch
//! would then start the next one. What somebody added to a list of ours stays theirs under
//! server-side apply, and is taken out by a second write. Secrets are created and never read. Prunes only what carries this
//! MediaService's uid, and only after everything else went well.

use std::fmt::Debug;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::build::{Applied, Built, Children, meta};
use super::fetch::Live;
use super::live::{covers, only_desired};
use crate::capabilities::OptionalApi;
use crate::hash;
use crate::metrics::Metrics;
use crate::scope;

/// Field manager of every child.
pub const FIELD_MANAGER: &str = "mediaservice-operator";

/// What can fail while writing.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error("failed to apply {kind} {name}")]
    Apply {
        kind: String,
        name: String,
        source: kube::Error,
    },
    #[error("failed to create Secret {name}")]
    CreateSecret { name: String, source: kube::Error },
    #[error("random bytes for Secret {name} are not to be had")]
    Random { name: String },
    #[error("{kind} {name} exists and does not belong to this MediaService: delete or rename it")]
    NotOurs { kind: String, name: String },
    #[error("failed to read {kind} {name}")]
    Read {
        kind: String,
        name: String,
        source: kube::Error,
    },
    #[error("failed to delete {kind} {name}, which is no longer wanted")]
    Prune {
        kind: String,
        name: String,
        source: kube::Error,
    },
}

impl ApplyError {
    /// Condition reason, event reason and `reason` label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Apply { .. } | Self::CreateSecret { .. } => "ApplyRejected",
            Self::Random { .. } => "NoRandomBytes",
            Self::NotOurs { .. } => "NameTaken",
            Self::Read { .. } => "ReadFailed",
            Self::Prune { .. } => "PruneFailed",
        }
    }
}

/// One MediaService's view of the cluster while it is applied.
pub struct Writer<'a> {
    pub client: &'a Client,
    pub metrics: &'a Metrics,
    pub namespace: &'a str,
    /// Uid of the MediaService.
    pub uid: &'a str,
    /// Whether to try to create the generated Secret: before the first StatefulSet, and when a pod
    /// misses it.
    pub create_secret: bool,
}

/// Applies every child, then deletes those of ours that are no longer wanted.
///
/// # Errors
/// At the first object that is refused; those before it are applied, nothing is deleted.
pub async fn apply(
    writer: &Writer<'_>,
    live: &Live,
    children: Children<Built>,
) -> Result<Children<Applied>, ApplyError> {
    let Children {
        generated_secret,
        service_account,
        config,
        pods_service,
        service,
        media_services,
        addresses,
        network_policy,
        disruption_budget,
        stateful_set,
        ingress,
        http_route,
        certificate,
        service_monitor,
        prometheus_rule,
        dashboards,
        stage: _,
    } = children;
    if let (true, Some(secret)) = (writer.create_secret, &generated_secret) {
        create_secret(writer, secret.clone()).await?;
    }
    let applied = Children {
        generated_secret,
        service_account: writer
            .option(writer.typed(), &live.service_accounts, service_account)
            .await?,
        config: writer
            .one(writer.typed(), &live.config_maps, config)
            .await?,
        pods_service: writer
            .one(writer.typed(), &live.services, pods_service)
            .await?,
        service: writer.one(writer.typed(), &live.services, service).await?,
        media_services: {
            let mut applied = Vec::with_capacity(media_services.len());
            for service in media_services {
                applied.push(match writer.make_way(&live.services, &service).await? {
                    Some(going) => going,
                    None => writer.one(writer.typed(), &live.services, service).await?,
                });
            }
            applied
        },
        addresses: writer
            .one(writer.typed(), &live.config_maps, addresses)
            .await?,
        network_policy: writer
            .option(writer.typed(), &live.network_policies, network_policy)
            .await?,
        disruption_budget: writer
            .one(writer.typed(), &live.disruption_budgets, disruption_budget)
            .await?,
        stateful_set: writer
            .one(writer.typed(), &live.stateful_sets, stateful_set)
            .await?,
        ingress: writer
            .option(writer.typed(), &live.ingresses, ingress)
            .await?,
        http_route: writer.dynamic(live, http_route).await?,
        certificate: writer.dynamic(live, certificate).await?,
        service_monitor: writer.dynamic(live, service_monitor).await?,
        prometheus_rule: writer.dynamic(live, prometheus_rule).await?,
        dashboards: {
            let mut applied = Vec::with_capacity(dashboards.len());
            for dashboard in dashboards {
                applied.push(
                    writer
                        .one(writer.typed(), &live.config_maps, dashboard)
                        .await?,
                );
            }
            applied
        },
        stage: std::marker::PhantomData,
    };
    prune(writer, live, &applied).await?;
    Ok(applied)
}

async fn prune(
    writer: &Writer<'_>,
    live: &Live,
    wanted: &Children<Applied>,
) -> Result<(), ApplyError> {
    let Children {
        // Never read, so never found: it goes with the MediaService.
        generated_secret: _,
        service_account,
        config,
        pods_service,
        service,
        media_services,
        addresses,
        network_policy,
        disruption_budget,
        stateful_set,
        ingress,
        http_route,
        certificate,
        service_monitor,
        prometheus_rule,
        dashboards,
        stage: _,
    } = wanted;
    let accounts = names(service_account);
    writer
        .prune(writer.typed(), &live.service_accounts, &accounts)
        .await?;
    let config_maps = names([config, addresses].into_iter().chain(dashboards));
    writer
        .prune(writer.typed(), &live.config_maps, &config_maps)
        .await?;
    let services = names([pods_service, service].into_iter().chain(media_services));
    writer
        .prune(writer.typed(), &live.services, &services)
        .await?;
    writer
        .prune(writer.typed(), &live.stateful_sets, &names([stateful_set]))
        .await?;
    writer
        .prune(writer.typed(), &live.ingresses, &names(ingress))
        .await?;
    let policies = names(network_policy);
    writer
        .prune(writer.typed(), &live.network_policies, &policies)
        .await?;
    let budgets = names([disruption_budget]);
    writer
        .prune(writer.typed(), &live.disruption_budgets, &budgets)
        .await?;
    let optional = [http_route, certificate, service_monitor, prometheus_rule];
    for kind in OptionalApi::ALL.into_iter().flat_map(OptionalApi::kinds) {
        let wanted = optional.into_iter().flatten();
        let wanted = names(wanted.filter(|object| kind_of(object) == Some(&kind.kind)));
        // A kind that could not be listed has nothing here to be pruned.
        let live = live.of_kind(&kind.kind);
        let api = scope::dynamic(writer.client, Some(writer.namespace), &kind);
        writer.prune(api, live, &wanted).await?;
    }
    Ok(())
}

fn names<'a, K: ResourceExt + 'a>(objects: impl IntoIterator<Item = &'a K>) -> Vec<String> {
    objects.into_iter().map(ResourceExt::name_any).collect()
}

fn kind_of(object: &DynamicObject) -> Option<&str> {
    object.types.as_ref().map(|types| types.kind.as_str())
}

impl Writer<'_> {
    fn typed<K>(&self) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), self.namespace)
    }

    async fn option<K>(
        &self,
        api: Api<K>,
        live: &[K],
        desired: Option<K>,
    ) -> Result<Option<K>, ApplyError>
    where
        K: Resource + Clone + Debug + Serialize + DeserializeOwned,
    {
        match desired {
            Some(desired) => self.one(api, live, desired).await.map(Some),
            None => Ok(None),
        }
    }

    /// An object of an optional API. As built it says of which kind it is, and it does so as returned.
    async fn dynamic(
        &self,
        live: &Live,
        desired: Option<DynamicObject>,
    ) -> Result<Option<DynamicObject>, ApplyError> {
        let Some(desired) = desired else {
            return Ok(None);
        };
        let types = desired.types.clone();
        let kind = OptionalApi::ALL
            .into_iter()
            .flat_map(OptionalApi::kinds)
            .find(|kind| kind_of(&desired) == Some(&kind.kind))
            .expect("it was built from one of these kinds");
        let api = scope::dynamic(self.client, Some(self.namespace), &kind);
        let mut applied = self.one(api, live.of_kind(&kind.kind), desired).await?;
        applied.types = types;
        Ok(Some(applied))
    }

    /// Deletes the Service of another load balancer class, which can't be changed in place. Returns the
    /// one that is still on its way out: a cloud's finalizer keeps it until the load balancer is gone,
    /// and the event of its end brings the next reconciliation.
    async fn make_way(
        &self,
        live: &[Service],
        desired: &Service,
    ) -> Result<Option<Service>, ApplyError> {
        let name = desired.name_any();
        let Some(before) = live.iter().find(|service| service.name_any() == name) else {
            return Ok(None);
        };
        if before.metadata.deletion_timestamp.is_none() {
            if !has_other_class(before, desired) {
                return Ok(None);
            }
            self.prune(self.typed(), std::slice::from_ref(before), &[])
                .await?;
        }
        let found = self.typed::<Service>().get_metadata_opt(&name).await;
        let found = found.map_err(|source| ApplyError::Read {
            kind: "Service".into(),
            name: name.clone(),
            source,
        })?;
        let is_going = found.is_some_and(|found| found.metadata.deletion_timestamp.is_some());
        if is_going {
            tracing::info!(
                name,
                namespace = self.namespace,
                "waiting for the old Service to be gone"
            );
        }
        Ok(is_going.then(|| before.clone()))
    }

    /// Returns the object as it is in the cluster, whether a write was needed or not.
    async fn one<K>(&self, api: Api<K>, live: &[K], mut desired: K) -> Result<K, ApplyError>
    where
        K: Resource + Clone + Debug + Serialize + DeserializeOwned,
    {
        let name = desired.name_any();
        let mut value = to_value(&desired);
        let kind = value["kind"].as_str().unwrap_or_default().to_owned();
        let applied_hash = hash::of(&value);
        desired
            .annotations_mut()
            .insert(meta::APPLIED_HASH.into(), applied_hash.clone());
        value = to_value(&desired);
        match live.iter().find(|object| object.name_any() == name) {
            Some(object) => {
                let same_input =
                    object.annotations().get(meta::APPLIED_HASH) == Some(&applied_hash);
                if same_input && covers(&to_value(object), &value) {
                    return Ok(object.clone());
                }
                if !self.owns(object)
                    && object
                        .meta()
                        .owner_references
                        .iter()
                        .flatten()
                        .any(|o| o.controller == Some(true))
                {
                    return Err(ApplyError::NotOurs { kind, name });
                }
            }
            None => {
                // Not among our labelled objects: absent, stripped of its labels, or somebody's.
                let found =
                    api.get_metadata_opt(&name)
                        .await
                        .map_err(|source| ApplyError::Read {
                            kind: kind.clone(),
                            name: name.clone(),
                            source,
                        })?;
                if found.is_some_and(|object| !self.owns(&object)) {
                    return Err(ApplyError::NotOurs { kind, name });
                }
            }
        }
        tracing::info!(kind, name, namespace = self.namespace, "applying");
        self.metrics.wrote(&kind);
        let failed = |source| ApplyError::Apply {
            kind: kind.clone(),
            name: name.clone(),
            source,
        };
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let applied = api
            .patch(&name, &params, &Patch::Apply(&value))
            .await
            .map_err(failed)?;
        let found = to_value(&applied);
        if covers(&found, &value) {
            return Ok(applied);
        }
        tracing::info!(
            kind,
            name,
            namespace = self.namespace,
            "taking out what was added"
        );
        self.metrics.wrote(&kind);
        let mut patch = only_desired(&found, &value);
        // Refused if somebody else wrote in between; the next reconciliation looks again.
        patch["metadata"]["resourceVersion"] = found["metadata"]["resourceVersion"].clone();
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PatchParams::default()
        };
        api.patch(&name, &params, &Patch::Merge(&patch))
            .await
            .map_err(failed)
    }

    async fn prune<K>(&self, api: Api<K>, live: &[K], wanted: &[String]) -> Result<(), ApplyError>
    where
        K: Resource + Clone + Debug + Serialize + DeserializeOwned,
    {
        for object in live {
            let name = object.name_any();
            let going = object.meta().deletion_timestamp.is_some();
            if wanted.contains(&name) || going || !self.owns(object) {
                continue;
            }
            let kind = to_value(object)["kind"]
                .as_str()
                .unwrap_or("object")
                .to_owned();
            tracing::info!(kind, name, namespace = self.namespace, "pruning");
            self.metrics.wrote(&kind);
            let params = DeleteParams {
                preconditions: Some(Preconditions {
                    uid: object.uid(),
                    resource_version: None,
                }),
                ..DeleteParams::background()
            };
            match api.delete(&name, &params).await {
                Ok(_) => {}
                Err(error) if is_status(&error, 404) || is_status(&error, 409) => {}
                Err(source) => return Err(ApplyError::Prune { kind, name, source }),
            }
        }
        Ok(())
    }

    fn owns<K: Resource>(&self, object: &K) -> bool {
        object
            .meta()
            .owner_references
            .iter()
            .flatten()
            .any(|owner| owner.uid == self.uid)
    }
}

/// Whether the load balancer class of `live` is to be another. A class that is not asked for and that we
/// did not set is the choice of an admission webhook, which would make it again.
fn has_other_class(live: &Service, desired: &Service) -> bool {
    let class = |service: &Service| service.spec.as_ref()?.load_balancer_class.clone();
    match (class(live), class(desired)) {
        (live, Some(wanted)) => live != Some(wanted),
        (Some(_), None) => {
            let entries = live.metadata.managed_fields.iter().flatten();
            let ours = entries.filter(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER));
            ours.filter_map(|entry| entry.fields_v1.as_ref())
                .any(|fields| fields.0["f:spec"].get("f:loadBalancerClass").is_some())
        }
        (None, None) => false,
    }
}

/// 32 random bytes for each key: the operator may create Secrets and read none, so one that exists
/// already is left as it is.
async fn create_secret(writer: &Writer<'_>, secret: Secret) -> Result<(), ApplyError> {
    let name = secret.name_any();
    let secret = fill_secret(secret).ok_or_else(|| ApplyError::Random { name: name.clone() })?;
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PostParams::default()
    };
    match writer.typed::<Secret>().create(&params, &secret).await {
        Ok(_) => {
            tracing::info!(
                name,
                namespace = writer.namespace,
                "created the generated Secret"
            );
            writer.metrics.wrote("Secret");
            Ok(())
        }
        Err(error) if is_status(&error, 409) => Ok(()),
        Err(source) => Err(ApplyError::CreateSecret { name, source }),
    }
}

/// Adds the random keys. `None` if the system gives no random bytes.
pub fn fill_secret(mut secret: Secret) -> Option<Secret> {
    let mut data = std::collections::BTreeMap::new();
    for key in ["cluster-key", "jwt-hmac"] {
        let mut bytes = [0u8; 32];
        aws_lc_rs::rand::fill(&mut bytes).ok()?;
        data.insert(key.to_owned(), ByteString(bytes.to_vec()));
    }
    secret.data = Some(data);
    Some(secret)
}

/// Whether the API server answered with that status.
pub fn is_status(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

fn to_value<K: Serialize>(object: &K) -> Value {
    serde_json::to_value(object).expect("Kubernetes objects are JSON")
}
