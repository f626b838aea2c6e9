//! A Kubernetes object store as a value: objects, revisions, conflicts, patches, server-side
//! apply, garbage collection, and the log that watches read.
//!
//! Pure: clock, uids and persistence are parameters. The API server is its edge.
//!
//! | file | what |
//! |---|---|
//! | `kinds.rs`, `built_in.rs`, `custom.rs` | which kinds there are |
//! | `shape.rs`, `schema/` | what objects look like: merge keys, pruning, defaults, validation |
//! | `read.rs` | get, list (also of a revision in the past), changes |
//! | `write.rs` | create, replace, patch: the line from a body to a stored object |
//! | `body.rs` | what a body may say |
//! | `metadata.rs` | names, identity, generation |
//! | `patch/`, `apply/` | the four kinds of patch, and who owns which field |
//! | `delete.rs`, `garbage.rs` | deletion, finalizers, owners, namespaces |
//! | `rules/` | what single built-in kinds ask for |
//! | `log.rs`, `snapshot.rs` | the watch log; taking a store up again |
//! | `refusal.rs` | what is answered when something is refused |

pub mod apply;
mod body;
pub mod built_in;
pub mod custom;
pub mod delete;
pub mod garbage;
pub mod kinds;
pub mod log;
pub mod metadata;
pub mod patch;
pub mod read;
pub mod refusal;
pub mod rules;
pub mod schema;
pub mod selector;
pub mod shape;
pub mod snapshot;
pub mod write;

use jiff::Timestamp;
use kinds::Kinds;
use log::{Change, Log, Verb};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Where an object stands.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// `pods`, `statefulsets.apps` …: [`kinds::Kind::storage`].
    pub storage: String,
    /// Empty for objects of the whole cluster.
    pub namespace: String,
    /// The object's name.
    pub name: String,
}

/// Who writes, when, and how strictly.
#[derive(Debug, Clone)]
pub struct By {
    /// The time to write into the object.
    pub now: Timestamp,
    /// A fresh uid, should one be needed. `generateName` takes its letters from it.
    pub uid: String,
    /// The field manager.
    pub manager: String,
    /// True if nothing is to be stored.
    pub dry_run: bool,
    /// What to do about unknown fields.
    pub validation: Validation,
}

/// What to do about unknown fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Validation {
    /// Drop them silently.
    Ignore,
    /// Drop them and say so; what a server does unless told otherwise.
    #[default]
    Warn,
    /// Refuse the request.
    Strict,
}

/// What a write made.
#[derive(Debug, Clone)]
pub struct Written {
    /// The object as it is stored now.
    pub object: Arc<Value>,
    /// True if it was not there before.
    pub created: bool,
    /// What the client should be told (header `Warning`).
    pub warnings: Vec<String>,
}

/// The objects of a cluster.
#[derive(Debug)]
pub struct Store {
    objects: BTreeMap<Key, Arc<Value>>,
    uids: BTreeMap<String, Key>,
    dependents: BTreeMap<String, BTreeSet<Key>>,
    revision: u64,
    log: Log,
    kinds: Kinds,
    definitions: Arc<Map<String, Value>>,
    /// Uids that went away and whose dependents were not looked at yet.
    vanished: Vec<String>,
    /// Objects whose owners were not looked at yet.
    unproven: Vec<Key>,
    /// Uids of objects that wait for their dependents to go.
    waiting_owners: BTreeSet<String>,
    /// Terminating namespaces and definitions whose contents have to go first.
    emptying: BTreeSet<Key>,
}

/// Changes a store keeps for watches: at a few KiB each some tens of MiB, and hours of a sandbox.
pub const LOG_LIMIT: usize = 10_000;

impl Store {
    /// An empty store with the built-in kinds; its log keeps `log_limit` changes.
    pub fn new(log_limit: usize) -> Self {
        let built_in = built_in::kinds();
        let definitions = built_in.first().map(|k| Arc::clone(&k.schema.definitions));
        Self {
            objects: BTreeMap::new(),
            uids: BTreeMap::new(),
            dependents: BTreeMap::new(),
            revision: 1,
            log: Log::after(1, log_limit),
            kinds: Kinds::new(built_in),
            definitions: definitions.unwrap_or_default(),
            vanished: Vec::new(),
            unproven: Vec::new(),
            waiting_owners: BTreeSet::new(),
            emptying: BTreeSet::new(),
        }
    }

    /// The kinds that are served.
    pub fn kinds(&self) -> &Kinds {
        &self.kinds
    }

    /// The revision of the last change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Stores an object under the next revision.
    fn put(&mut self, key: &Key, mut object: Value) -> Arc<Value> {
        self.revision += 1;
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let object = Arc::new(object);
        let previous = self.objects.insert(key.clone(), Arc::clone(&object));
        self.unindex(key, previous.as_deref());
        self.index(key, &object);
        let verb = if previous.is_some() { Verb::Modified } else { Verb::Added };
        self.note(key, verb, &object, previous);
        object
    }

