//! The asynchronous surface: what a loop or a command may ask of a repository.
//!
//! Each method is one operation with one total deadline. The work runs on a blocking thread; when
//! the deadline passes or the future is dropped, the caller goes on at once and the thread stops
//! at its next step. A damaged mirror is replaced and the operation tried once more. Decides
//! nothing about what is read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use git2::{Oid, Reference};
use jiff::Timestamp;

use super::budget::Budget;
use super::error::printable;
use super::files::{self, Files};
use super::history::{self, CommitSummary, History};
use super::mirror::{self, Mirror, Place};
use super::notes::{self, Backoff, InstanceName, Kind, Note, NoteUpdate, Published};
use super::{Error, SourceUrl};
use crate::api::names::CommitId;

/// A repository, through its mirror. Cheap to clone; all clones share the mirror.
#[derive(Clone)]
pub struct Source {
    mirror: Arc<Mirror>,
    timeout: Duration,
}

/// What a publication takes from outside: the clock and the dice.
#[derive(Debug, Clone)]
pub struct Publishing {
    /// The time that the notes commits carry.
    pub now: Timestamp,
    /// How a contended push is repeated.
    pub backoff: Backoff,
}

/// A commit and what all instances noted on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotated {
    /// The commit.
    pub commit: CommitSummary,
    /// Instance → its note. Empty when nobody noted anything.
    pub notes: BTreeMap<InstanceName, Note>,
}

#[derive(Clone, Copy)]
enum Access {
    Read,
    Write,
}

impl Source {
    pub(crate) fn new(mirror: Arc<Mirror>, timeout: Duration) -> Self {
        Self { mirror, timeout }
    }

