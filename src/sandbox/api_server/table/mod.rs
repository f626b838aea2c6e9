//! Objects as rows, as `kubectl get` shows them. Pure.
//!
//! | file | what |
//! |---|---|
//! | `built_in.rs` | columns of built-in kinds |
//! | `pods.rs` | columns of pods |
//! | `custom.rs` | columns of custom resources, by JSON path |
//! | `text.rs` | ages and lists as text |

mod built_in;
mod custom;
mod pods;
mod text;

pub(super) use custom::find;

use super::reply::only_metadata;
use crate::sandbox::store::kinds::Kind;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// A column: name, type, and whether only `-o wide` shows it.
type Header = (&'static str, &'static str, bool);

/// A `Table` without metadata. `include` is `None`, `Metadata` or `Object`.
pub fn of(kind: &Kind, objects: &[Arc<Value>], include: &str, now: Timestamp) -> Value {
    let (headers, cells) = if kind.is_custom() {
        custom::columns(kind, objects, now)
    } else {
        built_in::columns(kind, objects, now)
    };
    let rows: Vec<Value> = objects
        .iter()
        .zip(cells)
        .map(|(object, cells)| {
            let mut row = json!({"cells": cells});
            match include {
                "None" => {}
                "Object" => row["object"] = Value::clone(object),
                _ => row["object"] = only_metadata(object),
            }
            row
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {},
        "columnDefinitions": headers, "rows": rows,
    })
}

fn header((name, value_type, wide): &Header) -> Value {
    let format = if *name == "Name" { "name" } else { "" };
    json!({
        "name": name, "type": value_type, "format": format, "description": name,
        "priority": i32::from(*wide),
    })
}
