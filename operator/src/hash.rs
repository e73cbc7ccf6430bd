//! Hashes of JSON that do not depend on the order of keys. Pure.

use serde_json::Value;

/// 16 hex digits of SHA-256 over the value with its keys sorted.
pub fn of(value: &Value) -> String {
    let mut text = String::new();
    canonical(value, &mut text);
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Removes from `value` what is the same in `default`, and objects that this leaves empty.
pub fn remove_equal(value: &mut Value, default: &Value) {
    let (Value::Object(value), Value::Object(default)) = (value, default) else {
        return;
    };
    value.retain(|key, member| {
        let Some(default) = default.get(key) else {
            return !member.is_null();
        };
        if member == default {
            return false;
        }
        remove_equal(member, default);
        true
    });
}

fn canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(members) => {
            let mut keys: Vec<_> = members.keys().collect();
            keys.sort();
            out.push('{');
            for key in keys {
                out.push_str(&Value::String(key.clone()).to_string());
                out.push(':');
                canonical(&members[key], out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        scalar => out.push_str(&scalar.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_order_of_keys_does_not_matter_and_values_do() {
        assert_eq!(
            of(&json!({"a": 1, "b": [2]})),
            of(&json!({"b": [2], "a": 1}))
        );
        assert_ne!(of(&json!({"a": 1})), of(&json!({"a": 2})));
    }

    #[test]
    fn what_equals_the_default_is_removed_at_every_depth() {
        let mut value = json!({"a": 1, "b": {"c": 2, "d": 3}, "e": null});
        remove_equal(&mut value, &json!({"a": 1, "b": {"c": 2, "d": 4}}));
        assert_eq!(value, json!({"b": {"d": 3}}));
    }
}
