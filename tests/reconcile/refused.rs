//! A MediaService that can't be right is refused by the API server, with what would be right.

use tests::{Kubectl, operator};

use crate::service::{NAME, Service};

/// What is wrong, the spec, and a part of the message that a person needs.
const WRONG: &[(&str, &str, &str)] = &[
    (
        "no exposure",
        "{media: {}}",
        "spec.media.exposure: Required value",
    ),
    (
        "an exposure of later",
        "{media: {exposure: LoadBalancer}}",
        "supported values: \"HostPort\"",
    ),
    (
        "two replicas",
        "{media: {exposure: HostPort}, replicas: 2}",
        "replicas can be 0 or 1 for now",
    ),
    (
        "negative replicas",
        "{media: {exposure: HostPort}, replicas: -1}",
        "replicas can be 0 or 1 for now",
    ),
    (
        "port 0",
        "{media: {exposure: HostPort, port: 0}}",
        "port must be 1 to 65535",
    ),
    (
        "TCP port 0",
        "{media: {exposure: HostPort, tcp: {port: 0}}}",
        "tcp.port must be 1 to 65535",
    ),
    (
        "a host name as address",
        "{media: {exposure: HostPort, externalAddresses: [media.example.com]}}",
        "must be an IP address, such as 203.0.113.7",
    ),
    (
        "an origin with a path",
        "{media: {exposure: HostPort}, signalling: {corsOrigins: ['https://a.example.com/x']}}",
        "scheme and host without a path",
    ),
    (
        "an upper-case host",
        "{media: {exposure: HostPort}, signalling: {ingress: {host: Media.example.com}}}",
        "must be a DNS name in lower case",
    ),
    (
        "an empty issuer",
        "{media: {exposure: HostPort}, auth: {issuer: ''}}",
        "issuer must be 1 to 253 characters",
    ),
    (
        "no bandwidth",
        "{media: {exposure: HostPort}, limits: {videoKbps: 1}}",
        "videoKbps must be 100 to 50000",
    ),
    (
        "a label of ours",
        "{media: {exposure: HostPort}, pod: {labels: {app.kubernetes.io/name: x}}}",
        "must not use the prefixes mediaservice.io/ and app.kubernetes.io/",
    ),
    (
        "a timeout above the interval",
        "{media: {exposure: HostPort}, monitoring: {serviceMonitor: {intervalSeconds: 5}}}",
        "scrapeTimeoutSeconds must not be above intervalSeconds",
    ),
    (
        "an image with a space",
        "{media: {exposure: HostPort}, image: 'a b'}",
        "image must not contain white space",
    ),
    (
        "an empty audience",
        "{media: {exposure: HostPort}, auth: {audience: ''}}",
        "audience must be 1 to 253 characters",
    ),
    (
        "a key Secret without a name",
        "{media: {exposure: HostPort}, auth: {hmacSecretRef: {name: '', key: jwt}}}",
        "name must be the name of a Secret",
    ),
    (
        "a key Secret without a key",
        "{media: {exposure: HostPort}, auth: {hmacSecretRef: {name: keys, key: ''}}}",
        "key must be a key of that Secret",
    ),
    (
        "a cluster key without a name",
        "{media: {exposure: HostPort}, clusterKeySecretRef: {name: '', key: cluster-key}}",
        "name must be the name of a Secret",
    ),
    (
        "no sessions",
        "{media: {exposure: HostPort}, limits: {sessionsPerPod: 0}}",
        "sessionsPerPod must be 1 to 100000",
    ),
    (
        "no viewers",
        "{media: {exposure: HostPort}, limits: {viewersPerDevice: 0}}",
        "viewersPerDevice must be 1 to 100000",
    ),
    (
        "a negative session length",
        "{media: {exposure: HostPort}, limits: {maxSessionSeconds: -1}}",
        "maxSessionSeconds must be 0 to 31536000, in seconds; 0 is for ever",
    ),
    (
        "an annotation of ours",
        "{media: {exposure: HostPort}, pod: {annotations: {mediaservice.io/spec-hash: x}}}",
        "pod.annotations must not use the prefixes",
    ),
    (
        "no interval",
        "{media: {exposure: HostPort}, monitoring: {serviceMonitor: {intervalSeconds: 0}}}",
        "intervalSeconds must be 1 to 3600",
    ),
    (
        "no timeout",
        "{media: {exposure: HostPort}, monitoring: {serviceMonitor: {scrapeTimeoutSeconds: 0}}}",
        "scrapeTimeoutSeconds must be 1 to 3600",
    ),
    (
        "a TURN server by http",
        "{media: {exposure: HostPort}, turn: {urls: ['http://turn.example.com']}}",
        "each of turn.urls must be stun:, stuns:, turn: or turns: with a host",
    ),
    (
        "TURN without a secret",
        "{media: {exposure: HostPort}, turn: {urls: ['turn:turn.example.com:3478']}}",
        "a TURN server takes nobody without credentials: set turn.secretRef",
    ),
    (
        "TURN for a moment",
        "{media: {exposure: HostPort}, turn: {urls: ['stun:turn.example.com'], ttlSeconds: 1}}",
        "turn.ttlSeconds must be 600 to 86400",
    ),
];

#[test]
fn a_media_service_that_can_not_be_right_is_refused_with_what_would_be_right() {
    operator::install();
    let kubectl = Kubectl::new("default");
    let apply = |name: &str, spec: &str| {
        let manifest = format!(
            "apiVersion: mediaservice.io/v1alpha1\nkind: MediaService\nmetadata: {{name: {name}}}\nspec: {spec}\n"
        );
        match kubectl.apply(&manifest) {
            Ok(_) => {
                let _ = kubectl.run(&["delete", "mediaservice", name]);
                panic!("accepted: {spec}");
            }
            Err(error) => error.to_string(),
        }
    };
    for (what, spec, right) in WRONG {
        let message = apply("wrong", spec);
        assert!(message.contains(right), "{what}: {message}");
    }
    let long = "a".repeat(41);
    let message = apply(&long, "{media: {exposure: HostPort}}");
    assert!(message.contains("at most 40 characters"), "{message}");
}

#[test]
fn the_example_with_every_field_is_taken() {
    operator::install();
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds/examples/full.yaml");
    Kubectl::new("default")
        .run(&["apply", "--dry-run=server", "--filename", example])
        .expect("the API server takes it");
}

#[test]
fn a_second_replica_is_refused_through_kubectl_scale_too() {
    let service = Service::apply(
        "reconcile-scale",
        "{media: {exposure: HostPort}, replicas: 0}",
    );
    let refused = service
        .kubectl
        .run(&["scale", "mediaservice", NAME, "--replicas=2"]);
    let message = refused.expect_err("2 is refused").to_string();
    assert!(
        message.contains("replicas can be 0 or 1 for now"),
        "{message}"
    );
}
