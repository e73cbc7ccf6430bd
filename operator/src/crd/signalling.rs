//! `spec.signalling`: how clients reach the HTTP side. Types only.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BoundedString, rule};

/// How clients reach the HTTP side.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = both_rules()))]
pub struct Signalling {
    /// Ingress to make. Default: none; the Service `<name>`, port 80, is there in any case.
    /// Changes never touch media that flows already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress: Option<Ingress>,

    /// HTTPRoute to make, for a Gateway of the Gateway API. Default: none. Without the API
    /// gateway.networking.k8s.io nothing is made and the condition Degraded says so. Changes never
    /// touch media that flows already.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_route: Option<HttpRoute>,

    /// Issuer of cert-manager that shall fill spec.signalling.ingress.tlsSecretName. Default: none, and
    /// the Secret is yours to make. Without the API cert-manager.io the Ingress is made all the same and
    /// the condition Degraded says what is missing. Changes touch no session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_issuer_ref: Option<IssuerRef>,

    /// Origins whose pages may call the API, such as `https://app.example.com`; "*" for any.
    /// Default: none but the service's own. A change replaces the pod.
    #[schemars(length(max = 32))]
    #[schemars(extend("x-kubernetes-validations" = rule("self.all(o, o == '*' || (isURL(o) && o.matches('^https?://[^/?#@]+$')))", "each of corsOrigins must be \"*\" or scheme and host without a path, such as https://app.example.com")))]
    pub cors_origins: Vec<BoundedString>,
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
    #[schemars(length(max = 253))]
    pub tls_secret_name: String,
    /// Annotations for the Ingress, as your ingress controller knows them. Default: none.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// The HTTPRoute of a MediaService: every path of its host names leads to the Service `<name>`. TLS is
/// the Gateway's.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct HttpRoute {
    /// Gateways that shall route, 1 to 8. Required.
    #[schemars(length(min = 1, max = 8))]
    pub parent_refs: Vec<ParentRef>,
    /// Host names under which clients reach the service, 1 to 8; status.addresses.signalling has the
    /// first. Required.
    #[schemars(length(max = 8))]
    #[schemars(extend("x-kubernetes-validations" = rule("self.size() >= 1 && self.all(h, h.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$'))", "hostnames must have at least one DNS name in lower case, such as media.example.com")))]
    pub hostnames: Vec<BoundedString>,
}

/// A Gateway, or one of its listeners.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ParentRef {
    /// Name of the Gateway.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its namespace. Default "": that of the MediaService.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// Name of a listener of it. Default "": all.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub section_name: String,
}

/// An issuer of cert-manager.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct IssuerRef {
    /// Issuer (of the same namespace) or ClusterIssuer. Default ClusterIssuer.
    #[serde(default)]
    pub kind: IssuerKind,
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Kinds of issuers.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum IssuerKind {
    Issuer,
    #[default]
    ClusterIssuer,
}

impl IssuerKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Issuer => "Issuer",
            Self::ClusterIssuer => "ClusterIssuer",
        }
    }
}

fn both_rules() -> serde_json::Value {
    serde_json::json!([
        {
            "rule": "!(has(self.ingress) && has(self.httpRoute))",
            "message": "set signalling.ingress or signalling.httpRoute, not both: one of them routes the host",
        },
        {
            "rule": "!has(self.certificateIssuerRef) || (has(self.ingress) && size(self.ingress.tlsSecretName) > 0)",
            "message": "certificateIssuerRef needs signalling.ingress.tlsSecretName: the Secret that the certificate goes to; with httpRoute the certificate is the Gateway's",
        },
    ])
}
