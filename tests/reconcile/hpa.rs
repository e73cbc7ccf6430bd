//! An autoscaler of Kubernetes on a MediaService. It reads and writes `/scale`, as of any other kind.

use std::time::Duration;

use anyhow::{bail, ensure};
use serde_json::Value;
use tests::wait_for;

use crate::service::{NAME, START, Service};

/// Four rounds of the autoscaler, which looks every 15 s.
const ROUNDS: Duration = Duration::from_secs(60);

/// Without metrics, which the cluster has not: it keeps to its bounds before it looks at any.
const AUTOSCALER: &str = "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: cam}\n\
    spec: {minReplicas: 1, maxReplicas: 2, \
    scaleTargetRef: {apiVersion: mediaservice.io/v1alpha1, kind: MediaService, name: cam}}\n";

/// Waits until the autoscaler says that; returns its words and its `status`.
async fn says(service: &Service, kind: &str, status: &str, reason: &str) -> (String, Value) {
    wait_for(
        &format!("{kind} to be {status}, {reason}"),
        ROUNDS,
        || async {
            let found = service.kubectl.get(&["hpa", NAME])?["status"].clone();
            let mut conditions = found["conditions"].as_array().into_iter().flatten();
            let said = conditions.find(|condition| condition["type"] == kind);
            match said {
                Some(said) if said["status"] == status && said["reason"] == reason => {
                    let words = said["message"].as_str().unwrap_or_default().to_owned();
                    Ok((words, found))
                }
                _ => bail!("{found}"),
            }
        },
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_autoscaler_reads_and_writes_scale_and_is_told_why_when_it_can_not_have_more() {
    let service = Service::apply("reconcile-hpa", "{media: {exposure: HostPort}}");
    service.settled().await;
    let resource = || service.kubectl.get(&["mediaservice", NAME]);
    let before = resource().expect("it is there");
    let pod = || anyhow::Ok(service.kubectl.get(&["pod", "cam-0"])?["metadata"]["uid"].clone());
    let first = pod().expect("it is there");
    service.kubectl.apply(AUTOSCALER).expect("it is right");
    // What the spec has is within the bounds: then it looks for the metrics of the pods that /scale selects.
    let (words, status) = says(
        &service,
        "ScalingActive",
        "False",
        "FailedGetResourceMetric",
    )
    .await;
    println!("{words}");
    assert_eq!(status["currentReplicas"], 1, "{status}");

    let least = |least: u32| {
        let patch = format!(r#"{{"spec":{{"minReplicas":{least}}}}}"#);
        let merged = service.kubectl.merge(&["hpa", NAME], &patch);
        merged.expect("it can be changed");
    };
    least(2);
    let (words, _) = says(&service, "AbleToScale", "False", "FailedUpdateScale").await;
    assert!(words.contains("replicas can be 0 or 1 for now"), "{words}");
    let now = resource().expect("it is there");
    assert_eq!(now["spec"], before["spec"]);
    assert_eq!(
        now["metadata"]["generation"],
        before["metadata"]["generation"]
    );
    service.settled().await;
    assert_eq!(pod().expect("it is there"), first, "nothing was done");

    // A service that is stopped is no autoscaler's, and the operator keeps what was written.
    least(1);
    let zero = ["scale", "mediaservice", NAME, "--replicas=0"];
    service.kubectl.run(&zero).expect("it may be");
    says(&service, "ScalingActive", "False", "ScalingDisabled").await;
    service.reason("Ready", "False", "Stopped").await;
    wait_for("no pod", START, || async {
        let uid = pod();
        ensure!(uid.is_err(), "{uid:?}");
        Ok::<_, anyhow::Error>(())
    })
    .await;
    let stopped = resource().expect("it is there");
    let counts = (&stopped["spec"]["replicas"], &stopped["status"]["replicas"]);
    assert_eq!(counts, (&0.into(), &0.into()));
    let managers = service
        .kubectl
        .get(&["mediaservice", NAME, "--show-managed-fields"]);
    let managers = managers.expect("it is there")["metadata"]["managedFields"].clone();
    for entry in managers.as_array().into_iter().flatten() {
        let of_operator = entry["manager"]
            .as_str()
            .unwrap_or_default()
            .starts_with("mediaservice-operator");
        assert!(
            !of_operator || entry["fieldsV1"]["f:spec"].is_null(),
            "{entry}"
        );
    }
}
