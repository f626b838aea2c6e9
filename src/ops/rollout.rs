//! What comes next for a database: exactly one step, from nothing but what is seen.
//!
//! [`next`] reads like the list of design §7: every rule returns early. It knows no history but
//! the journal and the request's own status, so that any process can go on with what another one
//! began, after a crash at any place. Nothing here undoes what it does not see: a role or timeline
//! that changes is looked at again, a node of which nothing is known is waited for.
//!
//! | known from | fact |
//! |---|---|
//! | the database's condition `Paused` | a request of ours has begun, or has not ended |
//! | the journal (its UID is the request's) | what to go back to; that we are going back |
//! | the request's condition `Proven` | the end was proven: only the clearing up is left |
//! | the servers | everything else: which file, started with what, who leads |
//!
//! **`maxRetries`** (KubeDB leaves open what it means for Postgres) counts tries that change
//! nothing. Until something is written a try is one `timeout` of asking again and again; when it
//! has passed without an answer the next begins, and the failure says how many there were. A
//! refusal, of a rule or of a server, is for good: the same request would be refused again. What
//! was begun and rolled back is not tried again either, and the failure says so: every try may
//! restart servers that people work with, and after one that failed a person should look first.
//!
//! Leaves the way of the files to `course`, order to `hot_standby`, words to `status`.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::api::conditions;
use crate::api::names::finalizers;
use crate::api::ops_request::OpsPhase;
use crate::api::{Postgres, PostgresOpsRequest};

use super::admit;
use super::journal::{Journal, RollBack};
use super::queue;
use super::seen::{Kept, Seen};
use super::status::{self, Pause, PauseOwner};
use super::step::Step;
use super::{configuration, seen};

mod back;
mod course;
mod forward;
mod report;

pub use course::CATCH_UP;

/// How long each wait may take for each node, where the request does not say (KubeDB's default).
const PER_NODE: Duration = Duration::from_secs(120);

/// The rollout that is under way.
#[derive(Clone, Copy, Debug)]
struct Current<'a> {
    database: &'a Postgres,
    owner: &'a PauseOwner,
    /// `None`: the request is gone, although our finalizer stood on it.
    request: Option<&'a PostgresOpsRequest>,
    /// `None`: nothing was changed yet.
    journal: Option<&'a Journal>,
    /// Whether our condition `Paused` stands on the database.
    paused: bool,
    now: Timestamp,
}

/// The next step.
pub fn next(seen: &Seen, now: Timestamp) -> Step {
    let Some(database) = &seen.database else { return without_database(seen, now) };
    let pause = status::paused(database);
    if let Some(step) = clearing_up(seen, database, &pause) {
        return step;
    }
    let Some((owner, paused)) = owner(seen, &pause) else {
        return queue::next(seen, database, now);
    };
    let request = seen.request(&owner.uid);
    let journal = seen.journal_of(&owner.uid);
    let current = Current { database, owner: &owner, request, journal, paused, now };
    if let Some(step) = at_an_end(seen, &current) {
        return step;
    }
    match journal {
        Some(journal) if journal.rollback.is_some() => back::next(seen, &current, journal),
        Some(journal) => forward::next(seen, &current, journal),
        None => forward::begin(seen, &current),
    }
}

/// Whose rollout it is: the pause says, or a request that is Progressing and guarded by us.
fn owner(seen: &Seen, pause: &Pause) -> Option<(PauseOwner, bool)> {
    if let Pause::Ours(owner) = pause {
        return Some((owner.clone(), true));
    }
    let ours = |r: &&PostgresOpsRequest| r.phase() == OpsPhase::Progressing && is_guarded(r);
    let request = seen.requests.iter().find(ours)?;
    let uid = request.metadata.uid.clone().unwrap_or_default();
    Some((PauseOwner { name: request.request_name().0, uid }, false))
}

fn is_guarded(request: &PostgresOpsRequest) -> bool {
    let finalizers = request.metadata.finalizers.as_deref().unwrap_or_default();
    finalizers.iter().any(|name| name == finalizers::REQUEST)
}

/// What is left of requests that have ended, or that were deleted before they had an effect.
fn clearing_up(seen: &Seen, database: &Postgres, pause: &Pause) -> Option<Step> {
    let owner = match pause {
        Pause::Ours(owner) => seen.request(&owner.uid),
        Pause::Not | Pause::Foreign(_) => None,
    };
    if owner.is_some_and(|request| request.phase().is_terminal()) {
        return Some(resume(database));
    }
    let over = |request: &&PostgresOpsRequest| {
        let unbegun = request.is_deleted() && request.phase() == OpsPhase::Pending;
        is_guarded(request) && (request.phase().is_terminal() || unbegun)
    };
    seen.requests.iter().find(over).map(release)
}

