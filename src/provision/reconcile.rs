//! A `Postgres` object and the children it should have: one look, and when to look again.
//!
//! Leaves every decision to `roles`, `wanted`, `deletion` and `status`, and every effect to `act`.
//! A pass takes no hint about what changed and does not wait inside: what takes long is begun, and
//! the next pass sees how far it is.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::{BoxStream, select_all};
use kube::ResourceExt;
use kube::runtime::Controller;
use kube::runtime::controller::{Action, Config};
use kube::runtime::reflector::ObjectRef;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::api::Postgres;
use crate::api::conditions;
use crate::api::names::labels;
use crate::api::postgres::condition;
use crate::cluster::client::Kind;
use crate::cluster::{Retry, Watched};

use super::act::Error;
use super::deletion::Removal;
use super::observe::Seen;
use super::status::{Outlook, Report};
use super::{Context, act, deletion, observe, status, wanted};

/// Databases looked at at the same time. A pass waits for servers most of its time.
const CONCURRENCY: u16 = 32;

/// Pause between two health checks of a database that is well (KubeDB's default).
const PERIOD: Duration = Duration::from_secs(10);

/// Pause until what was written is read: the watch is a few milliseconds behind.
const READ_AGAIN: Duration = Duration::from_millis(50);

/// Time between two passes while a request is being carried out, whatever is told meanwhile:
/// servers come and go on purpose, and asking them takes time from those who restart them.
const BESIDE_A_ROLLOUT: Duration = Duration::from_secs(1);

/// Pause while we do not lead: taking over should not wait long for the first pass.
const NOT_LEADING: Duration = Duration::from_secs(1);

/// Looks at one database.
///
/// # Errors
/// What kept the pass from its end; the next one goes on.
pub async fn reconcile(postgres: Arc<Postgres>, cx: Arc<Context>) -> Result<Action, Error> {
    let Some(term) = cx.leadership.transitions() else {
        return Ok(Action::requeue(NOT_LEADING));
    };
    if act::hold(&postgres, &cx.cluster).await? {
        return Ok(Action::requeue(READ_AGAIN)); //                                             write
    }
    let apart = if is_paused(&postgres) { BESIDE_A_ROLLOUT } else { Duration::ZERO };
    if let Some(left) = cx.memory.due_in(postgres.uid(), apart) {
        return Ok(Action::requeue(left));
    }
    let seen = observe::children(&postgres, &cx).await?; //                                     read
    let removal = removal(&postgres, &seen); //                                                 pure
    let held = match &removal {
        None => None,
        Some(Removal::Hold(why)) => Some(why.as_str()),
        Some(step) => return remove(&postgres, step, &seen, &cx).await, //                     write
    };
    let roles = wanted::roles(&postgres, &seen.ground()); //                                    pure
    let wanted = wanted::wanted(&postgres, &seen.ground(), &roles, &cx.options); //             pure
    act::apply(&wanted, &seen, &cx).await?; //                                                 write
    act::label(&roles, &seen, &cx).await?; //                                                  write
    let refused = act::instruct(&roles, &seen, term, &cx).await; //                            write
    let report = status::of(&Outlook {
        postgres: &postgres,
        refusals: &wanted.refusals,
        members: &seen.members,
        roles: &roles,
        size_held: wanted.size.held.as_deref(),
        deletion_held: held,
        pending: &wanted.pending,
        unacted: &wanted.unacted,
        refused: &refused,
        applied: wanted.applied,
        now: seen.now,
    }); //                                                                                      pure
    act::report(&postgres, &report, &cx.cluster).await?; //                                    write
    Ok(Action::requeue(next_look(&postgres, &report, &cx))) //                                  pure
}

fn removal(postgres: &Postgres, seen: &Seen) -> Option<Removal> {
    deletion::next(postgres, seen.remains(&seen.pod_names()))
}

async fn remove(
    postgres: &Postgres,
    step: &Removal,
    seen: &Seen,
    cx: &Context,
) -> Result<Action, Error> {
    let gone = act::remove(postgres, step, seen, &cx.cluster).await?;
    if gone {
        cx.memory.forget(postgres.uid());
        return Ok(Action::await_change());
    }
    Ok(Action::requeue(patience(cx.memory.unsettled(postgres.uid(), false))))
}

/// When to look again: at the health checker's period when all is well, soon otherwise.
fn next_look(postgres: &Postgres, report: &Report, cx: &Context) -> Duration {
    let unsettled = cx.memory.unsettled(postgres.uid(), report.settled);
    if report.settled {
        return period(postgres);
    }
    let pause = if is_paused(postgres) { BESIDE_A_ROLLOUT } else { patience(unsettled) };
    pause.min(period(postgres))
}

