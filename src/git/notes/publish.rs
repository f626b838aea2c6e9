//! Brings notes to the repository: staged in the mirror first, then pushed by compare-and-swap.
//!
//! The mirror's own reference always is at most one commit ahead of what the repository had, and
//! that commit's parent says what it was built on, so a crash at any point leaves a state from
//! which the next publication finds what still waits. When others were faster, what waits is
//! applied on top of theirs and pushed again. Never forces a push and never deletes a reference.

use std::thread;

use git2::{Oid, Repository};

use super::batch::{Content, Wanted, Writer, wanted};
use super::{Backoff, InstanceName, Kind, NoteUpdate, Published, RemoteNotes, fanout, text};
use crate::git::budget::Budget;
use crate::git::error::Refused;
use crate::git::local::{Local, Push, mirror_damaged};
use crate::git::mirror::{self, Mirror, Place};
use crate::git::{Error, Publishing};

/// One publication.
pub(crate) struct Work<'a> {
    pub(crate) instance: &'a InstanceName,
    pub(crate) updates: &'a [NoteUpdate],
    pub(crate) publishing: &'a Publishing,
    pub(crate) budget: &'a Budget,
}

/// Stages and pushes. Only for the holder of the writer's lock.
pub(crate) fn publish(
    mirror: &Mirror,
    repository: &Repository,
    work: &Work<'_>,
) -> Result<Published, Error> {
    for update in work.updates {
        update.check()?;
    }
    let writer = Writer { repository, instance: work.instance, now: work.publishing.now };
    let references = Kind::ALL.map(|kind| Reference::new(work.instance, kind));
    for reference in &references {
        reference.stage(&writer, &wanted(reference.kind, work.updates))?;
    }
    let source = mirror.source().map_err(|error| match error {
        Error::Vanished { url } => Error::Refused { url, refused: Refused::Gone },
        other => other,
    })?;
    let backoff = &work.publishing.backoff;
    let [machines, people] =
        references.map(|reference| reference.settle(&writer, &source, backoff, work.budget));
    let (machines, people) = (machines?, people?);
    Ok(Published {
        pushed: machines.pushed || people.pushed,
        people: people.tip.map(mirror::commit_id).transpose()?,
        machines: machines.tip.map(mirror::commit_id).transpose()?,
        remote: machines.remote.max(people.remote),
        foreign: people.foreign.or(machines.foreign),
    })
}

/// One of the two references of an instance.
struct Reference {
    kind: Kind,
    name: String,
    /// Where the mirror remembers what the repository had.
    seen: String,
}

/// How a reference ended up.
struct Settled {
    tip: Option<Oid>,
    pushed: bool,
    remote: RemoteNotes,
    foreign: Option<String>,
}

impl Reference {
    fn new(instance: &InstanceName, kind: Kind) -> Self {
        let name = instance.reference(kind);
        let seen = Place::Seen.name(&name);
        Self { kind, name, seen }
    }

    /// Puts `wanted` into the mirror's own reference: from here on it is not lost.
    fn stage(&self, writer: &Writer<'_>, wanted: &Wanted) -> Result<(), Error> {
        let repository = writer.repository;
        let local = mirror::tip(repository, &self.name)?;
        let seen = mirror::tip(repository, &self.seen)?;
        let tip = local.or(seen);
        let Some(written) = writer.write(tip, wanted)? else { return Ok(()) };
        // What waits is folded into one commit, so that its parent always says what it stands on.
        let waiting = local.filter(|local| Some(*local) != seen);
        let parent = match waiting {
            Some(waiting) => parent(repository, waiting)?,
            None => tip,
        };
        self.set(repository, &self.name, Some(writer.commit(&written, parent)?))
    }

    /// Pushes what waits until the repository has it.
    fn settle(
        &self,
        writer: &Writer<'_>,
        source: &Local,
        backoff: &Backoff,
        budget: &Budget,
    ) -> Result<Settled, Error> {
        let mut settled =
            Settled { tip: None, pushed: false, remote: RemoteNotes::Unchanged, foreign: None };
        let mut round = 0;
        loop {
            budget.check()?;
            let error = match self.round(writer, source, &mut settled, budget) {
                Ok(()) => return Ok(settled),
                Err(error) => error,
            };
            let contended =
                matches!(&error, Error::Refused { refused: Refused::NotFastForward { .. }, .. });
            round += 1;
            if !contended || round >= backoff.attempts {
                return Err(error);
            }
            thread::sleep(backoff.pause(round - 1).min(budget.left()));
        }
    }

