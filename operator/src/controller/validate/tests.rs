//! Tests of validation: what passes, what is refused, and in which words.

use super::*;
use crate::controller::offline;
use crate::crd::MediaService;

fn fetched(spec: serde_json::Value) -> Fetched {
    let service: MediaService = serde_json::from_value(serde_json::json!({
        "apiVersion": "mediaservice.io/v1alpha1",
        "kind": "MediaService",
        "metadata": {"name": "cam", "namespace": "media", "uid": "u-1"},
        "spec": spec,
    }))
    .unwrap();
    offline(service, "default:1".into())
}

fn hash_of(spec: serde_json::Value) -> String {
    validate(&fetched(spec)).unwrap().spec_hash
}

#[test]
fn the_live_image_wins_over_the_operators_default() {
    let mut fetched = fetched(serde_json::json!({"media": {"exposure": "HostPort"}}));
    assert_eq!(validate(&fetched).unwrap().image, "default:1");
    fetched.live.stateful_sets = vec![
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "cam"},
            "spec": {"serviceName": "", "selector": {}, "template": {"spec": {"containers": [{"name": "m", "image": "old:0"}]}}},
        }))
        .unwrap(),
    ];
    assert_eq!(validate(&fetched).unwrap().image, "old:0");
}

#[test]
fn the_operators_default_wins_over_the_live_image_where_its_upgrades_roll() {
    let mut fetched = fetched(serde_json::json!({"rollout": {"onOperatorUpgrade": "Roll"}}));
    fetched.live.stateful_sets = vec![
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "cam"},
            "spec": {"serviceName": "", "selector": {}, "template": {"spec": {"containers": [{"name": "m", "image": "old:0"}]}}},
        }))
        .unwrap(),
    ];
    assert_eq!(validate(&fetched).unwrap().image, "default:1");
    fetched.default_image = String::new();
    assert_eq!(validate(&fetched).unwrap().image, "old:0", "it has none");
}

#[test]
fn the_image_that_was_noted_wins_over_an_edited_template_and_that_over_a_pod_without_a_stateful_set()
 {
    let mut fetched = fetched(serde_json::json!({"media": {"exposure": "HostPort"}}));
    let spec =
        |image: &str| serde_json::json!({"containers": [{"name": "media-server", "image": image}]});
    fetched.pods = vec![
        serde_json::from_value(
            serde_json::json!({"metadata": {"name": "cam-0"}, "spec": spec("pod:0")}),
        )
        .unwrap(),
    ];
    assert_eq!(validate(&fetched).unwrap().image, "pod:0");
    let mut set: k8s_openapi::api::apps::v1::StatefulSet =
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "cam"},
            "spec": {"serviceName": "", "selector": {}, "template": {"spec": spec("edited:0")}},
        }))
        .unwrap();
    fetched.live.stateful_sets = vec![set.clone()];
    assert_eq!(validate(&fetched).unwrap().image, "edited:0");
    set.annotations_mut()
        .insert("mediaservice.io/image".into(), "noted:0".into());
    let mut copy = set.clone();
    copy.metadata.name = Some("cam-copy".into());
    copy.annotations_mut()
        .insert("mediaservice.io/image".into(), "copied:0".into());
    fetched.live.stateful_sets = vec![copy, set];
    assert_eq!(validate(&fetched).unwrap().image, "noted:0");
}

#[test]
fn replicas_and_monitoring_do_not_change_the_spec_hash_but_pod_inputs_do() {
    let plain = hash_of(serde_json::json!({"media": {"exposure": "HostPort"}}));
    let stopped = serde_json::json!({
        "media": {"exposure": "HostPort"}, "replicas": 0,
        "monitoring": {
            "dashboards": {"enabled": false}, "sloTargets": {"setup": "98.5"},
            "prometheusRule": {"alertLabels": {"team": "video"}, "disabledAlerts": ["MediaPodDown"]},
        },
        "signalling": {"ingress": {"host": "a.example.com"}},
        "rollout": {"drainTimeoutSeconds": 60, "onOperatorUpgrade": "Roll"},
    });
    assert_eq!(hash_of(stopped), plain);
    let fewer = serde_json::json!({
        "media": {"exposure": "HostPort"}, "observability": {"traceSamplePercent": 1},
    });
    assert_eq!(hash_of(fewer), plain);
    for changed in [
        serde_json::json!({"media": {"exposure": "HostPort"}, "image": "new:2"}),
        serde_json::json!({"media": {"exposure": "HostPort", "port": 9000}}),
        serde_json::json!({"media": {"exposure": "HostPort", "tcp": {"port": 443}}}),
        serde_json::json!({"media": {"exposure": "HostPort", "tcp": {"enabled": false}}}),
        serde_json::json!({"media": {"exposure": "HostPort"}, "limits": {"sessionsPerPod": 5}}),
        serde_json::json!({"media": {"exposure": "HostPort"}, "limits": {"idlePublisherKbps": 5}}),
        serde_json::json!({"media": {"exposure": "HostPort"}, "pod": {"labels": {"a": "b"}}}),
        serde_json::json!({"media": {"exposure": "HostPort"}, "observability": {"otlpEndpoint": "http://otel:4318"}}),
    ] {
        assert_ne!(hash_of(changed.clone()), plain, "{changed}");
    }
}

