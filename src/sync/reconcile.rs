//! One look at one repository. Says when to look again; never what to look at.
//!
//! A pass takes no hint about what changed: a timer, a push, a watch or the annotation
//! `pgitops.dev/requestedAt` only says when. Leaves every decision to `plan.rs` and every effect to
//! `act.rs`. Never waits for a rollout.

mod hints;
mod triggers;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::select_all;
use kube::ResourceExt;
use kube::runtime::Controller;
use kube::runtime::controller::{Action, Config};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

pub(super) use hints::{HINTS, HintBox};

use super::act::{Emitted, Error};
use super::drift::Drift;
use super::observe::Look;
use super::outcome::Outcome;
use super::plan::Plan;
use super::settled::{Inputs, Settled};
use super::source::Source;
use super::{Context, act, observe};
use crate::api::ConfigRepository;
use crate::cluster::Retry;
use crate::git;

/// Repositories looked at at the same time. A pass waits for git and the API server.
const CONCURRENCY: u16 = 8;
/// Pause while we do not lead: taking over should not wait long for the first pass.
const NOT_LEADING: Duration = Duration::from_secs(1);
/// Shortest interval, whatever the spec says.
const SHORTEST: Duration = Duration::from_secs(1);
/// Pause after a pass of which the API server did not take something that a person has to mend:
/// nothing tells when that is done.
const REFUSED: Duration = Duration::from_secs(10);
/// Pause after a pass that wrote to an object that had changed, doubled each time: the watch is a
/// few milliseconds behind.
const READ_AGAIN: Duration = Duration::from_millis(25);
/// Pause after a pass that failed, doubled each time.
const AGAIN: Duration = Duration::from_millis(250);
/// Longest such pause.
const LONGEST: Duration = Duration::from_secs(60);
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
        act::release(&repository, &cx).await?; //                                    write
        return Ok(Action::await_change());
    }
    act::keep(&repository, &cx).await?; //                                           write
    cx.hints.listen(&repository);
    let told = cx.told();
    let look = match observe::source(&repository, &cx).await {
        //                    read
        Ok(look) => look,
        Err(error) => return unreadable(&repository, error, &cx).await,
    };
    let Look { source, desired, .. } = &look;
    let inputs = inputs(&repository, source, told);
    if let Some(again) = nothing_new(&repository, &inputs, &cx) {
        return Ok(Action::requeue(again));
    }
    let live = observe::live(&repository, desired, &cx).await; //                    read
    let now = (cx.clock)();
    let drift = Drift::between(desired, &live); //                                   pure
    let plan = Plan::make(source, desired, &drift, &live, now); //                   pure
    let emitted = act::emit(&plan, &cx).await; //                                    write
    act::count(&emitted.ended, &look, &cx).await;
    let refused = &emitted.refused;
    let outcome = Outcome::of(source, desired, &plan, &live, refused, now); //       pure
    let told = act::publish(&repository, &look, &plan, &outcome, &live, &cx).await?; // write
    let servers = observe::servers::next_look(live.keys(), &cx);
    let settled = Settled::after(inputs, &plan, &live, servers, now); //             pure
    cx.memory.of(&repository.repository(), |remembered| {
        remembered.settled = settled.filter(|_| told && !emitted.again && refused.is_empty());
        remembered.not_taken = refused.keys().cloned().collect();
        remembered.failures = 0;
    });
    Ok(Action::requeue(next_look(&repository, &plan, now, &emitted)))
}

fn inputs(repository: &ConfigRepository, source: &Source, told: [u64; 4]) -> Inputs {
    let repository = repository.metadata.resource_version.clone();
    Inputs { repository, head: source.head.clone(), told }
}

/// When to look again, if the last whole look stands.
fn nothing_new(repository: &ConfigRepository, inputs: &Inputs, cx: &Context) -> Option<Duration> {
    let now = (cx.clock)();
    let settled = cx.memory.of(&repository.repository(), |remembered| remembered.settled.clone());
    let settled = settled.filter(|settled| settled.stands(inputs, now))?;
    let left = settled.until().duration_since(now).unsigned_abs();
    Some(repository.spec.interval.0.max(SHORTEST).min(left))
}

/// When to look again if nothing says so before.
fn next_look(
    repository: &ConfigRepository,
    plan: &Plan,
    now: jiff::Timestamp,
    emitted: &Emitted,
) -> Duration {
    let interval = repository.spec.interval.0.max(SHORTEST);
    let opens = plan.wake.map(|wake| wake.duration_since(now).unsigned_abs());
    let soon = emitted.again.then_some(SHORTEST);
    let mended = (!emitted.refused.is_empty()).then_some(REFUSED);
    [Some(interval), opens, soon, mended].into_iter().flatten().min().unwrap_or(interval)
}

/// A repository that cannot be read: says so, and when it may be otherwise.
async fn unreadable(
    repository: &ConfigRepository,
    error: git::Error,
    cx: &Context,
) -> Result<Action, Error> {
    if matches!(error, git::Error::Empty { .. }) {
        tracing::debug!(%error, "waiting for the first push");
    } else {
        tracing::warn!(%error, "repository cannot be read");
    }
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
        let began = Instant::now();
        let done = reconcile(repository, cx.clone()).await;
        cx.metrics.pass("sync", done.is_ok(), began.elapsed());
        if let Err(error) = &done {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            match error {
                // The last pass's own write, mostly, which the watch has not told yet.
                Error::Cluster(conflict) if conflict.is_conflict() => {
                    tracing::debug!(%error, cause, "pass begins anew");
                }
                Error::Cluster(error) => {
                    tracing::warn!(error = error.without_values(), cause, "pass failed");
                }
                Error::Git(_) => tracing::warn!(%error, cause, "pass failed"),
            }
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
    let grown = |first: Duration| first.saturating_mul(1 << failures.min(12)).min(LONGEST);
    let pause = grown(AGAIN);
    match error {
        Error::Cluster(error) => match error.retry() {
            Retry::Soon => Action::requeue(grown(READ_AGAIN)),
            Retry::Later => Action::requeue(pause),
            Retry::Never => Action::requeue(LONGEST),
        },
        Error::Git(_) => Action::requeue(pause),
    }
}
