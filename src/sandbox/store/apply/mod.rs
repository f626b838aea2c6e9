//! Server-side apply: who owns which field.
//!
//! | file | what |
//! |---|---|
//! | `fields.rs` | a set of fields as a tree, and its `FieldsV1` form |
//! | `compare.rs` | which fields differ between two objects |
//! | `merge.rs` | merging a configuration into an object, taking fields out again |
//! | `managers.rs` | `metadata.managedFields`, updates, applies and their conflicts |

pub mod compare;
pub mod fields;
pub mod managers;
pub mod merge;
