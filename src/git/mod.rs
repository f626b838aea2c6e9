//! Edge: git through libgit2, for repositories of this machine (a path or a `file://` URL).
//!
//! [`Mirrors`] keeps one bare mirror per repository below a cache folder and hands out a
//! [`Source`] per use. All work on it is blocking libgit2 work on tokio's blocking threads; the
//! methods of [`Source`] are the asynchronous surface, each with a total deadline, and a dropped
//! future stops its work at the next step.
//!
//! | file | what it does |
//! |---|---|
//! | `source.rs` | the asynchronous surface: head, files, history, notes, publish |
//! | `mirror.rs` | the mirrors of this process; thrown away and made anew when damaged |
//! | `transport.rs` | which addresses are allowed |
//! | `local.rs` | a repository of this machine: listing, copying in and out, its hooks |
//! | `files.rs` | the files of a commit as blobs, with caps; never a work tree |
//! | `folder.rs` | the same for a plain folder, for plans before a commit |
//! | `history.rs` | ancestry and the commits between two heads |
//! | `notes.rs` | notes in a 2/38 fan-out, two references per instance, compare-and-swap |
//! | `watch.rs` | hints that a local repository may have changed |
//!
//! Signatures of commits are not looked at yet: that is a later file, `signature.rs`.
//! The network transports are the seam in `transport.rs`.
//!
//! Nothing here knows Kubernetes. Nothing here checks out files, follows links, runs a program
//! found in a commit or reads the configuration of a user. The one program that is ever run is a
//! hook of the target repository itself, as any push to a path runs it (`local/hooks.rs`).

mod budget;
mod copy;
mod error;
mod files;
mod folder;
mod history;
mod local;
mod mirror;
mod notes;
mod source;
mod transport;
mod watch;

pub use error::{Error, Refused, Retry};
pub use files::{File, FileProblem, Files, ObjectId, Refusal};
pub use folder::read_folder;
pub use history::{CommitSummary, History, Relation};
pub use mirror::{MirrorOptions, Mirrors};
pub use notes::{
    Backoff, InstanceName, Note, NoteUpdate, Published, RemoteNotes, bench_note_writes,
};
pub use source::{Annotated, Publishing, Source};
pub use transport::SourceUrl;
pub use watch::{Hint, Hints};

use std::sync::OnceLock;

/// Prepares libgit2 for this process, once: no configuration of the user or the machine, hashes
/// verified, timeouts on, ownership of folders not asked for. Called by [`Mirrors::open`];
/// calling it again does nothing.
///
/// # Errors
/// When libgit2 refuses an option, which would leave it reading somebody's `~/.gitconfig`.
pub fn init() -> Result<(), Error> {
    static DONE: OnceLock<Result<(), String>> = OnceLock::new();
    let done = DONE.get_or_init(|| set_options().map_err(|error| error.to_string()));
    done.clone().map_err(|reason| Error::Setup { reason })
}

/// Time to connect and time between two packets, in milliseconds. libgit2 waits for ever by
/// default; the total deadline is the operation's own.
const CONNECT_MS: i32 = 10_000;
const SILENCE_MS: i32 = 30_000;

/// Bytes of parsed objects that libgit2 keeps for all repositories together (256 MiB by default).
const OBJECT_CACHE: isize = 8 * 1024 * 1024;
/// Largest tree that is kept: a notes folder of 50 000 notes has 13 kB, and 4 kB is the default.
const CACHED_TREE: usize = 64 * 1024;

#[allow(unsafe_code)]
fn set_options() -> Result<(), git2::Error> {
    use git2::{ConfigLevel, opts};
    let levels =
        [ConfigLevel::System, ConfigLevel::Global, ConfigLevel::XDG, ConfigLevel::ProgramData];
    // SAFETY: these change libgit2's process-wide options, which must not happen while another
    // thread uses libgit2. This runs once, behind a OnceLock, before the first repository is
    // opened, because every way to one begins with `init`.
    unsafe {
        opts::set_server_connect_timeout_in_milliseconds(CONNECT_MS)?;
        opts::set_server_timeout_in_milliseconds(SILENCE_MS)?;
        for level in levels {
            // An empty search path: no insteadOf, no proxy, no hooks path of somebody's home.
            opts::set_search_path(level, "")?;
        }
        opts::set_cache_max_size(OBJECT_CACHE)?;
        opts::set_cache_object_limit(git2::ObjectType::Tree, CACHED_TREE)?;
        // A volume often belongs to another user, and safe.directory can no longer say so.
        // What ownership protects against (configuration and hooks) is not used from a mirror,
        // and hooks of a target have a check of their own.
        opts::set_verify_owner_validation(false)?;
    }
    opts::strict_hash_verification(true);
    opts::strict_object_creation(true);
    Ok(())
}
