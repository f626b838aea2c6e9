//! The status of a `ConfigRepository`: how far everything is, in at most 32 KiB.
//!
//! Conditions follow the kstatus rules: `Reconciling` while work goes on, `Stalled` when nothing
//! will change by itself, `Ready` otherwise; the message of `Ready` names the commit that is
//! applied. Leaves writing to `act.rs`. Holds names of parameters at most, never values.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::desired::Desired;
use super::live::{Live, Observed, is_ours};
use super::outcome::{Fate, Outcome};
use super::plan::{Held, Plan};
use super::problem::Problem;
use super::source::Source;
use crate::api::conditions::{self, Condition};
use crate::api::config_repository::{ConfigRepository, ConfigRepositoryStatus, Rollout, condition};
use crate::api::names::{CommitId, annotations};

/// Most problems, held databases and rollouts in a status: with lines of at most [`LINE`]
/// bytes they stay below 32 KiB together.
const PROBLEMS: usize = 20;
/// See [`PROBLEMS`].
const HELD: usize = 50;
/// See [`PROBLEMS`].
const ROLLOUTS: usize = 10;
/// See [`PROBLEMS`]; in bytes.
const LINE: usize = 400;

/// Everything that a status is taken from.
pub struct Report<'a> {
    /// The object as it was read.
    pub repository: &'a ConfigRepository,
    /// The repository at this look.
    pub source: &'a Source,
    /// What the head says.
    pub desired: &'a Desired,
    /// What was planned.
    pub plan: &'a Plan,
    /// What came of it.
    pub outcome: &'a Outcome,
    /// What was observed.
    pub live: &'a Observed,
    /// Whether the notes were pushed: `Err` says why not and what to do.
    pub notes: Result<(), String>,
    /// The newest commit that is settled and noted, when it moved.
    pub noted: Option<CommitId>,
    /// The time.
    pub now: Timestamp,
}

/// The status after a look.
pub fn of(report: &Report<'_>) -> ConfigRepositoryStatus {
    let Report { repository, source, desired, plan, outcome, notes, noted, now, .. } = report;
    let mut status = repository.status.clone().unwrap_or_default();
    let generation = repository.metadata.generation;
    status.observed_generation = generation;
    status.last_handled_request =
        repository.annotation(annotations::REQUESTED_AT).map(str::to_owned);
    status.head = Some(source.head.to_string());
    if plan.stalled.is_none() {
        status.accepted = Some(source.head.to_string());
    }
    if let Some(noted) = noted {
        status.noted = Some(noted.to_string());
    }
    let done = outcome.databases.values().all(|fate| fate.word() == "applied");
    if plan.stalled.is_none() && done && refusals(&desired.problems) == 0 {
        status.applied = Some(source.head.to_string());
        status.applied_short = Some(source.head.short().to_owned());
    }
    status.counts = counts(outcome);
    let problems = plan.problems(desired);
    status.problems = problems.iter().take(PROBLEMS).map(|p| line(&p.to_string())).collect();
    status.problem_count = i64::try_from(problems.len()).unwrap_or(i64::MAX);
    status.held = held(outcome);
    status.rollouts = rollouts(report);
    status.next_window = next_window(plan);
    set_conditions(&mut status, report, generation, *now);
    let (good, reason, message) = match notes {
        Ok(()) if !repository.spec.notes.push => (true, "Off", "notes are not pushed".to_owned()),
        Ok(()) => (true, "Published", "every result stands in the notes".to_owned()),
        Err(why) => (false, "Refused", why.clone()),
    };
    let notes = Condition::new(condition::NOTES_PUBLISHED, good, reason, &message, *now);
    conditions::set(&mut status.conditions, notes.observed(generation));
    fields_not_acted_on(&mut status, repository, *now);
    status
}

/// The status when the source could not be read at all. `lasting`: nothing will change by itself.
pub fn unreadable(
    repository: &ConfigRepository,
    reason: &str,
    message: &str,
    lasting: bool,
    now: Timestamp,
) -> ConfigRepositoryStatus {
    let mut status = repository.status.clone().unwrap_or_default();
    let generation = repository.metadata.generation;
    status.observed_generation = generation;
    status.last_handled_request =
        repository.annotation(annotations::REQUESTED_AT).map(str::to_owned);
    let message = line(message);
    let mut say = |type_: &str, value: bool| {
        let said = Condition::new(type_, value, reason, &message, now).observed(generation);
        conditions::set(&mut status.conditions, said);
    };
    say(condition::READY, false);
    say(if lasting { condition::STALLED } else { condition::RECONCILING }, true);
    let over = if lasting { condition::RECONCILING } else { condition::STALLED };
    conditions::remove(&mut status.conditions, over);
    status
}

fn refusals(problems: &[Problem]) -> usize {
    problems.iter().filter(|problem| problem.is_refusal()).count()
}

