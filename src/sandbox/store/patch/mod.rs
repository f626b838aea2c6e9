//! The kinds of patch. Server-side apply is in `apply/`.
//!
//! | file | what |
//! |---|---|
//! | `json.rs` | RFC 6902 with Go's semantics |
//! | `merge.rs` | RFC 7396 |
//! | `strategic.rs` | Kubernetes' own, for built-in kinds: lists merge by key |

pub mod json;
pub mod merge;
pub mod strategic;

use super::{refusal::Refusal, write::Target};
use serde_json::Value;

/// A change of an object.
#[derive(Debug, Clone, PartialEq)]
pub enum Patch {
    /// RFC 6902.
    Json(Value),
    /// RFC 7396.
    Merge(Value),
    /// Strategic merge.
    Strategic(Value),
    /// Server-side apply.
    Apply {
        /// What is to be so.
        config: Value,
        /// Take fields that others own.
        force: bool,
    },
}

impl Patch {
    /// What an object becomes.
    ///
    /// # Errors
    /// 415 for a strategic merge patch of a custom resource, 422 for a patch that does not fit.
    pub fn onto(&self, old: &Value, target: Target<'_>) -> Result<Value, Refusal> {
        let mut new = old.clone();
        match self {
            Self::Json(operations) => json::patch(&mut new, operations).map_err(|why| {
                Refusal::invalid(
                    &target.kind.group,
                    &target.kind.kind,
                    target.name,
                    vec![super::refusal::Cause {
                        reason: "FieldValueInvalid".into(),
                        message: why,
                        field: "patch".into(),
                    }],
                )
            })?,
            Self::Merge(patch) => merge::patch(&mut new, patch),
            Self::Strategic(_) if target.kind.is_custom() => {
                return Err(Refusal::unsupported_media_type(
                    "the body of the request was in an unknown format - accepted media types \
                     include: application/json-patch+json, application/merge-patch+json, \
                     application/apply-patch+yaml",
                ));
            }
            Self::Strategic(patch) => {
                strategic::patch(&mut new, patch, target.kind.schema.shape())
                    .map_err(Refusal::bad_request)?;
            }
            Self::Apply { .. } => {}
        }
        Ok(new)
    }
}
