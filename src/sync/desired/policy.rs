//! `pgitops.yaml` at the top of `spec.path`: when, how many at once, and what documents leave out.
//!
//! ```yaml
//! apiVersion: pgitops.dev/v1alpha1
//! kind: ConfigPolicy
//! spec:
//!   windows:
//!   - name: nights                # shown while it is closed
//!     allow: 0 2 * * 1-5          # or deny: five fields of cron, POSIX weekdays
//!     duration: 2h                # 1m to 31 days
//!     zone: Europe/Helsinki       # IANA; UTC when absent
//!     for: restarts               # restarts (default) | all
//!   limits:
//!     maxConcurrent: {restarts: 1, reloads: 10}   # databases at once, of this repository
//!     maxFailures: 1              # failed databases of a commit, after which its others are held
//!   drift: Enforce                # Enforce | EnforceWithRestart | Warn
//!   defaults: {restart: auto, apply: IfReady, wave: 0, timeout: 5m}
//! ```
//!
//! Every field may be absent. No windows: always open. A window that allows closes all other times;
//! one that denies wins over those that allow. `drift: Warn` on the `ConfigRepository` is the brake
//! and wins over this file; otherwise this file wins. A policy that cannot be read is never
//! replaced by the default one: everything is held until it can.

use std::sync::Arc;

use super::reader::Reader;
use super::yaml::{Node, Shape};
use crate::api::config_repository::DriftPolicy;
use crate::api::duration::Length;
use crate::api::ops_request::{Apply, Restart};
use crate::sync::problem::Problem;
use crate::sync::window::{NotAWindow, Rule, Scope, Window};

/// The file's name, at the top of `spec.path`.
pub const FILE: &str = "pgitops.yaml";
/// The kind of the document in it.
pub const POLICY_KIND: &str = "ConfigPolicy";

/// When, how many at once, and what documents leave out.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// When changes may be made.
    pub windows: Vec<Window>,
    /// How many at once.
    pub limits: Limits,
    /// What is done about values that somebody else changed; the repository's own when absent.
    pub drift: Option<DriftPolicy>,
    /// What documents leave out.
    pub defaults: Defaults,
}

/// How many databases at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Databases of this repository that restart at once.
    pub restarts: u32,
    /// Databases of this repository that are changed without a restart at once.
    pub reloads: u32,
    /// Failed databases of a commit after which its others are held.
    pub failures: u32,
}

impl Default for Limits {
    /// One restart at a time, so that a bad value stops at the first database; ten reloads, so
    /// that a fleet of thousands is done within minutes; one failure stops the commit.
    fn default() -> Self {
        Self { restarts: 1, reloads: 10, failures: 1 }
    }
}

/// What documents leave out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Defaults {
    /// Whether to restart.
    pub restart: Restart,
    /// Whether the database must be Ready.
    pub apply: Apply,
    /// The wave.
    pub wave: i32,
    /// Bounds each wait of the rollout.
    pub timeout: Option<Length>,
}

/// Most windows of a policy: each is looked at for every opening that is searched.
const WINDOWS: usize = 50;

/// Reads the document of the policy.
pub fn read(file: &Arc<str>, node: &Node) -> (Policy, Vec<Problem>) {
    let mut reader = Reader { file: file.clone(), problems: Vec::new() };
    let mut policy = Policy::default();
    reader.fields(node, &["apiVersion", "kind", "metadata", "spec"], "a ConfigPolicy");
    if let Some(spec) = reader.mapping(node, "spec") {
        reader.fields(spec, &["windows", "limits", "drift", "defaults"], "spec");
        policy.windows = windows(&mut reader, spec);
        policy.limits = limits(&mut reader, spec);
        let instead = "write Enforce, EnforceWithRestart or Warn";
        policy.drift = reader.field(spec, "drift", instead);
        policy.defaults = defaults(&mut reader, spec);
    }
    (policy, reader.problems)
}

fn windows(reader: &mut Reader, spec: &Node) -> Vec<Window> {
    let Some(entry) = spec.entry("windows") else { return Vec::new() };
    let Shape::List(items) = &entry.node.shape else {
        reader.refuse(entry.node.at, "windows is not a list", "begin each window with a dash");
        return Vec::new();
    };
    if items.len() > WINDOWS {
        reader.refuse(entry.node.at, format!("more than {WINDOWS} windows"), "merge some of them");
        return Vec::new();
    }
    items.iter().filter_map(|item| window(reader, item)).collect()
}

