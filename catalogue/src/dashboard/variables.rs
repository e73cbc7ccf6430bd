//! The variables of a dashboard: the data source, and queries for what its panels select by.

use serde_json::{Value, json};

use crate::rules::Selector;

/// Namespace, MediaService and pod, preset to one MediaService.
pub(super) fn of_service(selector: &Selector<'_>) -> Value {
    let preset = |value: &str| json!({"selected": true, "text": value, "value": value});
    let of_namespace = "media_active_sessions{namespace=\"$namespace\"}";
    let of_service = "media_active_sessions{namespace=\"$namespace\",mediaservice=\"$service\"}";
    let all = json!({"selected": true, "text": ["All"], "value": ["$__all"]});
    json!([
        datasource(),
        one(
            "namespace",
            "Namespace",
            "media_active_sessions",
            "namespace",
            preset(selector.namespace)
        ),
        one(
            "service",
            "MediaService",
            of_namespace,
            "mediaservice",
            preset(selector.service)
        ),
        query("pod", "Pod", (of_service, "pod"), all, true),
    ])
}

/// The namespace, which is that of one release of the chart.
pub(super) fn of_operator() -> Value {
    let leaders = "mediaservice_operator_leader";
    json!([
        datasource(),
        one("namespace", "Namespace", leaders, "namespace", json!({})),
    ])
}

fn datasource() -> Value {
    json!({
        "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
        "refresh": 1, "hide": 0, "multi": false, "includeAll": false, "current": {},
    })
}

/// A variable with one value, out of those that a label of some series has.
fn one(name: &str, title: &str, series: &str, label: &str, current: Value) -> Value {
    query(name, title, (series, label), current, false)
}

fn query(
    name: &str,
    title: &str,
    (series, label): (&str, &str),
    current: Value,
    many: bool,
) -> Value {
    let query = format!("label_values({series}, {label})");
    json!({
        "name": name, "label": title, "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"query": query, "refId": name}, "definition": query,
        "refresh": 2, "sort": 1, "hide": 0, "multi": many, "includeAll": many,
        "allValue": if many { json!(".*") } else { Value::Null }, "current": current,
    })
}
