//! How a service is stopped: its pod drains before the StatefulSet hears of fewer.

use super::rollout::{Running, annotated, running, uid};
use super::*;

fn scale(fake: &FakeCluster, replicas: i32) {
    fake.edit(SERVICE, |service| {
        service["spec"]["replicas"] = replicas.into()
    });
}

/// Has the pod drain since so long ago.
fn drains_since(fake: &FakeCluster, seconds: i64) {
    let since = Timestamp::now() - k8s_openapi::jiff::SignedDuration::from_secs(seconds);
    fake.edit(POD, |pod| {
        pod["metadata"]["annotations"]["mediaservice.io/drain-since"] = since.to_string().into();
    });
}

fn wanted_pods(fake: &FakeCluster) -> Value {
    fake.get(STATEFUL_SET)["spec"]["replicas"].clone()
}

async fn is_stopped(fake: &FakeCluster) {
    eventually("no pod", PATIENCE, || match fake.get(POD) {
        Value::Null => Ok(()),
        _ => Err(fake.get(SERVICE)["status"].to_string()),
    })
    .await;
    becomes(fake, "Progressing", "False", "UpToDate").await;
    let rollout = fake.get(SERVICE)["status"]["rollout"].clone();
    assert_eq!(rollout, json!({"phase": "Idle", "updated": 0}));
    assert_eq!(wanted_pods(fake), 0);
}

#[tokio::test]
async fn a_service_that_is_stopped_drains_first_and_the_status_says_so() {
    let Running {
        server,
        fake,
        operator,
        first,
    } = running(3).await;
    scale(&fake, 0);
    let message = becomes(&fake, "Progressing", "True", "Draining").await;
    assert!(
        message.contains("cam-0") && message.contains("540 s"),
        "{message}"
    );
    assert_eq!(annotated(&fake), "true");
    let status = fake.get(SERVICE)["status"].clone();
    let rollout = &status["rollout"];
    assert_eq!(
        (&rollout["phase"], &rollout["pod"]),
        (&json!("ScalingDown"), &json!("cam-0"))
    );
    assert!(rollout["startedAt"].is_string(), "{rollout}");
    assert_eq!(status["desiredReplicas"], 0);
    assert_eq!(condition(&fake, SERVICE, "Ready").1, "Stopped");
    operator.look(3).await;
    assert_eq!((wanted_pods(&fake), uid(&fake)), (json!(1), first));
    server.says("Drained", 0);
    is_stopped(&fake).await;
    operator.stop().await;
}

#[tokio::test]
async fn one_that_is_wanted_again_meanwhile_keeps_its_pod_which_takes_sessions_again() {
    let Running {
        fake,
        operator,
        first,
        ..
    } = running(3).await;
    scale(&fake, 0);
    becomes(&fake, "Progressing", "True", "Draining").await;
    scale(&fake, 1);
    settled(&fake).await;
    assert_eq!((annotated(&fake), uid(&fake)), (Value::Null, first));
    assert_eq!(wanted_pods(&fake), 1);
    operator.stop().await;
}

#[tokio::test]
async fn a_pod_that_goes_for_good_has_the_time_of_the_spec_and_not_that_of_a_restart() {
    let Running {
        server,
        fake,
        operator,
        first,
        ..
    } = running(3).await;
    scale(&fake, 0);
    becomes(&fake, "Progressing", "True", "Draining").await;
    server.says("Draining", 3);
    drains_since(&fake, 500);
    operator.look(3).await;
    assert_eq!((wanted_pods(&fake), uid(&fake)), (json!(1), first));
    drains_since(&fake, 541);
    is_stopped(&fake).await;
    operator.stop().await;
}

