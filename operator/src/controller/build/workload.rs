//! The StatefulSet with its pod template, its ServiceAccount and its generated Secret.
//!
//! A StatefulSet because the ordinal is part of every ICE user fragment and session id; `OnDelete`
//! because only the operator may restart a pod; no volume claims, so nothing immutable is in it.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetUpdateStrategy};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, DownwardAPIVolumeFile,
    DownwardAPIVolumeSource, EmptyDirVolumeSource, EnvVar, EnvVarSource, HTTPGetAction, KeyToPath,
    LocalObjectReference, ObjectFieldSelector, PersistentVolumeClaimVolumeSource,
    PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ProjectedVolumeSource,
    ResourceRequirements, SeccompProfile, Secret, SecretProjection, SecurityContext,
    ServiceAccount, Volume, VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use super::{addresses, config, meta, service};
use crate::controller::drain;
use crate::controller::validate::{KeyRef, ValidService};
use crate::crd::{Exposure, Recording};
use crate::hash;

/// User of the image.
const UID: i64 = 65532;

/// Where the server looks for the pod's own annotations; not in its configuration, which a server from
/// before this would refuse.
const POD_DIR: &str = "/etc/media/pod";

/// Volume of recordings.
const RECORDINGS_VOLUME: &str = "recordings";

/// Volume of the pod's own annotations.
pub const POD_VOLUME: &str = "pod";

/// Time for the server to close its sessions and to end requests, once it waits for them no longer.
pub const GOODBYE_SECONDS: u32 = 30;

/// Metadata of the Secret `<name>-generated`; `apply` adds the random bytes.
pub fn build_generated_secret(service: &ValidService) -> Option<Secret> {
    let name = service.keys.generated.as_ref()?;
    Some(Secret {
        metadata: meta::object(service, name),
        type_: Some("Opaque".into()),
        ..Secret::default()
    })
}

/// An account without rights, unless the user names one.
pub fn build_service_account(service: &ValidService) -> Option<ServiceAccount> {
    service
        .spec
        .pod
        .service_account_name
        .is_empty()
        .then(|| ServiceAccount {
            metadata: meta::object(service, service_account_name(service)),
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        })
}

pub fn build_stateful_set(service: &ValidService) -> StatefulSet {
    StatefulSet {
        metadata: ObjectMeta {
            annotations: Some(meta::pairs([(meta::IMAGE, &service.image)])),
            ..meta::object(service, &service.name)
        },
        spec: Some(StatefulSetSpec {
            replicas: Some(service.replicas),
            service_name: Some(service::pods_name(service)),
            selector: LabelSelector {
                match_labels: Some(meta::selector(service)),
                ..LabelSelector::default()
            },
            pod_management_policy: Some("Parallel".into()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".into()),
                rolling_update: None,
            }),
            revision_history_limit: Some(2),
            template: PodTemplateSpec {
                metadata: Some(pod_meta(service)),
                spec: Some(PodSpec {
                    termination_grace_period_seconds: Some(grace_seconds(service)),
                    ..pod_spec(service)
                }),
            },
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

/// Over what this version of the operator puts into a pod: pods of the same spec and another hash were made by
/// another version. The grace period is left out, because a pod need not restart for it.
pub fn template_hash(service: &ValidService) -> String {
    hash::of(&json!({"labels": pod_labels(service), "spec": pod_spec(service)}))
}

/// The kubelet's patience after SIGTERM.
fn grace_seconds(service: &ValidService) -> i64 {
    let longest = drain::before_stop(&service.spec.rollout).as_secs();
    i64::try_from(longest)
        .unwrap_or(i64::MAX)
        .saturating_add(GOODBYE_SECONDS.into())
}

fn pod_labels(service: &ValidService) -> BTreeMap<String, String> {
    let mut labels = service.spec.pod.labels.clone();
    labels.extend(meta::labels(service));
    labels
}

fn pod_meta(service: &ValidService) -> ObjectMeta {
    let mut annotations = service.spec.pod.annotations.clone();
    annotations.insert(meta::SPEC_HASH.into(), service.spec_hash.clone());
    annotations.insert(meta::TEMPLATE_HASH.into(), template_hash(service));
    ObjectMeta {
        labels: Some(pod_labels(service)),
        annotations: Some(annotations),
        ..ObjectMeta::default()
    }
}

/// All but the grace period.
fn pod_spec(service: &ValidService) -> PodSpec {
    let pod = &service.spec.pod;
    let placement = &service.placement;
    let host_network = service.spec.media.exposure == Exposure::HostNetwork;
    PodSpec {
        host_network: host_network.then_some(true),
        // Otherwise a pod in the node's network asks the node's resolver, which knows no Service.
        dns_policy: host_network.then(|| "ClusterFirstWithHostNet".into()),
        service_account_name: Some(if pod.service_account_name.is_empty() {
            service_account_name(service)
        } else {
            pod.service_account_name.clone()
        }),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(UID),
            run_as_group: Some(UID),
            fs_group: Some(UID),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".into(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(service)],
        volumes: Some(volumes(service)),
        node_selector: some(&pod.node_selector),
        tolerations: (!placement.tolerations.is_empty()).then(|| placement.tolerations.clone()),
        affinity: placement.affinity.clone(),
        topology_spread_constraints: (!placement.topology_spread_constraints.is_empty())
            .then(|| placement.topology_spread_constraints.clone()),
        image_pull_secrets: (!pod.image_pull_secrets.is_empty()).then(|| {
            pod.image_pull_secrets
                .iter()
                .map(|secret| LocalObjectReference {
                    name: secret.name.clone(),
                })
                .collect()
        }),
        priority_class_name: (!pod.priority_class_name.is_empty())
            .then(|| pod.priority_class_name.clone()),
        ..PodSpec::default()
    }
}

/// The one container of a pod.
pub fn container(service: &ValidService) -> Container {
    let resources = &service.spec.pod.resources;
    Container {
        name: "media-server".into(),
        image: Some(service.image.clone()),
        args: Some(vec!["serve".into()]),
        env: Some(env(service)),
        ports: Some(ports(service)),
        resources: Some(ResourceRequirements {
            requests: some(&resources.requests),
            limits: some(&resources.limits),
            ..ResourceRequirements::default()
        }),
        // Patient: a restart ends every session, so only a process that hangs deserves it. One that does
        // takes no notice of SIGTERM, and has no use for a grace period of minutes.
        liveness_probe: Some(Probe {
            termination_grace_period_seconds: Some(GOODBYE_SECONDS.into()),
            ..probe("/livez", 10, 5, 3)
        }),
        // A pod takes sessions as soon as it can; a client waits for this.
        readiness_probe: Some(probe("/readyz", 2, 2, 2)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                add: None,
                drop: Some(vec!["ALL".into()]),
            }),
            ..SecurityContext::default()
        }),
        // The last lines of a crash then show in the pod's status and in our condition.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        volume_mounts: Some(mounts(service)),
        ..Container::default()
    }
}

