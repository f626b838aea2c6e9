//! RFC 7396: `null` removes, objects merge, everything else replaces.

use serde_json::{Map, Value};

/// Merges a patch into a value.
pub fn patch(value: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *value = patch.clone();
        return;
    };
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let Some(map) = value.as_object_mut() else { return };
    for (name, change) in changes {
        if change.is_null() {
            map.remove(name);
        } else {
            self::patch(map.entry(name.clone()).or_insert(Value::Null), change);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(old: Value, change: Value, new: Value) {
        let mut value = old;
        patch(&mut value, &change);
        assert_eq!(value, new);
    }

    #[test]
    fn merges_as_the_rfc_says() {
        check(
            json!({"a": 1, "b": {"c": 2}}),
            json!({"b": {"c": null, "d": 3}}),
            json!({"a": 1, "b": {"d": 3}}),
        );
        check(json!({"a": [1, 2]}), json!({"a": [3]}), json!({"a": [3]}));
        check(json!({"a": 1}), json!({"a": {"b": null}}), json!({"a": {}}));
    }
}
