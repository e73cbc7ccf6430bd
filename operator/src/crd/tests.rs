//! Tests of the resource's definition: its size, its rules, its defaults.

use super::*;

#[test]
fn the_crd_stays_below_100_kib() {
    let size = serde_json::to_string(&definition()).unwrap().len();
    assert!(size < 100 * 1024, "{size} bytes");
}

#[test]
fn a_minimal_spec_gets_every_default() {
    let spec: MediaServiceSpec =
        serde_json::from_value(serde_json::json!({"media": {"exposure": "HostPort"}})).unwrap();
    assert_eq!(spec.replicas, 1);
    assert_eq!(spec.media.port, 8443);
    assert_eq!(spec.limits.sessions_per_pod, 2000);
    assert_eq!(
        spec.monitoring.service_monitor.labels["release"],
        "kube-prometheus-stack"
    );
}
