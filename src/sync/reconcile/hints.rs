//! Hints of local repositories, so that a push acts at once.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::Stream;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::triggers::reference;
use crate::api::ConfigRepository;
use crate::api::names::RepositoryRef;
use crate::git::{Hint, Hints, SourceUrl};

/// Hints that may wait: more than one for a repository says nothing new.
pub(in crate::sync) const HINTS: usize = 1024;

/// Hints of local repositories: a push acts at once.
pub(in crate::sync) struct HintBox {
    sender: mpsc::Sender<RepositoryRef>,
    receiver: Mutex<Option<mpsc::Receiver<RepositoryRef>>>,
    listening: Mutex<BTreeMap<RepositoryRef, (String, JoinHandle<()>)>>,
}

/// How often a watch that was lost is set up again.
const REFRESH: Duration = Duration::from_secs(10);

impl HintBox {
    pub(in crate::sync) fn new(
        sender: mpsc::Sender<RepositoryRef>,
        receiver: mpsc::Receiver<RepositoryRef>,
    ) -> Self {
        Self { sender, receiver: Mutex::new(Some(receiver)), listening: Mutex::default() }
    }

    /// Listens to the repository's folder, if it has one.
    pub(super) fn listen(&self, repository: &ConfigRepository) {
        let Ok(url) = SourceUrl::parse(&repository.spec.url) else { return };
        if url.local_path().is_none() {
            return;
        }
        let id = repository.repository();
        let mut listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        let known = listening.get(&id);
        if known.is_some_and(|(known, task)| known == url.as_str() && !task.is_finished()) {
            return;
        }
        let (sender, told) = (self.sender.clone(), id.clone());
        let mut hints = Hints::new(&url);
        let task = tokio::spawn(async move {
            loop {
                if hints.next(REFRESH).await == Hint::Changed
                    && sender.send(told.clone()).await.is_err()
                {
                    return;
                }
            }
        });
        if let Some((_, old)) = listening.insert(id, (url.as_str().to_owned(), task)) {
            old.abort();
        }
    }

    /// The hints, once.
    pub(super) fn stream(
        &self,
    ) -> impl Stream<Item = ObjectRef<ConfigRepository>> + Send + 'static {
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take();
        futures::stream::unfold(receiver, |receiver| async move {
            let mut receiver = receiver?;
            let id = receiver.recv().await?;
            Some((reference(&id), Some(receiver)))
        })
    }

    /// Ends all listening.
    pub(super) fn silence(&self) {
        let mut listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, (_, task)) in std::mem::take(&mut *listening) {
            task.abort();
        }
    }
}
