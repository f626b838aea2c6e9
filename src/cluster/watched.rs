//! A kind, watched once for the whole process.
//!
//! Keeps the newest state that the API server told of, and tells whoever listens that an object was
//! touched. What is read here may be old: whoever writes guards the write by a resourceVersion or
//! by the name of what it creates. An object that cannot be read is not among those that are kept,
//! hides no other, and is known by itself. Never writes.

use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::ExponentialBuilder;
use futures::{Stream, StreamExt};
use kube::Api;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::utils::ResetTimerBackoff;
use kube::runtime::watcher::{self, ExponentialBackoff};
use kube::runtime::{WatchStreamExt, watcher as watch_all};
use tokio::sync::{broadcast, watch};

use super::client::{Cluster, Kind};
use super::sieve::Sieve;
use super::unreadable::{Read, Unread};

/// Objects that a slow listener may be behind before it loses some. A loop that lost touches
/// still looks at every object at its interval; 4096 is more than one relist of 1 000 databases.
const BEHIND: usize = 4096;

/// Pauses of a watch that broke: kube's own grow to 30 s and stay long for two minutes, for which
/// nothing that changes would be seen. Up to as much again is added by chance, so that two
/// processes ask at least every five seconds: no burden for an API server that comes back.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(2500));
/// A watch that went well for this long begins with short pauses again.
const WENT_WELL: Duration = Duration::from_secs(20);

fn pauses() -> ResetTimerBackoff<ExponentialBackoff> {
    let (shortest, longest) = PAUSES;
    let growing = ExponentialBuilder::default()
        .with_min_delay(shortest)
        .with_max_delay(longest)
        .with_jitter()
        .without_max_times();
    ResetTimerBackoff::new(growing.into(), WENT_WELL)
}

/// The objects of one kind.
pub struct Watched<K>
where
    K: Kind,
    K::DynamicType: Hash + Eq,
{
    store: Store<K>,
    touched: broadcast::Sender<Arc<K>>,
    told: Arc<AtomicU64>,
    unread: watch::Receiver<Unread>,
    ready: watch::Receiver<bool>,
    watching: tokio::task::JoinHandle<()>,
}

/// Whether one kind's first list is in; outlives the watch, which then stays as it was.
#[derive(Clone, Debug)]
pub struct InSync {
    /// The kind, as `Postgres`.
    pub kind: String,
    ready: watch::Receiver<bool>,
}

impl InSync {
    /// Whether the first list is in.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }
}

