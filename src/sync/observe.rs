//! Reads the repository: its head, the commits whose results are not settled, what they say.
//!
//! An unchanged repository costs one listing. Databases are read in `observe/databases.rs`. Has no
//! lasting effect: whatever is remembered can be lost.

pub mod databases;
pub mod memory;
pub mod servers;

use std::sync::Arc;
use std::time::Instant;

use super::Context;
use super::desired::{Desired, Scope, Tree};
use super::source::{self, Commit, Source, Stance};
use crate::api::ConfigRepository;
use crate::api::names::{CommitId, RepositoryRef, annotations};
use crate::git::{self, InstanceName, Relation, SourceUrl};

pub use databases::live;

/// The repository at one look, and the way back to it.
pub struct Look {
    /// What is known of it.
    pub source: Source,
    /// What the head says.
    pub desired: Arc<Desired>,
    /// The commit that stands for all before it.
    pub first: CommitId,
    /// The git repository.
    pub git: git::Source,
    /// Whose notes are written.
    pub instance: InstanceName,
}

/// Most unsettled commits that are looked at one by one; older ones get no note of their own. Each
/// takes a walk through its tree.
const LINE: usize = 100;

/// Looks at the repository.
///
/// # Errors
/// When it cannot be reached, or the head or `spec.path` is not there.
pub async fn source(repository: &ConfigRepository, cx: &Context) -> Result<Look, git::Error> {
    let spec = &repository.spec;
    let instance = InstanceName::parse(&spec.notes.instance)?;
    let url = SourceUrl::parse(&spec.url)?;
    let git = cx.mirrors.get(&url)?.with_timeout(spec.timeout.0);
    let began = Instant::now();
    let head = git.head(&spec.reference).await;
    cx.metrics.git("look", head.is_ok(), began.elapsed());
    let head = head?;
    let reader = Reader { repository, cx, git: &git, id: repository.repository() };
    let desired = reader.desired(&head, None).await?;
    let mut look = Look {
        source: reader.source(&head),
        desired,
        first: head.clone(),
        git: git.clone(),
        instance,
    };
    let status = repository.status.clone().unwrap_or_default();
    let known = |id: &Option<String>| id.as_deref().and_then(|id| CommitId::parse(id).ok());
    let accepted = known(&status.accepted);
    let history = git.history(accepted.as_ref(), &head).await?;
    let acknowledged = look.source.is_acknowledged();
    if accepted.is_some() && history.relation == Relation::Rewritten {
        look.source.rewritten = accepted;
        if acknowledged {
            // The head begins a new story.
            look.source.first_sight = true;
            look.source.line = source::line(None, vec![reader.commit(&head, None).await?]);
        }
        return Ok(look);
    }
    let first = known(&status.first).filter(|_| accepted.is_some());
    look.first = first.unwrap_or_else(|| head.clone());
    reader.line(&mut look, known(&status.noted)).await?;
    Ok(look)
}

/// Reads commits of one repository.
struct Reader<'a> {
    repository: &'a ConfigRepository,
    cx: &'a Context,
    git: &'a git::Source,
    id: RepositoryRef,
}

impl Reader<'_> {
    fn source(&self, head: &CommitId) -> Source {
        let spec = &self.repository.spec;
        Source {
            repository: self.id.clone(),
            uid: self.repository.uid().to_owned(),
            stance: Stance {
                suspend: spec.suspend,
                plan_only: spec.plan_only,
                drift: spec.drift,
                acknowledged: self
                    .repository
                    .annotation(annotations::ACKNOWLEDGE)
                    .map(str::to_owned),
            },
            head: head.clone(),
            line: Vec::new(),
            first_sight: false,
            rewritten: None,
        }
    }

    /// The commits after the newest settled one, or from the first that was ever seen.
    async fn line(&self, look: &mut Look, noted: Option<CommitId>) -> Result<(), git::Error> {
        let head = look.source.head.clone();
        let begin = noted.clone().unwrap_or_else(|| look.first.clone());
        let history = self.git.history(Some(&begin), &head).await?;
        let mut ids: Vec<CommitId> = history.commits.into_iter().map(|c| c.id).collect();
        let mut before = noted.clone();
        if noted.is_none() {
            look.source.first_sight = true;
            ids.insert(0, begin);
        }
        if history.relation == Relation::Rewritten {
            // What was settled is not behind this head: the head begins a new story.
            (look.source.first_sight, before, ids) = (true, None, vec![head]);
        }
        if let Some(cut) = ids.len().checked_sub(LINE).filter(|cut| *cut > 0) {
            before = Some(ids[cut - 1].clone());
            ids.drain(..cut);
        }
        let before = match &before {
            Some(id) => Some(self.desired(id, Some(&look.desired)).await?),
            None => None,
        };
        let mut commits = Vec::with_capacity(ids.len());
        for id in &ids {
            commits.push(self.commit(id, Some(&look.desired)).await?);
        }
        look.source.line = source::line(before, commits);
        self.forget_others(&ids, noted.as_ref(), &look.source.head);
        Ok(())
    }

    async fn commit(
        &self,
        id: &CommitId,
        like: Option<&Arc<Desired>>,
    ) -> Result<Commit, git::Error> {
        let desired = self.desired(id, like).await?;
        Ok(Commit { id: id.clone(), subject: String::new(), desired })
    }

    /// What a commit says. `like`: another commit with mostly the same files, when this is not the
    /// head.
    async fn desired(
        &self,
        id: &CommitId,
        like: Option<&Arc<Desired>>,
    ) -> Result<Arc<Desired>, git::Error> {
        let scope = Scope {
            namespace: self.id.namespace.clone(),
            folder: self.repository.spec.path.clone(),
        };
        let (known, newest) = self.cx.memory.of(&self.id, |remembered| {
            if remembered.scope.as_ref() != Some(&scope) {
                remembered.desired.clear();
                remembered.scope = Some(scope.clone());
            }
            (remembered.desired.get(id).cloned(), remembered.desired.values().next_back().cloned())
        });
        if let Some(known) = known {
            return Ok(known);
        }
        let tree = match self.git.files(id, &scope.folder).await {
            Ok(files) => tree(&files),
            // Older commits may have had no such folder, or be gone from the repository.
            Err(git::Error::NoSuchPath { .. } | git::Error::UnknownCommit { .. })
                if like.is_some() =>
            {
                Tree { complete: true, ..Tree::default() }
            }
            Err(error) => return Err(error),
        };
        let like = like.cloned().or(newest).unwrap_or_default();
        let desired = Arc::new(Desired::parse_after(&tree, &scope, &like));
        self.cx.memory.of(&self.id, |remembered| {
            remembered.desired.insert(id.clone(), desired.clone());
        });
        Ok(desired)
    }

    /// Keeps in memory what the next pass will ask for, and no more.
    fn forget_others(&self, ids: &[CommitId], noted: Option<&CommitId>, head: &CommitId) {
        self.cx.memory.of(&self.id, |remembered| {
            let needed = |id: &CommitId| ids.contains(id) || Some(id) == noted || id == head;
            remembered.desired.retain(|id, _| needed(id));
            remembered.notes.retain(|id, _| needed(id));
        });
    }
}

/// The files as the parser takes them.
pub fn tree(files: &git::Files) -> Tree {
    Tree {
        files: files.entries.iter().map(|(path, f)| (path.clone(), f.bytes.clone())).collect(),
        unreadable: files
            .problems
            .iter()
            .map(|problem| (problem.path.clone(), problem.reason.to_string()))
            .collect(),
        complete: files.complete,
    }
}
