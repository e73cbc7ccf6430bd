//! Compares a live object with the wanted one, as JSON.
//!
//! Pure. Owns what counts as somebody else's: fields that we do not set, which are defaults of the API
//! server or others' labels and annotations. In a list and in a selector of ours everything is ours.
//! Called by `apply`.

use serde_json::{Map, Value};

use super::quantity;

/// Maps that must have our keys and no others: one more label in a selector selects nothing, one more
/// key in a ConfigMap is one more file in the pod. In any other map the keys of others stay.
const WHOLE_MAPS: [&str; 6] = [
    "selector",
    "matchLabels",
    "nodeSelector",
    "data",
    "requests",
    "limits",
];

/// Lists that others may extend.
const SHARED_LISTS: [&str; 2] = ["ownerReferences", "finalizers"];

/// Whether `live` is what `desired` asks for. What the API server drops because it is empty counts as
/// there. Below `resources` two spellings of one amount are equal.
pub fn covers(live: &Value, desired: &Value) -> bool {
    same("", live, desired, false)
}

/// A merge patch (RFC 7396) for a `live` object that has every field of `desired`: takes out what is
/// too much. Elements of lists keep the fields that `live` has more.
pub fn only_desired(live: &Value, desired: &Value) -> Value {
    merged("", live, desired)
}

/// `at` is the key under which both are.
fn same(at: &str, live: &Value, desired: &Value, amounts: bool) -> bool {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => {
            let wanted = desired.iter().all(|(key, wanted)| match live.get(key) {
                Some(found) => same(key, found, wanted, amounts || key == "resources"),
                None => is_empty(wanted),
            });
            wanted
                && (!WHOLE_MAPS.contains(&at)
                    || live
                        .iter()
                        .all(|(key, found)| desired.contains_key(key) || is_empty(found)))
        }
        (Value::Array(live), Value::Array(desired)) => {
            let equal = |found, wanted| same("", found, wanted, amounts);
            let each_is_there = desired
                .iter()
                .all(|wanted| live.iter().any(|found| equal(found, wanted)));
            if SHARED_LISTS.contains(&at) {
                return each_is_there;
            }
            let in_place = live
                .iter()
                .zip(desired)
                .all(|(found, wanted)| equal(found, wanted));
            // Objects have a name of their own, and may stand in another order.
            let ordered = desired.iter().any(|wanted| !wanted.is_object());
            live.len() == desired.len() && (in_place || (!ordered && each_is_there))
        }
        (Value::String(live), Value::String(desired)) if amounts && live != desired => {
            quantity::parse(live).is_some_and(|live| Some(live) == quantity::parse(desired))
        }
        _ => live == desired,
    }
}

fn merged(at: &str, live: &Value, desired: &Value) -> Value {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => {
            let surplus = live.keys().filter(|key| !desired.contains_key(*key));
            let removed: Map<String, Value> = if WHOLE_MAPS.contains(&at) {
                surplus.map(|key| (key.clone(), Value::Null)).collect()
            } else {
                Map::new()
            };
            let kept = desired.iter().map(|(key, wanted)| {
                let found = live.get(key).unwrap_or(&Value::Null);
                (key.clone(), merged(key, found, wanted))
            });
            removed.into_iter().chain(kept).collect()
        }
        (Value::Array(live), Value::Array(_)) if SHARED_LISTS.contains(&at) => {
            Value::Array(live.clone())
        }
        (Value::Array(live), Value::Array(desired)) => desired
            .iter()
            .map(|wanted| {
                // The patch replaces the list as a whole: an element has to bring all its fields.
                live.iter().find(|found| partly(found, wanted)).map_or_else(
                    || wanted.clone(),
                    |found| patched(found, merged("", found, wanted)),
                )
            })
            .collect(),
        _ => desired.clone(),
    }
}

/// Whether an element of a live list is the one that was wanted, whatever was added deeper inside.
fn partly(live: &Value, desired: &Value) -> bool {
    match (live, desired) {
        (Value::Object(live), Value::Object(desired)) => {
            desired.iter().all(|(key, wanted)| match live.get(key) {
                Some(found) => partly(found, wanted),
                None => is_empty(wanted),
            })
        }
        (Value::Array(live), Value::Array(desired)) => desired
            .iter()
            .all(|wanted| live.iter().any(|found| partly(found, wanted))),
        (Value::String(live), Value::String(desired)) if live != desired => {
            quantity::parse(live).is_some_and(|live| Some(live) == quantity::parse(desired))
        }
        _ => live == desired,
    }
}

