//! `spec.pod`: the narrow changes a user may make to the media pod. Types only.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{LocalRef, opaque_list, opaque_object, rule};

/// Changes to the media pod.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Default)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    /// CPU and memory. The CPU request, rounded up, is the number of forwarding threads (1-64):
    /// give a busy service whole cores.
    pub resources: Resources,

    /// More labels for the pod. Default: none.
    #[schemars(extend("x-kubernetes-validations" = rule("self.all(k, !k.startsWith('mediaservice.io/') && !k.startsWith('app.kubernetes.io/'))", "pod.labels must not use the prefixes mediaservice.io/ and app.kubernetes.io/: the operator sets those")))]
    #[schemars(schema_with = "bounded_map")]
    pub labels: BTreeMap<String, String>,

    /// More annotations for the pod. Default: none.
    #[schemars(extend("x-kubernetes-validations" = rule("self.all(k, !k.startsWith('mediaservice.io/') && !k.startsWith('app.kubernetes.io/'))", "pod.annotations must not use the prefixes mediaservice.io/ and app.kubernetes.io/: the operator sets those")))]
    #[schemars(schema_with = "bounded_map")]
    pub annotations: BTreeMap<String, String>,

    /// Labels that the node must have. Default: none.
    pub node_selector: BTreeMap<String, String>,

    /// Taints that the pod stands, as in a pod spec. Default: none.
    #[schemars(schema_with = "opaque_list")]
    pub tolerations: Vec<Value>,

    /// Node and pod affinity, as in a pod spec. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "opaque_object")]
    pub affinity: Option<Value>,

    /// Spread over zones and nodes, as in a pod spec. Default: none.
    #[schemars(schema_with = "opaque_list")]
    pub topology_spread_constraints: Vec<Value>,

    /// Secrets for private registries. Default: none.
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalRef>,

    /// PriorityClass. Default "": the cluster's default.
    pub priority_class_name: String,

    /// ServiceAccount of the pod. Default "": `<name>-media`, made by the operator, without any
    /// right and without a token in the pod.
    pub service_account_name: String,
}

/// CPU and memory of the media container.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(default)]
#[schemars(extend("x-kubernetes-validations" = rule("!has(self.requests) || !has(self.limits) || ['cpu', 'memory'].all(r, !(r in self.requests) || !(r in self.limits) || !quantity(string(self.requests[r])).isGreaterThan(quantity(string(self.limits[r]))))", "pod.resources.limits must not be below requests, of cpu and of memory; without limits of yours the limit of memory is 2Gi, and without requests of yours cpu 500m and memory 512Mi are requested")))]
pub struct Resources {
    /// What the pod is guaranteed. Default `cpu: 500m, memory: 512Mi`.
    #[schemars(schema_with = "quantities")]
    pub requests: BTreeMap<String, Quantity>,
    /// What it may use at most. Default `memory: 2Gi`; no CPU limit, because throttling shows as
    /// jitter in every stream.
    #[schemars(schema_with = "quantities")]
    pub limits: BTreeMap<String, Quantity>,
}

impl Default for Resources {
    fn default() -> Self {
        let quantity = |q: &str| Quantity(q.to_owned());
        Self {
            requests: BTreeMap::from([
                ("cpu".into(), quantity("500m")),
                ("memory".into(), quantity("512Mi")),
            ]),
            limits: BTreeMap::from([("memory".into(), quantity("2Gi"))]),
        }
    }
}

fn quantities(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {
            "x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": "^[+]?([0-9]+([.][0-9]*)?|[.][0-9]+)([KMGTPE]i|[mkMGTPE]|[eE][+-]?[0-9]+)?$",
        },
    })
}

/// Bounded so that the API server can bound the cost of a rule over the keys.
fn bounded_map(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string"},
    })
}
