//! The store behind a lock, and everything a request needs besides.

use super::{count::Counter, journal::Journal, running::Options};
use crate::sandbox::store::{By, Store, Validation};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Shared by all requests.
#[derive(Debug)]
pub struct State {
    cell: Mutex<Cell>,
    /// The last revision; watches wait on it.
    pub revision: watch::Sender<u64>,
    /// Requests so far.
    pub counter: Counter,
    /// What the composition chose.
    pub options: Options,
    /// Ends watches and logs when the server stops.
    pub stop: CancellationToken,
}

#[derive(Debug)]
struct Cell {
    store: Store,
    journal: Option<Journal>,
}

impl State {
    /// Puts a store behind a lock.
    pub fn new(store: Store, journal: Option<Journal>, options: Options) -> Self {
        let revision = watch::Sender::new(store.revision());
        Self {
            cell: Mutex::new(Cell { store, journal }),
            revision,
            counter: Counter::default(),
            options,
            stop: CancellationToken::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Cell> {
        // A panic inside leaves the maps whole: a change is made by single inserts.
        self.cell.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the store.
    pub fn read<T>(&self, look: impl FnOnce(&Store) -> T) -> T {
        look(&self.lock().store)
    }

    /// Changes the store; what changed is on disk before anybody is told.
    pub fn write<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        let mut cell = self.lock();
        let before = cell.store.revision();
        let result = change(&mut cell.store);
        let Cell { store, journal } = &mut *cell;
        if store.revision() != before {
            if let Some(journal) = journal
                && let Err(error) = journal.record(store, before)
            {
                tracing::error!(%error, "the sandbox's journal was not written");
            }
            self.revision.send_replace(store.revision());
        }
        result
    }

    /// Writes everything into one file, so that the next start is quick.
    pub fn compact(&self) -> anyhow::Result<()> {
        let mut cell = self.lock();
        let Cell { store, journal } = &mut *cell;
        journal.as_mut().map_or(Ok(()), |journal| journal.compact(store))
    }

    /// Who writes now.
    pub fn by(&self, manager: String, dry_run: bool, validation: Validation) -> By {
        let (now, uid) = ((self.options.clock)(), (self.options.uid)());
        By { now, uid, manager, dry_run, validation }
    }
}
