//! Copies the objects of a commit from one repository of this machine to another.
//!
//! libgit2's own local transport fetches every reference whether asked or not and pushes without
//! a compare-and-swap, so both directions use this instead: it collects what the target lacks by
//! comparing trees with the parents', children before parents, so that an interrupted copy never
//! leaves an object whose parts are missing. Never moves a reference.

use std::collections::HashSet;
use std::io::Write;

use git2::{ObjectType, Oid, Repository, Sort};

use super::Error;
use super::budget::Budget;

/// Up to this many objects are written one by one, more as a pack: the same trade as git's
/// `fetch.unpackLimit`, higher because libgit2 searches packs one after another.
const LOOSE_LIMIT: usize = 1_000;
/// Deepest folder that is followed. Deeper trees exist only to break programs.
const DEPTH_LIMIT: usize = 512;
/// Most objects of one copy: some gigabytes of work, and 200 MB of ids in memory.
const OBJECT_LIMIT: usize = 5_000_000;

/// What to copy and from where to where.
pub(crate) struct Copy<'a> {
    pub(crate) from: &'a Repository,
    pub(crate) to: &'a Repository,
    pub(crate) budget: &'a Budget,
    /// Blobs above this size stay behind; they are named in the answer.
    pub(crate) blob_limit: Option<usize>,
}

/// Which side of a copy failed.
pub(crate) enum Fault {
    /// Reading the repository that is copied from.
    Read(git2::Error),
    /// Writing to the repository that is copied to.
    Write(git2::Error),
    /// The source breaks a limit.
    TooLarge(String),
    /// The time is over.
    Stopped(Error),
}

/// Blobs that stayed behind, with their sizes.
pub(crate) type LeftBehind = Vec<(Oid, usize)>;

impl Copy<'_> {
    /// Copies `tip` and everything it needs, except what `known` commits already brought.
    pub(crate) fn commits(&self, tip: Oid, known: &[Oid]) -> Result<LeftBehind, Fault> {
        let mut wanted = Wanted { copy: self, seen: HashSet::new(), order: vec![], behind: vec![] };
        wanted.history(tip, known)?;
        let Wanted { order, behind, .. } = wanted;
        if order.len() <= LOOSE_LIMIT { self.loose(&order) } else { self.pack(&order) }?;
        Ok(behind)
    }

    fn loose(&self, order: &[Oid]) -> Result<(), Fault> {
        let from = self.from.odb().map_err(Fault::Read)?;
        let to = self.to.odb().map_err(Fault::Write)?;
        for oid in order {
            self.budget.check().map_err(Fault::Stopped)?;
            let object = from.read(*oid).map_err(Fault::Read)?;
            to.write(object.kind(), object.data()).map_err(Fault::Write)?;
        }
        Ok(())
    }

    fn pack(&self, order: &[Oid]) -> Result<(), Fault> {
        let mut builder = self.from.packbuilder().map_err(Fault::Read)?;
        // One thread: a first fetch must not take every core from the reconcilers.
        builder.set_threads(1);
        for oid in order {
            self.budget.check().map_err(Fault::Stopped)?;
            builder.insert_object(*oid, None).map_err(Fault::Read)?;
        }
        let odb = self.to.odb().map_err(Fault::Write)?;
        let mut writer = odb.packwriter().map_err(Fault::Write)?;
        let mut stopped = None;
        let built = builder.foreach(|chunk| {
            stopped = match self.budget.check() {
                Err(error) => Some(Fault::Stopped(error)),
                Ok(()) => writer.write_all(chunk).err().map(|error| {
                    Fault::Write(git2::Error::new(
                        git2::ErrorCode::GenericError,
                        git2::ErrorClass::Os,
                        error.to_string(),
                    ))
                }),
            };
            stopped.is_none()
        });
        if let Some(fault) = stopped {
            return Err(fault);
        }
        built.map_err(Fault::Read)?;
        writer.commit().map_err(Fault::Write)?;
        Ok(())
    }
}

