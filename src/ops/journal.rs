//! What ops must remember across a crash: what was before, what is to be, and a turn back.
//!
//! Kept in the Secret [`ChildNames::previous_config`](crate::api::names::ChildNames), because it
//! holds values of parameters. Written once before the first effect on the database and amended
//! only by what cannot be observed again: the decision to roll back, and the place in the log
//! where the primary's lower values begin. Everything else is derived from what is seen.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::api::names::Sequence;
use crate::api::postgres::Tuning;
use crate::instance::protocol::Lsn;
use crate::pgconf::Settings;

/// Key of the journal in its Secret.
pub const KEY: &str = "journal.json";

/// The custom configuration of a database, as its object holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Custom {
    /// `spec.configuration.secretName` (or the old `spec.configSecret.name`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_name: Option<String>,
    /// `spec.configuration.inline["user.conf"]`, empty when there is none.
    #[serde(default)]
    pub inline: String,
    /// `spec.configuration.tuning`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuning: Option<Tuning>,
}

/// One side of a rollout.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Side {
    /// What the object says.
    pub custom: Custom,
    /// The effective file. Fixed here, so that an edit of the owner's Secret in mid-rollout
    /// changes nothing of what is carried out.
    pub file: String,
}

impl Side {
    /// The effective file, parsed. We rendered it, so that it always parses.
    pub fn settings(&self) -> Settings {
        Settings::parse(&self.file).unwrap_or_default()
    }
}

/// A rollout's memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Journal {
    /// Name of the request.
    pub request: String,
    /// UID of the request.
    pub uid: String,
    /// When the rollout began to have effects.
    pub began: Timestamp,
    /// The highest sequence number on any node before: what is above it is this rollout's.
    pub base: Sequence,
    /// The primary before, if there was exactly one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
    /// The nodes there were. One that joins later is taken along once it answers, and is not
    /// waited for: provisioning waits for us.
    #[serde(default)]
    pub nodes: BTreeSet<String>,
    /// What was in force.
    pub before: Side,
    /// What was asked for.
    pub after: Side,
    /// Names of the parameters that the request is about, lower case: only these make a restart
    /// necessary, and only these are waited for.
    pub involved: BTreeSet<String>,
    /// Whether and when servers are restarted.
    pub restart: Restarts,
    /// Where the primary's lower values begin in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lowered: Option<Lsn>,
    /// The decision to go back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<RollBack>,
}

/// Whether servers are restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Restarts {
    /// Where a parameter that the request is about needs it.
    Needed,
    /// Every node, once.
    All,
    /// Not at all.
    Never,
}

/// The decision to go back to what was before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RollBack {
    /// Why, in the server's words where it has any; never a sensitive value.
    pub words: String,
    /// When.
    pub at: Timestamp,
    /// The highest sequence number on any node at that time.
    pub base: Sequence,
}

impl Journal {
    /// The side that is to be in force in the end, as things stand.
    pub fn target(&self) -> &Side {
        if self.rollback.is_some() { &self.before } else { &self.after }
    }

    /// The side that is being left.
    pub fn origin(&self) -> &Side {
        if self.rollback.is_some() { &self.after } else { &self.before }
    }

    /// Sets above this number were sent by the present phase.
    pub fn phase_base(&self) -> Sequence {
        self.rollback.as_ref().map_or(self.base, |rollback| rollback.base)
    }

    /// The text kept in the Secret.
    pub fn render(&self) -> String {
        // A struct of strings, numbers and sets always serialises.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads what [`Journal::render`] wrote.
    ///
    /// # Errors
    /// When it is something else: then nobody knows what to go back to, and a person must look.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_survives_its_secret() {
        let side = |inline: &str| Side {
            custom: Custom {
                secret_name: Some("c".into()),
                inline: inline.into(),
                tuning: Some(Tuning { profile: Some("oltp".into()), ..Tuning::default() }),
            },
            file: inline.into(),
        };
        let mut journal = Journal {
            request: "r".into(),
            uid: "u".into(),
            began: Timestamp::UNIX_EPOCH,
            base: Sequence(7),
            primary: Some("db-0".into()),
            nodes: ["db-0".to_owned()].into(),
            before: side("work_mem = '4MB'\n"),
            after: side("work_mem = '8MB'\n"),
            involved: ["work_mem".to_owned()].into(),
            restart: Restarts::Needed,
            lowered: Some(Lsn(17)),
            rollback: None,
        };
        assert_eq!(Journal::parse(&journal.render()).unwrap(), journal);
        assert_eq!(journal.target().settings().value_of("work_mem"), Some("8MB"));
        let rollback = RollBack { words: "w".into(), at: Timestamp::MAX, base: Sequence(9) };
        journal.rollback = Some(rollback);
        assert_eq!(journal.target().settings().value_of("work_mem"), Some("4MB"));
        assert_eq!(journal.phase_base(), Sequence(9));
        assert!(Journal::parse("{}").is_err());
    }
}
