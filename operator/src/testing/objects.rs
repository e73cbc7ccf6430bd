//! Selectors and patches of the API server in this process, on objects as JSON. Pure; used by tests only.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

/// Whether a list or watch with these selectors has the object: labels `a=b,c=d`, fields of events.
pub fn is_selected(object: &Value, asked: &HashMap<String, String>) -> bool {
    let pairs = |which: &str| -> Vec<(String, String)> {
        let text = asked.get(which).map(String::as_str).unwrap_or_default();
        let parts = text.split(',').filter_map(|part| part.split_once('='));
        parts
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    };
    let labels = &object["metadata"]["labels"];
    let labelled = pairs("labelSelector")
        .iter()
        .all(|(key, value)| labels[key] == **value);
    labelled
        && pairs("fieldSelector").iter().all(|(key, value)| {
            let pointer = format!("/{}", key.replace('.', "/"));
            object.pointer(&pointer).and_then(Value::as_str) == Some(value)
        })
}

/// Maps are merged and all else is replaced. A null removes a key in a merge patch, and is none in an
/// apply.
pub fn merge(object: &mut Value, patch: &Value, nulls_remove: bool) {
    let Value::Object(patch) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let members = object.as_object_mut().expect("it was just made one");
    for (key, value) in patch {
        if value.is_null() {
            if nulls_remove {
                members.remove(key);
            }
        } else {
            merge(
                members.entry(key.clone()).or_insert(Value::Null),
                value,
                nulls_remove,
            );
        }
    }
}

/// Server-side apply: fields that a manager applied before and does not now.
pub fn remove_dropped(object: &mut Value, before: &Value, now: &Value) {
    let (Some(members), Some(before)) = (object.as_object_mut(), before.as_object()) else {
        return;
    };
    for (key, value) in before {
        match now.get(key) {
            None => drop(members.remove(key)),
            Some(now) => {
                if let Some(member) = members.get_mut(key) {
                    remove_dropped(member, value, now);
                }
            }
        }
    }
}

/// Notes in `metadata.managedFields` that this manager applied `patch` last. Lists count as one field.
pub fn note_manager(object: &mut Value, manager: &str, patch: &Value) {
    let entry = json!({
        "manager": manager, "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": fields_of(patch),
    });
    let entries = object["metadata"]["managedFields"].as_array();
    let others = entries.into_iter().flatten();
    let others = others.filter(|other| other["manager"] != manager);
    let entries: Vec<Value> = others.cloned().chain([entry]).collect();
    object["metadata"]["managedFields"] = entries.into();
}

fn fields_of(value: &Value) -> Value {
    let members = value.as_object().into_iter().flatten();
    let fields = members.map(|(key, value)| (format!("f:{key}"), fields_of(value)));
    Value::Object(fields.collect())
}
