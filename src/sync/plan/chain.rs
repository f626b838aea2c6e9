//! The chain of our requests for one database, and the claim as it ought to stand now.
//!
//! A request's name follows from the one before it, so that the tail can always be found again
//! from the claim and the requests that exist, whatever crashed in between. Leaves deciding what
//! comes next to the gates. Never forgets a managed parameter while it may still be set.

use std::collections::BTreeSet;

use crate::api::claim::{Asked, Claim};
use crate::api::names::{CommitId, DatabaseRef, RequestName, annotations};
use crate::api::ops_request::{OpsPhase, PostgresOpsRequest};
use crate::api::postgres_config::Mode;
use crate::pgconf::Name;
use crate::sync::desired::Document;
use crate::sync::drift::{Difference, Edit};
use crate::sync::live::{Present, is_ours};
use crate::sync::source::Source;

/// The chain of our requests for one database.
#[derive(Clone, Debug)]
pub struct Chain<'a> {
    /// The claim as it ought to stand, given what is seen; the last request in it is the tail.
    pub claim: Claim,
    /// What became of the tail.
    pub tail: Tail<'a>,
}

/// What became of our last request.
#[derive(Clone, Copy, Debug)]
pub enum Tail<'a> {
    /// There never was one.
    None,
    /// It has not ended.
    Open(&'a PostgresOpsRequest),
    /// KubeDB merged it into another request, which has not ended.
    Merged {
        /// Ours.
        request: &'a PostgresOpsRequest,
        /// The one that carries it out.
        into: &'a PostgresOpsRequest,
    },
    /// It ended; the object may be gone by now.
    Ended(OpsPhase, Option<&'a PostgresOpsRequest>),
    /// It went away before it ended.
    Deleted,
}

/// Requests that are followed from the claim to the tail: a claim lags one behind, a lost claim
/// all that still exist.
const FOLLOWED: usize = 1000;

impl<'a> Chain<'a> {
    /// Follows the chain of a database that no other repository holds. `document`: what is desired
    /// of it, and what differs from that, where it is known.
    pub fn of(
        source: &Source,
        database: &DatabaseRef,
        present: &'a Present,
        document: Option<(&Document, Option<&Difference>)>,
    ) -> Self {
        let ours = present.claim.clone().filter(|claim| claim.repository == source.uid);
        let mut claim = ours.unwrap_or_else(|| Claim {
            repository: source.uid.clone(),
            repository_name: source.repository.to_string(),
            database: present.uid.clone(),
            applied: None,
            digest: None,
            replace: false,
            managed: BTreeSet::new(),
            last_request: None,
            asked: None,
        });
        for _ in 0..FOLLOWED {
            let next = RequestName::successor(database, &present.uid, claim.last_request.as_ref());
            let Some(request) = present.request(&next).filter(|r| is_ours(r, &source.repository))
            else {
                break;
            };
            claim.last_request = Some(next);
            claim.asked = asked(request);
        }
        let tail = claim.last_request.as_ref().and_then(|name| present.request(name));
        let tail = match (tail.map(|request| &**request), &claim.asked) {
            (None, None) => Tail::None,
            (None, Some(Asked { ended: Some(phase), .. })) => Tail::Ended(*phase, None),
            (None, Some(Asked { ended: None, .. })) => Tail::Deleted,
            (Some(request), _) if request.phase().is_terminal() => {
                let asked = claim.asked.as_ref().map(|asked| &asked.digest);
                let in_place = document.is_some_and(|(document, difference)| {
                    Some(&document.digest) == asked
                        && difference.is_some_and(|difference| difference.edit == Edit::Nothing)
                });
                ended(request, present, in_place)
            }
            (Some(request), _) => Tail::Open(request),
        };
        let mut chain = Self { claim, tail };
        chain.settle(present, document.map(|(document, _)| document));
        chain
    }

    /// Takes the end of the tail into the claim.
    fn settle(&mut self, present: &Present, document: Option<&Document>) {
        let Tail::Ended(phase, request) = self.tail else { return };
        let Some(asked) = self.claim.asked.as_mut().filter(|asked| asked.ended.is_none()) else {
            return;
        };
        asked.ended = Some(phase);
        let current = document.filter(|document| document.digest == asked.digest);
        if phase == OpsPhase::Successful {
            self.claim.applied = Some(asked.commit.clone());
            self.claim.digest = Some(asked.digest.clone());
            self.claim.replace = match (current, request) {
                (Some(document), _) => document.mode == Mode::Replace,
                (None, Some(request)) => replaces(request),
                (None, None) => self.claim.replace,
            };
        }
        match current.filter(|_| phase == OpsPhase::Successful) {
            Some(document) => self.claim.managed = names(document),
            None => self.forget_what_is_not_set(present, document),
        }
    }

    /// A name that is neither desired nor set any more has nothing left to be removed.
    fn forget_what_is_not_set(&mut self, present: &Present, document: Option<&Document>) {
        let layers = &present.custom.layers;
        self.claim.managed.retain(|name| {
            Name::new(name).is_ok_and(|name| {
                layers.inline.contains(&name)
                    || (present.custom.secret_is_ours && layers.user.contains(&name))
                    || document.is_some_and(|document| document.settings.contains(&name))
            })
        });
    }

    /// The claim once a document is in place without any request.
    pub fn in_place(&self, document: &Document, commit: &CommitId) -> Claim {
        let mut claim = self.claim.clone();
        if claim.digest.as_deref() != Some(&document.digest) || claim.applied.is_none() {
            claim.applied = Some(commit.clone());
            claim.digest = Some(document.digest.clone());
        }
        claim.replace = document.mode == Mode::Replace;
        claim.managed = names(document);
        claim
    }

    /// The claim before a request is created: old ∪ new parameters, so that none is forgotten
    /// whatever becomes of the request.
    pub fn before_request(&self, document: &Document) -> Claim {
        let mut claim = self.claim.clone();
        claim.managed.extend(names(document));
        claim
    }

    /// Whether the document is the one that was proven last.
    pub fn is_applied(&self, document: &Document) -> bool {
        self.claim.digest.as_deref() == Some(&document.digest)
    }

    /// Whether the tail asked for this very document, and nothing has lifted what came of it
    /// since: no commit that changed the document, no other value of the retry annotation.
    pub fn asked_for(
        &self,
        document: &Document,
        changed_by: Option<&CommitId>,
        retry: Option<&str>,
    ) -> bool {
        self.claim.asked.as_ref().is_some_and(|asked| {
            asked.digest == document.digest
                && changed_by.is_none_or(|commit| *commit == asked.commit)
                && retry == asked.retry.as_deref()
        })
    }
}

/// What became of a request that ended. Merged into another one, it ends as that does; but what
/// KubeDB makes of several requests is its own affair: success counts only where it is seen.
fn ended<'a>(request: &'a PostgresOpsRequest, present: &'a Present, in_place: bool) -> Tail<'a> {
    let carrier = present.carrier(request);
    if std::ptr::eq(carrier, request) {
        return Tail::Ended(request.phase(), Some(request));
    }
    match carrier.phase() {
        phase if !phase.is_terminal() => Tail::Merged { request, into: carrier },
        OpsPhase::Successful if !in_place => Tail::Ended(OpsPhase::Skipped, Some(request)),
        phase => Tail::Ended(phase, Some(carrier)),
    }
}

/// What a request of ours asked for, from its annotations.
fn asked(request: &PostgresOpsRequest) -> Option<Asked> {
    Some(Asked {
        digest: request.annotation(annotations::DESIRED)?.to_owned(),
        commit: CommitId::parse(request.annotation(annotations::COMMIT)?).ok()?,
        retry: request.annotation(annotations::RETRY).map(str::to_owned),
        ended: None,
    })
}

/// Whether a request of ours replaced the whole configuration: only then it names a Secret and no
/// settings, or a Secret that carries our mark.
fn replaces(request: &PostgresOpsRequest) -> bool {
    request.spec.configuration.as_ref().is_some_and(|configuration| {
        configuration.removes()
            && configuration.config_secret.is_some()
            && configuration.settings().is_empty()
    })
}

/// Names of a document's parameters as the claim keeps them.
fn names(document: &Document) -> BTreeSet<String> {
    document.settings.names().map(Name::lower).collect()
}
