//! Results of commits that are settled already: a hold that was lifted, another try.
//!
//! Taken from the request that a claim takes in at this look. Leaves to the note which of them
//! stand there already.

use super::{Fate, View, applied, failed};
use crate::api::names::{CommitId, DatabaseRef, RequestName};
use crate::api::ops_request::{OpsPhase, ProofReport};
use crate::sync::live::Live;
use crate::sync::plan::{Cause, cause_of};

/// A further attempt at a commit whose note is closed.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// The commit.
    pub commit: CommitId,
    /// The database.
    pub database: DatabaseRef,
    /// The request.
    pub request: RequestName,
    /// What became of it.
    pub fate: Fate,
    /// What was proven.
    pub proof: Option<ProofReport>,
}

impl View<'_> {
    /// Requests of settled commits that ended since the claim was written last.
    pub(super) fn attempts(&self) -> Vec<Attempt> {
        let mut attempts = Vec::new();
        for (database, live) in self.live {
            let Live::Present(present) = live else { continue };
            let Some(write) = self.plan.claims.get(database) else { continue };
            let Some(claim) = &write.claim else { continue };
            let (Some(asked), Some(name)) = (&claim.asked, &claim.last_request) else { continue };
            let on_the_way = self.source.line.iter().any(|step| step.commit == asked.commit);
            let Some(request) = present.request(name) else { continue };
            if on_the_way || cause_of(request) == Cause::Drift {
                continue;
            }
            let carrier = present.carrier(request);
            let fate = match carrier.phase() {
                OpsPhase::Successful => applied(request, carrier),
                OpsPhase::Failed | OpsPhase::Denied => Fate::Held(failed(carrier, &asked.commit)),
                // Not carried out: it is planned again.
                OpsPhase::Skipped => continue,
                OpsPhase::Pending
                | OpsPhase::Progressing
                | OpsPhase::WaitingForApproval
                | OpsPhase::Approved
                | OpsPhase::Other => continue,
            };
            attempts.push(Attempt {
                commit: asked.commit.clone(),
                database: database.clone(),
                request: name.clone(),
                fate,
                proof: carrier.status.as_ref().and_then(|status| status.proof.clone()),
            });
        }
        attempts
    }
}
