//! The walk through a commit's tree, its limits, and the cache of what was read.
//!
//! Decides for each entry whether it is read, left alone or a problem, by the rules of
//! `files.rs`. Never follows anything out of the tree.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use git2::{ErrorCode, FileMode, ObjectType, Oid, Repository, Tree, TreeEntry};

use super::{
    File, FileProblem, Files, MAX_DEPTH, MAX_ENTRIES, MAX_FILE_BYTES, MAX_FILES, MAX_NAME,
    MAX_TOTAL_BYTES, ObjectId, Refusal, check_name, check_path, is_read, link_matters,
};
use crate::api::names::CommitId;
use crate::git::budget::Budget;
use crate::git::error::printable;
use crate::git::local::mirror_damaged;
use crate::git::{Error, mirror};

/// Most problems that are kept; a folder of links must not fill the memory.
const MAX_PROBLEMS: usize = 1_000;
/// Trees whose files stay in memory: the head, the accepted commit and two on the way.
const CACHED_TREES: usize = 4;

/// The tree of `commit` at `path`.
pub(crate) fn tree_at<'r>(
    repository: &'r Repository,
    commit: &CommitId,
    path: &str,
) -> Result<Tree<'r>, Error> {
    let damaged = |source| mirror_damaged(repository, source);
    let mut tree = mirror::commit(repository, commit)?.tree().map_err(damaged)?;
    for part in check_path(path)? {
        let missing = |reason| Error::NoSuchPath {
            path: printable(path, 200),
            commit: commit.to_string(),
            reason,
        };
        let next = match tree.get_name(part) {
            None => return Err(missing("does not exist")),
            Some(entry) if entry.kind() != Some(ObjectType::Tree) => {
                return Err(missing("is not a folder"));
            }
            Some(entry) => entry.id(),
        };
        tree = repository.find_tree(next).map_err(damaged)?;
    }
    Ok(tree)
}

/// Reads everything below `tree`. Blobs that `cache` has are not read again.
pub(crate) fn read(
    repository: &Repository,
    commit: &CommitId,
    tree: &Tree<'_>,
    cache: &FilesCache,
    budget: &Budget,
) -> Result<Files, Error> {
    if let Some(files) = cache.get(tree.id(), commit) {
        return Ok(files);
    }
    let mut walk = Walk { repository, budget, known: cache.blobs(), found: Found::default() };
    walk.below(tree)?;
    let files = walk.found.into_files(Some(commit.clone()), tree.id());
    cache.put(&files);
    Ok(files)
}

/// What a walk has collected, with the limits that are common to trees and plain folders.
#[derive(Default)]
pub(crate) struct Found {
    entries: BTreeMap<String, File>,
    problems: Vec<FileProblem>,
    bytes: usize,
    seen: usize,
    /// Set when a limit ended the walk.
    pub(crate) full: bool,
}

impl Found {
    /// Counts one more entry; ends the walk beyond the limit.
    pub(crate) fn entry(&mut self, path: &str) {
        self.seen += 1;
        if self.seen > MAX_ENTRIES {
            self.end(path, Refusal::TooMany);
        }
    }

    /// Whether a file of `size` still fits; says why not.
    pub(crate) fn admits(&mut self, path: &str, size: usize) -> bool {
        if size > MAX_FILE_BYTES {
            self.problem(path, Refusal::TooLarge { size: size as u64 });
            return false;
        }
        if self.entries.len() >= MAX_FILES {
            self.end(path, Refusal::TooMany);
        } else if self.bytes + size > MAX_TOTAL_BYTES {
            self.end(path, Refusal::TotalTooLarge);
        }
        !self.full
    }

    /// Takes a file.
    pub(crate) fn file(&mut self, path: String, bytes: Arc<[u8]>, blob: Oid) {
        self.bytes += bytes.len();
        self.entries.insert(path, File { bytes, blob: ObjectId(blob) });
    }

    /// Takes a problem.
    pub(crate) fn problem(&mut self, path: &str, reason: Refusal) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(FileProblem { path: printable(path, MAX_NAME), reason });
        } else {
            self.full = true;
        }
    }

    fn end(&mut self, path: &str, reason: Refusal) {
        self.problem(path, reason);
        self.full = true;
    }

    /// The finished value.
    pub(crate) fn into_files(mut self, commit: Option<CommitId>, tree: Oid) -> Files {
        self.problems.sort();
        Files {
            commit,
            tree: ObjectId(tree),
            entries: Arc::new(self.entries),
            problems: Arc::new(self.problems),
            complete: !self.full,
        }
    }
}

