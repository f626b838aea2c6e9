//! What became of each commit, database by database.
//!
//! Facts only: how they read is in `note.rs` and `status.rs`. A database's result belongs to the
//! newest commit that changed what is desired of it; a commit that was overtaken keeps the result
//! of its own request, if it had one. Order, impact and proof come from the request's status;
//! what nobody reported is not claimed. Never decides anything.

mod attempt;
mod correction;

use std::collections::BTreeMap;

use jiff::Timestamp;

pub use attempt::Attempt;
pub use correction::Correction;

use super::desired::Desired;
use super::drift::Change;
use super::live::{Live, Observed, Present, is_ours};
use super::plan::{Cause, Held, Plan, Weight, cause_of, changes_of, failed_words};
use super::problem::Problem;
use super::source::{Source, Step};
use crate::api::names::{CommitId, DatabaseRef, RequestName, annotations};
use crate::api::ops_request::{OpsPhase, PostgresOpsRequest, ProofReport, Restart};

/// What became of every commit on the way, and how every database stands now.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The commits that changed something, oldest first.
    pub commits: Vec<CommitOutcome>,
    /// How every database of the head stands.
    pub databases: BTreeMap<DatabaseRef, Fate>,
    /// Results of commits that are settled already: further attempts.
    pub attempts: Vec<Attempt>,
    /// Values of others that were brought back, or not: every request for that which ended and is
    /// still there, oldest first for each database.
    pub corrections: Vec<Correction>,
}

/// What became of one commit.
#[derive(Clone, Debug)]
pub struct CommitOutcome {
    /// The commit.
    pub commit: CommitId,
    /// By database.
    pub blocks: BTreeMap<DatabaseRef, Block>,
    /// Files that cannot be read since.
    pub broken: BTreeMap<String, Problem>,
}

/// What became of one database for one commit.
#[derive(Clone, Debug)]
pub struct Block {
    /// What became of it.
    pub fate: Fate,
    /// The document's file, while there is one.
    pub file: Option<String>,
    /// Version of the server, as far as it is known.
    pub version: Option<String>,
    /// Number of nodes, when the database is there.
    pub nodes: Option<i32>,
    /// The request that carries it out, and how far it is.
    pub request: Option<(RequestName, OpsPhase)>,
    /// Our own request, when KubeDB merged it into that one.
    pub merged: Option<RequestName>,
    /// What changed or is to change.
    pub changes: Vec<Change>,
    /// What was proven and measured.
    pub proof: Option<ProofReport>,
    /// The commit whose document runs there.
    pub runs: Option<CommitId>,
}

/// What became of a database.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// The change is in force.
    Applied,
    /// The change is configured, and waits for a restart that was forbidden.
    PendingRestart(Vec<String>),
    /// It was in force already.
    NoChange,
    /// No document names the database any more.
    Released,
    /// A newer commit took over before anything was sent.
    Superseded(CommitId),
    /// A request is open.
    Running {
        /// When it was created.
        since: Timestamp,
        /// When it ought to have ended.
        deadline: Timestamp,
    },
    /// It was not changed, or not to the end.
    Held(Held),
}

/// Time that a rollout may take when the document names none: KubeDB's two minutes a node.
const PER_NODE: i64 = 120;

/// Everything that an outcome is taken from.
struct View<'a> {
    source: &'a Source,
    plan: &'a Plan,
    live: &'a Observed,
    /// Why what the plan writes was not taken.
    refused: &'a BTreeMap<DatabaseRef, String>,
    now: Timestamp,
}

impl Outcome {
    /// What became of everything. `refused`: why what the plan writes was not taken.
    pub fn of(
        source: &Source,
        desired: &Desired,
        plan: &Plan,
        live: &Observed,
        refused: &BTreeMap<DatabaseRef, String>,
        now: Timestamp,
    ) -> Self {
        let view = View { source, plan, live, refused, now };
        let databases = desired.targets.keys().chain(plan.held.keys());
        let databases = databases.map(|d| (d.clone(), view.current(d))).collect();
        let commits = source.line.iter().map(|step| view.commit(step));
        let commits = commits.filter(|c| !c.blocks.is_empty() || !c.broken.is_empty()).collect();
        let corrections = correction::of(&source.repository, live);
        Self { commits, databases, attempts: view.attempts(), corrections }
    }

    /// The newest commit up to which nothing more will come by itself; `None` when the very first
    /// is still open.
    pub fn settled(&self, source: &Source) -> Option<CommitId> {
        let open = |commit: &CommitId| {
            self.commits.iter().any(|outcome| outcome.commit == *commit && !outcome.is_settled())
        };
        let steps = source.line.iter().take_while(|step| !open(&step.commit));
        steps.last().map(|step| step.commit.clone())
    }
}