    /// Removes an object; the change that says so has a revision of its own.
    fn remove(&mut self, key: &Key) -> Option<Arc<Value>> {
        let previous = self.objects.remove(key)?;
        self.unindex(key, Some(&previous));
        self.revision += 1;
        let mut last = Value::clone(&previous);
        last["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let last = Arc::new(last);
        self.note(key, Verb::Deleted, &last, Some(previous));
        if let Some(uid) = metadata::uid(&last) {
            self.vanished.push(uid.to_owned());
        }
        Some(last)
    }

    fn note(&mut self, key: &Key, verb: Verb, object: &Arc<Value>, previous: Option<Arc<Value>>) {
        if key.storage == CRDS {
            let versions = match verb {
                Verb::Added | Verb::Modified => custom::kinds(object, &self.definitions),
                Verb::Deleted => Vec::new(),
            };
            self.kinds.serve(&key.name, versions);
        }
        let (revision, key, object) = (self.revision, key.clone(), Arc::clone(object));
        self.log.push(Change { revision, verb, key, object, previous });
    }

    fn index(&mut self, key: &Key, object: &Value) {
        if let Some(uid) = metadata::uid(object) {
            self.uids.insert(uid.to_owned(), key.clone());
        }
        for owner in metadata::owners(object) {
            self.dependents.entry(owner.to_owned()).or_default().insert(key.clone());
        }
        if metadata::is_terminating(object) {
            if let Some(uid) = metadata::uid(object)
                && metadata::finalizers(object).contains(&delete::FOREGROUND)
            {
                self.waiting_owners.insert(uid.to_owned());
            }
            if key.storage == CRDS || key.storage == "namespaces" {
                self.emptying.insert(key.clone());
            }
        }
    }

    fn unindex(&mut self, key: &Key, object: Option<&Value>) {
        let Some(object) = object else { return };
        if let Some(uid) = metadata::uid(object) {
            self.uids.remove(uid);
            self.waiting_owners.remove(uid);
        }
        self.emptying.remove(key);
        for owner in metadata::owners(object) {
            if let Some(keys) = self.dependents.get_mut(owner) {
                keys.remove(key);
                if keys.is_empty() {
                    self.dependents.remove(owner);
                }
            }
        }
    }
}

/// Where CustomResourceDefinitions are stored.
pub(crate) const CRDS: &str = "customresourcedefinitions.apiextensions.k8s.io";

#[cfg(test)]
mod tests {
    use super::{
        delete::Deletion,
        patch::Patch,
        refusal::Refusal,
        write::{Part, Target},
        *,
    };
    use kinds::Kind;

    /// A store with the namespace `demo`, and writes at one-second steps by a named manager.
    pub struct World {
        pub store: Store,
        steps: i64,
    }

    impl World {
        pub fn new() -> Self {
            let mut world = Self { store: Store::new(1000), steps: 0 };
            world.create("namespaces", json!({"metadata": {"name": "demo"}})).unwrap();
            world
        }

        pub fn by(&mut self, manager: &str) -> By {
            self.steps += 1;
            By {
                now: Timestamp::from_second(1_800_000_000 + self.steps).unwrap(),
                uid: format!("{:08x}-0000-4000-8000-000000000000", self.steps),
                manager: manager.to_owned(),
                dry_run: false,
                validation: Validation::Strict,
            }
        }

        pub fn kind(&self, plural: &str) -> Arc<Kind> {
            self.store.kinds().all().find(|k| k.plural == plural).cloned().unwrap()
        }

        pub fn create(&mut self, plural: &str, body: Value) -> Result<Arc<Value>, Refusal> {
            let (kind, by) = (self.kind(plural), self.by("test"));
            self.store.create(&kind, "demo", body, &by).map(|w| w.object)
        }

        pub fn patch(
            &mut self,
            plural: &str,
            name: &str,
            by: &str,
            patch: &Patch,
        ) -> Result<Arc<Value>, Refusal> {
            let (kind, by) = (self.kind(plural), self.by(by));
            let target = Target { kind: &kind, namespace: "demo", name, part: Part::Whole };
            self.store.patch(target, patch, &by).map(|w| w.object)
        }

        pub fn delete(
            &mut self,
            plural: &str,
            name: &str,
            deletion: &Deletion,
        ) -> Result<bool, Refusal> {
            let (kind, by) = (self.kind(plural), self.by("test"));
            let target = Target { kind: &kind, namespace: "demo", name, part: Part::Whole };
            self.store.delete(target, deletion, &by).map(|(_, gone)| gone)
        }

        /// `plural/name` of all objects but the namespace.
        pub fn names(&self) -> Vec<String> {
            let keys = self.store.objects.keys().filter(|k| k.storage != "namespaces");
            keys.map(|k| format!("{}/{}", k.storage, k.name)).collect()
        }
    }

    #[test]
    fn every_built_in_kind_has_a_schema_whose_references_lead_somewhere() {
        let world = World::new();
        for kind in world.store.kinds().all() {
            assert!(kind.schema.shape().properties().is_some(), "{}", kind.kind);
            assert!(kind.schema.shape().field("metadata").declares("labels"), "{}", kind.kind);
        }
    }
}
