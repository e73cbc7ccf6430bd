//! Which namespaces are watched and asked: the whole cluster, or single ones. Pure.

use k8s_openapi::NamespaceResourceScope;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::{Client, Resource};

/// Each place to watch or ask: `None` is the whole cluster, and all there is if no namespace is named.
pub fn places(namespaces: &[String]) -> Vec<Option<&str>> {
    if namespaces.is_empty() {
        return vec![None];
    }
    namespaces.iter().map(|name| Some(name.as_str())).collect()
}

/// Objects of that type in one place.
pub fn typed<K>(client: &Client, place: Option<&str>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    match place {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// The same of a kind that has no type here.
pub fn dynamic(client: &Client, place: Option<&str>, resource: &ApiResource) -> Api<DynamicObject> {
    match place {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    }
}
