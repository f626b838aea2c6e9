//! What a body may say: what it expects of the object, the fields it may carry, the part of the
//! object it speaks of.

use super::{
    By, Validation,
    kinds::Kind,
    metadata,
    refusal::{Cause, Refusal},
    rules,
    schema::prune,
    write::{Part, Target},
};
use serde_json::Value;

/// A value that was wrong before and is not touched does not stop a change of something else.
pub(super) fn unchanged(old: &Value, new: &Value, cause: &Cause) -> bool {
    if cause.field.is_empty() || cause.field == "<nil>" || cause.field.starts_with("metadata") {
        return false;
    }
    let pointer = format!("/{}", cause.field.replace(['.', '['], "/").replace(']', ""));
    match (old.pointer(&pointer), new.pointer(&pointer)) {
        (Some(was), Some(is)) => was == is,
        _ => false,
    }
}

/// What decoding does: unknown fields are dropped and named, built-in types lose their nulls.
pub(super) fn decode(
    target: Target<'_>,
    object: &mut Value,
    by: &By,
    warnings: &mut Vec<String>,
) -> Result<(), Refusal> {
    let kind = target.kind;
    let mut unknown = Vec::new();
    prune::prune(object, kind.schema.shape(), "", &mut unknown);
    let named: Vec<String> = unknown.iter().map(|path| format!("unknown field {path:?}")).collect();
    match by.validation {
        Validation::Strict if !named.is_empty() => {
            return Err(Refusal::bad_request(format!(
                "{} in version {:?} cannot be handled as a {}: strict decoding error: {}",
                kind.kind,
                kind.version,
                kind.kind,
                named.join(", ")
            )));
        }
        Validation::Warn => warnings.extend(named),
        Validation::Strict | Validation::Ignore => {}
    }
    if !kind.is_custom() {
        prune::drop_nulls(object);
        prune::quantities_as_text(object, kind.schema.shape());
        rules::decodes(kind, object)?;
    }
    Ok(())
}

/// The resourceVersion and uid that the caller expects.
pub(super) fn preconditions(
    target: Target<'_>,
    old: Option<&Value>,
    body: &Value,
) -> Result<(), Refusal> {
    let kind = target.kind;
    let wanted = |field: &str| body["metadata"][field].as_str().filter(|v| !v.is_empty());
    let Some(old) = old else {
        return match wanted("uid") {
            Some(uid) => {
                let why = format!(
                    "Precondition failed: UID in precondition: {uid}, UID in object meta: "
                );
                Err(Refusal::conflict(&kind.group, &kind.plural, target.name, &why))
            }
            None => Ok(()),
        };
    };
    if let Some(uid) = wanted("uid")
        && metadata::uid(old) != Some(uid)
    {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            metadata::uid(old).unwrap_or_default()
        );
        return Err(Refusal::conflict(&kind.group, &kind.plural, target.name, &why));
    }
    if let Some(revision) = wanted("resourceVersion")
        && old["metadata"]["resourceVersion"] != revision
    {
        return Err(Refusal::modified(&kind.group, &kind.plural, target.name));
    }
    Ok(())
}

/// An applied configuration speaks only of the part it is applied to.
pub(super) fn restrict(target: Target<'_>, config: &mut Value) {
    let kind = target.kind;
    let Some(map) = config.as_object_mut() else { return };
    match target.part {
        Part::Whole | Part::Scale if kind.has_status => {
            map.remove("status");
        }
        Part::Whole | Part::Scale => {}
        Part::Status => {
            map.retain(|field, _| ["apiVersion", "kind", "metadata", "status"].contains(&&**field));
            if let Some(metadata) = map.get_mut("metadata").and_then(Value::as_object_mut) {
                let kept = ["name", "namespace", "uid", "resourceVersion"];
                metadata.retain(|field, _| kept.contains(&&**field));
            }
        }
    }
}

/// The part that a write may not change comes from the old object.
pub(super) fn keep_other_part(target: Target<'_>, old: &Value, new: &mut Value) {
    match target.part {
        Part::Whole | Part::Scale if target.kind.has_status => {
            match (old.get("status"), new.as_object_mut()) {
                (Some(status), Some(map)) => {
                    map.insert("status".into(), status.clone());
                }
                (None, Some(map)) => {
                    map.remove("status");
                }
                _ => {}
            }
        }
        Part::Whole | Part::Scale => {}
        Part::Status => {
            let status = new.get("status").cloned();
            let managed = new["metadata"].get("managedFields").cloned();
            *new = old.clone();
            if let Some(map) = new.as_object_mut() {
                match status {
                    Some(status) => map.insert("status".into(), status),
                    None => map.remove("status"),
                };
            }
            if let Some(managed) = managed {
                new["metadata"]["managedFields"] = managed;
            }
        }
    }
}

/// A value of the wrong type does not get as far as validation for a built-in kind: it cannot be
/// decoded.
pub(super) fn undecodable(kind: &Kind, causes: &[Cause]) -> Result<(), Refusal> {
    let Some(first) = causes.iter().find(|c| c.reason == "FieldValueTypeInvalid") else {
        return Ok(());
    };
    let mut words = first.message.split('"');
    let found = words.nth(1).unwrap_or_default();
    let wanted = first.message.split("of type ").nth(1).and_then(|t| t.split(':').next());
    Err(Refusal::bad_request(format!(
        "{} in version {:?} cannot be handled as a {}: json: cannot unmarshal {found} into Go \
         struct field {}.{} of type {}",
        kind.kind,
        kind.version,
        kind.kind,
        kind.kind,
        first.field,
        wanted.unwrap_or_default()
    )))
}
