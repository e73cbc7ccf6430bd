//! Tests of address discovery: what each exposure gives, and what is left out.

use serde_json::json;

use super::*;
use crate::crd::MediaServiceSpec;

fn spec(media: serde_json::Value) -> MediaServiceSpec {
    serde_json::from_value(json!({"media": media})).unwrap()
}

fn nodes() -> Nodes {
    Nodes::Known(BTreeMap::from([
        ("a".into(), vec!["203.0.113.1".into(), "2001:db8::1".into()]),
        ("b".into(), vec!["not-an-ip".into(), "203.0.113.2".into()]),
    ]))
}

fn live(services: serde_json::Value) -> Live {
    Live {
        services: serde_json::from_value(services).unwrap(),
        ..Live::default()
    }
}

fn ingress(name: &str, ingress: serde_json::Value) -> serde_json::Value {
    json!({"metadata": {"name": name}, "status": {"loadBalancer": {"ingress": ingress}}})
}

fn table(media: serde_json::Value, live: &Live) -> AddressTable {
    discover("cam", &spec(media), live, &nodes()).unwrap()
}

#[test]
fn a_load_balancer_gives_addresses_and_names_by_protocol_and_its_nodes_give_none() {
    let live = live(json!([
        ingress(
            "cam-media-udp",
            json!([{"ip": "198.51.100.1"}, {"ip": "2001:db8::9"}])
        ),
        ingress("cam-media-tcp", json!([{"hostname": "lb.example.com"}])),
        ingress("other-media-udp", json!([{"ip": "192.0.2.66"}])),
    ]));
    let found = table(json!({"tcp": {"port": 443}}), &live);
    let wanted = [
        "198.51.100.1:8443",
        "[2001:db8::9]:8443",
        "lb.example.com:443/tcp",
    ];
    assert_eq!(found.all, wanted);
    assert!(found.nodes.is_empty());
    assert_eq!(names(&found), ["lb.example.com"]);
    let udp_alone = table(json!({"tcp": {"enabled": false}}), &live);
    assert_eq!(udp_alone.all, wanted[..2]);
}

#[test]
fn the_services_that_wait_for_a_load_balancer_are_named_udp_first() {
    let pending = |live: &Live, media| pending_load_balancers("cam", &spec(media), live);
    assert_eq!(
        pending(&Live::default(), json!({})),
        ["cam-media-udp", "cam-media-tcp"]
    );
    let udp = live(json!([ingress(
        "cam-media-udp",
        json!([{"ip": "198.51.100.1"}])
    )]));
    assert_eq!(pending(&udp, json!({})), ["cam-media-tcp"]);
    let none: [String; 0] = [];
    assert_eq!(pending(&udp, json!({"tcp": {"enabled": false}})), none);
}

#[test]
fn node_ports_are_those_of_each_pods_own_node_in_the_families_of_the_service() {
    let media = json!({"exposure": "NodePort", "nodePort": 30001, "tcp": {"port": 443}});
    let before = table(media.clone(), &Live::default());
    assert_eq!(
        before.of_node("a"),
        [
            "203.0.113.1:30001",
            "203.0.113.1:30001/tcp",
            "[2001:db8::1]:30001",
            "[2001:db8::1]:30001/tcp"
        ]
    );
    let service = json!([{"metadata": {"name": "cam-media"}, "spec": {"ipFamilies": ["IPv4"]}}]);
    let found = table(media, &live(service));
    assert_eq!(
        found.of_node("a"),
        ["203.0.113.1:30001", "203.0.113.1:30001/tcp"]
    );
    assert_eq!(
        found.of_node("b"),
        ["203.0.113.2:30001", "203.0.113.2:30001/tcp"]
    );
}

#[test]
fn ports_of_the_node_itself_are_in_every_family_that_it_has() {
    for exposure in ["HostPort", "HostNetwork"] {
        let media = json!({"exposure": exposure, "port": 9000, "tcp": {"enabled": false}});
        let found = table(media, &Live::default());
        assert_eq!(
            found.of_node("a"),
            ["203.0.113.1:9000", "[2001:db8::1]:9000"],
            "{exposure}"
        );
    }
}

#[test]
fn what_the_spec_gives_replaces_everything_and_has_the_ports_of_the_exposure() {
    let given = json!(["media.example.com", "2001:db8::7"]);
    let of = |media: serde_json::Value| {
        let found = table(media, &Live::default());
        assert!(found.nodes.is_empty());
        assert_eq!(names(&found), ["media.example.com"]);
        found.all
    };
    assert_eq!(
        of(json!({"externalAddresses": given, "tcp": {"port": 443}})),
        [
            "media.example.com:8443",
            "media.example.com:443/tcp",
            "[2001:db8::7]:8443",
            "[2001:db8::7]:443/tcp"
        ]
    );
    assert_eq!(
        of(json!({"exposure": "NodePort", "externalAddresses": given, "tcp": {"enabled": false}})),
        ["media.example.com:30443", "[2001:db8::7]:30443"]
    );
}

#[test]
fn what_is_neither_an_address_nor_a_name_is_refused() {
    for value in [
        "203.0.113",
        "300.1.1.1",
        "a b",
        "",
        "-a.example.com",
        "a..b",
        "a:1",
    ] {
        let spec = spec(json!({"externalAddresses": [value]}));
        assert_eq!(
            discover("cam", &spec, &Live::default(), &nodes()),
            Err(ValidateError::ExternalAddress {
                value: value.into()
            })
        );
    }
}
