//! What a commit says: one target for each database that a document names, and all problems.
//!
//! A bad file never hides a good one; a bad document never hides another. A database that two
//! documents name is refused in both. Leaves the YAML to `desired/yaml.rs`, the documents to
//! `desired/documents.rs`, and what depends on servers or clocks to `drift.rs` and `plan.rs`. Never
//! reads anything but the files that it is given.

pub mod documents;
mod parameters;
pub mod policy;
mod reader;
pub mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use documents::{Document, Place};
pub use policy::Policy;

use crate::api::names::DatabaseRef;
use crate::sync::problem::{Position, Problem};

/// The files of one commit below `spec.path`, as far as they matter here.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// Path below the folder → contents.
    pub files: BTreeMap<String, Arc<[u8]>>,
    /// Path below the folder → why it is not read.
    pub unreadable: BTreeMap<String, String>,
    /// Whether everything was seen; otherwise absence proves nothing.
    pub complete: bool,
}

/// Whose documents these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Namespace of databases that documents name without one: the repository's own.
    pub namespace: String,
    /// `spec.path`, so that people read paths from the top of the repository.
    pub folder: String,
}

/// What a commit says.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// What is desired of each database that a document names.
    pub targets: BTreeMap<DatabaseRef, Target>,
    /// When and how many at once.
    pub policy: Arc<Policy>,
    /// Why the policy cannot be used; when not empty, nothing may be sent.
    pub policy_refused: Vec<Problem>,
    /// All problems and warnings, by file and place.
    pub problems: Vec<Problem>,
    /// Files in which a document may stand that nobody can read: a database without a document may
    /// be in one of them. With the first reason.
    pub unreadable: BTreeMap<String, Problem>,
    /// Whether every file was seen.
    pub complete: bool,
    /// What was read of each file, to be taken over by the next commit.
    read: BTreeMap<String, Arc<FileRead>>,
}

/// What is desired of one database.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// A document without fault.
    Wanted(Arc<Document>),
    /// Documents with faults: nothing is sent, and drift is not corrected.
    Refused {
        /// Where the documents stand.
        places: Vec<Place>,
        /// What is wrong.
        problems: Vec<Problem>,
    },
}

/// What was read of one file.
#[derive(Debug)]
struct FileRead {
    /// The bytes that this was read from.
    bytes: Arc<[u8]>,
    /// The fragments that were looked for, and what was found.
    fragments: Vec<(String, Option<Arc<[u8]>>)>,
    /// What documents left out.
    defaults: policy::Defaults,
    documents: Vec<documents::Read>,
    /// Problems that belong to no document.
    problems: Vec<Problem>,
}

impl Desired {
    /// Reads everything.
    pub fn parse(tree: &Tree, scope: &Scope) -> Self {
        Self::parse_after(tree, scope, &Self::default())
    }

    /// Reads everything that differs from what `before` was read from.
    pub fn parse_after(tree: &Tree, scope: &Scope, before: &Self) -> Self {
        let mut desired = Self { complete: tree.complete, ..Self::default() };
        desired.take_policy(tree, scope);
        for (path, reason) in &tree.unreadable {
            let problem = Problem::refused(&scope.path(path), None, reason.clone());
            desired.unreadable.insert(path.clone(), problem.clone());
            desired.problems.push(problem);
        }
        let documents = |path: &str| {
            let lower = path.to_ascii_lowercase();
            (lower.ends_with(".yaml") || lower.ends_with(".yml")) && path != policy::FILE
        };
        for (path, bytes) in tree.files.iter().filter(|(path, _)| documents(path)) {
            let known = before.read.get(path).filter(|known| {
                let same = |(name, found): &(String, Option<Arc<[u8]>>)| {
                    tree.files.get(&sibling(path, name)) == found.as_ref()
                };
                same_bytes(&known.bytes, bytes)
                    && known.defaults == desired.policy.defaults
                    && known.fragments.iter().all(same)
            });
            let read = match known {
                Some(known) => known.clone(),
                None => Arc::new(read_file(path, bytes, tree, scope, &desired.policy.defaults)),
            };
            desired.read.insert(path.clone(), read);
        }
        desired.assemble();
        desired
    }

