//! Golden files: whole objects, from manifests whose name, instance and namespace all differ.
//! `UPDATE_GOLDEN=1 cargo test -p operator` writes them; read the difference before committing it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::{Built, Children};
use crate::controller::fetch::Nodes;
use crate::controller::{build_offline, offline};
use crate::crd::MediaService;

/// The children on a cluster of two nodes.
fn children(manifest: &str) -> Children<Built> {
    let service: MediaService = serde_yaml::from_str(manifest).unwrap();
    let mut fetched = offline(service, "registry.example.com/media-server:golden".into());
    fetched.nodes = Nodes::Known(BTreeMap::from([
        ("node-a".into(), vec!["203.0.113.1".into()]),
        ("node-b".into(), vec!["2001:db8::2".into()]),
    ]));
    build_offline(&fetched).unwrap().1
}

fn render(manifest: &str) -> String {
    let children = children(manifest);
    let mut out = String::new();
    let mut push = |object: serde_yaml::Value| {
        out.push_str("---\n");
        out.push_str(&serde_yaml::to_string(&object).unwrap());
    };
    fn yaml(object: &impl Serialize) -> serde_yaml::Value {
        serde_yaml::to_value(object).unwrap()
    }
    children
        .generated_secret
        .iter()
        .for_each(|object| push(yaml(object)));
    children
        .service_account
        .iter()
        .for_each(|object| push(yaml(object)));
    push(yaml(&children.config));
    push(yaml(&children.pods_service));
    push(yaml(&children.service));
    push(yaml(&children.addresses));
    push(yaml(&children.stateful_set));
    children
        .ingress
        .iter()
        .for_each(|object| push(yaml(object)));
    children
        .service_monitor
        .iter()
        .for_each(|object| push(yaml(object)));
    // The content of rules and dashboards is the catalogue's, and tested there.
    if let Some(mut rule) = children.prometheus_rule {
        rule.data["spec"]["groups"] = serde_json::json!("from the catalogue");
        push(yaml(&rule));
    }
    for mut dashboard in children.dashboards {
        for content in dashboard.data.iter_mut().flat_map(BTreeMap::values_mut) {
            *content = "from the catalogue".into();
        }
        push(yaml(&dashboard));
    }
    out
}

fn compare(name: &str, found: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/golden/operator")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, found).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == wanted,
        "{name} differs; UPDATE_GOLDEN=1 writes it anew. Found:\n{found}"
    );
}

const MINIMAL: &str = "apiVersion: mediaservice.io/v1alpha1\nkind: MediaService\nmetadata: {name: alpha, namespace: beta, uid: gamma}\nspec: {media: {exposure: HostPort}}\n";

/// The example with every field, in a namespace that has another name.
fn full_manifest() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../crds/examples/full.yaml");
    std::fs::read_to_string(path).unwrap().replace(
        "  name: studio\n",
        "  name: studio\n  namespace: film\n  uid: delta\n",
    )
}

#[test]
fn a_minimal_service_gets_these_children() {
    compare("minimal.yaml", &render(MINIMAL));
}

#[test]
fn a_service_with_every_field_gets_these_children() {
    compare("full.yaml", &render(&full_manifest()));
}

/// What the server reads; its own tests load these two files. Addresses of nodes are given only where
/// the spec has none, and so not with every field.
#[test]
fn the_server_gets_this_configuration_and_these_addresses() {
    let full = children(&full_manifest());
    compare("config.toml", &full.config.data.unwrap()["config.toml"]);
    let addresses = children(MINIMAL).addresses.data.unwrap();
    compare("addresses.json", &addresses["addresses.json"]);
}

#[test]
fn nothing_of_monitoring_is_made_where_it_is_not_wanted_or_not_served() {
    let manifest = "apiVersion: mediaservice.io/v1alpha1\nkind: MediaService\nmetadata: {name: a, namespace: b}\nspec: {media: {exposure: HostPort}}\n";
    let service: MediaService = serde_yaml::from_str(manifest).unwrap();
    let mut fetched = offline(service, "i".into());
    fetched.served = crate::capabilities::Served::all(crate::capabilities::Availability::Absent);
    let (_, children) = build_offline(&fetched).unwrap();
    assert!(children.service_monitor.is_none() && children.prometheus_rule.is_none());
    assert_eq!(children.dashboards.len(), 1);
}
