//! Towards what a request asks for: try out, pause, keep, write, load, restart, prove, resume.

use std::collections::BTreeMap;

use crate::api::PostgresOpsRequest;
use crate::instance::protocol::DryRan;
use crate::ops::admit::{self, Admission, Plan};
use crate::ops::journal::Journal;
use crate::ops::node_file::Target;
use crate::ops::proof::{self, Verdict};
use crate::ops::seen::{self, Seen};
use crate::ops::status;
use crate::ops::step::{Awaited, Step, Trial};
use crate::pgconf::{Class, Name, Settings, tiers};

use super::course::{Course, course};
use super::{Current, given_up, is_overdue, is_proven, report, resume, roll_back};

/// From this many connections, workers or locks on their memory is worth allocating once before.
const LEAP: u64 = 2000;

/// Before anything was changed: admitted once more, tried out, paused, kept.
pub fn begin(seen: &Seen, current: &Current<'_>) -> Step {
    let Current { database, request, paused, now, .. } = *current;
    let Some(request) = request else { return resume(database) };
    // 1. Admit. A process before this one may have been here long ago.
    let plan = match admit::examine(seen, request, true) {
        Admission::Go(plan) => plan,
        Admission::Refuse(why) => return Step::Conclude(status::failed(request, &why, now)),
        Admission::Skip(why) => {
            let reason = "ConfigurationChanged";
            return Step::Conclude(status::skipped(request, reason, &why, now));
        }
        Admission::Wait { what, on, .. } => return wait(current, request, what, on),
    };
    // 2. Dry run: the pause that follows says that it passed.
    if !paused {
        let Some(answers) = &seen.answers.dry_run else { return dry_run(seen, current, &plan) };
        return match (refusal(answers), unanswered(answers)) {
            (Some(words), _) => {
                let settings = [&plan.before.settings(), &plan.after.settings()];
                let why = seen::shown(&words, &settings);
                Step::Conclude(status::failed(request, &why, now))
            }
            (None, Some(what)) => wait(current, request, what, Awaited::Servers),
            (None, None) => pause(current),
        };
    }
    // 3. Keep what was before.
    Step::Keep(Box::new(admit::journal(seen, request, *plan, now)))
}

/// While nothing is changed: waits, for as many tries as the request has.
fn wait(current: &Current<'_>, request: &PostgresOpsRequest, what: String, on: Awaited) -> Step {
    match given_up(current, &what) {
        Some(why) => Step::Conclude(status::failed(request, &why, current.now)),
        None => Step::Wait { what, on },
    }
}

fn pause(current: &Current<'_>) -> Step {
    let database = current.database;
    let mut conditions = database.conditions().to_vec();
    let pause = status::pause(current.owner, database.metadata.generation, current.now);
    crate::api::conditions::set(&mut conditions, pause);
    Step::Pause { conditions, version: database.metadata.resource_version.clone() }
}

/// The files that each node will have on its way, tried out beside the live server.
fn dry_run(seen: &Seen, current: &Current<'_>, plan: &Plan) -> Step {
    let before = plan.before.settings();
    let after = plan.after.settings();
    let target = Target {
        settings: after.clone(),
        origin: before.clone(),
        base: seen.highest(),
        rollout_base: None,
        catalogue: seen.catalogue(),
    };
    let (allocate, boot) = thoroughness(&before, &after);
    let nodes: BTreeMap<String, Vec<Trial>> = seen
        .servers()
        .map(|(name, server)| {
            let end = Trial { text: after.render(), allocate, boot };
            // What it has on disk until its turn must start as well: a server may crash then.
            let now = target.files(server, &BTreeMap::new(), &[]).now.render();
            let held = (now != end.text && server.is_running()).then_some(Trial {
                text: now,
                allocate: false,
                boot: false,
            });
            (name.to_owned(), [Some(end), held].into_iter().flatten().collect())
        })
        .collect();
    Step::DryRun { nodes, deadline_ms: super::timeout_ms(current) }
}

