//! The mirrors of this process: one bare repository per address below the cache folder.
//!
//! A mirror is a cache and nothing else: what was seen of the source lies below `refs/seen/`,
//! notes that wait for their push below `refs/notes/`. A damaged mirror is thrown away and made
//! anew, taking along what can still be read of the waiting notes. Runs no hook, has no remote,
//! no work tree and no configuration but what `git init --bare` writes. Everything here blocks;
//! `source.rs` brings it to the asynchronous world.

mod replace;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use git2::{Commit, ErrorCode, Oid, Repository, RepositoryInitOptions};
use sha2::{Digest, Sha256};
use tokio::sync::{RwLock, Semaphore};

use super::budget::Budget;
use super::files::{FilesCache, MAX_FILE_BYTES};
use super::local::{Local, mirror_damaged};
use super::notes::MAX_NOTE_BYTES;
use super::source::Source;
use super::{Error, SourceUrl};
use crate::api::names::CommitId;

/// Reads of one mirror at the same time. Bounds the threads that one hanging disk can hold.
const READERS: usize = 4;
/// Opened handles that are kept per mirror; opening one takes about 0.1 ms.
const IDLE: usize = 2;
/// Mirrors kept open without a user; beyond it they are closed (and opened again when needed).
const OPEN_MIRRORS: usize = 4_096;
/// How often the lock between processes is tried.
const LOCK_LOOK: Duration = Duration::from_millis(10);
/// Loose objects in one of git's 256 folders above which a mirror is made anew as one pack: some
/// 20 000 in all, four kilobytes of disk each.
const LOOSE_IN_ONE_FOLDER: usize = 80;
/// Packs above which the same is done: libgit2 searches them one after another.
const PACKS: usize = 100;
/// Where a mirror keeps what it saw of the source.
const SEEN: &str = "refs/seen/";

/// What a process allows and expects of its repositories.
#[derive(Debug, Clone)]
pub struct MirrorOptions {
    /// Whether paths of this machine may be used (the controller's flag).
    pub allow_local: bool,
    /// Total deadline of an operation unless [`Source::with_timeout`] says otherwise.
    pub timeout: Duration,
}

impl Default for MirrorOptions {
    /// No local paths; one minute, as `spec.timeout`.
    fn default() -> Self {
        Self { allow_local: false, timeout: Duration::from_secs(60) }
    }
}

/// All mirrors of this process. Cheap to clone.
#[derive(Clone)]
pub struct Mirrors {
    shared: Arc<Shared>,
}

struct Shared {
    folder: PathBuf,
    options: MirrorOptions,
    open: Mutex<BTreeMap<SourceUrl, Arc<Mirror>>>,
}

