//! What is remembered between passes: saves reading again what has not changed.
//!
//! All of it can be lost at any moment without any other result.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::api::names::{CommitId, DatabaseRef, RepositoryRef, RequestName};
use crate::pgconf::Settings;
use crate::sync::desired::{Desired, Scope};
use crate::sync::settled::Settled;

/// What is remembered between passes.
#[derive(Default)]
pub struct Memory {
    repositories: Mutex<BTreeMap<RepositoryRef, Remembered>>,
    secrets: Mutex<BTreeMap<(String, String), Version>>,
}

/// A Secret and the resourceVersion that it was read at.
type Version = (String, Arc<ConfigSecret>);

/// Why databases are held, and since when.
pub type Told = BTreeMap<DatabaseRef, (&'static str, Timestamp)>;

/// What is remembered of one repository.
#[derive(Default)]
pub struct Remembered {
    /// Its `spec.path` and namespace: with another one nothing below counts.
    pub scope: Option<Scope>,
    /// What the commits that were looked at last say.
    pub desired: BTreeMap<CommitId, Arc<Desired>>,
    /// The notes as they stand on the commits that are not settled.
    pub notes: BTreeMap<CommitId, String>,
    /// Requests that brought a value back and stand in a note. Their names are unique: each is made
    /// from its database's UID.
    pub corrected: BTreeSet<RequestName>,
    /// When an interim note was pushed last.
    pub pushed: Option<Timestamp>,
    /// The databases that concern it.
    pub databases: BTreeSet<DatabaseRef>,
    /// Why databases are held, as was told in events, and since when.
    pub told: Told,
    /// Databases where the API server did not take what the last pass was to write.
    pub not_taken: BTreeSet<DatabaseRef>,
    /// The last whole look, if it left nothing to do.
    pub settled: Option<Settled>,
    /// Passes that failed in a row.
    pub failures: u32,
}

/// What a Secret says about configuration. What other keys hold is not kept.
#[derive(Debug, Default)]
pub struct ConfigSecret {
    /// Whether sync rendered it.
    pub ours: bool,
    /// Its keys that hold configuration: settings, or why they cannot be read.
    pub keys: BTreeMap<&'static str, Result<Settings, String>>,
    /// Names of its other keys that end in `.conf`; not what is in them.
    pub other_files: Vec<String>,
}

/// Most Secrets that are remembered: three for each of 10 000 databases.
const SECRETS: usize = 30_000;

impl Remembered {
    /// Keeps why databases are held now; gives what was kept before.
    pub fn hold(&mut self, held: &BTreeMap<DatabaseRef, &'static str>, now: Timestamp) -> Told {
        let since = |database: &DatabaseRef, reason: &str| {
            let before = self.told.get(database).filter(|(told, _)| *told == reason);
            before.map_or(now, |(_, since)| *since)
        };
        let told = held.iter().map(|(id, reason)| (id.clone(), (*reason, since(id, reason))));
        let told = told.collect();
        std::mem::replace(&mut self.told, told)
    }
}

impl Memory {
    /// Looks at or changes what is remembered of a repository. Never held across an await.
    pub fn of<T>(&self, id: &RepositoryRef, look: impl FnOnce(&mut Remembered) -> T) -> T {
        look(lock(&self.repositories).entry(id.clone()).or_default())
    }

    /// Forgets a repository that is gone.
    pub fn forget(&self, id: &RepositoryRef) {
        lock(&self.repositories).remove(id);
    }

    /// The repositories that a database concerns.
    pub fn concerned(&self, database: &DatabaseRef) -> Vec<RepositoryRef> {
        let all = lock(&self.repositories);
        let concerned = all.iter().filter(|(_, one)| one.databases.contains(database));
        concerned.map(|(id, _)| id.clone()).collect()
    }

    /// How many databases are held, by reason.
    pub fn held(&self) -> BTreeMap<&'static str, i64> {
        let mut held = BTreeMap::new();
        for remembered in lock(&self.repositories).values() {
            for (label, _) in remembered.told.values() {
                *held.entry(*label).or_default() += 1;
            }
        }
        held
    }

    /// A Secret of this version, if it was read before.
    pub fn secret(&self, id: &(String, String), version: &str) -> Option<Arc<ConfigSecret>> {
        let secrets = lock(&self.secrets);
        secrets.get(id).filter(|(known, _)| known == version).map(|(_, secret)| secret.clone())
    }

    /// Remembers a Secret.
    pub fn keep_secret(&self, id: (String, String), version: String, secret: Arc<ConfigSecret>) {
        let mut secrets = lock(&self.secrets);
        if secrets.len() >= SECRETS {
            secrets.clear();
        }
        secrets.insert(id, (version, secret));
    }
}

/// What a panicking pass left behind is at worst old: everything here may be.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
