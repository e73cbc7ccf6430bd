//! The server's configuration file. Its keys are those of `media-server/src/config.rs`; a golden
//! file that both crates read keeps them the same.

use std::fmt::Write;

use k8s_openapi::api::core::v1::ConfigMap;

use super::meta;
use crate::controller::validate::ValidService;

pub const CONFIG_DIR: &str = "/etc/media/config";
pub const SECRETS_DIR: &str = "/etc/media/secrets";
pub const ADDRESSES_DIR: &str = "/etc/media/addresses";
pub const POD_DIR: &str = "/etc/media/pod";
pub const FILE: &str = "config.toml";

pub const HTTP_PORT: i32 = 8080;
pub const METRICS_PORT: i32 = 9090;
pub const MEDIA_PORT: i32 = 8443;

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

fn toml(service: &ValidService) -> String {
    let spec = &service.spec;
    let mut out = String::new();
    let mut line = |key: &str, value: serde_json::Value| {
        // Numbers, strings and lists of strings are written the same in JSON and in TOML.
        let _ = writeln!(out, "{key} = {value}");
    };
    line("http-listen", format!("0.0.0.0:{HTTP_PORT}").into());
    line("metrics-listen", format!("0.0.0.0:{METRICS_PORT}").into());
    line("media-listen", format!("0.0.0.0:{MEDIA_PORT}").into());
    line(
        "addresses-file",
        format!("{ADDRESSES_DIR}/addresses.json").into(),
    );
    line(
        "pod-annotations-file",
        format!("{POD_DIR}/annotations").into(),
    );
    line(
        "cluster-key-file",
        format!("{SECRETS_DIR}/cluster-key").into(),
    );
    line(
        "cluster-key-salt",
        service.uid.clone().unwrap_or_default().into(),
    );
    line("shards", service.shards.into());
    line("auth", "jwt".into());
    line("jwt-hmac-file", format!("{SECRETS_DIR}/jwt-hmac").into());
    line("jwt-issuer", spec.auth.issuer.clone().into());
    line("jwt-audience", spec.auth.audience.clone().into());
    let origins: Vec<&str> = spec
        .signalling
        .cors_origins
        .iter()
        .map(|origin| origin.0.as_str())
        .collect();
    line("cors-origins", origins.into());
    line("sessions-per-pod", spec.limits.sessions_per_pod.into());
    line("viewers-per-device", spec.limits.viewers_per_device.into());
    line("video-kbps", spec.limits.video_kbps.into());
    out
}