    /// One look at the repository, and one push when something waits.
    fn round(
        &self,
        writer: &Writer<'_>,
        source: &Local,
        settled: &mut Settled,
        budget: &Budget,
    ) -> Result<(), Error> {
        let repository = writer.repository;
        let remote = source.listing(&[&self.name])?.remove(&self.name);
        let seen = mirror::tip(repository, &self.seen)?;
        if let Some(tip) = remote.filter(|tip| Some(*tip) != seen) {
            mirror::copy_in(repository, source, (&self.name, tip), budget)?;
            settled.foreign = writer.foreign(tip)?.or(settled.foreign.take());
        }
        settled.remote = settled.remote.max(what_happened(repository, seen, remote)?);
        let local = self.rebase(writer, seen, remote)?;
        self.set(repository, &self.name, local)?;
        self.set(repository, &self.seen, remote)?;
        if let Some(after) = local.filter(|local| Some(*local) != remote) {
            source
                .push(repository, &Push { reference: &self.name, before: remote, after, budget })?;
            settled.pushed = true;
            self.set(repository, &self.seen, local)?;
        }
        settled.tip = local;
        Ok(())
    }

    /// Our reference on top of what the repository has: equal to it when nothing waits.
    fn rebase(
        &self,
        writer: &Writer<'_>,
        seen: Option<Oid>,
        remote: Option<Oid>,
    ) -> Result<Option<Oid>, Error> {
        let repository = writer.repository;
        let Some(local) = mirror::tip(repository, &self.name)? else { return Ok(remote) };
        if Some(local) == seen || Some(local) == remote {
            return Ok(remote);
        }
        if let Some(remote) = remote
            && descends(repository, remote, local)?
        {
            return Ok(Some(remote));
        }
        let base = parent(repository, local)?;
        if base == remote {
            return Ok(Some(local));
        }
        let waiting = waiting(writer, self.kind, base, local)?;
        match writer.write(remote, &waiting)? {
            Some(written) => Ok(Some(writer.commit(&written, remote)?)),
            None => Ok(remote),
        }
    }

    fn set(&self, repository: &Repository, name: &str, to: Option<Oid>) -> Result<(), Error> {
        let damaged = |source| mirror_damaged(repository, source);
        if mirror::tip(repository, name)? == to {
            return Ok(());
        }
        match to {
            Some(to) => repository.reference(name, to, true, "").map(drop).map_err(damaged),
            None => repository
                .find_reference(name)
                .and_then(|mut reference| reference.delete())
                .map_err(damaged),
        }
    }
}

/// What our commit `local` added to `base`.
fn waiting(
    writer: &Writer<'_>,
    kind: Kind,
    base: Option<Oid>,
    local: Oid,
) -> Result<Wanted, Error> {
    let before = base.map(|base| writer.tree(base)).transpose()?;
    let after = writer.tree(local)?;
    let mut wanted = Wanted::new();
    for commit in fanout::changed(writer.repository, before.as_ref(), &after)? {
        let old = writer.note(before.as_ref(), &commit)?;
        let new = writer.note(Some(&after), &commit)?;
        if new == old || new.is_empty() {
            continue;
        }
        let content = match kind {
            Kind::People => Content::Text(text::ours(&new).to_owned()),
            Kind::Machines => Content::Lines(text::added(&old, &new)),
        };
        wanted.insert(commit, content);
    }
    Ok(wanted)
}

fn what_happened(
    repository: &Repository,
    seen: Option<Oid>,
    remote: Option<Oid>,
) -> Result<RemoteNotes, Error> {
    Ok(match (seen, remote) {
        (None, _) => RemoteNotes::New,
        (Some(_), None) => RemoteNotes::Missing,
        (Some(seen), Some(remote)) if seen == remote => RemoteNotes::Unchanged,
        (Some(seen), Some(remote)) if descends(repository, remote, seen)? => RemoteNotes::Advanced,
        (Some(_), Some(_)) => RemoteNotes::Rewritten,
    })
}

fn descends(repository: &Repository, later: Oid, earlier: Oid) -> Result<bool, Error> {
    repository.graph_descendant_of(later, earlier).map_err(|e| mirror_damaged(repository, e))
}

fn parent(repository: &Repository, commit: Oid) -> Result<Option<Oid>, Error> {
    let commit = repository.find_commit(commit).map_err(|e| mirror_damaged(repository, e))?;
    Ok(commit.parent_id(0).ok())
}
