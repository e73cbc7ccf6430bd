//! A pod is told to drain before it is replaced or goes for good, and hears it through its own files.

use std::time::{Duration, Instant};

use anyhow::ensure;
use client::{Codec, Http, HttpOptions, Options, Publisher};
use serde_json::{Value, json};
use tests::wait_for;

use crate::service::{NAME, START, Service};

/// Longest wait for sessions, as the operator has it.
const BOUND: Duration = Duration::from_secs(30);
/// Until what was decided at the bound shows: the pod's end, and the next pod.
const MORE: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(20);
/// A packet to a Service that no node knows of yet may be lost.
const ANSWER: Duration = Duration::from_secs(2);

const CHANGE: &str = r#"{"spec":{"limits":{"sessionsPerPod":50}}}"#;

struct Pod<'a>(&'a Service);

impl Pod<'_> {
    fn get(&self) -> anyhow::Result<Value> {
        self.0.kubectl.get(&["pod", "cam-0"])
    }

    fn uid(&self) -> anyhow::Result<Value> {
        Ok(self.get()?["metadata"]["uid"].clone())
    }

    fn address(&self) -> String {
        let pod = self.get().expect("the pod is there");
        pod["status"]["podIP"]
            .as_str()
            .expect("it has an address")
            .to_owned()
    }

    async fn is_another_than(&self, first: &Value, within: Duration) {
        wait_for("another pod", within, || async {
            ensure!(self.uid()? != *first, "still the first");
            Ok::<_, anyhow::Error>(())
        })
        .await;
    }
}

async fn load(address: &str) -> anyhow::Result<Value> {
    let answer = reqwest::get(format!("http://{address}:9090/load")).await?;
    Ok(answer.json().await?)
}

/// A device that publishes to a pod, by way of the Service for signalling as all do.
struct Device {
    url: String,
    token: String,
    http: Http,
    publisher: Publisher,
}

impl Device {
    async fn of(pod: &Pod<'_>) -> Self {
        let mint = "exec cam-0 -- media-server token --device cam-1 --grant publish";
        let mint: Vec<&str> = mint.split(' ').collect();
        let token = pod.0.kubectl.run(&mint).expect("a token").trim().to_owned();
        let options = HttpOptions {
            token: Some(token.clone()),
            ..HttpOptions::default()
        };
        let http = Http::new(&options).expect("an HTTP client");
        let signalling = pod.0.kubectl.get(&["service", NAME]).expect("it is there");
        let ip = signalling["spec"]["clusterIP"].as_str();
        let url = format!("http://{}/whip/cam-1", ip.expect("it has an address"));
        // Nodes hear of the pod's address a moment after the pod has it.
        let request = reqwest::Client::new().get(&url).timeout(ANSWER);
        wait_for("an answer through the Service", SOON, || async {
            request.try_clone().expect("it has no body").send().await
        })
        .await;
        let publisher = Publisher::connect(&url, &http, &Options::default(), &[Codec::Vp8])
            .await
            .expect("it publishes");
        Self {
            url,
            token,
            http,
            publisher,
        }
    }

    async fn ends(self) {
        let resource = self.publisher.resource();
        self.http.delete(resource).await.expect("it is there");
    }
}

/// Waits until the pod says that it is in this state, with one device.
async fn says(address: &str, state: &str) {
    wait_for(&format!("the pod to be {state}"), SOON, || async {
        let load = load(address).await?;
        ensure!(load["state"] == state && load["publishers"] == 1, "{load}");
        Ok::<_, anyhow::Error>(())
    })
    .await;
}

