//! Ancestry, and the commits between the accepted one and the head.
//!
//! Pure reading of the mirror. Which commit changed what is desired is decided by whoever reads
//! their files.

use git2::{ErrorCode, Oid, Repository, Sort};
use jiff::Timestamp;

use super::budget::Budget;
use super::error::printable;
use super::local::mirror_damaged;
use super::{Error, mirror};
use crate::api::names::CommitId;

/// Most commits that one answer lists: more than a busy day's, few enough to read the files of.
const LISTED: usize = 1_000;
/// Longest subject and author that are passed on.
const SUBJECT: usize = 200;

/// How a head relates to the commit that was accepted before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// They are the same commit.
    Same,
    /// The head descends from it: history went on.
    Descends,
    /// The head does not descend from it (or it is nowhere any more): history was rewritten.
    Rewritten,
}

/// What happened between two commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// How they relate.
    pub relation: Relation,
    /// The commits after the accepted one, along first parents, oldest first. Empty unless
    /// [`Relation::Descends`].
    pub commits: Vec<CommitSummary>,
    /// Whether older commits were left out because there are more than 1000.
    pub truncated: bool,
}

/// What a person wants to see of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitSummary {
    /// Its id.
    pub id: CommitId,
    /// Its parents, first parent first.
    pub parents: Vec<CommitId>,
    /// First line of its message, at most 200 characters, without control characters.
    pub subject: String,
    /// Name of its author, likewise.
    pub author: String,
    /// When it was committed, by the committer's clock.
    pub time: Timestamp,
}

/// What lies between `accepted` (or the beginning) and `head`.
pub(crate) fn between(
    repository: &Repository,
    accepted: Option<&CommitId>,
    head: &CommitId,
    budget: &Budget,
) -> Result<History, Error> {
    let head = mirror::commit(repository, head)?.id();
    let none = |relation| History { relation, commits: vec![], truncated: false };
    let hidden = match accepted.map(|id| mirror::commit(repository, id)) {
        None => None,
        Some(Ok(commit)) if commit.id() == head => return Ok(none(Relation::Same)),
        Some(Ok(commit)) if !descends(repository, head, commit.id())? => {
            return Ok(none(Relation::Rewritten));
        }
        Some(Ok(commit)) => Some(commit.id()),
        // A mirror that was made anew has only what the source still has.
        Some(Err(Error::UnknownCommit { .. })) => return Ok(none(Relation::Rewritten)),
        Some(Err(error)) => return Err(error),
    };
    let (commits, truncated) = first_parents(repository, hidden, head, budget)?;
    Ok(History { relation: Relation::Descends, commits, truncated })
}

fn descends(repository: &Repository, head: Oid, accepted: Oid) -> Result<bool, Error> {
    repository.graph_descendant_of(head, accepted).map_err(|e| mirror_damaged(repository, e))
}

/// Along first parents from `head` until a commit that `hidden` already includes.
fn first_parents(
    repository: &Repository,
    hidden: Option<Oid>,
    head: Oid,
    budget: &Budget,
) -> Result<(Vec<CommitSummary>, bool), Error> {
    let damaged = |source| mirror_damaged(repository, source);
    let mut walk = repository.revwalk().map_err(damaged)?;
    walk.set_sorting(Sort::TOPOLOGICAL).map_err(damaged)?;
    // Only the pushed side follows first parents; everything that `hidden` includes is hidden.
    walk.simplify_first_parent().map_err(damaged)?;
    walk.push(head).map_err(damaged)?;
    if let Some(hidden) = hidden {
        walk.hide(hidden).map_err(damaged)?;
    }
    let mut commits = vec![];
    for oid in walk {
        budget.check()?;
        if commits.len() == LISTED {
            commits.reverse();
            return Ok((commits, true));
        }
        commits.push(summary(repository, oid.map_err(damaged)?)?);
    }
    commits.reverse();
    Ok((commits, false))
}

/// What a person wants to see of the commit `oid`.
pub(crate) fn summary(repository: &Repository, oid: Oid) -> Result<CommitSummary, Error> {
    let commit = repository.find_commit(oid).map_err(|error| match error.code() {
        ErrorCode::NotFound => Error::UnknownCommit { commit: oid.to_string() },
        _ => mirror_damaged(repository, error),
    })?;
    let text = |bytes: &[u8]| printable(&String::from_utf8_lossy(bytes), SUBJECT);
    Ok(CommitSummary {
        id: mirror::commit_id(oid)?,
        parents: commit.parent_ids().map(mirror::commit_id).collect::<Result<_, _>>()?,
        subject: commit.summary_bytes().map(text).unwrap_or_default(),
        author: text(commit.author().name_bytes()),
        // A clock of the year 300000 is somebody's joke, not a reason to fail.
        time: Timestamp::from_second(commit.time().seconds()).unwrap_or_default(),
    })
}
