//! How pods come to have another spec: the drain, and what an upgrade of the operator leaves alone.

use super::*;
use crate::crd::RolloutPolicy;
use crate::hash;
use crate::testing::cluster::ready_status;
use std::net::SocketAddr;
use std::path::PathBuf;

/// A pod's `/load`, which says what a test wants.
pub struct Server {
    says: Arc<Mutex<Value>>,
    address: SocketAddr,
}

impl Server {
    async fn start(state: &str, viewers: u32) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let says = Arc::new(Mutex::new(Value::Null));
        let answer = says.clone();
        let load = move || async move { axum::Json(answer.lock().unwrap().clone()) };
        let routes = axum::Router::new().route("/load", axum::routing::get(load));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let server = Self { says, address };
        server.says(state, viewers);
        server
    }

    /// Where the operator finds it.
    fn loads(&self) -> Loads {
        Loads::at(self.address.port())
    }

    /// It serves nobody, and does not know of any drain.
    pub fn idles(&self) {
        *self.says.lock().unwrap() =
            json!({"v": 1, "state": "Accepting", "publishers": 0, "viewers": 0});
    }

    pub fn says(&self, state: &str, viewers: u32) {
        *self.says.lock().unwrap() =
            json!({"v": 1, "state": state, "publishers": 1, "viewers": viewers, "later": true});
    }
}

pub fn annotated(fake: &FakeCluster) -> Value {
    fake.get(POD)["metadata"]["annotations"]["mediaservice.io/drain"].clone()
}

pub fn uid(fake: &FakeCluster) -> Value {
    fake.get(POD)["metadata"]["uid"].clone()
}

/// A cluster at rest, whose pod has that many viewers; the uid is the pod's.
pub struct Running {
    pub server: Server,
    pub fake: FakeCluster,
    pub operator: Operator,
    pub first: Value,
}

pub async fn running(viewers: u32) -> Running {
    let server = Server::start("Accepting", viewers).await;
    let fake = cluster(json!({}));
    let operator = Operator::with(&fake, fake.client(), server.loads()).await;
    settled(&fake).await;
    let first = uid(&fake);
    Running {
        server,
        fake,
        operator,
        first,
    }
}

/// Less than a drain before a restart takes that nothing ends before its bound.
fn half_a_drain() -> Duration {
    drain::before_restart(&RolloutPolicy::default()) / 2
}

/// Waits for another pod.
pub async fn is_replaced(fake: &FakeCluster, first: &Value) {
    eventually("another pod", half_a_drain(), || match uid(fake) {
        now if now != *first => Ok(()),
        now => Err(now.to_string()),
    })
    .await;
}

#[tokio::test]
async fn a_pod_drains_before_it_is_replaced_and_the_status_says_so() {
    let Running {
        server,
        fake,
        operator,
        first,
    } = running(3).await;
    fake.edit(SERVICE, |service| {
        service["spec"]["limits"] = json!({"sessionsPerPod": 50})
    });
    let message = becomes(&fake, "Progressing", "True", "Draining").await;
    assert!(message.contains("cam-0"), "{message}");
    assert_eq!(annotated(&fake), "true");
    let rollout = fake.get(SERVICE)["status"]["rollout"].clone();
    assert_eq!(
        (&rollout["phase"], &rollout["pod"]),
        (&json!("Rolling"), &json!("cam-0"))
    );
    assert!(rollout["startedAt"].is_string(), "{rollout}");
    operator.look(3).await;
    assert_eq!(uid(&fake), first, "it still has sessions");
    server.says("Drained", 0);
    is_replaced(&fake, &first).await;
    settled(&fake).await;
    let rollout = fake.get(SERVICE)["status"]["rollout"].clone();
    assert_eq!(rollout, json!({"phase": "Idle", "updated": 1}));
    operator.stop().await;
}