impl CommitOutcome {
    /// Whether nothing more will come by itself.
    pub fn is_settled(&self) -> bool {
        self.blocks.values().all(|block| block.fate.is_settled())
    }
}

impl Fate {
    /// Whether nothing more will come by itself.
    pub fn is_settled(&self) -> bool {
        match self {
            Self::Applied
            | Self::PendingRestart(_)
            | Self::NoChange
            | Self::Released
            | Self::Superseded(_) => true,
            Self::Running { .. } => false,
            Self::Held(held) => held.is_settled(),
        }
    }

    /// The word for programs and counts.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Applied | Self::NoChange => "applied",
            Self::PendingRestart(_) => "pendingRestart",
            Self::Released => "released",
            Self::Superseded(_) => "superseded",
            Self::Running { .. } => "progressing",
            Self::Held(held) => match held.weight() {
                Weight::Failed => "failed",
                Weight::Refused => "refused",
                Weight::Held => "held",
                Weight::Waiting => "waiting",
            },
        }
    }
}

impl View<'_> {
    fn present(&self, database: &DatabaseRef) -> Option<&Present> {
        match self.live.get(database)? {
            Live::Present(present) => Some(present),
            Live::Absent | Live::Unknown(_) => None,
        }
    }

    /// How a database stands now.
    fn current(&self, database: &DatabaseRef) -> Fate {
        if let Some(why) = self.refused.get(database) {
            return Fate::Held(Held::NotTaken(why.clone()));
        }
        if let Some(held) = self.plan.held.get(database) {
            return Fate::Held(held.clone());
        }
        if let Some(emission) = self.plan.emissions.iter().find(|e| e.database == *database) {
            return self.running(database, &emission.request);
        }
        if let Some(name) = self.plan.running.get(database) {
            let request = self.present(database).and_then(|present| present.request(name));
            return match request {
                Some(request) => self.running(database, request),
                None => Fate::Running { since: self.now, deadline: self.now },
            };
        }
        if self.plan.released.contains(database) {
            return Fate::Released;
        }
        Fate::Applied
    }

    fn running(&self, database: &DatabaseRef, request: &PostgresOpsRequest) -> Fate {
        let created = request.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let since = created.unwrap_or(self.now);
        let nodes = self.present(database).map_or(1, |present| present.nodes).max(1);
        let each = request.spec.timeout.map_or(PER_NODE, |t| t.0.as_secs().min(86_400) as i64);
        let whole = jiff::SignedDuration::from_secs(each * i64::from(nodes));
        Fate::Running { since, deadline: since.checked_add(whole).unwrap_or(since) }
    }

    fn commit(&self, step: &Step) -> CommitOutcome {
        let blocks = step.changed.iter().map(|d| (d.clone(), self.block(step, d))).collect();
        CommitOutcome { commit: step.commit.clone(), blocks, broken: step.broken.clone() }
    }

    fn block(&self, step: &Step, database: &DatabaseRef) -> Block {
        let present = self.present(database);
        let request = present.and_then(|present| self.request_of(present, &step.commit));
        let fate = self.fate(step, database, request);
        let emission = self.plan.emissions.iter().find(|e| e.database == *database);
        let emission = emission.filter(|_| matches!(fate, Fate::Running { .. }));
        let request = request.or(emission.map(|emission| &emission.request));
        let request = request.filter(|_| !matches!(fate, Fate::Released | Fate::Superseded(_)));
        let carrier = request.map(|request| present.map_or(request, |p| p.carrier(request)));
        let proof = carrier.and_then(|r| r.status.as_ref()).and_then(|s| s.proof.clone());
        let own = request.map(PostgresOpsRequest::request_name);
        let carried = carrier.map(|carrier| (carrier.request_name(), carrier.phase()));
        let claim = present.and_then(|present| present.claim.as_ref());
        Block {
            file: step.desired.targets.get(database).and_then(|t| t.file()).map(str::to_owned),
            version: version(present, proof.as_ref()),
            nodes: present.map(|present| present.nodes),
            merged: own.filter(|own| carried.as_ref().is_some_and(|(name, _)| name != own)),
            request: carried,
            changes: request.map(changes_of).unwrap_or_default(),
            proof,
            runs: claim.and_then(|claim| claim.applied.clone()),
            fate,
        }
    }

    /// The newest request that a commit asked for: the one that no other came after. (Their times
    /// are whole seconds.)
    fn request_of<'p>(
        &self,
        present: &'p Present,
        commit: &CommitId,
    ) -> Option<&'p PostgresOpsRequest> {
        let asked = present.requests.iter().rev().filter(|request| {
            is_ours(request, &self.source.repository)
                && cause_of(request) == Cause::Commit
                && request.annotation(annotations::COMMIT) == Some(commit.as_str())
        });
        let asked: Vec<&PostgresOpsRequest> = asked.map(|request| &**request).collect();
        let previous = |request: &PostgresOpsRequest| {
            let name = request.request_name();
            asked.iter().any(|other| other.annotation(annotations::PREVIOUS) == Some(&name.0))
        };
        asked.iter().find(|request| !previous(request)).copied()
    }

    fn fate(
        &self,
        step: &Step,
        database: &DatabaseRef,
        request: Option<&PostgresOpsRequest>,
    ) -> Fate {
        if let Some(newer) = self.source.overtaken_by(&step.commit, database) {
            return self.overtaken(database, request, newer, &step.commit);
        }
        if step.dropped.contains(database) {
            return match self.plan.held.get(database) {
                Some(held) => Fate::Held(held.clone()),
                None => Fate::Released,
            };
        }
        // What somebody did to it afterwards is another story.
        if self.plan.applied.contains(database) {
            let present = self.present(database);
            let carrier = request.map(|request| present.map_or(request, |p| p.carrier(request)));
            return match (request, carrier) {
                (Some(request), Some(carrier)) if carrier.phase() == OpsPhase::Successful => {
                    applied(request, carrier)
                }
                _ if self.was_asked_by(database, &step.commit) => Fate::Applied,
                _ => Fate::NoChange,
            };
        }
        self.current(database)
    }

    /// What became of a database for a commit that a newer one overtook.
    fn overtaken(
        &self,
        database: &DatabaseRef,
        request: Option<&PostgresOpsRequest>,
        newer: &CommitId,
        commit: &CommitId,
    ) -> Fate {
        let superseded = Fate::Superseded(newer.clone());
        let Some(request) = request else { return superseded };
        let retired = self.plan.retired.get(database).map(|retired| &retired.request);
        let carrier = self.present(database).map_or(request, |present| present.carrier(request));
        match carrier.phase() {
            OpsPhase::Successful => applied(request, carrier),
            OpsPhase::Failed | OpsPhase::Denied => Fate::Held(failed(carrier, commit)),
            OpsPhase::Skipped => superseded,
            OpsPhase::Pending
            | OpsPhase::Progressing
            | OpsPhase::WaitingForApproval
            | OpsPhase::Approved
            | OpsPhase::Other => match retired == Some(&request.request_name()) {
                true => superseded,
                false => self.running(database, carrier),
            },
        }
    }

    /// Whether the claim remembers a successful request of this commit that is gone by now.
    fn was_asked_by(&self, database: &DatabaseRef, commit: &CommitId) -> bool {
        let claim = self.present(database).and_then(|present| present.claim.as_ref());
        claim.and_then(|claim| claim.asked.as_ref()).is_some_and(|asked| {
            asked.commit == *commit && asked.ended == Some(OpsPhase::Successful)
        })
    }
}

