//! The Grafana dashboards of one MediaService and of the operator, as JSON.
//!
//! Owns its panels and a small typed builder for them; units, legends and the data source are set
//! for every panel because the builder asks for them. Never talks to Grafana. Called by the operator,
//! which puts the JSON into a ConfigMap that Grafana's sidecar reads, and by `cargo xtask gen` for the chart.

mod capacity;
mod devices;
mod logs;
mod operator;
mod overview;
mod panel;
mod quality;
mod slo;
mod variables;

use serde_json::Value;

use crate::families::{FAMILIES, Family, Kind, Scope};
use crate::rules::Selector;

/// What panels about one MediaService select.
const OF_SERVICE: &str = "namespace=\"$namespace\",mediaservice=\"$service\"";
/// What panels select that can be about some of its pods.
const OF_PODS: &str = "namespace=\"$namespace\",mediaservice=\"$service\",pod=~\"$pod\"";

/// Families that a MediaService has no series of, although it carries sessions, and what it takes for some. A panel
/// may be empty that asks for one of them; no other.
pub const EMPTY_WITHOUT: &[(&str, &str)] = &[
    ("media_jwks_age_seconds", "spec.auth.jwksURL"),
    ("media_jwks_fetches_total", "spec.auth.jwksURL"),
    ("media_events_waiting", "spec.events"),
    ("media_events_delivered_total", "spec.events"),
    ("media_events_retries_total", "spec.events"),
    ("media_events_dropped_total", "spec.events"),
    ("media_trace_spans_total", "spec.observability.otlpEndpoint"),
];

/// One dashboard, ready for a ConfigMap.
#[derive(Debug, Clone, PartialEq)]
pub struct Dashboard {
    /// Short name: part of the ConfigMap's name and of the uid.
    pub id: &'static str,
    /// The dashboard's model, as Grafana imports it.
    pub json: Value,
}

/// Makes a dashboard's model.
type Build = fn(&Selector<'_>) -> Value;

const OF_SERVICES: &[(&str, Build)] = &[
    ("overview", overview::build),
    ("quality", quality::build),
    ("devices", devices::build),
    ("slo", slo::build),
    ("capacity", capacity::build),
    ("logs", logs::build),
];

/// Every dashboard of a MediaService.
pub fn dashboards(selector: &Selector<'_>) -> Vec<Dashboard> {
    let built = OF_SERVICES.iter().map(|(id, build)| Dashboard {
        id,
        json: build(selector),
    });
    built.collect()
}

/// The same where pods show no series of single sessions: without queries of gauges that each session has, and without
/// panels that ask for nothing else.
pub fn dashboards_without_sessions(selector: &Selector<'_>) -> Vec<Dashboard> {
    let mut all = dashboards(selector);
    for dashboard in &mut all {
        let panels = dashboard.json["panels"].as_array_mut();
        let panels = panels.expect("the builder makes a list");
        panels.retain_mut(|panel| {
            let Some(targets) = panel["targets"].as_array_mut() else {
                return true;
            };
            targets.retain(|target| !needs_sessions(target["expr"].as_str().unwrap_or_default()));
            !targets.is_empty()
        });
        panel::place(panels);
    }
    all
}

fn needs_sessions(query: &str) -> bool {
    let gauge = |family: &&Family| family.scope == Scope::Session && family.kind == Kind::Gauge;
    let mut gauges = FAMILIES.iter().filter(gauge);
    gauges.any(|family| query.contains(&format!("{}{{", family.name)))
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
