//! A namespace in a line for each repository and each database, as printed by `-o json`.
//!
//! Repositories as their own status has them, databases as a plan made now would treat them. No
//! server is asked. Pure: leaves reading to `read.rs`, layout to `text.rs`, one database's
//! parameters to `sheet.rs`.

use serde::Serialize;

use super::sheet::{Judgement, applied, last_request};
use crate::api::conditions;
use crate::api::config_repository::{ConfigRepository, condition};
use crate::api::names::DatabaseRef;
use crate::sync::live::Live;
use crate::sync::plan::Entry;

/// A namespace.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    /// The judgement on all of it; servers are not asked whether they would start.
    pub result: Judgement,
    /// Its repositories.
    pub repositories: Vec<RepositoryLine>,
    /// The databases that they name or hold, and those that nobody names.
    pub databases: Vec<Line>,
    /// What could not be found out.
    pub unknown: Vec<String>,
}

/// One repository, as its own status has it.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryLine {
    /// `namespace/name`.
    pub repository: String,
    /// Newest commit seen, abbreviated.
    pub head: Option<String>,
    /// Newest commit that passed the history guard, abbreviated.
    pub accepted: Option<String>,
    /// `Ready`, `Stalled`, `Reconciling` or `Unknown`.
    pub state: String,
    /// The message of that condition.
    pub message: Option<String>,
    /// Whether its notes were pushed; none before the first.
    pub notes_published: Option<bool>,
}

impl RepositoryLine {
    /// From its status.
    pub fn of(repository: &ConfigRepository) -> Self {
        let status = repository.status.clone().unwrap_or_default();
        let order = [condition::STALLED, condition::READY, condition::RECONCILING];
        let state = order.into_iter().find(|kind| conditions::is_true(&status.conditions, kind));
        // What is not Ready says why in that very condition.
        let telling = conditions::find(&status.conditions, state.unwrap_or(condition::READY));
        let short = |id: Option<String>| id.map(|id| id.chars().take(7).collect());
        Self {
            repository: repository.repository().to_string(),
            head: short(status.head),
            accepted: short(status.accepted),
            state: state.unwrap_or("Unknown").to_owned(),
            message: telling.map(|condition| condition.message.clone()),
            notes_published: conditions::find(&status.conditions, condition::NOTES_PUBLISHED)
                .map(|condition| condition.is_true()),
        }
    }
}

/// One database in a line.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// `namespace/name`.
    pub database: String,
    /// The document's file.
    pub file: Option<String>,
    /// As in a sheet; `by hand` when no repository speaks of it, `unknown`, `absent`.
    pub verdict: String,
    /// The phase.
    pub phase: Option<String>,
    /// The commit that was proven last, abbreviated.
    pub applied: Option<String>,
    /// `name phase` of the newest request.
    pub last_request: Option<String>,
    /// What differs, or why it is held.
    pub why: Option<String>,
}

impl Line {
    /// Judges one database.
    pub fn of(
        database: &DatabaseRef,
        live: &Live,
        file: Option<&str>,
        entry: Option<&Entry>,
        stalled: Option<&str>,
    ) -> Self {
        let mut line = Self {
            database: database.to_string(),
            file: file.map(str::to_owned),
            ..Self::default()
        };
        let changes = entry.map(|entry| entry.changes.as_slice()).unwrap_or_default();
        let names: Vec<&str> = changes.iter().map(|change| change.name.as_str()).collect();
        let reason = entry.and_then(|entry| entry.reason.clone());
        line.why = stalled.map(str::to_owned).or(reason);
        if line.why.is_none() && !names.is_empty() {
            line.why = Some(format!("differs: {}", names.join(", ")));
        }
        line.verdict = entry.map_or("by hand", |entry| entry.verdict).to_owned();
        match live {
            Live::Present(present) => {
                line.phase = present.phase.map(|phase| format!("{phase:?}"));
                line.applied = applied(present);
                line.last_request = last_request(present);
            }
            Live::Absent => line.verdict = "absent".to_owned(),
            Live::Unknown(why) => {
                line.verdict = "unknown".to_owned();
                line.why = Some(why.clone());
            }
        }
        line
    }

    fn judge(&self) -> Judgement {
        match self.verdict.as_str() {
            "unknown" => Judgement::Unknown,
            "equal" | "by hand" if self.phase.as_deref() == Some("Ready") => Judgement::AsDesired,
            _ => Judgement::Differs,
        }
    }
}

impl Overview {
    /// Adds the judgement.
    pub fn finish(mut self) -> Self {
        let stalled = self.repositories.iter().any(|line| line.state != condition::READY);
        let databases = self.databases.iter().map(Line::judge).max().unwrap_or_default();
        let own = if stalled { Judgement::Differs } else { Judgement::AsDesired };
        let unknown = if self.unknown.is_empty() { own } else { Judgement::Unknown };
        self.result = databases.max(unknown);
        self
    }
}
