//! What can go wrong between us and a git repository, and when to try again.
//!
//! Each message begins with what failed and says what to do next. [`Error::retry`] is the only
//! place that decides when a failed operation is tried again. Never carries file contents.

use std::io;
use std::time::Duration;

/// A failed operation on a repository or on its mirror.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address in `spec.url` cannot be used at all.
    #[error("repository address cannot be used: {reason}")]
    Address {
        /// What is wrong with it and what to write instead; never repeats the address.
        reason: String,
    },
    /// The address is good, but this version cannot speak its protocol yet.
    #[error(
        "repository address uses {scheme}, which comes in a later version; \
         use an absolute path or a file:// URL"
    )]
    UnsupportedTransport {
        /// `https`, `http` or `ssh`.
        scheme: &'static str,
    },
    /// libgit2 refused its process-wide options.
    #[error("libgit2 could not be prepared: {reason}; this is a bug, please report it")]
    Setup {
        /// What libgit2 said.
        reason: String,
    },
    /// A local path was given to a process that does not allow them.
    #[error(
        "repository address is a local path, which this controller does not allow; \
         start it with --allow-local-repositories or use a remote URL"
    )]
    LocalForbidden,
    /// There is nothing at the address.
    #[error("repository {url} is gone; put it back or correct the address")]
    Vanished {
        /// The address, without credentials.
        url: String,
    },
    /// There is something at the address, but no git repository.
    #[error("{url} is not a git repository; run git init --bare there or correct the address")]
    NotARepository {
        /// The address, without credentials.
        url: String,
    },
    /// A repository that cannot be read as it is stored (SHA-256, reftable, shallow, newer format).
    #[error("repository {url} cannot be read: {reason}")]
    UnsupportedFormat {
        /// The address, without credentials.
        url: String,
        /// Why, and what to do.
        reason: String,
    },
    /// We may not read the repository.
    #[error("repository {url} cannot be read; grant this process read access to it")]
    Unreadable {
        /// The address, without credentials.
        url: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// A repository without a single commit: nobody has pushed yet.
    #[error("repository {url} is empty; push a first commit")]
    Empty {
        /// The address, without credentials.
        url: String,
    },
    /// The name of a branch or tag breaks git's own rules.
    #[error("reference {name:?} is not a valid name; give a branch, a tag or a full refs/… name")]
    BadReference {
        /// The name as given, shortened.
        name: String,
    },
    /// The repository is there, but not the branch or tag.
    #[error("repository {url} has no branch or tag {name}; it has {available}")]
    NoSuchReference {
        /// The address, without credentials.
        url: String,
        /// What was asked for.
        name: String,
        /// Some of the branches that are there.
        available: String,
    },
    /// `spec.path` breaks the rules of a path inside a repository.
    #[error("path {path:?} cannot be used: {reason}")]
    BadPath {
        /// The path as given, shortened.
        path: String,
        /// What to write instead.
        reason: &'static str,
    },
    /// `spec.path` is not a folder of that commit.
    #[error("path {path:?} of commit {commit} {reason}; correct spec.path or push the folder")]
    NoSuchPath {
        /// The path inside the repository.
        path: String,
        /// The commit that was read.
        commit: String,
        /// `does not exist` or `is not a folder`.
        reason: &'static str,
    },
    /// The commit is not in the mirror.
    #[error("commit {commit} is not in the repository (rewritten history, or not fetched yet)")]
    UnknownCommit {
        /// Its id.
        commit: String,
    },
    /// An object of the repository itself is missing or damaged.
    #[error("repository {url} cannot be read; check it with git fsck")]
    SourceDamaged {
        /// The address, without credentials.
        url: String,
        /// What libgit2 said.
        source: git2::Error,
    },
    /// Our copy is damaged. It is thrown away and made anew by itself.
    #[error("mirror {folder} cannot be read; it is fetched anew at the next look")]
    MirrorDamaged {
        /// Folder of the mirror.
        folder: String,
        /// What libgit2 said.
        source: git2::Error,
    },
    /// The cache folder cannot be used.
    #[error("cache folder {folder} cannot be used; check its space and permissions")]
    Cache {
        /// Folder.
        folder: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The repository is larger than we are willing to copy.
    #[error("repository {url} is too large: {what}")]
    TooLarge {
        /// The address, without credentials.
        url: String,
        /// Which limit it breaks.
        what: String,
    },
    /// The operation did not end in time.
    #[error("{what} took longer than {}s; the repository is slow or spec.timeout too short",
        after.as_secs_f32())]
    Timeout {
        /// The operation.
        what: &'static str,
        /// The deadline that was given.
        after: Duration,
    },
    /// Nobody waits for the result any more.
    #[error("{what} was cancelled")]
    Cancelled {
        /// The operation.
        what: &'static str,
    },
    /// The worker thread ended without a result.
    #[error("{what} ended unexpectedly")]
    Worker {
        /// The operation.
        what: &'static str,
        /// What tokio said.
        source: tokio::task::JoinError,
    },
    /// An instance name that cannot be part of a reference.
    #[error(
        "instance name {name:?} cannot be used; write 1 to 63 of a-z, 0-9 and -, \
         beginning and ending with a letter or digit"
    )]
    BadInstance {
        /// The name as given, shortened.
        name: String,
    },
    /// A note that may not be written.
    #[error("note on {commit} cannot be written: {reason}")]
    BadNote {
        /// The annotated commit.
        commit: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The repository does not take our notes. They are kept here and sent with the next ones.
    #[error("notes could not be pushed to {url}: {refused}")]
    Refused {
        /// The address, without credentials.
        url: String,
        /// Why, and what to do.
        refused: Refused,
    },
}

