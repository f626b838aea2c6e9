//! Events have two representations; the core one is stored.

use crate::sandbox::store::refusal::Cause;
use serde_json::{Map, Value, json};

/// Names in `events.k8s.io/v1`, and in the core.
const NAMES: &[(&str, &str)] = &[
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// An event lives in the namespace of what it is about; what has none, in `default`.
pub fn judge(event: &Value) -> Vec<Cause> {
    let place = event["metadata"]["namespace"].as_str().unwrap_or_default();
    let object = event.get("involvedObject").or_else(|| event.get("regarding"));
    let found = object.and_then(|o| o["namespace"].as_str()).unwrap_or_default();
    let fits = found == place || (found.is_empty() && place == "default");
    if fits {
        return Vec::new();
    }
    let why = "does not match event.namespace";
    vec![Cause::invalid("involvedObject.namespace", &json!(found), why)]
}

/// From `events.k8s.io/v1` to the core.
pub fn to_stored(event: &Value) -> Value {
    let mut stored = renamed(event, |name| {
        NAMES.iter().find(|(new, _)| *new == name).map_or(name, |(_, old)| *old)
    });
    stored["apiVersion"] = json!("v1");
    if stored["source"].is_null()
        && let Some(by) = stored["reportingComponent"].as_str().map(str::to_owned)
    {
        // Readers of the core form (`kubectl describe`) look for the source.
        stored["source"] = json!({"component": by});
    }
    stored
}

/// From the core to `events.k8s.io/v1`.
pub fn from_stored(event: &Value) -> Value {
    let mut shown = renamed(event, |name| {
        NAMES.iter().find(|(_, old)| *old == name).map_or(name, |(new, _)| *new)
    });
    shown["apiVersion"] = json!("events.k8s.io/v1");
    shown
}

fn renamed<'a>(event: &'a Value, name: impl Fn(&'a str) -> &'a str) -> Value {
    let fields = event.as_object().into_iter().flatten();
    let fields: Map<String, Value> =
        fields.map(|(field, value)| (name(field).to_owned(), value.clone())).collect();
    Value::Object(fields)
}
