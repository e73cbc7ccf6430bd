//! `spec.observability`: what the pods tell of themselves beside metrics. Types only.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rule;

/// What `logLevel` may be.
pub const LOG_LEVELS: [&str; 5] = ["trace", "debug", "info", "warn", "error"];

/// What the pods tell of themselves beside metrics.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub struct Observability {
    /// Least level of log messages: trace, debug, info, warn or error. Default info. A change reaches running
    /// pods within two minutes; no session notices.
    #[schemars(extend("x-kubernetes-validations" = rule("self in ['trace', 'debug', 'info', 'warn', 'error']", "logLevel must be trace, debug, info, warn or error")))]
    pub log_level: String,
    /// Collector of traces, such as `http://otel-collector.monitoring:4318`: spans are posted to v1/traces below it
    /// (OTLP over HTTP). Empty, the default: there are no traces. A change replaces the pod.
    #[schemars(extend("x-kubernetes-validations" = rule("self == '' || (self.size() <= 2048 && self.matches('^https?://[^@ ]+$'))", "otlpEndpoint must start with http:// or https:// and have no user name, such as http://otel-collector.monitoring:4318")))]
    pub otlp_endpoint: String,
    /// Of a hundred traces that begin in a pod, so many are kept. A request that comes with a trace of its own is
    /// kept as that says. 0 to 100, default 10. A change reaches running pods within two minutes; no session notices.
    #[schemars(extend("x-kubernetes-validations" = rule("self >= 0 && self <= 100", "traceSamplePercent must be 0 to 100")))]
    pub trace_sample_percent: i32,
}

impl Default for Observability {
    fn default() -> Self {
        Self {
            log_level: "info".into(),
            otlp_endpoint: String::new(),
            trace_sample_percent: 10,
        }
    }
}
