//! First step: reads everything that the other steps need to know of the cluster.
//!
//! Reads only, and never a Secret. Called by the controller, once per reconciliation; the live
//! children are also what `apply` compares with and prunes from, so a failed read ends the
//! reconciliation before anything is written.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::future;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, DynamicObject, ListParams};
use kube::runtime::reflector::Store;
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use super::addresses;
use super::build::meta;
use crate::capabilities::{Availability, OptionalApi, Served};
use crate::crd::{MediaService, MediaServiceSpec};

/// Everything known of one MediaService.
#[derive(Debug, Clone)]
pub struct Fetched {
    pub service: Arc<MediaService>,
    pub live: Live,
    pub pods: Vec<Pod>,
    pub nodes: Nodes,
    /// The optional APIs, as far as their objects could be listed.
    pub served: Served,
    /// Warnings about the pods and the StatefulSet; only read while no pod is ready.
    pub warnings: Vec<Warning>,
    /// Host names that clients shall be told of and that do not resolve; only asked for while no pod is
    /// ready.
    pub unresolved: Vec<String>,
    /// Image for a MediaService that names none and has no StatefulSet yet.
    pub default_image: String,
    /// Namespace of the operator; empty when rendering without a cluster.
    pub operator_namespace: String,
}

impl Fetched {
    /// The StatefulSet as it was found.
    pub fn stateful_set(&self) -> Option<&StatefulSet> {
        let name = self.service.name_any();
        let mut sets = self.live.stateful_sets.iter();
        sets.find(|set| set.name_any() == name)
    }
}

/// The children that exist, by kind. Found by label, so an object that lost its labels is not here.
#[derive(Debug, Clone, Default)]
pub struct Live {
    pub service_accounts: Vec<ServiceAccount>,
    pub config_maps: Vec<ConfigMap>,
    pub services: Vec<Service>,
    pub stateful_sets: Vec<StatefulSet>,
    pub ingresses: Vec<Ingress>,
    pub network_policies: Vec<NetworkPolicy>,
    pub disruption_budgets: Vec<PodDisruptionBudget>,
    /// Of the optional APIs, by kind. Kinds that could not be listed are absent: nothing of them is
    /// pruned.
    pub optional: BTreeMap<String, Vec<DynamicObject>>,
}

impl Live {
    /// The objects of that kind of an optional API.
    pub fn of_kind(&self, kind: &str) -> &[DynamicObject] {
        self.optional.get(kind).map_or(&[], Vec::as_slice)
    }
}

/// Addresses of the nodes, by node name; those of a node are in the order in which it lists them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Nodes {
    Known(BTreeMap<String, Vec<String>>),
    /// Clients are told of no node.
    NotNeeded,
    /// The operator runs for single namespaces, where no right on nodes can be given.
    Unreadable,
}

/// A warning event, as far as conditions use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Name of the pod or StatefulSet.
    pub object: String,
    pub reason: String,
    pub message: String,
}

/// What can fail while reading.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("failed to list {kind} of the MediaService")]
    List {
        /// In the plural, as in the path.
        kind: String,
        source: kube::Error,
    },
    #[error("the nodes are not known yet: the operator needs list and watch on nodes")]
    NodesUnknown,
}

impl FetchError {
    /// Condition reason, event reason and `reason` label.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::List { .. } => "ReadFailed",
            Self::NodesUnknown => "NodesUnknown",
        }
    }
}

/// How `fetch` sees the cluster.
#[derive(Clone)]
pub struct Reader {
    pub client: Client,
    /// Node cache; `None` in namespace mode.
    pub nodes: Option<Store<Node>>,
    pub default_image: String,
    /// Namespace of the operator.
    pub namespace: String,
}

/// Reads all that concerns `service`.
///
/// # Errors
/// If a list of an API that every cluster serves fails; nothing is assumed about what was not read.
pub async fn fetch(
    reader: &Reader,
    service: Arc<MediaService>,
    served: Served,
) -> Result<Fetched, FetchError> {
    let namespace = service.namespace().unwrap_or_default();
    let client = &reader.client;
    let children = ListParams::default().labels(&meta::children_selector(&service.name_any()));
    let pods = ListParams::default().labels(&meta::pod_selector(&service.name_any()));
    let (
        service_accounts,
        config_maps,
        services,
        stateful_sets,
        ingresses,
        network_policies,
        disruption_budgets,
        pods,
    ) = tokio::try_join!(
        list::<ServiceAccount>(client, &namespace, &children),
        list::<ConfigMap>(client, &namespace, &children),
        list::<Service>(client, &namespace, &children),
        list::<StatefulSet>(client, &namespace, &children),
        list::<Ingress>(client, &namespace, &children),
        list::<NetworkPolicy>(client, &namespace, &children),
        list::<PodDisruptionBudget>(client, &namespace, &children),
        list::<Pod>(client, &namespace, &pods),
    )?;
    let (served, optional) = optional_objects(client, &namespace, &children, served).await;
    let live = Live {
        service_accounts,
        config_maps,
        services,
        stateful_sets,
        ingresses,
        network_policies,
        disruption_budgets,
        optional,
    };
    let mut fetched = Fetched {
        nodes: nodes(reader, &service.spec).await?,
        service,
        live,
        pods,
        served,
        warnings: Vec::new(),
        unresolved: Vec::new(),
        default_image: reader.default_image.clone(),
        operator_namespace: reader.namespace.clone(),
    };
    if fetched.service.spec.replicas > 0 && !fetched.pods.iter().any(is_ready) {
        fetched.warnings = warnings(client, &namespace, &fetched.live, &fetched.pods).await?;
        fetched.unresolved = unresolved(&fetched).await;
    }
    Ok(fetched)
}

