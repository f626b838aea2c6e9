//! What is done about values that somebody else changed, and how often.
//!
//! Enforce corrects what a reload brings back; the rest waits for a commit, a window or a policy.
//! Whoever keeps changing a value that we keep correcting is believed in the end. Leaves all other
//! gates to `gates.rs`. Counts requests, never memories.

use jiff::SignedDuration;

use super::gates::Gates;
use super::request::{cause_of, changes_of};
use super::{Cause, Held, World};
use crate::api::config_repository::DriftPolicy;
use crate::api::names::annotations;
use crate::api::ops_request::{OpsPhase, PostgresOpsRequest};
use crate::sync::drift::{Change, Difference};
use crate::sync::live::is_ours;
use crate::sync::window::{self, Gate, Rule};

/// How often one parameter may be corrected within [`CONTEST`] before somebody else is believed.
const CORRECTIONS: usize = 3;
/// See [`CORRECTIONS`].
const CONTEST: SignedDuration = SignedDuration::from_hours(1);
/// Requests in a row, for the same document and within [`CONTEST`], that ended Skipped because the
/// configuration changed under them. More than this is no coincidence.
const SKIPPED: usize = 5;
impl<'a> Gates<'a> {
    /// What is done about values that somebody else changed.
    pub(super) fn drifted(&self, difference: &Difference) -> Option<Held> {
        let names = |changes: &[Change]| {
            changes.iter().map(|change| change.name.clone()).collect::<Vec<_>>()
        };
        let stance = self.world.source.stance.drift;
        let policy = &self.world.desired.policy;
        let drift = match (stance, policy.drift) {
            (DriftPolicy::Warn, _) => DriftPolicy::Warn,
            (own, None) => own,
            (_, Some(policy)) => policy,
        };
        if drift == DriftPolicy::Warn {
            return Some(Held::DriftReported(names(&difference.changes)));
        }
        if let Some(name) = self.contested(difference) {
            return Some(Held::Contested(name));
        }
        let window = policy.windows.iter().any(|window| window.rule == Rule::Allow)
            && window::gate(&policy.windows, true, self.world.now) == Gate::Open;
        let restarts = difference.restarts(self.document, self.present);
        let allowed = drift == DriftPolicy::EnforceWithRestart || window;
        (restarts && !allowed).then(|| Held::DriftNeedsRestart(difference.needing_restart()))
    }

    /// The first parameter that was corrected too often lately.
    fn contested(&self, difference: &Difference) -> Option<String> {
        let retry = self.present.retry.as_deref();
        let corrections: Vec<Vec<String>> = self
            .recent()
            .filter(|request| cause_of(request) == Cause::Drift)
            .filter(|request| request.annotation(annotations::RETRY) == retry)
            .map(|request| changes_of(request).into_iter().map(|change| change.name).collect())
            .collect();
        let often = |name: &String| {
            corrections.iter().filter(|names| names.contains(name)).count() >= CORRECTIONS
        };
        difference.changes.iter().map(|change| &change.name).find(|name| often(name)).cloned()
    }

    /// Whether the same document was skipped again and again, which no coincidence explains.
    pub(super) fn skipped_too_often(&self) -> bool {
        let same = |request: &&PostgresOpsRequest| {
            request.phase() == OpsPhase::Skipped
                && request.annotation(annotations::DESIRED) == Some(&self.document.digest)
        };
        self.recent().rev().take_while(same).count() >= SKIPPED
    }

    /// Our requests of the last hour, oldest first.
    fn recent(&self) -> impl DoubleEndedIterator<Item = &'a PostgresOpsRequest> {
        let World { source, now, .. } = self.world;
        let all = self.present.requests.iter().map(|request| &**request);
        all.filter(move |request| {
            let created = request.metadata.creation_timestamp.as_ref().map(|time| time.0);
            is_ours(request, &source.repository)
                && created.is_some_and(|created| now.duration_since(created) < CONTEST)
        })
    }
}
