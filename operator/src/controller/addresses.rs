//! Which addresses clients are told of, for each exposure.
//!
//! Pure. Owns the table that pods read, and which names in it somebody has to resolve. Called by
//! `validate`; `fetch` asks for the names, `status` says what is missing.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

use super::build::service::{node_port_name, tcp_name, udp_name};
use super::fetch::{Live, Nodes};
use super::validate::ValidateError;
use crate::crd::{Exposure, MediaServiceSpec};

/// Where pods find their addresses: `host:port` for UDP, `host:port/tcp` for TCP. A host is an IP
/// address or a name that pods resolve.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AddressTable {
    /// Addresses of every pod, whatever its node.
    pub all: Vec<String>,
    /// Addresses of the pod of that node.
    pub nodes: BTreeMap<String, Vec<String>>,
}

impl AddressTable {
    /// The addresses of a pod on `node`.
    pub fn of_node(&self, node: &str) -> Vec<String> {
        let own = self.nodes.get(node).into_iter().flatten();
        self.all.iter().chain(own).cloned().collect()
    }
}

/// Whether clients are told of addresses of nodes. Else nobody has to have the right to read any.
pub fn are_of_nodes(spec: &MediaServiceSpec) -> bool {
    let media = &spec.media;
    media.external_addresses.is_empty() && media.exposure != Exposure::LoadBalancer
}

/// What the spec gives, else what the exposure's Service or nodes have by now.
///
/// # Errors
/// If the spec has an address or a port that can be none.
pub fn discover(
    name: &str,
    spec: &MediaServiceSpec,
    live: &Live,
    nodes: &Nodes,
) -> Result<AddressTable, ValidateError> {
    let ports = Ports::of_clients(spec)?;
    let mut table = AddressTable::default();
    if !spec.media.external_addresses.is_empty() {
        for text in &spec.media.external_addresses {
            let host = host(&text.0).ok_or_else(|| ValidateError::ExternalAddress {
                value: text.0.clone(),
            })?;
            table.all.extend(ports.of(&host));
        }
        return Ok(table);
    }
    match spec.media.exposure {
        Exposure::LoadBalancer => table.all = of_load_balancers(name, ports, live),
        Exposure::NodePort | Exposure::HostPort | Exposure::HostNetwork => {
            if let Nodes::Known(nodes) = nodes {
                let families = families(name, spec, live);
                for (node, addresses) in nodes {
                    // What a node calls an address and is none would only make the server refuse the file.
                    let hosts = addresses
                        .iter()
                        .filter_map(|address| address.parse().ok())
                        .filter(|ip| families.is_none_or(|families| families.have(ip)))
                        .map(|ip: IpAddr| bracketed(ip));
                    let entries = hosts.flat_map(|host| ports.of(&host).collect::<Vec<_>>());
                    table.nodes.insert(node.clone(), entries.collect());
                }
            }
        }
    }
    Ok(table)
}

/// Host names among the addresses of that table, each once.
pub fn names(table: &AddressTable) -> Vec<String> {
    let mut names: Vec<String> = table
        .all
        .iter()
        .filter_map(|address| {
            let (host, _) = address.rsplit_once(':')?;
            let ip = host.trim_matches(['[', ']']).parse::<IpAddr>();
            ip.is_err().then(|| host.to_owned())
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

/// The Services of the load balancer that have no address yet, those of UDP first.
pub fn pending_load_balancers(name: &str, spec: &MediaServiceSpec, live: &Live) -> Vec<String> {
    let tcp = spec.media.tcp_port().map(|_| tcp_name(name));
    [udp_name(name)]
        .into_iter()
        .chain(tcp)
        .filter(|service| ingress(live, service).is_empty())
        .collect()
}

/// What clients send to.
#[derive(Clone, Copy)]
struct Ports {
    udp: u16,
    tcp: Option<u16>,
}

impl Ports {
    fn of_clients(spec: &MediaServiceSpec) -> Result<Self, ValidateError> {
        let media = &spec.media;
        let (udp, tcp) = match media.exposure {
            Exposure::NodePort => (
                media.node_port,
                media.tcp.enabled.then_some(media.node_port),
            ),
            _ => (media.port, media.tcp_port()),
        };
        Ok(Self {
            udp: port(udp)?,
            tcp: tcp.map(port).transpose()?,
        })
    }

    /// As the addresses file has them: without a protocol an address is for UDP.
    fn of(self, host: &str) -> impl Iterator<Item = String> {
        let udp = format!("{host}:{}", self.udp);
        let tcp = self.tcp.map(|port| format!("{host}:{port}/tcp"));
        [udp].into_iter().chain(tcp)
    }
}

fn port(port: i32) -> Result<u16, ValidateError> {
    u16::try_from(port)
        .ok()
        .filter(|port| *port != 0)
        .ok_or(ValidateError::Port { port })
}

/// An IP address in the form that a port can follow, or a name; `None` if it can be neither.
fn host(text: &str) -> Option<String> {
    if let Ok(ip) = text.parse() {
        return Some(bracketed(ip));
    }
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    // Digits and dots alone are an address with a mistake.
    let is_name = text.split('.').all(label) && text.bytes().any(|byte| byte.is_ascii_alphabetic());
    is_name.then(|| text.to_owned())
}

fn bracketed(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// UDP before TCP, each of its own Service: a load balancer may give them different addresses.
fn of_load_balancers(name: &str, ports: Ports, live: &Live) -> Vec<String> {
    let udp = ingress(live, &udp_name(name));
    let tcp = ingress(live, &tcp_name(name));
    let udp = udp.into_iter().map(|host| format!("{host}:{}", ports.udp));
    let tcp = tcp.into_iter().filter_map(|host| {
        let port = ports.tcp?;
        Some(format!("{host}:{port}/tcp"))
    });
    udp.chain(tcp).collect()
}

/// What a cloud wrote into the Service's status: an address, or a name that stands for several.
fn ingress(live: &Live, service: &str) -> Vec<String> {
    let Some(service) = find(live, service) else {
        return Vec::new();
    };
    let status = service.status.as_ref();
    status
        .and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref())
        .into_iter()
        .flatten()
        .filter_map(|ingress| {
            let given = ingress.ip.as_deref().filter(|ip| !ip.is_empty());
            host(given.or(ingress.hostname.as_deref())?)
        })
        .collect()
}

fn find<'a>(live: &'a Live, name: &str) -> Option<&'a Service> {
    live.services
        .iter()
        .find(|service| service.name_any() == name)
}

#[derive(Clone, Copy)]
struct Families {
    v4: bool,
    v6: bool,
}

impl Families {
    fn have(self, ip: &IpAddr) -> bool {
        match ip {
            IpAddr::V4(_) => self.v4,
            IpAddr::V6(_) => self.v6,
        }
    }
}

/// The families that the node ports serve; `None` while that is not known, and for ports of the node
/// itself.
fn families(name: &str, spec: &MediaServiceSpec, live: &Live) -> Option<Families> {
    if spec.media.exposure != Exposure::NodePort {
        return None;
    }
    let service = find(live, &node_port_name(name))?;
    let families = service.spec.as_ref()?.ip_families.as_ref()?;
    let has = |family: &str| families.iter().any(|found| found == family);
    Some(Families {
        v4: has("IPv4"),
        v6: has("IPv6"),
    })
}

#[cfg(test)]
mod tests;
