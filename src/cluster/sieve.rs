//! Lets through what can be read of a watch, and keeps what cannot.
//!
//! Stands before the store: what becomes unreadable is known before the store loses it, and what
//! can be read again is forgotten after the store has it, so that nobody takes an object for gone.
//! Leaves the store to kube's reflector, and telling people to `tell`.

use std::hash::Hash;
use std::sync::Arc;

use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Event;
use tokio::sync::watch;

use super::client::Kind;
use super::unreadable::{Read, Unread, Unreadable};

/// Most objects of a kind that are kept because they cannot be read; a definition that broke them
/// all is told of by the first ones.
const MOST: usize = 1000;

/// What stands before the store of one kind.
pub(super) struct Sieve<K>
where
    K: Kind,
    K::DynamicType: Hash + Eq,
{
    store: Store<K>,
    unread: watch::Sender<Unread>,
    /// What cannot be read of a list that is coming in.
    listing: Option<Unread>,
    /// What cannot be read any more once the store has the event that is on its way.
    after: Option<Unread>,
}

impl<K: Kind> Sieve<K> {
    /// Before this store; with what cannot be read.
    pub(super) fn before(store: Store<K>) -> (Self, watch::Receiver<Unread>) {
        let (unread, known) = watch::channel(Unread::default());
        (Self { store, unread, listing: None, after: None }, known)
    }

    /// The same event about an object that can be read; one that was there and cannot be read any
    /// more is deleted as far as the store is concerned.
    pub(super) fn pass(&mut self, event: Event<Read<K>>) -> Option<Event<K>> {
        let passed = match event {
            Event::Init => {
                self.listing = Some(Unread::default());
                Some(Event::Init)
            }
            Event::InitApply(Read::Whole(object)) => Some(Event::InitApply(object)),
            Event::InitApply(Read::Not(unreadable)) => {
                if let Some(listing) = &mut self.listing {
                    keep(listing, (*unreadable).clone());
                }
                self.add::<K>(*unreadable);
                None
            }
            Event::InitDone => {
                self.after = self.listing.take();
                Some(Event::InitDone)
            }
            Event::Apply(Read::Whole(object)) => {
                self.after = self.without(&id(object.meta()));
                Some(Event::Apply(object))
            }
            Event::Apply(Read::Not(unreadable)) => {
                let old = self.stored(&id(&unreadable.metadata));
                self.add::<K>(*unreadable);
                old.map(Event::Delete)
            }
            Event::Delete(read) => {
                let id = id(kube::Resource::meta(&read));
                self.after = self.without(&id);
                self.stored(&id).map(Event::Delete)
            }
        };
        if passed.is_none() {
            self.passed();
        }
        passed
    }

    /// To be called when the store has what was let through.
    pub(super) fn passed(&mut self) {
        if let Some(after) = self.after.take() {
            self.unread.send_if_modified(|unread| {
                let differs = *unread != after;
                *unread = after;
                differs
            });
        }
    }

    fn add<T: Kind>(&self, unreadable: Unreadable) {
        let (namespace, name) = id(&unreadable.metadata);
        let (kind, field) = (T::kind(&()), unreadable.field.as_str());
        tracing::warn!(%kind, namespace, name, field, "object cannot be read");
        self.unread.send_if_modified(|unread| keep(unread, unreadable));
    }

    /// What cannot be read, without one; `None` when it is not among it.
    fn without(&self, id: &(String, String)) -> Option<Unread> {
        let unread = self.unread.borrow();
        unread.contains_key(id).then(|| {
            let mut others = unread.clone();
            others.remove(id);
            others
        })
    }

    fn stored(&self, (namespace, name): &(String, String)) -> Option<K> {
        let reference = ObjectRef::new(name).within(namespace);
        self.store.get(&reference).map(Arc::unwrap_or_clone)
    }
}

/// Whether it is another thing now.
fn keep(unread: &mut Unread, unreadable: Unreadable) -> bool {
    let id = id(&unreadable.metadata);
    let same = unread.get(&id) == Some(&unreadable);
    let full = unread.len() >= MOST && !unread.contains_key(&id);
    if !same && !full {
        unread.insert(id, unreadable);
    }
    !same && !full
}

fn id(metadata: &kube::api::ObjectMeta) -> (String, String) {
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Postgres;
    use kube::ResourceExt as _;
    use kube::runtime::reflector;
    use serde_json::json;

    /// `good`: whether it can be read.
    fn read(name: &str, good: bool) -> Read<Postgres> {
        let storage = if good { json!({}) } else { json!({"accessModes": 5}) };
        let object = json!({
            "apiVersion": "kubedb.com/v1", "kind": "Postgres",
            "metadata": {"name": name, "namespace": "demo", "uid": name},
            "spec": {"version": "15", "storage": storage},
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn nothing_is_ever_neither_stored_nor_unread() {
        let (store, mut writer) = reflector::store();
        let (mut sieve, unread) = Sieve::before(store.clone());
        let mut check = |event: Event<Read<Postgres>>, stored: &[&str], kept: &[&str]| {
            let before: Vec<String> =
                unread.borrow().keys().map(|(_, name)| name.clone()).collect();
            if let Some(event) = sieve.pass(event) {
                // What was unread stays so until the store has the event.
                let between = unread.borrow().clone();
                assert!(before.iter().all(|n| between.contains_key(&("demo".into(), n.clone()))));
                writer.apply_watcher_event(&event);
                sieve.passed();
            }
            let mut names: Vec<String> = store.state().iter().map(|p| p.name_any()).collect();
            names.sort();
            assert_eq!(names, stored);
            let names: Vec<String> = unread.borrow().keys().map(|(_, name)| name.clone()).collect();
            assert_eq!(names, kept);
        };
        check(Event::Init, &[], &[]);
        check(Event::InitApply(read("a", true)), &[], &[]);
        check(Event::InitApply(read("b", false)), &[], &["b"]);
        check(Event::InitDone, &["a"], &["b"]);
        check(Event::Apply(read("a", false)), &[], &["a", "b"]);
        check(Event::Apply(read("b", true)), &["b"], &["a"]);
        // A list that comes in again: nothing is forgotten before it is whole.
        check(Event::Init, &["b"], &["a"]);
        check(Event::InitApply(read("a", true)), &["b"], &["a"]);
        check(Event::InitApply(read("c", false)), &["b"], &["a", "c"]);
        check(Event::InitDone, &["a"], &["c"]);
        check(Event::Delete(read("c", false)), &["a"], &[]);
        check(Event::Delete(read("a", true)), &[], &[]);
    }
}
