//! A repository of this machine: what it has, copying out of it, and pushing into it.
//!
//! The counterpart of a network transport. Opens exactly the folder that was named and never
//! searches upwards. Reads references and objects; its configuration only as far as libgit2 needs
//! it to find them. Writes objects and the one reference it is told to, by compare-and-swap.

mod hooks;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use git2::{ErrorClass, ErrorCode, Oid, Repository, RepositoryOpenFlags};

use super::budget::Budget;
use super::copy::{Copy, Fault, LeftBehind};
use super::error::{Refused, printable};
use super::{Error, SourceUrl};

/// Most references that one listing answers: notes of thousands of instances.
const LISTING_LIMIT: usize = 10_000;
/// Longest text of a server or hook that is passed on: it ends up in a condition.
pub(crate) const WORDS_LIMIT: usize = 500;

/// An opened local repository.
pub(crate) struct Local {
    repository: Repository,
    url: String,
}

impl Local {
    /// Opens the folder at `path`.
    pub(crate) fn open(path: &Path, url: &SourceUrl) -> Result<Self, Error> {
        let url = url.to_string();
        match fs::metadata(path) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(Error::NotARepository { url }),
            Err(error) => return Err(unreadable(url, error)),
        }
        if let Err(error) = fs::read_dir(path) {
            return Err(unreadable(url, error));
        }
        let none: [&Path; 0] = [];
        match Repository::open_ext(path, RepositoryOpenFlags::NO_SEARCH, none) {
            Ok(repository) if repository.is_shallow() => {
                let reason = "it is a shallow clone; run git fetch --unshallow in it".to_owned();
                Err(Error::UnsupportedFormat { url, reason })
            }
            Ok(repository) => Ok(Self { repository, url }),
            Err(error) if error.code() == ErrorCode::NotFound => Err(Error::NotARepository { url }),
            Err(error) => {
                let words = printable(error.message(), WORDS_LIMIT);
                let reason = format!("{words}; use a repository with SHA-1 ids and plain refs");
                Err(Error::UnsupportedFormat { url, reason })
            }
        }
    }

    /// The commits that `wanted` point at: full names, or prefixes that end in `/`. Names that
    /// do not exist are simply absent.
    pub(crate) fn listing(&self, wanted: &[&str]) -> Result<BTreeMap<String, Oid>, Error> {
        let mut found = BTreeMap::new();
        for name in wanted {
            if name.ends_with('/') {
                self.list_below(name, &mut found)?;
            } else if let Some(oid) = self.tip(name)? {
                found.insert((*name).to_owned(), oid);
            }
        }
        Ok(found)
    }

    /// The names of some branches, for a message; `None` when there is not one.
    pub(crate) fn some_branches(&self) -> Option<String> {
        const SHOWN: usize = 5;
        let references = self.repository.references_glob("refs/heads/*").ok()?;
        let names: Vec<String> = references
            .flatten()
            .filter_map(|branch| branch.shorthand().ok().map(|name| printable(name, 80)))
            .take(SHOWN)
            .collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    /// Copies `tip` into `mirror`, without what the mirror's commits `known` already brought, and
    /// without blobs larger than `blob_limit`.
    pub(crate) fn copy_out(
        &self,
        mirror: &Repository,
        tip: Oid,
        known: &[Oid],
        blob_limit: usize,
        budget: &Budget,
    ) -> Result<LeftBehind, Error> {
        let blob_limit = Some(blob_limit);
        let copy = Copy { from: &self.repository, to: mirror, budget, blob_limit };
        copy.commits(tip, known).map_err(|fault| match fault {
            Fault::Read(source) => self.damaged(source),
            Fault::Write(source) => mirror_damaged(mirror, source),
            Fault::TooLarge(what) => Error::TooLarge { url: self.url.clone(), what },
            Fault::Stopped(error) => error,
        })
    }

    /// Moves `reference` from `before` to `after`, whose objects come from `mirror`.
    /// [`Refused::NotFastForward`] when the reference no longer is at `before`.
    pub(crate) fn push(&self, mirror: &Repository, push: &Push<'_>) -> Result<(), Error> {
        let known: Vec<Oid> = push.before.into_iter().collect();
        let copy =
            Copy { from: mirror, to: &self.repository, budget: push.budget, blob_limit: None };
        copy.commits(push.after, &known).map_err(|fault| match fault {
            Fault::Read(source) => mirror_damaged(mirror, source),
            Fault::Write(source) => self.refused(self.why_not_written(&source)),
            Fault::TooLarge(what) => Error::TooLarge { url: self.url.clone(), what },
            Fault::Stopped(error) => error,
        })?;
        let change = hooks::Change {
            reference: push.reference,
            before: push.before.unwrap_or(Oid::ZERO_SHA1),
            after: push.after,
        };
        hooks::before(&self.repository, &change, push.budget)
            .map_err(|words| self.refused(Refused::Hook { words }))?;
        self.swap(push)?;
        hooks::after(&self.repository, &change, push.budget);
        Ok(())
    }

    /// The compare-and-swap itself, under the lock file of the reference. A zero id as the
    /// expected value means that it must not exist.
    fn swap(&self, push: &Push<'_>) -> Result<(), Error> {
        let expected = push.before.unwrap_or(Oid::ZERO_SHA1);
        let message = "notes: pushed by pgitops";
        let swapped =
            self.repository.reference_matching(push.reference, push.after, true, expected, message);
        let error = match swapped {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let lost = matches!(
            error.code(),
            ErrorCode::Modified | ErrorCode::NotFound | ErrorCode::Exists | ErrorCode::Locked
        );
        if lost {
            let reference = push.reference.to_owned();
            return Err(self.refused(Refused::NotFastForward { reference }));
        }
        let refused = match self.in_the_way(push.reference) {
            Some(other) => {
                let words = format!("its reference {other} is in the way; rename or delete it");
                Refused::Other { words }
            }
            None => self.why_not_written(&error),
        };
        Err(self.refused(refused))
    }

    /// A reference that has the name of a folder of `name`: git keeps one or the other.
    fn in_the_way<'n>(&self, name: &'n str) -> Option<&'n str> {
        let mut folders = name.match_indices('/').filter_map(|(at, _)| name.get(..at));
        folders.find(|folder| self.repository.find_reference(folder).is_ok())
    }

    fn list_below(&self, prefix: &str, found: &mut BTreeMap<String, Oid>) -> Result<(), Error> {
        let glob = format!("{prefix}*");
        let references = self.repository.references_glob(&glob).map_err(|e| self.damaged(e))?;
        for reference in references.take(LISTING_LIMIT) {
            let reference = reference.map_err(|error| self.damaged(error))?;
            // A name that is not UTF-8 cannot be one of ours.
            let Ok(name) = reference.name() else { continue };
            if let Ok(commit) = reference.peel_to_commit() {
                found.insert(name.to_owned(), commit.id());
            }
        }
        Ok(())
    }

    fn tip(&self, name: &str) -> Result<Option<Oid>, Error> {
        let reference = match self.repository.find_reference(name) {
            Ok(reference) => reference,
            Err(error) if error.code() == ErrorCode::NotFound => return Ok(None),
            Err(error) => return Err(self.damaged(error)),
        };
        let resolved = match reference.resolve() {
            Ok(resolved) => resolved,
            // HEAD of a repository whose branch nobody has pushed yet.
            Err(error) if error.code() == ErrorCode::NotFound => return Ok(None),
            Err(error) => return Err(self.damaged(error)),
        };
        let commit = resolved.peel_to_commit().map_err(|error| self.damaged(error))?;
        Ok(Some(commit.id()))
    }

    fn damaged(&self, source: git2::Error) -> Error {
        Error::SourceDamaged { url: self.url.clone(), source }
    }

    /// The error of a push that was not taken.
    pub(crate) fn refused(&self, refused: Refused) -> Error {
        Error::Refused { url: self.url.clone(), refused }
    }

    /// libgit2 only has text for what the kernel said, so the kernel is asked again.
    fn why_not_written(&self, error: &git2::Error) -> Refused {
        let other = Refused::Other { words: printable(error.message(), WORDS_LIMIT) };
        if !matches!(error.class(), ErrorClass::Os | ErrorClass::Odb | ErrorClass::Reference) {
            return other;
        }
        let common = self.repository.commondir();
        if !common.is_dir() {
            return Refused::Gone;
        }
        let folders = ["objects", "refs", "refs/notes"].map(|name| common.join(name));
        let denied = folders.iter().filter(|folder| folder.is_dir()).find_map(|folder| {
            let probe = folder.join(format!("pgitops-probe-{}", std::process::id()));
            let created = fs::OpenOptions::new().write(true).create_new(true).open(&probe);
            // What is left behind when this fails is an empty file that git ignores.
            let _ = fs::remove_file(&probe);
            created.err()
        });
        match denied.map(|error| error.kind()) {
            Some(io::ErrorKind::PermissionDenied) => Refused::Permission,
            Some(io::ErrorKind::ReadOnlyFilesystem) => Refused::ReadOnly,
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => Refused::Full,
            Some(_) | None => other,
        }
    }
}

/// One reference to move by compare-and-swap.
pub(crate) struct Push<'a> {
    pub(crate) reference: &'a str,
    pub(crate) before: Option<Oid>,
    pub(crate) after: Oid,
    pub(crate) budget: &'a Budget,
}

fn unreadable(url: String, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::Vanished { url },
        io::ErrorKind::NotADirectory => Error::NotARepository { url },
        _ => Error::Unreadable { url, source: error },
    }
}

/// The error of a mirror that cannot be read or written.
pub(crate) fn mirror_damaged(mirror: &Repository, source: git2::Error) -> Error {
    Error::MirrorDamaged { folder: mirror.path().display().to_string(), source }
}
