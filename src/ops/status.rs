//! What a request's status and the database's conditions say, in KubeDB's words.
//!
//! Phases are KubeDB's; types of conditions too where it has one (`kubedb.md` §6.8), with type and
//! reason the same word. Ours are `DryRunSucceeded`, `Proven`, `RolledBack`, `PendingRestart` and
//! `Waiting`, and the three of kstatus (`Ready`, `Reconciling`, `Stalled`), which follow from the
//! phase, so that `kubectl wait --for=condition=Ready` ends with a request. Holds no values of
//! parameters but those in a server's own words, filtered by the caller. Never decides what happens
//! next.

use k8s_openapi::jiff::Timestamp;

use crate::api::conditions::{self, Condition, MESSAGE_LIMIT};
use crate::api::names::DatabaseRef;
use crate::api::ops_request::{OpsPhase, OpsType, PostgresOpsRequestStatus, ProofReport};
use crate::api::postgres::condition::PAUSED;
use crate::api::{Postgres, PostgresOpsRequest};
use crate::pgconf::Settings;

use super::step::Told;

/// Why a Pending request is not carried out yet.
pub const WAITING: &str = "Waiting";
/// This version does not carry it out; it stays Pending.
pub const NOT_CARRIED_OUT: &str = "NotCarriedOut";
/// Names what a request asks for and nothing acts on.
pub const FIELDS_NOT_ACTED_ON: &str = "FieldsNotActedOn";
/// The file was tried out on every node.
pub const DRY_RUN: &str = "DryRunSucceeded";
/// KubeDB's: the database is paused.
pub const PAUSED_DATABASE: &str = "DatabasePauseSucceeded";
/// KubeDB's: `spec.configuration` and the operator's Secret are written.
pub const PREPARED: &str = "PrepareCustomConfig";
/// KubeDB's: the servers have read the file.
pub const RELOADED: &str = "ReloadPodsSucceeded";
/// KubeDB's: one server was restarted; `--<pod>` is appended.
pub const RESTARTED_POD: &str = "RestartPods";
/// KubeDB's: all servers that had to be were restarted.
pub const RESTARTED: &str = "RestartNodes";
/// Every node runs with what was asked for.
pub const PROVEN: &str = "Proven";
/// What was in force before is in force again.
pub const ROLLED_BACK: &str = "RolledBack";
/// Parameters wait for a restart that was not asked for.
pub const PENDING_RESTART: &str = "PendingRestart";
/// KubeDB's: the database is no longer paused.
pub const RESUMED: &str = "DatabaseResumeSucceeded";
/// KubeDB's: of a merged request, and of one for which another stands.
pub use crate::api::ops_request::condition::{MERGED_FROM, SKIPPED};
/// KubeDB's: the requests that a merged one stands for have ended.
pub const ORIGINALS_SKIPPED: &str = "OriginalOpsSkipped";
/// KubeDB's reason of [`MERGED_FROM`] and of the originals' [`SKIPPED`].
pub const MERGED: &str = "ConfigurationMerged";

/// Who paused a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PauseOwner {
    /// Name of the request.
    pub name: String,
    /// UID of the request.
    pub uid: String,
}

const PAUSED_FOR: &str = "paused by pgitops for PostgresOpsRequest ";

/// The condition with which ops pauses a database. Its message names the owner: only that one's
/// pause is ever lifted.
pub fn pause(owner: &PauseOwner, generation: Option<i64>, now: Timestamp) -> Condition {
    let message = format!("{PAUSED_FOR}{} (uid {})", owner.name, owner.uid);
    Condition::new(PAUSED, true, PAUSED, &message, now).observed(generation)
}

/// The owner of a pause of ours; `None` for somebody else's.
pub fn pause_owner(condition: &Condition) -> Option<PauseOwner> {
    let rest = condition.message.strip_prefix(PAUSED_FOR)?;
    let (name, uid) = rest.split_once(" (uid ")?;
    let uid = uid.strip_suffix(')')?;
    Some(PauseOwner { name: name.to_owned(), uid: uid.to_owned() })
}