impl Mirrors {
    /// Takes a cache folder into use, which is created when missing. Two processes may share one.
    ///
    /// # Errors
    /// When the folder cannot be created.
    pub fn open(folder: impl Into<PathBuf>, options: MirrorOptions) -> Result<Self, Error> {
        super::init()?;
        let folder = folder.into();
        create_private(&folder).map_err(|e| cache_error(&folder, e))?;
        let shared = Shared { folder, options, open: Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The repository at `url`. Everybody who asks for one address shares one mirror. Nothing is
    /// contacted or created yet.
    ///
    /// # Errors
    /// When the address cannot be used by this version or this process.
    pub fn get(&self, url: &SourceUrl) -> Result<Source, Error> {
        let path = url.usable(self.shared.options.allow_local)?;
        let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= OPEN_MIRRORS {
            open.retain(|_, mirror| Arc::strong_count(mirror) > 1);
        }
        let mirror = open
            .entry(url.clone())
            .or_insert_with(|| Arc::new(Mirror::new(&self.shared.folder, url, path)));
        Ok(Source::new(mirror.clone(), self.shared.options.timeout))
    }
}

/// One mirror.
pub(crate) struct Mirror {
    pub(crate) url: SourceUrl,
    source: PathBuf,
    folder: PathBuf,
    idle: Mutex<Vec<Repository>>,
    visits: AtomicU64,
    pub(crate) files: FilesCache,
    /// Held shared by all work, alone while the mirror is replaced.
    pub(crate) gate: Arc<RwLock<()>>,
    /// Held by whoever fetches or writes notes.
    pub(crate) writer: Arc<tokio::sync::Mutex<()>>,
    /// Bounds the readers.
    pub(crate) readers: Arc<Semaphore>,
}

impl Mirror {
    fn new(cache: &Path, url: &SourceUrl, source: &Path) -> Self {
        let key = Sha256::digest(url.as_str().as_bytes());
        let key: String = key.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Self {
            url: url.clone(),
            source: source.to_owned(),
            folder: cache.join(format!("{key}.git")),
            idle: Mutex::default(),
            visits: AtomicU64::new(0),
            files: FilesCache::default(),
            gate: Arc::default(),
            writer: Arc::default(),
            readers: Arc::new(Semaphore::new(READERS)),
        }
    }

    /// Opens the repository that is mirrored.
    pub(crate) fn source(&self) -> Result<Local, Error> {
        self.visits.fetch_add(1, Ordering::Relaxed);
        Local::open(&self.source, &self.url)
    }

    /// How often it was opened so far.
    pub(crate) fn visits(&self) -> u64 {
        self.visits.load(Ordering::Relaxed)
    }

    /// Works with an opened handle of the mirror, which is created when missing.
    pub(crate) fn with<T>(
        &self,
        work: impl FnOnce(&Repository) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let repository = match idle {
            Some(repository) => repository,
            None => self.open_or_create()?,
        };
        let done = work(&repository);
        if done.is_ok() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < IDLE {
                idle.push(repository);
            }
        }
        done
    }

    /// What the source has of `wanted` now.
    pub(crate) fn listing(&self, wanted: &[&str]) -> Result<BTreeMap<String, Oid>, Error> {
        self.source()?.listing(wanted)
    }

    /// Copies what `wanted` point at into the mirror and remembers below `place` where they were.
    /// Only for the holder of the writer's lock.
    pub(crate) fn fetch(
        &self,
        repository: &Repository,
        place: Place,
        wanted: &[&str],
        budget: &Budget,
    ) -> Result<BTreeMap<String, Oid>, Error> {
        let source = self.source()?;
        let listing = source.listing(wanted)?;
        for (name, tip) in &listing {
            let remembered = place.name(name);
            if mirror_has(repository, &remembered, *tip)? {
                continue;
            }
            copy_in(repository, &source, (name, *tip), budget)?;
            let moved = repository.reference(&remembered, *tip, true, "");
            moved.map_err(|error| mirror_damaged(repository, error))?;
        }
        let kept: BTreeSet<String> = listing.keys().map(|name| place.name(name)).collect();
        for name in wanted {
            forget(repository, &place.name(name), &kept)?;
        }
        Ok(listing)
    }

    /// Locks the mirror against other processes until the answer is dropped.
    pub(crate) fn lock(&self, budget: &Budget) -> Result<fs::File, Error> {
        let path = self.folder.with_extension("lock");
        let refused = |error| cache_error(&path, error);
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(refused)?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(refused(error)),
            }
            budget.check()?;
            thread::sleep(LOCK_LOOK);
        }
    }

    /// Whether so much has piled up that the mirror is better made anew.
    pub(crate) fn is_bulky(&self) -> bool {
        let objects = self.folder.join("objects");
        let count = |name: &str| fs::read_dir(objects.join(name)).map_or(0, Iterator::count);
        // Ids are evenly spread, so one folder stands for all, as in git gc --auto.
        count("17") > LOOSE_IN_ONE_FOLDER || count("pack") > 2 * PACKS
    }

    fn open_or_create(&self) -> Result<Repository, Error> {
        let damaged =
            |source| Error::MirrorDamaged { folder: self.folder.display().to_string(), source };
        match Repository::open_bare(&self.folder) {
            Ok(repository) => Ok(repository),
            Err(error) if error.code() != ErrorCode::NotFound => Err(damaged(error)),
            Err(error) if self.folder.exists() => Err(damaged(error)),
            Err(_) => create(&self.folder),
        }
    }
}

/// Where in the mirror references of the source are remembered.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    /// What publishing and following a branch last saw.
    Seen,
    /// What somebody wanted to read, notes of any instance.
    Read,
}

impl Place {
    fn folder(self) -> &'static str {
        match self {
            Self::Seen => SEEN,
            Self::Read => "refs/read/",
        }
    }

    /// The mirror's name of the source's reference `name`.
    pub(crate) fn name(self, name: &str) -> String {
        format!("{}{}", self.folder(), name.strip_prefix("refs/").unwrap_or(name))
    }
}

