//! What an instance finds out by trying: a dry run of a file, and the proof of what is in force.
//!
//! The instance reports; whether a proof is good enough is decided by the caller.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{HotStandby, Lsn, WalReceiver};
use crate::pgconf::suggest::clip;
use crate::pgconf::tiers::HIDDEN;

/// Would this server start with this file? Changes nothing, needs no fence.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DryRun {
    /// The file; `None`: what is on disk now.
    pub text: Option<String>,
    /// Also allocate the shared memory (`postgres --check`, 30 to 60 ms): worth it when
    /// `shared_buffers`, `huge_pages` or `max_connections` change.
    pub allocate: bool,
    /// Also start a scratch server and connect to it (about 250 ms): worth it when a preload
    /// library, a file path or a logging target changes.
    pub boot: bool,
    /// How long all of it may take, in milliseconds.
    pub deadline_ms: u64,
}

/// Answer to [`DryRun`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DryRan {
    /// Whether a start would succeed.
    pub accepted: bool,
    /// The server's own words where it would not; sensitive values masked, capped.
    pub words: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// Asks for a snapshot of `pg_settings`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AskSettings {
    /// Names without case; empty: all.
    pub names: Vec<String>,
}

/// A snapshot of `pg_settings` as a new session sees it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Settings {
    /// By lower-cased name. A name that the server does not know is missing.
    pub settings: BTreeMap<String, Setting>,
    /// What ALTER ROLE and ALTER DATABASE set of the names asked for, at most
    /// [`MOST_ROLE_SETTINGS`].
    #[serde(default)]
    pub role_settings: Vec<RoleSetting>,
    /// Whether there are more of them.
    #[serde(default)]
    pub more_role_settings: bool,
}

/// How many settings of roles and databases one answer holds.
pub const MOST_ROLE_SETTINGS: usize = 100;

/// One row of `pg_settings`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Name as the server spells it.
    pub name: String,
    /// The value as text in the server's base unit; not what a session has set for itself.
    pub reset_val: Option<String>,
    /// The built-in default.
    pub boot_val: Option<String>,
    /// Base unit, e.g. `8kB`.
    pub unit: Option<String>,
    /// `postmaster`, `sighup`, `user`, …
    pub context: String,
    /// `bool`, `integer`, `real`, `string`, `enum`.
    pub vartype: String,
    /// `configuration file`, `default`, `command line`, …
    pub source: String,
    /// File that set it.
    pub sourcefile: Option<String>,
    /// Line in that file.
    pub sourceline: Option<i32>,
    /// The server's own flag; it can stick and it can miss (see the reference).
    pub pending_restart: bool,
}

impl Setting {
    /// Whether ALTER SYSTEM set it, which is stronger than every file of ours.
    #[must_use]
    pub fn is_from_alter_system(&self) -> bool {
        self.sourcefile.as_ref().is_some_and(|file| file.ends_with("postgresql.auto.conf"))
    }
}

/// An entry of a configuration file that the server rejects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileError {
    /// File.
    pub file: String,
    /// Line; `None` where the server names none.
    pub line: Option<i32>,
    /// Parameter; `None` for a syntax error.
    pub name: Option<String>,
    /// The server's words.
    pub error: String,
}

/// Proves what is in force on this node, on new connections.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Prove {
    /// Parameters to look at, with the value wanted in the server's base unit.
    pub expected: BTreeMap<String, String>,
    /// Also commit a tiny write that reaches the WAL (primary only).
    pub write: bool,
    /// How long all of it may take, in milliseconds.
    pub deadline_ms: u64,
}

