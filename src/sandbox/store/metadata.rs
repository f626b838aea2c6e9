//! What every object has: name, identity, generation, finalizers, owners.

use super::{
    By,
    kinds::Kind,
    refusal::{Cause, Refusal},
};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// The uid.
pub fn uid(object: &Value) -> Option<&str> {
    object["metadata"]["uid"].as_str()
}

/// The name; empty if there is none.
pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// The uids of the owners.
pub fn owners(object: &Value) -> impl Iterator<Item = &str> {
    let references = object["metadata"]["ownerReferences"].as_array();
    references.into_iter().flatten().filter_map(|r| r["uid"].as_str())
}

/// The finalizers.
pub fn finalizers(object: &Value) -> Vec<&str> {
    let finalizers = object["metadata"]["finalizers"].as_array();
    finalizers.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// True once a deletion was asked for.
pub fn is_terminating(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// A time as Kubernetes writes it: UTC, whole seconds.
pub fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The metadata, made if it is missing.
pub fn metadata_mut(object: &mut Value) -> Result<&mut Map<String, Value>, Refusal> {
    let root =
        object.as_object_mut().ok_or_else(|| Refusal::bad_request("the body is no object"))?;
    root.entry("metadata")
        .or_insert_with(|| json!({}))
        .as_object_mut()
        .ok_or_else(|| Refusal::bad_request("metadata is no object"))
}

/// Checks that a body is of the kind and namespace of its path, and writes both into it.
///
/// # Errors
/// 400 if body and path disagree.
pub fn identify(kind: &Kind, namespace: &str, body: &mut Value) -> Result<(), Refusal> {
    let api_version = kind.api_version();
    for (field, wanted) in [("apiVersion", api_version.as_str()), ("kind", kind.kind.as_str())] {
        match body[field].as_str() {
            None | Some("") if kind.is_custom() => return Err(untyped(kind, field, body)),
            None | Some("") => body[field] = json!(wanted),
            Some(found) if found == wanted => {}
            Some(found) => {
                let why = format!(
                    "the {field} in the data ({found}) does not match the expected {field} \
                     ({wanted})"
                );
                return Err(Refusal::bad_request(why));
            }
        }
    }
    let metadata = metadata_mut(body)?;
    if !kind.namespaced {
        metadata.remove("namespace");
        return Ok(());
    }
    match metadata.get("namespace").and_then(Value::as_str) {
        None | Some("") => {
            metadata.insert("namespace".into(), json!(namespace));
            Ok(())
        }
        Some(found) if found == namespace => Ok(()),
        Some(_) => Err(Refusal::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
    }
}

/// A built-in type knows what it is; an object of a custom resource has to say so.
fn untyped(kind: &Kind, field: &str, body: &Value) -> Refusal {
    if field == "apiVersion" && body["kind"].is_string() {
        let expected = kind.api_version();
        return Refusal::bad_request(format!(
            "the API version in the data () does not match the expected API version ({expected})"
        ));
    }
    Refusal::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): Object 'Kind' is missing in \
         '{body}'",
        kind.kind
    ))
}

/// Checks that a body carries the name of its path.
///
/// # Errors
/// 400 if it carries none or another.
pub fn is_named(wanted: &str, body: &Value) -> Result<(), Refusal> {
    match name(body) {
        found if found == wanted => Ok(()),
        "" => Err(Refusal::bad_request(format!(
            "the name of the object ({wanted} based on URL) was undeterminable: name must be \
             provided"
        ))),
        found => Err(Refusal::bad_request(format!(
            "the name of the object ({found}) does not match the name on the URL ({wanted})"
        ))),
    }
}

/// Gives a new object its identity; what only the server may set is overwritten.
///
/// # Errors
/// 400 for a resourceVersion, 422 without a name.
pub fn begin(kind: &Kind, object: &mut Value, by: &By) -> Result<(), Refusal> {
    let metadata = metadata_mut(object)?;
    if metadata.get("resourceVersion").and_then(Value::as_str).is_some_and(|v| !v.is_empty()) {
        let why = "resourceVersion should not be set on objects to be created";
        return Err(Refusal::bad_request(why));
    }
    for field in ["resourceVersion", "selfLink", "deletionTimestamp", "managedFields"] {
        metadata.remove(field);
    }
    metadata.remove("deletionGracePeriodSeconds");
    let named = metadata.get("name").and_then(Value::as_str).is_some_and(|n| !n.is_empty());
    if !named {
        let Some(prefix) = metadata.get("generateName").and_then(Value::as_str) else {
            let cause = Cause::required("metadata.name", "name or generateName is required");
            return Err(Refusal::invalid(&kind.group, &kind.kind, "", vec![cause]));
        };
        // The longest prefix that leaves room for the suffix in 63 characters.
        let prefix: String = prefix.chars().take(58).collect();
        metadata.insert("name".into(), json!(format!("{prefix}{}", suffix(&by.uid))));
    }
    metadata.insert("uid".into(), json!(by.uid));
    metadata.insert("creationTimestamp".into(), json!(time(by.now)));
    if has_generation(kind) {
        metadata.insert("generation".into(), json!(1));
    } else {
        metadata.remove("generation");
    }
    Ok(())
}

