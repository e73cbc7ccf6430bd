//! The ConfigMap from which pods learn their own addresses, so that they need no API access and a
//! pod that moves finds its node's row already there.

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;

use super::meta;
use crate::controller::validate::ValidService;

pub fn build_addresses(service: &ValidService) -> ConfigMap {
    let table = json!({"lb": service.addresses.all, "nodes": service.addresses.nodes});
    ConfigMap {
        metadata: meta::object(service, name(service)),
        data: Some([("addresses.json".to_owned(), table.to_string())].into()),
        ..ConfigMap::default()
    }
}

pub fn name(service: &ValidService) -> String {
    format!("{}-addresses", service.name)
}