    /// The same repository with another total deadline per operation (`spec.timeout`).
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { mirror: self.mirror.clone(), timeout }
    }

    /// Its address.
    pub fn url(&self) -> &SourceUrl {
        &self.mirror.url
    }

    /// How often the repository itself was visited so far through this mirror; each visit is one
    /// listing and what it calls for.
    pub fn visits(&self) -> u64 {
        self.mirror.visits()
    }

    /// One listing: which of `wanted` exist and the commits that they point at. A name is a full
    /// one (`refs/heads/main`, `HEAD`); one that ends in `/` stands for everything below it.
    ///
    /// # Errors
    /// When the repository cannot be reached or read.
    pub async fn listing(&self, wanted: &[&str]) -> Result<BTreeMap<String, CommitId>, Error> {
        let wanted: Vec<String> = wanted.iter().map(|name| (*name).to_owned()).collect();
        self.run("listing the references", Access::Read, move |mirror, _| {
            let wanted: Vec<&str> = wanted.iter().map(String::as_str).collect();
            let listing = mirror.listing(&wanted)?;
            listing.into_iter().map(|(name, oid)| Ok((name, mirror::commit_id(oid)?))).collect()
        })
        .await
    }

    /// The commit that `reference` points at now, fetched. `reference` is a branch, else a tag,
    /// or a full name; an annotated tag answers the commit it stands for. An unchanged repository
    /// costs one listing.
    ///
    /// # Errors
    /// [`Error::Empty`] before the first push, [`Error::NoSuchReference`] when only this one is
    /// missing, and whatever makes the repository unreadable.
    pub async fn head(&self, reference: &str) -> Result<CommitId, Error> {
        let names = candidates(reference)?;
        let asked = printable(reference, 200);
        let wanted = names.clone();
        let (name, tip, fetched) = self
            .run("looking at the repository", Access::Read, move |mirror, _| {
                let (name, tip) = look(mirror, &wanted, &asked)?;
                let seen = Place::Seen.name(&name);
                let fetched = mirror.with(|mirror| mirror::mirror_has(mirror, &seen, tip))?;
                Ok((name, tip, fetched))
            })
            .await?;
        if fetched {
            return mirror::commit_id(tip);
        }
        let asked = printable(reference, 200);
        let what = "fetching the repository";
        if self.mirror.is_bulky() {
            self.replace(&Budget::new(what, self.timeout)).await?;
        }
        self.run(what, Access::Write, move |mirror, budget| {
            let listing = mirror.with(|r| mirror.fetch(r, Place::Seen, &[&name], budget))?;
            match listing.get(&name) {
                Some(tip) => mirror::commit_id(*tip),
                // It went away between two looks.
                None => look(mirror, &names, &asked).and_then(|(_, tip)| mirror::commit_id(tip)),
            }
        })
        .await
    }

    /// The files of a fetched commit below `path` (`.` is everything).
    ///
    /// # Errors
    /// [`Error::UnknownCommit`], [`Error::NoSuchPath`], [`Error::BadPath`]. What is wrong with
    /// single files is in [`Files::problems`].
    pub async fn files(&self, commit: &CommitId, path: &str) -> Result<Files, Error> {
        let (commit, path) = (commit.clone(), path.to_owned());
        self.run("reading the files", Access::Read, move |mirror, budget| {
            mirror.with(|repository| {
                let tree = files::tree_at(repository, &commit, &path)?;
                files::read(repository, &commit, &tree, &mirror.files, budget)
            })
        })
        .await
    }

    /// How `head` relates to the `accepted` commit, and the commits after it along first parents.
    /// Without an accepted commit, everything up to `head`.
    ///
    /// # Errors
    /// When `head` was not fetched. An accepted commit that is nowhere any more is no error but
    /// [`history::Relation::Rewritten`].
    pub async fn history(
        &self,
        accepted: Option<&CommitId>,
        head: &CommitId,
    ) -> Result<History, Error> {
        let (accepted, head) = (accepted.cloned(), head.clone());
        self.run("reading the history", Access::Read, move |mirror, budget| {
            mirror.with(|r| history::between(r, accepted.as_ref(), &head, budget))
        })
        .await
    }

    /// When a fetched commit was made, by the committer's clock.
    ///
    /// # Errors
    /// When it was not fetched, or is nowhere any more.
    pub async fn committed(&self, commit: &CommitId) -> Result<Timestamp, Error> {
        let commit = commit.clone();
        self.run("reading a commit", Access::Read, move |mirror, _| {
            mirror.with(|r| history::summary(r, mirror::commit(r, &commit)?.id()))
        })
        .await
        .map(|summary| summary.time)
    }

    /// Writes `updates` and everything that still waits, in at most one notes commit per
    /// reference, and pushes them. Without updates: pushes what waits.
    ///
    /// # Errors
    /// [`Error::Refused`] when the repository does not take them; they then wait in the mirror
    /// for the next call. [`Error::BadNote`] before anything was written.
    pub async fn publish(
        &self,
        instance: &InstanceName,
        updates: &[NoteUpdate],
        publishing: &Publishing,
    ) -> Result<Published, Error> {
        let (instance, updates) = (instance.clone(), updates.to_vec());
        let publishing = publishing.clone();
        self.run("publishing notes", Access::Write, move |mirror, budget| {
            mirror.with(|repository| {
                let work = notes::Work {
                    instance: &instance,
                    updates: &updates,
                    publishing: &publishing,
                    budget,
                };
                notes::publish(mirror, repository, &work)
            })
        })
        .await
    }

    /// What stands on `commits` from `instance`, freshly fetched, without what others added;
    /// commits without a note are absent. Notes that wait for their push do not stand there yet.
    ///
    /// # Errors
    /// When the repository cannot be reached or read.
    pub async fn notes(
        &self,
        instance: &InstanceName,
        commits: &[CommitId],
    ) -> Result<BTreeMap<CommitId, Note>, Error> {
        let (instance, commits) = (instance.clone(), commits.to_vec());
        self.run("reading notes", Access::Write, move |mirror, budget| {
            let names = Kind::ALL.map(|kind| instance.reference(kind));
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            mirror.with(|repository| {
                mirror.fetch(repository, Place::Read, &names, budget)?;
                notes::notes_of(repository, &instance, &commits)
            })
        })
        .await
    }

    /// The commits from `accepted` (or the beginning) to `head`, newest first, each with the notes
    /// of all instances, freshly fetched.
    ///
    /// # Errors
    /// When the repository cannot be reached or read, or `head` was not fetched.
    pub async fn log(
        &self,
        accepted: Option<&CommitId>,
        head: &CommitId,
    ) -> Result<Vec<Annotated>, Error> {
        let (accepted, head) = (accepted.cloned(), head.clone());
        self.run("reading the log", Access::Write, move |mirror, budget| {
            mirror.with(|repository| {
                let history = history::between(repository, accepted.as_ref(), &head, budget)?;
                let folders = Kind::ALL.map(Kind::folder);
                mirror.fetch(repository, Place::Read, &folders, budget)?;
                let ids: Vec<_> = history.commits.iter().map(|c| c.id.clone()).collect();
                let mut notes = notes::annotated(repository, &ids)?;
                let commits = history.commits.into_iter().rev();
                let with_notes = commits.map(|commit| {
                    let notes = notes.remove(&commit.id).unwrap_or_default();
                    Annotated { commit, notes }
                });
                Ok(with_notes.collect())
            })
        })
        .await
    }

    /// Runs blocking work; once more when the mirror had to be replaced.
    async fn run<T, F>(&self, what: &'static str, access: Access, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Fn(&Mirror, &Budget) -> Result<T, Error> + Send + Sync + 'static,
    {
        let budget = Budget::new(what, self.timeout);
        let _cancel = budget.cancel_on_drop();
        let work = Arc::new(work);
        match self.once(access, &budget, work.clone()).await {
            Err(Error::MirrorDamaged { folder, source }) => {
                tracing::warn!(folder, %source, "throwing a damaged mirror away");
                self.replace(&budget).await?;
                self.once(access, &budget, work).await
            }
            done => done,
        }
    }

    async fn once<T, F>(&self, access: Access, budget: &Budget, work: Arc<F>) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Fn(&Mirror, &Budget) -> Result<T, Error> + Send + Sync + 'static,
    {
        let mirror = self.mirror.clone();
        let on_thread = budget.clone();
        let started = async {
            let gate = self.mirror.gate.clone().read_owned().await;
            let permit = match access {
                Access::Read => {
                    Permit::Read(self.mirror.readers.clone().acquire_owned().await.ok())
                }
                Access::Write => Permit::Write(self.mirror.writer.clone().lock_owned().await),
            };
            tokio::task::spawn_blocking(move || {
                let _held = (gate, &permit);
                let _lock = match access {
                    Access::Read => None,
                    Access::Write => Some(mirror.lock(&on_thread)?),
                };
                on_thread.check()?;
                work(&mirror, &on_thread)
            })
            .await
        };
        joined(budget, tokio::time::timeout(budget.left(), started).await)
    }

    async fn replace(&self, budget: &Budget) -> Result<(), Error> {
        let mirror = self.mirror.clone();
        let on_thread = budget.clone();
        let started = async {
            let gate = self.mirror.gate.clone().write_owned().await;
            tokio::task::spawn_blocking(move || {
                let _held = gate;
                mirror.replace(&on_thread)
            })
            .await
        };
        joined(budget, tokio::time::timeout(budget.left(), started).await)
    }
}

