//! One MediaService in a namespace of its own.

use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use serde_json::Value;
use tests::{Kubectl, operator, wait_for};

use crate::turn::{self, Turn};

pub const NAME: &str = "cam";
/// Enough for images that are there to start on a busy machine.
pub const START: Duration = Duration::from_secs(180);
/// Until a child is as it should be again: what the product promises for each but the generated Secret.
pub const BACK: Duration = Duration::from_secs(10);

/// The next port of the node for media: two pods can't have the same.
static PORT: AtomicU16 = AtomicU16::new(8443);

pub struct Service {
    pub kubectl: Kubectl,
    /// Of its media, if it has HostPort.
    pub port: u16,
    _turn: Rc<Turn>,
}

impl Service {
    /// Applies a MediaService with this spec; HostPort gets a port of its own.
    pub fn apply(namespace: &str, spec: &str) -> Self {
        let turn = turn::shared();
        operator::install();
        let port = PORT.fetch_add(1, Ordering::Relaxed);
        let mut spec: Value = serde_yaml::from_str(spec).expect("the spec is YAML");
        if spec["media"]["exposure"] == "HostPort" && spec["media"]["port"].is_null() {
            spec["media"]["port"] = port.into();
        }
        let kubectl = Kubectl::new(namespace);
        kubectl
            .run(&["create", "namespace", namespace])
            .expect("the namespace is new");
        let service = Self {
            kubectl,
            port,
            _turn: turn,
        };
        let manifest = format!(
            "apiVersion: mediaservice.io/v1alpha1\nkind: MediaService\nmetadata: {{name: {NAME}}}\nspec: {spec}\n"
        );
        service
            .kubectl
            .apply(&manifest)
            .expect("the manifest is right");
        service
    }

    pub fn patch(&self, patch: &str) {
        let target = ["mediaservice", NAME];
        self.kubectl
            .merge(&target, patch)
            .expect("the patch is right");
    }

    /// The condition `kind`, if it is `status` for the present spec.
    ///
    /// # Errors
    /// What the status is instead.
    pub fn condition_now(&self, kind: &str, status: &str) -> anyhow::Result<Value> {
        let resource = self.kubectl.get(&["mediaservice", NAME])?;
        let found = &resource["status"];
        let current = found["observedGeneration"] == resource["metadata"]["generation"];
        let mut conditions = found["conditions"].as_array().into_iter().flatten();
        match conditions.find(|condition| condition["type"] == kind) {
            Some(condition) if current && condition["status"] == status => Ok(condition.clone()),
            _ => bail!("{found}"),
        }
    }

    /// The message of the condition `kind`, if it is `status` for that reason.
    ///
    /// # Errors
    /// What the condition or the status is instead.
    pub fn reason_now(&self, kind: &str, status: &str, reason: &str) -> anyhow::Result<String> {
        let condition = self.condition_now(kind, status)?;
        match condition["message"].as_str() {
            Some(message) if condition["reason"] == reason => Ok(message.to_owned()),
            _ => bail!("{condition}"),
        }
    }

    /// Waits until the condition `kind` is `status` and returns it.
    pub async fn condition(&self, kind: &str, status: &str, within: Duration) -> Value {
        wait_for(&format!("{kind} to be {status}"), within, || async {
            self.condition_now(kind, status)
        })
        .await
    }

    /// Waits until the condition `kind` is `status` for that reason, and returns its message: another may
    /// come first, as for the seconds in which a new definition is not yet known to all of the API server.
    pub async fn reason(&self, kind: &str, status: &str, reason: &str) -> String {
        wait_for(&format!("{kind} to say {reason}"), START, || async {
            self.reason_now(kind, status, reason)
        })
        .await
    }

    /// Deletes a child and waits for the next of that name, for no longer than the product promises.
    pub async fn restores(&self, kind: &str, name: &str) {
        let uid = |object: &Value| object["metadata"]["uid"].clone();
        let before = self.kubectl.get(&[kind, name]).expect("it is there");
        // A wait of kubectl's for the old one to be gone would not count.
        let delete = ["delete", kind, name, "--wait=false"];
        self.kubectl.run(&delete).expect("it can be deleted");
        let deleted = Instant::now();
        wait_for(&format!("{kind} {name} to be back"), BACK, || async {
            let now = self.kubectl.get(&[kind, name])?;
            ensure!(uid(&now) != uid(&before), "the old one is still there");
            Ok::<_, anyhow::Error>(())
        })
        .await;
        println!("{kind} {name}: back after {:?}", deleted.elapsed());
    }

    /// Waits until it is ready and nothing is under way.
    pub async fn settled(&self) {
        self.condition("Ready", "True", START).await;
        self.condition("Progressing", "False", START).await;
    }
}

/// Name, uid and restarts of the operator's pods that are not about to end.
pub fn operator_pods() -> anyhow::Result<Vec<(String, String, u64)>> {
    let kubectl = Kubectl::new(operator::NAMESPACE);
    let selector = "--selector=app.kubernetes.io/component=operator";
    let pods = kubectl.get(&["pods", selector])?;
    let pods = pods["items"].as_array().into_iter().flatten();
    let alive = pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let restarts = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_u64();
    Ok(alive
        .map(|pod| {
            let metadata = &pod["metadata"];
            (
                text(&metadata["name"]),
                text(&metadata["uid"]),
                restarts(pod).unwrap_or(0),
            )
        })
        .collect())
}

impl Drop for Service {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for args in [
                &["describe", "mediaservice", NAME][..],
                &["get", "pods,statefulsets,events", "-o", "wide"],
                &["logs", "cam-0", "--tail=40"],
            ] {
                eprintln!("--- kubectl {}", args.join(" "));
                match self.kubectl.run(args) {
                    Ok(text) => eprintln!("{text}"),
                    Err(error) => eprintln!("{error:#}"),
                }
            }
        }
        if let Err(error) = operator::leave(&self.kubectl) {
            eprintln!("{error:#}");
        }
    }
}