/// Waits until the status tells of one pod, in this state and with one device.
async fn is_told(service: &Service, state: &str) {
    wait_for(&format!("{state} in the status"), START, || async {
        let status = service.kubectl.get(&["mediaservice", NAME])?["status"].clone();
        let (sessions, pods) = (&status["sessions"], &status["pods"]);
        let hash = pods[0]["specHash"].as_str().unwrap_or_default();
        let pod = json!([
            {"name": "cam-0", "state": state, "publishers": 1, "viewers": 0, "specHash": hash}
        ]);
        ensure!(*pods == pod && !hash.is_empty(), "{pods}");
        ensure!(sessions["publishers"] == 1, "{sessions}");
        Ok::<_, anyhow::Error>(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_a_session_takes_no_other_until_it_is_replaced_within_its_bound() {
    let service = Service::apply("reconcile-drain", "{media: {exposure: HostPort}}");
    service.settled().await;
    let pod = Pod(&service);
    let (first, address) = (pod.uid().expect("the pod is there"), pod.address());
    let device = Device::of(&pod).await;
    is_told(&service, "Accepting").await;

    service.patch(CHANGE);
    let changed = Instant::now();
    says(&address, "Draining").await;
    println!("the pod drains {:?} after the change", changed.elapsed());
    is_told(&service, "Draining").await;
    println!("and the status tells of it {:?}", changed.elapsed());
    let resource = service
        .kubectl
        .get(&["mediaservice", NAME])
        .expect("it is there");
    let status = &resource["status"];
    assert_eq!(
        (&status["rollout"]["phase"], &status["rollout"]["pod"]),
        (&"Rolling".into(), &"cam-0".into()),
        "{status}"
    );
    let progressing = service.condition("Progressing", "True", SOON).await;
    assert_eq!(progressing["reason"], "Draining", "{progressing}");
    let refused = reqwest::Client::new()
        .post(&device.url)
        .bearer_auth(&device.token)
        .header("content-type", "application/sdp")
        .body("v=0\r\n")
        .send()
        .await
        .expect("an answer");
    assert_eq!(refused.status(), 503);
    let held = load(&address).await.expect("it serves on");
    assert_eq!(held["publishers"], 1, "{held}");

    pod.is_another_than(&first, BOUND + MORE).await;
    let replaced = changed.elapsed();
    println!("the pod is replaced {replaced:?} after the change");
    assert!(
        replaced >= BOUND,
        "its session was not waited for: {replaced:?}"
    );
    service.settled().await;
    drop(device);
    let events = service
        .kubectl
        .run(&["describe", "mediaservice", NAME])
        .expect("it is there");
    for reason in ["DrainingPod", "ReplacingPod"] {
        assert!(events.contains(reason), "{events}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_sessions_is_replaced_as_soon_as_it_has_heard_of_it() {
    let service = Service::apply("reconcile-drained", "{media: {exposure: HostPort}}");
    service.settled().await;
    let pod = Pod(&service);
    let first = pod.uid().expect("the pod is there");
    service.patch(CHANGE);
    let changed = Instant::now();
    pod.is_another_than(&first, BOUND).await;
    println!(
        "the pod is replaced {:?} after the change",
        changed.elapsed()
    );
    service.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_stopped_keeps_its_pod_until_the_last_session_ends_or_it_is_wanted_again()
{
    let service = Service::apply("reconcile-stop", "{media: {exposure: HostPort}}");
    service.settled().await;
    let pod = Pod(&service);
    let (first, address) = (pod.uid().expect("the pod is there"), pod.address());
    let device = Device::of(&pod).await;
    let scale = |replicas: &str| {
        let args = ["scale", "mediaservice", NAME, replicas];
        service.kubectl.run(&args).expect("it may be");
    };
    let wanted = || anyhow::Ok(service.kubectl.get(&["statefulset", NAME])?["spec"].clone());

    scale("--replicas=0");
    let asked = Instant::now();
    says(&address, "Draining").await;
    println!("the pod drains after {:?}", asked.elapsed());
    service.reason("Progressing", "True", "Draining").await;
    let resource = service.kubectl.get(&["mediaservice", NAME]);
    let status = resource.expect("it is there")["status"].clone();
    let rollout = &status["rollout"];
    assert_eq!(
        (&rollout["phase"], &rollout["pod"]),
        (&"ScalingDown".into(), &"cam-0".into()),
        "{status}"
    );
    assert_eq!(wanted().expect("it is there")["replicas"], 1);

    scale("--replicas=1");
    says(&address, "Accepting").await;
    service.settled().await;
    assert_eq!(pod.uid().expect("it is there"), first);

    scale("--replicas=0");
    says(&address, "Draining").await;
    assert_eq!(pod.uid().expect("it is there"), first);
    device.ends().await;
    let ended = Instant::now();
    wait_for("the pod to be gone", SOON, || async {
        let uid = pod.uid();
        ensure!(uid.is_err(), "{uid:?}");
        Ok::<_, anyhow::Error>(())
    })
    .await;
    println!("the pod is gone {:?} after the end", ended.elapsed());
    service.reason("Ready", "False", "Stopped").await;
    assert_eq!(wanted().expect("it is there")["replicas"], 0);
    let described = service.kubectl.run(&["describe", "mediaservice", NAME]);
    let events = described.expect("it is there");
    for reason in ["DrainingPod", "StoppingPod"] {
        assert!(events.contains(reason), "{events}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_another_version_of_the_operator_made_waits_or_rolls_as_the_spec_says() {
    let spec = "{media: {exposure: HostPort}, rollout: {drainTimeoutSeconds: 60}}";
    let service = Service::apply("reconcile-roll", spec);
    service.settled().await;
    let pod = Pod(&service);
    let first = pod.get().expect("the pod is there");
    let patience = &first["spec"]["terminationGracePeriodSeconds"];
    assert_eq!(*patience, 90, "the time of the drain, and 30 s more");
    // As another version would have written it.
    let other = "mediaservice.io/template-hash=of-another";
    service
        .kubectl
        .run(&["annotate", "pod", "cam-0", "--overwrite", other])
        .expect("the pod is there");
    service
        .reason("Progressing", "False", "OperatorUpdatePending")
        .await;
    let uid = first["metadata"]["uid"].clone();
    assert_eq!(pod.uid().expect("the pod is there"), uid);
    service.patch(r#"{"spec":{"rollout":{"onOperatorUpgrade":"Roll"}}}"#);
    let changed = Instant::now();
    pod.is_another_than(&uid, BOUND).await;
    println!("the pod is another after {:?}", changed.elapsed());
    service.reason("Progressing", "False", "UpToDate").await;
}
