//! The Grafana dashboards of one MediaService and of the operator, as JSON.
//!
//! Owns its panels and a small typed builder for them; units, legends and the data source are set
//! for every panel because the builder asks for them. Never talks to Grafana. Called by the operator,
//! which puts the JSON into a ConfigMap that Grafana's sidecar reads, and by `cargo xtask gen` for the chart.

mod operator;
mod overview;
mod panel;
mod variables;

use serde_json::Value;

use crate::rules::Selector;

/// One dashboard, ready for a ConfigMap.
#[derive(Debug, Clone, PartialEq)]
pub struct Dashboard {
    /// Short name: part of the ConfigMap's name and of the uid.
    pub id: &'static str,
    /// The dashboard's model, as Grafana imports it.
    pub json: Value,
}

/// Every dashboard of a MediaService.
pub fn dashboards(selector: &Selector<'_>) -> Vec<Dashboard> {
    vec![Dashboard {
        id: "overview",
        json: overview::build(selector),
    }]
}

/// The operator's own, which its chart brings.
pub fn of_operator() -> Dashboard {
    Dashboard {
        id: "operator",
        json: operator::build(),
    }
}

/// `ms-<8 hex of namespace/name>-<id>`: stable, so that links survive, and different for each
/// MediaService. At most 40 characters, which is Grafana's limit.
pub fn uid(selector: &Selector<'_>, id: &str) -> String {
    let text = format!("{}/{}", selector.namespace, selector.service);
    // FNV-1a, 32 bits: any stable spread will do, and it needs no crate.
    let hash = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("ms-{hash:08x}-{id}")
}

#[cfg(test)]
mod tests;
