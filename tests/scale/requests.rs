//! What the operator asked the API server for, from the audit log.

use std::collections::BTreeMap;

use serde_json::Value;
use tests::audit;

const ACCOUNT: &str = "system:serviceaccount:mediaservice-system:mediaservice-operator";

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

/// The operator's requests after `mark`, and the last of them.
pub fn since(mark: &str) -> (Vec<Value>, String) {
    let requests = audit::requests_since(ACCOUNT, mark).expect("the log can be read");
    let last = requests.iter().map(audit::time).max();
    let last = last.unwrap_or(mark).to_owned();
    (requests, last)
}

/// How many of each verb, for the report.
pub fn by_verb(requests: &[Value]) -> String {
    let mut verbs: BTreeMap<&str, usize> = BTreeMap::new();
    for event in requests {
        *verbs
            .entry(event["verb"].as_str().unwrap_or_default())
            .or_default() += 1;
    }
    format!("{} requests {verbs:?}", requests.len())
}

/// Those that change something, the Lease apart.
pub fn writes(requests: &[Value]) -> Vec<String> {
    let changes = |event: &&Value| {
        let verb = event["verb"].as_str().unwrap_or_default();
        !["get", "list", "watch"].contains(&verb) && event["objectRef"]["resource"] != "leases"
    };
    requests.iter().filter(changes).map(audit::line).collect()
}

/// Lists over all namespaces, which only a watch that begins anew asks for.
pub fn relists(requests: &[Value]) -> usize {
    let of_all =
        |event: &&Value| event["verb"] == "list" && event["objectRef"]["namespace"].is_null();
    requests.iter().filter(of_all).count()
}

/// Requests in the busiest second.
pub fn peak(requests: &[Value]) -> usize {
    let mut by_second: BTreeMap<&str, usize> = BTreeMap::new();
    for event in requests {
        let second = audit::time(event).get(..19).unwrap_or_default();
        *by_second.entry(second).or_default() += 1;
    }
    by_second.values().max().copied().unwrap_or(0)
}

/// Whether everything is watched again.
pub fn all_watched(requests: &[Value]) -> bool {
    let is_watched = |resource: &&str| {
        let mut watches = requests.iter().filter(|event| event["verb"] == "watch");
        watches.any(|event| event["objectRef"]["resource"] == **resource)
    };
    WATCHED.iter().all(is_watched)
}

/// # Panics
/// With the first of them, if there are writes.
pub fn assert_no_writes(requests: &[Value]) {
    let wrote = writes(requests);
    let some = &wrote[..wrote.len().min(10)];
    assert!(wrote.is_empty(), "{} writes: {some:?}", wrote.len());
}