/// Which of the names that clients shall be told of nobody can resolve from here, where the same
/// resolver answers as in the pods. A spec that can't be built has none.
async fn unresolved(fetched: &Fetched) -> Vec<String> {
    let service = &fetched.service;
    let table = addresses::discover(
        &service.name_any(),
        &service.spec,
        &fetched.live,
        &fetched.nodes,
    );
    let names = table.map(|table| addresses::names(&table));
    let asked = names.unwrap_or_default().into_iter().map(|name| async {
        let found = tokio::net::lookup_host((&*name, 0));
        let found = tokio::time::timeout(RESOLVE_WAIT, found).await;
        let resolves = found.is_ok_and(|found| found.is_ok_and(|mut found| found.next().is_some()));
        (!resolves).then_some(name)
    });
    let asked = future::join_all(asked).await;
    asked.into_iter().flatten().collect()
}

/// A resolver that takes longer than this answers no client's pod in time either.
const RESOLVE_WAIT: Duration = Duration::from_secs(5);

/// The objects of the optional APIs that are present. An API that vanished since the last discovery is
/// absent, and one that does not answer is unknown; neither is an error, because everything else goes on.
async fn optional_objects(
    client: &Client,
    namespace: &str,
    children: &ListParams,
    mut served: Served,
) -> (Served, BTreeMap<String, Vec<DynamicObject>>) {
    let mut optional = BTreeMap::new();
    for api in OptionalApi::ALL {
        if served.get(api) != Availability::Present {
            continue;
        }
        match objects_of(client, namespace, children, api).await {
            Ok(objects) => optional.extend(objects),
            Err(source) => {
                let absent = matches!(&source, kube::Error::Api(status) if status.code == 404);
                tracing::warn!(namespace, api = api.group_version(), error = %source, "can't list objects of an optional API");
                served.set(
                    api,
                    if absent {
                        Availability::Absent
                    } else {
                        Availability::Unknown
                    },
                );
            }
        }
    }
    (served, optional)
}

async fn objects_of(
    client: &Client,
    namespace: &str,
    children: &ListParams,
    api: OptionalApi,
) -> Result<Vec<(String, Vec<DynamicObject>)>, kube::Error> {
    let mut objects = Vec::new();
    for kind in api.kinds() {
        let api = Api::<DynamicObject>::namespaced_with(client.clone(), namespace, &kind);
        objects.push((kind.kind, api.list(children).await?.items));
    }
    Ok(objects)
}

/// Whether the kubelet says that the pod takes traffic, and nobody has asked it to go.
pub fn is_ready(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none()
        && pod
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// A node's ExternalIP addresses, or its InternalIP addresses where it has none.
pub fn node_addresses(node: &Node) -> Vec<String> {
    let of_type = |wanted: &str| -> Vec<String> {
        node.status
            .iter()
            .flat_map(|status| status.addresses.iter().flatten())
            .filter(|address| address.type_ == wanted)
            .map(|address| address.address.clone())
            .collect()
    };
    let external = of_type("ExternalIP");
    if external.is_empty() {
        of_type("InternalIP")
    } else {
        external
    }
}

/// The addresses of every node of the cache.
pub fn addresses_of(store: &Store<Node>) -> BTreeMap<String, Vec<String>> {
    store
        .state()
        .iter()
        .map(|node| (node.name_any(), node_addresses(node)))
        .collect()
}

/// A cache that has not been filled after this time will not be soon: say why instead of waiting.
const NODE_CACHE_WAIT: Duration = Duration::from_secs(10);

async fn nodes(reader: &Reader, spec: &MediaServiceSpec) -> Result<Nodes, FetchError> {
    if !addresses::are_of_nodes(spec) {
        return Ok(Nodes::NotNeeded);
    }
    let Some(store) = &reader.nodes else {
        return Ok(Nodes::Unreadable);
    };
    match tokio::time::timeout(NODE_CACHE_WAIT, store.wait_until_ready()).await {
        Ok(Ok(())) => Ok(Nodes::Known(addresses_of(store))),
        _ => Err(FetchError::NodesUnknown),
    }
}

async fn list<K>(
    client: &Client,
    namespace: &str,
    params: &ListParams,
) -> Result<Vec<K>, FetchError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Debug,
{
    let api = Api::<K>::namespaced(client.clone(), namespace);
    let found = api.list(params).await.map_err(|source| FetchError::List {
        kind: K::plural(&()).into_owned(),
        source,
    })?;
    Ok(found.items)
}

/// Mount failures and refusals by Pod Security show in events only.
async fn warnings(
    client: &Client,
    namespace: &str,
    live: &Live,
    pods: &[Pod],
) -> Result<Vec<Warning>, FetchError> {
    let uids = live
        .stateful_sets
        .iter()
        .filter_map(ResourceExt::uid)
        .chain(pods.iter().filter_map(ResourceExt::uid));
    let mut warnings = Vec::new();
    for uid in uids {
        let params = ListParams::default()
            .fields(&format!("involvedObject.uid={uid},type=Warning"))
            .limit(100);
        let mut events = list::<Event>(client, namespace, &params).await?;
        events.sort_by_key(|event| {
            event
                .last_timestamp
                .clone()
                .or_else(|| event.metadata.creation_timestamp.clone())
        });
        warnings.extend(events.into_iter().map(|event| Warning {
            object: event.involved_object.name.unwrap_or_default(),
            reason: event.reason.unwrap_or_default(),
            message: event.message.unwrap_or_default(),
        }));
    }
    Ok(warnings)
}
