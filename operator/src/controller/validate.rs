//! Second step: turns what was read into values that every builder can use without checking again.
//!
//! Pure. The API server has applied the CEL rules already; what is checked here can only come from
//! an object stored under an older CRD, from `operator render`, or from the operator's own set-up. But for
//! addresses (`media-urls`), which no CEL rule can read as the media server does.

use catalogue::rules::is_alert_label;
use catalogue::rules::slo::{Objective, Objectives};
use k8s_openapi::api::core::v1::{Affinity, Toleration, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::addresses::{self, AddressTable};
use super::build::{config, meta};
use super::fetch::Fetched;
use super::quantity;
use crate::capabilities::Served;
use crate::crd::{
    Exposure, LOG_LEVELS, Media, MediaServiceSpec, OnOperatorUpgrade, Pod, SecretKeyRef, SloTargets,
};
use crate::hash;

/// A MediaService that can be built.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidService {
    pub name: String,
    pub namespace: String,
    /// `None` only when rendering without a cluster: then children have no owner.
    pub uid: Option<String>,
    pub spec: MediaServiceSpec,
    /// Pods that there shall be for now: the spec's number, and one more while that one drains.
    pub replicas: i32,
    pub image: String,
    /// Forwarding threads, 1-64.
    pub shards: u8,
    pub placement: Placement,
    pub addresses: AddressTable,
    pub keys: Keys,
    /// What the alerts measure it by.
    pub objectives: Objectives,
    /// Which optional APIs objects can be made of.
    pub served: Served,
    /// Namespace of the operator, which may scrape every pod.
    pub operator_namespace: String,
    /// Over the user's inputs that a pod depends on; pods with another hash are replaced.
    pub spec_hash: String,
    /// The same for each other log level: pods take up a new one while they run.
    pub spec_hashes_of_other_levels: Vec<String>,
}

/// Where the pod may run, from the fields of `spec.pod` whose content the CRD does not describe.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Placement {
    pub tolerations: Vec<Toleration>,
    pub affinity: Option<Affinity>,
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
}

/// The Secrets that a pod mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    pub cluster_key: KeyRef,
    /// None where tokens are those of an identity provider alone.
    pub jwt_hmac: Option<KeyRef>,
    /// Secret shared with the TURN server, if there is one.
    pub turn: Option<KeyRef>,
    /// Where the message broker's URL is, if there is one.
    pub amqp_url: Option<KeyRef>,
    /// What events to a webhook are signed with.
    pub webhook_secret: Option<KeyRef>,
    /// Name of the Secret to make, if a key has no reference.
    pub generated: Option<String>,
}

/// Secret and key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRef {
    pub secret: String,
    pub key: String,
}

/// What makes a MediaService impossible to build.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ValidateError {
    #[error(
        "metadata.name {name} must be at most 40 characters of a-z, 0-9 and '-', start with a letter and end with a letter or digit"
    )]
    Name { name: String },
    #[error("replicas is {replicas} and can be 0 or 1 for now")]
    Replicas { replicas: i32 },
    #[error(
        "spec.image is empty and the operator has no default: set spec.image, or start the operator with --media-image"
    )]
    NoImage,
    #[error("spec.pod.resources.requests.cpu is {value}, not a quantity such as 2 or 500m")]
    CpuRequest { value: String },
    #[error("spec.pod.{field} is not as in the spec of a pod: {why}")]
    PodField { field: String, why: String },
    #[error("spec.media.externalAddresses has {value}, neither an IP address nor a host name")]
    ExternalAddress { value: String },
    #[error("a port of spec.media is {port}, not 1 to 65535")]
    Port { port: i32 },
    #[error(
        "spec.signalling has no host: ingress.host or httpRoute.hostnames is the name under which clients reach the service"
    )]
    Host,
    #[error("spec.monitoring.sloTargets has {value}, not percent from 94 to below 100")]
    SloTarget { value: String },
    #[error("spec.{field} is no address that the media server takes: {why}")]
    Url { field: &'static str, why: String },
    #[error(
        "spec.monitoring.prometheusRule.alertLabels has {label}; a name is letters, digits and _, begins neither with a digit nor with __, and is none that alerts have themselves, and a value has no {{{{"
    )]
    AlertLabel { label: String },
}

impl ValidateError {
    /// Condition reason, event reason and `reason` label.
    pub fn reason(&self) -> &'static str {
        "InvalidSpec"
    }
}