    fn take_policy(&mut self, tree: &Tree, scope: &Scope) {
        let file: Arc<str> = scope.path(policy::FILE).into();
        let mut refuse = |problem: Problem| self.policy_refused.push(problem);
        if let Some(reason) = tree.unreadable.get(policy::FILE) {
            refuse(Problem::refused(&file, None, reason.clone()));
        }
        let Some(bytes) = tree.files.get(policy::FILE) else { return };
        let (nodes, problems) = match text(&file, bytes) {
            Ok(text) => yaml::documents(&file, text),
            Err(problem) => (vec![], vec![*problem]),
        };
        let mut all = problems;
        for (number, node) in nodes.iter().enumerate() {
            match documents::is_ours(&file, node, policy::POLICY_KIND) {
                Ok(true) if number == 0 => {
                    let (policy, problems) = policy::read(&file, node);
                    self.policy = Arc::new(policy);
                    all.extend(problems);
                }
                Ok(_) => {
                    let message = "this file holds one ConfigPolicy and nothing else";
                    let problem = Problem::refused(&file, node.at, message);
                    all.push(problem.instead("move this document to another file"));
                }
                Err(problem) => all.push(*problem),
            }
        }
        self.problems.extend(all.iter().cloned());
        self.policy_refused.extend(all.into_iter().filter(Problem::is_refusal));
    }

    /// Puts what was read of each file together: by database.
    fn assemble(&mut self) {
        let mut by_database: BTreeMap<DatabaseRef, Vec<&documents::Read>> = BTreeMap::new();
        for (path, file) in &self.read {
            self.problems.extend(file.problems.iter().cloned());
            if let Some(first) = file.problems.iter().find(|problem| problem.is_refusal()) {
                self.unreadable.insert(path.clone(), first.clone());
            }
            for read in &file.documents {
                self.problems.extend(read.problems.iter().cloned());
                match &read.database {
                    Some(database) => by_database.entry(database.clone()).or_default().push(read),
                    None => {
                        let first = read.problems.iter().find(|problem| problem.is_refusal());
                        self.unreadable.extend(first.map(|p| (path.clone(), p.clone())));
                    }
                }
            }
        }
        for (database, reads) in by_database {
            let target = match reads[..] {
                [documents::Read { document: Some(document), .. }] => {
                    Target::Wanted(document.clone())
                }
                [one] => Target::Refused {
                    places: vec![one.place.clone()],
                    problems: one.problems.clone(),
                },
                _ => {
                    let doubles = doubles(&database, &reads);
                    self.problems.extend(doubles.iter().cloned());
                    let own = reads.iter().flat_map(|read| read.problems.iter().cloned());
                    Target::Refused {
                        places: reads.iter().map(|read| read.place.clone()).collect(),
                        problems: doubles.into_iter().chain(own).collect(),
                    }
                }
            };
            self.targets.insert(database, target);
        }
        self.problems.sort();
        self.problems.dedup();
    }

    /// The databases that documents name.
    pub fn databases(&self) -> BTreeSet<DatabaseRef> {
        self.targets.keys().cloned().collect()
    }

    /// A database's document, if it has one without fault.
    pub fn document(&self, database: &DatabaseRef) -> Option<&Arc<Document>> {
        match self.targets.get(database)? {
            Target::Wanted(document) => Some(document),
            Target::Refused { .. } => None,
        }
    }

    /// What stands for a database in this commit, for comparison with another commit: the digest
    /// of its document, or what is wrong with it. `None` when no document names it.
    pub fn fingerprint(&self, database: &DatabaseRef) -> Option<String> {
        Some(match self.targets.get(database)? {
            Target::Wanted(document) => document.digest.clone(),
            Target::Refused { problems, .. } => {
                let refusals = problems.iter().filter(|problem| problem.is_refusal());
                refusals.map(|p| format!("{}\n", p.as_compiler_line())).collect()
            }
        })
    }
}

