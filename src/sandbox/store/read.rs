//! Reading: one object, a list (also as it was at a revision in the past), changes.

use super::{Key, Store, kinds::Kind, log::Change, refusal::Refusal, rules, selector::Selector};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// A list, or a page of one.
#[derive(Debug)]
pub struct Page {
    /// The objects, ordered by namespace and name.
    pub items: Vec<Arc<Value>>,
    /// The revision of the whole list.
    pub revision: u64,
    /// The last key of the page, if more follow.
    pub last: Option<(String, String)>,
    /// How many follow; only told without a selector, as the real server does.
    pub remaining: Option<usize>,
}

/// Which part of a list.
#[derive(Debug, Default)]
pub struct Span<'a> {
    /// Only this namespace.
    pub namespace: Option<&'a str>,
    /// The list as it was at this revision.
    pub at: Option<u64>,
    /// At most this many.
    pub limit: Option<usize>,
    /// Only what comes after this namespace and name.
    pub after: Option<(String, String)>,
}

impl Kind {
    /// Where an object of this kind stands.
    pub fn key(&self, namespace: &str, name: &str) -> Key {
        let namespace = if self.namespaced { namespace } else { "" };
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        Key { storage: self.storage.clone(), namespace, name }
    }

    /// A stored object in this kind's version and form.
    pub fn present(&self, object: &Arc<Value>) -> Arc<Value> {
        if self.is("events.k8s.io", "Event") {
            return Arc::new(rules::event::from_stored(object));
        }
        let api_version = self.api_version();
        if object["apiVersion"] == api_version.as_str() {
            return Arc::clone(object);
        }
        let mut object = Value::clone(object);
        object["apiVersion"] = json!(api_version);
        Arc::new(object)
    }
}

impl Store {
    /// One object.
    ///
    /// # Errors
    /// 404.
    pub fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Arc<Value>, Refusal> {
        let stored = self.objects.get(&kind.key(namespace, name));
        let stored = stored.ok_or_else(|| Refusal::not_found(&kind.group, &kind.plural, name))?;
        Ok(kind.present(stored))
    }

    /// A list in order of namespace and name.
    ///
    /// # Errors
    /// 410 if the revision is no longer known, 504 if it lies in the future.
    pub fn list(&self, kind: &Kind, selector: &Selector, span: &Span<'_>) -> Result<Page, Refusal> {
        let revision = span.at.unwrap_or(self.revision);
        let past;
        let objects: Box<dyn Iterator<Item = (&Key, &Arc<Value>)>> = if revision == self.revision {
            Box::new(self.range(&kind.storage, span.namespace))
        } else {
            past = self.as_it_was(&kind.storage, span.namespace, revision)?;
            Box::new(past.iter())
        };
        let mut page = Page { items: Vec::new(), revision, last: None, remaining: None };
        let mut more = 0;
        let mut last = None;
        for (key, object) in objects {
            let place = (key.namespace.clone(), key.name.clone());
            if span.after.as_ref().is_some_and(|after| place <= *after) {
                continue;
            }
            let object = kind.present(object);
            if !selector.selects(&object) {
                continue;
            }
            if span.limit.is_some_and(|limit| page.items.len() >= limit) {
                more += 1;
                continue;
            }
            page.items.push(object);
            last = Some(place);
        }
        if more > 0 {
            page.last = last;
            page.remaining = selector.is_everything().then_some(more);
        }
        Ok(page)
    }

    /// The changes after a revision.
    ///
    /// # Errors
    /// 410 if some of them are no longer kept.
    pub fn changes(&self, after: u64) -> Result<impl DoubleEndedIterator<Item = &Change>, Refusal> {
        self.log.after_revision(after)
    }

    /// The objects of a kind of storage, in order.
    pub(super) fn range(
        &self,
        storage: &str,
        namespace: Option<&str>,
    ) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        let start = Key {
            storage: storage.to_owned(),
            namespace: namespace.unwrap_or_default().to_owned(),
            name: String::new(),
        };
        let (storage, namespace) = (storage.to_owned(), namespace.map(str::to_owned));
        self.objects.range(start..).take_while(move |(key, _)| {
            key.storage == storage && namespace.as_ref().is_none_or(|n| *n == key.namespace)
        })
    }

    /// The objects at a revision in the past: the present ones with later changes undone.
    fn as_it_was(
        &self,
        storage: &str,
        namespace: Option<&str>,
        revision: u64,
    ) -> Result<BTreeMap<Key, Arc<Value>>, Refusal> {
        if revision > self.revision {
            return Err(Refusal::from_the_future(revision, self.revision));
        }
        let range = self.range(storage, namespace);
        let mut objects: BTreeMap<Key, Arc<Value>> =
            range.map(|(key, object)| (key.clone(), Arc::clone(object))).collect();
        let later = self.log.after_revision(revision).map_err(|_| {
            Refusal::expired(
                "The provided continue parameter is too old to display a consistent list result. \
                 You must start a new list without the continue parameter.",
            )
        })?;
        for change in later.rev() {
            let here = change.key.storage == storage
                && namespace.is_none_or(|n| n == change.key.namespace);
            match &change.previous {
                _ if !here => {}
                Some(previous) => {
                    objects.insert(change.key.clone(), Arc::clone(previous));
                }
                None => {
                    objects.remove(&change.key);
                }
            }
        }
        Ok(objects)
    }
}
