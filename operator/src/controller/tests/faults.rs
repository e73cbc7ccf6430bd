//! What fails around the operator: refusals, other leaders, and its own absence.

use super::*;
use crate::lease::{Contender, Held, Timings};
use crate::testing::cluster::ready_status;

#[tokio::test]
async fn a_refused_child_shows_in_the_api_servers_words_and_nothing_is_pruned_meanwhile() {
    let fake = cluster(json!({}));
    let operator = Operator::start(&fake).await;
    settled(&fake).await;
    let dashboard = "/api/v1/namespaces/media/configmaps/cam-dashboard-overview";
    assert_ne!(fake.get(dashboard), Value::Null);
    fake.refuse_writes("/apis/networking.k8s.io", 422);
    fake.edit(SERVICE, |service| {
        service["spec"]["signalling"] = json!({"ingress": {"host": "media.example.com"}});
        service["spec"]["monitoring"] = json!({"dashboards": {"enabled": false}});
    });
    let message = becomes(&fake, "Degraded", "True", "ApplyRejected").await;
    assert_eq!(message, "failed to apply Ingress cam: fake", "and once");
    becomes(&fake, "Ready", "False", "SignallingNotReady").await;
    assert_ne!(
        fake.get(dashboard),
        Value::Null,
        "the build before is not all replaced yet"
    );
    fake.mend("/apis/networking.k8s.io");
    settled(&fake).await;
    assert_eq!(fake.get(dashboard), Value::Null);
    operator.stop().await;
}

#[tokio::test]
async fn nothing_is_pruned_while_a_list_fails() {
    let fake = cluster(json!({}));
    let operator = Operator::start(&fake).await;
    settled(&fake).await;
    let before = writes(&fake);
    fake.fail("/api/v1/namespaces/media/configmaps", 500);
    fake.edit(SERVICE, |service| {
        service["spec"]["monitoring"] = json!({"dashboards": {"enabled": false}})
    });
    eventually("failures", PATIENCE, || {
        let text = String::from_utf8(operator.context.metrics.render()).unwrap();
        let failed =
            text.contains("mediaservice_operator_reconcile_errors_total{reason=\"ReadFailed\"} 2");
        if failed { Ok(()) } else { Err(text) }
    })
    .await;
    let message = becomes(&fake, "Degraded", "True", "ReadFailed").await;
    assert!(
        message.contains("configmaps") && message.contains("fake"),
        "{message}"
    );
    assert_eq!(condition(&fake, SERVICE, "Progressing").1, "Stalled");
    assert_eq!(condition(&fake, SERVICE, "Ready").1, "Accepting");
    let meanwhile = writes(&fake).split_off(before.len());
    let of_status = |write: &Write| write.path.ends_with("/mediaservices/cam/status");
    assert!(meanwhile.iter().all(of_status), "{meanwhile:?}");
    assert_eq!(meanwhile.len(), 1, "the same is said once: {meanwhile:?}");
    fake.mend("/api/v1/namespaces/media/configmaps");
    eventually("the dashboard to go", PATIENCE, || {
        match fake.get("/api/v1/namespaces/media/configmaps/cam-dashboard-overview") {
            Value::Null => Ok(()),
            found => Err(found.to_string()),
        }
    })
    .await;
    settled(&fake).await;
    becomes(&fake, "Degraded", "False", "AsExpected").await;
    operator.stop().await;
}

/// `status` of a pod that waits for its volumes.
fn waiting() -> Value {
    json!({"containerStatuses": [{
        "name": "media-server", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": {"reason": "ContainerCreating"}},
    }]})
}

/// Has the reason for a failure told in other words, and the operator look at them, four times: that the
/// first status was written ten seconds ago meanwhile is one write, and for each of them is too many.
async fn other_words_are_held_back(operator: &Operator, reword: impl Fn(u64)) {
    let fake = &operator.fake;
    let count = || {
        let of_status = |write: &&Write| write.path.ends_with("/mediaservices/cam/status");
        writes(fake).iter().filter(of_status).count()
    };
    let before = count();
    for n in 1..=4 {
        reword(n);
        operator.look(1).await;
    }
    let written = count() - before;
    assert!(written <= 1, "{written} writes for four times other words");
}

