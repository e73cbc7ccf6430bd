//! Says in `.status.sessions` how many sessions the pods have.
//!
//! Asks the pods every 10 s, beside the reconciliations: these read all that belongs to a MediaService.
//! Writes by server-side apply under its own field manager, at most every 30 s for a MediaService, and
//! only when a number changed by 5 % or more: each write is a watch event of the MediaService, and the
//! reconciliation that it causes finds nothing to do. Started by the controller, which tells it of the pods.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt};
use serde_json::json;

use super::apply::is_status;
use super::fetch::Fetched;
use super::load::{self, Loads};
use crate::crd::{MediaService, Sessions};
use crate::metrics::Metrics;

pub const FIELD_MANAGER: &str = "mediaservice-operator-sessions";

const ASK_EVERY: Duration = Duration::from_secs(10);
/// Least time between two writes for one MediaService.
const WRITE_EVERY: Duration = Duration::from_secs(30);
/// Pods asked at the same time.
const AT_ONCE: usize = 16;
/// A MediaService that was not reconciled for so long is gone: it is every ten minutes.
const FORGET_AFTER: Duration = Duration::from_secs(1300);

/// Namespace and name.
type Key = (String, String);

/// The pods to ask. Cheap to clone.
#[derive(Clone, Default)]
pub struct SessionCounts {
    followed: Arc<Mutex<HashMap<Key, Followed>>>,
}

#[derive(Clone)]
struct Followed {
    /// Addresses of the pods that are there; `None` for one that has none yet.
    pods: Vec<Option<String>>,
    written: Sessions,
    written_at: Option<Instant>,
    seen: Instant,
}

impl SessionCounts {
    /// From now on the pods that were fetched are asked.
    pub fn follow(&self, fetched: &Fetched) {
        let service = &fetched.service;
        let key = (service.namespace().unwrap_or_default(), service.name_any());
        let alive =
            |pod: &&k8s_openapi::api::core::v1::Pod| pod.metadata.deletion_timestamp.is_none();
        let pods = fetched.pods.iter().filter(alive);
        let pods = pods
            .map(|pod| load::address(pod).map(str::to_owned))
            .collect();
        let status = service.status.as_ref();
        let written = status.map(|status| status.sessions.clone());
        let mut followed = self.followed.lock().expect("no panic while it is held");
        let written_at = followed.get(&key).and_then(|before| before.written_at);
        followed.insert(
            key,
            Followed {
                pods,
                written: written.unwrap_or_default(),
                written_at,
                seen: Instant::now(),
            },
        );
    }

    /// Asks and writes for ever.
    pub async fn run(&self, client: &Client, metrics: &Metrics, loads: &Loads) {
        let mut every = tokio::time::interval(ASK_EVERY);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            every.tick().await;
            let services = self.take_stock();
            stream::iter(services)
                .for_each_concurrent(AT_ONCE, |(key, followed)| async move {
                    let Some(sessions) = count(loads, &followed.pods).await else {
                        return;
                    };
                    if !is_due(&followed, &sessions, Instant::now()) {
                        return;
                    }
                    match write(client, &key, &sessions).await {
                        Ok(()) => {
                            metrics.wrote("MediaService");
                            self.wrote(&key, sessions);
                        }
                        Err(error) if is_status(&error, 404) => self.forget(&key),
                        Err(error) => tracing::warn!(namespace = key.0, name = key.1, %error, "can't write the session counts"),
                    }
                })
                .await;
        }
    }

    fn take_stock(&self) -> Vec<(Key, Followed)> {
        let mut followed = self.followed.lock().expect("no panic while it is held");
        followed.retain(|_, followed| followed.seen.elapsed() < FORGET_AFTER);
        let all = followed.iter();
        all.map(|(key, followed)| (key.clone(), followed.clone()))
            .collect()
    }

    fn wrote(&self, key: &Key, sessions: Sessions) {
        let mut followed = self.followed.lock().expect("no panic while it is held");
        if let Some(followed) = followed.get_mut(key) {
            followed.written = sessions;
            followed.written_at = Some(Instant::now());
        }
    }

    fn forget(&self, key: &Key) {
        self.followed
            .lock()
            .expect("no panic while it is held")
            .remove(key);
    }
}

/// `None` while a pod does not answer: what it has is not known.
async fn count(loads: &Loads, pods: &[Option<String>]) -> Option<Sessions> {
    let mut sessions = Sessions::default();
    for pod in pods {
        let load = loads.of_address(pod.as_deref()?).await?;
        sessions.publishers = sessions.publishers.saturating_add_unsigned(load.publishers);
        sessions.viewers = sessions.viewers.saturating_add_unsigned(load.viewers);
    }
    Some(sessions)
}

fn is_due(followed: &Followed, now: &Sessions, at: Instant) -> bool {
    let rested = followed
        .written_at
        .is_none_or(|written| at.duration_since(written) >= WRITE_EVERY);
    let before = &followed.written;
    // 1 of 20 is 5 %; from 0 any number is.
    let moved = |before: i32, now: i32| {
        before != now && i64::from(before.abs_diff(now)) * 20 >= i64::from(before)
    };
    rested && (moved(before.publishers, now.publishers) || moved(before.viewers, now.viewers))
}

async fn write(client: &Client, (namespace, name): &Key, sessions: &Sessions) -> kube::Result<()> {
    let patch = json!({
        "apiVersion": MediaService::api_version(&()),
        "kind": MediaService::kind(&()),
        "metadata": {"name": name},
        "status": {"sessions": sessions},
    });
    let api: Api<MediaService> = Api::namespaced(client.clone(), namespace);
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch_status(name, &params, &Patch::Apply(&patch))
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_written_when_it_moved_by_five_percent_and_the_last_write_is_half_a_minute_old() {
        let start = Instant::now();
        let followed = |viewers: i32, written_at| Followed {
            pods: Vec::new(),
            written: Sessions {
                publishers: 0,
                viewers,
            },
            written_at,
            seen: start,
        };
        let now = |viewers| Sessions {
            publishers: 0,
            viewers,
        };
        let due = |before, after| is_due(&followed(before, None), &now(after), start);
        assert!(due(0, 1) && due(1, 0) && due(100, 105) && due(100, 95));
        assert!(!due(100, 100) && !due(100, 104) && !due(100, 96));
        let written = followed(0, Some(start));
        assert!(!is_due(&written, &now(9), start + Duration::from_secs(29)));
        assert!(is_due(&written, &now(9), start + Duration::from_secs(30)));
        assert!(!is_due(&written, &now(0), start + Duration::from_secs(60)));
    }
}
