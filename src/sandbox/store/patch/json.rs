//! RFC 6902 with the semantics of the Go library that the real server uses: a `test` for `null`
//! passes on a path that is missing.

use json_patch::{Patch, PatchOperation};
use serde_json::Value;

/// Applies operations; the value is untouched if one fails.
pub fn patch(value: &mut Value, operations: &Value) -> Result<(), String> {
    let mut patch: Patch = serde_json::from_value(operations.clone())
        .map_err(|e| format!("Invalid value: the patch cannot be read: {e}"))?;
    // Each test looks at the object as it is at its turn, so operations run one by one.
    let mut new = value.clone();
    for operation in patch.0.drain(..) {
        let passes = matches!(&operation, PatchOperation::Test(test)
            if test.value.is_null() && new.pointer(test.path.as_str()).is_none());
        if !passes {
            json_patch::patch(&mut new, &[operation])
                .map_err(|e| format!("Invalid value: the server rejected our request: {e}"))?;
        }
    }
    *value = new;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(old: Value, operations: Value, new: Option<Value>) {
        let mut value = old.clone();
        let result = patch(&mut value, &operations);
        assert_eq!(value, new.clone().unwrap_or(old));
        assert_eq!(result.is_ok(), new.is_some());
    }

    #[test]
    fn a_test_for_null_passes_on_a_missing_path() {
        let add = json!([
            {"op": "test", "path": "/metadata/finalizers", "value": null},
            {"op": "add", "path": "/metadata/finalizers", "value": ["x"]},
        ]);
        check(
            json!({"metadata": {}}),
            add.clone(),
            Some(json!({"metadata": {"finalizers": ["x"]}})),
        );
        check(json!({"metadata": {"finalizers": ["y"]}}), add, None);
    }

    #[test]
    fn nothing_changes_when_one_operation_fails() {
        let operations = json!([
            {"op": "replace", "path": "/a", "value": 2},
            {"op": "remove", "path": "/missing"},
        ]);
        check(json!({"a": 1}), operations, None);
    }
}
