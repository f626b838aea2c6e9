//! Events: what people see under `kubectl describe`, on the request and on its database.
//!
//! Told beside the work: an event that is slow or lost holds up nothing. Notes hold no values of
//! parameters; a server's words come filtered.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource as _;

use crate::api::names::RequestName;
use crate::api::{Postgres, PostgresOpsRequest};
use crate::cluster::{Cluster, EventKind};
use crate::ops::seen::Seen;
use crate::ops::status::{self, Pause};
use crate::ops::step::{Step, Told};

use super::{Actor, Outcome};

/// Tells what a step did, where people want to know.
pub fn tell(step: &Step, outcome: &Outcome, actor: &Actor<'_>) {
    let Some((request, kind, reason, note)) = event(step, outcome, actor.seen) else { return };
    let request = actor.seen.requests.iter().find(|r| Some(r.request_name()) == request).cloned();
    let database = actor.database.cloned();
    tracing::info!(reason, request = request.as_ref().map(|r| r.request_name().0), "step");
    let cluster = actor.cx.cluster.clone();
    let noted = if let Step::Note(told) = step { told.pod.as_deref() } else { None };
    let pod = noted.map(|pod| reference(&actor.id.namespace, pod));
    let told = Telling { kind, reason, note, pod };
    tokio::spawn(publish(cluster, request, database, told));
}

/// What is told.
struct Telling {
    kind: EventKind,
    reason: &'static str,
    note: String,
    /// Events of the same reason about other pods are others, not the same once more.
    pod: Option<ObjectReference>,
}

fn reference(namespace: &str, pod: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(namespace.to_owned()),
        name: Some(pod.to_owned()),
        ..ObjectReference::default()
    }
}

async fn publish(
    cluster: Cluster,
    request: Option<PostgresOpsRequest>,
    database: Option<Postgres>,
    told: Telling,
) {
    let Telling { kind, reason, note, pod } = told;
    let request = request.map(|request| request.object_ref(&()));
    let database = database.map(|database| database.object_ref(&()));
    for about in [request, database].into_iter().flatten() {
        cluster.event_about(&about, pod.as_ref(), kind, reason, &note).await;
    }
}

type Event = (Option<RequestName>, EventKind, &'static str, String);

fn event(step: &Step, outcome: &Outcome, seen: &Seen) -> Option<Event> {
    let (normal, warning) = (EventKind::Normal, EventKind::Warning);
    let named = |told: &Told| Some(told.request.clone());
    let said = |told: &Told, kind, reason| (named(told), kind, reason, told.sentence.clone());
    let database = seen.database.as_ref().map(|d| d.database().to_string()).unwrap_or_default();
    let on = |kind, reason, note: String| (owner(seen), kind, reason, note);
    Some(match step {
        Step::Accept(told) => said(told, normal, "Accepted"),
        Step::Skip(told) => said(told, normal, "Skipped"),
        Step::Refuse(told) => said(told, warning, "Failed"),
        Step::Note(told) => said(told, normal, "Restarted"),
        Step::Report(told) => {
            match &told.status.conditions.iter().any(|c| c.type_ == status::ROLLED_BACK) {
                true => said(told, warning, "RolledBack"),
                false => said(told, normal, "Proven"),
            }
        }
        Step::Conclude(told) => match told.status.phase {
            Some(crate::api::ops_request::OpsPhase::Successful) => said(told, normal, "Successful"),
            _ => said(told, warning, "Failed"),
        },
        Step::Pause { .. } => {
            on(normal, "PauseDatabase", format!("Successfully paused Postgres {database}"))
        }
        Step::Resume { .. } => {
            on(normal, "ResumeDatabase", format!("Successfully resumed Postgres {database}"))
        }
        Step::DryRun { nodes, .. } => {
            let runs = outcome.answers.dry_run.as_ref()?;
            let passed = runs.values().all(|run| run.as_ref().is_ok_and(|ran| ran.accepted));
            let note = format!("{} nodes would start with it", nodes.len());
            return passed.then(|| on(normal, "DryRunPassed", note));
        }
        Step::Load { nodes, .. } => {
            let names = nodes.keys().cloned().collect::<Vec<_>>().join(", ");
            return match outcome.answers.put_back {
                None => Some(on(normal, "Loaded", format!("read by {names}"))),
                Some(_) => None,
            };
        }
        Step::RollBack(journal) => {
            let words = journal.rollback.as_ref().map(|rollback| rollback.words.clone());
            on(warning, "RollBack", format!("going back: {}", words.unwrap_or_default()))
        }
        Step::Explain(_)
        | Step::Merge(_)
        | Step::Guard { .. }
        | Step::Keep(_)
        | Step::WriteSpec(_)
        | Step::WriteOperator { .. }
        | Step::Lower { .. }
        | Step::Restartpoint { .. }
        | Step::Restart(_)
        | Step::Prove { .. }
        | Step::Release { .. }
        | Step::Wait { .. }
        | Step::Nothing => return None,
    })
}

/// The request that is carried out.
fn owner(seen: &Seen) -> Option<RequestName> {
    let paused = seen.database.as_ref().map(status::paused);
    match paused {
        Some(Pause::Ours(owner)) => Some(RequestName(owner.name)),
        Some(Pause::Not | Pause::Foreign(_)) | None => {
            let progressing = crate::api::ops_request::OpsPhase::Progressing;
            let current = seen.requests.iter().find(|request| request.phase() == progressing);
            current.map(PostgresOpsRequest::request_name)
        }
    }
}