/// Answer to [`Prove`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Proof {
    /// `pgitops.revision` of a new session.
    pub revision: Option<String>,
    /// Full path of the file that our settings must come from.
    pub file: String,
    /// `pg_conf_load_time()`.
    pub loaded_at: jiff::Timestamp,
    /// `pg_postmaster_start_time()`.
    pub started_at: jiff::Timestamp,
    /// By name as it was asked.
    pub parameters: BTreeMap<String, ParameterProof>,
    /// Rows of `pg_file_settings` with an error.
    pub file_errors: Vec<FileError>,
    /// Names asked for that ALTER SYSTEM overrides (`postgresql.auto.conf`), with their value.
    pub auto_conf: BTreeMap<String, String>,
    /// Names asked for that ALTER ROLE or ALTER DATABASE overrides.
    pub role_overrides: Vec<RoleSetting>,
    /// `pg_is_in_recovery()`.
    pub in_recovery: bool,
    /// What went wrong when a second new session was opened; `None`: it works.
    pub connection_error: Option<String>,
    /// The write; `None`: not asked for, or a standby.
    pub write: Option<Written>,
    /// Streaming on a standby.
    pub receiver: Option<WalReceiver>,
    /// Replay on a standby is paused (or asked to be).
    pub replay_paused: bool,
    /// Replayed up to here, on a standby.
    pub replay: Option<Lsn>,
    /// Would the next, unplanned start succeed?
    pub next_start: DryRan,
    /// The five as `pg_controldata` has them: a standby's settings must not be lower.
    pub control: HotStandby,
    /// The five as they are in force.
    pub hot_standby: HotStandby,
}

/// One parameter of a [`Proof`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParameterProof {
    /// What was asked for.
    pub expected: String,
    /// What is in force; `None`: no such parameter (or a placeholder that is not set).
    pub setting: Option<Setting>,
    /// `reset_val` is `expected`, letter by letter.
    pub equal: bool,
}

/// A setting of a role, a database, or a role in a database (a row of `pg_db_role_setting`): their
/// new sessions begin with it, whatever the files say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RoleSetting {
    /// Parameter.
    pub name: String,
    /// Role; `None`: all.
    pub role: Option<String>,
    /// Database; `None`: all.
    pub database: Option<String>,
    /// Value there; `None`: it is sensitive and stays on the server.
    pub value: Option<String>,
}

impl RoleSetting {
    /// `work_mem is 42MB for role app in database shop (ALTER ROLE)`. Whoever may alter a role
    /// chooses these words, so they are kept on one line and short.
    #[must_use]
    pub fn line(&self) -> String {
        let (name, value) = (clip(&self.name), clip(self.value.as_deref().unwrap_or(HIDDEN)));
        match (self.role.as_deref().map(clip), self.database.as_deref().map(clip)) {
            (Some(role), Some(database)) => {
                format!("{name} is {value} for role {role} in database {database} (ALTER ROLE)")
            }
            (Some(role), None) => format!("{name} is {value} for role {role} (ALTER ROLE)"),
            (None, Some(database)) => {
                format!("{name} is {value} for database {database} (ALTER DATABASE)")
            }
            (None, None) => format!("{name} is {value} for every role (ALTER ROLE ALL)"),
        }
    }
}

/// A proving write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum Written {
    /// Committed, synchronously where the server is set up so.
    Committed {
        /// How long it took, in milliseconds.
        took_ms: u64,
    },
    /// Not committed.
    Failed {
        /// The server's own words.
        words: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_of_a_role_reads_as_the_command_that_made_it() {
        let check =
            |role: Option<&str>, database: Option<&str>, value: Option<&str>, line: &str| {
                let own = |text: Option<&str>| text.map(str::to_owned);
                let (role, database, value) = (own(role), own(database), own(value));
                let setting = RoleSetting { name: "work_mem".to_owned(), role, database, value };
                assert_eq!(setting.line(), line);
            };
        let (app, shop, value) = (Some("app"), Some("shop"), Some("42MB"));
        let both = "work_mem is 42MB for role app in database shop (ALTER ROLE)";
        check(app, shop, value, both);
        check(app, None, value, "work_mem is 42MB for role app (ALTER ROLE)");
        check(None, shop, value, "work_mem is 42MB for database shop (ALTER DATABASE)");
        check(None, None, value, "work_mem is 42MB for every role (ALTER ROLE ALL)");
        check(app, None, None, "work_mem is (hidden) for role app (ALTER ROLE)");
        check(Some("a\nb"), None, value, "work_mem is 42MB for role a b (ALTER ROLE)");
    }

    #[test]
    fn an_instance_of_an_older_version_is_understood() {
        let older: Settings = serde_json::from_str(r#"{"settings": {}}"#).unwrap();
        assert!(older.role_settings.is_empty() && !older.more_role_settings);
    }
}