/// Whose pause a database is under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pause {
    /// It is not paused.
    Not,
    /// By ops, for this request.
    Ours(PauseOwner),
    /// By somebody else, with this message.
    Foreign(String),
}

/// Whose pause a database is under.
pub fn paused(database: &Postgres) -> Pause {
    match conditions::find(database.conditions(), PAUSED).filter(|c| c.is_true()) {
        None => Pause::Not,
        Some(condition) => match pause_owner(condition) {
            Some(owner) => Pause::Ours(owner),
            None => Pause::Foreign(condition.message.clone()),
        },
    }
}

/// One condition with its type as its reason, as KubeDB has it.
pub fn say(type_: &str, status: bool, message: &str, now: Timestamp) -> Condition {
    Condition::new(type_, status, type_, message, now)
}

/// A request's status with more said.
pub fn told(
    request: &PostgresOpsRequest,
    phase: Option<OpsPhase>,
    said: Vec<Condition>,
    sentence: &str,
    now: Timestamp,
) -> Told {
    let mut status = request.status.clone().unwrap_or_default();
    let generation = request.metadata.generation;
    for condition in said {
        conditions::set(&mut status.conditions, condition.observed(generation));
    }
    if let Some(phase) = phase {
        status.phase = Some(phase);
        status.observed_generation = generation;
    }
    summarise(&mut status, sentence, generation, now);
    Told {
        request: request.request_name(),
        status,
        version: request.metadata.resource_version.clone(),
        sentence: sentence.to_owned(),
        pod: None,
    }
}

/// kstatus: `Ready` is always there; of `Reconciling` and `Stalled` one or none.
fn summarise(
    status: &mut PostgresOpsRequestStatus,
    sentence: &str,
    generation: Option<i64>,
    now: Timestamp,
) {
    let phase = status.phase.unwrap_or_default();
    let (ready, other) = match phase {
        OpsPhase::Successful => (true, None),
        // Also a request that another one stands for has itself done nothing.
        OpsPhase::Failed | OpsPhase::Skipped | OpsPhase::Denied => {
            (false, Some(conditions::STALLED))
        }
        OpsPhase::Pending
        | OpsPhase::Progressing
        | OpsPhase::WaitingForApproval
        | OpsPhase::Approved
        | OpsPhase::Other => (false, Some(conditions::RECONCILING)),
    };
    for type_ in [conditions::RECONCILING, conditions::STALLED] {
        if other != Some(type_) {
            conditions::remove(&mut status.conditions, type_);
        }
    }
    let reason = format!("{phase:?}");
    let said = [Some((conditions::READY, ready)), other.map(|type_| (type_, true))];
    for (type_, value) in said.into_iter().flatten() {
        let condition = Condition::new(type_, value, &reason, sentence, now);
        conditions::set(&mut status.conditions, condition.observed(generation));
    }
}

/// What a person has to mend before a request can go on, in whatever phase it is; `None` when its
/// status says so already. The next thing that is told takes it back.
pub fn blocked(
    request: &PostgresOpsRequest,
    reason: &str,
    sentence: &str,
    now: Timestamp,
) -> Option<Told> {
    // An admission webhook's words may quote what the request carries.
    let carried = request.spec.configuration.as_ref().map_or("", |asked| asked.settings());
    let sentence = &Settings::parse(carried).unwrap_or_default().hide_in(sentence);
    let said = conditions::find(request.conditions(), conditions::STALLED);
    let message: String = sentence.chars().take(MESSAGE_LIMIT).collect();
    if said.is_some_and(|said| said.reason == reason && said.message == message) {
        return None;
    }
    let mut told = told(request, None, Vec::new(), sentence, now);
    let conditions = &mut told.status.conditions;
    conditions::remove(conditions, conditions::RECONCILING);
    let stalled = Condition::new(conditions::STALLED, true, reason, sentence, now);
    conditions::set(conditions, stalled.observed(request.metadata.generation));
    Some(told)
}

