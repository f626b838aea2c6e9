//! Carries out exactly one step, and says what a look afterwards must read anew.
//!
//! Every write of an object is a compare-and-swap with the version that the decision was made
//! from; every call that changes an instance carries the lease's transitions and the request's
//! UID. What is answered goes back as it is: nothing is judged here. A call that did not come
//! through is not repeated: the next look sees what became of it.
//! Leaves every decision to `rollout`.

use std::time::Duration;

use k8s_openapi::jiff::SignedDuration;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::api::Condition;
use crate::api::names::{DatabaseRef, annotations};
use crate::api::postgres::Tuning;
use crate::api::{Postgres, PostgresOpsRequest};
use crate::cluster::{self, Created};
use crate::instance::client;
use crate::instance::protocol::Fence;

use super::Context;
use super::seen::{Answers, FieldOwned, Seen};
use super::status::{self, Pause};
use super::step::{Awaited, Evidence, SpecPatch, Step, Told, Touched};

pub mod blocked;
mod events;
mod instances;
mod secrets;

/// Servers that are waited for are looked at again after this long: they answer in milliseconds.
const SERVERS_AGAIN: Duration = Duration::from_millis(10);
/// Objects tell of their changes; this is the safety net for a watch that lost one.
const OBJECTS_AGAIN: Duration = Duration::from_secs(5);

/// Why a step was not carried out, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A call to the API server failed.
    #[error("ops: {0}")]
    Cluster(#[from] cluster::Error),
    /// An instance has heard of a newer controller, or cannot be spoken with.
    #[error("ops: {node}: {source}")]
    Instance {
        /// The pod.
        node: String,
        /// Why.
        #[source]
        source: client::Error,
    },
    /// We do not lead (any more): somebody else goes on.
    #[error("ops: this controller does not lead; the one that does goes on")]
    NotLeading,
}

impl Error {
    /// What is said of it in a log: without the API server's words about an object.
    pub fn without_values(&self) -> String {
        match self {
            Self::Cluster(error) => format!("ops: {}", error.without_values()),
            Self::Instance { .. } | Self::NotLeading => self.to_string(),
        }
    }
}

/// What became of a step.
pub struct Outcome {
    /// When and at what to look again.
    pub evidence: Evidence,
    /// What it was answered.
    pub answers: Answers,
}

impl Outcome {
    fn done(touched: Touched) -> Self {
        Self { evidence: Evidence::Done(touched), answers: Answers::default() }
    }

    fn answered(touched: Touched, answers: Answers) -> Self {
        Self { evidence: Evidence::Done(touched), answers }
    }
}

/// Whose step it is: the database, and who signs calls to its instances.
struct Actor<'a> {
    id: DatabaseRef,
    database: Option<&'a Postgres>,
    seen: &'a Seen,
    cx: &'a Context,
    transitions: u64,
}

impl Actor<'_> {
    /// Signs a call to an instance.
    fn fence(&self, step: String) -> Fence {
        let owner = self.database.map(status::paused);
        let request = match owner {
            Some(Pause::Ours(owner)) => owner.uid,
            Some(Pause::Not | Pause::Foreign(_)) | None => String::new(),
        };
        Fence { lease_transitions: self.transitions, request, step }
    }
}

/// Carries out one step.
///
/// # Errors
/// When it could not be; nothing is known then of how far it came, and the next look finds out.
pub async fn perform(
    step: &Step,
    id: &DatabaseRef,
    seen: &Seen,
    cx: &Context,
) -> Result<Outcome, Error> {
    let transitions = cx.leadership.transitions().ok_or(Error::NotLeading)?;
    let database = seen.database.as_ref();
    let actor = Actor { id: id.clone(), database, seen, cx, transitions };
    let outcome = carry_out(step, &actor).await?;
    events::tell(step, &outcome, &actor);
    Ok(outcome)
}