/// Why a rollout must not go on as it is: its request was deleted, or is gone, or the database is
/// being deleted. Before it had an effect it just ends; after the proof it is finished.
fn at_an_end(seen: &Seen, current: &Current<'_>) -> Option<Step> {
    let Current { database, request, journal, paused, now, .. } = *current;
    if database.metadata.deletion_timestamp.is_some() {
        let why = "the database is being deleted";
        return Some(match request {
            Some(request) => Step::Conclude(status::failed(request, why, now)),
            None if paused => resume(database),
            None => Step::Nothing,
        });
    }
    // Nobody knows what to go back to: the database is not left paused for that.
    if let (Kept::Broken(why), true) = (&seen.journal, paused) {
        let secret = database.children().previous_config;
        let why = format!("Secret {secret} cannot be read, so nothing was undone: {why}");
        return Some(match request {
            Some(request) => Step::Conclude(status::failed(request, &why, now)),
            None => resume(database),
        });
    }
    let why = match request {
        Some(request) if !request.is_deleted() => return None,
        Some(_) => "the request was deleted",
        None => "the request is gone",
    };
    match journal {
        // Nothing was changed.
        None if paused => Some(resume(database)),
        None => request.map(release),
        Some(journal) if journal.rollback.is_some() || is_proven(seen, current, journal) => None,
        Some(journal) => Some(roll_back(seen, journal, why.to_owned(), now)),
    }
}

/// Whether the end was proven: by the request's condition, or, where the request is gone, by the
/// file in the operator's Secret, which is written only after that.
fn is_proven(seen: &Seen, current: &Current<'_>, journal: &Journal) -> bool {
    match current.request {
        Some(request) => conditions::is_true(request.conditions(), status::PROVEN),
        None => {
            journal.after.file != journal.before.file
                && seen.operator.as_ref().is_some_and(|secret| secret.file == journal.after.file)
        }
    }
}

/// The decision to go back, to be kept before anything is undone.
fn roll_back(seen: &Seen, journal: &Journal, why: String, now: Timestamp) -> Step {
    let words = seen::shown(&why, &[&journal.before.settings(), &journal.after.settings()]);
    // A call that is still under way bears the next number.
    let rollback = RollBack { words, at: now, base: seen.highest().next() };
    let journal = Journal { rollback: Some(rollback), lowered: None, ..journal.clone() };
    Step::RollBack(Box::new(journal))
}

fn resume(database: &Postgres) -> Step {
    let mut conditions = database.conditions().to_vec();
    conditions::remove(&mut conditions, crate::api::postgres::condition::PAUSED);
    Step::Resume { conditions, version: database.metadata.resource_version.clone() }
}

fn release(request: &PostgresOpsRequest) -> Step {
    let mut finalizers = request.metadata.finalizers.clone().unwrap_or_default();
    finalizers.retain(|name| name != finalizers::REQUEST);
    Step::Release {
        request: request.request_name(),
        finalizers,
        version: request.metadata.resource_version.clone(),
    }
}

/// Requests for a database that is not there.
fn without_database(seen: &Seen, now: Timestamp) -> Step {
    for request in &seen.requests {
        let ended = request.phase().is_terminal();
        if is_guarded(request) && (ended || request.is_deleted()) {
            return release(request);
        }
        let ours = admit::not_carried_out(request).is_none();
        if !ended && !request.is_deleted() && ours {
            let why = status::no_database(&request.database());
            return Step::Refuse(status::failed(request, &why, now));
        }
    }
    Step::Nothing
}

/// How long each wait may take.
fn timeout(current: &Current<'_>) -> Duration {
    let nodes = u32::try_from(current.database.spec.nodes()).unwrap_or(1);
    let asked = current.request.and_then(|request| request.spec.timeout);
    asked.map_or(PER_NODE * nodes, |length| length.0)
}

/// The same for a call to an instance, in milliseconds.
fn timeout_ms(current: &Current<'_>) -> u64 {
    u64::try_from(timeout(current).as_millis()).unwrap_or(u64::MAX)
}

/// How often a request whose `maxRetries` is absent is tried again (KubeDB's default).
const RETRIES: u32 = 1;

/// How often a request is tried in all, as long as nothing is changed by it.
fn tries(request: &PostgresOpsRequest) -> u32 {
    let retries = request.spec.max_retries.map_or(RETRIES, |n| u32::try_from(n).unwrap_or(0));
    retries.saturating_add(1)
}

