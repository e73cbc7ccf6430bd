//! A thousand MediaServices: how fast they are made, what the operator needs for them, and that it then
//! writes nothing.
//!
//! Runs on a local cluster without Prometheus Operator, in its outside network, with `KUBECONFIG` and
//! `CLUSTER_DIR` set and the operator's image loaded. The pods are on a node that nobody runs. Started by
//! the stage `scale` of `cargo xtask test --long`; `SCALE_SERVICES` and `SCALE_QUIET_SECONDS` make it
//! smaller for a developer.
#![forbid(unsafe_code)]

mod api;
mod node;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tests::operator::NAMESPACE;
use tests::{audit, operator, wait_for};

use api::Api;

const ACCOUNT: &str = "system:serviceaccount:mediaservice-system:mediaservice-operator";
const MEDIA_SERVICES: &str = "/apis/mediaservice.io/v1alpha1";

/// Enough for an API server that shares two cores with all else.
const MADE: Duration = Duration::from_secs(1200);

/// Lists of one reconciliation while pods are ready: seven kinds of children, and pods.
const LISTS: u64 = 8;

/// Everything is looked at again after this time; `RESYNC` in the operator.
const RESYNC: Duration = Duration::from_secs(600);

/// What the operator watches here, where no optional API is served.
const WATCHED: [&str; 10] = [
    "mediaservices",
    "serviceaccounts",
    "configmaps",
    "services",
    "statefulsets",
    "ingresses",
    "networkpolicies",
    "poddisruptionbudgets",
    "pods",
    "nodes",
];

/// Long enough for what follows a new watch: two rounds over a thousand services.
const AFTER_CUT: Duration = Duration::from_secs(120);

/// Until the cluster is ready for all of them.
const BEGUN: Duration = Duration::from_secs(120);

/// Namespace of the one that is made before all others.
const FIRST: &str = "scale-first";

const FIRST_PORT: u64 = 30100;

/// Applied at the same time, as a few people with `kubectl apply` would.
const APPLIERS: u64 = 8;

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is {text}, not a number")),
        Err(_) => default,
    }
}

/// A namespace has fifty of them: a list by label reads all objects of its namespace.
fn namespace(n: u64) -> String {
    format!("scale-{}", n / 50)
}

fn service(n: u64) -> Value {
    let selector = json!({"kubernetes.io/hostname": node::NAME});
    json!({
        "apiVersion": "mediaservice.io/v1alpha1", "kind": "MediaService",
        "metadata": {"name": format!("cam-{n}"), "namespace": namespace(n)},
        "spec": {
            // Of all exposures the one that a thousand pods of one node can have.
            "media": {"exposure": "NodePort", "nodePort": FIRST_PORT + n, "externalAddresses": ["203.0.113.1"]},
            "pod": {"nodeSelector": selector, "tolerations": [{"key": node::TAINT, "operator": "Exists"}]},
        },
    })
}

/// The operator's requests after `mark`, and the last of them.
fn requests_since(mark: &str) -> anyhow::Result<(Vec<Value>, String)> {
    let requests = audit::requests_since(ACCOUNT, mark)?;
    let last = requests.iter().map(audit::time).max();
    let last = last.unwrap_or(mark).to_owned();
    Ok((requests, last))
}

/// How many of each verb, for the report.
fn by_verb(requests: &[Value]) -> String {
    let mut verbs: BTreeMap<&str, usize> = BTreeMap::new();
    for event in requests {
        *verbs
            .entry(event["verb"].as_str().unwrap_or_default())
            .or_default() += 1;
    }
    format!("{} requests {verbs:?}", requests.len())
}

/// Those that change something, the Lease apart.
fn writes(requests: &[Value]) -> Vec<String> {
    let changes = |event: &&Value| {
        let verb = event["verb"].as_str().unwrap_or_default();
        !["get", "list", "watch"].contains(&verb) && event["objectRef"]["resource"] != "leases"
    };
    requests.iter().filter(changes).map(audit::line).collect()
}

/// Memory in MiB and CPU seconds of the operator, as its kubelet counts them.
async fn usage(api: &Api) -> anyhow::Result<(f64, f64)> {
    let text = api
        .text("/api/v1/nodes/node1/proxy/metrics/resource")
        .await?;
    let value = |family: &str| -> anyhow::Result<f64> {
        let of_operator = |line: &&str| {
            line.starts_with(&format!("{family}{{"))
                && line.contains("container=\"operator\"")
                && line.contains(&format!("namespace=\"{NAMESPACE}\""))
        };
        let line = text
            .lines()
            .find(of_operator)
            .with_context(|| format!("no {family}"))?;
        let value = line
            .rsplit_once('}')
            .and_then(|(_, rest)| rest.split_whitespace().next());
        Ok(value.context("a value")?.parse()?)
    };
    let memory = value("container_memory_working_set_bytes")? / f64::from(1 << 20);
    Ok((memory, value("container_cpu_usage_seconds_total")?))
}

