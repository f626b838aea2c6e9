//! Turns updates of several commits' notes into one notes commit in the mirror.
//!
//! Bytes that are already there make no commit. Never moves a reference.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use git2::{Commit, Oid, Repository, Signature, Time, Tree};
use jiff::Timestamp;

use super::{InstanceName, Kind, MAX_NOTE_BYTES, NoteUpdate, fanout, text};
use crate::git::Error;
use crate::git::error::printable;
use crate::git::local::mirror_damaged;

/// Notes commits that are searched through for what we last wrote on a commit: some 50 ms.
const SEARCHED: usize = 1_000;
/// Commits that a message lists.
const LISTED: usize = 20;

/// What is to stand on commits in one reference: full hex id → text or lines.
pub(super) type Wanted = BTreeMap<String, Content>;

/// What is to stand on one commit.
pub(super) enum Content {
    Text(String),
    Lines(Vec<String>),
}

/// The part of `updates` that belongs into the reference of `kind`.
pub(super) fn wanted(kind: Kind, updates: &[NoteUpdate]) -> Wanted {
    let mut wanted = Wanted::new();
    for update in updates {
        let commit = update.commit.to_string();
        match kind {
            Kind::People => {
                if let Some(text) = &update.text {
                    wanted.insert(commit, Content::Text(text.clone()));
                }
            }
            Kind::Machines if update.lines.is_empty() => {}
            Kind::Machines => {
                let lines = wanted.entry(commit).or_insert_with(|| Content::Lines(vec![]));
                if let Content::Lines(lines) = lines {
                    lines.extend(update.lines.iter().cloned());
                }
            }
        }
    }
    wanted
}

/// Who writes, when, and where.
pub(super) struct Writer<'a> {
    pub(super) repository: &'a Repository,
    pub(super) instance: &'a InstanceName,
    pub(super) now: Timestamp,
}

/// A tree with new notes in it, not yet committed.
pub(super) struct Written {
    pub(super) tree: Oid,
    /// Commit → first words of what was written, for the message.
    pub(super) what: BTreeMap<String, String>,
}

