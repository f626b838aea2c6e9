//! What one database by itself comes to: the gates, from the first to the last.
//!
//! Each gate is an early return with its reason. Leaves waves, windows and limits, which depend on
//! other databases and on time, to `schedule.rs`. Never lets a database through about which
//! something is not known.

use jiff::tz::TimeZone;

use super::chain::{Chain, Tail};
use super::words::{WORDS, failed_words, field_owned, one_line, passed_on, said};
use super::{Cause, ClaimWrite, Held, Judged, Retired, Verdict, Wish, World};
use crate::api::claim::Claim;
use crate::api::names::{CommitId, DatabaseRef, annotations};
use crate::api::ops_request::{Apply, OpsPhase, PostgresOpsRequest, Restart, condition};
use crate::api::ownership::FieldOwned;
use crate::api::postgres::Phase;
use crate::pgconf::{Settings, catalogue};
use crate::sync::desired::{Document, Target};
use crate::sync::drift::{Difference, Edit};
use crate::sync::live::{Custom, Freeze, Live, Present, is_ours, is_over, is_pending};
use crate::sync::problem::Problem;

/// What one database comes to.
pub(super) fn judge<'a>(world: World<'a>, database: &'a DatabaseRef) -> Judged<'a> {
    let present = match world.live.get(database) {
        None | Some(Live::Absent) => return held(absent(world, database)),
        Some(Live::Unknown(why)) => return held(Held::Unknown(why.clone())),
        Some(Live::Present(present)) => present,
    };
    if !present.admitted && world.desired.targets.contains_key(database) {
        return held(Held::NotAdmitted);
    }
    if let Some(claim) = present.claim.as_ref().filter(|c| c.repository != world.source.uid) {
        let repository = claim.repository_name.clone();
        return held(Held::ClaimedBy { repository, exists: present.claimant_exists });
    }
    match world.desired.targets.get(database) {
        Some(Target::Wanted(document)) => Gates { world, database, present, document }.judge(),
        Some(Target::Refused { problems, .. }) => {
            let chain = Chain::of(world.source, database, present, None);
            let of_version = world.drift.targets.get(database).map(|d| d.problems.clone());
            let all = problems.iter().cloned().chain(of_version.unwrap_or_default());
            judged(present, &chain, Verdict::Held(Held::Refused(all.collect())))
        }
        None => without_document(world, database, present),
    }
}

fn held<'a>(held: Held) -> Judged<'a> {
    Judged { verdict: Verdict::Held(held), claim: None, retired: None, applied: false }
}

/// A verdict, with the claim brought up to date where there is one to be.
fn judged<'a>(present: &Present, chain: &Chain<'_>, verdict: Verdict<'a>) -> Judged<'a> {
    let known = present.claim.is_some() || chain.claim.last_request.is_some();
    let claim = known.then(|| write(present, Some(chain.claim.clone()))).flatten();
    Judged { verdict, claim, retired: None, applied: false }
}

/// The write that makes the annotation say this; `None` when it does already.
pub(super) fn write(present: &Present, claim: Option<Claim>) -> Option<ClaimWrite> {
    if present.claim == claim && (claim.is_some() || present.claim_text.is_none()) {
        return None;
    }
    let (uid, expected) = (present.uid.clone(), present.claim_text.clone());
    Some(ClaimWrite { uid, expected, claim })
}

/// A database that is not there: refused documents are refused all the same.
fn absent(world: World<'_>, database: &DatabaseRef) -> Held {
    match world.desired.targets.get(database) {
        Some(Target::Refused { problems, .. }) => Held::Refused(problems.clone()),
        Some(Target::Wanted(_)) | None => Held::Absent,
    }
}

/// A database that we hold a claim on and that no document names.
fn without_document<'a>(
    world: World<'a>,
    database: &DatabaseRef,
    present: &'a Present,
) -> Judged<'a> {
    let chain = Chain::of(world.source, database, present, None);
    let hold = |held: Held| judged(present, &chain, Verdict::Held(held));
    let unreadable = &world.desired.unreadable;
    if !unreadable.is_empty() || !world.desired.complete {
        // Its document may be in a file that nobody can read: absence proves nothing.
        return hold(Held::Refused(unreadable.values().cloned().collect()));
    }
    let mut retired = None;
    match chain.tail {
        Tail::Open(request) if is_pending(request) && !request.is_deleted() => {
            retired = Some(taken_back(request));
        }
        Tail::Open(request) => return hold(finishing(request, request)),
        Tail::Merged { request, into } => return hold(finishing(request, into)),
        Tail::None | Tail::Ended(..) | Tail::Deleted => {}
    }
    if world.stalled {
        return hold(Held::Stalled);
    }
    if let Some(stance) = stance(world) {
        return hold(stance);
    }
    let claim = write(present, None);
    Judged { verdict: Verdict::Released, claim, retired, applied: false }
}

