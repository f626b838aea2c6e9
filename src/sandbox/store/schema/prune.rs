//! Drops fields that a schema does not declare, and says which.

use super::join;
use crate::sandbox::store::shape::Shape;
use serde_json::Value;

/// Drops unknown fields in place; their paths go to `unknown`.
pub fn prune(value: &mut Value, shape: Shape<'_>, path: &str, unknown: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let keeps = shape.preserves_unknown() || shape.is_free_map();
            let known = |name: &str| {
                keeps
                    || shape.declares(name)
                    || (shape.is_embedded() && ["apiVersion", "kind", "metadata"].contains(&name))
            };
            // An `x-kubernetes-int-or-string` or a type without fields holds no object at all;
            // judging that is the validator's business.
            let names: Vec<String> = map.keys().cloned().collect();
            for name in names {
                let below = join(path, &name);
                if known(&name) {
                    if let Some(value) = map.get_mut(&name) {
                        prune(value, shape.field(&name), &below, unknown);
                    }
                } else {
                    map.remove(&name);
                    unknown.push(below);
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                prune(item, shape.items(), &format!("{path}[{index}]"), unknown);
            }
        }
        _ => {}
    }
}

/// Drops `null` fields, as decoding into a Go type does; for built-in kinds.
pub fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Writes quantities as text (`1` → `"1"`), as decoding into a Go type does.
pub fn quantities_as_text(value: &mut Value, shape: Shape<'_>) {
    match value {
        Value::Object(map) => {
            for (name, value) in map.iter_mut() {
                quantities_as_text(value, shape.field(name));
            }
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|item| quantities_as_text(item, shape.items()));
        }
        Value::Number(number) if shape.get("x-quantity").is_some() => {
            *value = Value::String(number.to_string());
        }
        _ => {}
    }
}
