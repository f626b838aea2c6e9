//! One look at one repository. Says when to look again; never what to look at.
//!
//! A pass takes no hint about what changed: a timer, a push, a watch or the annotation
//! `pgitops.dev/requestedAt` only says when. Leaves every decision to `plan.rs` and every effect to
//! `act.rs`. Never waits for a rollout.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::select_all;
use kube::ResourceExt;
use kube::runtime::Controller;
use kube::runtime::controller::{Action, Config};
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::act::Error;
use super::drift::Drift;
use super::outcome::Outcome;
use super::plan::Plan;
use super::{Context, act, observe};
use crate::api::names::{DatabaseRef, RepositoryRef, annotations};
use crate::api::{ConfigRepository, Postgres, PostgresOpsRequest};
use crate::cluster::Retry;
use crate::git::{self, Hint, Hints, SourceUrl};
use crate::telemetry::metrics::Pass;

/// Repositories looked at at the same time. A pass waits for git and the API server.
const CONCURRENCY: u16 = 8;
/// Pause while we do not lead: taking over should not wait long for the first pass.
const NOT_LEADING: Duration = Duration::from_secs(1);
/// Shortest interval, whatever the spec says.
const SHORTEST: Duration = Duration::from_secs(1);
/// Pause after a pass that failed, doubled each time.
const AGAIN: Duration = Duration::from_millis(250);
/// Longest such pause.
const LONGEST: Duration = Duration::from_secs(60);
/// Hints that may wait: more than one for a repository says nothing new.
pub(super) const HINTS: usize = 1024;

/// Looks at one repository.
///
/// # Errors
/// What kept the pass from its end; the next one goes on.
pub async fn reconcile(
    repository: Arc<ConfigRepository>,
    cx: Arc<Context>,
) -> Result<Action, Error> {
    if cx.leadership.transitions().is_none() {
        return Ok(Action::requeue(NOT_LEADING));
    }
    if repository.metadata.deletion_timestamp.is_some() {
        act::release(&repository, &cx).await?; //                                         write
        return Ok(Action::await_change());
    }
    act::keep(&repository, &cx).await?; //                                                write
    cx.hints.listen(&repository);
    let look = match observe::source(&repository, &cx).await {
        //                         read
        Ok(look) => look,
        Err(error) => return unreadable(&repository, error, &cx).await,
    };
    let live = observe::live(&repository, &look, &cx).await; //                           read
    let now = (cx.clock)();
    let drift = Drift::between(&look.desired, &live); //                                  pure
    let plan = Plan::make(&look.source, &look.desired, &drift, &live, now); //            pure
    let refused = act::emit(&plan, &cx).await; //                                         write
    let outcome = Outcome::of(&look.source, &look.desired, &plan, &live, &refused, now); //         pure
    act::publish(&repository, &look, &plan, &outcome, &live, &cx).await?; //              write
    cx.memory.of(&repository.repository(), |remembered| remembered.failures = 0);
    Ok(Action::requeue(next_look(&repository, &plan, now, !refused.is_empty())))
}

/// When to look again if nothing says so before.
fn next_look(
    repository: &ConfigRepository,
    plan: &Plan,
    now: jiff::Timestamp,
    again: bool,
) -> Duration {
    let interval = repository.spec.interval.0.max(SHORTEST);
    let opens = plan.wake.map(|wake| wake.duration_since(now).unsigned_abs());
    let soon = again.then_some(SHORTEST);
    [Some(interval), opens, soon].into_iter().flatten().min().unwrap_or(interval)
}

/// A repository that cannot be read: says so, and when it may be otherwise.
async fn unreadable(
    repository: &ConfigRepository,
    error: git::Error,
    cx: &Context,
) -> Result<Action, Error> {
    tracing::warn!(%error, "repository cannot be read");
    act::unreadable(repository, &error, cx).await?;
    match error.retry() {
        git::Retry::Soon => Err(Error::Git(error)),
        git::Retry::AtInterval | git::Retry::AfterChange => {
            Ok(Action::requeue(repository.spec.interval.0.max(SHORTEST)))
        }
    }
}

/// Runs until `shutdown`.
///
/// # Errors
/// None at present: what a pass cannot do is told in the status and tried again.
pub async fn run(cx: Arc<Context>, shutdown: CancellationToken) -> Result<(), Error> {
    cx.ready().await;
    let (of_database, of_request, of_secret) = (cx.clone(), cx.clone(), cx.clone());
    let touched = select_all([
        cx.databases
            .changes()
            .flat_map(move |p| {
                futures::stream::iter(of_database.concerned(&p.database(), Some(&p)))
            })
            .boxed(),
        cx.requests
            .changes()
            .flat_map(move |r| futures::stream::iter(of_request.asked_by(&r)))
            .boxed(),
        cx.secrets
            .changes()
            .flat_map(move |s| {
                let namespace = s.namespace().unwrap_or_default();
                futures::stream::iter(of_secret.configured_by(&namespace, &s.name_any()))
            })
            .boxed(),
        cx.hints.stream().boxed(),
    ]);
    let done = cx.clone();
    Controller::for_stream(cx.repositories.objects(), cx.repositories.store())
        .with_config(Config::default().concurrency(CONCURRENCY))
        .reconcile_on(touched)
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(spanned, again, cx.clone())
        .for_each(|pass| async move {
            if let Err(error) = pass {
                tracing::debug!(%error, "pass ended early");
            }
        })
        .await;
    done.hints.silence();
    Ok(())
}