#[tokio::test]
async fn a_missing_secret_is_named_and_ever_other_words_of_the_kubelet_are_no_hot_loop() {
    let fake = cluster(json!({"clusterKeySecretRef": {"name": "my-keys", "key": "root"}}));
    fake.new_pods_are(waiting());
    let event = "/api/v1/namespaces/media/events/e1";
    let operator = Operator::start(&fake).await;
    let pod = eventually("the pod", PATIENCE, || match fake.get(POD) {
        Value::Null => Err("none".to_owned()),
        pod => Ok(pod),
    })
    .await;
    let say = |n: u64| {
        fake.put(event, json!({
            "metadata": {}, "type": "Warning", "reason": "FailedMount",
            "message": format!("MountVolume.SetUp failed: secret \"my-keys\" not found (try {n})"),
            "involvedObject": {"kind": "Pod", "name": "cam-0", "uid": pod["metadata"]["uid"]},
        }));
        // As the kubelet does, whose status of the pod the operator watches.
        fake.edit(POD, |pod| {
            pod["status"]["startTime"] = format!("2026-01-01T00:00:{:02}Z", n % 60).into()
        });
    };
    say(0);
    let message = becomes(&fake, "Degraded", "True", "MountFailed").await;
    let command = "kubectl -n media create secret generic my-keys --from-file=root=FILE";
    assert!(message.contains(command), "{message}");
    other_words_are_held_back(&operator, say).await;
    fake.edit(POD, |pod| pod["status"] = ready_status("127.0.0.1"));
    settled(&fake).await;
    operator.stop().await;
}

#[tokio::test]
async fn a_pod_that_crashes_with_ever_other_last_words_is_no_hot_loop() {
    let fake = cluster(json!({}));
    fake.new_pods_are(waiting());
    let operator = Operator::start(&fake).await;
    eventually("the pod", PATIENCE, || match fake.get(POD) {
        Value::Null => Err("none".to_owned()),
        _ => Ok(()),
    })
    .await;
    let crash = |n: u64| {
        fake.edit(POD, |pod| {
            pod["status"]["containerStatuses"][0]["lastState"] = json!({"terminated": {
                "exitCode": 2, "reason": "Error", "message": format!("{{\"ts\":{n},\"msg\":\"no key\"}}"),
            }});
        });
    };
    crash(0);
    let message = becomes(&fake, "Degraded", "True", "PodCrashLooping").await;
    assert!(message.contains("no key"), "{message}");
    other_words_are_held_back(&operator, crash).await;
    operator.stop().await;
}

#[tokio::test]
async fn other_words_that_come_too_soon_are_written_soon_after_also_while_paused() {
    let route = json!({"hostnames": ["media.example.com"], "parentRefs": [{"name": "gateway"}]});
    let fake = cluster(json!({"signalling": {"httpRoute": route}}));
    let operator = Operator::start(&fake).await;
    becomes(&fake, "Progressing", "False", "UpToDate").await;
    let routes = "/apis/gateway.networking.k8s.io/v1/namespaces/media/httproutes/cam";
    let refuse = |words: &str| {
        fake.edit(routes, |route| {
            let refused = json!({"type": "Accepted", "status": "False", "message": words});
            route["status"] = json!({"parents": [{"conditions": [refused]}]});
        });
    };
    let says = async |words: &str| {
        eventually(words, PATIENCE, || {
            match condition(&fake, SERVICE, "Ready").2 {
                message if message.ends_with(words) => Ok(()),
                message => Err(message),
            }
        })
        .await;
    };
    refuse("one");
    says("one").await;
    refuse("two");
    says("two").await;
    fake.edit(SERVICE, |service| service["spec"]["paused"] = true.into());
    becomes(&fake, "Paused", "True", "Paused").await;
    refuse("three");
    says("three").await;
    operator.stop().await;
}

#[tokio::test]
async fn a_pod_without_an_address_to_tell_clients_says_what_is_missing_and_no_more_is_written() {
    // This operator may not read nodes.
    let fake = cluster(json!({"media": {"exposure": "HostPort"}}));
    let operator = Operator::start(&fake).await;
    let message = becomes(&fake, "AddressesReady", "False", "NodeAddressMissing").await;
    assert!(message.contains("externalAddresses"), "{message}");
    becomes(&fake, "Ready", "False", "AddressesPending").await;
    becomes(&fake, "Progressing", "False", "UpToDate").await;
    operator.look(1).await;
    let before = writes(&fake);
    operator.look(5).await;
    assert_eq!(writes(&fake), before);
    operator.stop().await;
}

