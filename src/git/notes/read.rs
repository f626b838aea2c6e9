//! Reads notes: our own on some commits, or those of all instances on a range.
//!
//! What was fetched counts, not what waits for its push: whoever compares with what stands in the
//! repository must see that it does not stand there yet. Never contacts the repository.

use std::collections::{BTreeMap, BTreeSet};

use git2::{Oid, Repository};
use jiff::Timestamp;

use super::batch::Writer;
use super::{InstanceName, Kind, Note, fanout, text};
use crate::api::names::CommitId;
use crate::git::Error;
use crate::git::local::mirror_damaged;
use crate::git::mirror::{self, Place};

/// The notes of `instance` on `commits`, without what others added to them; commits without one
/// are absent.
pub(crate) fn notes_of(
    repository: &Repository,
    instance: &InstanceName,
    commits: &[CommitId],
) -> Result<BTreeMap<CommitId, Note>, Error> {
    let mut notes = whole_notes_of(repository, instance, commits)?;
    let tip = mirror::tip(repository, &Place::Read.name(&instance.reference(Kind::People)))?;
    // Nothing is written, so nothing carries a time.
    let writer = Writer { repository, instance, now: Timestamp::UNIX_EPOCH };
    for (commit, note) in &mut notes {
        let Some(existing) = note.text.take() else { continue };
        let ours = writer.previous(tip, commit.as_str(), &existing)?;
        let ours = text::ours(&ours).trim_end();
        note.text = (!ours.is_empty()).then(|| format!("{ours}\n"));
    }
    notes.retain(|_, note| note.text.is_some() || !note.lines.is_empty());
    Ok(notes)
}

/// The notes of every instance on `commits`, as they stand.
pub(crate) fn annotated(
    repository: &Repository,
    commits: &[CommitId],
) -> Result<BTreeMap<CommitId, BTreeMap<InstanceName, Note>>, Error> {
    let mut all: BTreeMap<CommitId, BTreeMap<InstanceName, Note>> = BTreeMap::new();
    for instance in instances(repository)? {
        for (commit, note) in whole_notes_of(repository, &instance, commits)? {
            all.entry(commit).or_default().insert(instance.clone(), note);
        }
    }
    Ok(all)
}

fn whole_notes_of(
    repository: &Repository,
    instance: &InstanceName,
    commits: &[CommitId],
) -> Result<BTreeMap<CommitId, Note>, Error> {
    let mut notes: BTreeMap<CommitId, Note> = BTreeMap::new();
    for kind in Kind::ALL {
        let name = Place::Read.name(&instance.reference(kind));
        let Some(tip) = mirror::tip(repository, &name)? else { continue };
        for commit in commits {
            let Some(text) = text_on(repository, tip, commit)? else { continue };
            let note = notes.entry(commit.clone()).or_default();
            match kind {
                Kind::People => note.text = Some(text),
                Kind::Machines => note.lines = text.lines().map(str::to_owned).collect(),
            }
        }
    }
    Ok(notes)
}

/// Every instance that notes were read of.
fn instances(repository: &Repository) -> Result<BTreeSet<InstanceName>, Error> {
    let damaged = |source| mirror_damaged(repository, source);
    let mut found = BTreeSet::new();
    for folder in Kind::ALL.map(|kind| Place::Read.name(kind.folder())) {
        let references = repository.references_glob(&format!("{folder}*")).map_err(damaged)?;
        for reference in references {
            let reference = reference.map_err(damaged)?;
            let name = reference.name().ok().and_then(|name| name.strip_prefix(&folder));
            // Others may write what they like beside us; it is not one of ours.
            found.extend(name.and_then(|name| InstanceName::parse(name).ok()));
        }
    }
    Ok(found)
}

/// The text on `commit`; `None` also for one of somebody else that is too large to be copied.
fn text_on(repository: &Repository, tip: Oid, commit: &CommitId) -> Result<Option<String>, Error> {
    let tree = repository.find_commit(tip).and_then(|commit| commit.tree());
    let tree = tree.map_err(|error| mirror_damaged(repository, error))?;
    match fanout::find(repository, &tree, commit.as_str()) {
        Ok(found) => Ok(found.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())),
        Err(Error::BadNote { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
