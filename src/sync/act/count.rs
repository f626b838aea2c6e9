//! Counts our requests that ended.
//!
//! The end of a request is taken into the claim by a write that succeeds once, whoever repeats it
//! and however often it is looked at: that write is what is counted. A claim that somebody took
//! away, and that is found again from the requests, counts nothing.

use jiff::SignedDuration;

use crate::api::PostgresOpsRequest;
use crate::api::claim::Claim;
use crate::api::names::{CommitId, DatabaseRef, RequestName};
use crate::api::ops_request::OpsPhase;
use crate::sync::Context;
use crate::sync::observe::Look;
use crate::sync::plan::{Cause, ClaimWrite, cause_of};
use crate::telemetry::metrics::Ended as Label;

/// A request whose end was taken into the claim.
#[derive(Debug)]
pub struct Ended {
    database: DatabaseRef,
    request: RequestName,
    commit: CommitId,
    phase: OpsPhase,
}

/// The request whose end a write takes in, if it does.
pub(super) fn taken_in(database: &DatabaseRef, write: &ClaimWrite) -> Option<Ended> {
    let before = Claim::parse(write.expected.as_deref()?)?;
    let claim = write.claim.as_ref()?;
    let (asked, request) = (claim.asked.as_ref()?, claim.last_request.as_ref()?);
    let phase = asked.ended?;
    let known = before.last_request.as_ref() == Some(request)
        && before.asked.is_some_and(|asked| asked.ended.is_some());
    let (database, commit) = (database.clone(), asked.commit.clone());
    (!known).then(|| Ended { database, request: request.clone(), commit, phase })
}

/// Counts what ended in this pass.
pub async fn count(ended: &[Ended], look: &Look, cx: &Context) {
    for one in ended {
        let Some(phase) = one.phase.end() else { continue };
        cx.metrics.requests.get_or_create(&Label { phase }).inc();
        let Some(request) = cx.requests.get(&one.database.namespace, &one.request.0) else {
            continue;
        };
        if matches!(one.phase, OpsPhase::Successful | OpsPhase::Failed)
            && let Some(took) = took(&request)
        {
            cx.metrics.rollout.observe(took.as_secs_f64().max(0.0));
        }
        let proof = request.status.as_ref().and_then(|status| status.proof.as_ref());
        let asked_by_commit = cause_of(&request) == Cause::Commit;
        if one.phase != OpsPhase::Successful || proof.is_none() || !asked_by_commit {
            continue;
        }
        // Of a commit that is in no history any more, nobody can say when it was made.
        match look.git.committed(&one.commit).await {
            Ok(committed) => {
                let took = (cx.clock)().duration_since(committed);
                cx.metrics.commit_to_proven.observe(took.as_secs_f64().max(0.0));
            }
            Err(error) => {
                tracing::debug!(commit = %one.commit, %error, "time of a commit is not known");
            }
        }
    }
}

/// How long a request took: as it was measured, or else from its creation to its last condition.
fn took(request: &PostgresOpsRequest) -> Option<SignedDuration> {
    let proof = request.status.as_ref().and_then(|status| status.proof.as_ref());
    if let Some(proof) = proof {
        return Some(SignedDuration::from_millis(proof.duration_ms));
    }
    let created = request.metadata.creation_timestamp.as_ref()?.0;
    let last = request.conditions().iter().map(|c| c.last_transition_time.0).max()?;
    Some(last.duration_since(created))
}
