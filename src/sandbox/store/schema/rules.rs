//! CEL rules of a custom resource, transition rules included.

use crate::sandbox::store::{
    kinds::{Custom, Kind},
    refusal::Cause,
    shape::Shape,
};
use kube::core::cel::{ErrorKind, Validator};
use serde_json::Value;

/// All rules that do not hold for `new`, which replaces `old`.
pub fn broken(kind: &Kind, custom: &Custom, new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let Some(rules) = &custom.rules else { return Vec::new() };
    let Err(errors) = Validator::new().validate_compiled(rules, new, old) else {
        return Vec::new();
    };
    errors
        .into_iter()
        .map(|error| {
            let type_name = type_at(kind.schema.shape(), &error.field_path);
            let message = match error.kind {
                ErrorKind::ValidationFailure => error.message,
                _ => format!("rule cannot be evaluated: {}: {}", error.rule, error.message),
            };
            Cause {
                reason: error.reason.unwrap_or_else(|| "FieldValueInvalid".to_owned()),
                message: format!("Invalid value: {type_name:?}: {message}"),
                field: if error.field_path.is_empty() { "<nil>".into() } else { error.field_path },
            }
        })
        .collect()
}

/// What the real server adds when rules were not run because the object has the wrong form.
pub fn not_run() -> Cause {
    let message = "Invalid value: null: some validation rules were not checked because the \
                   object was invalid; correct the existing errors to complete validation";
    Cause { reason: "FieldValueInvalid".into(), message: message.into(), field: "<nil>".into() }
}

fn type_at(shape: Shape<'_>, path: &str) -> String {
    let mut here = shape;
    for part in path.split(['.', '[']).filter(|p| !p.is_empty()) {
        here = if part.ends_with(']') { here.items() } else { here.field(part) };
    }
    here.get("type").and_then(Value::as_str).unwrap_or("object").to_owned()
}