#[tokio::test]
async fn what_happened_while_no_operator_ran_is_mended_by_the_next_and_nothing_is_rolled_back() {
    let fake = cluster(json!({}));
    let operator = Operator::start(&fake).await;
    settled(&fake).await;
    operator.stop().await;
    let before = writes(&fake).len();
    // A crash: the StatefulSet makes the next pod by itself.
    fake.delete(POD);
    let pod = fake.get(POD)["metadata"]["uid"].clone();
    fake.delete(PODS_SERVICE);
    fake.edit(SERVICE, |service| {
        service["spec"]["media"]["externalAddresses"] = json!(["203.0.113.2"]);
    });
    assert_eq!(writes(&fake).len(), before, "nobody is there to write");
    let operator = Operator::start(&fake).await;
    eventually("the new address", PATIENCE, || {
        let media = fake.get(SERVICE)["status"]["addresses"]["media"].clone();
        match media[0].as_str() {
            Some(address) if address.starts_with("203.0.113.2:") => Ok(()),
            _ => Err(media.to_string()),
        }
    })
    .await;
    settled(&fake).await;
    assert_ne!(fake.get(PODS_SERVICE), Value::Null);
    assert_eq!(
        fake.get(POD)["metadata"]["uid"],
        pod,
        "the pod that came meanwhile stays"
    );
    operator.stop().await;
}

const FAST: Timings = Timings {
    valid: Duration::from_millis(1500),
    deadline: Duration::from_millis(900),
    retry: Duration::from_millis(100),
};

/// A contender of that name, and the client that it lets write.
fn contender(fake: &FakeCluster, name: &str) -> (Contender, Client) {
    let client = fake.client_named(name);
    let contender = Contender::new(client.clone(), "system", name, FAST);
    let fenced = contender.fence().around(client);
    (contender, fenced)
}

async fn leads(contender: &Contender) -> Held {
    tokio::time::timeout(PATIENCE, contender.acquire())
        .await
        .expect("it leads in time")
}

#[tokio::test]
async fn of_two_operators_one_writes_and_a_partitioned_leader_has_stopped_before_the_next_begins() {
    let fake = cluster(json!({}));
    let (one, client) = contender(&fake, "one");
    let mut held = leads(&one).await;
    let first = Operator::with(&fake, client, Loads::at(1)).await;
    let renewing = tokio::spawn(async move { one.renew(&mut held).await });
    settled(&fake).await;

    let (two, client) = contender(&fake, "two");
    let waiting = tokio::spawn(async move { (leads(&two).await, two) });
    fake.cut_off("one");
    let why = tokio::time::timeout(PATIENCE, renewing)
        .await
        .expect("in time")
        .expect("no panic");
    assert_eq!(why, "the Lease could not be renewed in time");
    assert!(!waiting.is_finished(), "the second leads only later");
    // `main` ends the process here. That it was stopped instead, and goes on, changes nothing:
    fake.heal("one");
    let before = writes(&fake);
    fake.delete(PODS_SERVICE);
    let (mut held, two) = tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("in time")
        .expect("no panic");
    let second = Operator::with(&fake, client, Loads::at(1)).await;
    let renewing = tokio::spawn(async move { two.renew(&mut held).await });
    eventually("the second to mend it", PATIENCE, || {
        match fake.get(PODS_SERVICE) {
            Value::Null => Err("not there".into()),
            _ => Ok(()),
        }
    })
    .await;
    eventually("the first to have tried", PATIENCE, || {
        let text = String::from_utf8(first.context.metrics.render()).unwrap();
        let none = text.contains("mediaservice_operator_reconciles_total{result=\"error\"} 0");
        if none { Err(text) } else { Ok(()) }
    })
    .await;
    let after = writes(&fake).split_off(before.len());
    assert!(after.iter().all(|write| write.client == "two"), "{after:?}");
    renewing.abort();
    second.stop().await;
}