#[test]
fn ports_of_a_service_and_the_kind_of_service_are_no_input_of_a_pod() {
    let hash = |media: serde_json::Value| hash_of(serde_json::json!({"media": media}));
    let balanced = hash(serde_json::json!({}));
    for same in [
        serde_json::json!({"exposure": "NodePort", "nodePort": 30001}),
        serde_json::json!({"port": 9000, "tcp": {"port": 443}}),
        serde_json::json!({"externalAddresses": ["media.example.com"]}),
        serde_json::json!({"loadBalancer": {"class": "a"}}),
    ] {
        assert_eq!(hash(same.clone()), balanced, "{same}");
    }
    let others = [
        balanced,
        hash(serde_json::json!({"tcp": {"enabled": false}})),
        hash(serde_json::json!({"exposure": "HostPort"})),
        hash(serde_json::json!({"exposure": "HostNetwork"})),
        hash(serde_json::json!({"exposure": "HostNetwork", "port": 9000})),
    ];
    let different: std::collections::BTreeSet<&String> = others.iter().collect();
    assert_eq!(different.len(), others.len());
}

#[test]
fn a_pod_of_another_log_level_is_of_the_same_spec_and_one_of_another_collector_is_not() {
    let with = |observability: serde_json::Value| {
        let spec = serde_json::json!({"media": {}, "observability": observability});
        validate(&fetched(spec)).unwrap()
    };
    let info = with(serde_json::json!({}));
    let debug = with(serde_json::json!({"logLevel": "debug"}));
    assert_ne!(info.spec_hash, debug.spec_hash, "as it was from the first");
    assert!(info.spec_hashes_of_other_levels.contains(&debug.spec_hash));
    assert!(debug.spec_hashes_of_other_levels.contains(&info.spec_hash));
    let traced = with(serde_json::json!({"logLevel": "debug", "otlpEndpoint": "http://otel:4318"}));
    assert!(!info.spec_hashes_of_other_levels.contains(&traced.spec_hash));
}

#[test]
fn a_spelled_out_default_does_not_change_the_spec_hash() {
    let plain = hash_of(serde_json::json!({"media": {"exposure": "HostPort"}}));
    let spelled = serde_json::json!({
        "media": {"exposure": "HostPort", "port": 8443, "tcp": {"enabled": true, "port": 8443}}, "limits": {"videoKbps": 12000}, "image": "",
    });
    assert_eq!(hash_of(spelled), plain);
}

#[test]
fn requests_that_differ_from_the_default_in_what_they_leave_out_have_different_hashes() {
    let hashes: std::collections::BTreeSet<String> = [
        serde_json::json!({"cpu": "500m", "memory": "512Mi"}),
        serde_json::json!({"cpu": "500m"}),
        serde_json::json!({"memory": "512Mi"}),
        serde_json::json!({"memory": "1Gi"}),
        serde_json::json!({"cpu": "500m", "memory": "1Gi"}),
        serde_json::json!({}),
    ]
    .into_iter()
    .map(|requests| {
        hash_of(serde_json::json!({
            "media": {"exposure": "HostPort"}, "pod": {"resources": {"requests": requests}},
        }))
    })
    .collect();
    assert_eq!(hashes.len(), 6);
}

#[test]
fn a_part_of_a_pod_that_no_pod_can_have_is_refused_with_its_place() {
    for (pod, place) in [
        (
            serde_json::json!({"tolerations": [{"key": "a"}, {"key": "b", "tolerationSeconds": "60"}]}),
            "spec.pod.tolerations[1] ",
        ),
        (
            serde_json::json!({"topologySpreadConstraints": [{"maxSkew": "1"}]}),
            "spec.pod.topologySpreadConstraints[0] ",
        ),
        (
            serde_json::json!({"affinity": {"nodeAffinity": {
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": "100", "preference": {}}],
            }}}),
            "spec.pod.affinity ",
        ),
    ] {
        let spec = serde_json::json!({"media": {"exposure": "HostPort"}, "pod": pod});
        let error = validate(&fetched(spec)).unwrap_err();
        assert_eq!(error.reason(), "InvalidSpec");
        assert!(error.to_string().starts_with(place), "{error}");
        assert!(
            error.to_string().contains("invalid type: string"),
            "{error}"
        );
    }
}

