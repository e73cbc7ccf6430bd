//! Two operators: one leads, and the other takes over; and none at all.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tests::balancer::gives;
use tests::{Kubectl, operator, wait_for};

use crate::service::{NAME, START, Service, operator_pods};
use crate::turn;

const DEPLOYMENT: &str = "deployment/mediaservice-operator";
/// A Lease that nobody renews is valid for 15 s: what takes less was handed over.
const HANDED_OVER: Duration = Duration::from_secs(12);

struct Operators(Kubectl);

impl Operators {
    /// Has `replicas` of them, all ready.
    async fn scaled_to(replicas: usize) -> Self {
        operator::install();
        let operators = Self(Kubectl::new(operator::NAMESPACE));
        operators.scale(replicas);
        wait_for(
            &format!("{replicas} operators to be ready"),
            START,
            || async {
                let deployment = operators.0.get(&[DEPLOYMENT])?;
                let status = &deployment["status"];
                let count = |field: &str| status[field].as_u64().unwrap_or(0);
                ensure!(operator_pods()?.len() == replicas, "{:?}", operator_pods()?);
                ensure!(count("readyReplicas") == replicas as u64, "{status}");
                Ok::<_, anyhow::Error>(())
            },
        )
        .await;
        operators
    }

    fn scale(&self, replicas: usize) {
        let replicas = format!("--replicas={replicas}");
        self.0
            .run(&["scale", DEPLOYMENT, &replicas])
            .expect("it can be scaled");
    }

    /// Has none, until it is scaled up or dropped.
    async fn stopped() -> Self {
        let operators = Self::scaled_to(1).await;
        operators.scale(0);
        wait_for("no operator", START, || async {
            let pods = operator_pods()?;
            ensure!(pods.is_empty(), "{pods:?}");
            Ok::<_, anyhow::Error>(())
        })
        .await;
        operators
    }

    /// Name of the pod that leads.
    fn leader(&self) -> anyhow::Result<String> {
        let lease = self.0.get(&["lease", "mediaservice-operator"])?;
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        let (pod, _) = holder
            .rsplit_once('_')
            .with_context(|| format!("held by {holder:?}"))?;
        let pods = operator_pods()?;
        ensure!(
            pods.iter().any(|(name, _, _)| name == pod),
            "{holder} is not among {pods:?}"
        );
        Ok(pod.to_owned())
    }
}

impl Drop for Operators {
    fn drop(&mut self) {
        self.scale(1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_is_asked_to_end_hands_over_at_once_to_one_that_was_healthy_before_it_led()
{
    let _turn = turn::alone();
    let service = Service::apply("reconcile-leader", "{media: {exposure: HostPort}}");
    service.settled().await;
    let operators = Operators::scaled_to(2).await;
    let first = wait_for("a leader", START, || async { operators.leader() }).await;
    operators
        .0
        .run(&["delete", "pod", &first, "--wait=false"])
        .expect("it can be deleted");
    let asked = Instant::now();
    let second = wait_for("the other to lead", HANDED_OVER, || async {
        match operators.leader()? {
            leader if leader != first => Ok(leader),
            leader => bail!("{leader} still leads"),
        }
    })
    .await;
    println!(
        "{second} leads {:?} after {first} was asked to end",
        asked.elapsed()
    );
    service
        .kubectl
        .run(&["delete", "service", "cam"])
        .expect("it can be deleted");
    wait_for("the new leader to restore it", START, || async {
        service.kubectl.get(&["service", "cam"])
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_dies_while_no_operator_runs_comes_back_and_the_next_operator_leaves_it_alone() {
    let _turn = turn::alone();
    let service = Service::apply("reconcile-down", "{media: {exposure: HostPort}}");
    service.settled().await;
    let operators = Operators::stopped().await;
    // It drains by SIGTERM, and the StatefulSet makes the next.
    service
        .kubectl
        .run(&["delete", "pod", "cam-0"])
        .expect("it can be deleted");
    let next = wait_for("the next pod to be ready", START, || async {
        let pod = service.kubectl.get(&["pod", "cam-0"])?;
        let conditions = pod["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let ready = conditions
            .iter()
            .any(|c| c["type"] == "Ready" && c["status"] == "True");
        ensure!(ready, "{}", pod["status"]);
        Ok::<_, anyhow::Error>(pod["metadata"]["uid"].clone())
    })
    .await;
    service
        .kubectl
        .run(&["delete", "configmap", "cam-config"])
        .expect("it can be deleted");
    operators.scale(1);
    wait_for("what is missing to be back", START, || async {
        service.kubectl.get(&["configmap", "cam-config"])
    })
    .await;
    // No input of the pod: once this is told, the operator has judged the pod that came meanwhile.
    service.patch(r#"{"spec":{"monitoring":{"dashboards":{"enabled":false}}}}"#);
    service.settled().await;
    let pod = service.kubectl.get(&["pod", "cam-0"]).expect("it is there");
    let metadata = &pod["metadata"];
    assert_eq!(metadata["uid"], next, "nothing is rolled back or out");
    let drain = &metadata["annotations"]["mediaservice.io/drain"];
    assert!(drain.is_null(), "nor about to be: {drain}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_a_load_balancer_gets_while_no_operator_runs_is_told_by_the_next_without_a_restart()
 {
    let _turn = turn::alone();
    let service = Service::apply("reconcile-moved", "{}");
    let has = async |ip: &str| {
        for name in ["cam-media-udp", "cam-media-tcp"] {
            gives(&service.kubectl, name, &json!({"ip": ip})).await;
        }
    };
    let told = || -> anyhow::Result<Value> {
        let found = service.kubectl.get(&["mediaservice", NAME])?;
        let table = service.kubectl.get(&["configmap", "cam-addresses"])?;
        let table = table["data"]["addresses.json"].as_str();
        let table: Value = serde_json::from_str(table.context("a table")?)?;
        Ok(json!([found["status"]["addresses"]["media"], table["lb"]]))
    };
    let of = |ip: &str| {
        let clients = [format!("{ip}:8443/udp"), format!("{ip}:8443/tcp")];
        json!([clients, [format!("{ip}:8443"), format!("{ip}:8443/tcp")]])
    };
    has("203.0.113.1").await;
    service.settled().await;
    assert_eq!(told().expect("both are there"), of("203.0.113.1"));
    let pod = || service.kubectl.get(&["pod", "cam-0"]);
    let before = pod().expect("it is there");

    let operators = Operators::stopped().await;
    has("2001:db8::7").await;
    assert_eq!(told().expect("both are there"), of("203.0.113.1"));
    operators.scale(1);
    wait_for("the address to be told", START, || async {
        let now = told()?;
        ensure!(now == of("[2001:db8::7]"), "{now}");
        Ok::<_, anyhow::Error>(())
    })
    .await;
    service.settled().await;
    let now = pod().expect("it is there");
    let life = |pod: &Value| {
        let starts = &pod["status"]["containerStatuses"][0]["restartCount"];
        json!([
            pod["metadata"]["uid"],
            starts,
            pod["metadata"]["annotations"]
        ])
    };
    assert_eq!(
        life(&now),
        life(&before),
        "neither restarted nor told to go"
    );
}
