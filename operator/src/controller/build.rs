//! Third step: the children of a MediaService, as whole objects.
//!
//! Pure: one file per kind, no client, no clock, no randomness. Called by the controller and by
//! `operator render`.

mod addresses;
pub mod config;
mod dashboard;
mod ingress;
pub mod meta;
mod monitoring;
mod service;
mod workload;

use std::marker::PhantomData;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::DynamicObject;

use super::validate::ValidService;
use crate::capabilities::Availability;

/// Made by `build`, not yet in the cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Built;

/// In the cluster, as the API server returned it.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied;

/// Every child of one MediaService, in the order in which they are applied. Secrets and addresses
/// come before the pods that mount them.
#[derive(Debug, Clone, PartialEq)]
pub struct Children<Stage> {
    /// Without data: random bytes are added when it is created, and it is never read or changed.
    pub generated_secret: Option<Secret>,
    pub service_account: Option<ServiceAccount>,
    pub config: ConfigMap,
    pub pods_service: Service,
    pub service: Service,
    pub addresses: ConfigMap,
    pub stateful_set: StatefulSet,
    pub ingress: Option<Ingress>,
    pub service_monitor: Option<DynamicObject>,
    pub prometheus_rule: Option<DynamicObject>,
    pub dashboards: Vec<ConfigMap>,
    pub stage: PhantomData<Stage>,
}

/// Builds every child of `service`.
pub fn build(service: &ValidService) -> Children<Built> {
    let monitoring = &service.spec.monitoring;
    let served = service.monitoring == Availability::Present;
    Children {
        generated_secret: workload::build_generated_secret(service),
        service_account: workload::build_service_account(service),
        config: config::build_config(service),
        pods_service: service::build_pods_service(service),
        service: service::build_service(service),
        addresses: addresses::build_addresses(service),
        stateful_set: workload::build_stateful_set(service),
        ingress: ingress::build_ingress(service),
        service_monitor: (served && monitoring.service_monitor.enabled)
            .then(|| monitoring::build_service_monitor(service)),
        prometheus_rule: (served && monitoring.prometheus_rule.enabled)
            .then(|| monitoring::build_prometheus_rule(service)),
        dashboards: if monitoring.dashboards.enabled {
            dashboard::build_dashboards(service)
        } else {
            Vec::new()
        },
        stage: PhantomData,
    }
}

#[cfg(test)]
mod tests;