/// Whether the present wait has lasted too long.
fn is_overdue(current: &Current<'_>) -> bool {
    waited(current).is_some_and(|length| length > timeout(current))
}

/// The sentence with which a request ends that has waited in all its tries; before that `None`.
fn given_up(current: &Current<'_>, what: &str) -> Option<String> {
    let (tries, length) = (tries(current.request?), timeout(current));
    (waited(current)? > length.saturating_mul(tries)).then(|| {
        let times = if tries == 1 { "1 try".to_owned() } else { format!("{tries} tries") };
        format!("gave up waiting after {times} of {length:?}, nothing was changed: {what}")
    })
}

/// How long the present wait has lasted: since the last thing that was said or kept.
fn waited(current: &Current<'_>) -> Option<Duration> {
    let said = current.request.map_or(&[][..], PostgresOpsRequest::conditions);
    let paused =
        conditions::find(current.database.conditions(), crate::api::postgres::condition::PAUSED);
    let times = said.iter().chain(paused).map(|condition| condition.last_transition_time.0);
    let began = current.journal.map(|journal| journal.began);
    let back = current.journal.and_then(|journal| Some(journal.rollback.as_ref()?.at));
    let since = times.chain(began).chain(back).max()?;
    (current.now > since).then(|| current.now.duration_since(since).unsigned_abs())
}

/// The write that makes the object and the operator's Secret say what one side of the rollout
/// says. `file` is that of the Secret, which new nodes begin with.
fn write(
    seen: &Seen,
    current: &Current<'_>,
    to: &super::journal::Side,
    from: &super::journal::Side,
    file: &str,
) -> Result<Option<Step>, String> {
    let is = configuration::of_object(current.database);
    if is != to.custom && is != from.custom {
        return Err("spec.configuration was changed by somebody else in the meantime".to_owned());
    }
    if let Some(patch) = configuration::patch(current.database, &to.custom) {
        return Ok(Some(Step::WriteSpec(patch)));
    }
    Ok(write_operator(seen, &to.custom.inline, file))
}

fn write_operator(seen: &Seen, inline: &str, file: &str) -> Option<Step> {
    let secret = seen.operator.as_ref()?;
    (secret.inline != inline || secret.file != file).then(|| Step::WriteOperator {
        inline: inline.to_owned(),
        file: file.to_owned(),
        version: secret.version.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One node, whose operator's Secret is missing: nothing can begin.
    fn after(seconds: i64, retries: &str) -> Step {
        let database = "{apiVersion: kubedb.com/v1, kind: Postgres, metadata: {name: db, \
                        namespace: demo, uid: u}, spec: {version: '15'}}";
        let spec = format!("{{databaseRef: {{name: db}}, type: Restart{retries}}}");
        let mut request = PostgresOpsRequest::new("r", serde_yaml::from_str(&spec).unwrap());
        request.metadata.namespace = Some("demo".to_owned());
        request.metadata.uid = Some("u-1".to_owned());
        request.metadata.finalizers = Some(vec![finalizers::REQUEST.to_owned()]);
        let began = Timestamp::from_second(1000).unwrap();
        request.status = Some(status::accepted(&request, began).status);
        let seen = Seen {
            database: Some(serde_yaml::from_str(database).unwrap()),
            requests: vec![request],
            ..Seen::default()
        };
        next(&seen, Timestamp::from_second(1000 + seconds).unwrap())
    }

    #[test]
    fn a_wait_that_changes_nothing_is_tried_again_as_often_as_asked() {
        let waits = |seconds, retries: &str| {
            let step = after(seconds, retries);
            assert!(matches!(step, Step::Wait { .. }), "{seconds} {retries}: {step:?}");
        };
        let ends = |seconds, retries: &str, tries: &str| {
            let Step::Conclude(told) = after(seconds, retries) else {
                panic!("{seconds} {retries} goes on")
            };
            assert_eq!(told.status.phase, Some(OpsPhase::Failed));
            let expected = format!("gave up waiting after {tries} of 120s, nothing was changed: ");
            assert!(told.sentence.starts_with(&expected), "{}", told.sentence);
        };
        waits(240, "");
        ends(241, "", "2 tries");
        waits(120, ", maxRetries: 0");
        ends(121, ", maxRetries: 0", "1 try");
        waits(480, ", maxRetries: 3");
        ends(481, ", maxRetries: 3", "4 tries");
    }
}