async fn carry_out(step: &Step, actor: &Actor<'_>) -> Result<Outcome, Error> {
    let touched = match step {
        Step::Explain(told)
        | Step::Skip(told)
        | Step::Refuse(told)
        | Step::Accept(told)
        | Step::Note(told)
        | Step::Report(told)
        | Step::Conclude(told) => tell(told, actor).await?,
        Step::Merge(request) => match actor.cx.cluster.create(request.as_ref()).await? {
            // The watch has to tell of it before it is seen.
            Created::New(_) | Created::Exists => return Ok(wait("", Awaited::Servers, actor)),
        },
        Step::Guard { request, finalizers, progress, version } => {
            let metadata = json!({
                "resourceVersion": version,
                "finalizers": finalizers,
                "annotations": { annotations::PROGRESS: progress }
            });
            patch_request(&request.0, &json!({ "metadata": metadata }), actor).await?
        }
        Step::Release { request, finalizers, version } => {
            let metadata = json!({ "resourceVersion": version, "finalizers": finalizers });
            patch_request(&request.0, &json!({ "metadata": metadata }), actor).await?
        }
        Step::Pause { conditions, version } | Step::Resume { conditions, version } => {
            write_conditions(conditions, version.as_deref(), actor).await?
        }
        Step::Keep(journal) => secrets::keep(journal, actor).await?,
        Step::RollBack(journal) => secrets::amend(journal, actor).await?,
        Step::WriteSpec(patch) => return write_spec(patch, actor).await,
        Step::WriteOperator { inline, file, version } => {
            secrets::write_operator(inline, file, version.as_deref(), actor).await?
        }
        Step::DryRun { nodes, deadline_ms } => {
            return instances::dry_run(nodes, *deadline_ms, actor).await;
        }
        Step::Load { nodes, deadline_ms } => {
            return instances::load(nodes, *deadline_ms, actor).await;
        }
        Step::Lower { node, journal, deadline_ms } => {
            instances::lower(node, journal, *deadline_ms, actor).await?
        }
        Step::Restartpoint { node, deadline_ms } => {
            instances::checkpoint(node, *deadline_ms, actor).await?;
            Touched::Everything
        }
        Step::Restart(restart) => return instances::restart(restart, actor).await,
        Step::Prove { nodes, deadline_ms } => {
            return instances::prove(nodes, *deadline_ms, actor).await;
        }
        Step::Wait { what, on } => return Ok(wait(what, *on, actor)),
        Step::Nothing => {
            return Ok(Outcome { evidence: Evidence::Nothing, answers: Answers::default() });
        }
    };
    Ok(Outcome::done(touched))
}

async fn write_conditions(
    conditions: &[Condition],
    version: Option<&str>,
    actor: &Actor<'_>,
) -> Result<Touched, Error> {
    let patch = json!({
        "metadata": { "resourceVersion": version }, "status": { "conditions": conditions }
    });
    let DatabaseRef { namespace, name } = &actor.id;
    let written = actor.cx.cluster.merge_status::<Postgres>(namespace, name, &patch).await?;
    Ok(Touched::Database(Box::new(written)))
}

fn wait(what: &str, on: Awaited, actor: &Actor<'_>) -> Outcome {
    let now = (actor.cx.clock)();
    tracing::debug!(what, "waiting");
    let pause = match on {
        Awaited::Servers => SERVERS_AGAIN,
        Awaited::Objects => OBJECTS_AGAIN,
    };
    let until = SignedDuration::try_from(pause).ok().and_then(|pause| now.checked_add(pause).ok());
    let evidence = until.map_or(Evidence::Nothing, Evidence::Wait);
    Outcome { evidence, answers: Answers::default() }
}

async fn tell(told: &Told, actor: &Actor<'_>) -> Result<Touched, Error> {
    let Told { request, status, version, sentence: _, pod: _ } = told;
    let patch = json!({ "metadata": { "resourceVersion": version }, "status": status });
    let namespace = &actor.id.namespace;
    let cluster = &actor.cx.cluster;
    let written = cluster.merge_status::<PostgresOpsRequest>(namespace, &request.0, &patch).await?;
    Ok(Touched::Request(Box::new(written)))
}

async fn patch_request(name: &str, patch: &Value, actor: &Actor<'_>) -> Result<Touched, Error> {
    let cluster = &actor.cx.cluster;
    let written = cluster.merge::<PostgresOpsRequest>(&actor.id.namespace, name, patch).await?;
    Ok(Touched::Request(Box::new(written)))
}

/// `spec.configuration`. Without the owners that `configuration::foreign_owner` refuses, what is
/// left to conflict with is a tool that came since; so also what is applied is not forced, unless
/// the only other owners write by hand.
async fn write_spec(patch: &SpecPatch, actor: &Actor<'_>) -> Result<Outcome, Error> {
    let DatabaseRef { namespace, name } = &actor.id;
    let cluster = &actor.cx.cluster;
    let written = match patch {
        SpecPatch::Merge(patch) => cluster.merge::<Postgres>(namespace, name, patch).await,
        SpecPatch::Apply(object) => {
            let manager = crate::api::names::managers::OPS;
            let tuning = object.pointer("/spec/configuration/tuning");
            let tuning: Option<Tuning> = tuning.and_then(|t| Tuning::deserialize(t).ok());
            let owner = |database| super::configuration::foreign_owner(database, tuning.as_ref());
            let force = actor.database.and_then(owner).is_none();
            cluster.apply_json::<Postgres>(manager, namespace, name, object, force).await
        }
    };
    match written {
        Ok(written) => Ok(Outcome::done(Touched::Database(Box::new(written)))),
        Err(cluster::Error::FieldConflict { manager, path, .. }) => {
            let field_owned = Some(FieldOwned { manager, path });
            let answers = Answers { field_owned, ..Answers::default() };
            Ok(Outcome::answered(Touched::Objects, answers))
        }
        Err(error) => Err(error.into()),
    }
}
