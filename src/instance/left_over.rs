//! A server that an earlier process of this instance has left behind.
//!
//! It holds the data folder and nobody watches it, so it is stopped before another is started.
//! It may also appear late: a postmaster that was started a moment before its supervisor was
//! killed writes its lock file when the next supervisor already looks. Therefore this is asked
//! before every start. Never touches a process that does not work in this data folder.

use std::{
    io,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::sleep;

use super::{options::Options, process::LockFile};

/// How long an immediate shutdown may take.
const IMMEDIATE: Duration = Duration::from_secs(5);
/// Pause between two looks whether it has gone.
const POLL: Duration = Duration::from_millis(2);

/// Stops such a server: fast first, because its clients have lost their supervisor, not their
/// data. Must not be called while a server of this very process runs.
pub async fn stop(options: &Options) -> io::Result<()> {
    let Some(lock) = LockFile::read(&options.data_directory) else { return Ok(()) };
    let pid = Pid::from_raw(lock.pid);
    // A fast stop may have to write a checkpoint.
    for (signal, within) in [(Signal::SIGINT, options.stop_grace), (Signal::SIGQUIT, IMMEDIATE)] {
        if !works_here(pid, options) {
            return recycled(pid, options);
        }
        tracing::warn!(%pid, %signal, "stopping a server that an earlier process has left");
        kill(pid, signal)?;
        let until = Instant::now() + within;
        while works_here(pid, options) && Instant::now() < until {
            sleep(POLL).await;
        }
    }
    if works_here(pid, options) {
        return Err(io::Error::other(format!("the server with process id {pid} does not stop")));
    }
    Ok(())
}

/// Whether a start failed because another server has the data folder: that
/// says nothing about the set it was to start with.
#[must_use]
pub fn held(words: &str) -> bool {
    words.contains("lock file \"postmaster.pid\" already exists")
        || words.contains("pre-existing shared memory block")
}

/// Removes a lock file whose number belongs to another process of this container now: Postgres
/// would take that one for a postmaster and never start. A number that belongs to nobody is left
/// to Postgres, which then also looks whether children of the dead postmaster are still there.
fn recycled(pid: Pid, options: &Options) -> io::Result<()> {
    let alive = matches!(kill(pid, None), Ok(()) | Err(Errno::EPERM));
    if !alive || works_here(pid, options) {
        return Ok(());
    }
    match std::fs::remove_file(options.data_directory.join("postmaster.pid")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A postmaster works in its data folder. One that has ended and was not waited for does not.
fn works_here(pid: Pid, options: &Options) -> bool {
    let place = std::fs::read_link(format!("/proc/{pid}/cwd"));
    let own = std::fs::canonicalize(&options.data_directory);
    matches!((place, own), (Ok(place), Ok(own)) if place == own)
}
