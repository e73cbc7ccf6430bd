//! Whether signalling is routed, and in words what is missing of it. Pure.

use serde_json::Value;

use super::Outcome;
use crate::capabilities::{Availability, OptionalApi};
use crate::controller::fetch::Fetched;

/// What is missing of the route that the spec asks for; `None` if nothing is, or none is asked for.
pub fn unrouted(fetched: &Fetched, outcome: &Outcome<'_>) -> Option<String> {
    let signalling = &fetched.service.spec.signalling;
    // It was just applied, or it was there before something was refused.
    let applied = matches!(outcome, Outcome::Applied { .. });
    if signalling.ingress.is_some() && !applied && fetched.live.ingresses.is_empty() {
        return Some("the Ingress of spec.signalling.ingress is not there".into());
    }
    signalling.http_route.as_ref()?;
    match fetched.served.get(OptionalApi::Gateway) {
        Availability::Absent => Some("the cluster has no API for spec.signalling.httpRoute".into()),
        // Its objects could not be listed just now, which says nothing against what was seen before.
        Availability::Unknown if was_ready(fetched) => None,
        Availability::Unknown => {
            Some("the HTTPRoute of spec.signalling.httpRoute can't be seen".into())
        }
        Availability::Present => unaccepted(fetched),
    }
}

/// Whether the status says so, of the spec as it is now.
fn was_ready(fetched: &Fetched) -> bool {
    let service = &fetched.service;
    service.status.as_ref().is_some_and(|status| {
        let mut conditions = status.conditions.iter();
        status.observed_generation == service.metadata.generation
            && conditions.any(|c| c.type_ == "Ready" && c.status == "True")
    })
}

/// An Ingress says nothing of whether anybody routes it; a Gateway says that it does.
fn unaccepted(fetched: &Fetched) -> Option<String> {
    let mut conditions = fetched
        .live
        .of_kind("HTTPRoute")
        .iter()
        .flat_map(|route| list(&route.data["status"]["parents"]))
        .flat_map(|parent| list(&parent["conditions"]))
        .filter(|condition| condition["type"] == "Accepted")
        .peekable();
    let Some(first) = conditions.peek() else {
        return Some("no Gateway has taken the HTTPRoute of spec.signalling.httpRoute yet".into());
    };
    let words = first["message"].as_str().unwrap_or_default().to_owned();
    if conditions.any(|condition| condition["status"] == "True") {
        return None;
    }
    Some(format!(
        "no Gateway takes the HTTPRoute of spec.signalling.httpRoute: {words}"
    ))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