/// Why a request is still Pending; `None` when its status says so already.
pub fn explained(
    request: &PostgresOpsRequest,
    type_: &str,
    reason: &str,
    sentence: &str,
    now: Timestamp,
) -> Option<Told> {
    let said = conditions::find(request.conditions(), type_);
    let stalled = conditions::find(request.conditions(), conditions::STALLED).is_some();
    let said = said.filter(|_| !stalled);
    if said.is_some_and(|c| c.is_true() && c.reason == reason && c.message == sentence) {
        return None;
    }
    let condition = Condition::new(type_, true, reason, sentence, now);
    Some(told(request, Some(OpsPhase::Pending), vec![condition], sentence, now))
}

/// A request becomes Progressing.
pub fn accepted(request: &PostgresOpsRequest, now: Timestamp) -> Told {
    let (type_, message) = match request.spec.type_ {
        OpsType::Restart => ("Restart", "Postgres ops request is restarting nodes"),
        _ => ("Reconfigure", "Postgres ops request is reconfiguring nodes"),
    };
    let mut said = vec![say(type_, true, message, now)];
    let unacted = request.spec.unacted();
    if !unacted.is_empty() {
        let fields = format!("nothing acts on these fields: {}", unacted.join(", "));
        said.push(say(FIELDS_NOT_ACTED_ON, true, &fields, now));
    }
    let mut told = told(request, Some(OpsPhase::Progressing), said, message, now);
    conditions::remove(&mut told.status.conditions, WAITING);
    told
}

/// A request ends because another one stands for it, or because it was planned from something that
/// is no longer so.
pub fn skipped(request: &PostgresOpsRequest, reason: &str, why: &str, now: Timestamp) -> Told {
    let condition = Condition::new(SKIPPED, true, reason, why, now);
    told(request, Some(OpsPhase::Skipped), vec![condition], why, now)
}

/// A request ends without success.
pub fn failed(request: &PostgresOpsRequest, why: &str, now: Timestamp) -> Told {
    let said = vec![say("Failed", true, why, now)];
    let mut told = told(request, Some(OpsPhase::Failed), said, why, now);
    conditions::remove(&mut told.status.conditions, WAITING);
    // Always there, so that whoever reports can tell our failure from one of KubeDB's.
    let proof = told.status.proof.get_or_insert_default();
    proof.words.get_or_insert_with(|| why.to_owned());
    told
}

/// What was done up to the proof, said in one write.
pub fn done_so_far(
    request: &PostgresOpsRequest,
    proof: ProofReport,
    remarks: &str,
    now: Timestamp,
) -> Told {
    let nodes = proof.nodes;
    let proven = format!("{} of {nodes} nodes run with it{remarks}", proof.proven);
    let mut said = vec![
        say(DRY_RUN, true, "every node would start with it", now),
        say(PAUSED_DATABASE, true, "database is paused", now),
    ];
    if request.spec.type_ == OpsType::Reconfigure {
        said.push(say(PREPARED, true, "custom configuration is written", now));
        said.push(say(RELOADED, true, "all servers have read it", now));
    }
    if !proof.restarted.is_empty() {
        let order = proof.restarted.join(", ");
        said.push(say(RESTARTED, true, &format!("Successfully restarted: {order}"), now));
    }
    if !proof.pending_restart.is_empty() {
        let names = proof.pending_restart.join(", ");
        let message = format!("not in force before the next restart: {names}");
        said.push(say(PENDING_RESTART, true, &message, now));
    }
    said.push(say(PROVEN, true, &proven, now));
    let mut told = told(request, None, said, &proven, now);
    told.status.proof = Some(proof);
    told
}

/// A restart and what it cost, in the status while the request goes on.
pub fn restarted(
    request: &PostgresOpsRequest,
    proof: ProofReport,
    pod: &str,
    message: &str,
    now: Timestamp,
) -> Told {
    let condition = say(&format!("{RESTARTED_POD}--{pod}"), true, message, now);
    let mut told = told(request, None, vec![condition], message, now);
    told.status.proof = Some(proof);
    told.pod = Some(pod.to_owned());
    told
}

/// A request ends with success.
pub fn successful(request: &PostgresOpsRequest, now: Timestamp) -> Told {
    let message = "Successfully completed the modification process.";
    let said =
        vec![say(RESUMED, true, "database is resumed", now), say("Successful", true, message, now)];
    told(request, Some(OpsPhase::Successful), said, message, now)
}

