//! The repository at one look: its head, the commits on the way there, and what each changed.
//!
//! A commit is answerable for a database when it is the newest on the way whose documents say
//! something else about it than the commit before. Leaves reading to `observe.rs`. Never looks at
//! dates: order is that of first parents.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::desired::Desired;
use super::problem::Problem;
use crate::api::config_repository::DriftPolicy;
use crate::api::names::{CommitId, DatabaseRef, RepositoryRef};

/// The repository at one look.
#[derive(Clone, Debug)]
pub struct Source {
    /// The `ConfigRepository`.
    pub repository: RepositoryRef,
    /// Its UID: the key of claims.
    pub uid: String,
    /// What its owner told us to do and not to do.
    pub stance: Stance,
    /// The commit that is desired.
    pub head: CommitId,
    /// The commits whose results are not settled yet, oldest first; the head is the last one,
    /// unless everything is settled.
    pub line: Vec<Step>,
    /// Nothing was ever accepted from this repository: the head stands for all before it.
    pub first_sight: bool,
    /// The accepted commit, when the head does not descend from it.
    pub rewritten: Option<CommitId>,
}

/// What the owner of a repository told us to do and not to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stance {
    /// Emit nothing.
    pub suspend: bool,
    /// Emit nothing, ever: plan and report.
    pub plan_only: bool,
    /// What is done about values that somebody else changed.
    pub drift: DriftPolicy,
    /// The commit up to which a rewritten or shrunken source is acknowledged.
    pub acknowledged: Option<String>,
}

/// A commit on the way to the head.
#[derive(Clone, Debug)]
pub struct Step {
    /// The commit.
    pub commit: CommitId,
    /// First line of its message.
    pub subject: String,
    /// Databases about which it says something else than the commit before.
    pub changed: BTreeSet<DatabaseRef>,
    /// Of these, the ones that no document names any more.
    pub dropped: BTreeSet<DatabaseRef>,
    /// Files that it made unreadable, or left unreadable in another way.
    pub broken: BTreeMap<String, Problem>,
    /// What it says.
    pub desired: Arc<Desired>,
}

/// A commit as git tells of it.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Its id.
    pub id: CommitId,
    /// First line of its message.
    pub subject: String,
    /// What it says.
    pub desired: Arc<Desired>,
}

/// What each of these commits changed, the first one against `before`; without one, everything
/// that it says is a change.
pub fn line(before: Option<Arc<Desired>>, commits: Vec<Commit>) -> Vec<Step> {
    let mut before = before.unwrap_or_default();
    let mut steps = Vec::with_capacity(commits.len());
    for Commit { id, subject, desired } in commits {
        let databases = before.targets.keys().chain(desired.targets.keys());
        let changed: BTreeSet<DatabaseRef> = databases
            .filter(|database| before.fingerprint(database) != desired.fingerprint(database))
            .cloned()
            .collect();
        let dropped = changed.iter().filter(|d| !desired.targets.contains_key(d)).cloned();
        let news = desired
            .unreadable
            .iter()
            .filter(|(file, problem)| before.unreadable.get(*file) != Some(problem));
        steps.push(Step {
            commit: id,
            subject,
            dropped: dropped.collect(),
            changed,
            broken: news.map(|(file, problem)| (file.clone(), problem.clone())).collect(),
            desired: desired.clone(),
        });
        before = desired;
    }
    steps
}

impl Source {
    /// The newest commit on the way that changed what is desired of a database.
    pub fn changed_by(&self, database: &DatabaseRef) -> Option<&CommitId> {
        let mut steps = self.line.iter().rev();
        steps.find(|step| step.changed.contains(database)).map(|step| &step.commit)
    }

    /// The newest commit after `commit` that changed what is desired of a database.
    pub fn overtaken_by(&self, commit: &CommitId, database: &DatabaseRef) -> Option<&CommitId> {
        let newest = self.changed_by(database)?;
        let position = |id: &CommitId| self.line.iter().position(|step| step.commit == *id);
        (position(newest) > position(commit)).then_some(newest)
    }

    /// Whether the owner acknowledged this head.
    pub fn is_acknowledged(&self) -> bool {
        self.stance.acknowledged.as_deref() == Some(self.head.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::desired::{Scope, Tree};

    fn commit(digit: char, files: &[(&str, &str)]) -> Commit {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().into()));
        let tree = Tree { files: files.collect(), unreadable: BTreeMap::new(), complete: true };
        let scope = Scope { namespace: "demo".into(), folder: ".".into() };
        Commit {
            id: CommitId::parse(&digit.to_string().repeat(40)).unwrap(),
            subject: String::new(),
            desired: Arc::new(Desired::parse(&tree, &scope)),
        }
    }

    fn document(database: &str, value: &str) -> String {
        format!(
            "apiVersion: pgitops.dev/v1alpha1\nkind: PostgresConfig\nmetadata: {{name: x}}\n\
             spec: {{databaseRef: {{name: {database}}}, parameters: {{work_mem: {value}}}}}\n"
        )
    }

    #[test]
    fn a_commit_answers_for_what_it_changed() {
        let (a, b) = (document("a", "1MB"), document("b", "1MB"));
        let (a2, broken) = (document("a", "2MB"), "a: [");
        let steps = line(
            None,
            vec![
                commit('1', &[("a.yaml", &a), ("b.yaml", &b)]),
                commit('2', &[("moved.yaml", &a), ("b.yaml", &b), ("README.yaml", "x: 1")]),
                commit('3', &[("moved.yaml", &a2), ("b.yaml", broken)]),
                commit('4', &[("moved.yaml", &a2), ("b.yaml", broken), ("c.txt", "")]),
            ],
        );
        let changed: Vec<String> = steps
            .iter()
            .map(|step| {
                let names: Vec<&str> = step.changed.iter().map(|d| d.name.as_str()).collect();
                format!("{} -{} !{}", names.join(" "), step.dropped.len(), step.broken.len())
            })
            .collect();
        assert_eq!(changed, ["a b -0 !0", " -0 !0", "a b -1 !1", " -0 !0"]);
    }
}
