//! The NetworkPolicy of the media pod.
//!
//! Restricts what comes in and nothing that goes out: the pod asks DNS, and whatever its configuration
//! names.

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{config, meta};
use crate::controller::validate::ValidService;
use crate::crd::Exposure;

/// Label that every namespace has.
const NAMESPACE_LABEL: &str = "kubernetes.io/metadata.name";

/// None for a pod in the node's network: no network plugin applies it there.
pub fn build_network_policy(service: &ValidService) -> Option<NetworkPolicy> {
    let wanted = &service.spec.network_policy;
    if !wanted.enabled || service.spec.media.exposure == Exposure::HostNetwork {
        return None;
    }
    let mut monitoring = peers(&wanted.monitoring_from);
    if let (Some(peers), false) = (&mut monitoring, service.operator_namespace.is_empty()) {
        peers.push(of_namespace(LabelSelector {
            match_labels: Some(meta::pairs([(
                NAMESPACE_LABEL,
                &service.operator_namespace,
            )])),
            match_expressions: None,
        }));
    }
    let mut media = vec![port("UDP", config::MEDIA_PORT)];
    if service.spec.media.tcp.enabled {
        media.push(port("TCP", config::MEDIA_PORT));
    }
    let rule = |ports, from| NetworkPolicyIngressRule {
        ports: Some(ports),
        from,
    };
    Some(NetworkPolicy {
        metadata: meta::object(service, name(service)),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some(meta::selector(service)),
                match_expressions: None,
            }),
            policy_types: Some(vec!["Ingress".into()]),
            ingress: Some(vec![
                rule(
                    vec![port("TCP", config::HTTP_PORT)],
                    peers(&wanted.signalling_from),
                ),
                rule(vec![port("TCP", config::METRICS_PORT)], monitoring),
                rule(media, None),
            ]),
            egress: None,
        }),
    })
}

pub fn name(service: &ValidService) -> String {
    format!("{}-media", service.name)
}

/// `None`, which is everybody, without a selector.
fn peers(selectors: &[LabelSelector]) -> Option<Vec<NetworkPolicyPeer>> {
    let peers: Vec<_> = selectors.iter().cloned().map(of_namespace).collect();
    (!peers.is_empty()).then_some(peers)
}

fn of_namespace(selector: LabelSelector) -> NetworkPolicyPeer {
    NetworkPolicyPeer {
        namespace_selector: Some(selector),
        ..NetworkPolicyPeer::default()
    }
}

fn port(protocol: &str, port: i32) -> NetworkPolicyPort {
    NetworkPolicyPort {
        protocol: Some(protocol.into()),
        port: Some(IntOrString::Int(port)),
        end_port: None,
    }
}