/// Ready, and nothing under way.
fn is_settled(service: &Value) -> bool {
    let conditions = service["status"]["conditions"].as_array();
    let is = |kind: &str, status: &str| {
        let mut all = conditions.into_iter().flatten();
        all.any(|condition| condition["type"] == kind && condition["status"] == status)
    };
    is("Ready", "True") && is("Progressing", "False")
}

/// Seconds between the creation of each MediaService and that of its StatefulSet, sorted.
async fn delays(api: &Api) -> anyhow::Result<Vec<u64>> {
    let created = |list: Value| -> BTreeMap<(String, String), u64> {
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let of = |item: &Value| {
            let text = |field: &str| {
                item["metadata"][field]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            };
            (
                (text("namespace"), text("name")),
                seconds(&text("creationTimestamp")),
            )
        };
        items.iter().map(of).collect()
    };
    let services = created(api.get(&format!("{MEDIA_SERVICES}/mediaservices")).await?);
    let sets = created(api.get("/apis/apps/v1/statefulsets").await?);
    let mut delays = Vec::new();
    for (name, service) in services {
        if name.0 == FIRST {
            continue;
        }
        let set = sets
            .get(&name)
            .with_context(|| format!("{name:?} has no StatefulSet"))?;
        delays.push(set.saturating_sub(service));
    }
    delays.sort_unstable();
    Ok(delays)
}

/// Of the day, in `2026-01-01T10:20:30Z`; a run does not last over midnight twice.
fn seconds(timestamp: &str) -> u64 {
    let time = timestamp.split(['T', 'Z']).nth(1).unwrap_or_default();
    let parts = time.split(':').map(|part| part.parse::<u64>().unwrap_or(0));
    parts.fold(0, |sum, part| sum * 60 + part)
}

/// Sleeps where others wait for a condition: that nothing happens for so long is what is looked at, and
/// looking more often is work for an API server that has enough.
async fn rest(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Addresses for three thousand Services: the cluster's own range has 254.
async fn add_service_addresses(api: &Api) {
    let range = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "scale"},
        "spec": {"cidrs": ["198.19.0.0/19"]},
    });
    let path = "/apis/networking.k8s.io/v1/servicecidrs";
    api.create(path, &range).await.expect("it is new");
    wait_for("the addresses for Services", BEGUN, || async {
        let range = api.get(&format!("{path}/scale")).await?;
        let conditions = &range["status"]["conditions"];
        let ready = conditions[0]["type"] == "Ready" && conditions[0]["status"] == "True";
        ensure!(ready, "{conditions}");
        Ok(())
    })
    .await;
}

/// One service of its own: for half a minute after the definition was made, the API server refuses
/// children because it does not know their owner's kind yet. That is not what is measured here.
async fn wait_for_the_first(api: &Api) {
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": FIRST}});
    let made = api.create("/api/v1/namespaces", &body).await;
    made.expect("it is new");
    let path = format!("{MEDIA_SERVICES}/namespaces/{FIRST}/mediaservices");
    let mut first = service(0);
    first["metadata"] = json!({"name": "first", "namespace": FIRST});
    first["spec"]["replicas"] = json!(0);
    first["spec"]["media"]["nodePort"] = json!(FIRST_PORT - 1);
    let made = api.create(&path, &first).await;
    made.expect("the manifest is right");
    let set = format!("/apis/apps/v1/namespaces/{FIRST}/statefulsets/first");
    wait_for("the first StatefulSet", BEGUN, || api.get(&set)).await;
}

