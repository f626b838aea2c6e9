//! What was asked of the API: how often, as the proof that an idle loop makes no calls; and by whom
//! in which scope, as an authorizer would see it, so that granted rights can be compared with used
//! ones. Nothing is refused here: whoever has the sandbox's token may do everything.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::sandbox::store::refusal::qualified;

/// Requests by verb (`get`, `list`, `watch`, `create`, `update`, `patch`, `delete`,
/// `deletecollection`) and resource (`pods`, `postgreses.kubedb.com/status`).
pub type Counts = BTreeMap<(String, String), u64>;

/// Distinct accesses that are remembered: some fifty for each user and namespace. Beyond it new
/// ones are left out, because users and namespaces are names that clients choose.
const ACCESSES: usize = 10_000;

/// One thing that a user did, as an authorizer is asked about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Access {
    /// Whom the client acts for (`Impersonate-User`); [`ADMIN`] when it says nothing.
    pub user: String,
    /// As in [`Counts`].
    pub verb: &'static str,
    /// The API group, empty for the core.
    pub group: String,
    /// The resource, as `pods`.
    pub plural: String,
    /// The subresource, as `status`.
    pub subresource: Option<String>,
    /// The namespace; `None` for the whole cluster.
    pub namespace: Option<String>,
}

/// The user of the sandbox's token.
pub const ADMIN: &str = "pgitops-sandbox";

/// The same without what is asked all the time, whatever happens: watches, leases, the nodes' own
/// heartbeat.
pub(super) fn without_heartbeats(mut counts: Counts) -> Counts {
    counts.retain(|(verb, resource), _| {
        verb != "watch" && !resource.starts_with("leases") && !resource.starts_with("nodes")
    });
    counts
}

/// Counts requests.
#[derive(Debug, Default)]
pub(super) struct Counter(Mutex<Asked>);

#[derive(Debug, Default)]
struct Asked {
    counts: Counts,
    accesses: BTreeSet<Access>,
}

impl Counter {
    /// A request.
    pub(super) fn add(&self, access: Access) {
        let mut what = qualified(&access.group, &access.plural);
        if let Some(subresource) = &access.subresource {
            what = format!("{what}/{subresource}");
        }
        let mut asked = self.lock();
        *asked.counts.entry((access.verb.to_owned(), what)).or_default() += 1;
        asked.remember(access);
    }

    /// A right that a request needs besides, and that is no request of its own.
    pub(super) fn also(&self, access: Access) {
        self.lock().remember(access);
    }

    pub(super) fn read(&self) -> Counts {
        self.lock().counts.clone()
    }

    pub(super) fn accesses(&self) -> BTreeSet<Access> {
        self.lock().accesses.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asked {
    fn remember(&mut self, access: Access) {
        if self.accesses.len() < ACCESSES {
            self.accesses.insert(access);
        }
    }
}
