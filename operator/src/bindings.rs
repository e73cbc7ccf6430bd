//! Who reads a ServiceMonitor or PrometheusRule, as its own status says.
//!
//! Prometheus Operator writes it into `status.bindings` where its feature gate
//! StatusForConfigurationResources is on. Pure. Used by the controller's status and by the check.

use kube::api::DynamicObject;
use serde_json::Value;

/// A Prometheus, or another that selects the object.
#[derive(Debug, PartialEq, Eq)]
pub struct Binding<'a> {
    /// Resource, namespace and name.
    pub reader: String,
    /// Its words, if it does not take the object.
    pub refusal: Option<&'a str>,
}

/// All that select the object; `None` where nobody says who does.
pub fn of(object: &DynamicObject) -> Option<Vec<Binding<'_>>> {
    let bindings = object.data["status"]["bindings"].as_array()?;
    Some(bindings.iter().map(binding).collect())
}

fn binding(value: &Value) -> Binding<'_> {
    let part = |name: &str| value[name].as_str().unwrap_or("?");
    let reader = format!(
        "{} {}/{}",
        part("resource"),
        part("namespace"),
        part("name")
    );
    let conditions = value["conditions"].as_array();
    let refused = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "Accepted" && condition["status"] == "False");
    Binding {
        reader,
        refusal: refused.map(|condition| condition["message"].as_str().unwrap_or("nothing")),
    }
}
