//! Everything that an instance is told when it is started: paths, addresses, names, limits.
//!
//! Nothing here is guessed later: the command line resolves it once, and afterwards nobody looks
//! at the environment again. Leaves the meaning of each path to the file that uses it.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::unistd::{Gid, Uid};

/// What `pgitops instance run` was told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of the pod: `cluster_name`, and what a standby calls itself when it streams.
    pub pod: String,
    /// `PGDATA`. Its parent must be of the same file system, because it is filled beside itself.
    pub data_directory: PathBuf,
    /// Where sets, state, `pg_hba.conf` and scratch folders live, on the data volume.
    pub state_directory: PathBuf,
    /// Mounted folder with the first configuration of an empty volume.
    pub seed_directory: PathBuf,
    /// Mounted folder with the instance's certificates.
    pub tls_directory: PathBuf,
    /// Short folder for unix sockets (their paths are limited to 107 bytes).
    pub socket_directory: PathBuf,
    /// Folder of `postgres`, `initdb`, `pg_basebackup`, `pg_controldata`.
    pub bin_directory: PathBuf,
    /// Address that Postgres and the control API listen on.
    pub listen_address: IpAddr,
    /// Port of the control API.
    pub control_port: u16,
    /// Port of Postgres.
    pub postgres_port: u16,
    /// Other instances of this database, `host` or `host:port`; asked before starting as primary.
    pub peers: Vec<String>,
    /// User that Postgres runs as, where this process is root.
    pub account: Option<Account>,
    /// The container's memory limit in bytes, where it is known.
    pub memory_limit: Option<u64>,
    /// Locale of a new database.
    pub locale: String,
    /// How long a fast shutdown may take at the end of the pod before it is enforced.
    pub stop_grace: Duration,
    /// Whether the server's log is repeated on standard output (the container's log).
    pub echo_log: bool,
}

/// A user of the operating system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// User.
    pub uid: Uid,
    /// Its group.
    pub gid: Gid,
}

impl Options {
    /// The file that the server reads, given as `config_file`.
    #[must_use]
    pub fn live_file(&self) -> PathBuf {
        self.state_directory.join("postgresql.conf")
    }

    /// `hba_file`.
    #[must_use]
    pub fn hba_file(&self) -> PathBuf {
        self.state_directory.join("pg_hba.conf")
    }

    /// `ident_file`.
    #[must_use]
    pub fn ident_file(&self) -> PathBuf {
        self.state_directory.join("pg_ident.conf")
    }

    /// libpq's password file for streaming and for the base backup.
    #[must_use]
    pub fn pass_file(&self) -> PathBuf {
        self.state_directory.join("pgpass")
    }

    /// The socket that answers `pgitops instance health`.
    #[must_use]
    pub fn health_socket(&self) -> PathBuf {
        health_socket(&self.socket_directory)
    }

    /// A program of the server.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin_directory.join(name)
    }

    /// Whether the data folder holds a database.
    #[must_use]
    pub fn has_data(&self) -> bool {
        self.data_directory.join("PG_VERSION").exists()
    }

    /// Whether the data folder is that of a standby.
    #[must_use]
    pub fn is_standby(&self) -> bool {
        self.data_directory.join("standby.signal").exists()
    }
}

/// See [`Options::health_socket`].
#[must_use]
pub fn health_socket(socket_directory: &Path) -> PathBuf {
    socket_directory.join(".pgitops-health")
}

/// The container's memory limit by its control group, in bytes; `None` without one.
#[must_use]
pub fn memory_limit() -> Option<u64> {
    ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .iter()
        .find_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok())
        // Version 1 says "no limit" with a number near 2^63.
        .filter(|limit| *limit < 1 << 60)
}