/// Five letters from a uid, of the alphabet that Kubernetes uses (no vowels, no look-alikes).
fn suffix(uid: &str) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let digits: Vec<u32> = uid.chars().filter_map(|c| c.to_digit(16)).collect();
    let letter = |pair: &[u32]| {
        let n = pair.iter().fold(0, |n, d| n * 16 + d) as usize;
        char::from(LETTERS[n % LETTERS.len()])
    };
    digits.chunks(2).take(5).map(letter).collect()
}

/// Carries identity over from the old object to the new one and counts generations.
///
/// # Errors
/// 409 for another uid, 422 for a finalizer added while the object is being deleted.
pub fn carry(kind: &Kind, old: &Value, new: &mut Value) -> Result<(), Refusal> {
    let changed = generation_moves(kind, old, new);
    let was = &old["metadata"];
    let metadata = metadata_mut(new)?;
    for field in CARRIED {
        match was.get(*field) {
            Some(value) => metadata.insert((*field).into(), value.clone()),
            None => metadata.remove(*field),
        };
    }
    if changed && has_generation(kind) {
        let generation = was["generation"].as_i64().unwrap_or(0) + 1;
        metadata.insert("generation".into(), json!(generation));
    }
    if metadata.get("finalizers").and_then(Value::as_array).is_some_and(Vec::is_empty) {
        metadata.remove("finalizers");
    }
    if is_terminating(old) {
        let had = finalizers(old);
        let added: Vec<String> =
            finalizers(new).iter().filter(|f| !had.contains(f)).map(|f| format!("{f:?}")).collect();
        if !added.is_empty() {
            let why = format!(
                "no new finalizers can be added if the object is being deleted, found new \
                 finalizers []string{{{}}}",
                added.join(", ")
            );
            let cause = Cause::forbidden("metadata.finalizers", why);
            return Err(Refusal::invalid(&kind.group, &kind.kind, name(old), vec![cause]));
        }
    }
    Ok(())
}

const CARRIED: &[&str] = &[
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "generation",
    "resourceVersion",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generateName",
];

/// Kinds that count generations: custom resources, and built-in ones with a spec that is acted on.
fn has_generation(kind: &Kind) -> bool {
    kind.is_custom()
        || [
            ("apps", "StatefulSet"),
            ("apps", "Deployment"),
            ("policy", "PodDisruptionBudget"),
            ("apiextensions.k8s.io", "CustomResourceDefinition"),
            ("", "Pod"),
        ]
        .iter()
        .any(|(group, name)| kind.is(group, name))
}

/// A generation moves when what is wanted changes: the spec, and for custom resources everything
/// but metadata and (where it is a subresource) status.
fn generation_moves(kind: &Kind, old: &Value, new: &Value) -> bool {
    if !kind.is_custom() {
        return old["spec"] != new["spec"];
    }
    let rest = |object: &Value| {
        let mut rest = object.clone();
        if let Some(map) = rest.as_object_mut() {
            map.remove("metadata");
            if kind.has_status {
                map.remove("status");
            }
        }
        rest
    };
    rest(old) != rest(new)
}

/// What is wrong with name, labels, annotations and owners.
pub fn judge(kind: &Kind, object: &Value) -> Vec<Cause> {
    let metadata = &object["metadata"];
    let mut causes = Vec::new();
    let name = name(object);
    if !is_subdomain(name) && !loose_name(kind) {
        let why = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
                   characters, '-' or '.', and must start and end with an alphanumeric character \
                   (e.g. 'example.com', regex used for validation is \
                   '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
        causes.push(Cause::invalid("metadata.name", &json!(name), why));
    }
    for (label, value) in metadata["labels"].as_object().into_iter().flatten() {
        let value_text = value.as_str().unwrap_or_default();
        if !is_label_value(value_text) {
            let why = "a valid label must be an empty string or consist of alphanumeric \
                       characters, '-', '_' or '.', and must start and end with an alphanumeric \
                       character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
                       validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
            causes.push(Cause::invalid("metadata.labels", value, why));
        }
        if !is_qualified_name(label) {
            causes.push(Cause::invalid("metadata.labels", &json!(label), QUALIFIED_NAME));
        }
    }
    for annotation in metadata["annotations"].as_object().into_iter().flatten().map(|(k, _)| k) {
        if !is_qualified_name(&annotation.to_lowercase()) {
            causes.push(Cause::invalid("metadata.annotations", &json!(annotation), QUALIFIED_NAME));
        }
    }
    causes
}

const QUALIFIED_NAME: &str = "name part must consist of alphanumeric characters, '-', '_' or \
    '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or \
    '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// Kinds whose names may hold more than a DNS name may.
fn loose_name(kind: &Kind) -> bool {
    kind.group == "rbac.authorization.k8s.io"
}

fn is_subdomain(name: &str) -> bool {
    let label = |label: &str| {
        let edge =
            |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        edge(label.chars().next())
            && edge(label.chars().last())
            && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn is_label_value(value: &str) -> bool {
    value.is_empty() || is_name_part(value)
}

fn is_name_part(part: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    part.len() <= 63
        && edge(part.chars().next())
        && edge(part.chars().last())
        && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn is_qualified_name(name: &str) -> bool {
    match name.split_once('/') {
        Some((prefix, part)) => is_subdomain(prefix) && is_name_part(part),
        None => is_name_part(name),
    }
}