#[test]
fn shards_are_the_cpu_request_rounded_up() {
    for (cpu, shards) in [("500m", 1), ("1", 1), ("1500m", 2), ("8", 8), ("200", 64)] {
        let spec = serde_json::json!({"media": {"exposure": "HostPort"}, "pod": {"resources": {"requests": {"cpu": cpu}}}});
        assert_eq!(validate(&fetched(spec)).unwrap().shards, shards, "{cpu}");
    }
}

#[test]
fn what_an_older_crd_let_through_is_refused_by_name() {
    let spec = serde_json::json!({"media": {"exposure": "HostPort"}, "replicas": 3});
    assert_eq!(
        validate(&fetched(spec)),
        Err(ValidateError::Replicas { replicas: 3 })
    );
}

#[test]
fn a_label_that_would_cost_all_rules_is_refused_by_name() {
    let labelled = |name: &str, value: &str| {
        let labels = serde_json::json!({name: value});
        let spec = serde_json::json!({"monitoring": {"prometheusRule": {"alertLabels": labels}}});
        validate(&fetched(spec)).map(drop)
    };
    let wrong = [
        ("a.b", "x"),
        ("a-b", "x"),
        ("1a", "x"),
        ("__x", "x"),
        ("", "x"),
        ("severity", "x"),
        ("team", "{{ $labels.tier"),
    ];
    for (name, value) in wrong {
        let label = format!("{name}: {value}");
        assert_eq!(
            labelled(name, value),
            Err(ValidateError::AlertLabel { label })
        );
    }
    for (name, value) in [("team", "video"), ("_t1", ""), ("Tier", "{ $ }")] {
        assert_eq!(labelled(name, value), Ok(()), "{name}");
    }
}

#[test]
fn keys_of_an_identity_provider_need_no_secret_beside_the_cluster_key() {
    let keys = |spec: serde_json::Value| validate(&fetched(spec)).unwrap().keys;
    let plain = keys(serde_json::json!({}));
    assert_eq!(plain.jwt_hmac.unwrap().secret, "cam-generated");
    let provider = serde_json::json!({"jwksURL": "https://login.example.com/jwks"});
    let alone = keys(serde_json::json!({"auth": provider}));
    assert_eq!(
        (alone.jwt_hmac, alone.generated.as_deref()),
        (None, Some("cam-generated"))
    );
    let cluster_key = serde_json::json!({"name": "k", "key": "c"});
    let complete = keys(serde_json::json!({"auth": provider, "clusterKeySecretRef": cluster_key}));
    assert_eq!((complete.jwt_hmac, complete.generated), (None, None));
    let hmac = serde_json::json!({"jwksURL": "https://a.example.com/", "hmacSecretRef": {"name": "k", "key": "j"}});
    let both = keys(serde_json::json!({"auth": hmac, "clusterKeySecretRef": cluster_key}));
    assert_eq!(
        (both.jwt_hmac.unwrap().key, both.generated),
        ("j".to_owned(), None)
    );
}

#[test]
fn an_address_that_the_media_server_would_not_start_with_is_refused_in_time() {
    let refused = |spec: serde_json::Value| match validate(&fetched(spec)) {
        Err(ValidateError::Url { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    for endpoint in [
        "http://otel-collector.monitoring:43180000",
        "http://otel:grpc",
        "http://:4318",
    ] {
        let spec = serde_json::json!({"observability": {"otlpEndpoint": endpoint}});
        assert_eq!(refused(spec), "observability.otlpEndpoint", "{endpoint}");
    }
    let keys = serde_json::json!({"auth": {"jwksURL": "https://login.example.com:70000/keys"}});
    assert_eq!(refused(keys), "auth.jwksURL");
    let hook = |url: &str| {
        let secret = serde_json::json!({"name": "hook", "key": "secret"});
        serde_json::json!({"events": {"webhookURL": url, "webhookSecretRef": secret}})
    };
    assert_eq!(refused(hook("https://127.0.0.1/")), "events.webhookURL");
    assert!(validate(&fetched(hook("https://events.example.com/media"))).is_ok());
}
