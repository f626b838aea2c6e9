//! What follows from a write: dependents whose owners are gone, owners that waited for them,
//! namespaces and definitions whose contents are gone.
//!
//! Runs to its end inside the write that caused it, so nobody ever sees half of it.

use super::{
    CRDS, Key, Store,
    delete::{Deletion, Dependents, FOREGROUND},
    metadata, rules,
};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

impl Store {
    /// Follows up on all that changed, until nothing is left to do.
    pub(super) fn settle(&mut self, now: Timestamp) {
        loop {
            if let Some(uid) = self.vanished.pop() {
                self.delete_orphaned(&uid, now);
            } else if let Some(key) = self.unproven.pop() {
                self.look_at(&key, now);
            } else if !self.release_owners(now) && !self.empty_containers(now) {
                return;
            }
        }
    }

    fn delete_orphaned(&mut self, uid: &str, now: Timestamp) {
        for key in self.dependents.get(uid).cloned().unwrap_or_default() {
            self.look_at(&key, now);
        }
    }

    /// Deletes an object whose owners are all gone; drops references to those that are.
    fn look_at(&mut self, key: &Key, now: Timestamp) {
        let Some(object) = self.objects.get(key).cloned() else { return };
        let gone: Vec<&str> =
            metadata::owners(&object).filter(|u| !self.owner_lives(u, key)).collect();
        if gone.is_empty() {
            return;
        }
        if gone.len() == metadata::owners(&object).count() {
            self.delete_stored(key, &object, Dependents::Background, now);
            return;
        }
        let mut new = Value::clone(&object);
        if let Some(owners) = new["metadata"]["ownerReferences"].as_array_mut() {
            owners.retain(|o| o["uid"].as_str().is_some_and(|uid| !gone.contains(&uid)));
        }
        self.put(key, new);
    }

    /// An owner must be in the same namespace or in none.
    fn owner_lives(&self, uid: &str, dependent: &Key) -> bool {
        self.uids
            .get(uid)
            .is_some_and(|k| k.namespace.is_empty() || k.namespace == dependent.namespace)
    }

    fn delete_stored(&mut self, key: &Key, object: &Arc<Value>, how: Dependents, now: Timestamp) {
        if let Some(kind) = self.kinds.stored_as(&key.storage)
            && !(metadata::is_terminating(object) && how == Dependents::Background)
        {
            let deletion = Deletion { dependents: how, ..Deletion::default() };
            self.begin_deletion(&kind, object, &deletion, now);
        }
    }

    pub(super) fn delete_dependents(&mut self, uid: &str, now: Timestamp) {
        for key in self.dependents.get(uid).cloned().unwrap_or_default() {
            if let Some(object) = self.objects.get(&key).cloned()
                && !metadata::is_terminating(&object)
            {
                self.delete_stored(&key, &object, Dependents::Foreground, now);
            }
        }
    }

    /// Takes the owner out of all that it owns.
    pub(super) fn orphan(&mut self, uid: &str) {
        for key in self.dependents.get(uid).cloned().unwrap_or_default() {
            let Some(object) = self.objects.get(&key) else { continue };
            let mut new = Value::clone(object);
            if let Some(metadata) = new["metadata"].as_object_mut()
                && let Some(owners) =
                    metadata.get_mut("ownerReferences").and_then(Value::as_array_mut)
            {
                owners.retain(|o| o["uid"] != uid);
                if owners.is_empty() {
                    metadata.remove("ownerReferences");
                }
            }
            self.put(&key, new);
        }
    }

    /// Lets owners go that waited for their dependents. True if one went.
    fn release_owners(&mut self, _now: Timestamp) -> bool {
        let waiting = |object: &Value| metadata::finalizers(object).contains(&FOREGROUND);
        let free = self.waiting_owners.iter().find(|uid| {
            let blocked = self.dependents.get(*uid).is_some_and(|keys| {
                keys.iter().any(|key| self.objects.get(key).is_some_and(|o| blocks(o, uid)))
            });
            !blocked
        });
        let Some(uid) = free.cloned() else { return false };
        self.waiting_owners.remove(&uid);
        let Some(key) = self.uids.get(&uid).cloned() else { return true };
        let Some(object) = self.objects.get(&key).filter(|o| waiting(o)) else { return true };
        let mut new = Value::clone(object);
        let left: Vec<&str> =
            metadata::finalizers(object).into_iter().filter(|f| *f != FOREGROUND).collect();
        new["metadata"]["finalizers"] = json!(left);
        let last = left.is_empty();
        self.put(&key, new);
        if last {
            self.remove(&key);
        }
        true
    }

    /// Empties terminating namespaces and definitions, and removes those that are empty.
    fn empty_containers(&mut self, now: Timestamp) -> bool {
        let containers: Vec<Key> = self.emptying.iter().cloned().collect();
        for container in containers {
            let contents: Vec<Key> = self.contents(&container);
            let mut moved = false;
            for key in &contents {
                if let Some(object) = self.objects.get(key).cloned()
                    && !metadata::is_terminating(&object)
                {
                    self.delete_stored(key, &object, Dependents::Background, now);
                    moved = true;
                }
            }
            if moved {
                return true;
            }
            let free = self.objects.get(&container).is_none_or(|o| {
                metadata::finalizers(o).iter().all(|f| *f == rules::crd::FINALIZER)
            });
            if contents.is_empty() && free {
                self.emptying.remove(&container);
                self.remove(&container);
                return true;
            }
        }
        false
    }

    fn contents(&self, container: &Key) -> Vec<Key> {
        if container.storage == CRDS {
            return self.range(&container.name, None).map(|(k, _)| k.clone()).collect();
        }
        self.objects.keys().filter(|k| k.namespace == container.name).cloned().collect()
    }
}

/// A dependent that its owner waits for.
fn blocks(object: &Value, owner: &str) -> bool {
    let references = object["metadata"]["ownerReferences"].as_array();
    references.into_iter().flatten().any(|r| r["uid"] == owner && r["blockOwnerDeletion"] == true)
}
