//! Tells of a pass: notes in git, the status of the `ConfigRepository`, events, metrics.
//!
//! Notes are a projection: whatever becomes of them holds up no rollout. Interim notes are pushed
//! at most every ten seconds, final ones at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::Error;
use crate::api::ConfigRepository;
use crate::api::config_repository::ConfigRepositoryStatus;
use crate::api::names::{CommitId, RepositoryRef, RequestName};
use crate::cluster::EventKind;
use crate::git::{self, Backoff, NoteUpdate, Publishing, Retry};
use crate::sync::Context;
use crate::sync::live::Observed;
use crate::sync::note::{self, Note};
use crate::sync::observe::Look;
use crate::sync::outcome::{Correction, Fate, Outcome};
use crate::sync::plan::Plan;
use crate::sync::status::{self, Report};
use crate::telemetry::metrics::HeldBy;

/// Interim notes are pushed at most this often: six pushes a minute stay below what forges allow.
const INTERIM: SignedDuration = SignedDuration::from_secs(10);
/// Most events of one pass: a fleet that is held at once is one event with a number.
const EVENTS: usize = 10;

/// Publishes notes, status, events and metrics. True: there was nothing to be published, and
/// nothing was put off.
///
/// # Errors
/// When the status could not be written.
pub async fn publish(
    repository: &ConfigRepository,
    look: &Look,
    plan: &Plan,
    outcome: &Outcome,
    live: &Observed,
    cx: &Context,
) -> Result<bool, Error> {
    let now = (cx.clock)();
    let notes = match plan.stalled {
        Some(_) => Ok(None),
        None => notes(repository, look, outcome, now, cx).await,
    };
    let told = matches!(notes, Ok(None));
    let settled = outcome.settled(&look.source).filter(|_| plan.stalled.is_none());
    let (noted, notes) = match notes {
        Ok(None) => (settled, Ok(())),
        // A note that was put off holds the mark back; the next look brings it.
        Ok(Some(put_off)) => (before(look, settled, &put_off), Ok(())),
        Err(why) => (None, Err(why)),
    };
    let report = Report {
        repository,
        source: &look.source,
        desired: &look.desired,
        plan,
        outcome,
        live,
        notes,
        noted,
        now,
    };
    let mut status = status::of(&report);
    if plan.stalled.is_none() {
        status.first = Some(look.first.to_string());
    }
    tell_held(repository, outcome, cx).await;
    Ok(!write_status(repository, &status, cx).await? && told)
}

/// The newest settled commit that is older than every one that was put off.
fn before(
    look: &Look,
    settled: Option<CommitId>,
    put_off: &BTreeSet<CommitId>,
) -> Option<CommitId> {
    let settled = settled?;
    let upto = look.source.line.iter().position(|step| step.commit == settled)?;
    let fine = look.source.line.iter().take(upto + 1);
    fine.take_while(|step| !put_off.contains(&step.commit)).last().map(|step| step.commit.clone())
}

/// Writes the notes that have to change. Gives the commits whose note was put off; `Err`: why the
/// notes could not be pushed, and what to do.
async fn notes(
    repository: &ConfigRepository,
    look: &Look,
    outcome: &Outcome,
    now: Timestamp,
    cx: &Context,
) -> Result<Option<BTreeSet<CommitId>>, String> {
    if !repository.spec.notes.push {
        return Ok(None);
    }
    let id = repository.repository();
    let known = cx.memory.of(&id, |remembered| remembered.corrected.clone());
    let corrections = outcome.corrections.iter();
    let corrections: Vec<Correction> =
        corrections.filter(|one| !known.contains(&one.request)).cloned().collect();
    let commits: BTreeSet<CommitId> = outcome
        .commits
        .iter()
        .map(|c| &c.commit)
        .chain(outcome.attempts.iter().map(|attempt| &attempt.commit))
        .chain(corrections.iter().map(|correction| &correction.commit))
        .cloned()
        .collect();
    if commits.is_empty() {
        return Ok(None);
    }
    let mut standing = standing(repository, look, &commits, cx).await?;
    let instance = look.instance.as_str();
    let mut wanted = Note::wanted(outcome, &corrections, &standing, instance, now);
    let pushed = cx.memory.of(&id, |remembered| remembered.pushed);
    let soon = pushed.is_some_and(|pushed| now.duration_since(pushed) < INTERIM);
    let put_off: BTreeSet<CommitId> = match soon && !wanted.iter().any(|note| note.is_final) {
        true => wanted.drain(..).map(|note| note.commit).collect(),
        false => BTreeSet::new(),
    };
    if !wanted.is_empty() {
        let began = Instant::now();
        let pushed = push(look, &wanted, now).await;
        cx.metrics.git("push", pushed.is_ok(), began.elapsed());
        pushed?;
        let news = wanted.into_iter().map(|note| (note.commit, note.text));
        let news: BTreeMap<CommitId, String> = news.collect();
        standing.extend(news.clone());
        cx.memory.of(&id, |remembered| {
            remembered.pushed = Some(now);
            remembered.notes.extend(news);
        });
    }
    remember_corrected(&id, outcome, &corrections, &standing, cx);
    Ok((!put_off.is_empty()).then_some(put_off))
}

