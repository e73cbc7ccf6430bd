//! `spec.observability`: what the pods tell of themselves beside metrics. Types only.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rule;

/// What the pods tell of themselves beside metrics.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Observability {
    /// Least level of log messages: trace, debug, info, warn or error. Default info. A change replaces
    /// the pod.
    #[schemars(extend("x-kubernetes-validations" = rule("self in ['trace', 'debug', 'info', 'warn', 'error']", "logLevel must be trace, debug, info, warn or error")))]
    pub log_level: String,
}

impl Default for Observability {
    fn default() -> Self {
        Self {
            log_level: "info".into(),
        }
    }
}
