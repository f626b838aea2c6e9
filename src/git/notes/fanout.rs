//! Trees of notes: finds a note in any fan-out that git writes, writes in 2/38.
//!
//! A note's path is the annotated commit's id, cut by slashes after any number of pairs of
//! digits. 2/38 keeps each tree small up to a million notes: writing one note rewrites a root of
//! at most 256 entries and one folder. A note that lies deeper stays where it is; flat ones are
//! moved, because a flat tree is what makes writing slow. Entries that are no notes are kept.

use std::collections::BTreeMap;

use git2::build::TreeUpdateBuilder;
use git2::{FileMode, ObjectType, Oid, Repository, Tree};

use crate::git::local::mirror_damaged;
use crate::git::{Error, mirror};

/// The note on `commit` (full hex id), or nothing. Several notes on one commit in different
/// depths are joined, as git does.
pub(super) fn find(
    repository: &Repository,
    tree: &Tree<'_>,
    commit: &str,
) -> Result<Option<Vec<u8>>, Error> {
    let mut joined: Option<Vec<u8>> = None;
    for (_, oid) in places(repository, tree, commit)? {
        if mirror::size_left_behind(repository, oid).is_some() {
            let reason = "what somebody else wrote there is larger than 32 MiB; remove it";
            return Err(Error::BadNote { commit: commit.to_owned(), reason: reason.to_owned() });
        }
        let blob = repository.find_blob(oid).map_err(|e| mirror_damaged(repository, e))?;
        let joined = joined.get_or_insert_default();
        if !joined.is_empty() {
            joined.push(b'\n');
        }
        joined.extend_from_slice(blob.content());
    }
    Ok(joined)
}

/// The blobs of the note on `commit`: equal lists are equal notes, wherever they lie.
pub(super) fn blobs(
    repository: &Repository,
    tree: &Tree<'_>,
    commit: &str,
) -> Result<Vec<Oid>, Error> {
    Ok(places(repository, tree, commit)?.into_iter().map(|(_, oid)| oid).collect())
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
    let odb = repository.odb().map_err(damaged)?;
    for (commit, oid) in flat_notes(base) {
        // What was too large to be copied cannot be moved, and what is there twice stays so.
        let movable = !notes.contains_key(&commit)
            && !occupied(base, &commit)
            && odb.exists(oid)
            && places(repository, base, &commit)?.len() == 1;
        if movable {
            update.remove(&*commit).upsert(fanned(&commit), oid, FileMode::Blob);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The repository, and a way to write a tree of (path, text).
    fn repository() -> (tempfile::TempDir, Repository) {
        crate::git::init().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::init_bare(folder.path()).unwrap();
        (folder, repository)
    }

    fn tree<'r>(repository: &'r Repository, files: &[(String, String)]) -> Tree<'r> {
        let empty = repository.treebuilder(None).unwrap().write().unwrap();
        let mut update = TreeUpdateBuilder::new();
        for (path, text) in files {
            update.upsert(&**path, repository.blob(text.as_bytes()).unwrap(), FileMode::Blob);
        }
        let base = repository.find_tree(empty).unwrap();
        repository.find_tree(update.create_updated(repository, &base).unwrap()).unwrap()
    }

    fn cut(id: &str, folders: usize) -> String {
        let at = |n: usize| &id[2 * n..2 * n + 2];
        let mut path: String = (0..folders).map(|n| format!("{}/", at(n))).collect();
        path.push_str(&id[2 * folders..]);
        path
    }

    #[test]
    fn every_mixture_of_depths_is_read_and_written() {
        let (_folder, repository) = repository();
        let ids: Vec<String> = (0u32..200)
            .map(|n| Oid::hash_object(ObjectType::Blob, &n.to_le_bytes()).unwrap().to_string())
            .collect();
        let files: Vec<_> = ids
            .iter()
            .enumerate()
            .map(|(n, id)| (cut(id, n % 4), format!("old {n}\n")))
            .chain([("README".to_owned(), "no note".to_owned())])
            .collect();
        let before = tree(&repository, &files);
        let changes: BTreeMap<String, Oid> = ids
            .iter()
            .step_by(3)
            .map(|id| (id.clone(), repository.blob(format!("new {id}\n").as_bytes()).unwrap()))
            .collect();
        let after = write(&repository, Some(&before), &changes).unwrap();
        let after = repository.find_tree(after).unwrap();
        for (n, id) in ids.iter().enumerate() {
            let places = places(&repository, &after, id).unwrap();
            assert_eq!(places.len(), 1, "{id} {places:?}");
            let depth = places[0].0.matches('/').count();
            assert_eq!(depth, (n % 4).max(1), "flat ones are moved, deep ones stay");
            let text = find(&repository, &after, id).unwrap().unwrap();
            let expected = if n % 3 == 0 { format!("new {id}\n") } else { format!("old {n}\n") };
            assert_eq!(String::from_utf8(text).unwrap(), expected);
        }
        assert!(after.get_name("README").is_some());
        let changed = changed(&repository, Some(&before), &after).unwrap();
        assert!(changes.keys().all(|id| changed.contains(id)));
        let again = write(&repository, Some(&after), &changes).unwrap();
        assert_eq!(again, after.id(), "a second time changes nothing");
    }

    #[test]
    fn one_note_in_several_depths_is_joined_and_becomes_one() {
        let (_folder, repository) = repository();
        let id = "ab".repeat(20);
        let files: Vec<_> = (0..4).map(|n| (cut(&id, n), format!("{n}\n"))).collect();
        for pick in 1..16usize {
            let some: Vec<_> =
                (0..4).filter(|n| pick & (1 << n) != 0).map(|n| files[n].clone()).collect();
            let before = tree(&repository, &some);
            let joined = find(&repository, &before, &id).unwrap().unwrap();
            let expected: Vec<_> = some.iter().map(|(_, text)| text.clone()).collect();
            assert_eq!(String::from_utf8(joined).unwrap(), expected.join("\n"));
            let new = BTreeMap::from([(id.clone(), repository.blob(b"new\n").unwrap())]);
            let after = write(&repository, Some(&before), &new).unwrap();
            let after = repository.find_tree(after).unwrap();
            assert_eq!(places(&repository, &after, &id).unwrap().len(), 1, "{pick:b}");
            assert_eq!(find(&repository, &after, &id).unwrap().unwrap(), b"new\n");
        }
    }

    #[test]
    fn a_file_in_the_place_of_a_folder_is_kept() {
        let (_folder, repository) = repository();
        let id = "ab".repeat(20);
        let before = tree(&repository, &[("ab".to_owned(), "a stranger".to_owned())]);
        let new = BTreeMap::from([(id.clone(), repository.blob(b"new\n").unwrap())]);
        let after = write(&repository, Some(&before), &new).unwrap();
        let after = repository.find_tree(after).unwrap();
        assert!(after.get_name("ab").is_some());
        assert_eq!(find(&repository, &after, &id).unwrap().unwrap(), b"new\n");
    }
}
