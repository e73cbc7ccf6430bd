//! Whether the objects for Prometheus are there, and in words what is missing. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use kube::api::DynamicObject;

use super::condition;
use crate::bindings;
use crate::capabilities::{Availability, OptionalApi};
use crate::controller::fetch::Fetched;
use crate::controller::validate::ValidService;

/// The condition MonitoringReady, which is never part of Ready.
pub fn ready(fetched: &Fetched, service: &ValidService, applied: bool) -> Condition {
    let (ready, reason, message) = match state(fetched, service, applied) {
        Ok((reason, message)) => (true, reason, message),
        Err((reason, message)) => (false, reason, message),
    };
    condition("MonitoringReady", ready, reason, message)
}

/// Reason and message; an error while something is missing.
type State = Result<(&'static str, String), (&'static str, String)>;

fn state(fetched: &Fetched, service: &ValidService, applied: bool) -> State {
    let wanted = &service.spec.monitoring;
    let (scraped, has_rules) = (
        wanted.service_monitor.enabled,
        wanted.prometheus_rule.enabled,
    );
    let kinds = [("ServiceMonitor", scraped), ("PrometheusRule", has_rules)];
    let wanted = kinds.into_iter().filter(|(_, wanted)| *wanted);
    let mut wanted = wanted.map(|(kind, _)| (kind, fetched.live.of_kind(kind)));
    if wanted.clone().next().is_none() {
        let message = "spec.monitoring asks for neither object".to_owned();
        return Err(("Disabled", message));
    }
    let api = OptionalApi::Monitoring;
    let name = api.group_version();
    match service.served.get(api) {
        Availability::Absent => {
            let message = format!("the cluster has no {name}: {}", api.absence().fix);
            Err(("CRDAbsent", message))
        }
        Availability::Unknown => {
            let message = format!("objects of {name} can't be listed; see `operator check`");
            Err(("DiscoveryUnknown", message))
        }
        Availability::Present => {
            if !applied && wanted.clone().any(|(_, live)| live.len() != 1) {
                let message = "something else was refused before; see Degraded".to_owned();
                return Err(("NotApplied", message));
            }
            let unread = wanted.find_map(|(kind, live)| live.iter().find_map(|o| unread(kind, o)));
            if let Some(unread) = unread {
                return Err(("NotSelected", unread));
            }
            let mut message = "the objects that spec.monitoring asks for exist".to_owned();
            if has_rules && !scraped {
                message += "; without a ServiceMonitor the rules need a scrape of yours that sets the labels namespace, mediaservice and pod, or MediaNoAcceptingPods fires for ever";
            }
            Ok(("Created", message))
        }
    }
}

/// Why nobody reads the object, where its status says so.
fn unread(kind: &str, object: &DynamicObject) -> Option<String> {
    let bindings = bindings::of(object)?;
    let name = object.name_any();
    let Some(first) = bindings.first() else {
        return Some(format!(
            "{kind} {name} is selected by no Prometheus; see `operator check`"
        ));
    };
    if bindings.iter().any(|binding| binding.refusal.is_none()) {
        return None;
    }
    let words = first.refusal.unwrap_or_default();
    Some(format!(
        "{kind} {name} is refused by {}: {words}",
        first.reader
    ))
}