async fn apply(api: &Arc<Api>, count: u64) {
    let appliers: Vec<_> = (0..APPLIERS)
        .map(|first| {
            let api = api.clone();
            tokio::spawn(async move {
                for n in (first..count).step_by(APPLIERS as usize) {
                    let path =
                        format!("{MEDIA_SERVICES}/namespaces/{}/mediaservices", namespace(n));
                    let made = api.create(&path, &service(n)).await;
                    made.expect("the manifest is right");
                }
            })
        })
        .collect();
    for applier in appliers {
        applier.await.expect("all were made");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_services_are_made_and_then_nothing_is_written_also_after_every_watch_was_cut() {
    let count = number("SCALE_SERVICES", 1000);
    let quiet = Duration::from_secs(number("SCALE_QUIET_SECONDS", 600));
    operator::install();
    let api = Arc::new(Api::start().await);
    node::create(&api).await.expect("a node can be made");
    add_service_addresses(&api).await;
    wait_for_the_first(&api).await;
    let kubelet = tokio::spawn(node::run(api.clone()));
    for first in (0..count).step_by(50) {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace(first)}});
        api.create("/api/v1/namespaces", &body)
            .await
            .expect("it is new");
    }

    let applied = Instant::now();
    apply(&api, count).await;
    println!("{count} MediaServices applied in {:?}", applied.elapsed());
    loop {
        let all = api.get(&format!("{MEDIA_SERVICES}/mediaservices")).await;
        let mut all = all.expect("they can be listed");
        let items = all["items"].as_array_mut().expect("a list");
        items.retain(|service| service["metadata"]["namespace"] != FIRST);
        let settled = items.iter().filter(|service| is_settled(service)).count();
        if settled as u64 == count {
            break;
        }
        let other = items.iter().find(|service| !is_settled(service));
        let status = other.map(|other| &other["status"]);
        assert!(
            applied.elapsed() < MADE,
            "{settled} of {count} are ready; one that is not: {status:?}"
        );
        // A list of all of them is work for the API server, which has enough.
        rest(Duration::from_secs(5)).await;
    }
    println!(
        "all ready {:?} after the first was applied",
        applied.elapsed()
    );
    let delays = delays(&api).await.expect("both can be listed");
    let at = |percent: usize| delays[(delays.len() * percent / 100).min(delays.len() - 1)];
    println!("apply to StatefulSet: p50 {} s, p99 {} s", at(50), at(99));
    let (memory, cpu) = usage(&api).await.expect("the kubelet counts");
    println!("the operator: {memory:.0} MiB, {cpu:.1} s of CPU for making them");

    // What is still under way ends: the last status, and the garbage of the start.
    let (_, mut mark) = requests_since("").expect("the log can be read");
    loop {
        rest(Duration::from_secs(60)).await;
        let (requests, last) = requests_since(&mark).expect("the log can be read");
        let wrote = writes(&requests);
        if wrote.is_empty() {
            break;
        }
        mark = last;
        assert!(
            applied.elapsed() < 2 * MADE,
            "{} writes in a minute: {:?}",
            wrote.len(),
            &wrote[..wrote.len().min(10)]
        );
    }

    let (started, (_, before)) = (
        Instant::now(),
        usage(&api).await.expect("the kubelet counts"),
    );
    let (_, mark) = requests_since("").expect("the log can be read");
    rest(quiet).await;
    let (memory, after) = usage(&api).await.expect("the kubelet counts");
    let (requests, mark) = requests_since(&mark).expect("the log can be read");
    let share = (after - before) / started.elapsed().as_secs_f64() * 1000.0;
    println!(
        "in {:?}: {}, {share:.0} millicores, {memory:.0} MiB",
        started.elapsed(),
        by_verb(&requests)
    );
    let wrote = writes(&requests);
    assert!(
        wrote.is_empty(),
        "{} writes: {:?}",
        wrote.len(),
        &wrote[..wrote.len().min(10)]
    );
    assert!(
        requests
            .iter()
            .any(|event| event["objectRef"]["resource"] == "leases"),
        "it leads"
    );
    // The slack is for the Lease, a request every second or two, and the watches, which end by themselves.
    let rounds = 1 + quiet.as_secs() / RESYNC.as_secs();
    assert!(
        requests.len() as u64 <= count * LISTS * rounds + 2 * quiet.as_secs() + 200,
        "{}",
        by_verb(&requests)
    );

    api::end_server();
    let cut = Instant::now();
    loop {
        rest(Duration::from_secs(5)).await;
        let (requests, _) = requests_since(&mark).expect("the log can be read");
        let is_watched = |resource: &&str| {
            let mut watches = requests.iter().filter(|event| event["verb"] == "watch");
            watches.any(|event| event["objectRef"]["resource"] == *resource)
        };
        if WATCHED.iter().all(|resource| is_watched(&resource)) {
            break;
        }
        assert!(cut.elapsed() < MADE, "{}", by_verb(&requests));
    }
    println!("every watch was there again after {:?}", cut.elapsed());
    // In this time each service is looked at, once or twice.
    rest(AFTER_CUT).await;
    let (memory, _) = usage(&api).await.expect("the kubelet counts");
    let (requests, _) = requests_since(&mark).expect("the log can be read");
    let wrote = writes(&requests);
    assert!(
        wrote.is_empty(),
        "{} writes: {:?}",
        wrote.len(),
        &wrote[..wrote.len().min(10)]
    );
    let lists =
        |event: &&Value| event["verb"] == "list" && event["objectRef"]["namespace"].is_null();
    let relists = requests.iter().filter(lists).count();
    let mut by_second: BTreeMap<&str, usize> = BTreeMap::new();
    for event in &requests {
        let second = audit::time(event).get(..19).unwrap_or_default();
        *by_second.entry(second).or_default() += 1;
    }
    let peak = by_second.values().max().copied().unwrap_or(0);
    println!(
        "after every watch was cut: {}, {relists} lists of everything, {peak} a second at most, {memory:.0} MiB",
        by_verb(&requests)
    );
    // Each watch lists once; the pages of a thousand are a few, and the first tries meet a closed port.
    assert!(relists <= 100, "{relists} lists of everything");
    // Watches that come back apart make two rounds, and not one for each of them.
    assert!(
        requests.len() as u64 <= count * 2 * LISTS + 1000,
        "{}",
        by_verb(&requests)
    );
    kubelet.abort();
}
