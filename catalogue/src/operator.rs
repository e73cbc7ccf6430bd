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
pub const FAMILIES: &[&Family] = &[&RECONCILES, &ERRORS, &WRITES, &DURATION, &LEADER];