impl Writer<'_> {
    /// The tree of `tip` with `wanted` in it; `None` when all of it is there already.
    pub(super) fn write(
        &self,
        tip: Option<Oid>,
        wanted: &Wanted,
    ) -> Result<Option<Written>, Error> {
        let tree = tip.map(|tip| self.tree(tip)).transpose()?;
        let mut notes = BTreeMap::new();
        let mut what = BTreeMap::new();
        for (commit, content) in wanted {
            let existing = self.note(tree.as_ref(), commit)?;
            let (text, words) = match content {
                Content::Text(wanted) => {
                    let previous = self.previous(tip, commit, &existing)?;
                    let first = wanted.lines().next().unwrap_or_default();
                    (text::replace(&existing, &previous, wanted), printable(first, 72))
                }
                Content::Lines(lines) => {
                    (text::append(&existing, lines), format!("{} lines", lines.len()))
                }
            };
            if text == existing {
                continue;
            }
            if text.len() > MAX_NOTE_BYTES {
                let reason = "it would be larger than 32 MiB".to_owned();
                return Err(Error::BadNote { commit: commit.clone(), reason });
            }
            let blob = self.repository.blob(text.as_bytes()).map_err(|e| self.damaged(e))?;
            notes.insert(commit.clone(), blob);
            what.insert(commit.clone(), words);
        }
        if notes.is_empty() {
            return Ok(None);
        }
        let tree = fanout::write(self.repository, tree.as_ref(), &notes)?;
        Ok(Some(Written { tree, what }))
    }

    /// A commit of `written` on top of `parent`.
    pub(super) fn commit(&self, written: &Written, parent: Option<Oid>) -> Result<Oid, Error> {
        let damaged = |source| self.damaged(source);
        let when = Time::new(self.now.as_second(), 0);
        let who = Signature::new(&self.name(), &self.address(), &when).map_err(damaged)?;
        let tree = self.repository.find_tree(written.tree).map_err(damaged)?;
        let parent = parent.map(|p| self.repository.find_commit(p)).transpose().map_err(damaged)?;
        let parents: Vec<_> = parent.iter().collect();
        let message = self.message(written);
        self.repository.commit(None, &who, &who, &message, &tree, &parents).map_err(damaged)
    }

    /// The tree of the commit `oid`.
    pub(super) fn tree(&self, oid: Oid) -> Result<Tree<'_>, Error> {
        let commit = self.repository.find_commit(oid).map_err(|e| self.damaged(e))?;
        commit.tree().map_err(|error| self.damaged(error))
    }

    /// The note on `commit` as text; empty when there is none.
    pub(super) fn note(&self, tree: Option<&Tree<'_>>, commit: &str) -> Result<String, Error> {
        let Some(tree) = tree else { return Ok(String::new()) };
        let found = fanout::find(self.repository, tree, commit)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&found).into_owned())
    }

    /// The text that we last wrote on `commit`, at or before `tip`, where `existing` stands now.
    /// Whoever else wrote in between, also before notes of ours on other commits, is passed over.
    fn previous(&self, tip: Option<Oid>, commit: &str, existing: &str) -> Result<String, Error> {
        let mut next = tip.filter(|_| !existing.is_empty());
        let mut newer: Option<(Oid, bool, Vec<Oid>)> = None;
        for _ in 0..SEARCHED {
            let here = match next {
                Some(oid) => fanout::blobs(self.repository, &self.tree(oid)?, commit)?,
                None => vec![],
            };
            if let Some((oid, true, blobs)) = &newer
                && *blobs != here
            {
                return self.note(Some(&self.tree(*oid)?), commit);
            }
            let Some(oid) = next else { return Ok(String::new()) };
            let found = self.repository.find_commit(oid).map_err(|error| self.damaged(error))?;
            next = found.parent_id(0).ok();
            newer = Some((oid, self.is_ours(&found), here));
        }
        // So old that nobody remembers: the reference is ours, and so was this.
        Ok(existing.to_owned())
    }

    /// Who wrote `tip`, when it was not us.
    pub(super) fn foreign(&self, tip: Oid) -> Result<Option<String>, Error> {
        let commit = self.repository.find_commit(tip).map_err(|error| self.damaged(error))?;
        if self.is_ours(&commit) {
            return Ok(None);
        }
        Ok(Some(printable(&String::from_utf8_lossy(commit.author().name_bytes()), 80)))
    }

    fn is_ours(&self, commit: &Commit<'_>) -> bool {
        let (name, address) = (self.name(), self.address());
        let author = commit.author();
        author.name_bytes() == name.as_bytes() && author.email_bytes() == address.as_bytes()
    }

    fn name(&self) -> String {
        format!("pgitops {}", self.instance)
    }

    /// Nobody's mailbox: `.invalid` is reserved for that (RFC 2606).
    fn address(&self) -> String {
        format!("{}@pgitops.invalid", self.instance)
    }

    fn message(&self, written: &Written) -> String {
        let short = |commit: &str| commit.get(..7).unwrap_or(commit).to_owned();
        let mut commits = written.what.keys();
        let mut message = match (commits.next(), written.what.len()) {
            (Some(only), 1) => format!("pgitops {}: note on {}\n\n", self.instance, short(only)),
            (_, many) => format!("pgitops {}: notes on {many} commits\n\n", self.instance),
        };
        for (commit, words) in written.what.iter().take(LISTED) {
            message.push_str(&format!("{} {words}\n", short(commit)));
        }
        if written.what.len() > LISTED {
            message.push_str(&format!("and {} more\n", written.what.len() - LISTED));
        }
        message
    }

    fn damaged(&self, source: git2::Error) -> Error {
        mirror_damaged(self.repository, source)
    }
}

/// Writes `writes` notes one by one into a new repository at `folder` that already has `present`
/// notes, and says how long each took. For the benchmark.
///
/// # Errors
/// When the folder cannot be written.
pub fn bench_note_writes(
    folder: &Path,
    present: usize,
    writes: usize,
) -> Result<Vec<Duration>, Error> {
    crate::git::init()?;
    let repository = Repository::init_bare(folder)
        .map_err(|source| Error::MirrorDamaged { folder: folder.display().to_string(), source })?;
    let instance = InstanceName::parse("bench")?;
    let writer =
        Writer { repository: &repository, instance: &instance, now: Timestamp::UNIX_EPOCH };
    let ids = |from: usize, to: usize| -> BTreeSet<String> {
        let hash = |n: usize| Oid::hash_object(git2::ObjectType::Blob, &n.to_le_bytes());
        (from..to).filter_map(|n| hash(n).ok()).map(|oid| oid.to_string()).collect()
    };
    let text = |id: &String| (id.clone(), Content::Text(format!("APPLIED: {id}\n")));
    let mut tip = None;
    let filled = ids(0, present).iter().map(text).collect();
    if let Some(written) = writer.write(tip, &filled)? {
        tip = Some(writer.commit(&written, tip)?);
    }
    let mut taken = Vec::with_capacity(writes);
    for id in ids(present, present + writes) {
        let wanted = Wanted::from([text(&id)]);
        let begin = Instant::now();
        if let Some(written) = writer.write(tip, &wanted)? {
            let next = writer.commit(&written, tip)?;
            let moved = repository.reference("refs/notes/pgitops/bench", next, true, "");
            moved.map_err(|error| writer.damaged(error))?;
            tip = Some(next);
        }
        taken.push(begin.elapsed());
    }
    Ok(taken)
}
