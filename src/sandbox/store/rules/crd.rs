//! CustomResourceDefinitions: established at once, removed after their objects.

use crate::sandbox::store::{
    kinds::Kind,
    metadata,
    refusal::{Cause, Refusal},
    schema::validate,
    shape::Schema,
};
use jiff::Timestamp;
use kube::core::cel::compile_schema;
use serde_json::{Value, json};
use std::sync::Arc;

/// The finalizer of the real server.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Fills in names and status.
pub fn prepare(old: Option<&Value>, definition: &mut Value, now: Timestamp) {
    let names = &definition["spec"]["names"];
    let kind = names["kind"].as_str().unwrap_or_default().to_owned();
    if definition["spec"]["names"].is_object() {
        let names = &mut definition["spec"]["names"];
        if names["listKind"].is_null() {
            names["listKind"] = json!(format!("{kind}List"));
        }
        if names["singular"].is_null() {
            names["singular"] = json!(kind.to_lowercase());
        }
    }
    if definition["spec"]["conversion"].is_null() {
        definition["spec"]["conversion"] = json!({"strategy": "None"});
    }
    let stored = definition["spec"]["versions"].as_array().into_iter().flatten();
    let stored: Vec<&str> =
        stored.filter(|v| v["storage"] == true).filter_map(|v| v["name"].as_str()).collect();
    let (stored, accepted) = (json!(stored), definition["spec"]["names"].clone());
    if old.is_none() {
        let at = metadata::time(now);
        let condition = |kind: &str, reason: &str, message: &str| {
            json!({"type": kind, "status": "True", "reason": reason, "message": message,
                   "lastTransitionTime": at})
        };
        definition["status"] = json!({
            "acceptedNames": accepted,
            "storedVersions": stored,
            "conditions": [
                condition("NamesAccepted", "NoConflicts", "no conflicts found"),
                condition("Established", "InitialNamesAccepted",
                          "the initial names have been accepted"),
            ],
        });
    } else if definition["status"].is_object() {
        definition["status"]["acceptedNames"] = accepted;
    }
}

/// What is wrong with a definition.
pub fn judge(definition: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = &definition["spec"];
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let wanted = format!("{}.{}", text(&spec["names"]["plural"]), text(&spec["group"]));
    let name = metadata::name(definition);
    if name != wanted {
        let why = "must be spec.names.plural+\".\"+spec.group";
        causes.push(Cause::invalid("metadata.name", &json!(name), why));
    }
    words(&spec["names"], &mut causes);
    let versions: Vec<&Value> = spec["versions"].as_array().into_iter().flatten().collect();
    if versions.iter().filter(|v| v["storage"] == true).count() != 1 {
        let why = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid("spec.versions", &json!([]), why));
    }
    for (index, version) in versions.iter().enumerate() {
        let schema = &version["schema"]["openAPIV3Schema"];
        let path = format!("spec.versions[{index}].schema.openAPIV3Schema");
        if !schema.is_object() {
            causes.push(Cause::required(path, "schemas are required"));
        } else {
            structural(schema, &path, &mut causes);
        }
    }
    if !["Namespaced", "Cluster"].contains(&text(&spec["scope"]).as_str()) {
        let supported = ["Cluster".to_owned(), "Namespaced".to_owned()];
        causes.push(Cause::unsupported("spec.scope", &spec["scope"], &supported));
    }
    causes
}

/// Names that kubectl takes are labels of DNS.
fn words(names: &Value, causes: &mut Vec<Cause>) {
    let mut word = |field: String, value: &Value| {
        let text = value.as_str().unwrap_or_default().to_lowercase();
        if !is_label(&text) {
            let why = "a DNS-1035 label must consist of lower case alphanumeric characters or \
                       '-', start with an alphabetic character, and end with an alphanumeric \
                       character (e.g. 'my-name',  or 'abc-123', regex used for validation is \
                       '[a-z]([-a-z0-9]*[a-z0-9])?')";
            causes.push(Cause::invalid(field, value, why));
        }
    };
    for field in ["plural", "singular", "kind", "listKind"] {
        word(format!("spec.names.{field}"), &names[field]);
    }
    for field in ["shortNames", "categories"] {
        for (index, value) in names[field].as_array().into_iter().flatten().enumerate() {
            word(format!("spec.names.{field}[{index}]"), value);
        }
    }
}