/// The objects to copy, children before parents.
struct Wanted<'a> {
    copy: &'a Copy<'a>,
    seen: HashSet<Oid>,
    order: Vec<Oid>,
    behind: LeftBehind,
}

enum Visit {
    Enter { tree: Oid, base: Option<Oid>, depth: usize },
    Leave(Oid),
}

impl Wanted<'_> {
    fn history(&mut self, tip: Oid, known: &[Oid]) -> Result<(), Fault> {
        let from = self.copy.from;
        let mut walk = from.revwalk().map_err(Fault::Read)?;
        walk.set_sorting(Sort::TOPOLOGICAL | Sort::REVERSE).map_err(Fault::Read)?;
        walk.push(tip).map_err(Fault::Read)?;
        for oid in known.iter().filter(|oid| from.find_commit(**oid).is_ok()) {
            walk.hide(*oid).map_err(Fault::Read)?;
        }
        for oid in walk {
            let oid = oid.map_err(Fault::Read)?;
            let commit = from.find_commit(oid).map_err(Fault::Read)?;
            let base = commit.parent(0).ok().map(|parent| parent.tree_id());
            self.tree(commit.tree_id(), base)?;
            self.push(oid)?;
        }
        Ok(())
    }

    /// Everything below `tree` that `base`, the same folder one commit earlier, does not have.
    fn tree(&mut self, tree: Oid, base: Option<Oid>) -> Result<(), Fault> {
        let mut stack = vec![Visit::Enter { tree, base, depth: 0 }];
        while let Some(visit) = stack.pop() {
            let (tree, base, depth) = match visit {
                Visit::Leave(tree) => {
                    self.push(tree)?;
                    continue;
                }
                Visit::Enter { tree, base, depth } => (tree, base, depth),
            };
            if Some(tree) == base || !self.seen.insert(tree) {
                continue;
            }
            if depth > DEPTH_LIMIT {
                return Err(Fault::TooLarge(format!("folders deeper than {DEPTH_LIMIT}")));
            }
            stack.push(Visit::Leave(tree));
            self.folder(tree, base, depth, &mut stack)?;
        }
        Ok(())
    }

    fn folder(
        &mut self,
        tree: Oid,
        base: Option<Oid>,
        depth: usize,
        stack: &mut Vec<Visit>,
    ) -> Result<(), Fault> {
        let from = self.copy.from;
        let tree = from.find_tree(tree).map_err(Fault::Read)?;
        let base = base.and_then(|oid| from.find_tree(oid).ok());
        for entry in tree.iter() {
            let before = base.as_ref().and_then(|base| base.get_name_bytes(entry.name_bytes()));
            let before = before.filter(|old| old.kind() == entry.kind()).map(|old| old.id());
            match entry.kind() {
                Some(ObjectType::Tree) => {
                    stack.push(Visit::Enter { tree: entry.id(), base: before, depth: depth + 1 });
                }
                // A submodule's commit lives in another repository.
                Some(ObjectType::Commit) => {}
                _ if before == Some(entry.id()) || !self.seen.insert(entry.id()) => {}
                _ => self.blob(entry.id())?,
            }
        }
        Ok(())
    }

    fn blob(&mut self, oid: Oid) -> Result<(), Fault> {
        let Some(limit) = self.copy.blob_limit else { return self.push(oid) };
        let odb = self.copy.from.odb().map_err(Fault::Read)?;
        let (size, _) = odb.read_header(oid).map_err(Fault::Read)?;
        if size > limit {
            self.behind.push((oid, size));
            return Ok(());
        }
        self.push(oid)
    }

    fn push(&mut self, oid: Oid) -> Result<(), Fault> {
        self.copy.budget.check().map_err(Fault::Stopped)?;
        if self.order.len() >= OBJECT_LIMIT {
            return Err(Fault::TooLarge(format!("more than {OBJECT_LIMIT} objects")));
        }
        self.order.push(oid);
        Ok(())
    }
}