#[tokio::test]
async fn a_spec_that_is_changed_back_ends_the_drain_and_the_pod_stays() {
    let Running {
        fake,
        operator,
        first,
        ..
    } = running(3).await;
    let change =
        |sessions: Value| fake.edit(SERVICE, |service| service["spec"]["limits"] = sessions);
    change(json!({"sessionsPerPod": 50}));
    becomes(&fake, "Progressing", "True", "Draining").await;
    change(json!({}));
    settled(&fake).await;
    assert_eq!((annotated(&fake), uid(&fake)), (Value::Null, first));
    operator.stop().await;
}

#[tokio::test]
async fn while_paused_only_the_status_is_written_and_a_drain_stands_still() {
    let Running {
        server,
        fake,
        operator,
        first,
    } = running(3).await;
    fake.edit(SERVICE, |service| {
        service["spec"]["limits"] = json!({"sessionsPerPod": 50});
    });
    becomes(&fake, "Progressing", "True", "Draining").await;
    fake.edit(SERVICE, |service| service["spec"]["paused"] = true.into());
    eventually("Paused to be True", PATIENCE, || {
        match condition(&fake, SERVICE, "Paused").0 == "True" {
            true => Ok(()),
            false => Err(fake.get(SERVICE)["status"].to_string()),
        }
    })
    .await;
    let before = writes(&fake).len();
    server.says("Drained", 0);
    let child = "/api/v1/namespaces/media/services/cam-pods";
    fake.delete(child);
    fake.edit(SERVICE, |service| {
        service["spec"]["monitoring"] = json!({"dashboards": {"enabled": false}});
    });
    operator.look(3).await;
    let meanwhile = writes(&fake).split_off(before);
    let of_status = |write: &Write| write.path.ends_with("/mediaservices/cam/status");
    assert!(meanwhile.iter().all(of_status), "{meanwhile:?}");
    assert_eq!(
        (uid(&fake), annotated(&fake)),
        (first.clone(), json!("true"))
    );
    fake.edit(SERVICE, |service| service["spec"]["paused"] = false.into());
    is_replaced(&fake, &first).await;
    settled(&fake).await;
    assert_ne!(fake.get(child), Value::Null);
    operator.stop().await;
}

#[tokio::test]
async fn a_drain_goes_on_where_the_operator_before_has_left_it() {
    let Running {
        server,
        fake,
        operator,
        first,
    } = running(3).await;
    fake.edit(SERVICE, |service| {
        service["spec"]["limits"] = json!({"sessionsPerPod": 50})
    });
    becomes(&fake, "Progressing", "True", "Draining").await;
    operator.stop().await;
    // As long ago as a drain may take.
    fake.edit(POD, |pod| {
        pod["metadata"]["annotations"]["mediaservice.io/drain-since"] =
            "2026-01-01T00:00:00Z".into();
    });
    let operator = Operator::with(&fake, fake.client(), server.loads()).await;
    is_replaced(&fake, &first).await;
    settled(&fake).await;
    operator.stop().await;
}

#[tokio::test]
async fn a_bad_image_shows_and_its_correction_replaces_the_pod_at_once() {
    let fake = cluster(json!({}));
    let operator = Operator::start(&fake).await;
    settled(&fake).await;
    fake.new_pods_are(json!({"containerStatuses": [{
        "name": "media-server", "image": "none:1", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}},
    }]}));
    // The pod was ready, and nobody answers for it: the drain has to be over by itself.
    fake.edit(SERVICE, |service| {
        service["spec"]["image"] = "none:1".into()
    });
    becomes(&fake, "Progressing", "True", "Draining").await;
    fake.edit(POD, |pod| {
        pod["metadata"]["annotations"]["mediaservice.io/drain-since"] =
            "2026-01-01T00:00:00Z".into();
    });
    let message = becomes(&fake, "Degraded", "True", "ImagePullFailed").await;
    assert!(message.contains("none:1"), "{message}");
    assert_eq!(condition(&fake, SERVICE, "Ready").1, "NoPods");
    fake.new_pods_are(crate::testing::cluster::ready_status("127.0.0.1"));
    let corrected = Instant::now();
    fake.edit(SERVICE, |service| {
        service["spec"]["image"] = "media-server:2".into()
    });
    settled(&fake).await;
    assert!(corrected.elapsed() < half_a_drain(), "it waited for nobody");
    becomes(&fake, "Degraded", "False", "AsExpected").await;
    operator.stop().await;
}