/// Whether a request is being carried out.
fn is_paused(postgres: &Postgres) -> bool {
    postgres.metadata.deletion_timestamp.is_none()
        && conditions::is_true(postgres.conditions(), condition::PAUSED)
}

/// `spec.healthChecker.periodSeconds`.
fn period(postgres: &Postgres) -> Duration {
    let checker = postgres.spec.other.get("healthChecker");
    let seconds = checker.and_then(|checker| checker.get("periodSeconds")).and_then(Value::as_u64);
    // A second at least, an hour at most: a typing error should neither burn nor blind.
    seconds.map_or(PERIOD, |seconds| Duration::from_secs(seconds.clamp(1, 3600)))
}

/// The pause grows with the number of passes that found something still to come. A cluster comes
/// up in seconds, so the first ten seconds are looked at closely; after a minute it is something
/// that takes long, such as a copy or a person.
fn patience(unsettled: u32) -> Duration {
    match unsettled {
        0..100 => Duration::from_millis(100),
        100..300 => Duration::from_millis(250),
        _ => Duration::from_secs(2),
    }
}

fn again(postgres: Arc<Postgres>, error: &Error, cx: Arc<Context>) -> Action {
    let failures = cx.memory.failed(postgres.uid());
    let retry = match error {
        Error::Cluster(error) => error.retry(),
        Error::Certificates(_) | Error::Random(_) => Retry::Later,
    };
    match retry {
        Retry::Soon => Action::requeue(READ_AGAIN),
        // From a quarter of a second to half a minute.
        Retry::Later => {
            Action::requeue(Duration::from_millis(250 << failures.min(7)).min(3 * PERIOD))
        }
        // A refusal stands until something changes; looked at again in case that was elsewhere.
        Retry::Never => Action::requeue(PERIOD),
    }
}

/// Looks after all databases until `shutdown`.
///
/// # Errors
/// None now; what concerns one database ends no other's pass.
pub async fn run(cx: Arc<Context>, shutdown: CancellationToken) -> Result<(), Error> {
    cx.ready().await;
    let stores = &cx.stores;
    let mut touched = vec![
        owners(&cx.pods),
        owners(&stores.workloads.stateful_sets),
        owners(&stores.services),
        owners(&stores.accounts),
        owners(&stores.budgets),
    ];
    touched.extend(stores.workloads.pet_sets.as_deref().map(owners));
    Controller::for_stream(cx.postgreses.objects(), cx.postgreses.store())
        .with_config(Config::default().concurrency(CONCURRENCY))
        .reconcile_on(select_all(touched))
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(spanned, again, cx.clone())
        .for_each(|pass| async move {
            if let Err(error) = pass {
                tracing::debug!(%error, "pass ended early");
            }
        })
        .await;
    Ok(())
}

async fn spanned(postgres: Arc<Postgres>, cx: Arc<Context>) -> Result<Action, Error> {
    let database = postgres.database();
    let span = tracing::info_span!("provision", %database);
    async {
        let began = Instant::now();
        let done = reconcile(postgres.clone(), cx.clone()).await;
        cx.metrics.pass("provision", done.is_ok(), began.elapsed());
        if let Err(Error::Cluster(error)) = &done
            && let Some(reason) = error.blocks()
        {
            act::blocked::say(&postgres, reason, error, &cx).await;
        }
        if let Err(Error::Cluster(error)) = &done
            && error.is_conflict()
        {
            // Ordinary: somebody wrote after we read.
            tracing::debug!(%error, "pass is made again");
        } else if let Err(error) = &done {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            if patience_is_enough(error) {
                tracing::debug!(%error, cause, "pass is made again");
            } else {
                tracing::warn!(error = error.without_values(), cause, "pass failed");
            }
        }
        done
    }
    .instrument(span)
    .await
}

/// Whether somebody else only wrote first: the next pass reads what they wrote.
fn patience_is_enough(error: &Error) -> bool {
    matches!(error, Error::Cluster(error) if error.is_conflict())
}

/// The databases whose objects of one kind are touched.
fn owners<K: Kind>(watched: &Watched<K>) -> BoxStream<'static, ObjectRef<Postgres>> {
    watched.changes().filter_map(|object| async move { owner(object.as_ref()) }).boxed()
}

/// The database that an object belongs to, by its label.
fn owner<K: Kind>(object: &K) -> Option<ObjectRef<Postgres>> {
    let name = object.labels().get(labels::INSTANCE)?;
    Some(ObjectRef::new(name).within(&object.namespace()?))
}