/// Remembers which corrections stand in a note, so that it is not read again for them.
fn remember_corrected(
    id: &RepositoryRef,
    outcome: &Outcome,
    corrections: &[Correction],
    standing: &BTreeMap<CommitId, String>,
    cx: &Context,
) {
    let stands =
        |one: &&Correction| standing.get(&one.commit).is_some_and(|text| note::stands(text, one));
    let news = corrections.iter().filter(stands).map(|one| one.request.clone());
    let there: BTreeSet<&RequestName> = outcome.corrections.iter().map(|c| &c.request).collect();
    cx.memory.of(id, |remembered| {
        remembered.corrected.retain(|request| there.contains(request));
        remembered.corrected.extend(news);
    });
}

/// What stands on these commits: remembered, because nobody else writes there.
async fn standing(
    repository: &ConfigRepository,
    look: &Look,
    commits: &BTreeSet<CommitId>,
    cx: &Context,
) -> Result<BTreeMap<CommitId, String>, String> {
    let id = repository.repository();
    let mut standing = cx.memory.of(&id, |remembered| remembered.notes.clone());
    let unknown: Vec<CommitId> =
        commits.iter().filter(|id| !standing.contains_key(id)).cloned().collect();
    if unknown.is_empty() {
        return Ok(standing);
    }
    let read = look.git.notes(&look.instance, &unknown).await.map_err(|error| chain(&error))?;
    standing.extend(read.into_iter().filter_map(|(id, note)| Some((id, note.text?))));
    Ok(standing)
}

