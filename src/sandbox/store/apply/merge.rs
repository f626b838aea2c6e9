//! Merging an applied configuration into an object, and taking fields out of an object.

use super::{
    compare::element_of,
    fields::{Fields, field},
};
use crate::sandbox::store::shape::{ListKind, Shape};
use serde_json::{Map, Value};

/// What `live` becomes when `config` is applied: its fields win, the others stay.
pub fn merged(live: &Value, config: &Value, shape: Shape<'_>) -> Value {
    match (live, config) {
        (Value::Object(live), Value::Object(config)) if !shape.is_atomic_map() => {
            let mut out = live.clone();
            for (name, value) in config {
                let new = match live.get(name) {
                    Some(old) => merged(old, value, shape.field(name)),
                    None => value.clone(),
                };
                out.insert(name.clone(), new);
            }
            Value::Object(out)
        }
        (Value::Array(live), Value::Array(config)) if shape.list_kind() != ListKind::Atomic => {
            Value::Array(merged_list(live, config, shape))
        }
        (_, config) => config.clone(),
    }
}

/// The order of the live list stays; new elements come last.
fn merged_list(live: &[Value], config: &[Value], shape: Shape<'_>) -> Vec<Value> {
    let kind = shape.list_kind();
    let items = shape.items();
    let mut out = live.to_vec();
    for item in config {
        let element = element_of(item, &kind, items);
        match out.iter_mut().find(|old| element_of(old, &kind, items) == element) {
            Some(old) => *old = merged(old, item, items),
            None => out.push(item.clone()),
        }
    }
    out
}

/// `object` without the fields of `gone`, except what lies below or above a field of `kept`.
pub fn pruned(object: &Value, gone: &Fields, kept: &Fields, shape: Shape<'_>) -> Value {
    match object {
        Value::Object(map) if !shape.is_atomic_map() => {
            let mut out = Map::new();
            for (name, value) in map {
                let element = field(name);
                let left = prune_place(value, &element, gone, kept, shape.field(name));
                if let Some(left) = left {
                    out.insert(name.clone(), left);
                }
            }
            Value::Object(out)
        }
        Value::Array(list) if shape.list_kind() != ListKind::Atomic => {
            let kind = shape.list_kind();
            let left = list.iter().filter_map(|item| {
                let element = element_of(item, &kind, shape.items());
                prune_place(item, &element, gone, kept, shape.items())
            });
            Value::Array(left.collect())
        }
        other => other.clone(),
    }
}

fn prune_place(
    value: &Value,
    element: &str,
    gone: &Fields,
    kept: &Fields,
    shape: Shape<'_>,
) -> Option<Value> {
    let Some(gone) = gone.below.get(element) else { return Some(value.clone()) };
    let nothing = Fields::default();
    let kept = kept.below.get(element).unwrap_or(&nothing);
    if gone.here && kept.is_empty() {
        return None;
    }
    let left = pruned(value, gone, kept, shape);
    // A container that only its former owner had filled goes with its last field.
    let emptied = match (&left, value) {
        (Value::Object(left), Value::Object(old)) => left.is_empty() && !old.is_empty(),
        (Value::Array(left), Value::Array(old)) => left.is_empty() && !old.is_empty(),
        _ => false,
    };
    if emptied && kept.is_empty() { None } else { Some(left) }
}