/// What a reference of the mirror points at, when it is there and its commit too.
pub(crate) fn tip(repository: &Repository, name: &str) -> Result<Option<Oid>, Error> {
    match repository.find_reference(name) {
        Ok(reference) => Ok(reference.target()),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(mirror_damaged(repository, error)),
    }
}

/// A commit of the mirror by its id.
pub(crate) fn commit<'r>(repository: &'r Repository, id: &CommitId) -> Result<Commit<'r>, Error> {
    let unknown = || Error::UnknownCommit { commit: id.to_string() };
    let oid = Oid::from_str(id.as_str()).map_err(|_| unknown())?;
    repository.find_commit(oid).map_err(|error| match error.code() {
        ErrorCode::NotFound => unknown(),
        _ => mirror_damaged(repository, error),
    })
}

/// Our word for an id.
pub(crate) fn commit_id(oid: Oid) -> Result<CommitId, Error> {
    let text = oid.to_string();
    CommitId::parse(&text).map_err(|_| Error::UnknownCommit { commit: text })
}

/// The size of a blob that was too large to be copied.
pub(crate) fn size_left_behind(repository: &Repository, oid: Oid) -> Option<usize> {
    fs::read_to_string(left_behind(repository, oid)).ok()?.trim().parse().ok()
}

fn left_behind(repository: &Repository, oid: Oid) -> PathBuf {
    repository.path().join("left-behind").join(oid.to_string())
}

/// Copies what the source's reference `name` has at `tip`, and everything that needs, into the
/// mirror. Moves no reference. Blobs that are too large to be of any use stay behind.
pub(crate) fn copy_in(
    repository: &Repository,
    source: &Local,
    (name, tip): (&str, Oid),
    budget: &Budget,
) -> Result<(), Error> {
    let notes = name.starts_with("refs/notes/");
    let limit = if notes { MAX_NOTE_BYTES } else { MAX_FILE_BYTES };
    for (oid, size) in source.copy_out(repository, tip, &tips(repository)?, limit, budget)? {
        let path = left_behind(repository, oid);
        let folder = path.parent().unwrap_or(&path);
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&path, size.to_string()))
            .map_err(|error| cache_error(folder, error))?;
    }
    Ok(())
}

/// Whether the reference `name` of the mirror is at `tip` already, commit and all.
pub(crate) fn mirror_has(repository: &Repository, name: &str, tip: Oid) -> Result<bool, Error> {
    Ok(self::tip(repository, name)? == Some(tip) && repository.find_commit(tip).is_ok())
}

/// Forgets what `name` stands for, a reference or everything below a folder, but not `kept`.
fn forget(repository: &Repository, name: &str, kept: &BTreeSet<String>) -> Result<(), Error> {
    let damaged = |source| mirror_damaged(repository, source);
    let glob = if name.ends_with('/') { format!("{name}*") } else { name.to_owned() };
    for reference in repository.references_glob(&glob).map_err(damaged)? {
        let mut reference = reference.map_err(damaged)?;
        if !reference.name().is_ok_and(|name| kept.contains(name)) {
            reference.delete().map_err(damaged)?;
        }
    }
    Ok(())
}

/// All commits that the mirror's references keep, as far as they are readable.
fn tips(repository: &Repository) -> Result<Vec<Oid>, Error> {
    let references = repository.references().map_err(|e| mirror_damaged(repository, e))?;
    let targets = references.flatten().filter_map(|reference| reference.target());
    Ok(targets.filter(|oid| repository.find_commit(*oid).is_ok()).collect())
}

fn create(folder: &Path) -> Result<Repository, Error> {
    create_private(folder).map_err(|error| cache_error(folder, error))?;
    let mut options = RepositoryInitOptions::new();
    // No template: the machine's could bring hooks and configuration.
    options.bare(true).external_template(false);
    Repository::init_opts(folder, &options)
        .map_err(|source| Error::MirrorDamaged { folder: folder.display().to_string(), source })
}

/// Repositories may be confidential: the cache is for this user only.
fn create_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn cache_error(folder: &Path, source: io::Error) -> Error {
    Error::Cache { folder: folder.display().to_string(), source }
}
