//! Fills in the defaults of a schema.

use crate::sandbox::store::shape::Shape;
use serde_json::Value;

/// Fills in defaults in place: a field that is absent, or `null` without being nullable.
pub fn fill(value: &mut Value, shape: Shape<'_>) {
    match value {
        Value::Object(map) => {
            for (name, property) in shape.properties().into_iter().flatten() {
                let below = shape.field(name);
                // A default may stand beside a reference or in what it points to.
                let default = property.get("default").or_else(|| below.get("default"));
                let Some(default) = default else { continue };
                let absent = match map.get(name) {
                    None => true,
                    Some(value) => value.is_null() && !below.is_nullable(),
                };
                if absent {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in map.iter_mut() {
                fill(value, shape.field(name));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, shape.items())),
        _ => {}
    }
}