/// Checks and completes what was read.
///
/// # Errors
/// The first thing that makes it impossible to build; trying again can't help before it changes.
pub fn validate(fetched: &Fetched) -> Result<ValidService, ValidateError> {
    let spec = fetched.service.spec.clone();
    let name = fetched.service.name_any();
    if !is_dns_1035(&name) || name.len() > 40 {
        return Err(ValidateError::Name { name });
    }
    if !(0..=1).contains(&spec.replicas) {
        return Err(ValidateError::Replicas {
            replicas: spec.replicas,
        });
    }
    let signalling = &spec.signalling;
    let no_host = signalling.ingress.as_ref().map(|i| i.host.is_empty());
    let no_hosts = signalling
        .http_route
        .as_ref()
        .map(|route| route.hostnames.is_empty());
    if no_host.or(no_hosts) == Some(true) {
        return Err(ValidateError::Host);
    }
    check_urls(&spec)?;
    let mut labels = spec.monitoring.prometheus_rule.alert_labels.iter();
    if let Some((name, value)) = labels.find(|(name, value)| !is_alert_label(name, value)) {
        let label = format!("{name}: {value}");
        return Err(ValidateError::AlertLabel { label });
    }
    Ok(ValidService {
        namespace: fetched
            .service
            .namespace()
            .unwrap_or_else(|| "default".into()),
        uid: fetched.service.uid(),
        replicas: spec.replicas,
        image: image(fetched)?,
        shards: shards(&spec.pod)?,
        placement: placement(&spec.pod)?,
        addresses: addresses::discover(&name, &spec, &fetched.live, &fetched.nodes)?,
        keys: keys(&name, &spec),
        objectives: objectives(&spec.monitoring.slo_targets)?,
        served: fetched.served,
        operator_namespace: fetched.operator_namespace.clone(),
        spec_hash: spec_hash(&spec, &spec.observability.log_level),
        spec_hashes_of_other_levels: LOG_LEVELS.map(|level| spec_hash(&spec, level)).into(),
        name,
        spec,
    })
}

/// A pod that is given another ends at once, and the one before it is gone by then.
fn check_urls(spec: &MediaServiceSpec) -> Result<(), ValidateError> {
    type Read = fn(&str) -> Result<media_urls::Url, String>;
    let endpoint = &spec.observability.otlp_endpoint;
    let given: [(&str, &str, Read); 3] = [
        ("auth.jwksURL", &spec.auth.jwks_url, media_urls::https),
        (
            "events.webhookURL",
            &spec.events.webhook_url,
            media_urls::https,
        ),
        (
            "observability.otlpEndpoint",
            endpoint,
            media_urls::collector,
        ),
    ];
    for (field, text, read) in given {
        if !text.is_empty() {
            read(text).map_err(|why| ValidateError::Url { field, why })?;
        }
    }
    Ok(())
}

fn objectives(targets: &SloTargets) -> Result<Objectives, ValidateError> {
    let read = |value: &String| {
        Objective::parse(value).ok_or_else(|| ValidateError::SloTarget {
            value: value.clone(),
        })
    };
    Ok(Objectives {
        setup: read(&targets.setup)?,
        latency: read(&targets.latency)?,
        continuity: read(&targets.continuity)?,
        availability: read(&targets.availability)?,
    })
}

fn is_dns_1035(name: &str) -> bool {
    let bytes = name.as_bytes();
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
}

/// An upgrade of the operator restarts no pod unless it is told to, so its new default reaches new services
/// only. The image that was chosen before is what was noted, not what somebody wrote into the template.
fn image(fetched: &Fetched) -> Result<String, ValidateError> {
    let asked = &fetched.service.spec.image;
    if !asked.is_empty() {
        return Ok(asked.clone());
    }
    // A copy of it has its labels too.
    let name = fetched.service.name_any();
    let sets = || {
        let all = fetched.live.stateful_sets.iter();
        all.filter(|set| set.name_any() == name)
    };
    let noted = sets().filter_map(|set| set.annotations().get(meta::IMAGE));
    // A release before this noted none; and a StatefulSet that was deleted may have left its pod behind.
    let templates = sets().filter_map(|set| {
        let pod = set.spec.as_ref()?.template.spec.as_ref()?;
        pod.containers.first()?.image.as_ref()
    });
    let pods = fetched.pods.iter().filter_map(|pod| {
        // Others may have put a container of theirs before ours.
        let mut containers = pod.spec.as_ref()?.containers.iter();
        containers.find(|c| c.name == meta::APP)?.image.as_ref()
    });
    let live = noted
        .chain(templates)
        .chain(pods)
        .find(|image| !image.is_empty())
        .cloned();
    let default = Some(&fetched.default_image).filter(|image| !image.is_empty());
    let image = match fetched.service.spec.rollout.on_operator_upgrade {
        OnOperatorUpgrade::Wait => live.or(default.cloned()),
        OnOperatorUpgrade::Roll => default.cloned().or(live),
    };
    image.ok_or(ValidateError::NoImage)
}

fn shards(pod: &Pod) -> Result<u8, ValidateError> {
    let Some(Quantity(value)) = pod.resources.requests.get("cpu") else {
        return Ok(1);
    };
    let cores = quantity::parse(value).ok_or_else(|| ValidateError::CpuRequest {
        value: value.clone(),
    })?;
    Ok(cores.ceil().clamp(1.0, 64.0) as u8)
}

