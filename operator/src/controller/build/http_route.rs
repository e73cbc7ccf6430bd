//! The HTTPRoute of the Gateway API, if the spec asks for one.

use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::meta;
use crate::capabilities;
use crate::controller::validate::ValidService;

/// Without filters and time-outs: not every gateway knows those, and event streams last for ever.
pub fn build_http_route(service: &ValidService) -> Option<DynamicObject> {
    let asked = service.spec.signalling.http_route.as_ref()?;
    let parents: Vec<Value> = asked
        .parent_refs
        .iter()
        .map(|parent| {
            let mut value = json!({"name": parent.name});
            if !parent.namespace.is_empty() {
                value["namespace"] = json!(parent.namespace);
            }
            if !parent.section_name.is_empty() {
                value["sectionName"] = json!(parent.section_name);
            }
            value
        })
        .collect();
    let hostnames: Vec<&str> = asked.hostnames.iter().map(|name| name.0.as_str()).collect();
    let spec = json!({
        "parentRefs": parents,
        "hostnames": hostnames,
        "rules": [{
            "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
            "backendRefs": [{"name": service.name, "port": 80}],
        }],
    });
    let metadata = meta::object(service, &service.name);
    Some(meta::dynamic(&capabilities::http_route(), metadata, spec))
}
