//! Names, labels and owner references that every child shares.
//!
//! Selectors use name and instance only, for ever: a StatefulSet's selector can't be changed.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use kube::api::{ApiResource, DynamicObject, TypeMeta};
use serde_json::{Value, json};

use crate::controller::validate::ValidService;
use crate::crd::MediaService;

pub const MANAGED_BY: &str = "mediaservice-operator";
pub const APP: &str = "media-server";

pub const NAME_LABEL: &str = "app.kubernetes.io/name";
pub const INSTANCE_LABEL: &str = "app.kubernetes.io/instance";
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// On the Service that the ServiceMonitor selects.
pub const SCRAPE_LABEL: &str = "mediaservice.io/scrape";

/// Hash of what was applied last, on every child.
pub const APPLIED_HASH: &str = "mediaservice.io/applied-hash";
/// Image that the operator chose last, on the StatefulSet: its template may have been edited by hand.
pub const IMAGE: &str = "mediaservice.io/image";
/// Hash of the user's inputs, on every pod.
pub const SPEC_HASH: &str = "mediaservice.io/spec-hash";
/// Hash of all else that this version of the operator puts into a pod, on every pod.
pub const TEMPLATE_HASH: &str = "mediaservice.io/template-hash";
/// `"true"` on a pod that shall take no new session; the server reads it.
pub const DRAIN: &str = "mediaservice.io/drain";
/// When the operator wrote [`DRAIN`]: without it a person did.
pub const DRAIN_SINCE: &str = "mediaservice.io/drain-since";

/// Selects the children of the MediaService `name`.
pub fn children_selector(name: &str) -> String {
    format!("{MANAGED_BY_LABEL}={MANAGED_BY},{INSTANCE_LABEL}={name}")
}

/// Selects its media pods.
pub fn pod_selector(name: &str) -> String {
    format!("{NAME_LABEL}={APP},{INSTANCE_LABEL}={name}")
}

/// The two labels by which pods are selected.
pub fn selector(service: &ValidService) -> BTreeMap<String, String> {
    pairs([(NAME_LABEL, APP), (INSTANCE_LABEL, &service.name)])
}

/// The labels of every child.
pub fn labels(service: &ValidService) -> BTreeMap<String, String> {
    pairs([
        (NAME_LABEL, APP),
        (INSTANCE_LABEL, &service.name),
        ("app.kubernetes.io/component", "media"),
        ("app.kubernetes.io/part-of", "mediaservice"),
        (MANAGED_BY_LABEL, MANAGED_BY),
    ])
}

/// Metadata of the child `name`: namespace, labels and owner.
pub fn object(service: &ValidService, name: impl Into<String>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: Some(service.namespace.clone()),
        labels: Some(labels(service)),
        owner_references: service.uid.as_ref().map(|uid| {
            vec![OwnerReference {
                api_version: MediaService::api_version(&()).into_owned(),
                kind: MediaService::kind(&()).into_owned(),
                name: service.name.clone(),
                uid: uid.clone(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]
        }),
        ..ObjectMeta::default()
    }
}

/// Metadata with more labels; ours win.
pub fn object_with_labels(
    service: &ValidService,
    name: impl Into<String>,
    more: &BTreeMap<String, String>,
) -> ObjectMeta {
    let mut meta = object(service, name);
    let mut labels = more.clone();
    labels.extend(meta.labels.take().unwrap_or_default());
    meta.labels = Some(labels);
    meta
}

/// An object of an optional API.
pub fn dynamic(resource: &ApiResource, metadata: ObjectMeta, spec: Value) -> DynamicObject {
    DynamicObject {
        types: Some(TypeMeta {
            api_version: resource.api_version.clone(),
            kind: resource.kind.clone(),
        }),
        metadata,
        data: json!({"spec": spec}),
    }
}

/// A map of borrowed pairs.
pub fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}