async fn push(look: &Look, notes: &[Note], now: Timestamp) -> Result<(), String> {
    let updates: Vec<NoteUpdate> = notes
        .iter()
        .map(|note| NoteUpdate {
            commit: note.commit.clone(),
            text: Some(note.text.clone()),
            lines: note.lines.clone(),
        })
        .collect();
    let jitter = u64::try_from(now.as_nanosecond() & i128::from(u64::MAX)).unwrap_or_default();
    let publishing = Publishing { now, backoff: Backoff::new(jitter) };
    match look.git.publish(&look.instance, &updates, &publishing).await {
        Ok(published) => {
            if let Some(foreign) = published.foreign {
                tracing::warn!(
                    instance = look.instance.as_str(),
                    foreign,
                    "somebody else writes these notes; give each pgitops its own instance name"
                );
            }
            Ok(())
        }
        Err(error) => Err(chain(&error)),
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}

/// Events and the metric for databases that are held for a new reason.
async fn tell_held(repository: &ConfigRepository, outcome: &Outcome, cx: &Context) {
    let mut now_held = BTreeMap::new();
    let mut texts = BTreeMap::new();
    for (database, fate) in &outcome.databases {
        if let Fate::Held(held) = fate {
            now_held.insert(database.clone(), held.label());
            texts.insert(database, held.event_text());
        }
    }
    let id = repository.repository();
    let now = (cx.clock)();
    let before = cx.memory.of(&id, |remembered| remembered.hold(&now_held, now));
    for (database, (reason, since)) in &before {
        if now_held.get(database) != Some(reason) {
            let took = now.duration_since(*since).as_secs_f64().max(0.0);
            cx.metrics.held_seconds.get_or_create(&HeldBy { reason }).observe(took);
        }
    }
    let gauge = &cx.metrics.held;
    let held = cx.memory.held();
    for reason in before.values().map(|(reason, _)| *reason).chain(held.keys().copied()) {
        let number = held.get(reason).copied().unwrap_or_default();
        gauge.get_or_create(&HeldBy { reason }).set(number);
    }
    let news: Vec<_> = now_held
        .iter()
        .filter(|(database, label)| before.get(*database).map(|(told, _)| told) != Some(*label))
        .collect();
    for (database, label) in news.iter().take(EVENTS) {
        let text = texts.get(database).map(String::as_str).unwrap_or_default();
        let note = format!("{database}: {text}");
        cx.cluster.event(repository, EventKind::Warning, label, &note).await;
    }
    if news.len() > EVENTS {
        let note = format!("{} more databases are held", news.len() - EVENTS);
        cx.cluster.event(repository, EventKind::Warning, "Held", &note).await;
    }
}

/// Says in the status that the repository cannot be read.
///
/// # Errors
/// When the status could not be written.
pub async fn unreadable(
    repository: &ConfigRepository,
    error: &git::Error,
    cx: &Context,
) -> Result<(), Error> {
    let lasting = match error.retry() {
        Retry::AfterChange | Retry::AtInterval => true,
        Retry::Soon => false,
    };
    let reason = reason(error);
    let now = (cx.clock)();
    // A repository that nobody has pushed to yet is no fault.
    let lasting = lasting && reason != "Empty";
    let status = status::unreadable(repository, reason, &chain(error), lasting, now);
    write_status(repository, &status, cx).await?;
    Ok(())
}

/// One word for programs.
fn reason(error: &git::Error) -> &'static str {
    use git::Error as E;
    match error {
        E::Vanished { .. } => "Vanished",
        E::NotARepository { .. } => "NotARepository",
        E::Empty { .. } => "Empty",
        E::NoSuchReference { .. } => "NoSuchReference",
        E::NoSuchPath { .. } => "NoSuchPath",
        E::LocalForbidden => "LocalForbidden",
        E::UnsupportedTransport { .. } => "UnsupportedTransport",
        E::Timeout { .. } | E::Cancelled { .. } => "Timeout",
        E::Setup { .. }
        | E::Address { .. }
        | E::BadReference { .. }
        | E::BadPath { .. }
        | E::BadInstance { .. }
        | E::BadNote { .. }
        | E::UnsupportedFormat { .. }
        | E::Unreadable { .. }
        | E::SourceDamaged { .. }
        | E::TooLarge { .. }
        | E::UnknownCommit { .. }
        | E::MirrorDamaged { .. }
        | E::Cache { .. }
        | E::Worker { .. }
        | E::Refused { .. } => "SourceUnreadable",
    }
}

/// Writes the status if it says something else than before; whether it did.
async fn write_status(
    repository: &ConfigRepository,
    status: &ConfigRepositoryStatus,
    cx: &Context,
) -> Result<bool, Error> {
    if repository.status.as_ref() == Some(status) {
        return Ok(false);
    }
    let mut new = serde_json::to_value(status).unwrap_or_default();
    let old = serde_json::to_value(&repository.status).unwrap_or_default();
    // A merge patch keeps what it does not name: what is gone has to be named.
    if let (Some(new), Some(old)) = (new.as_object_mut(), old.as_object()) {
        for key in old.keys() {
            new.entry(key).or_insert(Value::Null);
        }
        if let (Some(Value::Object(new)), Some(Value::Object(old))) =
            (new.get_mut("counts"), old.get("counts"))
        {
            for key in old.keys() {
                new.entry(key).or_insert(Value::Null);
            }
        }
    }
    let id = repository.repository();
    let patch = json!({
        "metadata": { "resourceVersion": repository.metadata.resource_version },
        "status": new,
    });
    cx.cluster.merge_status::<ConfigRepository>(&id.namespace, &id.name, &patch).await?;
    Ok(true)
}
