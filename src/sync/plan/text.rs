//! A plan as a person reads it before it is carried out.
//!
//! Per database: what changes and where that is written, how it is sent, what it costs, why it is
//! held, how it is undone; at the end one line of sums. What is not known is shown as unknown.
//! Leaves colours and tables to the command line.

use std::collections::BTreeSet;

use super::{Held, Plan};
use crate::api::names::DatabaseRef;
use crate::api::ops_request::{PostgresOpsRequest, Restart};
use crate::pgconf::{Catalogue, Name, Tier, Value, tiers};
use crate::sync::desired::Desired;
use crate::sync::drift::{Change, Drift};
use crate::sync::live::{Live, Observed, Present};
use crate::sync::problem::Problem;

/// What a plan says about one database.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Entry {
    /// `namespace/name`.
    pub database: String,
    /// `change`, `held`, `running`, `equal` or `released`.
    pub verdict: &'static str,
    /// File, version and nodes, as far as they are known.
    pub about: String,
    /// Whether somebody else runs the servers: what is said of costs and failure is theirs then.
    pub foreign: bool,
    /// What would change.
    pub changes: Vec<Change>,
    /// What is sent, in one line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Restarts that it takes; 0 for a reload.
    pub restarts: i32,
    /// Whether KubeDB may find that it takes none.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub at_most: bool,
    /// What these restarts bring into effect besides the changes, parameter by parameter.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// In which order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<&'static str>,
    /// Why it is not done now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What lifts that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lift: Option<String>,
    /// What is remarkable without stopping anything.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What the whole plan comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Sums {
    /// Databases that documents name or that are released.
    pub databases: usize,
    /// Databases that would be changed now.
    pub change: usize,
    /// Restarts of single servers that this takes.
    pub restarts: i32,
    /// Databases that are held or wait.
    pub held: usize,
    /// Databases of which the document or a file is refused.
    pub refused: usize,
    /// Databases whose request runs.
    pub running: usize,
    /// Databases on which everything is as desired.
    pub equal: usize,
}

impl Plan {
    /// Each database of the plan, in order of their names.
    pub fn entries(&self, desired: &Desired, drift: &Drift, live: &Observed) -> Vec<Entry> {
        let databases: BTreeSet<&DatabaseRef> =
            desired.targets.keys().chain(&self.released).chain(self.held.keys()).collect();
        databases.into_iter().map(|d| self.entry(d, desired, drift, live)).collect()
    }

    fn entry(
        &self,
        database: &DatabaseRef,
        desired: &Desired,
        drift: &Drift,
        live: &Observed,
    ) -> Entry {
        let present = match live.get(database) {
            Some(Live::Present(present)) => Some(&**present),
            Some(Live::Absent | Live::Unknown(_)) | None => None,
        };
        let document = desired.document(database);
        let difference = drift.targets.get(database);
        let mut entry = Entry {
            database: database.to_string(),
            about: about(desired.targets.get(database).and_then(|t| t.file()), present),
            foreign: present.is_some_and(|present| present.foreign),
            changes: difference.map(|d| d.changes.clone()).unwrap_or_default(),
            ..Entry::default()
        };
        let warnings = difference.map(|d| d.problems.as_slice()).unwrap_or_default();
        let warnings = warnings.iter().filter(|problem| !problem.is_refusal());
        entry.warnings = warnings.map(Problem::to_string).collect();
        entry.warnings.extend(difference.iter().flat_map(|d| d.remarks.iter().cloned()));
        if let (Some(difference), Some(document), Some(present)) = (difference, document, present)
            && !difference.changes.is_empty()
            && difference.restarts(document, present)
        {
            entry.restarts = present.nodes;
            let needed = difference.changes.iter().any(Change::restarts);
            entry.at_most = !needed && document.restart == Restart::Auto;
            entry.order = order(&difference.changes, present).filter(|_| !present.foreign);
            let pending = difference.pending.iter();
            let line = |(name, nodes): (&Name, &Vec<String>)| {
                format!("{name} on {} (pending)", nodes.join(", "))
            };
            entry.also = pending.map(line).collect();
        }
        if let Some(emission) = self.emissions.iter().find(|e| e.database == *database) {
            entry.verdict = "change";
            entry.request = Some(request_line(&emission.request));
        } else if let Some(held) = self.held.get(database) {
            entry.verdict = if matches!(held, Held::Refused(_)) { "refused" } else { "held" };
            entry.reason = Some(held.text());
            entry.lift = Some(held.lift(database));
        } else if let Some(request) = self.running.get(database) {
            entry.verdict = "running";
            entry.reason = Some(format!("request {request} is open"));
        } else if self.released.contains(database) {
            entry.verdict = "released";
        } else {
            entry.verdict = "equal";
            entry.changes.clear();
            entry.also.clear();
        }
        entry
    }
}

