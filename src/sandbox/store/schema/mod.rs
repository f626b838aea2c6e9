//! What a schema does to an object: unknown fields go, defaults come, the rest is judged.
//!
//! | file | what |
//! |---|---|
//! | `prune.rs` | drops fields that are not declared and says which |
//! | `defaults.rs` | fills in defaults |
//! | `validate.rs` | types, ranges, patterns, enumerations, required fields |
//! | `rules.rs` | CEL rules, transition rules included |
//!
//! The texts follow kube-openapi's, because people and tests read them.

pub mod defaults;
pub mod prune;
pub mod rules;
pub mod validate;

/// A path and one more field: `spec.parameters[0].name`.
pub(super) fn join(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}
