//! The controller as it runs, against a cluster in this process.

mod exposures;
mod faults;
mod optional;
mod refusals;
mod rollout;
mod scaling;

use super::*;
use crate::capabilities;
use crate::testing::cluster::{FakeCluster, Write};
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::runtime::reflector::Store;
use serde_json::{Value, json};

pub const SERVICE: &str = "/apis/mediaservice.io/v1alpha1/namespaces/media/mediaservices/cam";
pub const STATEFUL_SET: &str = "/apis/apps/v1/namespaces/media/statefulsets/cam";
pub const PODS_SERVICE: &str = "/api/v1/namespaces/media/services/cam-pods";
pub const POD: &str = "/api/v1/namespaces/media/pods/cam-0";

/// Enough for anything here on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// What is edited is back after this time, says the product.
pub const BACK: Duration = Duration::from_secs(10);

/// One operator that runs until it is dropped.
pub struct Operator {
    fake: FakeCluster,
    pub context: Arc<Context>,
    stop: watch::Sender<bool>,
    running: tokio::task::JoinHandle<()>,
}

impl Operator {
    pub async fn start(fake: &FakeCluster) -> Self {
        Self::with(fake, fake.client(), Loads::at(1)).await
    }

    pub async fn with(fake: &FakeCluster, client: Client, loads: Loads) -> Self {
        Self::reading(fake, client, loads, None).await
    }

    /// The same with a cache of nodes.
    pub async fn reading(
        fake: &FakeCluster,
        client: Client,
        loads: Loads,
        nodes: Option<Store<Node>>,
    ) -> Self {
        let unknown = Served::all(Availability::Unknown);
        let (sender, served) = watch::channel(capabilities::discover_all(&client, unknown).await);
        let doubt = Arc::new(Notify::new());
        tokio::spawn(capabilities::watch(client.clone(), sender, doubt.clone()));
        let reporter = kube::runtime::events::Reporter {
            controller: apply::FIELD_MANAGER.into(),
            instance: None,
        };
        let recorder = Recorder::new(client.clone(), reporter);
        let reader = Reader {
            client,
            nodes,
            default_image: "media-server:new".into(),
            namespace: "mediaservice-system".into(),
        };
        let mut context = Context::new(reader, Metrics::new(), recorder, served, doubt);
        context.loads = loads;
        let context = Arc::new(context);
        let (stop, stopped) = watch::channel(false);
        let running = tokio::spawn({
            let context = context.clone();
            async move { run(context, &[], stopped).await }
        });
        Self {
            fake: fake.clone(),
            context,
            stop,
            running,
        }
    }

    /// Ends it as SIGTERM does.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        tokio::time::timeout(PATIENCE, self.running)
            .await
            .expect("it ends in time")
            .expect("it does not panic");
    }

    /// Reconciliations that went well so far.
    fn successes(&self) -> u64 {
        let text = String::from_utf8(self.context.metrics.render()).unwrap();
        let line = "mediaservice_operator_reconciles_total{result=\"success\"} ";
        let value = text.lines().find_map(|found| found.strip_prefix(line));
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    /// Has it look at everything `times` more.
    pub async fn look(&self, times: u64) {
        for _ in 0..times {
            let before = self.successes();
            self.fake.edit(SERVICE, |service| {
                service["metadata"]["annotations"]["example.com/look"] = before.to_string().into();
            });
            eventually("a reconciliation", PATIENCE, || match self.successes() {
                now if now > before => Ok(()),
                now => Err(now.to_string()),
            })
            .await;
        }
    }
}

/// A MediaService `cam` in `media` with this spec beside an address for clients.
pub fn service(spec: Value) -> Value {
    let mut service = json!({
        "apiVersion": "mediaservice.io/v1alpha1", "kind": "MediaService",
        "metadata": {"name": "cam", "namespace": "media"},
        "spec": {"media": {"exposure": "HostPort", "externalAddresses": ["203.0.113.1"]}},
    });
    for (key, value) in spec.as_object().into_iter().flatten() {
        service["spec"][key] = value.clone();
    }
    service
}

/// A cluster with that MediaService.
pub fn cluster(spec: Value) -> FakeCluster {
    let fake = FakeCluster::new();
    fake.put(SERVICE, service(spec));
    fake
}