fn is_label(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    text.len() <= 63
        && text.bytes().all(plain)
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
}

/// A default must pass the schema that it stands in.
fn default_fits(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    if schema["default"].is_null() {
        return;
    }
    let own = Schema { root: Arc::new(schema.clone()), definitions: Arc::default() };
    validate::validate(&schema["default"], own.shape(), &format!("{path}.default"), causes);
}

/// A rule must be one: those of this place; places below are looked at on their own.
fn rules_compile(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    for (index, rule) in rules.enumerate() {
        let alone = json!({"type": schema["type"], "x-kubernetes-validations": [rule]});
        for error in compile_schema(&alone).compilation_errors() {
            let field = format!("{path}.x-kubernetes-validations[{index}].rule");
            let why = format!("compilation failed: {error}");
            causes.push(Cause::invalid(field, &rule["rule"], why));
        }
    }
}

/// Every place of a structural schema has a type; its default fits, and its rules are rules.
fn structural(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let free = ["x-kubernetes-int-or-string", "x-kubernetes-preserve-unknown-fields"];
    let typed = schema["type"].is_string() || free.iter().any(|f| schema[*f] == true);
    if !typed {
        causes.push(Cause::required(
            format!("{path}.type"),
            "must not be empty for specified object fields",
        ));
    }
    default_fits(schema, path, causes);
    rules_compile(schema, path, causes);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        structural(property, &format!("{path}.properties[{name}]"), causes);
    }
    for (keyword, word) in [("items", "items"), ("additionalProperties", "additionalProperties")] {
        if schema[keyword].is_object() {
            structural(&schema[keyword], &format!("{path}.{word}"), causes);
        }
    }
    let list = schema["x-kubernetes-list-type"] == "map";
    if list && schema["x-kubernetes-list-map-keys"].as_array().is_none_or(Vec::is_empty) {
        let field = format!("{path}.x-kubernetes-list-map-keys");
        causes.push(Cause::required(field, "must not be empty if x-kubernetes-list-type is map"));
    }
}

/// True for definitions: they are not removed before their objects are.
pub fn holds_contents(kind: &Kind) -> bool {
    kind.is("apiextensions.k8s.io", "CustomResourceDefinition")
}

/// A definition that is being deleted waits for its objects.
pub fn mark(kind: &Kind, definition: &mut Value, now: Timestamp) {
    if !holds_contents(kind) {
        return;
    }
    let mut finalizers: Vec<String> =
        metadata::finalizers(definition).into_iter().map(str::to_owned).collect();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    definition["metadata"]["finalizers"] = json!(finalizers);
    let condition = json!({
        "type": "Terminating", "status": "True", "reason": "InstanceDeletionInProgress",
        "message": "CustomResource deletion is in progress",
        "lastTransitionTime": metadata::time(now),
    });
    if let Some(conditions) = definition["status"]["conditions"].as_array_mut()
        && !conditions.iter().any(|c| c["type"] == "Terminating")
    {
        conditions.push(condition);
    }
}

/// A definition may not use a group of Kubernetes itself.
///
/// # Errors
/// 403.
pub fn group_is_free(definition: &Value) -> Result<(), Refusal> {
    let group = definition["spec"]["group"].as_str().unwrap_or_default();
    if ["apps", "policy", "events.k8s.io", "coordination.k8s.io"].contains(&group) {
        let name = metadata::name(definition);
        let why = "the group belongs to a built-in API";
        return Err(Refusal::forbidden(
            "apiextensions.k8s.io",
            "customresourcedefinitions",
            name,
            why,
        ));
    }
    Ok(())
}
