//! The parameters of a document: its fragment, its own values, its allowances.
//!
//! Leaves the other fields to `documents.rs` and everything that depends on a server's version to
//! `drift.rs`. Never changes the text of a value.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::documents::{Allowance, Document, Surroundings};
use super::reader::Reader;
use super::yaml::{Entry, Node, Shape};
use crate::pgconf::{self, Catalogue, Name, Settings, Tier, Value, catalogue, suggest, tiers};
use crate::sync::problem::{Position, Problem};

/// Longest text of `allowUnsafe.reason`: it goes into notes and an annotation.
const REASON_LIMIT: usize = 300;

impl Reader {
    /// Reads the fragment into `settings`; gives its path.
    pub(super) fn fragment(
        &mut self,
        spec: &Node,
        around: &Surroundings<'_>,
        settings: &mut Settings,
    ) -> Option<Arc<str>> {
        let at = spec.entry("configFile")?.node.at;
        let Some(name) = spec.text("configFile").filter(|name| !name.is_empty()) else {
            self.refuse(at, "configFile is not the name of a file", "write the file's name");
            return None;
        };
        if name.contains(['/', '\\']) || name.starts_with('.') {
            let instead = "move the fragment beside this file and write its name alone";
            self.refuse(at, "configFile points to another folder", instead);
            return None;
        }
        let Some((path, bytes)) = (around.fragment)(name) else {
            let message = format!("configFile {:?} is not beside this file", suggest::clip(name));
            self.refuse(at, message, "commit it there, with a name that ends in .conf");
            return None;
        };
        match Settings::parse_bytes(&bytes) {
            Ok(read) => settings.replace(&read),
            Err(problems) => {
                self.problems.extend(problems.into_iter().map(|p| Problem::of(&path, None, p)));
            }
        }
        Some(path)
    }

    pub(super) fn parameters(
        &mut self,
        spec: &Node,
        settings: &mut Settings,
        from_fragment: &mut BTreeSet<Name>,
    ) {
        let Some(entry) = spec.entry("parameters") else { return };
        let Shape::Map(entries) = &entry.node.shape else {
            let message = format!("parameters is {}", entry.node.kind());
            self.refuse(entry.node.at, message, "write a mapping, {} for none");
            return;
        };
        let mut seen: BTreeMap<Name, Position> = BTreeMap::new();
        for Entry { key, at, node } in entries {
            let name = match Name::new(key) {
                Ok(name) => name,
                Err(problem) => {
                    self.problems.push(Problem::of(&self.file, *at, problem));
                    continue;
                }
            };
            if let Some(first) = seen.insert(name.clone(), *at) {
                let message = format!("stands here twice, first on line {}", first.line);
                let problem = Problem::refused(&self.file, *at, message).parameter(key.as_str());
                self.problems.push(problem.instead("keep one; case does not count"));
                continue;
            }
            if let Some(value) = self.value(&name, node) {
                from_fragment.remove(&name);
                settings.set_at(name, value, node.at);
            }
        }
    }

    fn value(&mut self, name: &Name, node: &Node) -> Option<Value> {
        let Shape::Scalar(scalar) = &node.shape else {
            let message = format!("the value is {}", node.kind());
            let problem = Problem::refused(&self.file, node.at, message).parameter(name.as_str());
            self.problems.push(problem.instead("write a single value, or leave the parameter out"));
            return None;
        };
        if scalar.ambiguous && !tiers::is_sensitive(name) {
            let text = &scalar.text;
            let message = format!("unquoted {text} means something else to other readers of YAML");
            let problem = Problem::warning(&self.file, node.at, message).parameter(name.as_str());
            self.problems.push(problem.instead(format!("write \"{text}\"")));
        }
        match Value::new(&scalar.text) {
            Ok(value) => Some(value),
            Err(problem) => {
                let problem = problem.of(name.as_str());
                self.problems.push(Problem::of(&self.file, node.at, problem));
                None
            }
        }
    }

    pub(super) fn allow_unsafe(
        &mut self,
        spec: &Node,
        settings: &Settings,
    ) -> BTreeMap<Name, Allowance> {
        let mut allowances = BTreeMap::new();
        if spec.entry("allowUnsafe").is_none() {
            return allowances;
        }
        let Some(map) = self.mapping(spec, "allowUnsafe") else { return allowances };
        for Entry { key, at, node } in map.entries() {
            let known = Name::new(key).ok().filter(|name| tiers::tier(name) == Tier::Unsafe);
            let Some(name) = known else {
                let message = format!("{:?} needs no allowUnsafe", suggest::clip(key));
                self.refuse(*at, message, "remove it");
                continue;
            };
            if !settings.contains(&name) {
                let message = format!("allowUnsafe names {name}, which the document does not set");
                let problem = Problem::warning(&self.file, *at, message);
                self.problems.push(problem.instead("remove it"));
            }
            if let Some(allowance) = self.allowance(&name, *at, node) {
                allowances.insert(name, allowance);
            }
        }
        allowances
    }

    fn allowance(&mut self, name: &Name, at: Position, node: &Node) -> Option<Allowance> {
        self.fields(node, &["reason", "until"], "an entry of allowUnsafe");
        let reason = node.text("reason").map(str::trim).filter(|reason| !reason.is_empty());
        let Some(reason) = reason else {
            let message = format!("allowUnsafe.{name} has no reason");
            self.refuse(at, message, "add reason: with a sentence for whoever reads the log");
            return None;
        };
        let mut allowance =
            Allowance { reason: reason.chars().take(REASON_LIMIT).collect(), until: None, at };
        if let Some(entry) = node.entry("until") {
            allowance.at = entry.node.at;
            let date = node.text("until").and_then(|text| text.parse().ok());
            if date.is_none() {
                let message = format!("allowUnsafe.{name}.until is not a date");
                self.refuse(entry.node.at, message, "write the last day as 2026-12-31");
            }
            allowance.until = Some(date?);
        }
        Some(allowance)
    }

    /// What no server takes, whatever its version.
    pub(super) fn check(&mut self, document: &Document) {
        for (name, _) in document.settings.iter() {
            let problem = if tiers::tier(name) == Tier::Owned {
                let message = "belongs to the operator, which sets it itself";
                pgconf::Problem::refused(message).of(name.as_str()).instead("remove it")
            } else if name.is_dotted() || known_to_any(name) {
                continue;
            } else {
                let newest = catalogue::MAJORS.iter().rev().find_map(|m| Catalogue::for_major(*m));
                let Some(newest) = newest else { continue };
                newest.unknown(name)
            };
            let at = document.settings.position(name);
            let file = document.file_of(name).clone();
            let name_free = pgconf::Problem { at: None, ..problem };
            self.problems.push(Problem::of(&file, at, name_free));
        }
    }
}

fn known_to_any(name: &Name) -> bool {
    catalogue::MAJORS
        .iter()
        .filter_map(|major| Catalogue::for_major(*major))
        .any(|catalogue| catalogue.get(name).is_some())
}
