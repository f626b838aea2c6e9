//! Taking a store up again: all objects as a value, and single changes as lines of a journal.
//!
//! The edge keeps one snapshot and a journal of the changes after it. A line whose revision the
//! snapshot already holds is skipped, so the two may overlap.

use super::{
    Key, Store,
    log::{Change, Verb},
};
use serde_json::{Value, json};
use std::sync::Arc;

impl Store {
    /// All objects and the revision.
    pub fn snapshot(&self) -> Value {
        let objects: Vec<Value> = self
            .objects
            .iter()
            .map(|(key, object)| {
                json!({"key": [key.storage, key.namespace, key.name], "object": **object})
            })
            .collect();
        json!({"revision": self.revision, "objects": objects})
    }

    /// An empty store takes up a snapshot. Watches begin after it.
    pub fn restore(&mut self, snapshot: &Value, log_limit: usize) {
        self.revision = snapshot["revision"].as_u64().unwrap_or(1);
        self.log = super::log::Log::after(self.revision, log_limit);
        for entry in snapshot["objects"].as_array().into_iter().flatten() {
            if let Some(key) = key(&entry["key"]) {
                self.take_up(key, Some(entry["object"].clone()));
            }
        }
    }

    /// One line of a journal; an old or unreadable one is passed over.
    pub fn replay(&mut self, line: &Value) {
        let revision = line["revision"].as_u64().unwrap_or(0);
        let Some(key) = key(&line["key"]).filter(|_| revision == self.revision + 1) else { return };
        self.revision = revision;
        let previous = self.objects.get(&key).cloned();
        let object = line.get("object").filter(|o| o.is_object()).cloned();
        let (verb, seen) = match (&object, &previous) {
            (Some(object), None) => (Verb::Added, Arc::new(object.clone())),
            (Some(object), Some(_)) => (Verb::Modified, Arc::new(object.clone())),
            (None, Some(previous)) => {
                let mut last = Value::clone(previous);
                last["metadata"]["resourceVersion"] = json!(revision.to_string());
                (Verb::Deleted, Arc::new(last))
            }
            (None, None) => (Verb::Deleted, Arc::new(json!({"metadata": {}}))),
        };
        self.take_up(key.clone(), object);
        self.note(&key, verb, &seen, previous);
    }

    fn take_up(&mut self, key: Key, object: Option<Value>) {
        let old = self.objects.remove(&key);
        self.unindex(&key, old.as_deref());
        let Some(object) = object else { return };
        self.index(&key, &object);
        if key.storage == super::CRDS {
            let versions = super::custom::kinds(&object, &self.definitions);
            self.kinds.serve(&key.name, versions);
        }
        self.objects.insert(key, Arc::new(object));
    }
}

/// A change as a line of the journal.
pub fn line(change: &Change) -> Value {
    let key = &change.key;
    let key = json!([key.storage, key.namespace, key.name]);
    match change.verb {
        Verb::Added | Verb::Modified => {
            json!({"revision": change.revision, "key": key, "object": *change.object})
        }
        Verb::Deleted => json!({"revision": change.revision, "key": key}),
    }
}

fn key(value: &Value) -> Option<Key> {
    let part = |i: usize| value.get(i).and_then(Value::as_str).map(str::to_owned);
    Some(Key { storage: part(0)?, namespace: part(1)?, name: part(2)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::store::{delete::Deletion, patch::Patch, tests::World};

    #[test]
    fn snapshot_and_journal_make_the_same_store_again() {
        let mut world = World::new();
        world.create("configmaps", json!({"metadata": {"name": "a"}})).unwrap();
        let snapshot = world.store.snapshot();
        let middle = world.store.revision();
        world.create("configmaps", json!({"metadata": {"name": "b"}})).unwrap();
        let patch = Patch::Merge(json!({"data": {"x": "y"}}));
        world.patch("configmaps", "a", "t", &patch).unwrap();
        world.delete("configmaps", "b", &Deletion::default()).unwrap();
        // The journal overlaps the snapshot, as after a kill between the two.
        let lines: Vec<Value> = world.store.changes(1).unwrap().map(line).collect();
        let mut again = Store::new(1000);
        again.restore(&snapshot, 1000);
        lines.iter().for_each(|line| again.replay(line));
        assert_eq!(again.snapshot(), world.store.snapshot());
        let verbs: Vec<Verb> = again.changes(middle).unwrap().map(|c| c.verb).collect();
        assert_eq!(verbs, [Verb::Added, Verb::Modified, Verb::Deleted]);
    }
}
