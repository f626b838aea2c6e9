//! Back to what was before: the same way with the same care of order, then resume, then Failed.
//!
//! Ends in any case: what cannot be reached within its time is named, and the database is resumed.

use crate::api::{Condition, PostgresOpsRequest, conditions};
use crate::ops::journal::Journal;
use crate::ops::proof::{self, Verdict};
use crate::ops::seen::Seen;
use crate::ops::status;
use crate::ops::step::{Awaited, Step};

use super::course::{Course, course};
use super::{Current, is_overdue, report, resume};

/// The next step on the way back.
pub fn next(seen: &Seen, current: &Current<'_>, journal: &Journal) -> Step {
    let Current { database, request, paused, now, .. } = *current;
    if let (Some(measured), Some(request)) = (&seen.answers.restarted, request) {
        let (report, message) = report::with_restart(seen, current, measured);
        return Step::Note(status::restarted(request, report, &measured.node, &message, now));
    }
    if let Some(step) = report::unreported(seen, current, journal) {
        return step;
    }
    if !paused {
        return end(seen, current, journal);
    }
    let (to, from) = (&journal.before, &journal.after);
    match super::write(seen, current, to, from, &to.file) {
        // Somebody else's wish stands in the object: it is left, a later request loads it.
        Err(_) => {
            if let Some(step) = super::write_operator(seen, &to.custom.inline, &to.file) {
                return step;
            }
        }
        Ok(Some(step)) => return step,
        Ok(None) => {}
    }
    if said(current) {
        return resume(database);
    }
    if let Some((node, words)) = &seen.answers.put_back {
        return tell(current, Err(format!("{node} would not take it: {words}")));
    }
    let course = course(seen, current, journal);
    if is_overdue(current) {
        return tell(current, Err(left(&course)));
    }
    match course {
        Course::Act(step) => *step,
        Course::Await(what) => Step::Wait { what, on: Awaited::Servers },
        Course::Failed(why) => tell(current, Err(why)),
        Course::Arrived { expected, .. } => match &seen.answers.proofs {
            None => Step::Prove { nodes: expected, deadline_ms: super::timeout_ms(current) },
            Some(proofs) => match proof::verdict(&expected, proofs, seen.catalogue()) {
                Verdict::NotYet(what) => Step::Wait { what, on: Awaited::Servers },
                Verdict::Proven(_) => tell(current, Ok(())),
                Verdict::Failed(why) => tell(current, Err(why)),
            },
        },
    }
}

fn left(course: &Course) -> String {
    match course {
        Course::Act(step) => format!("there was no time left for {}", step.word()),
        Course::Await(what) | Course::Failed(what) => what.clone(),
        Course::Arrived { .. } => "it was not proven".to_owned(),
    }
}

/// Whether the way back has ended, well or not.
fn said(current: &Current<'_>) -> bool {
    let said = current.request.map_or(&[][..], PostgresOpsRequest::conditions);
    conditions::find(said, status::ROLLED_BACK).is_some()
}

const AS_BEFORE: &str = "what was in force before is in force again";

/// What becomes of `maxRetries` after a rollback; see [`super`] for the reason.
const NOT_AGAIN: &str = "; not tried again: spec.maxRetries counts tries that change nothing";

/// Says how the way back ended; a request that is gone cannot be told.
fn tell(current: &Current<'_>, outcome: Result<(), String>) -> Step {
    let Some(request) = current.request else { return resume(current.database) };
    let sentence = match &outcome {
        Ok(()) => AS_BEFORE.to_owned(),
        Err(what) => format!("going back is not complete: {what}"),
    };
    let said = status::say(status::ROLLED_BACK, outcome.is_ok(), &sentence, current.now);
    Step::Report(status::told(request, None, vec![said], &sentence, current.now))
}

/// After resuming: the request says how it ended.
fn end(seen: &Seen, current: &Current<'_>, journal: &Journal) -> Step {
    let Some(request) = current.request else { return Step::Nothing };
    let words = journal.rollback.as_ref().map_or("", |rollback| rollback.words.as_str());
    let back = conditions::find(request.conditions(), status::ROLLED_BACK);
    let mut sentence = words.to_owned();
    if let Some(back) = back {
        sentence = format!("{sentence}; {}", back.message);
    }
    if request.spec.max_retries.is_some_and(|retries| retries > 0) {
        sentence.push_str(NOT_AGAIN);
    }
    let mut told = status::failed(request, &sentence, current.now);
    let mut report = status::report(Some(&told.status));
    report::finish(seen, current, &mut report);
    report.rolled_back = back.is_some_and(Condition::is_true);
    report.proven = 0;
    report.words = Some(words.to_owned());
    told.status.proof = Some(report);
    Step::Conclude(told)
}