fn line(text: &str) -> String {
    let end = text.floor_char_boundary(LINE);
    text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn counts(outcome: &Outcome) -> BTreeMap<String, i64> {
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for fate in outcome.databases.values() {
        *counts.entry(fate.word().to_owned()).or_default() += 1;
    }
    counts
}

fn held(outcome: &Outcome) -> Vec<String> {
    let held = outcome.databases.iter().filter_map(|(database, fate)| match fate {
        Fate::Held(held) => Some(line(&format!("{database}: {}", held.text()))),
        Fate::PendingRestart(_)
        | Fate::Applied
        | Fate::NoChange
        | Fate::Released
        | Fate::Superseded(_)
        | Fate::Running { .. } => None,
    });
    held.take(HELD).collect()
}

/// The newest requests of this repository.
fn rollouts(report: &Report<'_>) -> Vec<Rollout> {
    let mut rollouts = Vec::new();
    for (database, live) in report.live {
        let Live::Present(present) = live else { continue };
        let ours = present.requests.iter().filter(|r| is_ours(r, &report.source.repository));
        for request in ours.rev().take(ROLLOUTS) {
            let created = request.metadata.creation_timestamp.as_ref().map(|time| time.0);
            let over = request.phase().is_terminal();
            let last = request.conditions().iter().map(|c| c.last_transition_time.0).max();
            let rollout = Rollout {
                database: database.to_string(),
                request: request.request_name().to_string(),
                commit: request.annotation(annotations::COMMIT).unwrap_or_default().to_owned(),
                phase: format!("{:?}", request.phase()),
                started: created.unwrap_or_default().to_string(),
                finished: last.filter(|_| over).map(|at| at.to_string()),
            };
            rollouts.push((created, rollout));
        }
    }
    rollouts.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.database.cmp(&b.1.database)));
    rollouts.into_iter().take(ROLLOUTS).map(|(_, rollout)| rollout).collect()
}

fn next_window(plan: &Plan) -> Option<String> {
    let windows = plan.held.values().filter(|held| matches!(held, Held::Window { .. }));
    windows.filter_map(Held::opens).min().map(|opens| opens.to_string())
}

fn set_conditions(
    status: &mut ConfigRepositoryStatus,
    report: &Report<'_>,
    generation: Option<i64>,
    now: Timestamp,
) {
    let (ready, reason, message) = ready(status, report);
    let busy = report
        .outcome
        .databases
        .values()
        .any(|fate| matches!(fate.word(), "progressing" | "waiting"));
    let closed = ["Failed", "Refused", "Stalled"].contains(&reason);
    let stalled = report.plan.stalled.is_some() || (closed && !busy);
    let mut say = |type_: &str, value: bool| {
        let said = Condition::new(type_, value, reason, &message, now).observed(generation);
        conditions::set(&mut status.conditions, said);
    };
    say(condition::READY, ready);
    if stalled {
        say(condition::STALLED, true);
    }
    let reconciling = !ready && !stalled;
    if reconciling {
        say(condition::RECONCILING, true);
    }
    if !stalled {
        conditions::remove(&mut status.conditions, condition::STALLED);
    }
    if !reconciling {
        conditions::remove(&mut status.conditions, condition::RECONCILING);
    }
}

/// Whether all is well, the word, and the sentence that names the commit which is applied.
fn ready(status: &ConfigRepositoryStatus, report: &Report<'_>) -> (bool, &'static str, String) {
    if let Some(stalled) = &report.plan.stalled {
        return (false, stalled.label(), stalled.text(report.source));
    }
    let fates = &report.outcome.databases;
    let applied = match &status.applied_short {
        Some(short) => format!("{short} is applied"),
        None => "no commit is applied as a whole yet".to_owned(),
    };
    let order = ["failed", "refused", "held", "waiting", "progressing", "pendingRestart"];
    let worst = order.iter().find_map(|word| {
        fates.iter().find(|(_, fate)| fate.word() == *word).map(|(d, fate)| (*word, d, fate))
    });
    let refused = report.desired.problems.iter().find(|problem| problem.is_refusal());
    match (worst, refused) {
        (None, None) => {
            let databases = if fates.len() == 1 { "database" } else { "databases" };
            (true, "Applied", format!("{applied} on {} {databases}", fates.len()))
        }
        (Some(("refused", ..)) | None, Some(problem)) => {
            (false, "Refused", format!("{applied}; {problem}"))
        }
        (Some((word, database, fate)), _) => {
            let why = match fate {
                Fate::Held(held) => held.text(),
                Fate::Running { .. } => "a rollout is in progress".to_owned(),
                Fate::PendingRestart(names) => format!("{} waits for a restart", names.join(", ")),
                Fate::Applied | Fate::NoChange | Fate::Released | Fate::Superseded(_) => {
                    String::new()
                }
            };
            (false, reason(word), format!("{applied}; {database}: {why}"))
        }
    }
}

fn reason(word: &str) -> &'static str {
    match word {
        "failed" => "Failed",
        "refused" => "Refused",
        "held" => "Held",
        "waiting" => "Waiting",
        "pendingRestart" => "PendingRestart",
        _ => "Progressing",
    }
}

/// A field that is known but does nothing yet is named, never ignored.
fn fields_not_acted_on(
    status: &mut ConfigRepositoryStatus,
    repository: &ConfigRepository,
    now: Timestamp,
) {
    let spec = &repository.spec;
    let mut fields = Vec::new();
    fields.extend(spec.secret_ref.as_ref().map(|_| "secretRef"));
    fields.extend(spec.verify.as_ref().map(|_| "verify"));
    if fields.is_empty() {
        conditions::remove(&mut status.conditions, condition::FIELDS_NOT_ACTED_ON);
        return;
    }
    let message = format!("nothing acts on spec.{} yet", fields.join(", spec."));
    let said = Condition::new(condition::FIELDS_NOT_ACTED_ON, true, "Later", &message, now);
    conditions::set(&mut status.conditions, said.observed(repository.metadata.generation));
}
