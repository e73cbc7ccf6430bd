//! Metric families of the operator. Read by `operator/src/metrics.rs`, which registers them.

use crate::families::{Family, Kind, Scope, Unit};

pub const RECONCILES: Family = Family {
    name: "mediaservice_operator_reconciles_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    help: "Reconciliations by result: success or error.",
    labels: &["result"],
    buckets: &[],
    scope: Scope::Process,
};

pub const ERRORS: Family = Family {
    name: "mediaservice_operator_reconcile_errors_total",
    help: "Failed reconciliations by reason, the word that the condition and the event carry too.",
    labels: &["reason"],
    ..RECONCILES
};

pub const WRITES: Family = Family {
    name: "mediaservice_operator_writes_total",
    help: "Objects created, applied, patched or deleted, by kind. Stands still while nothing changes.",
    labels: &["kind"],
    ..RECONCILES
};

pub const DURATION: Family = Family {
    name: "mediaservice_operator_reconcile_duration_seconds",
    kind: Kind::Histogram,
    unit: Unit::Seconds,
    help: "Time of one reconciliation.",
    labels: &[],
    buckets: &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0],
    scope: Scope::Process,
};

pub const IN_FLIGHT: Family = Family {
    name: "mediaservice_operator_reconciles_in_flight",
    kind: Kind::Gauge,
    unit: Unit::Count,
    help: "Reconciliations under way: 8 at most, for each of `watchNamespaces` where those are named.",
    labels: &[],
    buckets: &[],
    scope: Scope::Process,
};

/// The scheduler of kube-runtime shows nobody its queue. What waits in it for the sake of a user, and
/// so what an operator that is stuck or too slow leaves undone, is told by generations.
pub const QUEUE_DEPTH: Family = Family {
    name: "mediaservice_operator_queue_depth",
    help: "MediaServices whose present generation no reconciliation has reported on yet.",
    ..IN_FLIGHT
};

pub const WATCH_ERRORS: Family = Family {
    name: "mediaservice_operator_watch_errors_total",
    help: "Watches that failed or ended with an error; each begins again by itself.",
    labels: &[],
    ..RECONCILES
};

pub const API_REQUESTS: Family = Family {
    name: "mediaservice_operator_api_requests_total",
    help: "Requests to the API server, by verb (as in RBAC) and HTTP status; none where no answer came. A watch is one request, and so is one that was tried again.",
    labels: &["verb", "code"],
    ..RECONCILES
};

pub const CRD_MISSING: Family = Family {
    name: "mediaservice_operator_crd_missing",
    help: "1 if the API server said at the last list or watch that it does not serve MediaServices.",
    unit: Unit::State,
    ..IN_FLIGHT
};

pub const LEADER: Family = Family {
    name: "mediaservice_operator_leader",
    kind: Kind::Gauge,
    unit: Unit::State,
    help: "1 if this process leads, 0 if it waits.",
    labels: &[],
    buckets: &[],
    scope: Scope::Process,
};

/// Every family of the operator.
pub const FAMILIES: &[&Family] = &[
    &RECONCILES,
    &ERRORS,
    &DURATION,
    &IN_FLIGHT,
    &QUEUE_DEPTH,
    &WRITES,
    &API_REQUESTS,
    &WATCH_ERRORS,
    &CRD_MISSING,
    &LEADER,
];