/// What a blocking thread holds while it works; released by the thread, not by the caller, who
/// may be gone by then.
enum Permit {
    Read(#[expect(dead_code)] Option<tokio::sync::OwnedSemaphorePermit>),
    Write(#[expect(dead_code)] tokio::sync::OwnedMutexGuard<()>),
}

type Joined<T> =
    Result<Result<Result<T, Error>, tokio::task::JoinError>, tokio::time::error::Elapsed>;

fn joined<T>(budget: &Budget, result: Joined<T>) -> Result<T, Error> {
    match result {
        Ok(Ok(done)) => done,
        Ok(Err(source)) => Err(Error::Worker { what: budget.what(), source }),
        Err(_) => Err(budget.timeout()),
    }
}

/// The full names that a reference may mean, most likely first.
fn candidates(reference: &str) -> Result<Vec<String>, Error> {
    let names = match reference {
        "HEAD" => vec!["HEAD".to_owned()],
        full if full.starts_with("refs/") => vec![full.to_owned()],
        short => vec![format!("refs/heads/{short}"), format!("refs/tags/{short}")],
    };
    let plain = !reference.starts_with('-') && reference.len() <= 255;
    if plain && names.iter().all(|name| Reference::is_valid_name(name)) {
        return Ok(names);
    }
    Err(Error::BadReference { name: printable(reference, 80) })
}

/// The first of `names` that exists at the source.
fn look(mirror: &Mirror, names: &[String], asked: &str) -> Result<(String, Oid), Error> {
    let source = mirror.source()?;
    let wanted: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut listing = source.listing(&wanted)?;
    for name in names {
        if let Some(tip) = listing.remove(name) {
            return Ok((name.clone(), tip));
        }
    }
    let url = mirror.url.to_string();
    Err(match source.some_branches() {
        None => Error::Empty { url },
        Some(available) => Error::NoSuchReference { url, name: asked.to_owned(), available },
    })
}