impl Scope {
    /// A path below the folder as people read it, from the top of the repository.
    pub fn path(&self, path: &str) -> String {
        let parts = self.folder.split('/').filter(|part| !part.is_empty() && *part != ".");
        parts.chain([path]).collect::<Vec<_>>().join("/")
    }
}

impl Target {
    /// The file that people look at first.
    pub fn file(&self) -> Option<&str> {
        match self {
            Self::Wanted(document) => Some(&document.place.file),
            Self::Refused { places, .. } => places.first().map(|place| &*place.file),
        }
    }
}

fn read_file(
    path: &str,
    bytes: &Arc<[u8]>,
    tree: &Tree,
    scope: &Scope,
    defaults: &policy::Defaults,
) -> FileRead {
    let file: Arc<str> = scope.path(path).into();
    let mut read = FileRead {
        bytes: bytes.clone(),
        fragments: Vec::new(),
        defaults: defaults.clone(),
        documents: Vec::new(),
        problems: Vec::new(),
    };
    let nodes = match text(&file, bytes) {
        Ok(text) => {
            let (nodes, problems) = yaml::documents(&file, text);
            read.problems = problems;
            nodes
        }
        Err(problem) => {
            read.problems.push(*problem);
            return read;
        }
    };
    let fragment = |name: &str| {
        let beside = sibling(path, name);
        let bytes = tree.files.get(&beside)?.clone();
        Some((Arc::from(scope.path(&beside)), bytes))
    };
    for node in &nodes {
        match documents::is_ours(&file, node, documents::DOCUMENT_KIND) {
            Ok(true) => {}
            Ok(false) => continue,
            Err(problem) => {
                read.problems.push(*problem);
                continue;
            }
        }
        if let Some(name) = node.entry("spec").and_then(|spec| spec.node.text("configFile")) {
            let found = tree.files.get(&sibling(path, name)).cloned();
            read.fragments.push((name.to_owned(), found));
        }
        let around = documents::Surroundings {
            file: &file,
            namespace: &scope.namespace,
            defaults,
            fragment: &fragment,
        };
        read.documents.push(documents::read(node, &around));
    }
    read
}

/// The text of a file, or where it stops being one.
fn text<'a>(file: &str, bytes: &'a [u8]) -> Result<&'a str, Box<Problem>> {
    let place = |good: &[u8]| {
        let good = String::from_utf8_lossy(good);
        let line = good.matches('\n').count() + 1;
        let column = good.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Position::new(u32::try_from(line).unwrap_or(0), u32::try_from(column).unwrap_or(0))
    };
    if let Some(nul) = bytes.iter().position(|byte| *byte == 0) {
        let problem = Problem::refused(file, place(&bytes[..nul]), "a NUL byte");
        return Err(Box::new(problem.instead("remove it; the file may be no text at all")));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let problem = Problem::refused(file, place(&bytes[..error.valid_up_to()]), "not UTF-8");
        Box::new(problem.instead("save the file as UTF-8"))
    })
}

/// A file beside another.
fn sibling(path: &str, name: &str) -> String {
    match path.rsplit_once('/') {
        Some((folder, _)) => format!("{folder}/{name}"),
        None => name.to_owned(),
    }
}

fn same_bytes(a: &Arc<[u8]>, b: &Arc<[u8]>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

/// What is said about each of several documents of one database.
fn doubles(database: &DatabaseRef, reads: &[&documents::Read]) -> Vec<Problem> {
    let place = |read: &documents::Read| format!("{}:{}", read.place.file, read.place.at.line);
    let mut problems = Vec::new();
    for (number, read) in reads.iter().enumerate() {
        let others = reads.iter().enumerate().filter(|(other, _)| *other != number);
        let others: Vec<String> = others.map(|(_, other)| place(other)).collect();
        let message = format!("{database} has another document, at {}", others.join(", "));
        let problem = Problem::refused(&read.place.file, read.place.at, message);
        problems.push(problem.instead("keep one of them"));
    }
    problems
}

#[cfg(test)]
mod tests;
