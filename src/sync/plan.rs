//! What is to be done now: finished requests, and a reason for every database that is left alone.
//!
//! `gates.rs` judges each database by itself (`drifted.rs`: what others changed), `schedule.rs`
//! decides who of those that may go goes now, `request.rs` writes the requests, `chain.rs` knows
//! what came before, `held.rs` has the reasons, `words.rs` what others said, `stall.rs` looks at
//! the source as a whole, `text.rs` says it all to people. Making a plan twice gives the same plan.
//! Leaves emitting to `act.rs`, which finds nothing left to choose. Never plans upon what is not
//! known.

mod chain;
mod drifted;
mod gates;
mod held;
mod request;
mod schedule;
mod stall;
mod text;
mod words;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;

pub use chain::{Chain, Tail};
pub use held::{Held, Weight};
pub use request::{cause_of, changes_of};
pub use stall::Stalled;
pub use text::{Entry, Sums};
pub use words::{failed_words, one_line, passed_on};

use super::desired::{Desired, Document};
use super::drift::{Change, Difference, Drift, Edit};
use super::live::{Observed, Present};
use super::problem::Problem;
use super::source::Source;
use crate::api::claim::Claim;
use crate::api::names::{CommitId, DatabaseRef, RequestName};
use crate::api::ops_request::PostgresOpsRequest;

/// What is to be done now.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Why nothing at all may be sent.
    pub stalled: Option<Stalled>,
    /// What is sent, in this order.
    pub emissions: Vec<Emission>,
    /// Databases that wait or are held.
    pub held: BTreeMap<DatabaseRef, Held>,
    /// Databases on which our own request for this very document is open.
    pub running: BTreeMap<DatabaseRef, RequestName>,
    /// Databases on which everything is as desired.
    pub equal: BTreeSet<DatabaseRef>,
    /// Databases that no document names any more: they keep their values and lose our claim.
    pub released: BTreeSet<DatabaseRef>,
    /// Claims that have to be brought up to date.
    pub claims: BTreeMap<DatabaseRef, ClaimWrite>,
    /// Requests of ours that nobody needs any more and that have not begun.
    pub retired: BTreeMap<DatabaseRef, Retired>,
    /// Documents that were proven on their database, with or without a request of ours.
    pub applied: BTreeSet<DatabaseRef>,
    /// When something that holds a database opens by itself.
    pub wake: Option<Timestamp>,
}

/// One request to be sent, with everything that belongs to it.
#[derive(Clone, Debug)]
pub struct Emission {
    /// The database.
    pub database: DatabaseRef,
    /// What asked for it.
    pub cause: Cause,
    /// Whether it restarts servers.
    pub restarts: bool,
    /// What it changes, for people.
    pub changes: Vec<Change>,
    /// The claim, written before anything else is.
    pub before: ClaimWrite,
    /// A Secret that must be there first.
    pub secret: Option<Secret>,
    /// The request.
    pub request: PostgresOpsRequest,
    /// The claim, once the request is there.
    pub after: Claim,
}

/// What asked for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A commit.
    Commit,
    /// Somebody changed what a commit had asked for.
    Drift,
}

/// A claim to be written, if the annotation still says what was read.
#[derive(Clone, Debug, PartialEq)]
pub struct ClaimWrite {
    /// UID of the object that was seen.
    pub uid: String,
    /// What the annotation said.
    pub expected: Option<String>,
    /// What it is to say; `None` takes it away.
    pub claim: Option<Claim>,
}

/// A request that is taken back before it began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retired {
    /// Its name.
    pub request: RequestName,
    /// Its UID: another one of that name is left alone.
    pub uid: Option<String>,
}

impl Cause {
    /// The word in the annotation.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Drift => "drift",
        }
    }
}

/// Everything that a plan is made from.
#[derive(Clone, Copy)]
struct World<'a> {
    source: &'a Source,
    desired: &'a Desired,
    drift: &'a Drift,
    live: &'a Observed,
    now: Timestamp,
    stalled: bool,
}

/// A database that nothing of its own holds back.
#[derive(Clone)]
struct Wish<'a> {
    database: &'a DatabaseRef,
    present: &'a Present,
    document: &'a Document,
    difference: &'a Difference,
    edit: Edit,
    chain: Chain<'a>,
    commit: CommitId,
    cause: Cause,
}

/// What a database by itself comes to.
enum Verdict<'a> {
    /// It is left alone.
    Held(Held),
    /// Our request for this very document is open.
    Running(RequestName),
    /// Everything is as desired.
    InPlace,
    /// No document names it any more.
    Released,
    /// It may be changed as far as it goes.
    Wish(Box<Wish<'a>>),
}

/// A verdict with what has to be written whatever becomes of the rest.
struct Judged<'a> {
    verdict: Verdict<'a>,
    claim: Option<ClaimWrite>,
    retired: Option<Retired>,
    /// Whether the document was proven here, now or earlier.
    applied: bool,
}

impl Plan {
    /// Makes the plan of one look.
    pub fn make(
        source: &Source,
        desired: &Desired,
        drift: &Drift,
        live: &Observed,
        now: Timestamp,
    ) -> Self {
        let stalled = stall::of(source, desired, live);
        let world = World { source, desired, drift, live, now, stalled: stalled.is_some() };
        let mut plan = Self { stalled, ..Self::default() };
        let mut wishes = Vec::new();
        let databases: BTreeSet<&DatabaseRef> = desired.targets.keys().chain(live.keys()).collect();
        for database in databases {
            let Judged { verdict, claim, retired, applied } = gates::judge(world, database);
            plan.claims.extend(claim.map(|write| (database.clone(), write)));
            plan.retired.extend(retired.map(|retired| (database.clone(), retired)));
            if applied {
                plan.applied.insert(database.clone());
            }
            match verdict {
                Verdict::Held(held) => plan.hold(database, held),
                Verdict::Running(name) => {
                    plan.running.insert(database.clone(), name);
                }
                Verdict::InPlace => {
                    plan.equal.insert(database.clone());
                }
                Verdict::Released => {
                    plan.released.insert(database.clone());
                }
                Verdict::Wish(wish) => wishes.push(*wish),
            }
        }
        schedule::admit(world, wishes, &mut plan);
        plan
    }

    fn hold(&mut self, database: &DatabaseRef, held: Held) {
        self.wake = [self.wake, held.opens()].into_iter().flatten().min();
        self.held.insert(database.clone(), held);
    }

    /// All that is wrong or remarkable: what the parser found, and what each server's version
    /// refuses. By file and place.
    pub fn problems(&self, desired: &Desired) -> Vec<Problem> {
        let refused = self.held.values().flat_map(|held| {
            if let Held::Refused(problems) = held { problems.as_slice() } else { &[] }
        });
        let all: BTreeSet<&Problem> = desired.problems.iter().chain(refused).collect();
        all.into_iter().cloned().collect()
    }

    /// Whether nothing would be written by carrying the plan out.
    pub fn is_empty(&self) -> bool {
        self.emissions.is_empty() && self.claims.is_empty() && self.retired.is_empty()
    }
}