/// Looks until `look` is content.
pub async fn eventually<T>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> T {
    let started = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if started.elapsed() >= within => {
                panic!("waited {within:?} for {what}; last seen: {seen}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Status, reason and message of a condition at `path`.
pub fn condition(fake: &FakeCluster, path: &str, kind: &str) -> (String, String, String) {
    let service = fake.get(path);
    let conditions = service["status"]["conditions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let found = conditions
        .into_iter()
        .find(|condition| condition["type"] == kind)
        .unwrap_or_default();
    let word = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    (word("status"), word("reason"), word("message"))
}

/// Waits until a condition has this status and reason; returns its message.
pub async fn becomes(fake: &FakeCluster, kind: &str, status: &str, reason: &str) -> String {
    becomes_at(fake, SERVICE, kind, status, reason).await
}

pub async fn becomes_at(
    fake: &FakeCluster,
    path: &str,
    kind: &str,
    status: &str,
    reason: &str,
) -> String {
    eventually(
        &format!("{kind} to be {status}, {reason}"),
        PATIENCE,
        || {
            let (now, why, message) = condition(fake, path, kind);
            if (now.as_str(), why.as_str()) == (status, reason) {
                Ok(message)
            } else {
                Err(format!("{}", fake.get(path)["status"]))
            }
        },
    )
    .await
}

/// Waits until it is ready and nothing is under way.
pub async fn settled(fake: &FakeCluster) {
    becomes(fake, "Ready", "True", "Accepting").await;
    becomes(fake, "Progressing", "False", "UpToDate").await;
}

/// The writes that are neither events nor what pods say: that they are silent is told after a while.
pub fn writes(fake: &FakeCluster) -> Vec<Write> {
    let mut writes = fake.writes();
    writes.retain(|write| {
        !write.path.contains("/events") && write.manager != sessions::FIELD_MANAGER
    });
    writes
}

#[test]
fn a_service_that_can_not_be_read_is_an_error_of_its_own_and_names_what_is_wrong() {
    let service = |exposure: &str| -> Guarded {
        serde_json::from_value(json!({
            "apiVersion": "mediaservice.io/v1alpha1", "kind": "MediaService",
            "metadata": {"name": "cam", "namespace": "media"},
            "spec": {"media": {"exposure": exposure}},
        }))
        .expect("a list goes on with the next object")
    };
    assert!(decoded(&service("HostPort")).is_ok());
    let unread = service("Gateway");
    assert_eq!(unread.name_any(), "cam");
    let error = decoded(&unread).expect_err("there is no such exposure here");
    assert_eq!(error.reason(), "InvalidSpec");
    assert!(with_sources(&error).contains("Gateway"), "{error}");
}

#[tokio::test]
async fn an_operator_that_finds_everything_as_it_should_be_writes_nothing() {
    let ingress = json!({"ingress": {"host": "media.example.com"}});
    let fake = cluster(json!({"signalling": ingress}));
    let first = Operator::start(&fake).await;
    settled(&fake).await;
    first.look(2).await;
    let before = writes(&fake);
    assert!(before.len() > 8, "{before:?}");
    first.look(5).await;
    first.stop().await;
    let second = Operator::start(&fake).await;
    second.look(5).await;
    assert_eq!(writes(&fake), before);
    second.stop().await;
}

#[tokio::test]
async fn what_is_edited_or_deleted_comes_back_and_fields_of_others_stay() {
    let fake = cluster(json!({}));
    let operator = Operator::start(&fake).await;
    settled(&fake).await;
    let path = "/api/v1/namespaces/media/services/cam";
    fake.edit(path, |service| {
        service["metadata"]["annotations"]["example.com/mine"] = "yes".into();
        service["metadata"]["labels"]["example.com/team"] = "video".into();
        service["spec"]["ports"][0]["port"] = 81.into();
    });
    eventually("the port to be back", BACK, || {
        match &fake.get(path)["spec"]["ports"][0]["port"] {
            port if *port == 80 => Ok(()),
            port => Err(port.to_string()),
        }
    })
    .await;
    let metadata = fake.get(path)["metadata"].clone();
    assert_eq!(metadata["annotations"]["example.com/mine"], "yes");
    assert_eq!(metadata["labels"]["example.com/team"], "video");
    for path in [
        path,
        STATEFUL_SET,
        "/api/v1/namespaces/media/configmaps/cam-config",
    ] {
        fake.delete(path);
        eventually("the deleted child", BACK, || match fake.get(path) {
            Value::Null => Err(format!("no {path}")),
            _ => Ok(()),
        })
        .await;
    }
    settled(&fake).await;
    operator.stop().await;
}

#[tokio::test]
async fn an_image_that_is_edited_by_hand_goes_back_to_the_one_that_was_chosen() {
    let fake = cluster(json!({}));
    let operator = Operator::start(&fake).await;
    settled(&fake).await;
    let image = "/spec/template/spec/containers/0/image";
    let found = || fake.get(STATEFUL_SET).pointer(image).cloned();
    let (chosen, pod) = (found(), fake.get(POD)["metadata"]["uid"].clone());
    assert_eq!(chosen, Some("media-server:new".into()));
    fake.edit(STATEFUL_SET, |set| {
        *set.pointer_mut(image).unwrap() = "other:1".into();
    });
    eventually("the image to be back", BACK, || {
        let found = found();
        (found == chosen)
            .then_some(())
            .ok_or_else(|| format!("{found:?}"))
    })
    .await;
    settled(&fake).await;
    assert_eq!(fake.get(POD)["metadata"]["uid"], pod);
    operator.stop().await;
}

#[tokio::test]
async fn a_pod_that_came_of_an_edited_template_is_replaced_once_and_one_that_a_webhook_changes_stays()
 {
    let fake = cluster(json!({}));
    let operator = Operator::start(&fake).await;
    settled(&fake).await;
    operator.stop().await;
    let image = "/spec/containers/0/image";
    let edited = |path: &str, at: &str, image: &str| {
        fake.edit(path, |object| {
            *object.pointer_mut(at).unwrap() = image.into()
        });
    };
    // Of each pod, by a webhook.
    edited(POD, image, "mirror.example.com/media-server:new");
    let first = fake.get(POD);
    let operator = Operator::start(&fake).await;
    operator.look(2).await;
    settled(&fake).await;
    assert_eq!(fake.get(POD), first);
    operator.stop().await;
    // The pod restarts before anybody undoes the edit.
    edited(STATEFUL_SET, &format!("/spec/template{image}"), "other:1");
    fake.delete(POD);
    assert_eq!(fake.get(POD).pointer(image), Some(&"other:1".into()));
    fake.edit(POD, |pod| pod["status"] = json!({}));
    let operator = Operator::start(&fake).await;
    let uid = eventually("a pod with the image", PATIENCE, || {
        let pod = fake.get(POD);
        match pod.pointer(image) {
            Some(image) if image == "media-server:new" => Ok(pod["metadata"]["uid"].clone()),
            image => Err(format!("{image:?}")),
        }
    })
    .await;
    settled(&fake).await;
    operator.look(2).await;
    assert_eq!(fake.get(POD)["metadata"]["uid"], uid);
    operator.stop().await;
}

#[tokio::test]
async fn nothing_that_belongs_to_another_is_pruned_or_taken_over() {
    let fake = cluster(json!({}));
    let labels = json!({
        "app.kubernetes.io/managed-by": "mediaservice-operator", "app.kubernetes.io/instance": "cam",
    });
    let owner = json!([{"apiVersion": "mediaservice.io/v1alpha1", "kind": "MediaService", "name": "cam",
        "uid": "another", "controller": true}]);
    let others = "/api/v1/namespaces/media/configmaps/cam-of-another";
    fake.put(
        others,
        json!({"metadata": {"labels": labels, "ownerReferences": owner}}),
    );
    let ours = "/api/v1/namespaces/media/configmaps/cam-old";
    let uid = fake.get(SERVICE)["metadata"]["uid"].clone();
    let mut own = owner.clone();
    own[0]["uid"] = uid;
    fake.put(
        ours,
        json!({"metadata": {"labels": labels, "ownerReferences": own}}),
    );
    let operator = Operator::start(&fake).await;
    settled(&fake).await;
    assert_eq!(fake.get(ours), Value::Null, "what we once made goes");
    assert_ne!(fake.get(others), Value::Null);
    let taken = "/api/v1/namespaces/media/services/cam-pods";
    fake.edit(taken, |service| {
        service["metadata"]["ownerReferences"] = owner.clone()
    });
    becomes(&fake, "Degraded", "True", "NameTaken").await;
    assert_eq!(fake.get(taken)["metadata"]["ownerReferences"], owner);
    operator.stop().await;
}
