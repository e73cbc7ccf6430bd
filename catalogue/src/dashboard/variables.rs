//! The variables of a dashboard: data source, namespace, MediaService and pod, preset to one
//! MediaService.

use serde_json::{Value, json};

use crate::rules::Selector;

pub(super) fn variables(selector: &Selector<'_>) -> Value {
    let datasource = json!({"type": "prometheus", "uid": "${datasource}"});
    let query = |name: &str, label: &str, query: String, current: Value, many: bool| {
        json!({
            "name": name, "label": label, "type": "query", "datasource": datasource,
            "query": {"query": query, "refId": name}, "definition": query,
            "refresh": 2, "sort": 1, "hide": 0, "multi": many, "includeAll": many,
            "allValue": if many { json!(".*") } else { Value::Null }, "current": current,
        })
    };
    let preset = |value: &str| json!({"selected": true, "text": value, "value": value});
    json!([
        {
            "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus",
            "refresh": 1, "hide": 0, "multi": false, "includeAll": false, "current": {},
        },
        query("namespace", "Namespace", "label_values(media_active_sessions, namespace)".into(), preset(selector.namespace), false),
        query(
            "service",
            "MediaService",
            "label_values(media_active_sessions{namespace=\"$namespace\"}, mediaservice)".into(),
            preset(selector.service),
            false,
        ),
        query(
            "pod",
            "Pod",
            "label_values(media_active_sessions{namespace=\"$namespace\",mediaservice=\"$service\"}, pod)".into(),
            json!({"selected": true, "text": ["All"], "value": ["$__all"]}),
            true,
        ),
    ])
}
