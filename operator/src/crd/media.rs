//! `spec.signalling`, `spec.media` and `spec.limits`. Types only.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rule;

/// How clients reach the HTTP side.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Signalling {
    /// Ingress to make. Default: none; the Service `<name>`, port 80, is there in any case.
    /// Changes never touch media that flows already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Ingress>,

    /// Origins whose pages may call the API, such as `https://app.example.com`; "*" for any.
    /// Default: none but the service's own. A change replaces the pod.
    #[schemars(length(max = 32))]
    #[schemars(extend("x-kubernetes-validations" = rule("self.all(o, o == '*' || (isURL(o) && (url(o).getScheme() == 'https' || url(o).getScheme() == 'http') && url(o).getEscapedPath() == ''))", "each of corsOrigins must be \"*\" or scheme and host without a path, such as https://app.example.com")))]
    pub cors_origins: Vec<CorsOrigin>,
}

/// Bounded so that the API server can bound the cost of the rule over the list.
pub type CorsOrigin = BoundedString;

/// A string of at most 253 characters.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
#[serde(transparent)]
pub struct BoundedString(pub String);

impl JsonSchema for BoundedString {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "BoundedString".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "maxLength": 253})
    }
}

/// The Ingress of a MediaService. It always asks for TLS: browsers give cameras only to https.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Ingress {
    /// IngressClass. Default "": the cluster's default class.
    #[serde(default)]
    pub class_name: String,
    /// Host name under which clients reach the service. Required.
    #[schemars(extend("x-kubernetes-validations" = rule("self.size() <= 253 && self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')", "host must be a DNS name in lower case, such as media.example.com")))]
    pub host: String,
    /// Secret of type kubernetes.io/tls for that host. Default "": the ingress controller's own
    /// certificate.
    #[serde(default)]
    pub tls_secret_name: String,
    /// Annotations for the Ingress, as your ingress controller knows them. Default: none.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// How media packets reach the pod.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Media {
    /// HostPort: clients send to a port of the pod's node. The namespace must allow host ports
    /// (Pod Security level `privileged`), and a node holds one such pod per port.
    pub exposure: Exposure,

    /// UDP port on the node, 1-65535. Default 8443. A change replaces the pod.
    #[serde(default = "media_port")]
    #[schemars(default = "media_port")]
    #[schemars(extend("x-kubernetes-validations" = rule("self >= 1 && self <= 65535", "port must be 1 to 65535")))]
    pub port: i32,

    /// Media over TCP, for clients whose network lets no UDP through.
    #[serde(default)]
    pub tcp: Tcp,

    /// IP addresses that clients shall send to, at most 4, when they differ from the nodes' own:
    /// behind a NAT, for instance. Default: none, and each node's ExternalIP addresses are taken,
    /// or its InternalIP where it has none. A change reaches new sessions; running ones go on.
    #[serde(default)]
    #[schemars(length(max = 4))]
    #[schemars(extend("x-kubernetes-validations" = rule("self.all(a, isIP(a))", "each of externalAddresses must be an IP address, such as 203.0.113.7 or 2001:db8::7; the port is spec.media.port")))]
    pub external_addresses: Vec<IpText>,
}

/// Media over TCP (ICE-TCP, RFC 6544): clients connect where UDP does not get through.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Tcp {
    /// Whether clients are told of it. Default true. A change replaces the pod.
    pub enabled: bool,

    /// TCP port on the node, 1-65535. Default: the number of spec.media.port, so that a node which has
    /// that port free for UDP needs no other for TCP. 443 is the usual choice where firewalls are strict.
    /// A change replaces the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = rule("self >= 1 && self <= 65535", "tcp.port must be 1 to 65535")))]
    pub port: Option<i32>,
}

impl Default for Tcp {
    fn default() -> Self {
        Self {
            enabled: true,
            port: None,
        }
    }
}

impl Media {
    /// The TCP port that clients connect to; `None` without media over TCP.
    pub fn tcp_port(&self) -> Option<i32> {
        self.tcp
            .enabled
            .then_some(self.tcp.port.unwrap_or(self.port))
    }
}

/// An IP address as text.
pub type IpText = BoundedString;

fn media_port() -> i32 {
    8443
}

/// Ways from a client to the pod.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    HostPort,
}

/// What one pod and one device may use.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// Publishers and viewers of one pod, 1-100000. Default 2000. Beyond it a new session gets 503
    /// with Retry-After. A change replaces the pod.
    #[schemars(extend("x-kubernetes-validations" = rule("self >= 1 && self <= 100000", "sessionsPerPod must be 1 to 100000")))]
    pub sessions_per_pod: i32,

    /// Viewers of one device, 1-100000. Default 8000. Beyond it a new viewer gets 503. A change
    /// replaces the pod.
    #[schemars(extend("x-kubernetes-validations" = rule("self >= 1 && self <= 100000", "viewersPerDevice must be 1 to 100000")))]
    pub viewers_per_device: i32,

    /// Bandwidth of one video that publishers are asked to keep, in kbit/s, 100-50000. Default
    /// 12000. A change replaces the pod.
    #[schemars(extend("x-kubernetes-validations" = rule("self >= 100 && self <= 50000", "videoKbps must be 100 to 50000, in kbit/s")))]
    pub video_kbps: i32,

    /// Seconds that a session may last, 0-31536000. Default 0: for ever. A session that is older is
    /// closed, and its client may open another. A change replaces the pod.
    #[schemars(extend("x-kubernetes-validations" = rule("self >= 0 && self <= 31536000", "maxSessionSeconds must be 0 to 31536000, in seconds; 0 is for ever")))]
    pub max_session_seconds: i32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions_per_pod: 2000,
            viewers_per_device: 8000,
            video_kbps: 12000,
            max_session_seconds: 0,
        }
    }
}