/// Why a repository did not take a push.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Others kept writing the same reference faster than we could follow.
    #[error("others write {reference} at the same time; it is tried again with the next look")]
    NotFastForward {
        /// The contended reference.
        reference: String,
    },
    /// We may not write there.
    #[error("permission denied; allow this process to write refs/notes/ and objects/ there")]
    Permission,
    /// A hook of the repository said no.
    #[error("its hook declined: {words}; allow refs/notes/pgitops/ and refs/notes/pgitops-data/")]
    Hook {
        /// The hook's own words, capped, without control characters.
        words: String,
    },
    /// The file system is mounted read-only.
    #[error("its file system is read-only; make it writable or switch notes off")]
    ReadOnly,
    /// The file system is full.
    #[error("its file system is full; make room")]
    Full,
    /// It is no longer there.
    #[error("it is gone; put it back")]
    Gone,
    /// Something else stands in the way, such as a reference that occupies the folder's name.
    #[error("{words}")]
    Other {
        /// What libgit2 said, capped.
        words: String,
    },
}

/// When a failed operation may be tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// With backoff: the cause passes by itself.
    Soon,
    /// At the ordinary interval: somebody may put it right outside of Kubernetes.
    AtInterval,
    /// When the object's spec changes: nothing else can help.
    AfterChange,
}

impl Error {
    /// When to try again. The only place that decides it.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Setup { .. }
            | Self::Address { .. }
            | Self::UnsupportedTransport { .. }
            | Self::LocalForbidden
            | Self::BadReference { .. }
            | Self::BadPath { .. }
            | Self::BadInstance { .. }
            | Self::BadNote { .. } => Retry::AfterChange,
            Self::Vanished { .. }
            | Self::NotARepository { .. }
            | Self::UnsupportedFormat { .. }
            | Self::Unreadable { .. }
            | Self::Empty { .. }
            | Self::NoSuchReference { .. }
            | Self::NoSuchPath { .. }
            | Self::SourceDamaged { .. }
            | Self::TooLarge { .. } => Retry::AtInterval,
            Self::UnknownCommit { .. }
            | Self::MirrorDamaged { .. }
            | Self::Cache { .. }
            | Self::Timeout { .. }
            | Self::Cancelled { .. }
            | Self::Worker { .. } => Retry::Soon,
            Self::Refused { refused, .. } => refused.retry(),
        }
    }
}

impl Refused {
    fn retry(&self) -> Retry {
        match self {
            Self::NotFastForward { .. } => Retry::Soon,
            Self::Permission
            | Self::Hook { .. }
            | Self::ReadOnly
            | Self::Full
            | Self::Gone
            | Self::Other { .. } => Retry::AtInterval,
        }
    }
}

/// Text from outside, fit for a message: at most `max` characters, control characters replaced.
pub(crate) fn printable(text: &str, max: usize) -> String {
    let mut out: String =
        text.chars().take(max).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(max).is_some() {
        out.push('…');
    }
    out
}