struct Walk<'a> {
    repository: &'a Repository,
    budget: &'a Budget,
    known: HashMap<Oid, Arc<[u8]>>,
    found: Found,
}

impl Walk<'_> {
    fn below(&mut self, top: &Tree<'_>) -> Result<(), Error> {
        let mut folders = VecDeque::from([(String::new(), top.id(), 0)]);
        while let Some((prefix, oid, depth)) = folders.pop_front() {
            self.budget.check()?;
            let tree = self.repository.find_tree(oid).map_err(|e| self.damaged(e))?;
            for entry in tree.iter() {
                if let Some((path, oid)) = self.entry(&prefix, &entry, depth)? {
                    folders.push_back((path + "/", oid, depth + 1));
                }
                if self.found.full {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Looks at one entry; the answer is a folder that is to be entered.
    fn entry(
        &mut self,
        prefix: &str,
        entry: &TreeEntry<'_>,
        depth: usize,
    ) -> Result<Option<(String, Oid)>, Error> {
        let shown = String::from_utf8_lossy(entry.name_bytes());
        let path = format!("{prefix}{shown}");
        self.found.entry(&path);
        let folder = entry.kind() == Some(ObjectType::Tree);
        let submodule = entry.kind() == Some(ObjectType::Commit);
        let link = entry.filemode() == i32::from(FileMode::Link);
        let matters = folder || submodule || is_read(&shown) || (link && link_matters(&shown));
        if !matters {
            return Ok(None);
        }
        if let Err(why) = check_name(entry.name_bytes()) {
            self.found.problem(&path, Refusal::Name(why));
        } else if submodule {
            self.found.problem(&path, Refusal::Submodule);
        } else if link {
            self.found.problem(&path, Refusal::Link);
        } else if folder && depth >= MAX_DEPTH {
            self.found.problem(&path, Refusal::TooDeep);
        } else if folder {
            return Ok(Some((path, entry.id())));
        } else {
            self.file(path, entry.id())?;
        }
        Ok(None)
    }

    fn file(&mut self, path: String, oid: Oid) -> Result<(), Error> {
        if let Some(bytes) = self.known.get(&oid).cloned() {
            if self.found.admits(&path, bytes.len()) {
                self.found.file(path, bytes, oid);
            }
            return Ok(());
        }
        let Some(size) = self.size(oid)? else {
            self.found.problem(&path, Refusal::Unreadable("it is not a file in git".to_owned()));
            return Ok(());
        };
        if self.found.admits(&path, size) {
            let blob = self.repository.find_blob(oid).map_err(|error| self.damaged(error))?;
            self.found.file(path, blob.content().into(), oid);
        }
        Ok(())
    }

    /// The size of a blob, also of one that was too large to be copied; `None` for another object
    /// that pretends to be one.
    fn size(&self, oid: Oid) -> Result<Option<usize>, Error> {
        let odb = self.repository.odb().map_err(|error| self.damaged(error))?;
        match odb.read_header(oid) {
            Ok((size, ObjectType::Blob)) => Ok(Some(size)),
            Ok(_) => Ok(None),
            Err(error) if error.code() == ErrorCode::NotFound => {
                let behind = mirror::size_left_behind(self.repository, oid);
                behind.map(Some).ok_or_else(|| self.damaged(error))
            }
            Err(error) => Err(self.damaged(error)),
        }
    }

    fn damaged(&self, source: git2::Error) -> Error {
        mirror_damaged(self.repository, source)
    }
}

/// The files of the last few trees, so that an unchanged folder is not read again and a changed
/// one shares the contents of its unchanged files.
#[derive(Default)]
pub(crate) struct FilesCache(Mutex<VecDeque<Files>>);

impl FilesCache {
    fn get(&self, tree: Oid, commit: &CommitId) -> Option<Files> {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let at = cached.iter().position(|files| files.tree.0 == tree)?;
        let files = cached.remove(at)?;
        cached.push_front(files.clone());
        Some(Files { commit: Some(commit.clone()), ..files })
    }

    fn put(&self, files: &Files) {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cached.push_front(files.clone());
        cached.truncate(CACHED_TREES);
    }

    fn blobs(&self) -> HashMap<Oid, Arc<[u8]>> {
        let cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = cached.front().map(|files| files.entries.clone()).unwrap_or_default();
        newest.values().map(|file| (file.blob.0, file.bytes.clone())).collect()
    }
}
