//! Reading fields of a mapping, and collecting what is wrong with them.
//!
//! Used for documents and for the policy. Leaves the meaning of fields to those. Never stops at the
//! first problem.

use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::yaml::{Entry, Node, Shape};
use crate::api::duration::Length;
use crate::api::ops_request::Restart;
use crate::pgconf::suggest;
use crate::sync::problem::{Position, Problem};

/// Collects problems while reading.
pub(super) struct Reader {
    pub(super) file: Arc<str>,
    pub(super) problems: Vec<Problem>,
}

impl Reader {
    pub(super) fn refuse(&mut self, at: Position, message: impl Into<String>, instead: &str) {
        self.problems.push(Problem::refused(&self.file, at, message).instead(instead));
    }

    /// Every key must be known.
    pub(super) fn fields(&mut self, node: &Node, known: &[&str], what: &str) {
        for Entry { key, at, .. } in node.entries() {
            if !known.contains(&key.as_str()) {
                let instead = match suggest::nearest(key, known.iter().copied()) {
                    Some(meant) => format!("write {meant}"),
                    None => format!("remove it; the fields are {}", known.join(", ")),
                };
                let message = format!("{what} has no field {:?}", suggest::clip(key));
                self.refuse(*at, message, &instead);
            }
        }
    }

    /// The mapping below a key that must be there.
    pub(super) fn mapping<'n>(&mut self, node: &'n Node, key: &str) -> Option<&'n Node> {
        match node.entry(key) {
            None => {
                self.refuse(node.at, format!("{key} is missing"), &format!("add {key}"));
                None
            }
            Some(entry) => match entry.node.shape {
                Shape::Map(_) => Some(&entry.node),
                Shape::List(_) | Shape::Scalar(_) | Shape::Null => {
                    let message = format!("{key} is {}", entry.node.kind());
                    self.refuse(entry.node.at, message, "write a mapping");
                    None
                }
            },
        }
    }

    /// A field of a type that serde knows; absent or wrong is `None`, wrong is a problem as well.
    pub(super) fn field<T: DeserializeOwned>(
        &mut self,
        node: &Node,
        key: &str,
        instead: &str,
    ) -> Option<T> {
        let entry = node.entry(key)?;
        match serde_yaml::from_value(entry.node.value.clone()) {
            Ok(value) => Some(value),
            Err(_) => {
                let found = match &entry.node.shape {
                    Shape::Scalar(scalar) => format!("{:?}", suggest::clip(&scalar.text)),
                    Shape::Map(_) | Shape::List(_) | Shape::Null => entry.node.kind().to_owned(),
                };
                self.refuse(entry.node.at, format!("{key}: {found} is not valid"), instead);
                None
            }
        }
    }

    pub(super) fn restart(&mut self, spec: &Node) -> Option<Restart> {
        let entry = spec.entry("restart")?;
        match spec.text("restart") {
            Some("auto") => Some(Restart::Auto),
            Some("on" | "true") => Some(Restart::True),
            Some("off" | "false") => Some(Restart::False),
            _ => {
                self.refuse(entry.node.at, "restart is not valid", "write auto, true or false");
                None
            }
        }
    }

    pub(super) fn timeout(&mut self, spec: &Node) -> Option<Length> {
        let timeout: Length = self.field(spec, "timeout", "write a length such as 90s or 5m")?;
        if timeout < Length::seconds(1) {
            let at = spec.entry("timeout").map_or(spec.at, |entry| entry.node.at);
            self.refuse(at, "timeout is too short to do anything in", "write at least 1s");
        }
        Some(timeout)
    }
}
