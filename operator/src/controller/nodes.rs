//! The cache of nodes, as far as their addresses matter, and when those change.
//!
//! Reads only, and in cluster scope only: for single namespaces no right on nodes can be given.

use std::time::Duration;

use futures::{StreamExt, future, stream};
use k8s_openapi::api::core::v1::Node;
use kube::runtime::reflector::Store;
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client};

use super::fetch;
use crate::metrics::Metrics;

/// Keeps the node cache for as long as the process runs.
pub async fn cache(client: Client, writer: reflector::store::Writer<Node>, metrics: Metrics) {
    watcher(Api::<Node>::all(client), watcher::Config::default())
        .modify(|node| {
            // A node's status is large, and only its addresses matter here.
            node.metadata.managed_fields = None;
            node.metadata.annotations = None;
            if let Some(status) = &mut node.status {
                let addresses = status.addresses.take();
                *status = k8s_openapi::api::core::v1::NodeStatus {
                    addresses,
                    ..Default::default()
                };
            }
        })
        .default_backoff()
        .reflect(writer)
        .for_each(|event| {
            if let Err(error) = event {
                metrics.watch_failed();
                tracing::warn!(%error, "can't watch nodes");
            }
            future::ready(())
        })
        .await;
}

/// Yields when the addresses of any node differ from those before. Polls the cache: nodes report
/// themselves often, and their addresses change almost never.
pub fn address_changes(nodes: Store<Node>) -> impl futures::Stream<Item = ()> + Send {
    stream::unfold((nodes, None), |(nodes, mut last)| async move {
        loop {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let now = fetch::addresses_of(&nodes);
            if last.as_ref() != Some(&now) {
                let first = last.replace(now).is_none();
                if !first {
                    return Some(((), (nodes, last)));
                }
            }
        }
    })
}
