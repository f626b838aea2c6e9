//! Carries one database from what it runs to what its request asks for, a step at a time.
//!
//! One look, one decision, one effect, and again, until there is nothing to do or something is
//! waited for. A pass takes no hint about what changed. Leaves every decision to `rollout`.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::Controller;
use kube::runtime::controller::{Action, Config};
use kube::runtime::reflector::ObjectRef;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::api::{DatabaseRef, Postgres, PostgresOpsRequest};
use crate::cluster::{self, Retry};
use crate::telemetry::metrics::CarriedOut;

use super::act::Error;
use super::seen::Answers;
use super::step::{Evidence, Step, Touched};
use super::{Context, act, observe, rollout};

/// Databases worked on at the same time. A pass waits for servers most of its time.
const CONCURRENCY: u16 = 64;
/// A pass goes on for this long before it lets others in between.
const PASS: Duration = Duration::from_secs(20);
/// Pause while we do not lead: taking over should not wait long for the first pass.
const NOT_LEADING: Duration = Duration::from_secs(1);
/// Pause of a pass that another one of the same database is in the way of.
const AT_WORK: Duration = Duration::from_millis(100);
/// How often requests whose database is not there are looked for, beside being told.
const STRAYS: Duration = Duration::from_secs(10);

/// Carries on with one database.
///
/// # Errors
/// What kept the pass from its end; the next one goes on.
pub async fn reconcile(id: &DatabaseRef, cx: &Context) -> Result<Action, Error> {
    if cx.leadership.transitions().is_none() {
        return Ok(Action::requeue(NOT_LEADING));
    }
    let Some(_turn) = cx.at_work.begin(id) else { return Ok(Action::requeue(AT_WORK)) };
    let began = Instant::now();
    let (mut before, mut answers, mut waits) = (None, Answers::default(), 0);
    while began.elapsed() < PASS {
        let looked = match observe::database(id, cx, before.take()).await {
            Ok(looked) => looked, //                                            read
            Err(error) => {
                in_the_way(id, None, &error, cx).await;
                return Err(error.into());
            }
        };
        let looked = looked.answered(std::mem::take(&mut answers));
        let step = rollout::next(looked.seen(), (cx.clock)()); //               pure
        tracing::debug!(step = step.word(), "next");
        let outcome = match act::perform(&step, id, looked.seen(), cx).await {
            Err(Error::Cluster(error)) if error.blocks().is_some() => {
                in_the_way(id, Some(&step), &error, cx).await;
                return Err(error.into());
            }
            Err(Error::Cluster(error)) if error.is_conflict() => {
                // Somebody else wrote in between. What servers run still holds, and what a restart
                // cost; a dry run or a proof may have been about something else.
                let restarted = looked.seen().answers.restarted.clone();
                answers = Answers { restarted, ..Answers::default() };
                before = Some((looked, Touched::Objects));
                continue;
            }
            other => other?, //                                                 write
        };
        if let Some((type_, phase)) = step.ended(looked.seen()) {
            cx.metrics.carried_out.get_or_create(&CarriedOut { r#type: type_, phase }).inc();
        }
        answers = outcome.answers;
        match outcome.evidence {
            Evidence::Done(touched) => (before, waits) = (Some((looked, touched)), 0),
            Evidence::Nothing => return Ok(Action::await_change()),
            Evidence::Wait(until) => match short(until, (cx.clock)(), waits) {
                Ok(pause) => {
                    waits += 1;
                    tokio::time::sleep(pause).await;
                }
                Err(later) => return Ok(Action::requeue(later)),
            },
        }
    }
    Ok(Action::requeue(Duration::ZERO))
}

/// Says what a person has to mend first, if it is of that kind.
async fn in_the_way(id: &DatabaseRef, step: Option<&Step>, error: &cluster::Error, cx: &Context) {
    if let Some(reason) = error.blocks() {
        act::blocked::say(id, step, reason, error, cx).await;
    }
}

/// A pause that is short enough to be waited for here; it grows, so that a wait of minutes asks
/// the servers twice a second.
fn short(until: Timestamp, now: Timestamp, waits: u32) -> Result<Duration, Duration> {
    let pause = until.duration_since(now).unsigned_abs();
    if pause > Duration::from_millis(500) {
        return Err(pause);
    }
    let grown = pause.saturating_mul(1 << (waits / 50).min(6));
    Ok(grown.min(Duration::from_millis(500)))
}

/// Databases that a pass is working on.
#[derive(Clone, Default)]
pub struct AtWork(Arc<Mutex<BTreeSet<DatabaseRef>>>);

/// Ends with the pass.
struct Turn(AtWork, DatabaseRef);

impl AtWork {
    fn begin(&self, id: &DatabaseRef) -> Option<Turn> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(id.clone()).then(|| Turn(self.clone(), id.clone()))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut all = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&self.1);
    }
}

