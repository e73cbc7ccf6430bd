//! Tests of the resource's definition: its size, its rules, its defaults.

use std::collections::BTreeSet;

use kube_cel::{ErrorKind, Validator};
use serde_json::{Value, json};

use super::*;

fn schema() -> Value {
    let definition = serde_json::to_value(definition()).unwrap();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

/// The messages of the rules that such a MediaService breaks.
fn broken(schema: &Value, name: &str, spec: &Value) -> Vec<String> {
    let object = json!({"metadata": {"name": name}, "spec": spec});
    let Err(errors) = Validator::new().validate(schema, &object, None) else {
        return Vec::new();
    };
    let message = |error: &kube_cel::ValidationError| {
        // Anything else is a rule that can't be evaluated.
        assert_eq!(error.kind, ErrorKind::ValidationFailure, "{error:?}");
        error.message.clone()
    };
    errors.as_slice().iter().map(message).collect()
}

fn messages(schema: &Value, found: &mut BTreeSet<String>) {
    for rule in schema["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        found.insert(rule["message"].as_str().unwrap().to_owned());
    }
    for below in schema["properties"]
        .as_object()
        .into_iter()
        .flat_map(|map| map.values())
        .chain(schema.get("items"))
    {
        messages(below, found);
    }
}

/// The same list goes to the real API server, in `tests/reconcile/refused.rs`.
#[test]
fn every_rule_refuses_something_and_says_what_would_be_right() {
    let list = include_str!("../../../tests/data/refused.yaml");
    let list: Vec<Value> = serde_yaml::from_str(list).unwrap();
    let schema = schema();
    let mut used: BTreeSet<String> = broken(&schema, "Wrong", &json!({})).into_iter().collect();
    for wrong in list.iter().filter(|wrong| wrong["schema"] != true) {
        let found = broken(&schema, "cam", &wrong["spec"]);
        let wanted = wrong["message"].as_str().unwrap();
        assert!(
            found.iter().any(|message| message.contains(wanted)),
            "{wrong}: {found:?}"
        );
        used.extend(found);
    }
    let mut all = BTreeSet::new();
    messages(&schema, &mut all);
    assert_eq!(all.difference(&used).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn what_is_right_breaks_no_rule() {
    let schema = schema();
    let examples = [
        include_str!("../../../crds/examples/minimal.yaml"),
        include_str!("../../../crds/examples/full.yaml"),
    ];
    for example in examples {
        let example: Value = serde_yaml::from_str(example).unwrap();
        assert_eq!(broken(&schema, "cam", &example["spec"]), [""; 0]);
    }
    let edges = [
        json!({}),
        json!({"replicas": 0, "media": {"nodePort": 30000, "port": 1, "tcp": {"port": 65535}}}),
        json!({"media": {"nodePort": 32767, "externalAddresses": ["2001:db8::7", "203.0.113.7", "a", "Lb-1.example.com"]}}),
        json!({"media": {"exposure": "HostNetwork", "port": 1024, "tcp": {"port": 1024}}}),
        json!({"media": {"loadBalancer": {"sourceRanges": ["0.0.0.0/0", "2001:db8::/32"]}}}),
        json!({"signalling": {"httpRoute": {"parentRefs": [{"name": "gw"}], "hostnames": ["a.example.com"]}}}),
        json!({"signalling": {"certificateIssuerRef": {"name": "le"}, "ingress": {"host": "a", "tlsSecretName": "t"}}}),
        json!({"signalling": {"corsOrigins": ["*", "http://localhost:8080"]}}),
        json!({"monitoring": {"prometheusRule": {"runbookBaseURL": "https://example.com/wiki"}}}),
        json!({"monitoring": {"prometheusRule": {"alertLabels": {"team": "a", "_t1": "", "Tier": "{ $ }"}}}}),
        json!({"monitoring": {"serviceMonitor": {"intervalSeconds": 60, "scrapeTimeoutSeconds": 60}}}),
        json!({"monitoring": {"sloTargets": {"setup": "94", "latency": "99.999", "continuity": "95.5"}}}),
        json!({"auth": {"jwksURL": "https://login.example.com:8443/realms/x/certs?a=b", "tenantClaim": "https://example.com/tenant"}}),
        json!({"rollout": {"drainTimeoutSeconds": 30}, "limits": {"idlePublisherKbps": 50000}}),
        json!({"pod": {"resources": {"requests": {"cpu": "2000m", "memory": "2048Mi"}, "limits": {"cpu": 2, "memory": "2Gi"}}}}),
        json!({"pod": {"resources": {"requests": {"memory": "4Gi"}, "limits": {"cpu": "2"}}}}),
        json!({"clusterKeySecretRef": {"name": "a.b-9", "key": "Root_key.1"}}),
        json!({"recording": {"enabled": true, "claimName": "", "sizeLimit": "500", "maxSeconds": 0}}),
        json!({"rollout": {"drainTimeoutSeconds": 86400, "onOperatorUpgrade": "Roll"}}),
    ];
    for spec in edges {
        assert_eq!(broken(&schema, "a-9", &spec), [""; 0], "{spec}");
    }
}

/// Fields without words for `kubectl explain`.
fn undescribed(schema: &Value, path: &str, found: &mut Vec<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        if field["description"].as_str().is_none_or(str::is_empty) {
            found.push(path.clone());
        }
        undescribed(field, &path, found);
        undescribed(&field["items"], &path, found);
    }
}

#[test]
fn every_field_of_the_spec_has_a_description() {
    let mut found = Vec::new();
    undescribed(&schema()["properties"]["spec"], "spec", &mut found);
    assert_eq!(found, [""; 0]);
}

#[test]
fn the_crd_stays_below_100_kib() {
    let size = serde_json::to_string(&definition()).unwrap().len();
    assert!(size < 100 * 1024, "{size} bytes");
}

#[test]
fn an_empty_spec_gets_every_default() {
    let spec: MediaServiceSpec = serde_json::from_value(json!({})).unwrap();
    assert_eq!(spec.replicas, 1);
    assert_eq!(spec.media.exposure, Exposure::LoadBalancer);
    assert_eq!(spec.media.port, 8443);
    assert_eq!(spec.media.tcp_port(), Some(8443));
    assert_eq!(spec.limits.sessions_per_pod, 2000);
    assert_eq!(spec.rollout.drain_timeout_seconds, 540);
    assert_eq!(spec.rollout.on_operator_upgrade, OnOperatorUpgrade::Wait);
    assert_eq!(
        spec.monitoring.service_monitor.labels["release"],
        "kube-prometheus-stack"
    );
}
