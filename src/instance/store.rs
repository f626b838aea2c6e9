//! What an instance remembers on the data volume: fence, role, sets, answers.
//!
//! One JSON file, replaced at every change, and a file per configuration set. The state is the
//! truth about which set is in force; the file that the server reads is made from it before every
//! start. A change that could not be written has not happened in memory either.

use std::{
    collections::{BTreeSet, VecDeque},
    fs, io,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    SEED_FILE, files,
    options::{Account, Options},
    protocol::{ConfigurationSet, Fallback, Fence, MAX_FILE, Restart, Role, SetId, Sets},
};

/// Answers kept for repeats. A rollout has about ten steps an instance; a caller that comes back
/// after more than that has seen its own answer long ago.
const MAX_ANSWERS: usize = 32;
/// Addresses of peers remembered beside those that were given as arguments.
const MAX_PEERS: usize = 16;

/// The state file.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Highest lease transitions seen.
    pub lease_transitions: u64,
    /// Role of the data folder.
    pub role: Option<Role>,
    /// Superuser, for local connections and streaming.
    pub superuser: Option<String>,
    /// Which sets are where.
    pub sets: Sets,
    /// The last start that did not go as wanted.
    pub last_fallback: Option<Fallback>,
    /// The step that filled the data folder.
    pub filled_by: Option<Key>,
    /// A restart that has begun and has no answer yet.
    pub restart: Option<PendingRestart>,
    /// Answers given, oldest first.
    pub answers: VecDeque<Answered>,
    /// Addresses of instances that have introduced themselves.
    pub peers: BTreeSet<String>,
}

/// Identity of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Path of the call.
    pub call: String,
    /// Its request.
    pub request: String,
    /// Its step.
    pub step: String,
}

impl Key {
    /// Of a call with this fence.
    #[must_use]
    pub fn of(path: &str, fence: &Fence) -> Self {
        let Fence { lease_transitions: _, request, step } = fence;
        Self { call: path.to_owned(), request: request.clone(), step: step.clone() }
    }
}

/// An answer that was given.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Answered {
    /// To which step.
    pub key: Key,
    /// Digest of the call without fence and secrets.
    pub content: String,
    /// The answer as JSON.
    pub answer: Value,
}

/// A restart that has begun.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PendingRestart {
    /// Whose answer it will be.
    pub key: Key,
    /// Digest of the call.
    pub content: String,
    /// Set to start with.
    pub candidate: SetId,
    /// Set to start with otherwise.
    pub fallback: SetId,
    /// As in the call.
    pub start_deadline_ms: u64,
}

impl PendingRestart {
    /// What must be remembered of a call.
    #[must_use]
    pub fn of(call: &Restart, key: Key, content: String) -> Self {
        Self {
            key,
            content,
            candidate: call.candidate.id.clone(),
            fallback: call.fallback.id.clone(),
            start_deadline_ms: call.start_deadline_ms,
        }
    }
}

/// State and sets of this instance.
#[derive(Debug)]
pub struct Store {
    file: PathBuf,
    sets: PathBuf,
    seed: PathBuf,
    owner: Option<Account>,
    state: Mutex<State>,
}

impl Store {
    /// Reads the state; an empty volume has an empty one. A state file that cannot be understood
    /// is an error: guessing could start a fenced primary.
    pub fn open(options: &Options) -> io::Result<Self> {
        let owner = options.account;
        files::folder(&options.state_directory, owner)?;
        let sets = options.state_directory.join("sets");
        files::folder(&sets, owner)?;
        let file = options.state_directory.join("state.json");
        let state = match fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => State::default(),
            Err(error) => return Err(error),
        };
        let seed = options.seed_directory.join(SEED_FILE);
        Ok(Self { file, sets, seed, owner, state: Mutex::new(state) })
    }

    /// A copy of the state.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes the state on disk, then in memory.
    pub fn update(&self, change: impl FnOnce(&mut State)) -> io::Result<()> {
        let mut held = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = held.clone();
        change(&mut next);
        while next.answers.len() > MAX_ANSWERS {
            next.answers.pop_front();
        }
        while next.peers.len() > MAX_PEERS {
            next.peers.pop_first();
        }
        files::replace(&self.file, &serde_json::to_vec_pretty(&next)?, self.owner)?;
        *held = next;
        Ok(())
    }

    /// Keeps a set. The same identity with another text is an error.
    pub fn keep(&self, set: &ConfigurationSet) -> io::Result<()> {
        let path = self.path(&set.id);
        match fs::read(&path) {
            Ok(text) if text == set.text.as_bytes() => Ok(()),
            Ok(_) => Err(io::Error::other(format!(
                "set {} is already stored with another text",
                set.id.revision()
            ))),
            Err(_) => files::replace(&path, set.text.as_bytes(), self.owner),
        }
    }

    /// The text of a kept set.
    pub fn text(&self, id: &SetId) -> io::Result<String> {
        let bytes = fs::read(self.path(id))?;
        String::from_utf8(bytes).map_err(io::Error::other)
    }

    /// The set that the next start uses: staged, else running, else the seed, which is kept now.
    pub fn next(&self) -> io::Result<SetId> {
        let Sets { running, staged, last_started: _ } = self.state().sets;
        if let Some(id) = staged.or(running) {
            return Ok(id);
        }
        let seed = self.seed()?;
        self.keep(&seed)?;
        Ok(seed.id)
    }

    /// The first configuration of an empty volume; an empty file where none is mounted.
    pub fn seed(&self) -> io::Result<ConfigurationSet> {
        let text = match fs::read(&self.seed) {
            Ok(bytes) if bytes.len() > MAX_FILE => {
                return Err(io::Error::other(format!("seed file is larger than {MAX_FILE} bytes")));
            }
            Ok(bytes) => String::from_utf8(bytes).map_err(io::Error::other)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let digest = format!("seed-{}", &sha256(text.as_bytes())[..16]);
        Ok(ConfigurationSet { id: SetId { sequence: 0, digest }, text })
    }

    /// Removes the files of sets that nothing refers to.
    pub fn prune(&self) {
        let state = self.state();
        let Sets { running, staged, last_started } = state.sets;
        let pending = state.restart.map(|r| [r.candidate, r.fallback]).into_iter().flatten();
        let used: BTreeSet<PathBuf> = [running, staged, last_started]
            .into_iter()
            .flatten()
            .chain(pending)
            .map(|id| self.path(&id))
            .collect();
        let Ok(entries) = fs::read_dir(&self.sets) else { return };
        for entry in entries.flatten().filter(|entry| !used.contains(&entry.path())) {
            if let Err(error) = fs::remove_file(entry.path()) {
                tracing::warn!(%error, "could not remove a configuration set no longer used");
            }
        }
    }

    fn path(&self, id: &SetId) -> PathBuf {
        let name: String = id
            .revision()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' })
            .collect();
        self.sets.join(format!("{name}.conf"))
    }
}

/// SHA-256 as hexadecimal digits.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
