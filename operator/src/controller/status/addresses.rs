//! Where clients connect, and in words what is missing of it. Pure.

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::condition;
use crate::controller::addresses::{names, pending_load_balancers};
use crate::controller::fetch::{Fetched, Nodes};
use crate::controller::validate::ValidService;
use crate::crd::{Addresses, Exposure};

pub struct AddressesReady {
    pub known: bool,
    pub condition: Condition,
}

/// The condition AddressesReady.
pub fn ready(fetched: &Fetched, service: &ValidService) -> AddressesReady {
    let (known, reason, message) = match state(fetched, service) {
        Ok((reason, message)) => (true, reason, message),
        Err((reason, message)) => (false, reason, message),
    };
    AddressesReady {
        known,
        condition: condition("AddressesReady", known, reason, message),
    }
}

/// Reason and message; an error while there is no address.
type State = Result<(&'static str, String), (&'static str, String)>;

fn state(fetched: &Fetched, service: &ValidService) -> State {
    let media = &service.spec.media;
    if !media.external_addresses.is_empty() {
        resolvable(fetched, service)?;
        return Ok(("Given", "spec.media.externalAddresses".into()));
    }
    match media.exposure {
        Exposure::LoadBalancer => of_load_balancer(fetched, service),
        Exposure::NodePort | Exposure::HostPort | Exposure::HostNetwork => {
            of_nodes(fetched, service)
        }
    }
}

/// Whether one address, at least, is none that has to be resolved, or can be.
fn resolvable(fetched: &Fetched, service: &ValidService) -> Result<(), (&'static str, String)> {
    let table = &service.addresses;
    let unresolved = |name: &String| fetched.unresolved.contains(name);
    let names = names(table);
    let is_named = |address: &String| names.iter().any(|name| address.starts_with(&**name));
    if names.is_empty() || !names.iter().all(unresolved) || !table.all.iter().all(is_named) {
        return Ok(());
    }
    let message = format!("no address can be found for {}", names.join(" and "));
    Err(("NameUnresolvable", message))
}

fn of_load_balancer(fetched: &Fetched, service: &ValidService) -> State {
    let pending = pending_load_balancers(&service.name, &service.spec, &fetched.live);
    let udp = crate::controller::build::service::udp_name(&service.name);
    if pending.contains(&udp) {
        let message = format!(
            "the load balancer has given no address to Service {udp} yet: see kubectl -n {} describe service {udp}; a \
             cluster without load balancers needs another spec.media.exposure",
            service.namespace
        );
        return Err(("LoadBalancerPending", message));
    }
    resolvable(fetched, service)?;
    let mut message = "the load balancer gave them".to_owned();
    if let Some(tcp) = pending.first() {
        message += &format!("; none to Service {tcp} yet, so nobody is told of media over TCP");
    }
    Ok(("Discovered", message))
}

fn of_nodes(fetched: &Fetched, service: &ValidService) -> State {
    let table = &service.addresses;
    let missing = |message: String| Err(("NodeAddressMissing", message));
    if fetched.nodes == Nodes::Unreadable {
        return missing(
            "this operator may not read nodes, because it runs for single namespaces: set spec.media.externalAddresses"
                .into(),
        );
    }
    let without = fetched
        .pods
        .iter()
        .filter_map(node_name)
        .find(|node| table.of_node(node).is_empty());
    if let Some(node) = without {
        let family = match service.spec.media.exposure {
            Exposure::NodePort => " of a family that the Service has",
            _ => "",
        };
        return missing(format!(
            "node {node} has neither an ExternalIP nor an InternalIP{family}: set spec.media.externalAddresses"
        ));
    }
    if table.nodes.values().all(Vec::is_empty) {
        return missing(
            "no node has an ExternalIP or an InternalIP: set spec.media.externalAddresses".into(),
        );
    }
    Ok(("Discovered", "each pod gives its node's addresses".into()))
}

/// `status.addresses`.
pub fn of_clients(fetched: &Fetched, service: &ValidService) -> Addresses {
    let mut media: Vec<String> = fetched
        .pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .filter_map(node_name)
        .flat_map(|node| service.addresses.of_node(node))
        .map(|address| match address.strip_suffix("/tcp") {
            Some(_) => address,
            None => format!("{address}/udp"),
        })
        .collect();
    // UDP first: a column shows the first.
    media.sort_by_key(|address| (address.ends_with("/tcp"), address.clone()));
    media.dedup();
    let signalling = &service.spec.signalling;
    let ingress = signalling.ingress.as_ref().map(|ingress| &*ingress.host);
    let route = signalling.http_route.as_ref();
    let route = route.and_then(|route| Some(&*route.hostnames.first()?.0));
    Addresses {
        signalling: ingress
            .or(route)
            .map(|host| format!("https://{host}"))
            .unwrap_or_default(),
        media,
    }
}

fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}
