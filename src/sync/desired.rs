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
        /// What is wrong, whatever the server's version.
        problems: Vec<Problem>,
        /// What could be read of them all the same, to be checked against that version.
        drafts: Vec<Arc<Document>>,
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
                    drafts: one.draft.iter().cloned().collect(),
                },
                _ => {
                    let doubles = doubles(&database, &reads);
                    self.problems.extend(doubles.iter().cloned());
                    let own = reads.iter().flat_map(|read| read.problems.iter().cloned());
                    Target::Refused {
                        places: reads.iter().map(|read| read.place.clone()).collect(),
                        problems: doubles.into_iter().chain(own).collect(),
                        drafts: reads.iter().filter_map(|read| read.draft_or_document()).collect(),
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
mod tests {
    use super::*;
    use crate::api::postgres_config::PostgresConfig;
    use proptest::prelude::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let files = files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().into()));
        Tree { files: files.collect(), unreadable: BTreeMap::new(), complete: true }
    }

    fn scope() -> Scope {
        Scope { namespace: "demo".into(), folder: ".".into() }
    }

    /// A document whose parameters begin on line 8.
    fn document(spec: &str) -> String {
        format!(
            "apiVersion: pgitops.dev/v1alpha1\nkind: PostgresConfig\nmetadata: {{name: orders}}\n\
             spec:\n  databaseRef: {{name: orders}}\n{spec}"
        )
    }

    /// Checks what is wrong with one document (file `o.yaml`, beside it `o.conf`).
    fn check(spec: &str, expected: &[&str]) {
        check_with(spec, "", expected);
    }

    fn check_with(spec: &str, fragment: &str, expected: &[&str]) {
        let text = document(spec);
        let desired = Desired::parse(&tree(&[("o.yaml", &text), ("o.conf", fragment)]), &scope());
        let problems: Vec<String> =
            desired.problems.iter().map(Problem::as_compiler_line).collect();
        assert_eq!(problems, expected, "{text}");
        let refused = desired.problems.iter().any(Problem::is_refusal);
        assert_eq!(desired.document(&DatabaseRef::new("demo", "orders")).is_none(), refused);
    }

    #[test]
    fn what_is_wrong_has_a_place_and_a_cure() {
        check("  parameters: {work_mem: 16MB}\n", &[]);
        check("", &[]);
        check(
            "  parametres: {work_mem: 16MB}\n",
            &["o.yaml:6:3: spec has no field \"parametres\"; write parameters"],
        );
        check(
            "  mode: merge\n",
            &["o.yaml:6:9: mode: \"merge\" is not valid; write Merge or Replace"],
        );
        check(
            "  restart: maybe\n",
            &["o.yaml:6:12: restart is not valid; write auto, true or false"],
        );
        check(
            "  timeout: 5\n",
            &["o.yaml:6:12: timeout: \"5\" is not valid; write a length such as 90s or 5m"],
        );
        check("  wave: high\n", &["o.yaml:6:9: wave: \"high\" is not valid; write a whole number"]);
        check(
            "  parameters:\n",
            &["o.yaml:6:13: parameters is nothing; write a mapping, {} for none"],
        );
        check(
            "  mode: Replace\n",
            &["o.yaml:5:3: mode Replace without any parameter would drop all configuration; \
               name the parameters that are to stay"],
        );
    }

    #[test]
    fn parameters_that_no_server_may_have_are_refused() {
        check(
            "  parameters:\n    port: 5433\n    work_mme: 1MB\n    a-b: 1\n",
            &[
                "o.yaml:7:11: port: belongs to the operator, which sets it itself; remove it",
                "o.yaml:8:15: work_mme: PostgreSQL 18 has no such parameter; write work_mem",
                "o.yaml:9:5: a-b: not a parameter's name; it has letters, digits and _, and begins \
                 with no digit; write a_b",
            ],
        );
        check(
            "  parameters: {work_mem: 1MB, Work_Mem: 2MB}\n",
            &[
                "o.yaml:6:31: Work_Mem: stands here twice, first on line 6; keep one; case does not count",
            ],
        );
        check(
            "  parameters:\n    work_mem: [1MB]\n    jit: ~\n    fsync: \"a\\0b\"\n",
            &[
                "o.yaml:7:15: work_mem: the value is a list; write a single value, or leave the \
                 parameter out",
                "o.yaml:8:10: jit: the value is nothing; write a single value, or leave the parameter out",
                "o.yaml:9:12: fsync: a NUL byte, at which the server would cut the value; remove it",
            ],
        );
        check(
            "  parameters: {jit: off}\n",
            &[
                "o.yaml:6:21: warning: jit: unquoted off means something else to other readers of YAML; \
               write \"off\"",
            ],
        );
    }

    #[test]
    fn allowances_need_a_reason_and_a_date() {
        check(
            "  parameters: {fsync: \"off\"}\n  allowUnsafe: {fsync: {reason: load, until: 2026-12-01}}\n",
            &[],
        );
        check(
            "  allowUnsafe:\n    work_mem: {reason: x}\n    fsync: {until: soon, reason: y}\n    autovacuum: {}\n",
            &[
                "o.yaml:7:5: \"work_mem\" needs no allowUnsafe; remove it",
                "o.yaml:8:5: warning: allowUnsafe names fsync, which the document does not set; remove it",
                "o.yaml:8:20: allowUnsafe.fsync.until is not a date; write the last day as 2026-12-31",
                "o.yaml:9:5: warning: allowUnsafe names autovacuum, which the document does not set; \
                 remove it",
                "o.yaml:9:5: allowUnsafe.autovacuum has no reason; \
                 add reason: with a sentence for whoever reads the log",
            ],
        );
    }

    #[test]
    fn fragments_stand_beside_the_document_and_lose_against_it() {
        let spec = "  configFile: o.conf\n  parameters: {work_mem: 2MB}\n";
        check_with(spec, "work_mem = 1MB\njit = off\n", &[]);
        let text = document(spec);
        let files = tree(&[("a/o.yaml", &text), ("a/o.conf", "work_mem = 1MB\njit = off\n")]);
        let desired = Desired::parse(&files, &Scope { folder: "./top".into(), ..scope() });
        let read = desired.document(&DatabaseRef::new("demo", "orders")).unwrap();
        assert_eq!(read.settings.value_of("work_mem"), Some("2MB"));
        assert_eq!(read.settings.value_of("jit"), Some("off"));
        let line = |name: &str| read.line_of(&crate::pgconf::Name::new(name).unwrap()).unwrap();
        assert_eq!(line("jit"), "top/a/o.conf:2");
        assert_eq!(line("work_mem"), "top/a/o.yaml:7");
        check_with(
            "  configFile: o.conf\n",
            "include 'x'\nport = 1\n",
            &["o.conf:1:1: include: other files cannot be included; \
               write the parameters of that file here"],
        );
        check_with(
            "  configFile: o.conf\n",
            "\nport = 1\n",
            &["o.conf:2:8: port: belongs to the operator, which sets it itself; remove it"],
        );
        check(
            "  configFile: ../o.conf\n",
            &["o.yaml:6:15: configFile points to another folder; \
               move the fragment beside this file and write its name alone"],
        );
        check(
            "  configFile: x.conf\n",
            &["o.yaml:6:15: configFile \"x.conf\" is not beside this file; \
               commit it there, with a name that ends in .conf"],
        );
    }

    #[test]
    fn other_kinds_are_left_alone_and_near_misses_are_not() {
        fn check(text: &str, expected: &[&str]) {
            let desired = Desired::parse(&tree(&[("x.yaml", text)]), &scope());
            let problems: Vec<String> = desired.problems.iter().map(ToString::to_string).collect();
            assert_eq!(problems, expected, "{text}");
            assert_eq!(desired.unreadable.len(), usize::from(!expected.is_empty()));
        }
        check("kind: Deployment\napiVersion: apps/v1\n", &[]);
        check("just text", &[]);
        check(
            "kind: PostgresConfig\n",
            &["x.yaml:1:7 apiVersion is missing; write apiVersion: pgitops.dev/v1alpha1"],
        );
        check(
            "kind: PostgresConfig\napiVersion: pgitops.dev/v1\n",
            &["x.yaml:2:13 apiVersion \"pgitops.dev/v1\" of PostgresConfig is not known; \
               write pgitops.dev/v1alpha1"],
        );
        check(
            "kind: PostgresConfg\napiVersion: pgitops.dev/v1alpha1\n",
            &["x.yaml:1:7 kind \"PostgresConfg\" does not belong into this file; \
               write kind: PostgresConfig"],
        );
        check(
            "kind: ConfigPolicy\napiVersion: pgitops.dev/v1alpha1\n",
            &["x.yaml:1:7 a ConfigPolicy counts only in pgitops.yaml at the top; move it there"],
        );
    }

    #[test]
    fn a_bad_document_hides_no_good_one() {
        let good = document("  parameters: {work_mem: 1MB}\n");
        let other = good.replace("{name: orders}\n  param", "{name: billing}\n  param");
        let broken = format!("{good}---\na: [\n---\n{other}");
        let desired = Desired::parse(&tree(&[("a.yaml", &broken), ("b.yaml", "\u{0}")]), &scope());
        let wanted: Vec<String> = desired.databases().iter().map(ToString::to_string).collect();
        assert_eq!(wanted, ["demo/billing", "demo/orders"]);
        assert_eq!(desired.unreadable.keys().collect::<Vec<_>>(), ["a.yaml", "b.yaml"]);
        assert_eq!(
            desired.problems[1].to_string(),
            "b.yaml:1:1 a NUL byte; remove it; the file may be no text at all"
        );
    }

    #[test]
    fn two_documents_for_one_database_are_both_refused() {
        let one = document("  parameters: {work_mem: 1MB}\n");
        let desired = Desired::parse(&tree(&[("a.yaml", &one), ("b.yaml", &one)]), &scope());
        let problems: Vec<String> = desired.problems.iter().map(ToString::to_string).collect();
        assert_eq!(
            problems,
            [
                "a.yaml:1:1 demo/orders has another document, at b.yaml:1; keep one of them",
                "b.yaml:1:1 demo/orders has another document, at a.yaml:1; keep one of them"
            ]
        );
        assert!(desired.document(&DatabaseRef::new("demo", "orders")).is_none());
    }

    #[test]
    fn the_digest_follows_the_meaning() {
        fn digest(spec: &str) -> String {
            let text = document(spec);
            let desired = Desired::parse(&tree(&[("o.yaml", &text)]), &scope());
            desired.document(&DatabaseRef::new("demo", "orders")).unwrap().digest.clone()
        }
        let one = digest("  parameters: {work_mem: 1MB, jit: true}\n");
        assert_eq!(one, digest("  # why\n  parameters:\n    JIT: \"on\"\n    work_mem: 1MB\n"));
        assert_ne!(one, digest("  parameters: {work_mem: 2MB, jit: true}\n"));
        assert_ne!(one, digest("  wave: 1\n  parameters: {work_mem: 1MB, jit: true}\n"));
    }

    #[test]
    fn an_unchanged_file_is_not_read_again() {
        let text = document("  configFile: o.conf\n");
        let first = Desired::parse(&tree(&[("o.yaml", &text), ("o.conf", "jit = off")]), &scope());
        let again = tree(&[("o.yaml", &text), ("o.conf", "jit = off"), ("x.yaml", "a: 1")]);
        let second = Desired::parse_after(&again, &scope(), &first);
        assert!(Arc::ptr_eq(&first.read["o.yaml"], &second.read["o.yaml"]));
        let changed = tree(&[("o.yaml", &text), ("o.conf", "jit = on")]);
        let third = Desired::parse_after(&changed, &scope(), &first);
        assert!(!Arc::ptr_eq(&first.read["o.yaml"], &third.read["o.yaml"]));
    }

    #[test]
    fn the_policy_is_read_or_stops_everything() {
        fn check(spec: &str, expected: &[&str]) -> Desired {
            let text =
                format!("apiVersion: pgitops.dev/v1alpha1\nkind: ConfigPolicy\nspec:\n{spec}");
            let desired = Desired::parse(&tree(&[("pgitops.yaml", &text)]), &scope());
            let problems: Vec<String> =
                desired.policy_refused.iter().map(Problem::as_compiler_line).collect();
            assert_eq!(problems, expected, "{text}");
            desired
        }
        let whole = check(
            "  windows:\n  - {name: nights, allow: 0 2 * * 1-5, duration: 2h, zone: Europe/Helsinki}\n\
             \x20 - {name: sales, deny: 0 0 24 11 *, duration: 48h, for: all}\n\
             \x20 limits: {maxConcurrent: {restarts: 2}, maxFailures: 3}\n  drift: Warn\n\
             \x20 defaults: {timeout: 10m, restart: false}\n",
            &[],
        );
        assert_eq!(whole.policy.windows.len(), 2);
        assert_eq!((whole.policy.limits.restarts, whole.policy.limits.reloads), (2, 10));
        assert_eq!(whole.policy.limits.failures, 3);
        check(
            "  windows:\n  - {name: n, allow: 0 2 * *, duration: 2h}\n  - {name: m}\n  limit: {}\n",
            &[
                "pgitops.yaml:7:3: spec has no field \"limit\"; write limits",
                "pgitops.yaml:5:22: schedule \"0 2 * *\" is not cron: five fields are needed: minute \
                 hour day month weekday; write minute hour day month weekday: 0 2 * * 1-5",
                "pgitops.yaml:6:5: a window has either allow or deny; \
                 write one of them, with five fields of cron",
            ],
        );
        check(
            "  limits: {maxFailures: 0}\n",
            &[
                "pgitops.yaml:4:25: maxFailures: 0 would stop everything; write a whole number from 1",
            ],
        );
    }

    /// The design's sample, read by this reader and by serde alone.
    #[test]
    fn the_design_s_sample_is_read_as_serde_reads_it() {
        let sample = "apiVersion: pgitops.dev/v1alpha1
kind: PostgresConfig
metadata: {name: orders}
spec:
  databaseRef: {name: ha-postgres} # namespace: the ConfigRepository's own, unless given
  mode: Merge                      # Merge (default) | Replace
  parameters:                      # scalars; true/false mean on/off
    max_connections: 250
    work_mem: 16MB
  configFile: o.conf
  restart: auto
  apply: IfReady
  wave: 0
  timeout: 5m
  allowUnsafe: {fsync: {reason: \"bulk load, OPS-312\", until: 2026-12-01}}
";
        let desired = Desired::parse(&tree(&[("o.yaml", sample), ("o.conf", "")]), &scope());
        let read = desired.document(&DatabaseRef::new("demo", "ha-postgres")).unwrap();
        let serde: PostgresConfig = serde_yaml::from_str(sample).unwrap();
        assert_eq!(read.mode, serde.spec.mode);
        assert_eq!((read.restart, read.apply), (serde.spec.restart, serde.spec.apply));
        assert_eq!((read.wave, read.timeout), (serde.spec.wave, serde.spec.timeout));
        let line = read.line_of(&crate::pgconf::Name::new("max_connections").unwrap());
        assert_eq!(line.as_deref(), Some("o.yaml:8"));
    }

    proptest! {
        /// No bytes make the parser panic, and what is no document leaves a problem or nothing.
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let files = [("x.yaml".to_owned(), bytes.clone().into()), ("pgitops.yaml".to_owned(), bytes.into())];
            let tree = Tree { files: files.into(), unreadable: BTreeMap::new(), complete: true };
            Desired::parse(&tree, &scope());
        }

        #[test]
        fn any_spec_is_read_or_refused(spec in "(  [a-zA-Z]{1,12}: [-\\[\\]{}:,a-z0-9\"'*&! ]{0,20}\n){0,4}") {
            Desired::parse(&tree(&[("x.yaml", &document(&spec))]), &scope());
        }
    }
}
