//! The files of a commit below a path, as blobs.
//!
//! A tree walk with caps and never a work tree: no filter runs, no link is followed, no submodule
//! entered. What may not be read is a [`FileProblem`] beside the good files, so that a bad file
//! never hides a good one. Only names that can matter are read at all: documents (`.yaml`, `.yml`)
//! and fragments (`.conf`); everything else is left alone, whatever it is. What a file means is
//! decided elsewhere.

mod walk;

use std::collections::BTreeMap;
use std::fmt;
use std::str::{self, Utf8Error};
use std::sync::Arc;

use git2::Oid;

use super::Error;
use super::error::printable;
use crate::api::names::CommitId;

pub(crate) use walk::{FilesCache, Found, read, tree_at};

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
