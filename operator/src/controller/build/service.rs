//! The Services: one headless for scraping and pod names, one for signalling, and those that bring media
//! to the pod where the exposure is by Service.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{config, meta};
use crate::controller::validate::ValidService;
use crate::crd::Exposure;

/// Headless: gives pods their DNS names and Prometheus its targets, ready or not.
pub fn build_pods_service(service: &ValidService) -> Service {
    let scrape = meta::pairs([(meta::SCRAPE_LABEL, "true")]);
    Service {
        metadata: meta::object_with_labels(service, pods_name(service), &scrape),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".into()),
            publish_not_ready_addresses: Some(true),
            selector: Some(meta::selector(service)),
            ports: Some(vec![port("metrics", 9090)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// Signalling, to the pod ready or not: one that drains is not, and its sessions end and change over HTTP.
/// There is no other to go to, and a pod that takes no session answers so itself.
pub fn build_service(service: &ValidService) -> Service {
    Service {
        metadata: meta::object(service, &service.name),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".into()),
            publish_not_ready_addresses: Some(true),
            selector: Some(meta::selector(service)),
            ports: Some(vec![port("http", 80)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// For LoadBalancer one for each protocol, because not every cloud takes both in one. For NodePort one
/// for both: two Services can't have the same node port.
pub fn build_media_services(service: &ValidService) -> Vec<Service> {
    let media = &service.spec.media;
    let udp = media_port("media", "UDP", media.port);
    let tcp = |port| media_port("media-tcp", "TCP", port);
    match media.exposure {
        Exposure::LoadBalancer => {
            let tcp = media
                .tcp_port()
                .map(|port| load_balancer(service, tcp_name(&service.name), tcp(port)));
            [load_balancer(service, udp_name(&service.name), udp)]
                .into_iter()
                .chain(tcp)
                .collect()
        }
        Exposure::NodePort => {
            // The node port is shared only by ports of the same number.
            let mut ports = vec![udp];
            if media.tcp.enabled {
                ports.push(tcp(media.port));
            }
            for port in &mut ports {
                port.node_port = Some(media.node_port);
            }
            vec![node_port(service, ports)]
        }
        Exposure::HostPort | Exposure::HostNetwork => Vec::new(),
    }
}

/// Only to the node that the pod is on: a hop less, and the client's address stays.
fn load_balancer(service: &ValidService, name: String, port: ServicePort) -> Service {
    let wanted = &service.spec.media.load_balancer;
    let mut metadata = meta::object(service, name);
    if !wanted.annotations.is_empty() {
        metadata.annotations = Some(wanted.annotations.clone());
    }
    let ranges: Vec<String> = wanted
        .source_ranges
        .iter()
        .map(|range| range.0.clone())
        .collect();
    Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some("LoadBalancer".into()),
            selector: Some(meta::selector(service)),
            ports: Some(vec![port]),
            external_traffic_policy: Some("Local".into()),
            load_balancer_class: (!wanted.class.is_empty()).then(|| wanted.class.clone()),
            load_balancer_source_ranges: (!ranges.is_empty()).then_some(ranges),
            ip_family_policy: Some(wanted.ip_family_policy.as_str().into()),
            // One that drains is not ready, and still has sessions.
            publish_not_ready_addresses: Some(true),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// Every node takes it, in every family that the cluster has.
fn node_port(service: &ValidService, ports: Vec<ServicePort>) -> Service {
    Service {
        metadata: meta::object(service, node_port_name(&service.name)),
        spec: Some(ServiceSpec {
            type_: Some("NodePort".into()),
            selector: Some(meta::selector(service)),
            ports: Some(ports),
            external_traffic_policy: Some("Cluster".into()),
            ip_family_policy: Some("PreferDualStack".into()),
            publish_not_ready_addresses: Some(true),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn media_port(name: &str, protocol: &str, number: i32) -> ServicePort {
    ServicePort {
        name: Some(name.into()),
        port: number,
        protocol: Some(protocol.into()),
        target_port: Some(IntOrString::Int(config::MEDIA_PORT)),
        ..ServicePort::default()
    }
}

/// Media over UDP through a load balancer, for the MediaService `name`.
pub fn udp_name(name: &str) -> String {
    format!("{name}-media-udp")
}

/// Media over TCP through a load balancer.
pub fn tcp_name(name: &str) -> String {
    format!("{name}-media-tcp")
}

/// Media through ports of the nodes.
pub fn node_port_name(name: &str) -> String {
    format!("{name}-media")
}

pub fn pods_name(service: &ValidService) -> String {
    format!("{}-pods", service.name)
}

/// A port of a Service that leads to the container port of the same name.
fn port(name: &str, number: i32) -> ServicePort {
    ServicePort {
        name: Some(name.into()),
        port: number,
        protocol: Some("TCP".into()),
        target_port: Some(IntOrString::String(name.into())),
        ..ServicePort::default()
    }
}