/// What a panicking pass left behind is at worst old.
fn lock<K: Kind>(sieve: &Mutex<Sieve<K>>) -> MutexGuard<'_, Sieve<K>> {
    sieve.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Kind> Watched<K> {
    /// Begins to watch, in all namespaces, what carries these labels (all when `None`).
    pub fn start(cluster: &Cluster, labels: Option<&str>) -> Arc<Self> {
        let api = Api::<Read<K>>::all(cluster.client());
        let (reader, writer) = reflector::store();
        let told = Arc::<AtomicU64>::default();
        let (sieve, unread) = Sieve::before(reader.clone());
        let sieve = Arc::new(Mutex::new(sieve));
        let (before, behind, count) = (sieve.clone(), sieve, told.clone());
        let config = watcher::Config {
            label_selector: labels.map(str::to_owned),
            ..watcher::Config::default()
        };
        let events = watch_all(api, config).filter_map(move |event| {
            let passed = event.map(|event| lock(&before).pass(event)).transpose();
            if passed.is_none() {
                count.fetch_add(1, Ordering::Release);
            }
            std::future::ready(passed)
        });
        let (touched, _) = broadcast::channel(BEHIND);
        let sender = touched.clone();
        let count = told.clone();
        let watching = tokio::spawn(async move {
            let events = events.backoff(pauses()).reflect(writer);
            // Counted when the store has it: whoever reads the number first never misses a change.
            let events = events.inspect(move |_| {
                lock(&behind).passed();
                count.fetch_add(1, Ordering::Release);
            });
            let events = events.touched_objects();
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                match event {
                    // Nobody listening yet is no failure: listeners begin with the whole store.
                    Ok(object) => drop(sender.send(Arc::new(object))),
                    Err(error) => broke::<K>(&error),
                }
            }
        });
        let (tell, ready) = watch::channel(false);
        let first = reader.clone();
        tokio::spawn(async move {
            // An error means that the watch was dropped: nobody waits any more.
            if first.wait_until_ready().await.is_ok() {
                tell.send_replace(true);
            }
        });
        Arc::new(Self { store: reader, touched, told, unread, ready, watching })
    }

    /// Waits until the first list is in; for ever when the watch ended before. Any number may
    /// wait here: the store's own `wait_until_ready` (kube 5.0) wakes only the last who asked, so
    /// a `Controller` is to be started on the store only after this.
    pub async fn ready(&self) {
        if self.ready.clone().wait_for(|ready| *ready).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether the first list is in, for those who tell of it.
    pub fn in_sync(&self) -> InSync {
        InSync { kind: K::kind(&()).into_owned(), ready: self.ready.clone() }
    }

    /// How often the API server has told of something. While this number stays the same, so does
    /// everything that can be read here; it is to be read before that.
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::Acquire)
    }

    /// An object by namespace and name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.store.get(&ObjectRef::new(name).within(namespace))
    }

    /// All objects, by namespace and name.
    pub fn all(&self) -> Vec<Arc<K>> {
        let mut all = self.store.state();
        all.sort_by_cached_key(|object| {
            (object.meta().namespace.clone(), object.meta().name.clone())
        });
        all
    }

    /// What cannot be read now, and its changes.
    pub fn unread(&self) -> watch::Receiver<Unread> {
        self.unread.clone()
    }

    /// Why an object that the API server has cannot be read; `None` when it can be, or is not
    /// there.
    pub fn unreadable(&self, namespace: &str, name: &str) -> Option<String> {
        let id = (namespace.to_owned(), name.to_owned());
        let words = self.unread.borrow().get(&id).map(|unreadable| unreadable.words())?;
        Some(format!("{} {namespace}/{name}: {words}", K::kind(&())))
    }

    /// Whether an object of this UID is there and cannot be read.
    pub fn is_unreadable(&self, uid: &str) -> bool {
        let unread = self.unread.borrow();
        unread.values().any(|one| one.metadata.uid.as_deref() == Some(uid))
    }

    /// Why something about a database cannot be read: a request for it.
    pub fn unreadable_about(&self, namespace: &str, database: &str) -> Option<String> {
        let unread = self.unread.borrow();
        let mut about = unread.iter().filter(|((there, _), one)| {
            there == namespace && one.database.as_deref() == Some(database)
        });
        let ((_, name), one) = about.next()?;
        Some(format!("{} {namespace}/{name}: {}", K::kind(&()), one.words()))
    }

    /// The store, for `Controller::for_stream`.
    pub fn store(&self) -> Store<K> {
        self.store.clone()
    }

    /// Every object that is touched from now on, deletions included.
    pub fn changes(&self) -> impl Stream<Item = Arc<K>> + Send + 'static {
        let receiver = self.touched.subscribe();
        futures::stream::unfold(receiver, |mut receiver| async move {
            loop {
                match receiver.recv().await {
                    Ok(object) => return Some((object, receiver)),
                    // What was lost is looked at at the next interval.
                    Err(broadcast::error::RecvError::Lagged(lost)) => {
                        tracing::warn!(kind = %K::kind(&()), lost, "listener is behind");
                    }
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        })
    }

    /// What is there now, then every touched object: for `Controller::for_stream`.
    pub fn objects(&self) -> impl Stream<Item = Result<K, watcher::Error>> + Send + 'static {
        // Subscribed before the store is read: an object may come twice, but is never missed.
        let changes = self.changes();
        let now = self.store.state();
        futures::stream::iter(now).chain(changes).map(|object| Ok(Arc::unwrap_or_clone(object)))
    }
}

/// Tells that a watch broke. It goes on by itself with growing pauses, and what the server says of
/// its reason names the verb, the resource and who was refused.
fn broke<K: Kind>(error: &watcher::Error) {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::warn!(kind = %K::kind(&()), %error, cause, "watch broke; it goes on");
}

impl<K: Kind> Drop for Watched<K> {
    fn drop(&mut self) {
        self.watching.abort();
    }
}