fn placement(pod: &Pod) -> Result<Placement, ValidateError> {
    Ok(Placement {
        tolerations: list("tolerations", &pod.tolerations)?,
        affinity: pod
            .affinity
            .as_ref()
            .map(|value| part("affinity".into(), value))
            .transpose()?,
        topology_spread_constraints: list(
            "topologySpreadConstraints",
            &pod.topology_spread_constraints,
        )?,
    })
}

fn list<T: DeserializeOwned>(field: &str, values: &[Value]) -> Result<Vec<T>, ValidateError> {
    values
        .iter()
        .enumerate()
        .map(|(at, value)| part(format!("{field}[{at}]"), value))
        .collect()
}

fn part<T: DeserializeOwned>(field: String, value: &Value) -> Result<T, ValidateError> {
    T::deserialize(value).map_err(|error| ValidateError::PodField {
        field,
        why: error.to_string(),
    })
}

fn keys(name: &str, spec: &MediaServiceSpec) -> Keys {
    let generated = format!("{name}-generated");
    let resolve = |given: &Option<SecretKeyRef>, key: &str| match given {
        Some(given) => key_ref(given),
        None => KeyRef {
            secret: generated.clone(),
            key: key.to_owned(),
        },
    };
    let hmac = &spec.auth.hmac_secret_ref;
    let has_hmac = hmac.is_some() || spec.auth.jwks_url.is_empty();
    let all_given = spec.cluster_key_secret_ref.is_some() && hmac.is_some() == has_hmac;
    Keys {
        cluster_key: resolve(&spec.cluster_key_secret_ref, "cluster-key"),
        jwt_hmac: has_hmac.then(|| resolve(hmac, "jwt-hmac")),
        turn: spec.turn.secret_ref.as_ref().map(key_ref),
        amqp_url: spec.events.amqp_url_secret_ref.as_ref().map(key_ref),
        webhook_secret: spec.events.webhook_secret_ref.as_ref().map(key_ref),
        generated: (!all_given).then_some(generated),
    }
}

fn key_ref(given: &SecretKeyRef) -> KeyRef {
    KeyRef {
        secret: given.name.clone(),
        key: given.key.clone(),
    }
}

/// Hash of the user's inputs that a pod depends on. Values equal to their default are left out, so
/// that a field which a later operator adds changes no hash. The log level is in it because it was from the first.
fn spec_hash(spec: &MediaServiceSpec, log_level: &str) -> String {
    let of_pods = |spec: &MediaServiceSpec, log_level: &str| {
        let mut pod = serde_json::json!(spec.pod);
        let media = pod_media(&spec.media);
        // Maps of the user's: what one leaves out is absent and no default, so each counts as a whole.
        let resources = &spec.pod.resources;
        pod["resources"] = serde_json::json!({
            "requests": Vec::from_iter(&resources.requests),
            "limits": Vec::from_iter(&resources.limits),
        });
        serde_json::json!({
            "image": spec.image,
            "clusterKeySecretRef": spec.cluster_key_secret_ref,
            "auth": spec.auth,
            "corsOrigins": spec.signalling.cors_origins,
            "exposure": media.exposure,
            "port": media.port,
            "tcp": {"enabled": spec.media.tcp.enabled, "port": media.tcp_port},
            "limits": spec.limits,
            "turn": spec.turn,
            "events": spec.events,
            "recording": spec.recording,
            "pod": pod,
            "perSessionSeries": spec.monitoring.per_session_series,
            "maxSeriesPerFamily": spec.monitoring.max_series_per_family,
            "observability": {
                "logLevel": log_level,
                "otlpEndpoint": spec.observability.otlp_endpoint,
            },
        })
    };
    // The one exposure that there was first.
    let defaults: MediaServiceSpec =
        serde_json::from_value(serde_json::json!({"media": {"exposure": "HostPort"}}))
            .expect("nothing else is required");
    let mut inputs = of_pods(spec, log_level);
    let usual = &defaults.observability.log_level;
    hash::remove_equal(&mut inputs, &of_pods(&defaults, usual));
    hash::of(&inputs)
}

/// What a pod has of `spec.media`. Behind a Service it has the ports of all others: those that clients
/// send to are the Service's.
struct PodMedia {
    exposure: &'static str,
    port: i32,
    /// `None`: the same as `port`.
    tcp_port: Option<i32>,
}

fn pod_media(media: &Media) -> PodMedia {
    let exposure = match media.exposure {
        Exposure::HostPort | Exposure::HostNetwork => media.exposure.as_str(),
        Exposure::LoadBalancer | Exposure::NodePort => "Service",
    };
    if !media.exposure.is_on_host() {
        return PodMedia {
            exposure,
            port: config::MEDIA_PORT,
            tcp_port: None,
        };
    }
    PodMedia {
        exposure,
        port: media.port,
        tcp_port: media.tcp_port().filter(|port| *port != media.port),
    }
}

#[cfg(test)]
mod tests;
