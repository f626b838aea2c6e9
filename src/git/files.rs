//! The files of a commit below a path, as blobs.
//!
//! A tree walk with caps and never a work tree: no filter runs, no link is followed, no submodule
//! entered. What may not be read is a [`FileProblem`] beside the good files, so that a bad file
//! never hides a good one. Only names that can matter are read at all: documents (`.yaml`, `.yml`)
//! and fragments (`.conf`); everything else is left alone, whatever it is. What a file means is
//! decided elsewhere.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::str::{self, Utf8Error};
use std::sync::{Arc, Mutex, PoisonError};

use git2::{ErrorCode, FileMode, ObjectType, Oid, Repository, Tree, TreeEntry};

use super::budget::Budget;
use super::error::printable;
use super::local::mirror_damaged;
use super::{Error, mirror};
use crate::api::names::CommitId;

/// Largest file that is read: hand-written configuration stays far below, and it bounds parsing.
pub(crate) const MAX_FILE_BYTES: usize = 1024 * 1024;
/// Most files that are read: twice the largest fleet that one repository is planned for.
pub(crate) const MAX_FILES: usize = 20_000;
/// Most entries that are looked at, including those that are left alone, such as a monorepo's.
pub(crate) const MAX_ENTRIES: usize = 500_000;
/// Most bytes of all files together; it is all in memory at once.
pub(crate) const MAX_TOTAL_BYTES: usize = 64 * 1024 * 1024;
/// Deepest folder that is entered.
pub(crate) const MAX_DEPTH: usize = 32;
/// Longest single name: what file systems allow.
const MAX_NAME: usize = 255;
/// Most problems that are kept; a folder of links must not fill the memory.
const MAX_PROBLEMS: usize = 1_000;
/// Trees whose files stay in memory: the head, the accepted commit and two on the way.
const CACHED_TREES: usize = 4;

/// The id of a blob or tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(pub(crate) Oid);

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The files of one commit below one path. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Files {
    /// The commit; `None` when they come from a plain folder.
    pub commit: Option<CommitId>,
    /// Id of the folder's tree. Equal ids mean equal files. (Of a plain folder: a digest of it.)
    pub tree: ObjectId,
    /// Path below the folder → contents, for `.yaml`, `.yml` and `.conf` files.
    pub entries: Arc<BTreeMap<String, File>>,
    /// What could not be read, by path.
    pub problems: Arc<Vec<FileProblem>>,
    /// Whether everything was seen. `false` when a limit ended the walk: absence proves nothing.
    pub complete: bool,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Its contents, at most 1 MiB, as they are in the blob.
    pub bytes: Arc<[u8]>,
    /// Id of the blob. Equal ids mean equal contents.
    pub blob: ObjectId,
}

impl File {
    /// The contents as text.
    ///
    /// # Errors
    /// When they are not UTF-8, with the place of the first bad byte.
    pub fn text(&self) -> Result<&str, Utf8Error> {
        str::from_utf8(&self.bytes)
    }
}

/// Something below the path that is not read, and why.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileProblem {
    /// Path below the folder, fit for display (shortened, unprintable characters replaced).
    pub path: String,
    /// Why it is not read.
    pub reason: Refusal,
}

/// Why a file is not read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// A symbolic link.
    Link,
    /// A submodule.
    Submodule,
    /// Larger than 1 MiB.
    TooLarge {
        /// Its size in bytes.
        size: u64,
    },
    /// In a folder deeper than 32 levels.
    TooDeep,
    /// More than 20 000 files to read, or 500 000 entries in all. The walk ended here.
    TooMany,
    /// The files before this one add up to 64 MiB. The walk ended here.
    TotalTooLarge,
    /// A name that cannot be a file of ours.
    Name(&'static str),
    /// Neither a regular file nor a folder (a plain folder's socket or pipe), or unreadable.
    Unreadable(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link => f.write_str("is a symbolic link; commit the file itself"),
            Self::Submodule => f.write_str("is a submodule; commit the files themselves"),
            Self::TooLarge { size } => {
                write!(f, "has {size} bytes; a file may have 1048576 (1 MiB)")
            }
            Self::TooDeep => write!(f, "is deeper than {MAX_DEPTH} folders; move it up"),
            Self::TooMany => write!(
                f,
                "is beyond the limit of {MAX_FILES} files ({MAX_ENTRIES} entries); \
                 narrow spec.path"
            ),
            Self::TotalTooLarge => {
                f.write_str("is beyond the limit of 64 MiB for all files; narrow spec.path")
            }
            Self::Name(why) => write!(f, "has a name that {why}; rename it"),
            Self::Unreadable(why) => write!(f, "cannot be read: {why}"),
        }
    }
}

/// Whether a file of this name is read: documents and fragments.
pub(crate) fn is_read(name: &str) -> bool {
    extension(name).is_some_and(|ext| {
        ["yaml", "yml", "conf"].iter().any(|known| ext.eq_ignore_ascii_case(known))
    })
}

fn extension(name: &str) -> Option<&str> {
    name.rsplit_once('.').map(|(_, ext)| ext)
}

/// Whether a link of this name could stand for a document or for a folder of documents.
pub(crate) fn link_matters(name: &str) -> bool {
    is_read(name) || extension(name).is_none()
}

/// A single name in a path, or why it cannot be one.
pub(crate) fn check_name(name: &[u8]) -> Result<&str, &'static str> {
    if name.len() > MAX_NAME {
        return Err("is longer than 255 bytes");
    }
    let Ok(name) = str::from_utf8(name) else { return Err("is not UTF-8") };
    if name.is_empty() || name == "." || name == ".." || name.contains('/') {
        return Err("points elsewhere");
    }
    if name.eq_ignore_ascii_case(".git") {
        return Err("is git's own");
    }
    if name.chars().any(char::is_control) {
        return Err("contains a control character");
    }
    Ok(name)
}

/// A path inside a repository, as written into `spec.path`: its parts, none of them odd.
pub(crate) fn check_path(path: &str) -> Result<Vec<&str>, Error> {
    let bad = |reason| Error::BadPath { path: printable(path, 200), reason };
    if path.starts_with('/') {
        return Err(bad("it is relative to the top of the repository; leave out the first slash"));
    }
    let parts: Vec<&str> =
        path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    for part in &parts {
        check_name(part.as_bytes()).map_err(|_| bad("a part of it is no plain folder name"))?;
    }
    Ok(parts)
}

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