/// Applies a merge patch.
fn patched(live: &Value, patch: Value) -> Value {
    let (Value::Object(live), Value::Object(patch)) = (live, &patch) else {
        return patch;
    };
    let mut out = live.clone();
    for (key, value) in patch {
        match value {
            Value::Null => drop(out.remove(key)),
            value => {
                let found = live.get(key).unwrap_or(&Value::Null);
                out.insert(key.clone(), patched(found, value.clone()));
            }
        }
    }
    Value::Object(out)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_of_others_and_defaults_need_no_write() {
        let desired = json!({
            "metadata": {"labels": {"a": "b"}, "ownerReferences": [{"uid": "u"}]},
            "list": [{"name": "x"}, {"name": "y"}], "gone": {}, "off": false,
        });
        let live = json!({
            "metadata": {"labels": {"a": "b", "c": "d"}, "ownerReferences": [{"uid": "v"}, {"uid": "u"}]},
            "list": [{"name": "y"}, {"name": "x", "default": true}], "more": 2,
        });
        assert!(covers(&live, &desired));
    }

    #[test]
    fn a_changed_or_missing_field_needs_a_write() {
        let desired = json!({"a": 1, "list": [{"name": "x"}]});
        assert!(!covers(&json!({"a": 2, "list": [{"name": "x"}]}), &desired));
        assert!(!covers(&json!({"a": 1, "list": []}), &desired));
        assert!(!covers(&json!({"list": [{"name": "x"}]}), &desired));
    }

    #[test]
    fn two_spellings_of_one_amount_are_equal_only_below_resources() {
        let live = json!({"resources": {"cpu": "1"}});
        assert!(covers(&live, &json!({"resources": {"cpu": "1000m"}})));
        assert!(!covers(
            &json!({"x": {"n": "1"}}),
            &json!({"x": {"n": "1000m"}})
        ));
    }

    /// What is wanted, and the same with something added.
    fn added() -> Vec<(Value, Value)> {
        vec![
            (
                json!({"args": ["serve"]}),
                json!({"args": ["serve", "--auth=none"]}),
            ),
            (json!({"args": ["a", "b"]}), json!({"args": ["b", "a"]})),
            (
                json!({"containers": [{"name": "m", "env": [{"name": "A", "value": "1"}]}]}),
                json!({"containers": [{"name": "m", "tty": true,
                    "env": [{"name": "B", "value": "2"}, {"name": "A", "value": "1"}]}]}),
            ),
            (
                json!({"spec": {"selector": {"app": "m"}}}),
                json!({"spec": {"selector": {"app": "m", "no": "such"}}}),
            ),
            (
                json!({"spec": {"selector": {"matchLabels": {"app": "m"}}}}),
                json!({"spec": {"selector": {"matchLabels": {"app": "m", "no": "such"}}}}),
            ),
            (
                json!({"rules": [{"host": "a"}], "tls": [{"hosts": ["a"]}]}),
                json!({"rules": [{"host": "a"}, {"host": "b"}], "tls": [{"hosts": ["a", "b"]}]}),
            ),
            (
                json!({"spec": {"groups": [{"name": "g", "rules": [{"alert": "A"}]}]}}),
                json!({"spec": {"groups": [{"name": "g", "rules": [{"alert": "A"}]}, {"name": "h"}]}}),
            ),
            (
                json!({"data": {"config.toml": "x"}}),
                json!({"data": {"config.toml": "x", "more": "y"}}),
            ),
            (
                json!({"resources": {"limits": {"memory": "2Gi"}}}),
                json!({"resources": {"limits": {"memory": "2048Mi", "cpu": "10m"}}}),
            ),
        ]
    }

    #[test]
    fn what_was_added_to_a_list_or_a_selector_of_ours_is_seen_and_taken_out() {
        for (desired, live) in added() {
            assert!(!covers(&live, &desired), "{live}");
            let after = patched(&live, only_desired(&live, &desired));
            assert!(covers(&after, &desired), "{after}");
        }
    }

    #[test]
    fn defaults_stay_where_something_is_taken_out_beside_them() {
        let (desired, live) = &added()[2];
        assert_eq!(
            patched(live, only_desired(live, desired)),
            json!({"containers": [{"name": "m", "tty": true, "env": [{"name": "A", "value": "1"}]}]})
        );
    }
}