#[tokio::test]
async fn a_changed_spec_does_not_replace_a_pod_that_goes() {
    let Running {
        server,
        fake,
        operator,
        first,
    } = running(3).await;
    fake.edit(SERVICE, |service| {
        service["spec"]["replicas"] = 0.into();
        service["spec"]["limits"] = json!({"sessionsPerPod": 50});
    });
    becomes(&fake, "Progressing", "True", "Draining").await;
    server.says("Draining", 3);
    // As long as a pod is waited for that another follows.
    drains_since(&fake, 60);
    operator.look(3).await;
    assert_eq!(uid(&fake), first);
    server.says("Drained", 0);
    is_stopped(&fake).await;
    operator.stop().await;
}

#[tokio::test]
async fn a_pod_that_serves_nobody_and_was_never_ready_is_waited_for_by_nobody() {
    let fake = cluster(json!({}));
    fake.new_pods_are(json!({}));
    let operator = Operator::start(&fake).await;
    becomes(&fake, "Progressing", "True", "StartingPods").await;
    scale(&fake, 0);
    is_stopped(&fake).await;
    operator.stop().await;
}

/// Waits until `Progressing` says so.
async fn progress_says(fake: &FakeCluster, words: &str) {
    eventually(words, PATIENCE, || {
        match condition(fake, SERVICE, "Progressing").2 {
            message if message.contains(words) => Ok(()),
            message => Err(message),
        }
    })
    .await;
}

#[tokio::test]
async fn an_idle_pod_that_does_not_hear_of_its_drain_goes_after_a_minute_and_the_status_says_so() {
    let Running {
        server,
        fake,
        operator,
        first,
    } = running(3).await;
    scale(&fake, 0);
    becomes(&fake, "Progressing", "True", "Draining").await;
    // An older server, which does not read the file of the annotation.
    drains_since(&fake, 61);
    progress_says(&fake, "pod cam-0 goes on taking sessions").await;
    progress_says(&fake, "after 90 s at the latest").await;
    assert_eq!((wanted_pods(&fake), uid(&fake)), (json!(1), first));
    server.idles();
    is_stopped(&fake).await;
    operator.stop().await;
}

#[tokio::test]
async fn a_pod_from_before_the_drain_goes_as_soon_as_it_serves_nobody() {
    let Running {
        server,
        fake,
        operator,
        ..
    } = running(3).await;
    fake.edit(POD, |pod| pod["spec"]["volumes"] = json!([]));
    server.idles();
    scale(&fake, 0);
    is_stopped(&fake).await;
    operator.stop().await;
}

#[tokio::test]
async fn a_pod_that_does_not_answer_has_its_time_and_the_status_says_so() {
    let fake = cluster(json!({}));
    // Nobody answers for its pod.
    let operator = Operator::start(&fake).await;
    settled(&fake).await;
    scale(&fake, 0);
    progress_says(
        &fake,
        "pod cam-0 was told to take no new sessions, and does not answer",
    )
    .await;
    progress_says(&fake, "after 540 s at the latest").await;
    assert_eq!(wanted_pods(&fake), 1);
    operator.stop().await;
}

#[tokio::test]
async fn a_pod_that_hangs_at_its_end_has_half_a_minute_and_not_the_time_of_its_drain() {
    let Running {
        server,
        fake,
        operator,
        ..
    } = running(3).await;
    fake.edit(POD, |pod| {
        pod["metadata"]["finalizers"] = json!(["example.com/hangs"]);
    });
    scale(&fake, 0);
    becomes(&fake, "Progressing", "True", "Draining").await;
    server.says("Drained", 0);
    let grace = "deletionGracePeriodSeconds";
    eventually(
        "a shorter end",
        PATIENCE,
        || match fake.get(POD)["metadata"][grace].clone() {
            now if now == 30 => Ok(()),
            now => Err(now.to_string()),
        },
    )
    .await;
    operator.look(3).await;
    let deleted = |write: &&Write| write.path == POD && write.method == axum::http::Method::DELETE;
    assert_eq!(writes(&fake).iter().filter(deleted).count(), 1);
    fake.edit(POD, |pod| pod["metadata"]["finalizers"] = json!([]));
    is_stopped(&fake).await;
    operator.stop().await;
}
