//! What an instance says about itself and its server: cheap, read afresh at every call.
//!
//! Facts come from four places: the instance's own state, the supervisor, `pg_controldata`, and
//! SQL on the running server. What could not be read is `None`, never a made-up value.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{AskSettings, SetId, Settings};

/// Asks for [`Facts`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AskFacts {
    /// Settings to be read in the same session, so that both are of one moment.
    #[serde(default)]
    pub settings: Option<AskSettings>,
}

/// Asks for the [`Timeline`]: the one call that another instance may make, too.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct AskTimeline {
    /// Address at which the asking instance may be asked in turn. Whoever is asked remembers it,
    /// so that a primary knows its standbys when it comes back after an absence.
    #[serde(default)]
    pub from: Option<String>,
}

/// Which history a data folder belongs to; from `pg_controldata`, so also while stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// Name of the pod.
    pub pod: String,
    /// `None`: no data.
    pub system_identifier: Option<u64>,
    /// The highest timeline known there; 0: no data.
    pub timeline: u32,
}

/// Everything an instance knows without trying anything out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Facts {
    /// [`super::VERSION`] of the instance.
    pub protocol: u32,
    /// Name of the pod.
    pub pod: String,
    /// The server's program, running or not; `None` when it could not be asked.
    pub version: Option<ServerVersion>,
    /// What the supervisor sees.
    pub state: ServerState,
    /// The last role this data folder had; `None` while it is empty.
    pub role: Option<Role>,
    /// Highest lease transitions seen.
    pub fence_seen: u64,
    /// The change under way.
    pub working_on: Option<WorkingOn>,
    /// Stored configuration sets.
    pub sets: Sets,
    /// How the last start that did not go as wanted ended.
    pub last_fallback: Option<Fallback>,
    /// `pg_controldata`; `None` while the data folder is empty.
    pub control: Option<ControlData>,
    /// What SQL says; `None` unless the server runs and answered.
    pub live: Option<Live>,
    /// Why `live` is missing although the server runs.
    pub live_error: Option<String>,
    /// What was asked for of the settings; `None` as `live`, or when nothing was.
    #[serde(default)]
    pub settings: Option<Settings>,
    /// The container's memory limit in bytes.
    pub memory_limit: Option<u64>,
}

/// The version of the server's program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerVersion {
    /// As `server_version_num`, e.g. 150018.
    pub number: u32,
    /// As `server_version`, e.g. `15.18`.
    pub text: String,
}

impl ServerVersion {
    /// Major version, e.g. 15.
    #[must_use]
    pub fn major(&self) -> u32 {
        self.number / 10_000
    }
}

/// What the supervisor sees of its server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum ServerState {
    /// No database in the data folder; waits to be told `initialise` or `join`.
    Empty,
    /// `initialise` or `join` is filling the data folder.
    Filling,
    /// Not running on purpose (the instance shuts down, or a restart is between stop and start).
    Stopped,
    /// The process runs and does not accept connections yet.
    Starting,
    /// Accepts connections.
    Running,
    /// Does not start; tried again with growing pauses.
    Failed {
        /// The server's own words.
        words: String,
    },
    /// A former primary that saw a peer on a higher timeline; stays down.
    Fenced {
        /// Which peer.
        peer: String,
        /// The peer's timeline.
        timeline: u32,
    },
}

impl fmt::Display for ServerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "no data yet"),
            Self::Filling => write!(f, "data folder is being filled"),
            Self::Stopped => write!(f, "stopped"),
            Self::Starting => write!(f, "starting"),
            Self::Running => write!(f, "running"),
            Self::Failed { words } => write!(f, "does not start: {words}"),
            Self::Fenced { peer, timeline } => {
                write!(f, "fenced: {peer} is on timeline {timeline}")
            }
        }
    }
}

/// The role a data folder has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum Role {
    /// Takes writes.
    Primary,
    /// Streams from one of these.
    Standby {
        /// Names and addresses, tried in this order.
        primary_hosts: Vec<String>,
        /// The primary's port.
        primary_port: u16,
    },
}

impl Role {
    /// `primary` or `standby`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Standby { .. } => "standby",
        }
    }
}

/// A change under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkingOn {
    /// Path of the call.
    pub call: String,
    /// Its request.
    pub request: String,
    /// Its step.
    pub step: String,
}

/// The configuration sets on the data volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sets {
    /// Loaded by the running server (or by the last one that ran).
    pub running: Option<SetId>,
    /// On disk for the next start, where that is not `running`.
    pub staged: Option<SetId>,
    /// The set of the last start that accepted connections.
    pub last_started: Option<SetId>,
}

/// A start that did not go as wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fallback {
    /// When.
    pub at: jiff::Timestamp,
    /// The set that did not start.
    pub failed: SetId,
    /// The set that runs instead; `None`: nothing runs.
    pub now: Option<SetId>,
    /// The server's own words.
    pub words: String,
}

/// A place in the write-ahead log. Written `0/3000060`, ordered by position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> Self {
        lsn.to_string()
    }
}

impl FromStr for Lsn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || format!("not a place in the write-ahead log: {text:?}");
        let (high, low) = text.trim().split_once('/').ok_or_else(bad)?;
        let high = u32::from_str_radix(high, 16).map_err(|_| bad())?;
        let low = u32::from_str_radix(low, 16).map_err(|_| bad())?;
        Ok(Self(u64::from(high) << 32 | u64::from(low)))
    }
}

