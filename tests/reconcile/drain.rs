//! A pod is told to drain before it is replaced, and hears it through its own files.

use std::time::{Duration, Instant};

use anyhow::ensure;
use client::{Codec, Http, HttpOptions, Options, Publisher};
use serde_json::Value;
use tests::wait_for;

use crate::service::{NAME, START, Service};

/// Longest wait for sessions, as the operator has it.
const BOUND: Duration = Duration::from_secs(30);
const SOON: Duration = Duration::from_secs(20);

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

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_a_session_takes_no_other_until_it_is_replaced_within_its_bound() {
    let service = Service::apply("reconcile-drain", "{media: {exposure: HostPort}}");
    service.settled().await;
    let pod = Pod(&service);
    let (first, address) = (pod.uid().expect("the pod is there"), pod.address());
    let mint = [
        "exec",
        "cam-0",
        "--",
        "media-server",
        "token",
        "--device",
        "cam-1",
        "--grant",
        "publish",
    ];
    let token = service
        .kubectl
        .run(&mint)
        .expect("a token")
        .trim()
        .to_owned();
    let options = HttpOptions {
        token: Some(token.clone()),
        ..HttpOptions::default()
    };
    let http = Http::new(&options).expect("an HTTP client");
    let url = format!("http://{address}:8080/whip/cam-1");
    let publisher = Publisher::connect(&url, &http, &Options::default(), &[Codec::Vp8])
        .await
        .expect("it publishes");
    wait_for("the session count in the status", START, || async {
        let resource = service.kubectl.get(&["mediaservice", NAME])?;
        let sessions = &resource["status"]["sessions"];
        ensure!(sessions["publishers"] == 1, "{sessions}");
        Ok::<_, anyhow::Error>(())
    })
    .await;

    service.patch(CHANGE);
    let changed = Instant::now();
    wait_for("the pod to drain", SOON, || async {
        let load = load(&address).await?;
        ensure!(load["state"] == "Draining", "{load}");
        Ok::<_, anyhow::Error>(())
    })
    .await;
    println!("the pod drains {:?} after the change", changed.elapsed());
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
        .post(&url)
        .bearer_auth(&token)
        .header("content-type", "application/sdp")
        .body("v=0\r\n")
        .send()
        .await
        .expect("an answer");
    assert_eq!(refused.status(), 503);
    let held = load(&address).await.expect("it serves on");
    assert_eq!(held["publishers"], 1, "{held}");

    pod.is_another_than(&first, BOUND + START).await;
    let replaced = changed.elapsed();
    println!("the pod is replaced {replaced:?} after the change");
    assert!(
        replaced >= BOUND,
        "its session was not waited for: {replaced:?}"
    );
    service.settled().await;
    drop(publisher);
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
