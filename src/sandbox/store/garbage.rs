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
            } else if !self.release_owners() && !self.empty_containers(now) {
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
    fn release_owners(&mut self) -> bool {
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
        if left.is_empty() {
            self.remove(&key);
        } else {
            new["metadata"]["finalizers"] = json!(left);
            self.put(&key, new);
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

impl Store {
    /// Events of the past go, as the real server's do after an hour.
    pub fn expire_events(&mut self, now: Timestamp) {
        let old = |event: &Value| {
            let times = ["/series/lastObservedTime", "/lastTimestamp", "/eventTime"];
            let seen = times
                .iter()
                .chain(&["/metadata/creationTimestamp"])
                .find_map(|path| event.pointer(path)?.as_str()?.parse::<Timestamp>().ok());
            seen.is_some_and(|seen| now.duration_since(seen).as_hours() >= 1)
        };
        let gone: Vec<Key> = self
            .range("events", None)
            .filter(|(_, event)| old(event))
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.remove(&key);
        }
        self.settle(now);
    }
}

/// A dependent that its owner waits for.
fn blocks(object: &Value, owner: &str) -> bool {
    let references = object["metadata"]["ownerReferences"].as_array();
    references.into_iter().flatten().any(|r| r["uid"] == owner && r["blockOwnerDeletion"] == true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::store::{patch::Patch, tests::World};

    fn map(name: &str, owner: Option<&Value>, finalizers: &[&str]) -> Value {
        let owners: Vec<Value> = owner
            .into_iter()
            .map(|o| {
                json!({"apiVersion": "v1", "kind": "ConfigMap", "name": o["metadata"]["name"],
                       "uid": o["metadata"]["uid"], "blockOwnerDeletion": true})
            })
            .collect();
        json!({"metadata": {"name": name, "ownerReferences": owners, "finalizers": finalizers}})
    }

    fn check(how: Dependents, left: &[&str]) {
        let mut world = World::new();
        let top = world.create("configmaps", map("a", None, &[])).unwrap();
        let middle = world.create("configmaps", map("b", Some(&top), &[])).unwrap();
        world.create("configmaps", map("c", Some(&middle), &[])).unwrap();
        let deletion = Deletion { dependents: how, ..Deletion::default() };
        world.delete("configmaps", "a", &deletion).unwrap();
        assert_eq!(world.names(), left, "{how:?}");
    }

    #[test]
    fn dependents_go_or_stay() {
        check(Dependents::Background, &[]);
        check(Dependents::Foreground, &[]);
        check(Dependents::Orphan, &["configmaps/b", "configmaps/c"]);
    }

    #[test]
    fn an_object_without_a_living_owner_goes() {
        let mut world = World::new();
        let stranger = json!({"metadata": {"name": "gone", "uid": "nobody"}});
        world.create("configmaps", map("a", Some(&stranger), &[])).unwrap();
        assert!(world.names().is_empty());
    }

    #[test]
    fn a_finalizer_holds_its_object_and_its_namespace() {
        let mut world = World::new();
        world.create("configmaps", map("a", None, &["x/y"])).unwrap();
        world.create("configmaps", map("b", None, &[])).unwrap();
        assert_eq!(world.delete("namespaces", "demo", &Deletion::default()), Ok(false));
        assert_eq!(world.names(), ["configmaps/a"]);
        assert_eq!(world.create("configmaps", map("c", None, &[])).unwrap_err().code, 403);
        let more = Patch::Merge(json!({"metadata": {"finalizers": ["x/y", "z/z"]}}));
        assert_eq!(world.patch("configmaps", "a", "t", &more).unwrap_err().code, 422);
        let release = Patch::Merge(json!({"metadata": {"finalizers": []}}));
        world.patch("configmaps", "a", "t", &release).unwrap();
        assert!(world.names().is_empty());
        assert!(world.store.get(&world.kind("namespaces"), "", "demo").is_err());
    }

    #[test]
    fn a_pod_on_a_node_waits_for_it() {
        let mut world = World::new();
        let pod = |node: &str| {
            json!({"metadata": {"name": "p"}, "spec": {
                "nodeName": node, "containers": [{"name": "c", "image": "x"}]}})
        };
        world.create("pods", pod("sandbox")).unwrap();
        assert_eq!(world.delete("pods", "p", &Deletion::default()), Ok(false));
        let now = Deletion { grace: Some(0), ..Deletion::default() };
        assert_eq!(world.delete("pods", "p", &now), Ok(true));
        world.create("pods", pod("")).unwrap();
        assert_eq!(world.delete("pods", "p", &Deletion::default()), Ok(true));
    }
}
