//! What `/proc` says about processes: descendants, and whether a recorded one is still the same.
//!
//! Never ends a process that was not named by the caller; a pid alone names nothing, since the
//! kernel gives it out again, so a record also carries the start time. Processes that have lost
//! their tree are found by a variable that all processes of a container inherit.

use std::collections::BTreeMap;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A process by pid and start time (clock ticks since boot).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Process id.
    pub pid: i32,
    /// Field 22 of `/proc/<pid>/stat`.
    pub start: u64,
}

impl Identity {
    /// The process that has this pid now.
    pub fn of(pid: i32) -> Option<Self> {
        stat(pid).filter(|s| !s.ended).map(|s| Self { pid, start: s.start })
    }

    /// Whether that very process still runs; a zombie does not.
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }
}

/// Variable with the container's id in the environment of all its processes.
pub const MARK: &str = "PGITOPS_SANDBOX_CONTAINER";

struct Stat {
    parent: i32,
    start: u64,
    ended: bool,
}

fn stat(pid: i32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses and may hold anything, parentheses too.
    let (_, fields) = text.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    Some(Stat {
        ended: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
    })
}

/// All living processes below `root`, nearest first.
pub fn descendants(root: i32) -> Vec<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok())
            && let Some(stat) = stat(pid).filter(|s| !s.ended)
        {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = children.remove(&root).unwrap_or_default();
    let mut at = 0;
    while let Some(pid) = found.get(at).copied() {
        found.extend(children.remove(&pid).unwrap_or_default());
        at += 1;
    }
    found
}

/// Living processes that were started with [`MARK`] set to `id`, as far as we may look.
pub fn marked(id: &str) -> Vec<i32> {
    let wanted = format!("{MARK}={id}").into_bytes();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let is_marked = environment.split(|byte| *byte == 0).any(|variable| variable == wanted);
        if is_marked && stat(pid).is_some_and(|s| !s.ended) {
            found.push(pid);
        }
    }
    found
}

/// Kills what is marked with `id`, until nothing is: for a container whose first process was
/// killed, so that nothing holds the rest together.
pub fn kill_marked(id: &str) {
    for _ in 0..SWEEPS {
        let left = marked(id);
        if left.is_empty() {
            return;
        }
        for pid in left {
            signal(pid, Signal::SIGKILL);
        }
        std::thread::sleep(SWEEP);
    }
    tracing::error!(id, "processes of a container cannot be killed");
}

/// How often and how far apart: 2 s, which only a process in an uninterruptible wait survives.
const SWEEPS: u32 = 200;
const SWEEP: std::time::Duration = std::time::Duration::from_millis(10);

/// Sends a signal to one process; one that is gone already is no error.
pub fn signal(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}

/// Kills everything below `root`, and `root` itself last, so that nothing is orphaned alive.
pub fn kill_tree(root: Identity) {
    for pid in descendants(root.pid) {
        signal(pid, Signal::SIGKILL);
    }
    if root.is_alive() {
        signal(root.pid, Signal::SIGKILL);
    }
}