impl Sums {
    /// Adds up.
    pub fn of(entries: &[Entry]) -> Self {
        let mut sums = Self { databases: entries.len(), ..Self::default() };
        for entry in entries {
            match entry.verdict {
                "change" => {
                    sums.change += 1;
                    sums.restarts += entry.restarts;
                }
                "held" => sums.held += 1,
                "refused" => sums.refused += 1,
                "running" => sums.running += 1,
                _ => sums.equal += 1,
            }
        }
        sums
    }

    /// One line.
    pub fn line(&self) -> String {
        let Self { databases, change, restarts, held, refused, running, equal } = self;
        let plural = if *databases == 1 { "" } else { "s" };
        format!(
            "{databases} database{plural}: {change} to change ({restarts} restarts), \
             {held} held, {refused} refused, {running} running, {equal} equal"
        )
    }
}

impl Entry {
    /// The lines that a person reads.
    pub fn lines(&self) -> Vec<String> {
        let about =
            if self.about.is_empty() { String::new() } else { format!(" ({})", self.about) };
        let mut lines = vec![format!("{}{about}: {}", self.database, self.verdict)];
        lines.extend(self.changes.iter().map(|change| format!("  {}", change.line())));
        let mut say = |what: &str, text: &str| lines.push(format!("  {what}: {text}"));
        if let Some(request) = &self.request {
            say("sends", request);
        }
        if self.verdict == "change" || (self.verdict == "held" && !self.changes.is_empty()) {
            match (self.restarts, self.order) {
                (0, _) if self.foreign => say("costs", "no restart; the document forbids it"),
                (number, _) if self.at_most => {
                    let most = format!("at most {number} restarts, as KubeDB decides");
                    say("costs", &format!("{most}; each cuts connections"));
                }
                (0, _) => say("costs", "a reload; no connection is cut"),
                (number, order) => {
                    let order = order.map(|order| format!(", {order}")).unwrap_or_default();
                    let restarts = if number == 1 { "restart" } else { "restarts" };
                    say("costs", &format!("{number} {restarts}{order}; each cuts connections"));
                    if !self.also.is_empty() {
                        say("a restart also brings into effect", &self.also.join("; "));
                    }
                }
            }
        }
        if self.verdict == "change" {
            let back = match self.foreign {
                true => "the request ends Failed; KubeDB does not promise to take the values back",
                false => "every node goes back to its last good set; the request ends Failed",
            };
            say("if it fails", back);
        }
        if let Some(reason) = &self.reason {
            say("because", reason);
        }
        if let Some(lift) = &self.lift {
            say("to go on", lift);
        }
        for warning in &self.warnings {
            say("warning", warning);
        }
        lines
    }
}

fn about(file: Option<&str>, present: Option<&Present>) -> String {
    let mut parts: Vec<String> = file.map(str::to_owned).into_iter().collect();
    if let Some(present) = present {
        let nodes = if present.nodes == 1 { "node" } else { "nodes" };
        parts.push(present.server_version());
        parts.push(format!("{} {nodes}", present.nodes));
    }
    parts.join(", ")
}

/// What a request says, in one line; sensitive values are hidden.
fn request_line(request: &PostgresOpsRequest) -> String {
    let Some(configuration) = &request.spec.configuration else { return String::new() };
    let mut parts = vec![request.request_name().to_string()];
    if configuration.removes() {
        parts.push("removeCustomConfig".to_owned());
    }
    if let Some(secret) = &configuration.config_secret {
        parts.push(format!("configSecret={}", secret.name));
    }
    if configuration.tuning.is_some() {
        parts.push("tuning as it is".to_owned());
    }
    let settings = crate::pgconf::Settings::parse(configuration.settings()).unwrap_or_default();
    if !settings.is_empty() {
        let shown =
            |(name, value): (&Name, &Value)| format!("{name} = '{}'", tiers::shown(name, value));
        let all: Vec<String> = settings.iter().map(shown).collect();
        parts.push(format!("applyConfig: {}", all.join(", ")));
    }
    parts.join(" ")
}

/// The order of restarts, from the five parameters that a standby must not have lower.
fn order(changes: &[Change], present: &Present) -> Option<&'static str> {
    if present.nodes == 1 {
        return None;
    }
    let catalogue = present.catalogue()?;
    let (mut up, mut down) = (false, false);
    for change in changes.iter().filter(|c| tiers::tier(&c.name) == Tier::Ordered) {
        let number = |text: &str| base(catalogue, &change.name, text);
        let (before, after) = (number(&change.before), number(&change.after));
        up |= after > before;
        down |= after < before;
    }
    Some(match (up, down) {
        (true, true) => "standbys, then the primary, then the standbys again",
        (false, true) => "primary first",
        (true | false, false) => "standbys first, primary last",
    })
}

fn base(catalogue: &Catalogue, name: &str, text: &str) -> Option<i64> {
    let value = Value::new(text).ok()?;
    catalogue.normalise(name, &value).ok()?.text.parse().ok()
}
