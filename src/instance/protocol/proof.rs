//! What an instance finds out by trying: a dry run of a file, and the proof of what is in force.
//!
//! The instance reports; whether a proof is good enough is decided by the caller.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{HotStandby, Lsn, WalReceiver};

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
}

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
    pub role_overrides: Vec<RoleOverride>,
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

/// A setting of a role, a database, or a role in a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleOverride {
    /// Parameter.
    pub name: String,
    /// Value there.
    pub value: String,
    /// Role; `None`: all.
    pub role: Option<String>,
    /// Database; `None`: all.
    pub database: Option<String>,
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
