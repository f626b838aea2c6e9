//! What single built-in kinds ask for: values the server fills in, and changes it refuses.
//!
//! The texts follow the real server's. Custom resources have their rules in their schema.

pub mod crd;
pub mod event;
pub mod lease;
pub mod namespace;
pub mod pod;
pub mod secret;
pub mod service;
pub mod stateful_set;

use super::{
    By, Store,
    kinds::Kind,
    metadata,
    refusal::{Cause, Refusal},
};
use serde_json::Value;

/// Fills in what the server decides. `old` is `None` for a new object.
pub fn prepare(
    kind: &Kind,
    store: &Store,
    old: Option<&Value>,
    new: &mut Value,
    by: &By,
) -> Result<(), Refusal> {
    match kind_of(kind) {
        "Secret" => secret::prepare(new),
        "Pod" => pod::prepare(old, new),
        "Service" => service::prepare(store, old, new),
        "StatefulSet" => stateful_set::prepare(new),
        "Namespace" => namespace::prepare(old, new),
        "CustomResourceDefinition" => crd::prepare(old, new, by.now),
        _ => {}
    }
    Ok(())
}

/// What is wrong with a new object or a change, beyond its schema.
pub fn judge(kind: &Kind, _store: &Store, old: Option<&Value>, new: &Value) -> Vec<Cause> {
    match kind_of(kind) {
        "Secret" => secret::judge(old, new),
        "ConfigMap" => secret::judge_config_map(old, new),
        "Pod" => pod::judge(old, new),
        "StatefulSet" => stateful_set::judge(old, new),
        "Event" => event::judge(new),
        "Lease" => lease::judge(new),
        "CustomResourceDefinition" => crd::judge(new),
        _ => Vec::new(),
    }
}

/// What a Go type would not decode.
///
/// # Errors
/// 400.
pub fn decodes(kind: &Kind, object: &Value) -> Result<(), Refusal> {
    if kind_of(kind) == "Secret" { secret::decodes(object) } else { Ok(()) }
}

/// The form in which an object is stored.
pub fn to_stored(kind: &Kind, object: Value) -> Value {
    if kind.is("events.k8s.io", "Event") { event::to_stored(&object) } else { object }
}

/// Objects that must stay.
///
/// # Errors
/// 403.
pub fn may_be_deleted(kind: &Kind, object: &Value) -> Result<(), Refusal> {
    let protected = ["default", "kube-system", "kube-public"];
    let name = metadata::name(object);
    if kind.is("", "Namespace") && protected.contains(&name) {
        let why = "this namespace may not be deleted";
        return Err(Refusal::forbidden("", "namespaces", name, why));
    }
    Ok(())
}

fn kind_of(kind: &Kind) -> &str {
    if kind.is_custom() { "" } else { &kind.kind }
}

/// The elements of a list below an object, to be changed; none if there is no such list. (Indexing
/// a value to be changed would make the field.)
fn each<'a>(object: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}
