//! Reads notes: of some commits of one instance, or of a whole range and all instances.
//!
//! What still waits for its push counts as written. Never contacts the repository.

use std::collections::{BTreeMap, BTreeSet};

use git2::{Oid, Repository, Tree};

use super::{InstanceName, Kind, Note, fanout};
use crate::api::names::CommitId;
use crate::git::Error;
use crate::git::local::mirror_damaged;
use crate::git::mirror::{self, Place};

/// The notes of `instance` on `commits`; commits without one are absent.
pub(crate) fn notes_of(
    repository: &Repository,
    instance: &InstanceName,
    commits: &[CommitId],
) -> Result<BTreeMap<CommitId, Note>, Error> {
    let mut notes: BTreeMap<CommitId, Note> = BTreeMap::new();
    for kind in Kind::ALL {
        let Some(tree) = newest(repository, &instance.reference(kind))? else { continue };
        for commit in commits {
            let Some(text) = text_on(repository, &tree, commit)? else { continue };
            let note = notes.entry(commit.clone()).or_default();
            match kind {
                Kind::People => note.text = Some(text),
                Kind::Machines => note.lines = text.lines().map(str::to_owned).collect(),
            }
        }
    }
    Ok(notes)
}

/// The notes of every instance on `commits`.
pub(crate) fn annotated(
    repository: &Repository,
    commits: &[CommitId],
) -> Result<BTreeMap<CommitId, BTreeMap<InstanceName, Note>>, Error> {
    let mut all: BTreeMap<CommitId, BTreeMap<InstanceName, Note>> = BTreeMap::new();
    for instance in instances(repository)? {
        for (commit, note) in notes_of(repository, &instance, commits)? {
            all.entry(commit).or_default().insert(instance.clone(), note);
        }
    }
    Ok(all)
}

/// Every instance that the mirror knows notes of.
fn instances(repository: &Repository) -> Result<BTreeSet<InstanceName>, Error> {
    let damaged = |source| mirror_damaged(repository, source);
    let mut found = BTreeSet::new();
    for folder in Kind::ALL.map(Kind::folder) {
        for folder in [folder.to_owned(), Place::Read.name(folder)] {
            let references = repository.references_glob(&format!("{folder}*")).map_err(damaged)?;
            for reference in references {
                let reference = reference.map_err(damaged)?;
                let name = reference.name().ok().and_then(|name| name.strip_prefix(&folder));
                // Others may write what they like beside us; it is not one of ours.
                found.extend(name.and_then(|name| InstanceName::parse(name).ok()));
            }
        }
    }
    Ok(found)
}

/// Our own reference while something of it waits, otherwise what was read or seen last.
fn newest<'r>(repository: &'r Repository, name: &str) -> Result<Option<Tree<'r>>, Error> {
    let local = mirror::tip(repository, name)?;
    let seen = mirror::tip(repository, &Place::Seen.name(name))?;
    let read = mirror::tip(repository, &Place::Read.name(name))?;
    let tip: Option<Oid> = if local != seen { local } else { read.or(seen) };
    let damaged = |source| mirror_damaged(repository, source);
    tip.map(|tip| repository.find_commit(tip).and_then(|c| c.tree())).transpose().map_err(damaged)
}

/// The text on `commit`; `None` also for one of somebody else that is too large to be copied.
fn text_on(
    repository: &Repository,
    tree: &Tree<'_>,
    commit: &CommitId,
) -> Result<Option<String>, Error> {
    match fanout::find(repository, tree, commit.as_str()) {
        Ok(found) => Ok(found.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())),
        Err(Error::BadNote { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
