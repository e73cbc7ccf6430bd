//! What makes the pods of the cluster in this process come and go. Used by tests only.

use serde_json::{Value, json};

use super::{Inside, Key};
use crate::hash;

impl Inside {
    /// The StatefulSet controller with strategy OnDelete, and a kubelet that starts pods at once.
    pub(super) fn settle(&mut self) {
        let is_set = |(key, _): &(&Key, &Value)| key.1 == "statefulsets";
        let sets: Vec<(Key, Value)> = self
            .objects
            .iter()
            .filter(is_set)
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        let alive: Vec<Value> = sets
            .iter()
            .map(|(_, set)| set["metadata"]["uid"].clone())
            .collect();
        let orphan = |(key, pod): &(&Key, &Value)| {
            key.1 == "pods" && !alive.contains(&pod["metadata"]["ownerReferences"][0]["uid"])
        };
        let orphans: Vec<Key> = self
            .objects
            .iter()
            .filter(orphan)
            .map(|(key, _)| key.clone())
            .collect();
        for key in orphans {
            self.remove(&key);
        }
        for (key, mut set) in sets {
            let template = set["spec"]["template"].clone();
            let revision = hash::of(&template);
            let wanted = set["spec"]["replicas"].as_u64().unwrap_or(1);
            let pod_key = |n: u64| {
                (
                    "/api/v1".to_owned(),
                    "pods".to_owned(),
                    key.2.clone(),
                    format!("{}-{n}", key.3),
                )
            };
            for n in 0..wanted {
                if self.objects.contains_key(&pod_key(n)) {
                    continue;
                }
                let mut pod = template.clone();
                pod["apiVersion"] = "v1".into();
                pod["kind"] = "Pod".into();
                pod["metadata"]["labels"]["controller-revision-hash"] = revision.clone().into();
                pod["metadata"]["ownerReferences"] = json!([{
                    "apiVersion": "apps/v1", "kind": "StatefulSet", "name": key.3,
                    "uid": set["metadata"]["uid"], "controller": true,
                }]);
                pod["spec"]["nodeName"] = "n1".into();
                pod["status"] = self.pod_status.clone();
                self.store(pod_key(n), pod);
            }
            if self.objects.contains_key(&pod_key(wanted)) {
                self.delete(&pod_key(wanted), None);
            }
            set["status"] = json!({
                "replicas": wanted, "observedGeneration": set["metadata"]["generation"], "updateRevision": revision,
            });
            self.store(key, set);
        }
    }
}
