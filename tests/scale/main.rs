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
mod requests;
mod services;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;
use tests::operator::{self, NAMESPACE};

use api::Api;
use services::{FIRST, MEDIA_SERVICES};

/// Enough for an API server that shares two cores with all else.
const MADE: Duration = Duration::from_secs(1200);

/// Lists of one reconciliation while pods are ready: seven kinds of children, and pods.
const LISTS: u64 = 8;

/// Everything is looked at again after this time; `RESYNC` in the operator.
const RESYNC: Duration = Duration::from_secs(600);

/// Long enough for what follows a new watch: two rounds over a thousand services.
const AFTER_CUT: Duration = Duration::from_secs(120);

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} is {text}, not a number")),
        Err(_) => default,
    }
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

/// How often the operator was started again: it ends itself if it can't renew its Lease for ten seconds.
async fn restarts(api: &Api) -> anyhow::Result<u64> {
    let pods = api
        .get(&format!("/api/v1/namespaces/{NAMESPACE}/pods"))
        .await?;
    let count = &pods["items"][0]["status"]["containerStatuses"][0]["restartCount"];
    count.as_u64().context("a number of restarts")
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

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_services_are_made_and_then_nothing_is_written_also_after_every_watch_was_cut() {
    let count = number("SCALE_SERVICES", 1000);
    let quiet = Duration::from_secs(number("SCALE_QUIET_SECONDS", 600));
    operator::install();
    let api = Arc::new(Api::start().await);
    node::create(&api).await.expect("a node can be made");
    services::add_addresses(&api).await;
    services::wait_for_the_first(&api).await;
    let kubelet = tokio::spawn(node::run(api.clone()));
    services::create_namespaces(&api, count).await;

    let applied = Instant::now();
    services::apply(&api, count).await;
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
    let (_, mut mark) = requests::since("");
    loop {
        rest(Duration::from_secs(60)).await;
        let (requests, last) = requests::since(&mark);
        if requests::writes(&requests).is_empty() {
            break;
        }
        mark = last;
        if applied.elapsed() >= 2 * MADE {
            requests::assert_no_writes(&requests);
        }
    }

    let (started, (_, before)) = (
        Instant::now(),
        usage(&api).await.expect("the kubelet counts"),
    );
    let (_, mark) = requests::since("");
    rest(quiet).await;
    let (memory, after) = usage(&api).await.expect("the kubelet counts");
    let (requests, mark) = requests::since(&mark);
    let share = (after - before) / started.elapsed().as_secs_f64() * 1000.0;
    println!(
        "in {:?}: {}, {share:.0} millicores, {memory:.0} MiB",
        started.elapsed(),
        requests::by_verb(&requests)
    );
    requests::assert_no_writes(&requests);
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
        requests::by_verb(&requests)
    );

    api::end_server();
    let cut = Instant::now();
    loop {
        rest(Duration::from_secs(5)).await;
        let (requests, _) = requests::since(&mark);
        if requests::all_watched(&requests) {
            break;
        }
        assert!(cut.elapsed() < MADE, "{}", requests::by_verb(&requests));
    }
    println!("every watch was there again after {:?}", cut.elapsed());
    // In this time each service is looked at, once or twice.
    rest(AFTER_CUT).await;
    let (memory, _) = usage(&api).await.expect("the kubelet counts");
    let restarts = restarts(&api).await.expect("it has a pod");
    let (requests, _) = requests::since(&mark);
    requests::assert_no_writes(&requests);
    let (relists, peak) = (requests::relists(&requests), requests::peak(&requests));
    println!(
        "after every watch was cut: {}, {relists} lists of everything, {peak} a second at most, {memory:.0} MiB, {restarts} restarts",
        requests::by_verb(&requests)
    );
    // Each watch lists once; the pages of a thousand are a few, and the first tries meet a closed port.
    assert!(relists <= 100, "{relists} lists of everything");
    // Watches that come back apart make two rounds, and not one for each of them.
    assert!(
        requests.len() as u64 <= count * 2 * LISTS + 1000,
        "{}",
        requests::by_verb(&requests)
    );
    kubelet.abort();
}
