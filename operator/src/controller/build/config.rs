//! The server's configuration file. Its keys are those of `media-server/src/config.rs`; a golden
//! file that both crates read keeps them the same.

use std::fmt::Write;

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Map, Value, json};

use super::meta;
use crate::controller::validate::ValidService;
use crate::crd::Exposure;

pub const CONFIG_DIR: &str = "/etc/media/config";
pub const SECRETS_DIR: &str = "/etc/media/secrets";
pub const ADDRESSES_DIR: &str = "/etc/media/addresses";
pub const FILE: &str = "config.toml";
pub const RECORDINGS_DIR: &str = "/var/lib/media/recordings";
/// File below [`SECRETS_DIR`].
pub const TURN_SECRET: &str = "turn";
/// Another.
pub const AMQP_URL: &str = "amqp-url";
/// Another.
pub const WEBHOOK_SECRET: &str = "webhook-secret";

pub const HTTP_PORT: i32 = 8080;
pub const METRICS_PORT: i32 = 9090;
/// In a network of the pod's own.
pub const MEDIA_PORT: i32 = 8443;

/// What SIGTERM leaves sessions to end by themselves, when nobody has drained the pod before. There is no
/// other pod to move to, and the next one starts when this one is gone: waiting longer makes the pause of all
/// others longer, see docs/decisions/0008. Below the pod's grace period.
const DRAIN_SECONDS: u32 = 5;

pub fn build_config(service: &ValidService) -> ConfigMap {
    ConfigMap {
        metadata: meta::object(service, name(service)),
        data: Some([(FILE.to_owned(), toml(service))].into()),
        ..ConfigMap::default()
    }
}

pub fn name(service: &ValidService) -> String {
    format!("{}-config", service.name)
}

/// Where the server listens for media. In the node's network nothing maps one port to another.
pub fn media_port(service: &ValidService) -> i32 {
    match service.spec.media.exposure {
        Exposure::HostNetwork => service.spec.media.port,
        _ => MEDIA_PORT,
    }
}

fn toml(service: &ValidService) -> String {
    let spec = &service.spec;
    let origins: Vec<&str> = spec
        .signalling
        .cors_origins
        .iter()
        .map(|origin| origin.0.as_str())
        .collect();
    let mut limits = json!({
        "sessions_per_pod": spec.limits.sessions_per_pod,
        "viewers_per_device": spec.limits.viewers_per_device,
        "video_kbps": spec.limits.video_kbps,
    });
    let mut media = json!({
        "listen": format!("[::]:{}", media_port(service)),
        "addresses_file": format!("{ADDRESSES_DIR}/addresses.json"),
        "shards": service.shards,
    });
    // What is at its default is left out, because a server from before the key refuses it.
    if spec.limits.idle_publisher_kbps > 0 {
        limits["idle_publisher_kbps"] = json!(spec.limits.idle_publisher_kbps);
    }
    if spec.limits.max_session_seconds > 0 {
        limits["max_session_seconds"] = json!(spec.limits.max_session_seconds);
    }
    if !spec.media.tcp.enabled {
        media["tcp"] = json!(false);
    }
    let mut auth = json!({
        "mode": "jwt",
        "issuer": spec.auth.issuer,
        "audience": spec.auth.audience,
    });
    if service.keys.jwt_hmac.is_some() {
        auth["hmac_file"] = json!(format!("{SECRETS_DIR}/jwt-hmac"));
    }
    if !spec.auth.jwks_url.is_empty() {
        auth["jwks_url"] = json!(spec.auth.jwks_url);
    }
    if !spec.auth.tenant_claim.is_empty() {
        auth["tenant_claim"] = json!(spec.auth.tenant_claim);
    }
    if !spec.auth.enforce_grants {
        auth["enforce_grants"] = json!(false);
    }
    let monitoring = &spec.monitoring;
    let mut metrics =
        json!({"scrape_interval_seconds": monitoring.service_monitor.interval_seconds});
    if !monitoring.per_session_series {
        metrics["per_session_series"] = json!(false);
    }
    if monitoring.max_series_per_family != 20_000 {
        metrics["max_series_per_family"] = json!(monitoring.max_series_per_family);
    }
    let mut tables = vec![
        (
            "http",
            json!({
                // Both families, where there are both, and the only one where there is one.
                "listen": format!("[::]:{HTTP_PORT}"),
                "metrics_listen": format!("[::]:{METRICS_PORT}"),
                "cors_origins": origins,
            }),
        ),
        ("media", media),
        ("auth", auth),
        (
            "cluster",
            json!({
                "key_file": format!("{SECRETS_DIR}/cluster-key"),
                "uid": service.uid.as_deref().unwrap_or_default(),
            }),
        ),
        ("limits", limits),
        ("metrics", metrics),
        ("drain", json!({"timeout_seconds": DRAIN_SECONDS})),
    ];
    let observability = &spec.observability;
    if observability.log_level != "info" {
        tables.push(("log", json!({"level": observability.log_level})));
    }
    if !observability.otlp_endpoint.is_empty() {
        let trace = json!({
            "otlp_endpoint": observability.otlp_endpoint,
            "sample_percent": observability.trace_sample_percent,
        });
        tables.push(("trace", trace));
    }
    if !spec.turn.urls.is_empty() {
        tables.push(("turn", turn(service)));
    }
    let events = events(service);
    if !events.is_empty() {
        tables.push(("events", events.into()));
    }
    let recording = &spec.recording;
    if recording.enabled {
        let table = json!({
            "dir": RECORDINGS_DIR,
            "size_limit": recording.size_limit,
            "max_seconds": recording.max_seconds,
        });
        tables.push(("recording", table));
    }
    let mut out = String::new();
    for (name, table) in tables {
        let _ = writeln!(out, "[{name}]");
        let mut keys: Vec<_> = table.as_object().into_iter().flatten().collect();
        keys.sort_by_key(|(key, _)| *key);
        for (key, value) in keys {
            // Numbers, strings and lists of strings are written the same in JSON and in TOML.
            let _ = writeln!(out, "{key} = {value}");
        }
    }
    out
}

fn events(service: &ValidService) -> Map<String, Value> {
    let file = |name: &str| json!(format!("{SECRETS_DIR}/{name}"));
    let mut events = Map::new();
    if service.keys.amqp_url.is_some() {
        events.insert("amqp_url_file".into(), file(AMQP_URL));
    }
    if service.keys.webhook_secret.is_some() {
        events.insert("webhook_url".into(), json!(service.spec.events.webhook_url));
        events.insert("webhook_secret_file".into(), file(WEBHOOK_SECRET));
    }
    events
}

fn turn(service: &ValidService) -> Value {
    let spec = &service.spec.turn;
    let urls: Vec<&str> = spec.urls.iter().map(|url| url.0.as_str()).collect();
    let mut turn = json!({"urls": urls, "ttl_seconds": spec.ttl_seconds});
    if service.keys.turn.is_some() {
        turn["secret_file"] = json!(format!("{SECRETS_DIR}/{TURN_SECRET}"));
    }
    turn
}
