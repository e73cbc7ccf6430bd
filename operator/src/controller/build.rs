//! Third step: the children of a MediaService, as whole objects.
//!
//! Pure: one file per kind, no client, no clock, no randomness. Called by the controller and by
//! `operator render`.

mod addresses;
mod certificate;
pub mod config;
mod dashboard;
mod disruption_budget;
mod http_route;
mod ingress;
pub mod meta;
mod monitoring;
mod network_policy;
pub mod service;
mod workload;

pub use self::workload::{GOODBYE_SECONDS, POD_VOLUME, container, template_hash};

use std::marker::PhantomData;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::DynamicObject;
use serde::Serialize;
use serde_yaml::Value;

use super::validate::ValidService;
use crate::capabilities::{Availability, OptionalApi};

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
    pub media_services: Vec<Service>,
    pub addresses: ConfigMap,
    pub network_policy: Option<NetworkPolicy>,
    pub disruption_budget: PodDisruptionBudget,
    pub stateful_set: StatefulSet,
    pub ingress: Option<Ingress>,
    pub http_route: Option<DynamicObject>,
    pub certificate: Option<DynamicObject>,
    pub service_monitor: Option<DynamicObject>,
    pub prometheus_rule: Option<DynamicObject>,
    pub dashboards: Vec<ConfigMap>,
    pub stage: PhantomData<Stage>,
}

impl Children<Built> {
    /// Each child as a YAML document, in the order in which they are applied.
    pub fn documents(&self) -> Vec<Value> {
        let Self {
            generated_secret,
            service_account,
            config,
            pods_service,
            service,
            media_services,
            addresses,
            network_policy,
            disruption_budget,
            stateful_set,
            ingress,
            http_route,
            certificate,
            service_monitor,
            prometheus_rule,
            dashboards,
            stage: _,
        } = self;
        let mut all = Vec::new();
        push(&mut all, generated_secret);
        push(&mut all, service_account);
        push(&mut all, [config]);
        push(&mut all, [pods_service, service]);
        push(&mut all, media_services);
        push(&mut all, [addresses]);
        push(&mut all, network_policy);
        push(&mut all, [disruption_budget]);
        push(&mut all, [stateful_set]);
        push(&mut all, ingress);
        let optional = [http_route, certificate, service_monitor, prometheus_rule];
        push(&mut all, optional.into_iter().flatten());
        push(&mut all, dashboards);
        all
    }
}

fn push<'a, K: Serialize + 'a>(all: &mut Vec<Value>, objects: impl IntoIterator<Item = &'a K>) {
    let yaml = |object| serde_yaml::to_value(object).expect("Kubernetes objects are YAML");
    all.extend(objects.into_iter().map(yaml));
}

/// Builds every child of `service`.
pub fn build(service: &ValidService) -> Children<Built> {
    let monitoring = &service.spec.monitoring;
    let is_served = |api| service.served.get(api) == Availability::Present;
    let monitored = is_served(OptionalApi::Monitoring);
    Children {
        generated_secret: workload::build_generated_secret(service),
        service_account: workload::build_service_account(service),
        config: config::build_config(service),
        pods_service: service::build_pods_service(service),
        service: service::build_service(service),
        media_services: service::build_media_services(service),
        addresses: addresses::build_addresses(service),
        network_policy: network_policy::build_network_policy(service),
        disruption_budget: disruption_budget::build_disruption_budget(service),
        stateful_set: workload::build_stateful_set(service),
        ingress: ingress::build_ingress(service),
        http_route: http_route::build_http_route(service)
            .filter(|_| is_served(OptionalApi::Gateway)),
        certificate: certificate::build_certificate(service)
            .filter(|_| is_served(OptionalApi::CertManager)),
        service_monitor: (monitored && monitoring.service_monitor.enabled)
            .then(|| monitoring::build_service_monitor(service)),
        prometheus_rule: (monitored && monitoring.prometheus_rule.enabled)
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