fn stance(world: World<'_>) -> Option<Held> {
    if world.source.stance.plan_only {
        return Some(Held::PlanOnly);
    }
    world.source.stance.suspend.then_some(Held::Suspended)
}

fn taken_back(request: &PostgresOpsRequest) -> Retired {
    Retired { request: request.request_name(), uid: request.metadata.uid.clone() }
}

/// `carrier`: the request that carries ours out, mostly itself.
fn finishing(request: &PostgresOpsRequest, carrier: &PostgresOpsRequest) -> Held {
    let commit = request.annotation(annotations::COMMIT).and_then(|id| CommitId::parse(id).ok());
    Held::Finishing { request: carrier.request_name(), commit }
}

/// A database with a document that the parser did not refuse.
pub(super) struct Gates<'a> {
    pub(super) world: World<'a>,
    pub(super) database: &'a DatabaseRef,
    pub(super) present: &'a Present,
    pub(super) document: &'a Document,
}

impl<'a> Gates<'a> {
    fn judge(self) -> Judged<'a> {
        let Self { world, database, present, document } = self;
        let difference = world.drift.targets.get(database);
        let chain = Chain::of(world.source, database, present, Some((document, difference)));
        let applied = chain.is_applied(document);
        let mut retired = None;
        let verdict = self.pass(&chain, &mut retired);
        let mut judged = judged(present, &chain, verdict);
        if let Verdict::InPlace = judged.verdict {
            let commit = self.commit(&chain);
            // Hands off means that not even a claim is made.
            if stance(world).is_none() && !world.stalled {
                judged.claim = write(present, Some(chain.in_place(document, &commit)));
            }
        }
        let in_place = matches!(judged.verdict, Verdict::InPlace);
        Judged { retired, applied: applied || in_place, ..judged }
    }

    /// The commit that answers for what is desired here.
    fn commit(&self, chain: &Chain<'_>) -> CommitId {
        let source = self.world.source;
        let asked = chain.claim.asked.as_ref();
        let asked = asked.filter(|asked| asked.digest == self.document.digest);
        let applied = chain.claim.applied.as_ref().filter(|_| chain.is_applied(self.document));
        self.changed_by(chain)
            .or(asked.map(|asked| &asked.commit))
            .or(applied)
            .unwrap_or(&source.head)
            .clone()
    }

    /// The commit on the way that changed this document. At first sight every document looks
    /// changed; what was asked for already was not.
    fn changed_by(&self, chain: &Chain<'_>) -> Option<&'a CommitId> {
        let source = self.world.source;
        let asked = chain.claim.asked.as_ref().map(|asked| &asked.digest);
        let known = asked == Some(&self.document.digest) || chain.is_applied(self.document);
        source.changed_by(self.database).filter(|_| !(source.first_sight && known))
    }

    fn pass(&self, chain: &Chain<'a>, retired: &mut Option<Retired>) -> Verdict<'a> {
        let Self { world, database, present, document } = *self;
        if let Some(verdict) = self.under_way(chain) {
            return verdict;
        }
        if let Some(Freeze { until, who, why }) = present.frozen(world.now) {
            return Verdict::Held(Held::Frozen { until, who, why });
        }
        let Some(difference) = world.drift.targets.get(database) else {
            return Verdict::Held(self.unknown_version());
        };
        let first = [self.refused(difference), self.busy(chain, retired), self.ended(chain)];
        if let Some(held) = first.into_iter().flatten().next() {
            *retired = None;
            return Verdict::Held(held);
        }
        if let Some(first) = difference.overridden.first() {
            return Verdict::Held(Held::Overridden(first.clone()));
        }
        let edit = self.edit(chain, difference);
        if edit == Edit::Nothing {
            return Verdict::InPlace;
        }
        let wish = Wish {
            database,
            present,
            document,
            difference,
            edit,
            chain: chain.clone(),
            commit: self.commit(chain),
            cause: if chain.is_applied(document) { Cause::Drift } else { Cause::Commit },
        };
        // Hands off means that nothing is taken back either. Otherwise a request of an older commit
        // is not wanted any more, even if what comes after it may not go yet.
        if world.stalled || stance(world).is_some() {
            *retired = None;
        }
        match self.last(&wish) {
            Some(held) => Verdict::Held(held),
            None => Verdict::Wish(Box::new(wish)),
        }
    }

    /// Our request for this very document, while it is open.
    fn under_way(&self, chain: &Chain<'_>) -> Option<Verdict<'a>> {
        let (request, carrier) = match chain.tail {
            Tail::Open(request) => (request, request),
            Tail::Merged { request, into } => (request, into),
            Tail::None | Tail::Ended(..) | Tail::Deleted => return None,
        };
        let same = request.annotation(annotations::DESIRED) == Some(&self.document.digest);
        if !same || carrier.is_deleted() {
            return None;
        }
        let name = carrier.request_name();
        Some(match carrier.phase() == OpsPhase::WaitingForApproval {
            true => Verdict::Held(Held::Approval(name)),
            false => Verdict::Running(name),
        })
    }

    fn unknown_version(&self) -> Held {
        let known: Vec<String> = catalogue::MAJORS.iter().map(ToString::to_string).collect();
        let version: String = self.present.version.chars().take(40).collect();
        Held::Unknown(format!("PostgreSQL {version:?} is none of {}", known.join(", ")))
    }

    /// What cannot be taken as it stands: the policy, this version, an allowance that ended.
    fn refused(&self, difference: &Difference) -> Option<Held> {
        let policy = &self.world.desired.policy_refused;
        if !policy.is_empty() {
            return Some(Held::Refused(policy.clone()));
        }
        if difference.problems.iter().any(Problem::is_refusal) {
            return Some(Held::Refused(difference.problems.clone()));
        }
        let today = self.world.now.to_zoned(TimeZone::UTC).date();
        let ended: Vec<Problem> = self
            .document
            .allow_unsafe
            .iter()
            .filter_map(|(name, allowance)| {
                let until = allowance.until.filter(|until| *until < today)?;
                let message = format!("allowUnsafe.{name} ended on {until}");
                let file = &self.document.place.file;
                let problem = Problem::refused(file, allowance.at, message);
                Some(problem.instead(format!("remove {name}, or move the date")))
            })
            .collect();
        (!ended.is_empty()).then_some(Held::Refused(ended))
    }

    /// Requests that are open: our own for something else, and everybody else's.
    fn busy(&self, chain: &Chain<'_>, retired: &mut Option<Retired>) -> Option<Held> {
        let tail = match chain.tail {
            Tail::Open(request) if is_pending(request) && !request.is_deleted() => {
                *retired = Some(taken_back(request));
                Some(request.request_name())
            }
            Tail::Open(request) => return Some(finishing(request, request)),
            Tail::Merged { request, into } => return Some(finishing(request, into)),
            Tail::None | Tail::Ended(..) | Tail::Deleted => None,
        };
        let repository = &self.world.source.repository;
        let mut open = self.present.requests.iter().filter(|request| !is_over(request));
        let other = open.find(|request| tail.as_ref() != Some(&request.request_name()))?;
        // One of ours that is not the tail was taken back and is on its way out.
        Some(match is_ours(other, repository) {
            true => finishing(other, other),
            false => Held::OtherRequest(other.request_name()),
        })
    }

    /// What became of the same change before.
    fn ended(&self, chain: &Chain<'_>) -> Option<Held> {
        let retry = self.present.retry.as_deref();
        if !chain.asked_for(self.document, self.changed_by(chain), retry) {
            return None;
        }
        let name = chain.claim.last_request.clone()?;
        let commit = chain.claim.asked.as_ref()?.commit.clone();
        match chain.tail {
            Tail::Deleted => Some(Held::Deleted(name)),
            Tail::Ended(phase @ (OpsPhase::Failed | OpsPhase::Denied), request) => {
                let words = request.map(failed_words).unwrap_or_default();
                if let Some(held) = field_owned(&words) {
                    return Some(held);
                }
                // Merged into another one, that is the request to be looked at.
                let request = request.map_or(name, PostgresOpsRequest::request_name);
                Some(match phase == OpsPhase::Denied {
                    true => Held::Denied { commit, request, words },
                    false => Held::Failed { commit, request, words },
                })
            }
            Tail::Ended(OpsPhase::Skipped, request) if self.skipped_too_often() => {
                let said = request.and_then(|r| Some(passed_on(r, said(r, condition::SKIPPED)?)));
                let changed = || "the configuration changed under it each time".to_owned();
                let words = said.unwrap_or_else(changed);
                Some(Held::Failed { commit, request: name, words })
            }
            Tail::None | Tail::Open(_) | Tail::Merged { .. } | Tail::Ended(..) => None,
        }
    }

    /// What to send. A retry of a change that left its values behind sends them all again.
    fn edit(&self, chain: &Chain<'_>, difference: &Difference) -> Edit {
        let failed = matches!(chain.tail, Tail::Ended(OpsPhase::Failed | OpsPhase::Denied, _));
        let same = |digest: &str| digest == self.document.digest;
        let again = chain.claim.asked.as_ref().is_some_and(|asked| same(&asked.digest));
        let proven = chain.is_applied(self.document);
        if difference.edit == Edit::Nothing && failed && again && !proven {
            let all = self.document.settings.iter().map(|(n, v)| (n.clone(), v.clone()));
            let all: Settings = all.collect();
            return if all.is_empty() { Edit::Nothing } else { Edit::Apply(all) };
        }
        difference.edit.clone()
    }

    /// Files of configuration that KubeDB's servers may read and that would go with what the edit
    /// takes away.
    fn would_lose(&self, edit: &Edit) -> Option<Held> {
        let Custom { secret_name, secret_files, inline_files, .. } = &self.present.custom;
        // A removal alone leaves the owner's Secret where it is.
        if let (Edit::Replace(_), Some(name), [_, ..]) = (edit, secret_name, &**secret_files) {
            let place = format!("Secret {name}");
            return Some(Held::WouldLose { files: secret_files.clone(), place });
        }
        (edit.removes() && !inline_files.is_empty()).then(|| Held::WouldLose {
            files: inline_files.clone(),
            place: "spec.configuration.inline".to_owned(),
        })
    }

    /// A field that the edit changes and that a tool would write back. Where our own loop carries
    /// requests out it looks itself.
    fn written_back(&self, edit: &Edit) -> Option<&'a FieldOwned> {
        let touched: &[&str] = match edit {
            Edit::Nothing => &[],
            Edit::Apply(_) => &["inline"],
            Edit::Rewrite { .. } | Edit::Replace(_) => &["inline", "secretName", "configSecret"],
        };
        let owners = self.present.owners.iter().filter(|_| self.present.foreign);
        owners.into_iter().find(|owned| touched.contains(&owned.field()))
    }

    /// The gates that only a change has to pass.
    fn last(&self, wish: &Wish<'_>) -> Option<Held> {
        let Self { world, present, document, .. } = self;
        if wish.edit.removes() && document.restart == Restart::False {
            let gone = wish.difference.changes.iter().filter(|change| change.at.is_none());
            let names: Vec<String> = gone.map(|change| change.name.clone()).collect();
            let names = if names.is_empty() { vec!["mode Replace".to_owned()] } else { names };
            return Some(Held::RestartForbidden(names));
        }
        if wish.cause == Cause::Drift
            && let Some(held) = self.drifted(wish.difference)
        {
            return Some(held);
        }
        if let Some(held) = self.would_lose(&wish.edit) {
            return Some(held);
        }
        if world.stalled {
            return Some(Held::Stalled);
        }
        if let Some(held) = stance(*world) {
            return Some(held);
        }
        if let Some(FieldOwned { manager, path }) = self.written_back(&wish.edit).cloned() {
            return Some(Held::FieldOwned { manager, path });
        }
        if let Some(words) = &present.paused {
            return Some(Held::Paused(one_line(words).chars().take(WORDS).collect()));
        }
        let ready = present.phase == Some(Phase::Ready);
        (document.apply == Apply::IfReady && !ready).then_some(Held::NotReady(present.phase))
    }
}
