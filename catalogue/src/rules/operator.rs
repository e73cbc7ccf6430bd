//! Alerts about the operator itself. They belong to its chart: there is one operator for many
//! MediaServices. `$S` stands for the matchers of its Service.

use super::{Alert, Severity};

/// Every alert of the operator.
pub const OPERATOR_ALERTS: &[Alert] = &[
    Alert {
        name: "MediaOperatorNoLeader",
        runbook: "MediaOperatorNoLeader",
        // While nobody is seen nothing is known of the Lease, and MediaOperatorUnseen says that.
        expr: "absent(mediaservice_operator_leader{$S} == 1) and max(up{$S} == 1)",
        lasts: "5m",
        severity: Severity::Warning,
        summary: "No MediaService is being looked after",
        description: "For 5 minutes operators in $NAMESPACE have answered, and none has held the Lease. Streams go on, but changes, new pods and changed addresses wait.",
    },
    Alert {
        name: "MediaOperatorUnseen",
        runbook: "MediaOperatorUnseen",
        expr: "absent(up{$S} == 1)",
        lasts: "5m",
        severity: Severity::Warning,
        summary: "Prometheus sees no operator: nobody knows whether MediaServices are looked after",
        description: "For 5 minutes no operator in $NAMESPACE has answered a scrape. Either none runs, or Prometheus does not find or reach it. Streams go on; the other alerts about the operator are blind.",
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
    Alert {
        name: "MediaOperatorQueueStuck",
        runbook: "MediaOperatorQueueStuck",
        expr: "sum by (namespace) (mediaservice_operator_queue_depth{$S}) > 0",
        lasts: "15m",
        severity: Severity::Warning,
        summary: "Changes of MediaServices are not taken up",
        description: "{{ $value }} MediaServices have waited in {{ $labels.namespace }} for 15 minutes: no reconciliation has reported on what their specs say now.",
    },
    Alert {
        name: "MediaOperatorWatchErrors",
        runbook: "MediaOperatorWatchErrors",
        // A watch that fails begins again within a second, that of nodes after a pause that grows to 30
        // to 60 s: six failures in ten minutes are one that never works, or an API server that ends them
        // all. A single burst is out of the ten minutes before the alert is due.
        expr: "sum by (namespace) (rate(mediaservice_operator_watch_errors_total{$S}[10m])) > 0.01",
        lasts: "15m",
        severity: Severity::Warning,
        summary: "The operator's watches fail again and again",
        description: "Watches of the operator in {{ $labels.namespace }} have failed for 15 minutes. Changes are seen late or not at all.",
    },
    Alert {
        name: "MediaOperatorCRDMissing",
        runbook: "MediaOperatorCRDMissing",
        expr: "max by (namespace) (mediaservice_operator_crd_missing{$S}) == 1",
        lasts: "5m",
        severity: Severity::Warning,
        summary: "The definition of MediaService is not in the cluster",
        description: "For 5 minutes the API server has said to the operator in {{ $labels.namespace }} that it does not serve MediaServices.",
    },
];
