//! How often each verb was asked of each resource: the proof that an idle loop makes no calls.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// Requests by verb (`get`, `list`, `watch`, `create`, `update`, `patch`, `delete`,
/// `deletecollection`) and resource (`pods`, `postgreses.kubedb.com/status`).
pub type Counts = BTreeMap<(String, String), u64>;

/// Counts requests.
#[derive(Debug, Default)]
pub(super) struct Counter(Mutex<Counts>);

impl Counter {
    pub(super) fn add(&self, verb: &str, resource: String) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((verb.to_owned(), resource)).or_default() += 1;
    }

    pub(super) fn read(&self) -> Counts {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