/// What a change calls for beyond the server's own checks: allocating the memory (60 ms, but 0.6 s
/// the first time on a node), starting a scratch server (about 250 ms).
fn thoroughness(before: &Settings, after: &Settings) -> (bool, bool) {
    let changed = |name: &str| before.value_of(name) != after.value_of(name);
    let memory = ["shared_buffers", "huge_pages", "wal_buffers", "min_dynamic_shared_memory"];
    let number = |settings: &Settings, name: &str| {
        settings.value_of(name).and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    // A few hundred connections more are a few MB; the check of the whole size covers them.
    let leaps = |name: &&str| {
        let (old, new) = (number(before, name), number(after, name));
        new > LEAP && new > old.saturating_mul(2)
    };
    let allocate = memory.iter().any(|name| changed(name)) || tiers::ORDERED.iter().any(leaps);
    let names = before.names().chain(after.names());
    let boot = names.filter(|name| changed(name)).any(|name| {
        let name = name.lower();
        name.ends_with("preload_libraries") || name.starts_with("log_") || name.starts_with("lc_")
    });
    (allocate, boot)
}

type Ran = BTreeMap<String, Result<DryRan, String>>;

fn refusal(answers: &Ran) -> Option<String> {
    answers.iter().find_map(|(node, answer)| {
        let ran = answer.as_ref().ok().filter(|ran| !ran.accepted)?;
        Some(format!("{node} would not start with it: {}", ran.words.trim()))
    })
}

fn unanswered(answers: &Ran) -> Option<String> {
    answers.iter().find_map(|(node, answer)| {
        let words = answer.as_ref().err()?;
        Some(format!("{node} could not try it out: {words}"))
    })
}

/// From the first write to the end.
pub fn next(seen: &Seen, current: &Current<'_>, journal: &Journal) -> Step {
    let Current { database, request, paused, now, .. } = *current;
    if let (Some(measured), Some(request)) = (&seen.answers.restarted, request) {
        let (report, message) = report::with_restart(seen, current, measured);
        return Step::Note(status::restarted(request, report, &measured.node, &message, now));
    }
    if let Some(step) = report::unreported(seen, current, journal) {
        return step;
    }
    if is_proven(seen, current, journal) {
        return finish(seen, current, journal);
    }
    if !paused {
        return pause(current);
    }
    let back = |why: String| roll_back(seen, journal, why, now);
    if is_overdue(current) {
        return back(overdue(seen, current, journal));
    }
    // 4. Write. The file that new nodes begin with stays as it was until the end.
    if let Some(owned) = &seen.answers.field_owned {
        return back(crate::ops::configuration::field_owned(owned));
    }
    let (to, from) = (&journal.after, &journal.before);
    match super::write(seen, current, to, from, &from.file) {
        Err(why) => return back(why),
        Ok(Some(step)) => return step,
        Ok(None) => {}
    }
    // 5. Load, 6. restart.
    if let Some((node, words)) = &seen.answers.put_back {
        return back(format!("{node} would not take it: {words}"));
    }
    match course(seen, current, journal) {
        Course::Act(step) => *step,
        Course::Await(what) => Step::Wait { what, on: Awaited::Servers },
        Course::Failed(why) => back(why),
        // 7. Prove.
        Course::Arrived { expected, pending_restart } => match &seen.answers.proofs {
            None => Step::Prove { nodes: expected, deadline_ms: super::timeout_ms(current) },
            Some(proofs) => match proof::verdict(&expected, proofs, seen.catalogue()) {
                Verdict::Failed(why) => back(why),
                Verdict::NotYet(what) => Step::Wait { what, on: Awaited::Servers },
                Verdict::Proven(remarks) => match request {
                    None => resume(database),
                    Some(request) => {
                        let report = report::of_end(seen, current, pending_restart);
                        let remarks = remarks.iter().map(|r| format!("; {r}")).collect::<String>();
                        Step::Report(status::done_so_far(request, report, &remarks, now))
                    }
                },
            },
        },
    }
}

fn overdue(seen: &Seen, current: &Current<'_>, journal: &Journal) -> String {
    let what = match course(seen, current, journal) {
        Course::Await(what) => what,
        Course::Act(step) => step.word().to_owned(),
        Course::Failed(why) => why,
        Course::Arrived { .. } => "proofs".to_owned(),
    };
    format!("gave up waiting after {:?}: {what}", super::timeout(current))
}

/// 9. After the proof: the file for new nodes, resume, the end.
fn finish(seen: &Seen, current: &Current<'_>, journal: &Journal) -> Step {
    let Current { database, request, paused, now, .. } = *current;
    if !paused {
        return match request {
            Some(request) => Step::Conclude(status::successful(request, now)),
            None => Step::Nothing,
        };
    }
    let Some(file) = seal(seen, current, journal) else {
        let what = "the primary, to see what it runs with".to_owned();
        return Step::Wait { what, on: Awaited::Servers };
    };
    let written = super::write_operator(seen, &journal.after.custom.inline, &file);
    written.unwrap_or_else(|| resume(database))
}

/// What new nodes begin with from now on: the target, but with what waits for a restart at the
/// value that the primary runs with. Where the primary does not come back in time, what was in
/// force stands for that, unless servers were restarted.
fn seal(seen: &Seen, current: &Current<'_>, journal: &Journal) -> Option<String> {
    let target = Target::of(journal, seen.catalogue());
    if let Some((_, server)) = seen.primary().filter(|(_, server)| server.is_running()) {
        return Some(target.files(server, &BTreeMap::new(), &[]).now.render());
    }
    if !is_overdue(current) {
        return None;
    }
    let status = current.request.and_then(|request| request.status.as_ref());
    if !status::report(status).restarted.is_empty() {
        return Some(target.settings.render());
    }
    let needs_restart = |name: &Name| match target.catalogue {
        Some(catalogue) => Class::of(name, catalogue) == Class::Restart,
        None => true,
    };
    Some(target.settings.holding(&target.origin, needs_restart).render())
}
