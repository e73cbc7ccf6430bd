//! The two Services: one headless for scraping and pod names, one for signalling.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::meta;
use crate::controller::validate::ValidService;

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

/// Signalling, over ready pods only.
pub fn build_service(service: &ValidService) -> Service {
    Service {
        metadata: meta::object(service, &service.name),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".into()),
            selector: Some(meta::selector(service)),
            ports: Some(vec![port("http", 80)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
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
