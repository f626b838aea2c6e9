//! What became of corrections: requests that bring back what somebody else changed.
//!
//! Taken from the requests that exist and from nothing that is remembered: a controller that was
//! restarted, or that could not push, finds the same. Leaves it to the note which of them stand
//! there already. Never tells of a request that ended without being carried out: it is planned
//! again.

use super::{Fate, applied, failed};
use crate::api::names::{CommitId, DatabaseRef, RepositoryRef, RequestName, annotations};
use crate::api::ops_request::{OpsPhase, PostgresOpsRequest, ProofReport};
use crate::sync::drift::Change;
use crate::sync::live::{Live, Observed, Present, is_ours};
use crate::sync::plan::{Cause, cause_of, changes_of};

/// What became of one correction.
#[derive(Clone, Debug, PartialEq)]
pub struct Correction {
    /// The commit that is in force there.
    pub commit: CommitId,
    /// The database.
    pub database: DatabaseRef,
    /// The request.
    pub request: RequestName,
    /// What it brought back, or was to.
    pub changes: Vec<Change>,
    /// What became of it: applied, configured, or failed.
    pub fate: Fate,
    /// What was proven.
    pub proof: Option<ProofReport>,
}

/// Every correction of a repository that ended.
pub(super) fn of(repository: &RepositoryRef, live: &Observed) -> Vec<Correction> {
    let mut corrections = Vec::new();
    for (database, live) in live {
        let Live::Present(present) = live else { continue };
        let requests = present
            .requests
            .iter()
            .filter(|request| is_ours(request, repository) && cause_of(request) == Cause::Drift);
        corrections.extend(requests.filter_map(|request| ended(database, present, request)));
    }
    corrections
}

fn ended(
    database: &DatabaseRef,
    present: &Present,
    request: &PostgresOpsRequest,
) -> Option<Correction> {
    let commit = CommitId::parse(request.annotation(annotations::COMMIT)?).ok()?;
    let carrier = present.carrier(request);
    let fate = match carrier.phase() {
        OpsPhase::Successful => applied(request, carrier),
        OpsPhase::Failed | OpsPhase::Denied => Fate::Held(failed(carrier, &commit)),
        OpsPhase::Skipped
        | OpsPhase::Pending
        | OpsPhase::Progressing
        | OpsPhase::WaitingForApproval
        | OpsPhase::Approved
        | OpsPhase::Other => return None,
    };
    Some(Correction {
        commit,
        database: database.clone(),
        request: request.request_name(),
        changes: changes_of(request),
        fate,
        proof: carrier.status.as_ref().and_then(|status| status.proof.clone()),
    })
}
