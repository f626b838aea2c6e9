//! Whether an object in the cluster already is what we want.
//!
//! The API server adds defaults and writes quantities its own way, so equality is too strict:
//! everything that we want must be there, and what is there besides does not count. Leaves the
//! applying to `act`. Never looks at what other writers own.

use std::cmp::Ordering;

use serde::Serialize;
use serde_json::{Map, Value};

/// Fields whose text is a quantity, by the name of the map that holds them.
const QUANTITIES: [&str; 4] = ["requests", "limits", "capacity", "sizeLimit"];

/// What tells the elements of a list apart, in the order in which they are tried.
const KEYS: [&str; 4] = ["name", "mountPath", "containerPort", "uid"];

/// Whether `live` holds everything that `wanted` says.
pub fn holds<K: Serialize>(live: &K, wanted: &K) -> bool {
    match (serde_json::to_value(live), serde_json::to_value(wanted)) {
        (Ok(live), Ok(wanted)) => covers(&live, &wanted, ""),
        (Err(_), _) | (_, Err(_)) => false,
    }
}

fn covers(live: &Value, wanted: &Value, field: &str) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => covers_object(live, wanted, field),
        (Value::Array(live), Value::Array(wanted)) => covers_list(live, wanted),
        (Value::String(live), Value::String(wanted)) => {
            live == wanted || (QUANTITIES.contains(&field) && same_quantity(live, wanted))
        }
        (live, wanted) => live == wanted,
    }
}

fn covers_object(live: &Map<String, Value>, wanted: &Map<String, Value>, field: &str) -> bool {
    wanted.iter().all(|(key, wanted)| {
        // Below `requests`, every key holds a quantity.
        let field = if QUANTITIES.contains(&field) { field } else { key };
        match live.get(key) {
            Some(live) => covers(live, wanted, field),
            // The API server leaves out what says nothing.
            None => says_nothing(wanted),
        }
    })
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Lists of named things are compared by name; all others element by element.
fn covers_list(live: &[Value], wanted: &[Value]) -> bool {
    let key = KEYS.iter().find(|key| wanted.iter().all(|element| element.get(**key).is_some()));
    match key.filter(|_| !wanted.is_empty()) {
        Some(key) => wanted.iter().all(|element| {
            let twin = live.iter().find(|other| other.get(*key) == element.get(*key));
            twin.is_some_and(|twin| covers(twin, element, ""))
        }),
        None => {
            live.len() == wanted.len()
                && live.iter().zip(wanted).all(|(live, wanted)| covers(live, wanted, ""))
        }
    }
}

fn same_quantity(a: &str, b: &str) -> bool {
    match (milli(a), milli(b)) {
        (Some(a), Some(b)) => a.partial_cmp(&b) == Some(Ordering::Equal),
        (None, _) | (_, None) => false,
    }
}

/// A quantity in thousandths, so that `500m` is exact.
fn milli(text: &str) -> Option<f64> {
    match text.strip_suffix('m') {
        Some(number) => number.parse().ok(),
        None if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
            text.parse::<f64>().ok().map(|number| number * 1000.0)
        }
        // Exact below 2^53 bytes, which is 9 petabytes.
        None => crate::pgconf::provisioned::quantity(text).map(|number| number as f64 * 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(live: Value, wanted: Value, expected: bool) {
        assert_eq!(holds(&live, &wanted), expected, "{live} {wanted}");
    }

    #[test]
    fn what_the_server_adds_does_not_count() {
        check(json!({"a": 1, "b": 2}), json!({"a": 1}), true);
        check(json!({"a": 1}), json!({"a": 1, "b": 2}), false);
        check(json!({"a": 1}), json!({"a": 1, "b": null, "c": {}, "d": []}), true);
        check(json!({"a": 1}), json!({"a": 1, "b": false}), false);
    }

    #[test]
    fn quantities_are_compared_by_value() {
        let cpu = |text: &str| json!({"resources": {"requests": {"cpu": text}}});
        check(cpu("500m"), cpu("0.5"), true);
        check(cpu("1"), cpu("1000m"), true);
        check(cpu("1"), cpu("2"), false);
        let size = |text: &str| json!({"limits": {"memory": text}});
        check(size("1Gi"), size("1024Mi"), true);
        check(size("1G"), size("1Gi"), false);
        check(json!({"version": "1.0"}), json!({"version": "1"}), false);
    }

    #[test]
    fn named_things_are_found_by_name() {
        let live = json!([{"name": "sidecar"}, {"name": "postgres", "image": "x", "tty": false}]);
        check(live.clone(), json!([{"name": "postgres", "image": "x"}]), true);
        check(live, json!([{"name": "postgres", "image": "y"}]), false);
        check(json!(["a", "b"]), json!(["a"]), false);
        check(json!(["a", "b"]), json!(["a", "b"]), true);
        check(json!([{"name": "a"}]), json!([]), false);
    }
}