/// The report as it stands in the status, empty before the first restart.
pub fn report(status: Option<&PostgresOpsRequestStatus>) -> ProofReport {
    status.and_then(|status| status.proof.clone()).unwrap_or_default()
}

/// KubeDB's sentence for a database that is not there.
pub fn no_database(database: &DatabaseRef) -> String {
    format!("spec.databaseRef {database}, is invalid or not found")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_pause_has_an_owner() {
        let owner = PauseOwner { name: "db-1".into(), uid: "u-1".into() };
        let ours = pause(&owner, Some(3), Timestamp::UNIX_EPOCH);
        assert_eq!(pause_owner(&ours), Some(owner));
        let check = |message: &str| {
            let theirs = Condition::new(PAUSED, true, PAUSED, message, Timestamp::UNIX_EPOCH);
            assert_eq!(pause_owner(&theirs), None, "{message}");
        };
        check("");
        check("Pausing Postgres demo/db");
        check("paused by pgitops for PostgresOpsRequest db-1");
    }

    #[test]
    fn a_status_keeps_what_others_said() {
        let spec = "{databaseRef: {name: d}, type: Restart}";
        let mut request = PostgresOpsRequest::new("r", serde_yaml::from_str(spec).unwrap());
        let now = Timestamp::UNIX_EPOCH;
        let first = explained(&request, WAITING, "NotReady", "x", now).unwrap();
        request.status = Some(first.status);
        conditions::set(
            &mut request.status.as_mut().unwrap().conditions,
            say("Foreign", true, "", now),
        );
        assert!(explained(&request, WAITING, "NotReady", "x", now).is_none());
        let accepted = accepted(&request, now).status;
        assert_eq!(accepted.phase, Some(OpsPhase::Progressing));
        let types: Vec<_> = accepted.conditions.iter().map(|c| c.type_.as_str()).collect();
        assert_eq!(types, ["Ready", "Reconciling", "Foreign", "Restart"]);
    }

    #[test]
    fn what_kstatus_reads_follows_from_the_phase() {
        let spec = "{databaseRef: {name: d}, type: Restart}";
        let mut request = PostgresOpsRequest::new("r", serde_yaml::from_str(spec).unwrap());
        let now = Timestamp::UNIX_EPOCH;
        let mut check = |told: Told, expected: &[&str]| {
            let said = told.status.conditions.iter();
            let said = said.filter(|c| ["Ready", "Reconciling", "Stalled"].contains(&&*c.type_));
            let said: Vec<String> =
                said.map(|c| format!("{} {} {}", c.type_, c.status, c.reason)).collect();
            assert_eq!(said, expected);
            request.status = Some(told.status);
            request.clone()
        };
        let waits = explained(
            &PostgresOpsRequest::new("r", serde_yaml::from_str(spec).unwrap()),
            WAITING,
            "NotReady",
            "x",
            now,
        )
        .unwrap();
        let request = check(waits, &["Ready False Pending", "Reconciling True Pending"]);
        let request = check(
            accepted(&request, now),
            &["Ready False Progressing", "Reconciling True Progressing"],
        );
        let stopped = blocked(&request, "Forbidden", "no right", now).unwrap();
        let request = check(stopped, &["Ready False Progressing", "Stalled True Forbidden"]);
        assert!(blocked(&request, "Forbidden", "no right", now).is_none());
        let request = check(successful(&request, now), &["Ready True Successful"]);
        check(failed(&request, "no", now), &["Ready False Failed", "Stalled True Failed"]);
    }

    #[test]
    fn an_accepted_request_names_what_nothing_acts_on() {
        let spec = "{databaseRef: {name: d}, type: Restart, tls: {remove: true}}";
        let request = PostgresOpsRequest::new("r", serde_yaml::from_str(spec).unwrap());
        let conditions = accepted(&request, Timestamp::UNIX_EPOCH).status.conditions;
        let named = conditions::find(&conditions, FIELDS_NOT_ACTED_ON).unwrap();
        assert_eq!(named.message, "nothing acts on these fields: tls");
    }
}
