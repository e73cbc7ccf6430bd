//! The variables of a dashboard: the data source, and queries for what its panels select by.

use serde_json::{Value, json};

use crate::rules::Selector;

/// Namespace, MediaService and pods, preset to all of one MediaService.
pub(super) fn of_pods(selector: &Selector<'_>) -> Value {
    let of_service = "media_active_sessions{namespace=\"$namespace\",mediaservice=\"$service\"}";
    let all = json!({"selected": true, "text": ["All"], "value": ["$__all"]});
    let mut list = services(selector);
    list.push(query("pod", "Pod", (of_service, "pod"), all, true));
    list.into()
}

/// Namespace and MediaService, preset to one.
pub(super) fn of_service(selector: &Selector<'_>) -> Value {
    services(selector).into()
}

fn services(selector: &Selector<'_>) -> Vec<Value> {
    let preset = |value: &str| json!({"selected": true, "text": value, "value": value});
    let of_namespace = "media_active_sessions{namespace=\"$namespace\"}";
    vec![
        datasource("prometheus", "datasource", "Data source"),
        one(
            "namespace",
            "Namespace",
            "media_active_sessions",
            "namespace",
            preset(selector.namespace),
        ),
        one(
            "service",
            "MediaService",
            of_namespace,
            "mediaservice",
            preset(selector.service),
        ),
    ]
}

/// Where logs and traces are, the MediaService, and what to look for. Which labels a log collector gives is not
/// known, so names are typed and not chosen.
pub(super) fn of_logs(selector: &Selector<'_>) -> Value {
    json!([
        datasource("loki", "loki_datasource", "Loki data source"),
        datasource("tempo", "tempo_datasource", "Tempo data source"),
        typed("namespace", "Namespace", selector.namespace),
        typed("service", "MediaService", selector.service),
        typed("session", "Session id", ""),
        typed("trace", "Trace id", ""),
    ])
}

/// The namespace, which is that of one release of the chart.
pub(super) fn of_operator() -> Value {
    let leaders = "mediaservice_operator_leader";
    json!([
        datasource("prometheus", "datasource", "Data source"),
        one("namespace", "Namespace", leaders, "namespace", json!({})),
    ])
}

fn datasource(kind: &str, name: &str, label: &str) -> Value {
    json!({
        "name": name, "label": label, "type": "datasource", "query": kind,
        "refresh": 1, "hide": 0, "multi": false, "includeAll": false, "current": {},
    })
}

/// A variable that is typed.
fn typed(name: &str, title: &str, value: &str) -> Value {
    json!({
        "name": name, "label": title, "type": "textbox", "query": value, "hide": 0,
        "current": {"selected": true, "text": value, "value": value},
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
