//! Alerts about the operator itself. They belong to its chart: there is one operator for many
//! MediaServices. `$S` stands for the matchers of its Service.

use super::{Alert, Severity};

/// Every alert of the operator.
pub const OPERATOR_ALERTS: &[Alert] = &[
    Alert {
        name: "MediaOperatorNoLeader",
        runbook: "MediaOperatorNoLeader",
        expr: "absent(mediaservice_operator_leader{$S} == 1)",
        lasts: "5m",
        severity: Severity::Warning,
        summary: "No MediaService is being looked after",
        description: "For 5 minutes no operator in {{ $labels.namespace }} has held the Lease. Streams go on, but changes, new pods and changed addresses wait.",
    },
    Alert {
        name: "MediaOperatorReconcileErrors",
        runbook: "MediaOperatorReconcileErrors",
        expr: "sum by (namespace, reason) (rate(mediaservice_operator_reconcile_errors_total{$S}[10m])) > 0",
        lasts: "15m",
        severity: Severity::Warning,
        summary: "The operator fails to bring a MediaService to what it should be",
        description: "Reconciliations in {{ $labels.namespace }} have failed with {{ $labels.reason }} for 15 minutes. The condition of that reason on the MediaService has the API server's words.",
    },
];
