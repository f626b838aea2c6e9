//! The files of a plain folder, as if they were those of a commit: for plans before a commit.
//!
//! The same names, limits and refusals as `files.rs`. Follows no link and enters no other
//! repository. For the command line only: the controller reads commits.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use git2::{ObjectType, Oid};

use super::Error;
use super::error::printable;
use super::files::{
    Files, Found, MAX_DEPTH, MAX_FILE_BYTES, Refusal, check_name, is_read, link_matters,
};

/// Reads everything below `folder`. Blocks; its limits bound it.
///
/// # Errors
/// When `folder` itself is not a folder that can be listed.
pub fn read_folder(folder: &Path) -> Result<Files, Error> {
    super::init()?;
    let cannot = |source| Error::Cache { folder: folder.display().to_string(), source };
    fs::read_dir(folder).map_err(cannot)?;
    let mut walk = Walk { found: Found::default(), digest: String::new() };
    walk.below(folder);
    let digest = Oid::hash_object(ObjectType::Blob, walk.digest.as_bytes());
    Ok(walk.found.into_files(None, digest.unwrap_or(Oid::ZERO_SHA1)))
}

struct Walk {
    found: Found,
    /// Paths and ids of all files, for the folder's own id.
    digest: String,
}

impl Walk {
    fn below(&mut self, top: &Path) {
        let mut folders = vec![(String::new(), top.to_owned(), 0)];
        while let Some((prefix, folder, depth)) = folders.pop() {
            let mut entries = match sorted(&folder) {
                Ok(entries) => entries,
                Err(error) => {
                    self.found.problem(&prefix, Refusal::Unreadable(error.to_string()));
                    continue;
                }
            };
            // The stack turns the order around, so that folders come out as they are sorted.
            for entry in entries.drain(..) {
                if let Some(path) = self.entry(&prefix, &entry, depth) {
                    folders.push((path + "/", entry.path(), depth + 1));
                }
                if self.found.full {
                    return;
                }
            }
        }
    }

    /// Looks at one entry; the answer is a folder that is to be entered.
    fn entry(&mut self, prefix: &str, entry: &fs::DirEntry, depth: usize) -> Option<String> {
        let name = entry.file_name();
        let shown = name.to_string_lossy();
        let path = format!("{prefix}{shown}");
        self.found.entry(&path);
        // A work tree has one at its top, and it is not part of any commit.
        if shown == ".git" {
            return None;
        }
        let kind = match entry.file_type() {
            Ok(kind) => kind,
            Err(error) => {
                self.found.problem(&path, Refusal::Unreadable(error.to_string()));
                return None;
            }
        };
        let link = kind.is_symlink() && link_matters(&shown);
        if !(kind.is_dir() || link || is_read(&shown)) {
            return None;
        }
        if let Err(why) = check_name(name.as_encoded_bytes()) {
            self.found.problem(&path, Refusal::Name(why));
        } else if kind.is_symlink() {
            self.found.problem(&path, Refusal::Link);
        } else if kind.is_dir() && depth >= MAX_DEPTH {
            self.found.problem(&path, Refusal::TooDeep);
        } else if kind.is_dir() {
            return Some(path);
        } else if kind.is_file() {
            self.file(path, &entry.path());
        } else {
            self.found.problem(&path, Refusal::Unreadable("it is not a plain file".to_owned()));
        }
        None
    }

    fn file(&mut self, path: String, on_disk: &Path) {
        let bytes = match read_capped(on_disk) {
            Ok(bytes) => bytes,
            Err(error) => {
                let why = printable(&error.to_string(), 200);
                return self.found.problem(&path, Refusal::Unreadable(why));
            }
        };
        if !self.found.admits(&path, bytes.len()) {
            return;
        }
        let oid = Oid::hash_object(ObjectType::Blob, &bytes).unwrap_or(Oid::ZERO_SHA1);
        self.digest.push_str(&format!("{oid} {path}\n"));
        self.found.file(path, bytes.into(), oid);
    }
}

/// At most one byte more than a file may have, so that a larger one is seen to be too large.
fn read_capped(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = vec![];
    fs::File::open(path)?.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn sorted(folder: &PathBuf) -> io::Result<Vec<fs::DirEntry>> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    Ok(entries)
}
