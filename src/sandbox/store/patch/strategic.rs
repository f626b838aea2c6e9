//! Strategic merge patch: as RFC 7396, but lists of built-in kinds merge by their key, and a few
//! directives (`$patch`, `$deleteFromPrimitiveList/…`, `$setElementOrder/…`, `$retainKeys`).

use crate::sandbox::store::shape::Shape;
use serde_json::{Map, Value};

/// Merges a patch into a value.
///
/// # Errors
/// A sentence about a directive that cannot be followed.
pub fn patch(value: &mut Value, patch: &Value, shape: Shape<'_>) -> Result<(), String> {
    let Value::Object(changes) = patch else {
        *value = patch.clone();
        return Ok(());
    };
    match changes.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            let mut new = patch.clone();
            clean(&mut new);
            *value = new;
            return Ok(());
        }
        Some("delete") => {
            *value = Value::Object(Map::new());
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => return Err(format!("unknown patch type found: {other}")),
    }
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    let Some(map) = value.as_object_mut() else { return Ok(()) };
    retain_keys(map, changes);
    for (name, change) in changes {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            delete_scalars(map, list, change);
        } else if !name.starts_with('$') {
            field(map, name, change, shape.field(name))?;
        }
    }
    for (name, order) in changes {
        if let Some(list) = name.strip_prefix("$setElementOrder/") {
            reorder(map, list, order, shape.field(list));
        }
    }
    Ok(())
}

fn field(
    map: &mut Map<String, Value>,
    name: &str,
    change: &Value,
    shape: Shape<'_>,
) -> Result<(), String> {
    match change {
        Value::Null => {
            map.remove(name);
            Ok(())
        }
        Value::Object(_) => {
            let deletes = change["$patch"] == "delete";
            if deletes {
                map.remove(name);
                return Ok(());
            }
            patch(map.entry(name.to_owned()).or_insert(Value::Null), change, shape)
        }
        Value::Array(items) => {
            let old = map.entry(name.to_owned()).or_insert_with(|| Value::Array(Vec::new()));
            list(old, items, shape)
        }
        scalar => {
            map.insert(name.to_owned(), scalar.clone());
            Ok(())
        }
    }
}

fn list(old: &mut Value, changes: &[Value], shape: Shape<'_>) -> Result<(), String> {
    let replaces = changes
        .iter()
        .any(|c| c["$patch"] == "replace" && c.as_object().is_some_and(|c| c.len() == 1));
    let (Some(items), false) = (old.as_array_mut(), replaces) else {
        let mut new: Vec<Value> =
            changes.iter().filter(|c| c["$patch"] != "replace").cloned().collect();
        new.iter_mut().for_each(clean);
        *old = Value::Array(new);
        return Ok(());
    };
    if let Some(key) = shape.merge_key() {
        for change in changes {
            merge_item(items, change, key, shape.items())?;
        }
    } else if shape.merges_scalars() {
        for change in changes {
            if !items.contains(change) {
                items.push(change.clone());
            }
        }
    } else {
        *items = changes.to_vec();
    }
    Ok(())
}

fn merge_item(
    items: &mut Vec<Value>,
    change: &Value,
    key: &str,
    shape: Shape<'_>,
) -> Result<(), String> {
    let Some(wanted) = change.get(key) else {
        return Err(format!("map: {change} does not contain declared merge key: {key}"));
    };
    if change["$patch"] == "delete" {
        items.retain(|item| item.get(key) != Some(wanted));
        return Ok(());
    }
    match items.iter_mut().find(|item| item.get(key) == Some(wanted)) {
        Some(item) => patch(item, change, shape),
        None => {
            let mut new = Value::Null;
            patch(&mut new, change, shape)?;
            items.push(new);
            Ok(())
        }
    }
}

fn delete_scalars(map: &mut Map<String, Value>, list: &str, gone: &Value) {
    if let Some(items) = map.get_mut(list).and_then(Value::as_array_mut)
        && let Some(gone) = gone.as_array()
    {
        items.retain(|item| !gone.contains(item));
    }
}

fn retain_keys(map: &mut Map<String, Value>, changes: &Map<String, Value>) {
    if let Some(kept) = changes.get("$retainKeys").and_then(Value::as_array) {
        map.retain(|name, _| kept.iter().any(|k| k == name.as_str()));
    }
}

/// Elements that the order names come in that order; the others keep their places before them.
fn reorder(map: &mut Map<String, Value>, list: &str, order: &Value, shape: Shape<'_>) {
    let Some(items) = map.get_mut(list).and_then(Value::as_array_mut) else { return };
    let Some(order) = order.as_array() else { return };
    let key = shape.merge_key();
    let place = |item: &Value| {
        order.iter().position(|o| match key {
            Some(key) => o.get(key).is_some() && o.get(key) == item.get(key),
            None => o == item,
        })
    };
    let mut named: Vec<Value> = items.iter().filter(|i| place(i).is_some()).cloned().collect();
    named.sort_by_key(|item| place(item));
    let mut named = named.into_iter();
    for item in items.iter_mut().filter(|i| place(i).is_some()) {
        if let Some(next) = named.next() {
            *item = next;
        }
    }
}

/// Takes the directives out of a value that replaces another.
fn clean(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|name, _| !name.starts_with('$'));
            map.values_mut().for_each(clean);
        }
        Value::Array(items) => items.iter_mut().for_each(clean),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::store::built_in;
    use serde_json::json;

    fn check(old: Value, change: Value, new: Value) {
        let kinds = built_in::kinds();
        let pods = kinds.iter().find(|k| k.plural == "pods").unwrap();
        let mut value = json!({"spec": old});
        patch(&mut value, &json!({"spec": change.clone()}), pods.schema.shape()).unwrap();
        assert_eq!(value["spec"], new, "{change}");
    }

    #[test]
    fn lists_merge_by_their_key() {
        let two = json!({"containers": [{"name": "a", "image": "1"}, {"name": "b"}]});
        check(
            two.clone(),
            json!({"containers": [{"name": "a", "image": "2"}, {"name": "c"}]}),
            json!({"containers": [{"name": "a", "image": "2"}, {"name": "b"}, {"name": "c"}]}),
        );
        check(
            two.clone(),
            json!({"containers": [{"name": "a", "$patch": "delete"}]}),
            json!({"containers": [{"name": "b"}]}),
        );
        check(
            two.clone(),
            json!({"containers": [{"$patch": "replace"}, {"name": "z"}]}),
            json!({"containers": [{"name": "z"}]}),
        );
        check(
            two,
            json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}),
            json!({"containers": [{"name": "b"}, {"name": "a", "image": "1"}]}),
        );
    }

    #[test]
    fn lists_without_a_key_are_replaced_and_directives_followed() {
        check(
            json!({"tolerations": [{"key": "a"}]}),
            json!({"tolerations": []}),
            json!({"tolerations": []}),
        );
        check(
            json!({"volumes": [{"name": "a", "emptyDir": {}}]}),
            json!({"volumes": [{"name": "a", "$retainKeys": ["name", "secret"], "secret": {"secretName": "s"}}]}),
            json!({"volumes": [{"name": "a", "secret": {"secretName": "s"}}]}),
        );
        check(json!({"nodeSelector": {"a": "b"}}), json!({"nodeSelector": null}), json!({}));
        check(
            json!({"nodeSelector": {"a": "b"}}),
            json!({"nodeSelector": {"$patch": "replace", "c": "d"}}),
            json!({"nodeSelector": {"c": "d"}}),
        );
    }
}