fn mounts(service: &ValidService) -> Vec<VolumeMount> {
    let mut mounts = vec![
        mount("config", config::CONFIG_DIR),
        mount("secrets", config::SECRETS_DIR),
        mount("addresses", config::ADDRESSES_DIR),
        mount(POD_VOLUME, POD_DIR),
    ];
    if service.spec.recording.enabled {
        mounts.push(VolumeMount {
            read_only: None,
            ..mount(RECORDINGS_VOLUME, config::RECORDINGS_DIR)
        });
    }
    mounts
}

/// The server takes media over UDP and TCP on one port; the node may have them on two.
fn ports(service: &ValidService) -> Vec<ContainerPort> {
    let media = &service.spec.media;
    let port = config::media_port(service);
    let of_host = |host_port| (media.exposure == Exposure::HostPort).then_some(host_port);
    let mut ports = vec![
        container_port("http", config::HTTP_PORT, "TCP", None),
        container_port("metrics", config::METRICS_PORT, "TCP", None),
        container_port("media", port, "UDP", of_host(media.port)),
    ];
    if let Some(tcp) = media.tcp_port() {
        ports.push(container_port("media-tcp", port, "TCP", of_host(tcp)));
    }
    ports
}

fn env(service: &ValidService) -> Vec<EnvVar> {
    let plain = |name: &str, value: String| EnvVar {
        name: name.into(),
        value: Some(value),
        value_from: None,
    };
    let mut env = vec![
        // A variable, so that `kubectl exec … media-server token` finds the file too.
        plain(
            "MEDIA_CONFIG",
            format!("{}/{}", config::CONFIG_DIR, config::FILE),
        ),
        field_env("POD_NAME", "metadata.name"),
        field_env("POD_NAMESPACE", "metadata.namespace"),
        field_env("NODE_NAME", "spec.nodeName"),
    ];
    if service.spec.media.exposure == Exposure::HostNetwork {
        // No NetworkPolicy guards the node's network: HTTP and metrics listen where the cluster reaches
        // the node, and on none of its other addresses. Brackets, because the family is not known here.
        env.push(field_env("HOST_IP", "status.hostIP"));
        let listen = |port| format!("[$(HOST_IP)]:{port}");
        env.push(plain("MEDIA_HTTP_LISTEN", listen(config::HTTP_PORT)));
        env.push(plain("MEDIA_METRICS_LISTEN", listen(config::METRICS_PORT)));
    }
    env
}