#[tokio::test]
async fn what_pods_say_is_in_the_status_and_causes_no_other_write() {
    let Running {
        server,
        fake,
        operator,
        ..
    } = running(7).await;
    let status_is = async |field: &str, wanted: Value| {
        let now = || fake.get(SERVICE)["status"][field].clone();
        eventually(field, PATIENCE, || match now() {
            now if now == wanted => Ok(()),
            now => Err(now.to_string()),
        })
        .await;
    };
    let hash = fake.get(POD)["metadata"]["annotations"]["mediaservice.io/spec-hash"].clone();
    let pod = |state: &str| json!([{"name": "cam-0", "state": state, "publishers": 1, "viewers": 7, "specHash": hash}]);
    status_is("pods", pod("Accepting")).await;
    status_is("sessions", json!({"publishers": 1, "viewers": 7})).await;
    let counts = |write: &&Write| write.manager == sessions::FIELD_MANAGER;
    operator.look(2).await;
    let before = fake.writes();
    assert_eq!(before.iter().filter(counts).count(), 1, "{before:?}");
    operator.look(3).await;
    assert_eq!(fake.writes(), before);
    // Which it may by itself, after SIGTERM.
    server.says("Draining", 7);
    status_is("pods", pod("Draining")).await;
    operator.look(2).await;
    assert_eq!(fake.writes().len(), before.len() + 1);
    operator.stop().await;
}

/// Dumped from a cluster where the operator of b817760 ran, with all that the API server, the definition of that
/// time and the StatefulSet controller added. The others are what the operators of b817760 and of 2a4bb36, the last
/// that left a pod without `mediaservice.io/template-hash`, rendered.
const LIVE: &str = "live";

/// The objects that an operator before made, as it wrote them, with the pod that came of them.
fn before(name: &str) -> (FakeCluster, String, String) {
    let read = |file: &str| {
        let golden =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/operator/before");
        std::fs::read_to_string(golden.join(file)).unwrap()
    };
    let manifest: Value = serde_yaml::from_str(&read(&format!("{name}.service.yaml"))).unwrap();
    let (namespace, instance) = (
        manifest["metadata"]["namespace"]
            .as_str()
            .unwrap()
            .to_owned(),
        manifest["metadata"]["name"].as_str().unwrap().to_owned(),
    );
    let fake = FakeCluster::new();
    let at =
        format!("/apis/mediaservice.io/v1alpha1/namespaces/{namespace}/mediaservices/{instance}");
    fake.put(&at, manifest);
    for document in serde_yaml::Deserializer::from_str(&read(&format!("{name}.yaml"))) {
        let mut object: Value = serde::Deserialize::deserialize(document).unwrap();
        let kind = object["kind"].as_str().unwrap().to_lowercase();
        let plural = if kind == "ingress" {
            "ingresses".into()
        } else {
            format!("{kind}s")
        };
        let version = object["apiVersion"].as_str().unwrap().to_owned();
        let api = if version == "v1" {
            "/api/v1".to_owned()
        } else {
            format!("/apis/{version}")
        };
        let child = object["metadata"]["name"].as_str().unwrap().to_owned();
        let path = format!("{api}/namespaces/{namespace}/{plural}/{child}");
        if kind == "pod" {
            // In place of the one that the StatefulSet just got, and of the same revision.
            let made = fake.get(&path)["metadata"]["labels"]["controller-revision-hash"].clone();
            object["metadata"]["labels"]["controller-revision-hash"] = made;
            object["status"] = ready_status("127.0.0.1");
        } else if name != LIVE {
            // As it was applied: with the hash, which `operator render` leaves out.
            let applied = hash::of(&object);
            object["metadata"]["annotations"]["mediaservice.io/applied-hash"] = applied.into();
        }
        fake.put(&path, object);
    }
    let pod = format!("/api/v1/namespaces/{namespace}/pods/{instance}-0");
    (fake, at, pod)
}