async fn spanned(repository: Arc<ConfigRepository>, cx: Arc<Context>) -> Result<Action, Error> {
    let id = repository.repository();
    let span = tracing::info_span!("sync", repository = %id);
    async {
        let done = reconcile(repository, cx.clone()).await;
        let result = if done.is_ok() { "done" } else { "failed" };
        cx.metrics.passes.get_or_create(&Pass { controller: "sync", result }).inc();
        if let Err(error) = &done {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(%error, cause, "pass failed");
        }
        done
    }
    .instrument(span)
    .await
}

/// When a pass that failed is tried again.
fn again(repository: Arc<ConfigRepository>, error: &Error, cx: Arc<Context>) -> Action {
    let failures = cx.memory.of(&repository.repository(), |remembered| {
        remembered.failures = remembered.failures.saturating_add(1);
        remembered.failures
    });
    let pause = AGAIN.saturating_mul(1 << failures.min(8)).min(LONGEST);
    match error {
        Error::Cluster(error) => match error.retry() {
            Retry::Soon => Action::requeue(AGAIN),
            Retry::Later => Action::requeue(pause),
            Retry::Never => Action::requeue(LONGEST),
        },
        Error::Git(_) => Action::requeue(pause),
    }
}

type Repositories = Vec<ObjectRef<ConfigRepository>>;

fn reference(id: &RepositoryRef) -> ObjectRef<ConfigRepository> {
    ObjectRef::new(&id.name).within(&id.namespace)
}

impl Context {
    /// The repositories that a database concerns: those whose documents name it, and the one that
    /// holds the claim.
    fn concerned(&self, database: &DatabaseRef, postgres: Option<&Postgres>) -> Repositories {
        let claim = postgres.and_then(|p| p.annotations().get(annotations::CLAIM));
        let claim = claim.and_then(|text| crate::api::Claim::parse(text));
        let holder = claim.and_then(|claim| parse(&claim.repository_name));
        let concerned = self.memory.concerned(database);
        let all: std::collections::BTreeSet<RepositoryRef> =
            concerned.into_iter().chain(holder).collect();
        all.iter().map(reference).collect()
    }

    /// The repositories that a request concerns.
    fn asked_by(&self, request: &PostgresOpsRequest) -> Repositories {
        let mut all = self.concerned(&request.database(), None);
        let own = request.annotation(annotations::REPOSITORY).and_then(parse);
        let own = own.as_ref().map(reference);
        all.extend(own.filter(|own| !all.contains(own)).into_iter().collect::<Vec<_>>());
        all
    }

    /// The repositories that a Secret concerns.
    fn configured_by(&self, namespace: &str, secret: &str) -> Repositories {
        let databases = self.databases.store().state();
        let named = databases.iter().filter(|postgres| {
            postgres.namespace().as_deref() == Some(namespace)
                && (postgres.spec.secret_name() == Some(secret)
                    || postgres.children().operator_config == secret)
        });
        named.flat_map(|postgres| self.concerned(&postgres.database(), Some(postgres))).collect()
    }
}

fn parse(id: &str) -> Option<RepositoryRef> {
    let (namespace, name) = id.split_once('/')?;
    Some(RepositoryRef { namespace: namespace.to_owned(), name: name.to_owned() })
}

/// Hints of local repositories: a push acts at once.
pub(super) struct HintBox {
    sender: mpsc::Sender<RepositoryRef>,
    receiver: Mutex<Option<mpsc::Receiver<RepositoryRef>>>,
    listening: Mutex<BTreeMap<RepositoryRef, (String, tokio::task::JoinHandle<()>)>>,
}

/// How often a watch that was lost is set up again.
const REFRESH: Duration = Duration::from_secs(10);

impl HintBox {
    pub(super) fn new(
        sender: mpsc::Sender<RepositoryRef>,
        receiver: mpsc::Receiver<RepositoryRef>,
    ) -> Self {
        Self { sender, receiver: Mutex::new(Some(receiver)), listening: Mutex::default() }
    }

    /// Listens to the repository's folder, if it has one.
    fn listen(&self, repository: &ConfigRepository) {
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
    fn stream(&self) -> impl futures::Stream<Item = ObjectRef<ConfigRepository>> + Send + 'static {
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take();
        futures::stream::unfold(receiver, |receiver| async move {
            let mut receiver = receiver?;
            let id = receiver.recv().await?;
            Some((reference(&id), Some(receiver)))
        })
    }

    /// Ends all listening.
    fn silence(&self) {
        let mut listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, (_, task)) in std::mem::take(&mut *listening) {
            task.abort();
        }
    }
}