/// Looks after all databases until `shutdown`. A pass under way is left where it is: whoever comes
/// next goes on.
///
/// # Errors
/// None now; what concerns one database ends no other's pass.
pub async fn run(cx: Arc<Context>, shutdown: CancellationToken) -> Result<(), Error> {
    cx.postgreses.ready().await;
    cx.requests.ready().await;
    let touched = cx.requests.changes().map(|request| reference(&request.database()));
    let controller = Controller::for_stream(cx.postgreses.objects(), cx.postgreses.store())
        .with_config(Config::default().concurrency(CONCURRENCY))
        .reconcile_on(touched)
        .graceful_shutdown_on(shutdown.clone().cancelled_owned())
        .run(one, again, cx.clone())
        .for_each(|_| std::future::ready(()));
    tokio::join!(controller, strays(&cx, &shutdown));
    Ok(())
}

fn reference(id: &DatabaseRef) -> ObjectRef<Postgres> {
    ObjectRef::new(&id.name).within(&id.namespace)
}

async fn one(postgres: Arc<Postgres>, cx: Arc<Context>) -> Result<Action, Error> {
    let id = postgres.database();
    spanned(&id, &cx).await
}

async fn spanned(id: &DatabaseRef, cx: &Context) -> Result<Action, Error> {
    let span = tracing::info_span!("ops", database = %id);
    let began = Instant::now();
    let done = reconcile(id, cx).instrument(span.clone()).await;
    cx.metrics.pass("ops", done.is_ok(), began.elapsed());
    match &done {
        Ok(action) => tracing::debug!(parent: &span, ?action, "pass ended"),
        Err(error) => {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            tracing::warn!(parent: &span, error = error.without_values(), cause, "pass failed");
        }
    }
    done
}

fn again(_: Arc<Postgres>, error: &Error, _: Arc<Context>) -> Action {
    let pause = match error {
        Error::Cluster(error) => match cluster::Error::retry(error) {
            Retry::Soon => Duration::from_millis(20),
            Retry::Later => Duration::from_secs(1),
            // A refusal stands until something changes; looked at again in case it was elsewhere.
            Retry::Never => Duration::from_secs(10),
        },
        Error::Instance { .. } => Duration::from_secs(1),
        Error::NotLeading => NOT_LEADING,
    };
    Action::requeue(pause)
}

/// Requests whose database is not there: no pass of a database finds them.
async fn strays(cx: &Context, shutdown: &CancellationToken) {
    let touched = cx.requests.changes();
    let mut touched = std::pin::pin!(touched);
    loop {
        let all = cx.requests.all();
        let ids: BTreeSet<DatabaseRef> = all
            .iter()
            .filter(|request| is_open(request))
            .map(|request| request.database())
            .filter(|id| cx.postgreses.get(&id.namespace, &id.name).is_none())
            .collect();
        for id in &ids {
            // Told in the log; looked at again soon.
            drop(spanned(id, cx).await);
        }
        tokio::select! {
            _ = touched.next().fuse() => {}
            () = tokio::time::sleep(STRAYS) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

fn is_open(request: &PostgresOpsRequest) -> bool {
    !request.phase().is_terminal() || request.metadata.finalizers.is_some()
}
