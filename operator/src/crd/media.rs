//! `spec.media`: how media packets reach the pod. Types only.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BoundedString, rule};

/// How media packets reach the pod.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = host_network_rules()))]
pub struct Media {
    /// LoadBalancer: clients send to a load balancer of your cloud, made by Services of that type, one
    /// for UDP and one for TCP. NodePort: to spec.media.nodePort of the node that the pod is on.
    /// HostPort: to spec.media.port of that node; a node holds one such pod for each port. HostNetwork:
    /// the same without a port mapping, with the pod in the node's network: one media pod for each node,
    /// and NetworkPolicies don't apply to it. HostPort and HostNetwork need a namespace with the Pod
    /// Security level `privileged`; the others live with `restricted`. Default LoadBalancer. A change
    /// between LoadBalancer and NodePort keeps the pod and breaks off running sessions, which connect
    /// again; any other replaces the pod.
    pub exposure: Exposure,

    /// UDP port that clients send to, on the load balancer or on the node, 1-65535. Default 8443. Not
    /// used with NodePort. A change replaces the pod with HostPort and HostNetwork; with LoadBalancer it
    /// breaks off running sessions, which connect again.
    #[schemars(extend("x-kubernetes-validations" = rule("self >= 1 && self <= 65535", "port must be 1 to 65535")))]
    pub port: i32,

    /// Media over TCP, for clients whose network lets no UDP through.
    pub tcp: Tcp,

    /// IP addresses or host names that clients shall send to, at most 4, when they differ from what the
    /// cluster knows: behind a NAT, for instance. Pods resolve names every minute, to at most 4
    /// addresses each; clients get addresses. Default: none, and the addresses are those of the load
    /// balancer, or of the pod's node: its ExternalIP addresses, or its InternalIP addresses where it has
    /// none. A change reaches new sessions; running ones go on.
    #[schemars(length(max = 4))]
    #[schemars(extend("x-kubernetes-validations" = rule("self.all(a, isIP(a) || (a.matches('^[A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?([.][A-Za-z0-9]([-A-Za-z0-9]*[A-Za-z0-9])?)*$') && a.matches('[A-Za-z]')))", "each of externalAddresses must be an IP address or a host name, such as 203.0.113.7, 2001:db8::7 or media.example.com; ports are those of spec.media")))]
    pub external_addresses: Vec<BoundedString>,

    /// The Services of exposure LoadBalancer.
    pub load_balancer: LoadBalancer,

    /// Port of the nodes for exposure NodePort, UDP and TCP, 30000-32767. Default 30443. A change breaks
    /// off running sessions, which connect again.
    #[schemars(extend("x-kubernetes-validations" = rule("self >= 30000 && self <= 32767", "nodePort must be 30000 to 32767")))]
    pub node_port: i32,
}

/// The server binds these ports itself, as a user without rights.
fn host_network_rules() -> serde_json::Value {
    serde_json::json!([
        {
            "rule": "self.exposure != 'HostNetwork' || !has(self.tcp.port) || self.tcp.port == self.port",
            "message": "tcp.port must be media.port with exposure HostNetwork: the server listens on the node itself, on one port for both",
        },
        {
            "rule": "self.exposure != 'HostNetwork' || (self.port >= 1024 && !(self.port in [8080, 9090]))",
            "message": "media.port must be 1024 or above with exposure HostNetwork, and neither 8080 nor 9090, which HTTP and metrics have: the server listens on the node itself and has no rights there; HostPort can have any port",
        },
    ])
}

impl Default for Media {
    fn default() -> Self {
        Self {
            exposure: Exposure::LoadBalancer,
            port: 8443,
            tcp: Tcp::default(),
            external_addresses: Vec::new(),
            load_balancer: LoadBalancer::default(),
            node_port: 30443,
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

/// Media over TCP (ICE-TCP, RFC 6544): clients connect where UDP does not get through.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Tcp {
    /// Whether clients are told of it. Default true. A change replaces the pod.
    pub enabled: bool,

    /// TCP port on the load balancer or the node, 1-65535. Default: the number of spec.media.port, so
    /// that a node which has that port free for UDP needs no other for TCP. 443 is the usual choice where
    /// firewalls are strict. Not used with NodePort. A change does what one of spec.media.port does.
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

/// The Services of type LoadBalancer, `<name>-media-udp` and `<name>-media-tcp`.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancer {
    /// loadBalancerClass. Default "": the cluster's default. A change makes both Services anew, usually
    /// with another address: running sessions break off.
    #[schemars(length(max = 253))]
    pub class: String,

    /// Annotations for both Services, as your cloud knows them: one address for both, for instance.
    /// Default: none. What a change does is the cloud's to say.
    pub annotations: BTreeMap<String, String>,

    /// Address ranges that may send, such as 203.0.113.0/24, at most 32. Default: none, and everybody may.
    /// Running sessions from other addresses break off.
    #[schemars(length(max = 32))]
    #[schemars(extend("x-kubernetes-validations" = rule("self.all(r, isCIDR(r))", "each of loadBalancer.sourceRanges must be an address range such as 203.0.113.0/24")))]
    pub source_ranges: Vec<BoundedString>,

    /// SingleStack, PreferDualStack or RequireDualStack. Default SingleStack: the cluster's first family.
    /// A change reaches new sessions.
    pub ip_family_policy: IpFamilyPolicy,
}

/// Ways from a client to the pod.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    LoadBalancer,
    NodePort,
    HostPort,
    HostNetwork,
}

impl Exposure {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LoadBalancer => "LoadBalancer",
            Self::NodePort => "NodePort",
            Self::HostPort => "HostPort",
            Self::HostNetwork => "HostNetwork",
        }
    }

    /// Whether clients send to a port of the node that the pod itself holds: then Pod Security must
    /// allow it, and a change of the port is one of the pod.
    pub fn is_on_host(self) -> bool {
        matches!(self, Self::HostPort | Self::HostNetwork)
    }
}

/// Address families of a Service.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Default)]
#[allow(clippy::enum_variant_names, reason = "the words of Kubernetes")]
pub enum IpFamilyPolicy {
    #[default]
    SingleStack,
    PreferDualStack,
    RequireDualStack,
}

impl IpFamilyPolicy {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SingleStack => "SingleStack",
            Self::PreferDualStack => "PreferDualStack",
            Self::RequireDualStack => "RequireDualStack",
        }
    }
}