/// What a successful request comes to: parameters may still wait for a restart. `carrier`: the
/// request that carried it out, mostly itself.
fn applied(request: &PostgresOpsRequest, carrier: &PostgresOpsRequest) -> Fate {
    let proof = carrier.status.as_ref().and_then(|status| status.proof.as_ref());
    let waiting = match proof {
        Some(proof) => proof.pending_restart.clone(),
        // KubeDB does not say; what was asked for without a restart cannot be in force.
        None => {
            let forbidden = carrier
                .spec
                .configuration
                .as_ref()
                .is_some_and(|configuration| configuration.restart == Restart::False);
            let restarts = changes_of(request).into_iter().filter(Change::restarts);
            restarts.filter(|_| forbidden).map(|change| change.name).collect()
        }
    };
    if waiting.is_empty() { Fate::Applied } else { Fate::PendingRestart(waiting) }
}

fn failed(request: &PostgresOpsRequest, commit: &CommitId) -> Held {
    let (commit, words) = (commit.clone(), failed_words(request));
    let name = request.request_name();
    match request.phase() == OpsPhase::Denied {
        true => Held::Denied { commit, request: name, words },
        false => Held::Failed { commit, request: name, words },
    }
}

fn version(present: Option<&Present>, proof: Option<&ProofReport>) -> Option<String> {
    let proven = proof.map(|proof| proof.server_version.clone()).filter(|v| !v.is_empty());
    proven.or_else(|| present.map(Present::server_version))
}