#[tokio::test]
async fn an_upgrade_of_the_operator_deletes_no_pod_and_says_that_an_update_is_pending() {
    for name in ["minimal", "full", LIVE, "2a4bb36/minimal", "2a4bb36/full"] {
        let (fake, at, pod) = before(name);
        let old = fake.get(&pod);
        assert_ne!(old, Value::Null, "the release before had a pod");
        let operator = Operator::start(&fake).await;
        becomes_at(&fake, &at, "Progressing", "False", "OperatorUpdatePending").await;
        let now = fake.get(&pod);
        assert_eq!(
            now["metadata"], old["metadata"],
            "{name}: the pod is as it was"
        );
        let set = pod
            .replace("/api/v1/", "/apis/apps/v1/")
            .replace("/pods/", "/statefulsets/");
        let template = fake.get(set.trim_end_matches("-0"))["spec"]["template"].clone();
        let spec_hash = "mediaservice.io/spec-hash";
        assert_eq!(
            template["metadata"]["annotations"][spec_hash],
            old["metadata"]["annotations"][spec_hash],
            "{name}: the hash of the user's inputs"
        );
        let image = |pod: &Value| pod["spec"]["containers"][0]["image"].clone();
        assert_eq!(
            image(&template),
            image(&old),
            "{name}: the image of the pods"
        );
        let touched: Vec<Write> = writes(&fake)
            .into_iter()
            .filter(|write| {
                write.path.contains("/pods") || write.method == axum::http::Method::DELETE
            })
            .collect();
        assert_eq!(touched, [], "{name}");
        // The pod's own restart brings the new template.
        fake.delete(&pod);
        becomes_at(&fake, &at, "Progressing", "False", "UpToDate").await;
        operator.stop().await;
    }
}

#[tokio::test]
async fn an_upgrade_of_the_operator_replaces_pods_with_its_own_image_where_it_shall() {
    let (fake, at, pod) = before("minimal");
    let server = Server::start("Accepting", 3).await;
    let old = fake.get(&pod)["metadata"]["uid"].clone();
    let operator = Operator::with(&fake, fake.client(), server.loads()).await;
    becomes_at(&fake, &at, "Progressing", "False", "OperatorUpdatePending").await;
    fake.edit(&at, |service| {
        service["spec"]["rollout"] = json!({"onOperatorUpgrade": "Roll"});
    });
    becomes_at(&fake, &at, "Progressing", "True", "Draining").await;
    let status = fake.get(&at)["status"].clone();
    assert_eq!(status["rollout"]["phase"], "Rolling", "{status}");
    assert_eq!(status["rollout"]["updated"], 0, "{status}");
    assert_eq!(fake.get(&pod)["metadata"]["uid"], old, "it has sessions");
    server.says("Drained", 0);
    becomes_at(&fake, &at, "Progressing", "False", "UpToDate").await;
    let new = fake.get(&pod);
    assert_ne!(new["metadata"]["uid"], old);
    assert_eq!(new["spec"]["containers"][0]["image"], "media-server:new");
    assert_eq!(fake.get(&at)["status"]["rollout"]["updated"], 1);
    operator.stop().await;
}

#[tokio::test]
async fn another_drain_timeout_reaches_the_template_and_no_pod() {
    let Running {
        fake,
        operator,
        first,
        ..
    } = running(3).await;
    let grace = || {
        let set = fake.get(STATEFUL_SET);
        set["spec"]["template"]["spec"]["terminationGracePeriodSeconds"].clone()
    };
    assert_eq!(grace(), 570);
    for policy in ["Wait", "Roll"] {
        fake.edit(SERVICE, |service| {
            service["spec"]["rollout"] =
                json!({"drainTimeoutSeconds": 60, "onOperatorUpgrade": policy});
        });
        operator.look(2).await;
        settled(&fake).await;
        assert_eq!(
            (grace(), uid(&fake)),
            (json!(90), first.clone()),
            "{policy}"
        );
        assert_eq!(annotated(&fake), Value::Null, "{policy}");
    }
    operator.stop().await;
}
