//! Who goes first when many MediaServices want something at the same time.
//!
//! What waits in the queue of kube's controller is taken in no order. Of a thousand services that are
//! applied at once, the first would be looked at for each change of their children before the last has
//! any. So one whose present spec no status speaks of goes first, and others are put off meanwhile.
//! Reads the caches of the watches and asks the API server nothing. Called by the controller.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use kube::runtime::reflector::{ObjectRef, Store};

use super::{CONCURRENCY, Guarded, is_unreported};

/// How long one waits before it asks again: a question costs next to nothing.
const AGAIN: Duration = Duration::from_secs(2);

/// How long one is put off in all. Newcomers of which nothing can be told, because their status is
/// refused, may not hold up the others for longer.
const LONGEST: Duration = Duration::from_secs(30);

/// Counting goes through the caches; an older number does as well.
const COUNT_EVERY: Duration = Duration::from_millis(250);

#[derive(Default)]
pub struct Turns {
    /// By namespace that is watched, or `None` for all.
    caches: Mutex<HashMap<Option<String>, Store<Guarded>>>,
    counted: Mutex<Option<(Instant, usize)>>,
    put_off: Mutex<HashMap<ObjectRef<Guarded>, Instant>>,
}

impl Turns {
    /// From now on the services of this watch count, in place of those of the one before.
    pub fn follow(&self, namespace: Option<&str>, cache: Store<Guarded>) {
        let mut caches = self.caches.lock().expect("no panic while it is held");
        caches.insert(namespace.map(str::to_owned), cache);
    }

    /// When this service shall ask again, if more newcomers wait than there are workers.
    pub fn put_off(&self, service: &Guarded, now: Instant) -> Option<Duration> {
        let crowded = !is_unreported(service) && self.newcomers(now) > usize::from(CONCURRENCY);
        self.decide(ObjectRef::from_obj(service), crowded, now)
    }

    fn decide(&self, service: ObjectRef<Guarded>, crowded: bool, now: Instant) -> Option<Duration> {
        let mut put_off = self.put_off.lock().expect("no panic while it is held");
        // Those of deleted objects may not pile up.
        put_off.retain(|_, since| now.duration_since(*since) < 2 * LONGEST);
        if crowded {
            let since = *put_off.entry(service.clone()).or_insert(now);
            if now.duration_since(since) < LONGEST {
                return Some(AGAIN);
            }
        }
        put_off.remove(&service);
        None
    }

    fn newcomers(&self, now: Instant) -> usize {
        let mut counted = self.counted.lock().expect("no panic while it is held");
        match *counted {
            Some((at, count)) if now.duration_since(at) < COUNT_EVERY => count,
            _ => {
                let caches = self.caches.lock().expect("no panic while it is held");
                let all = caches.values().flat_map(Store::state);
                let count = all.filter(|service| is_newcomer(service)).count();
                *counted = Some((now, count));
                count
            }
        }
    }
}

/// One that goes nowhere but away waits for nothing.
fn is_newcomer(service: &Guarded) -> bool {
    let goes = |service: &crate::crd::MediaService| service.metadata.deletion_timestamp.is_some();
    is_unreported(service) && !service.0.as_ref().is_ok_and(goes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::MediaService;
    use kube::core::DeserializeGuard;
    use kube::runtime::{reflector, watcher};
    use serde_json::json;

    fn service(name: &str, observed: Option<i64>) -> Guarded {
        let service: MediaService = serde_json::from_value(json!({
            "apiVersion": "mediaservice.io/v1alpha1", "kind": "MediaService",
            "metadata": {"name": name, "namespace": "media", "generation": 2},
            "spec": {"media": {"exposure": "HostPort", "externalAddresses": ["203.0.113.1"]}},
            "status": observed.map(|generation| json!({"observedGeneration": generation, "conditions": []})),
        }))
        .expect("a MediaService");
        DeserializeGuard(Ok(service))
    }

    fn turns(services: Vec<Guarded>) -> Turns {
        let (cache, mut writer) = reflector::store::<Guarded>();
        writer.apply_watcher_event(&watcher::Event::Init);
        for service in services {
            writer.apply_watcher_event(&watcher::Event::InitApply(service));
        }
        writer.apply_watcher_event(&watcher::Event::InitDone);
        let turns = Turns::default();
        turns.follow(None, cache);
        turns
    }

    #[test]
    fn while_more_newcomers_wait_than_there_are_workers_the_others_are_put_off_for_a_while() {
        let newcomers = |count| (0..count).map(|n| service(&format!("new-{n}"), Some(1)));
        let (old, now) = (service("old", Some(2)), Instant::now());
        let crowd = turns(newcomers(9).chain([old.clone()]).collect());
        assert_eq!(crowd.put_off(&service("new-0", Some(1)), now), None);
        assert_eq!(crowd.put_off(&service("new-1", None), now), None);
        assert_eq!(crowd.put_off(&old, now), Some(AGAIN));
        assert_eq!(crowd.put_off(&old, now + LONGEST - AGAIN), Some(AGAIN));
        assert_eq!(crowd.put_off(&old, now + LONGEST), None);
        assert_eq!(crowd.put_off(&old, now + LONGEST), Some(AGAIN));
        let few = turns(newcomers(8).chain([old.clone()]).collect());
        assert_eq!(few.put_off(&old, now), None);
    }
}