/// One volume each, side by side: a runtime can't make mount points inside a read-only volume, and
/// a Secret that is gone must not hold back new addresses.
fn volumes(service: &ValidService) -> Vec<Volume> {
    let mut secrets = vec![secret_file(&service.keys.cluster_key, "cluster-key")];
    if let Some(key) = &service.keys.jwt_hmac {
        secrets.push(secret_file(key, "jwt-hmac"));
    }
    if let Some(turn) = &service.keys.turn {
        secrets.push(secret_file(turn, config::TURN_SECRET));
    }
    if let Some(url) = &service.keys.amqp_url {
        secrets.push(secret_file(url, config::AMQP_URL));
    }
    if let Some(secret) = &service.keys.webhook_secret {
        secrets.push(secret_file(secret, config::WEBHOOK_SECRET));
    }
    let mut volumes = vec![
        Volume {
            name: "config".into(),
            config_map: Some(ConfigMapVolumeSource {
                name: config::name(service),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
        Volume {
            name: "secrets".into(),
            projected: Some(ProjectedVolumeSource {
                default_mode: Some(0o440),
                sources: Some(secrets),
            }),
            ..Volume::default()
        },
        Volume {
            name: "addresses".into(),
            config_map: Some(ConfigMapVolumeSource {
                name: addresses::name(service),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
        // So a pod is told to drain without access to the API. Empty without the annotation.
        Volume {
            name: POD_VOLUME.into(),
            downward_api: Some(DownwardAPIVolumeSource {
                items: Some(vec![DownwardAPIVolumeFile {
                    path: "drain".into(),
                    field_ref: Some(ObjectFieldSelector {
                        api_version: Some("v1".into()),
                        field_path: format!("metadata.annotations['{}']", meta::DRAIN),
                    }),
                    ..DownwardAPIVolumeFile::default()
                }]),
                ..DownwardAPIVolumeSource::default()
            }),
            ..Volume::default()
        },
    ];
    let recording = &service.spec.recording;
    if recording.enabled {
        volumes.push(recordings(recording));
    }
    volumes
}

/// Where recordings are kept. The kubelet ends a pod whose emptyDir is over its limit, and the server keeps
/// to its own by then: it knows the size of files, not what they take on the disk.
fn recordings(recording: &Recording) -> Volume {
    let claim = (!recording.claim_name.is_empty()).then(|| PersistentVolumeClaimVolumeSource {
        claim_name: recording.claim_name.clone(),
        read_only: None,
    });
    let own = claim.is_none().then(|| EmptyDirVolumeSource {
        medium: None,
        size_limit: Some(Quantity(with_a_fifth_more(&recording.size_limit))),
    });
    Volume {
        name: RECORDINGS_VOLUME.into(),
        persistent_volume_claim: claim,
        empty_dir: own,
        ..Volume::default()
    }
}

/// A size that the resource's rules let through, and a fifth of it, in tenths so that none is lost.
fn with_a_fifth_more(size: &str) -> String {
    let digits = size.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = &size[digits.len()..];
    let tenths = digits.parse::<u64>().unwrap_or_default() * 12;
    match (tenths % 10, unit) {
        (0, unit) => format!("{}{unit}", tenths / 10),
        // Part of a byte.
        (_, "") => (tenths / 10 + 1).to_string(),
        (part, unit) => format!("{}.{part}{unit}", tenths / 10),
    }
}

fn service_account_name(service: &ValidService) -> String {
    format!("{}-media", service.name)
}

fn secret_file(key: &KeyRef, path: &str) -> VolumeProjection {
    VolumeProjection {
        secret: Some(SecretProjection {
            name: key.secret.clone(),
            items: Some(vec![KeyToPath {
                key: key.key.clone(),
                path: path.into(),
                mode: None,
            }]),
            optional: None,
        }),
        ..VolumeProjection::default()
    }
}

fn field_env(name: &str, path: &str) -> EnvVar {
    EnvVar {
        name: name.into(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".into()),
                field_path: path.into(),
            }),
            ..EnvVarSource::default()
        }),
    }
}

fn container_port(name: &str, port: i32, protocol: &str, host_port: Option<i32>) -> ContainerPort {
    ContainerPort {
        name: Some(name.into()),
        container_port: port,
        protocol: Some(protocol.into()),
        host_port,
        host_ip: None,
    }
}

fn probe(path: &str, period_seconds: i32, timeout_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String("metrics".into()),
            scheme: Some("HTTP".into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(timeout_seconds),
        failure_threshold: Some(failure_threshold),
        ..Probe::default()
    }
}

fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: volume.into(),
        mount_path: path.into(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

fn some<V: Clone>(map: &BTreeMap<String, V>) -> Option<BTreeMap<String, V>> {
    (!map.is_empty()).then(|| map.clone())
}

#[cfg(test)]
mod tests {
    use super::with_a_fifth_more;

    #[test]
    fn an_empty_dir_has_a_fifth_more_room_than_recordings_may_take() {
        for (size, more) in [
            ("10Gi", "12Gi"),
            ("500Mi", "600Mi"),
            ("1Gi", "1.2Gi"),
            ("7", "9"),
            ("3T", "3.6T"),
        ] {
            assert_eq!(with_a_fifth_more(size), more);
        }
    }
}
