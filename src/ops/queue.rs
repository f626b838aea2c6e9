//! Which request of a database is next, and which others end because of it.
//!
//! One at a time, oldest first. Pending Reconfigures that stand next to each other are merged into
//! one (KubeDB's rules, `kubedb.md` §6.7); of pending Restarts only the newest is carried out. A
//! request that waits for the database to be Ready does not hold up a later one that does not.
//!
//! **Requests of our own sync are never merged**: they form a chain in which each is named after
//! the one before, each carries the base it was planned from, and sync reports the outcome of
//! exactly that request. Merging only neighbours, and carrying out merged ones first, keeps the
//! order in which people asked: a later value never loses to an earlier one.
//! Leaves validity to `admit`. Never touches a request that is Progressing.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;

use crate::api::conditions;
use crate::api::names::{annotations, finalizers};
use crate::api::ops_request::{Apply, OpsPhase, OpsType, PostgresOpsRequestSpec};
use crate::api::{Condition, Postgres, PostgresOpsRequest};

use super::admit::{self, Admission};
use super::configuration;
use super::seen::{Progress, Seen};
use super::status;
use super::step::{Awaited, Step};

/// The next step while nothing runs on this database.
pub fn next(seen: &Seen, database: &Postgres, now: Timestamp) -> Step {
    let pending = pending(seen);
    let (refused, pending): (Vec<_>, Vec<_>) =
        pending.into_iter().partition(|request| admit::not_carried_out(request).is_some());
    for request in refused {
        let why = admit::not_carried_out(request).unwrap_or_default();
        let reason = status::NOT_CARRIED_OUT;
        if let Some(told) = status::explained(request, reason, reason, &why, now) {
            return Step::Explain(told);
        }
    }
    if let Some(step) = needless_restart(&pending, now).or_else(|| begun_merge(&pending, now)) {
        return step;
    }
    if let Some(other) = seen.requests.iter().find(|r| r.phase() == OpsPhase::Progressing) {
        let what = format!("{} is Progressing", other.request_name());
        return Step::Wait { what, on: Awaited::Objects };
    }
    first(seen, database, &pending, now)
}

/// The request that something is in the way of: the one that a step was to write to, or else the
/// one that is carried out, or else the next one.
pub fn concerned<'a>(
    requests: &'a [PostgresOpsRequest],
    step: Option<&Step>,
) -> Option<&'a PostgresOpsRequest> {
    let named = step.and_then(Step::request);
    let open = || requests.iter().filter(|request| !request.phase().is_terminal());
    let named = named.and_then(|name| open().find(|request| request.request_name() == *name));
    let running = || open().find(|request| request.phase() == OpsPhase::Progressing);
    let next = || {
        let ours = open().filter(|request| admit::not_carried_out(request).is_none());
        ours.min_by_key(|request| {
            let created = request.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (created, request.request_name())
        })
    };
    named.or_else(running).or_else(next)
}

/// Requests that are to be carried out: merged ones first, then by age and name.
fn pending(seen: &Seen) -> Vec<&PostgresOpsRequest> {
    let open = |r: &&PostgresOpsRequest| r.phase() == OpsPhase::Pending && !r.is_deleted();
    let mut pending: Vec<_> = seen.requests.iter().filter(open).collect();
    pending.sort_by_key(|request| {
        let created = request.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let merged = !Progress::of(request).merged_from.is_empty();
        (!merged, created, request.request_name())
    });
    pending
}

/// All pending Restarts but the newest are needless.
fn needless_restart(pending: &[&PostgresOpsRequest], now: Timestamp) -> Option<Step> {
    let mut restarts = pending.iter().filter(|r| r.spec.type_ == OpsType::Restart);
    let older = restarts.next()?;
    let newest = restarts.next_back()?;
    let why = format!("{} is newer and asks for the same", newest.request_name());
    Some(Step::Skip(status::skipped(older, status::SKIPPED, &why, now)))
}

/// Whether a request is part of our sync's chain.
pub fn is_of_the_chain(request: &PostgresOpsRequest) -> bool {
    let ours =
        [annotations::REPOSITORY, annotations::PREVIOUS, annotations::DESIRED, annotations::BASE];
    ours.iter().any(|name| request.annotation(name).is_some())
}

fn is_mergeable(request: &PostgresOpsRequest) -> bool {
    request.spec.type_ == OpsType::Reconfigure && !is_of_the_chain(request)
}

fn merged(
    database: &Postgres,
    run: &[&PostgresOpsRequest],
    now: Timestamp,
) -> Option<PostgresOpsRequest> {
    let id = database.database();
    let name = format!("{}-rcfg-merged-{}", id.name, now.as_millisecond());
    let first = run.first()?;
    let spec = PostgresOpsRequestSpec {
        database_ref: first.spec.database_ref.clone(),
        type_: OpsType::Reconfigure,
        configuration: Some(configuration::merged(run)),
        // KubeDB loses these three; `apply` is kept where all agree, so that a repair of a
        // database that is not Ready is not put off by being merged.
        timeout: None,
        apply: match run.iter().all(|request| request.spec.apply == Apply::Always) {
            true => Apply::Always,
            false => Apply::IfReady,
        },
        max_retries: None,
        other: BTreeMap::new(),
    };
    let mut request = PostgresOpsRequest::new(&name, spec);
    request.metadata.namespace = Some(id.namespace);
    request.metadata.labels.clone_from(&first.metadata.labels);
    let merged_from = run.iter().map(|request| request.request_name().0).collect();
    let progress = Progress { merged_from, accepted: None };
    let mut notes = BTreeMap::from([(annotations::PROGRESS.to_owned(), progress.render())]);
    if let Some(allowed) = allowed_unsafe(run) {
        notes.insert(annotations::ALLOW_UNSAFE.to_owned(), allowed);
    }
    request.metadata.annotations = Some(notes);
    Some(request)
}

