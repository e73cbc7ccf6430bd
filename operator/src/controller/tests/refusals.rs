//! What is refused must not stand in the way of the pods, and shows in the status.

use super::rollout::{Running, annotated, is_replaced, running, uid};
use super::*;

const CONFIG_MAPS: &str = "/api/v1/namespaces/media/configmaps";
const INGRESSES: &str = "/apis/networking.k8s.io";

fn change(fake: &FakeCluster, spec: Value) {
    fake.edit(SERVICE, |service| {
        for (key, value) in spec.as_object().into_iter().flatten() {
            service["spec"][key] = value.clone();
        }
    });
}

/// Has the operator wait for minutes at the next failure.
fn has_failed_often(operator: &Operator) {
    let key = ObjectRef::new("cam").within("media");
    let mut failures = operator.context.failures.lock().unwrap();
    failures.insert(key, 9);
}

fn ingress() -> Value {
    json!({"ingress": {"host": "media.example.com"}})
}

async fn takes_sessions_again(fake: &FakeCluster) {
    eventually("no drain", PATIENCE, || match annotated(fake) {
        Value::Null => Ok(()),
        found => Err(format!("{found}, {}", fake.get(SERVICE)["status"])),
    })
    .await;
}

#[tokio::test]
async fn a_drain_is_taken_back_also_while_another_child_is_refused() {
    let Running {
        fake,
        operator,
        first,
        ..
    } = running(3).await;
    fake.refuse_writes(INGRESSES, 422);
    change(&fake, json!({"signalling": ingress()}));
    becomes(&fake, "Degraded", "True", "ApplyRejected").await;
    change(&fake, json!({"replicas": 0}));
    becomes(&fake, "Progressing", "True", "Draining").await;
    assert_eq!(annotated(&fake), "true");
    change(&fake, json!({"replicas": 1}));
    takes_sessions_again(&fake).await;
    becomes(&fake, "Degraded", "True", "ApplyRejected").await;
    assert_eq!(uid(&fake), first);
    operator.stop().await;
}

#[tokio::test]
async fn a_pod_is_replaced_in_its_time_where_the_stateful_set_was_applied_before_the_refusal() {
    let Running {
        server,
        fake,
        operator,
        first,
    } = running(3).await;
    fake.refuse_writes(INGRESSES, 422);
    has_failed_often(&operator);
    let limits = json!({"sessionsPerPod": 50});
    change(&fake, json!({"signalling": ingress(), "limits": limits}));
    becomes(&fake, "Degraded", "True", "ApplyRejected").await;
    becomes(&fake, "Progressing", "True", "Draining").await;
    server.says("Drained", 0);
    is_replaced(&fake, &first).await;
    operator.stop().await;
}

#[tokio::test]
async fn a_pod_that_can_not_be_replaced_yet_takes_sessions_meanwhile() {
    let Running {
        server,
        fake,
        operator,
        first,
    } = running(3).await;
    change(&fake, json!({"limits": {"sessionsPerPod": 50}}));
    becomes(&fake, "Progressing", "True", "Draining").await;
    fake.refuse_writes(CONFIG_MAPS, 422);
    change(&fake, json!({"limits": {"sessionsPerPod": 60}}));
    becomes(&fake, "Degraded", "True", "ApplyRejected").await;
    takes_sessions_again(&fake).await;
    assert_eq!(uid(&fake), first);
    fake.mend(CONFIG_MAPS);
    becomes(&fake, "Progressing", "True", "Draining").await;
    server.says("Drained", 0);
    is_replaced(&fake, &first).await;
    settled(&fake).await;
    operator.stop().await;
}

#[tokio::test]
async fn a_service_is_stopped_in_its_time_while_a_child_before_the_stateful_set_is_refused() {
    let Running {
        server,
        fake,
        operator,
        ..
    } = running(3).await;
    fake.refuse_writes(CONFIG_MAPS, 422);
    has_failed_often(&operator);
    let limits = json!({"sessionsPerPod": 50});
    change(&fake, json!({"replicas": 0, "limits": limits}));
    becomes(&fake, "Progressing", "True", "Draining").await;
    becomes(&fake, "Degraded", "True", "ApplyRejected").await;
    server.says("Drained", 0);
    eventually("no pod", PATIENCE, || match fake.get(POD) {
        Value::Null => Ok(()),
        _ => Err(fake.get(SERVICE)["status"].to_string()),
    })
    .await;
    operator.stop().await;
}

/// How often the event of that reason was told.
fn told(fake: &FakeCluster, reason: &str) -> usize {
    let events = fake.list("events").into_iter();
    events.filter(|event| event["reason"] == reason).count()
}

#[tokio::test]
async fn a_pod_that_can_not_be_told_to_drain_shows_and_all_else_is_applied() {
    let Running {
        server,
        fake,
        operator,
        first,
    } = running(3).await;
    fake.refuse_writes(POD, 403);
    change(&fake, json!({"replicas": 0, "signalling": ingress()}));
    let message = becomes(&fake, "Degraded", "True", "PodDrainFailed").await;
    assert!(
        message.contains("cam-0") && message.contains("fake"),
        "{message}"
    );
    let ingress = "/apis/networking.k8s.io/v1/namespaces/media/ingresses/cam";
    assert_ne!(fake.get(ingress), Value::Null);
    assert_eq!(fake.get(STATEFUL_SET)["spec"]["replicas"], 1);
    assert_eq!(uid(&fake), first);
    assert_eq!(told(&fake, "DrainingPod"), 0, "it does not drain");
    fake.mend(POD);
    becomes(&fake, "Progressing", "True", "Draining").await;
    server.says("Drained", 0);
    becomes(&fake, "Progressing", "False", "UpToDate").await;
    becomes(&fake, "Degraded", "False", "AsExpected").await;
    for reason in ["DrainingPod", "StoppingPod"] {
        assert_eq!(told(&fake, reason), 1, "{reason}");
    }
    operator.stop().await;
}

#[tokio::test]
async fn a_pod_that_can_not_be_deleted_shows_and_nobody_is_told_that_it_was() {
    let Running {
        server,
        fake,
        operator,
        first,
    } = running(3).await;
    change(&fake, json!({"limits": {"sessionsPerPod": 50}}));
    becomes(&fake, "Progressing", "True", "Draining").await;
    fake.refuse_writes(POD, 403);
    server.says("Drained", 0);
    let message = becomes(&fake, "Degraded", "True", "PodDeleteFailed").await;
    assert!(
        message.contains("cam-0") && message.contains("fake"),
        "{message}"
    );
    assert_eq!(told(&fake, "ReplacingPod"), 0);
    fake.mend(POD);
    is_replaced(&fake, &first).await;
    settled(&fake).await;
    assert_eq!(told(&fake, "ReplacingPod"), 1);
    operator.stop().await;
}