impl TryFrom<String> for Lsn {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// The five parameters of which a standby must have at least the primary's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HotStandby {
    /// `max_connections`.
    pub max_connections: i64,
    /// `max_worker_processes`.
    pub max_worker_processes: i64,
    /// `max_wal_senders`.
    pub max_wal_senders: i64,
    /// `max_prepared_transactions` (`max_prepared_xacts` in `pg_controldata`).
    pub max_prepared_transactions: i64,
    /// `max_locks_per_transaction` (`max_locks_per_xact` in `pg_controldata`).
    pub max_locks_per_transaction: i64,
}

impl HotStandby {
    /// The values by parameter name.
    #[must_use]
    pub fn by_name(&self) -> BTreeMap<&'static str, i64> {
        BTreeMap::from([
            ("max_connections", self.max_connections),
            ("max_worker_processes", self.max_worker_processes),
            ("max_wal_senders", self.max_wal_senders),
            ("max_prepared_transactions", self.max_prepared_transactions),
            ("max_locks_per_transaction", self.max_locks_per_transaction),
        ])
    }
}

/// What `pg_controldata` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlData {
    /// `Database cluster state`, e.g. `in production`, `shut down`, `in archive recovery`.
    pub cluster_state: String,
    /// `Database system identifier`.
    pub system_identifier: u64,
    /// `Latest checkpoint location`.
    pub checkpoint: Lsn,
    /// `Latest checkpoint's REDO location`.
    pub redo: Lsn,
    /// `Latest checkpoint's TimeLineID`.
    pub timeline: u32,
    /// `Minimum recovery ending location`; 0/0 on a primary.
    pub minimum_recovery: Lsn,
    /// `Min recovery ending loc's timeline`; 0 on a primary.
    pub minimum_recovery_timeline: u32,
    /// `wal_level setting`.
    pub wal_level: String,
    /// The values of the five as last replayed or started with.
    pub hot_standby: HotStandby,
}

/// What SQL on the running server says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Live {
    /// As `server_version_num`; may differ from the program on disk.
    pub version_number: u32,
    /// `pg_is_in_recovery()`.
    pub in_recovery: bool,
    /// From `pg_control_system()`.
    pub system_identifier: u64,
    /// The timeline written or received now.
    pub timeline: u32,
    /// `pg_postmaster_start_time()`.
    pub started_at: jiff::Timestamp,
    /// `pg_conf_load_time()`.
    pub loaded_at: jiff::Timestamp,
    /// `pgitops.revision` of a new session.
    pub revision: Option<String>,
    /// `pg_current_wal_lsn()`; primary only.
    pub current: Option<Lsn>,
    /// `pg_current_wal_flush_lsn()`; primary only.
    pub flush: Option<Lsn>,
    /// `pg_last_wal_receive_lsn()`; standby only.
    pub receive: Option<Lsn>,
    /// `pg_last_wal_replay_lsn()`; standby only.
    pub replay: Option<Lsn>,
    /// `pg_get_wal_replay_pause_state()` is not `not paused`; standby only.
    pub replay_paused: bool,
    /// `pg_stat_wal_receiver`; standby only.
    pub receiver: Option<WalReceiver>,
    /// `pg_stat_replication`, at most 64 rows.
    pub senders: Vec<WalSender>,
    /// `pg_stat_archiver` and the backlog.
    pub archiver: Archiver,
    /// What a stop would disturb or wait for.
    pub gates: Gates,
    /// `max_replication_slots` must not go below this.
    pub replication_slots: u32,
    /// The five as they are in force.
    pub hot_standby: HotStandby,
}

/// A standby's connection to its primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalReceiver {
    /// `streaming`, `starting`, …
    pub status: String,
    /// Where it streams from.
    pub host: String,
    /// The port there.
    pub port: u16,
    /// Timeline received.
    pub timeline: u32,
}

/// A standby or backup that streams from this server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalSender {
    /// `application_name`: the standby's pod.
    pub application_name: String,
    /// `streaming`, `catchup`, `backup`, …
    pub state: String,
    /// `async`, `sync`, `quorum`, `potential`.
    pub sync_state: String,
    /// Age of the last reply in milliseconds; `None` before the first one.
    pub reply_age_ms: Option<u64>,
    /// Bytes written here and not flushed there; `None` while unknown.
    pub flush_lag_bytes: Option<u64>,
    /// Bytes written here and not replayed there; `None` while unknown.
    pub replay_lag_bytes: Option<u64>,
}

/// State of WAL archiving.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archiver {
    /// `archive_mode` is not off.
    pub on: bool,
    /// The last attempt failed.
    pub failing: bool,
    /// `*.ready` files that wait, counted up to 1000.
    pub ready: u32,
}

/// What a fast stop would disturb or wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gates {
    /// Client sessions (besides our own).
    pub sessions: u32,
    /// Age of the oldest open client transaction in milliseconds.
    pub longest_transaction_ms: u64,
    /// Prepared transactions.
    pub prepared_transactions: u32,
    /// Base backups that run.
    pub base_backups: u32,
}
