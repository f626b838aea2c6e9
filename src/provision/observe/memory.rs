//! What is remembered between passes: connections, Secrets for a minute, how patient to be.
//!
//! Losing it costs time and nothing else: every decision rests on what is seen. Never holds
//! anything of a database that is gone.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::api::Postgres;
use crate::instance::client::{Client, Identity};
use crate::provision::wanted::Secrets;

/// Memory of all databases, by UID.
#[derive(Default)]
pub struct Memory {
    databases: Mutex<BTreeMap<String, Remembered>>,
}

#[derive(Default)]
struct Remembered {
    /// With the version of the Secret that it was read from.
    identity: Option<(String, Identity)>,
    /// By pod.
    clients: BTreeMap<String, Client>,
    secrets: Option<(Instant, Option<i64>, Arc<Secrets>)>,
    /// When its last whole pass began.
    looked: Option<Instant>,
    /// Passes since the database was last settled.
    unsettled: u32,
    /// Passes that failed in a row.
    failures: u32,
}

impl Memory {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Remembered>> {
        self.databases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The identity that was read from this version of the Secret.
    pub fn identity(&self, uid: &str, version: &str) -> Option<Identity> {
        let databases = self.lock();
        let (known, identity) = databases.get(uid)?.identity.as_ref()?;
        (known == version).then(|| identity.clone())
    }

    /// Remembers an identity; connections that were made under another one are dropped.
    pub fn keep_identity(&self, uid: &str, version: String, identity: &Identity) {
        let mut databases = self.lock();
        let remembered = databases.entry(uid.to_owned()).or_default();
        remembered.identity = Some((version, identity.clone()));
        remembered.clients.clear();
    }

    /// The client of a node; a new one when its address is another.
    pub fn client(&self, uid: &str, pod: &str, address: SocketAddr, identity: &Identity) -> Client {
        let mut databases = self.lock();
        let clients = &mut databases.entry(uid.to_owned()).or_default().clients;
        match clients.get(pod).filter(|client| client.address() == address) {
            Some(client) => client.clone(),
            None => {
                let client = Client::new(address, identity);
                clients.insert(pod.to_owned(), client.clone());
                client
            }
        }
    }

    /// The Secrets, if they were read less than `again` ago for this generation of the spec.
    pub fn secrets(&self, postgres: &Postgres, again: Duration) -> Option<Arc<Secrets>> {
        let databases = self.lock();
        let (read, generation, secrets) = databases.get(postgres.uid())?.secrets.as_ref()?;
        let fresh = read.elapsed() < again && *generation == postgres.metadata.generation;
        fresh.then(|| secrets.clone())
    }

    /// Remembers the Secrets.
    pub fn keep_secrets(&self, postgres: &Postgres, secrets: &Arc<Secrets>) {
        let kept = (Instant::now(), postgres.metadata.generation, secrets.clone());
        self.lock().entry(postgres.uid().to_owned()).or_default().secrets = Some(kept);
    }

    /// Forgets the Secrets: one of them was written.
    pub fn forget_secrets(&self, uid: &str) {
        if let Some(remembered) = self.lock().get_mut(uid) {
            remembered.secrets = None;
        }
    }

    /// How long it is until a whole pass is due again, where they are to be `apart`; `None`: it
    /// begins now.
    pub fn due_in(&self, uid: &str, apart: Duration) -> Option<Duration> {
        let mut databases = self.lock();
        let remembered = databases.entry(uid.to_owned()).or_default();
        let left = remembered.looked.and_then(|last| apart.checked_sub(last.elapsed()));
        if left.is_none_or(|left| left.is_zero()) {
            remembered.looked = Some(Instant::now());
            return None;
        }
        left
    }

    /// Notes how a pass ended and says how many in a row found something still to come.
    pub fn unsettled(&self, uid: &str, settled: bool) -> u32 {
        let mut databases = self.lock();
        let remembered = databases.entry(uid.to_owned()).or_default();
        remembered.failures = 0;
        remembered.unsettled = if settled { 0 } else { remembered.unsettled.saturating_add(1) };
        remembered.unsettled
    }

    /// Notes that a pass failed and says how many did so in a row.
    pub fn failed(&self, uid: &str) -> u32 {
        let mut databases = self.lock();
        let remembered = databases.entry(uid.to_owned()).or_default();
        remembered.failures = remembered.failures.saturating_add(1);
        remembered.failures
    }

    /// Forgets a database that is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }
}