/// What any of the requests admits, as one annotation.
fn allowed_unsafe(run: &[&PostgresOpsRequest]) -> Option<String> {
    let texts = run.iter().filter_map(|request| request.annotation(annotations::ALLOW_UNSAFE));
    let maps = texts
        .filter_map(|text| serde_json::from_str::<BTreeMap<String, serde_json::Value>>(text).ok());
    let all: BTreeMap<_, _> = maps.flatten().collect();
    (!all.is_empty()).then(|| serde_json::to_string(&all).ok()).flatten()
}

/// Finishes a merge that was begun: the originals are ended before the merged request runs.
fn begun_merge(pending: &[&PostgresOpsRequest], now: Timestamp) -> Option<Step> {
    let done =
        |r: &PostgresOpsRequest| conditions::is_true(r.conditions(), status::ORIGINALS_SKIPPED);
    let merged = pending
        .iter()
        .find(|request| !Progress::of(request).merged_from.is_empty() && !done(request))?;
    let names = Progress::of(merged).merged_from;
    let say = |type_: &str, reason: &str, message: &str| {
        let condition = Condition::new(type_, true, reason, message, now);
        status::told(merged, Some(OpsPhase::Pending), vec![condition], message, now)
    };
    if conditions::find(merged.conditions(), status::MERGED_FROM).is_none() {
        let from = names.join(", ");
        return Some(Step::Explain(say(status::MERGED_FROM, status::MERGED, &from)));
    }
    let original = pending.iter().find(|r| names.contains(&r.request_name().0));
    if let Some(original) = original {
        let into = format!("{}/{}", original.database().namespace, merged.request_name());
        let why = format!("Configuration merged into newly created ops request {into}");
        return Some(Step::Skip(status::skipped(original, status::MERGED, &why, now)));
    }
    let message = "the requests that this one stands for have ended";
    Some(Step::Explain(say(status::ORIGINALS_SKIPPED, status::ORIGINALS_SKIPPED, message)))
}

/// The oldest request that can begin, with the neighbours that can be carried out with it.
fn first(
    seen: &Seen,
    database: &Postgres,
    pending: &[&PostgresOpsRequest],
    now: Timestamp,
) -> Step {
    let mut waiting = None;
    for (place, request) in pending.iter().enumerate() {
        match admit::examine(seen, request, false) {
            Admission::Refuse(why) => return Step::Refuse(status::failed(request, &why, now)),
            Admission::Skip(why) => return outdated(request, &why, now),
            Admission::Go(_) => return begin_with(seen, database, &pending[place..], now),
            Admission::Wait { reason, what, on } => {
                let told = status::explained(request, status::WAITING, reason, &what, now);
                // What a server says changes by the second: it is not written at every look.
                if let Some(told) = told.filter(|_| on == Awaited::Objects) {
                    return Step::Explain(told);
                }
                waiting.get_or_insert(Step::Wait { what, on });
            }
        }
    }
    waiting.unwrap_or(Step::Nothing)
}

fn outdated(request: &PostgresOpsRequest, why: &str, now: Timestamp) -> Step {
    Step::Skip(status::skipped(request, "ConfigurationChanged", why, now))
}

/// Begins with the first of these, or merges it with those behind it. One that would be refused by
/// itself is refused first: it must not take the others with it.
fn begin_with(
    seen: &Seen,
    database: &Postgres,
    pending: &[&PostgresOpsRequest],
    now: Timestamp,
) -> Step {
    let mut run = Vec::new();
    for request in pending.iter().copied().take_while(|request| is_mergeable(request)) {
        match admit::examine(seen, request, false) {
            Admission::Go(_) => run.push(request),
            Admission::Refuse(why) => return Step::Refuse(status::failed(request, &why, now)),
            Admission::Skip(why) => return outdated(request, &why, now),
            Admission::Wait { .. } => break,
        }
    }
    match merged(database, &run, now) {
        Some(request) if run.len() > 1 => Step::Merge(Box::new(request)),
        Some(_) | None => match pending.first() {
            Some(request) => begin(request, now),
            None => Step::Nothing,
        },
    }
}

/// Finalizer and memory first, then Progressing.
fn begin(request: &PostgresOpsRequest, now: Timestamp) -> Step {
    let mut finalizers = request.metadata.finalizers.clone().unwrap_or_default();
    if finalizers.iter().any(|name| name == finalizers::REQUEST) {
        return Step::Accept(status::accepted(request, now));
    }
    finalizers.push(finalizers::REQUEST.to_owned());
    Step::Guard {
        request: request.request_name(),
        finalizers,
        progress: Progress { accepted: Some(now), ..Progress::of(request) }.render(),
        version: request.metadata.resource_version.clone(),
    }
}
