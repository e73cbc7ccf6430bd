//! A folder of this machine as a PersistentVolume of the first node, kept for one claim.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;
use tests::Kubectl;
use tests::process::TempDir;

const NAME: &str = "e2e-kept";

/// Ends with its value.
pub struct LocalVolume {
    folder: TempDir,
    namespace: &'static str,
    claim: &'static str,
}

impl LocalVolume {
    /// Nothing of it is in the cluster yet. Only root can write to it: the pod's group gets it from the kubelet.
    pub fn new(namespace: &'static str, claim: &'static str) -> Self {
        let folder = TempDir::new("volume");
        let own = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), own).expect("it is ours");
        Self {
            folder,
            namespace,
            claim,
        }
    }

    /// Makes the volume and the claim that is bound to it.
    pub fn make(&self, kubectl: &Kubectl) {
        let on_first =
            json!({"key": "kubernetes.io/hostname", "operator": "In", "values": ["node1"]});
        let room = json!({"storage": "1Gi"});
        let manifest = json!({"apiVersion": "v1", "kind": "List", "items": [
            {
                "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": NAME},
                "spec": {
                    "capacity": room, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
                    "claimRef": {"namespace": self.namespace, "name": self.claim},
                    "local": {"path": self.folder.path()},
                    "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_first]}]}},
                },
            },
            {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": self.claim},
                "spec": {
                    "accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": NAME,
                    "resources": {"requests": room},
                },
            },
        ]});
        kubectl
            .apply(&manifest.to_string())
            .expect("volume and claim can be made");
    }
}

impl Drop for LocalVolume {
    fn drop(&mut self) {
        let delete = [
            "delete",
            "persistentvolume",
            NAME,
            "--ignore-not-found",
            "--wait=false",
        ];
        if let Err(error) = Kubectl::new(self.namespace).run(&delete) {
            eprintln!("{error:#}");
        }
    }
}
