//! Trees of notes: finds a note in any fan-out that git writes, writes in 2/38.
//!
//! A note's path is the annotated commit's id, cut by slashes after any number of pairs of
//! digits. 2/38 keeps each tree small up to a million notes: writing one note rewrites a root of
//! at most 256 entries and one folder. A note that lies deeper stays where it is; flat ones are
//! moved, because a flat tree is what makes writing slow. Entries that are no notes are kept.

use std::collections::BTreeMap;

use git2::build::TreeUpdateBuilder;
use git2::{FileMode, ObjectType, Oid, Repository, Tree};

use crate::git::Error;
use crate::git::local::mirror_damaged;

/// The note on `commit` (full hex id), or nothing. Several notes on one commit in different
/// depths are joined, as git does.
pub(super) fn find(
    repository: &Repository,
    tree: &Tree<'_>,
    commit: &str,
) -> Result<Option<Vec<u8>>, Error> {
    let mut joined: Option<Vec<u8>> = None;
    for (_, oid) in places(repository, tree, commit)? {
        let blob = repository.find_blob(oid).map_err(|e| mirror_damaged(repository, e))?;
        let joined = joined.get_or_insert_default();
        if !joined.is_empty() {
            joined.push(b'\n');
        }
        joined.extend_from_slice(blob.content());
    }
    Ok(joined)
}

/// A tree like `base` with these notes in it: commit → blob.
pub(super) fn write(
    repository: &Repository,
    base: Option<&Tree<'_>>,
    notes: &BTreeMap<String, Oid>,
) -> Result<Oid, Error> {
    let damaged = |source| mirror_damaged(repository, source);
    let empty;
    let base = match base {
        Some(base) => base,
        None => {
            let oid = repository.treebuilder(None).and_then(|b| b.write()).map_err(damaged)?;
            empty = repository.find_tree(oid).map_err(damaged)?;
            &empty
        }
    };
    let mut update = TreeUpdateBuilder::new();
    for (commit, oid) in flat_notes(base) {
        if !notes.contains_key(&commit) && !occupied(base, &commit) {
            let deeper = places(repository, base, &commit)?.len() > 1;
            if !deeper {
                update.remove(&*commit).upsert(fanned(&commit), oid, FileMode::Blob);
            }
        }
    }
    for (commit, oid) in notes {
        let mut target = if occupied(base, commit) { commit.clone() } else { fanned(commit) };
        for (place, _) in places(repository, base, commit)? {
            if place.len() > target.len() {
                update_remove(&mut update, base, &target);
                target = place;
            } else if place != target {
                update.remove(place);
            }
        }
        update.upsert(target, *oid, FileMode::Blob);
    }
    update.create_updated(repository, base).map_err(damaged)
}

/// Takes a shallower duplicate out, when there is one.
fn update_remove(update: &mut TreeUpdateBuilder, base: &Tree<'_>, place: &str) {
    if base.get_path(std::path::Path::new(place)).is_ok() {
        update.remove(place);
    }
}

/// The commits whose notes differ from `base` in `tree`.
pub(super) fn changed(
    repository: &Repository,
    base: Option<&Tree<'_>>,
    tree: &Tree<'_>,
) -> Result<Vec<String>, Error> {
    let damaged = |source| mirror_damaged(repository, source);
    let diff = repository.diff_tree_to_tree(base, Some(tree), None).map_err(damaged)?;
    let mut commits: Vec<String> = diff
        .deltas()
        .filter_map(|delta| {
            let path = delta.new_file().path_bytes()?;
            let commit: String =
                path.iter().map(|b| char::from(*b)).filter(|c| *c != '/').collect();
            is_id(&commit).then_some(commit)
        })
        .collect();
    commits.sort();
    commits.dedup();
    Ok(commits)
}

/// Every place of the note on `commit`, shallowest first.
fn places(
    repository: &Repository,
    tree: &Tree<'_>,
    commit: &str,
) -> Result<Vec<(String, Oid)>, Error> {
    let mut found = vec![];
    let mut walked = String::new();
    let mut rest = commit;
    let mut folder = tree.clone();
    loop {
        if let Some(entry) = folder.get_name(rest)
            && entry.kind() == Some(ObjectType::Blob)
        {
            found.push((format!("{walked}{rest}"), entry.id()));
        }
        let Some((pair, deeper)) = rest.split_at_checked(2).filter(|(_, r)| !r.is_empty()) else {
            return Ok(found);
        };
        let next = match folder.get_name(pair) {
            Some(entry) if entry.kind() == Some(ObjectType::Tree) => entry.id(),
            _ => return Ok(found),
        };
        folder = repository.find_tree(next).map_err(|e| mirror_damaged(repository, e))?;
        walked = format!("{walked}{pair}/");
        rest = deeper;
    }
}

fn flat_notes(tree: &Tree<'_>) -> Vec<(String, Oid)> {
    let notes = tree.iter().filter(|entry| entry.kind() == Some(ObjectType::Blob));
    notes.filter_map(|e| Some((e.name().ok().filter(|n| is_id(n))?.to_owned(), e.id()))).collect()
}

/// Whether something that is no folder has the name of this note's folder.
fn occupied(tree: &Tree<'_>, commit: &str) -> bool {
    let folder = commit.get(..2).and_then(|pair| tree.get_name(pair));
    folder.is_some_and(|entry| entry.kind() != Some(ObjectType::Tree))
}

fn fanned(commit: &str) -> String {
    let (pair, rest) = commit.split_at_checked(2).unwrap_or((commit, ""));
    format!("{pair}/{rest}")
}

fn is_id(name: &str) -> bool {
    name.len() == 40 && name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
