//! `ConfigRepository` (pgitops.dev/v1alpha1): a git repository that says how databases are to be
//! configured, and how far that has come.
//!
//! Leaves reading it to `git` and acting on it to `sync`. The status is at most 32 KiB: lists in
//! it have limits.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::conditions::{Condition, Conditioned};
use super::duration::Length;
use super::names::RepositoryRef;
use super::postgres::SecretRef;

/// Where desired configurations are kept, and how to follow them.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "pgitops.dev",
    version = "v1alpha1",
    kind = "ConfigRepository",
    plural = "configrepositories",
    shortname = "pgrepo",
    category = "pgitops",
    namespaced,
    status = "ConfigRepositoryStatus",
    doc = "A git repository of desired Postgres configurations.",
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.url", priority = 1),
    printcolumn(name = "Applied", type_ = "string", json_path = ".status.appliedShort"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ConfigRepositorySpec {
    /// `file:///path` or a local path (both only where the controller allows it), `https://` or
    /// `ssh://`.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// The branch or full ref to follow. `main` when absent.
    #[serde(default = "main_branch", rename = "ref")]
    #[schemars(length(min = 1, max = 255))]
    pub reference: String,
    /// Folder below which documents are read. `.` (everything) when absent.
    #[serde(default = "whole_tree")]
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// How often to look when nothing says to. 1m when absent; at least 1s.
    #[serde(default = "one_minute")]
    pub interval: Length,
    /// Total deadline of one git operation. 1m when absent.
    #[serde(default = "one_minute")]
    pub timeout: Length,
    /// Credentials of the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
    /// Which signatures commits must carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
    /// Stops emitting requests; a running one finishes.
    #[serde(default)]
    pub suspend: bool,
    /// Plans and reports, but emits no request.
    #[serde(default)]
    pub plan_only: bool,
    /// Where results are written.
    #[serde(default)]
    pub notes: Notes,
    /// What is done about values that somebody else changed.
    #[serde(default)]
    pub drift: DriftPolicy,
}

fn main_branch() -> String {
    "main".to_owned()
}
fn whole_tree() -> String {
    ".".to_owned()
}
fn one_minute() -> Length {
    Length::seconds(60)
}

/// Which signatures commits must carry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verify {
    /// The Secret or ConfigMap with the allowed keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
}

/// Where results are written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Notes {
    /// Last part of the refs `refs/notes/pgitops/<instance>` (for people) and
    /// `refs/notes/pgitops-data/<instance>` (for machines); one writer each.
    #[serde(default = "default_instance")]
    #[schemars(regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"), length(max = 63))]
    pub instance: String,
    /// Whether notes are pushed at all (a read-only credential sets this to false).
    #[serde(default = "yes")]
    pub push: bool,
}

fn default_instance() -> String {
    "default".to_owned()
}
fn yes() -> bool {
    true
}

impl Default for Notes {
    fn default() -> Self {
        Self { instance: default_instance(), push: true }
    }
}

/// What is done about values that somebody else changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DriftPolicy {
    /// What is ours and needs only a reload is corrected; what needs a restart is held.
    #[default]
    Enforce,
    /// What needs a restart is corrected too, within windows.
    EnforceWithRestart,
    /// Drift is reported only.
    Warn,
}

/// What is observed of a repository and of its databases.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigRepositoryStatus {
    /// The generation that was acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The commit that was the head at first sight, and stands for all before it: no older commit
    /// is looked at or gets a note.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
    /// Newest commit seen at the ref.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    /// Newest commit that passed the history guard: what is desired comes from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<String>,
    /// Newest commit whose every database is applied or released.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<String>,
    /// Abbreviated `applied`, for the printer column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_short: Option<String>,
    /// Newest commit whose note was published with a final verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub noted: Option<String>,
    /// Number of databases by outcome (`applied`, `progressing`, `held`, `refused`, `failed`,
    /// `waiting`).
    #[serde(default)]
    pub counts: BTreeMap<String, i64>,
    /// What cannot be read or is refused, at most 20; `problemCount` says how many there are.
    #[serde(default)]
    pub problems: Vec<String>,
    /// Number of problems.
    #[serde(default)]
    pub problem_count: i64,
    /// Databases that are not applied, at most 50: `namespace/name: reason`.
    #[serde(default)]
    pub held: Vec<String>,
    /// The last 10 rollouts, newest first.
    #[serde(default)]
    pub rollouts: Vec<Rollout>,
    /// When a closed window opens next (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_window: Option<String>,
    /// The value of the annotation `pgitops.dev/requestedAt` that was acted on last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_request: Option<String>,
    /// `Ready`, `Reconciling`, `Stalled`, `NotesPublished` by kstatus rules.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// One rollout that ended or runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rollout {
    /// `namespace/name` of the database.
    pub database: String,
    /// Name of the request.
    pub request: String,
    /// The commit that asked for it.
    pub commit: String,
    /// The request's phase.
    pub phase: String,
    /// When it began and ended (RFC 3339), the end absent while it runs.
    pub started: String,
    /// See `started`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<String>,
}

/// Types of conditions on a `ConfigRepository`.
pub mod condition {
    /// Everything that the accepted commit asks for is applied.
    pub const READY: &str = super::super::conditions::READY;
    /// Work goes on.
    pub const RECONCILING: &str = super::super::conditions::RECONCILING;
    /// Nothing will change by itself; the message says what to do.
    pub const STALLED: &str = super::super::conditions::STALLED;
    /// The notes were pushed.
    pub const NOTES_PUBLISHED: &str = "NotesPublished";
    /// Some field of the spec is known but does nothing yet.
    pub const FIELDS_NOT_ACTED_ON: &str = "FieldsNotActedOn";
}

impl ConfigRepository {
    /// Namespace and name.
    pub fn repository(&self) -> RepositoryRef {
        RepositoryRef {
            namespace: self.metadata.namespace.clone().unwrap_or_default(),
            name: self.metadata.name.clone().unwrap_or_default(),
        }
    }

    /// UID; empty only for an object that was never stored.
    pub fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    /// An annotation's value.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.metadata.annotations.as_ref().and_then(|map| map.get(name)).map(String::as_str)
    }
}

impl Conditioned for ConfigRepository {
    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| &status.conditions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_all_that_is_needed() {
        let spec: ConfigRepositorySpec = serde_yaml::from_str("url: /srv/config.git").unwrap();
        assert_eq!((spec.reference.as_str(), spec.path.as_str()), ("main", "."));
        assert_eq!(spec.interval, Length::seconds(60));
        assert_eq!(spec.notes.instance, "default");
        assert_eq!(spec.drift, DriftPolicy::Enforce);
    }
}