fn window(reader: &mut Reader, node: &Node) -> Option<Window> {
    reader.fields(node, &["name", "allow", "deny", "duration", "zone", "for"], "a window");
    let name = node.text("name").filter(|name| !name.is_empty() && name.len() <= 63);
    if name.is_none() {
        reader.refuse(node.at, "a window has no name of 1 to 63 characters", "add name");
    }
    let (rule, key) = match (node.entry("allow"), node.entry("deny")) {
        (Some(_), None) => (Rule::Allow, "allow"),
        (None, Some(_)) => (Rule::Deny, "deny"),
        _ => {
            let message = "a window has either allow or deny";
            reader.refuse(node.at, message, "write one of them, with five fields of cron");
            return None;
        }
    };
    let scope = match node.text("for") {
        Some("restarts") => Scope::Restarts,
        Some("all") => Scope::All,
        None if node.entry("for").is_none() => Scope::Restarts,
        _ => {
            reader.refuse(node.at, "for is not valid", "write restarts or all");
            return None;
        }
    };
    let duration: Option<Length> = reader.field(node, "duration", "write a length such as 2h");
    if node.entry("duration").is_none() {
        reader.refuse(node.at, "a window has no duration", "add duration: 2h");
    }
    let zone = match node.entry("zone") {
        None => "UTC",
        Some(_) => node.text("zone").unwrap_or_default(),
    };
    let cron = node.text(key).unwrap_or_default();
    match Window::new(name?, rule, scope, cron, duration?.0, zone) {
        Ok(window) => Some(window),
        Err(error) => {
            let (key, instead) = match &error {
                NotAWindow::Cron { .. } => {
                    (key, "write minute hour day month weekday: 0 2 * * 1-5")
                }
                NotAWindow::Zone(_) => ("zone", "write an IANA name such as Europe/Helsinki"),
                NotAWindow::Duration => ("duration", "write a length such as 2h"),
            };
            let at = node.entry(key).map_or(node.at, |entry| entry.node.at);
            reader.refuse(at, error.to_string(), instead);
            None
        }
    }
}

fn limits(reader: &mut Reader, spec: &Node) -> Limits {
    let mut limits = Limits::default();
    if spec.entry("limits").is_none() {
        return limits;
    }
    let Some(node) = reader.mapping(spec, "limits") else { return limits };
    reader.fields(node, &["maxConcurrent", "maxFailures"], "limits");
    let mut number = |node: &Node, key: &str, into: &mut u32| {
        let instead = "write a whole number from 1";
        if let Some(number) = reader.field::<u32>(node, key, instead) {
            *into = number;
            if number == 0 {
                let at = node.entry(key).map_or(node.at, |entry| entry.node.at);
                reader.refuse(at, format!("{key}: 0 would stop everything"), instead);
            }
        }
    };
    number(node, "maxFailures", &mut limits.failures);
    if let Some(entry) = node.entry("maxConcurrent") {
        number(&entry.node, "restarts", &mut limits.restarts);
        number(&entry.node, "reloads", &mut limits.reloads);
        if !matches!(entry.node.shape, Shape::Map(_)) {
            let instead = "write {restarts: 1, reloads: 10}";
            reader.refuse(entry.node.at, "maxConcurrent is not a mapping", instead);
        }
        reader.fields(&entry.node, &["restarts", "reloads"], "maxConcurrent");
    }
    limits
}

fn defaults(reader: &mut Reader, spec: &Node) -> Defaults {
    let mut defaults = Defaults::default();
    if spec.entry("defaults").is_none() {
        return defaults;
    }
    let Some(node) = reader.mapping(spec, "defaults") else { return defaults };
    reader.fields(node, &["restart", "apply", "wave", "timeout"], "defaults");
    defaults.restart = reader.restart(node).unwrap_or_default();
    defaults.apply = reader.field(node, "apply", "write IfReady or Always").unwrap_or_default();
    defaults.wave = reader.field(node, "wave", "write a whole number").unwrap_or_default();
    defaults.timeout = reader.timeout(node);
    defaults
}
