//! What one document of kind `PostgresConfig` says, with all that is wrong with it.
//!
//! Everything that can be known without a server and without a clock is checked here: fields,
//! names, values that no version takes, fragments. Leaves to `drift.rs` what depends on the major
//! version, and to `plan.rs` what depends on the day (`allowUnsafe.until`). Never drops a field
//! silently: what is not understood is a problem.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::policy::{self, Defaults, POLICY_KIND};
use super::reader::Reader;
use super::yaml::{Entry, Node};
use crate::api::duration::Length;
use crate::api::names::{DatabaseRef, digest};
use crate::api::ops_request::{Apply, Restart};
use crate::api::postgres_config::{API_VERSION, KIND, Mode};
use crate::pgconf::{Name, Settings, Value, suggest};
use crate::sync::problem::{Position, Problem};

/// What is desired of one database.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The document's own name, for people.
    pub name: String,
    /// The database.
    pub database: DatabaseRef,
    /// The file, and where the document begins in it.
    pub place: Place,
    /// Whose parameters these are.
    pub mode: Mode,
    /// The parameters: the fragment's, then those of `parameters` over them. Positions are those of
    /// the values in [`Document::file_of`].
    pub settings: Settings,
    /// The fragment's path, when there is one.
    pub fragment: Option<Arc<str>>,
    /// Names whose value comes from the fragment.
    pub from_fragment: BTreeSet<Name>,
    /// Whether to restart.
    pub restart: Restart,
    /// Whether the database must be Ready.
    pub apply: Apply,
    /// Lower waves first.
    pub wave: i32,
    /// Bounds each wait of the rollout.
    pub timeout: Option<Length>,
    /// Unsafe parameters that are wanted all the same.
    pub allow_unsafe: BTreeMap<Name, Allowance>,
    /// Digest of all of the above but names and places: the key of holds. A new comment, another
    /// file or another order of fields does not change it.
    pub digest: String,
}

/// A place in the repository.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file.
    pub file: Arc<str>,
    /// Where in it.
    pub at: Position,
}

/// Why an unsafe parameter is wanted, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Why.
    pub reason: String,
    /// The last day on which it counts; for ever when absent.
    pub until: Option<jiff::civil::Date>,
    /// Where `until`, or else the allowance, stands.
    pub at: Position,
}

/// What came of a document.
#[derive(Clone, Debug)]
pub struct Read {
    /// The database, when at least that is known.
    pub database: Option<DatabaseRef>,
    /// Where the document begins.
    pub place: Place,
    /// The document, unless something refuses it.
    pub document: Option<Arc<Document>>,
    /// What could be read of a document that something refuses: never sent, only checked against
    /// the server's version, so that all that is wrong with it is told at once.
    pub draft: Option<Arc<Document>>,
    /// All that is wrong and all that is remarkable.
    pub problems: Vec<Problem>,
}

/// Where a document is read, and what it may refer to.
pub struct Surroundings<'a> {
    /// The file's name.
    pub file: &'a Arc<str>,
    /// The repository's namespace, for documents that name none.
    pub namespace: &'a str,
    /// What documents leave out.
    pub defaults: &'a Defaults,
    /// A fragment beside the file by its name: display path and bytes.
    pub fragment: &'a dyn Fn(&str) -> Option<Fragment>,
}

/// A fragment: its path as people read it, and its bytes.
pub type Fragment = (Arc<str>, Arc<[u8]>);

/// Whether a document is one of ours, is none of our business, or only looks like one of ours.
pub fn is_ours(file: &str, node: &Node, expected: &str) -> Result<bool, Box<Problem>> {
    let (version, kind) = (node.text("apiVersion"), node.text("kind"));
    let at = |key: &str| node.entry(key).map_or(node.at, |entry| entry.node.at);
    match (version, kind) {
        (Some(version), Some(kind)) if kind == expected => {
            if version == API_VERSION {
                return Ok(true);
            }
            let message = format!("apiVersion {:?} of {kind} is not known", suggest::clip(version));
            let problem = Problem::refused(file, at("apiVersion"), message);
            Err(Box::new(problem.instead(format!("write {API_VERSION}"))))
        }
        (None, Some(kind)) if kind == expected => {
            let problem = Problem::refused(file, at("kind"), "apiVersion is missing");
            Err(Box::new(problem.instead(format!("write apiVersion: {API_VERSION}"))))
        }
        (_, Some(POLICY_KIND)) => {
            let message = format!("a {POLICY_KIND} counts only in {} at the top", policy::FILE);
            Err(Box::new(Problem::refused(file, at("kind"), message).instead("move it there")))
        }
        (Some(version), kind) if version.starts_with("pgitops.dev/") => {
            let kind = suggest::clip(kind.unwrap_or_default());
            let message = format!("kind {kind:?} does not belong into this file");
            let problem = Problem::refused(file, at("kind"), message);
            Err(Box::new(problem.instead(format!("write kind: {expected}"))))
        }
        _ => Ok(false),
    }
}

/// Reads one document that [`is_ours`].
pub fn read(node: &Node, around: &Surroundings<'_>) -> Read {
    let mut reader = Reader { file: around.file.clone(), problems: Vec::new() };
    let place = Place { file: around.file.clone(), at: node.at };
    reader.fields(node, &["apiVersion", "kind", "metadata", "spec"], "a PostgresConfig");
    let name = reader.metadata(node);
    let (database, document) = match reader.mapping(node, "spec") {
        Some(spec) => {
            let database = reader.database(spec, around);
            (database.clone(), reader.spec(spec, around, name, database, &place))
        }
        None => (None, None),
    };
    let Reader { problems, .. } = reader;
    let refused = problems.iter().any(Problem::is_refusal);
    let (document, draft) = match (document.map(Arc::new), refused) {
        (document, false) => (document, None),
        (draft, true) => (None, draft),
    };
    Read { database, place, document, draft, problems }
}

const SPEC: [&str; 9] = [
    "databaseRef",
    "mode",
    "parameters",
    "configFile",
    "restart",
    "apply",
    "wave",
    "timeout",
    "allowUnsafe",
];

impl Reader {
    fn metadata(&mut self, document: &Node) -> String {
        let Some(metadata) = self.mapping(document, "metadata") else { return String::new() };
        for Entry { key, at, .. } in metadata.entries() {
            match key.as_str() {
                "name" | "labels" | "annotations" => {}
                "namespace" => {
                    let instead = "write spec.databaseRef.namespace";
                    self.refuse(*at, "a document has no namespace of its own", instead);
                }
                other => {
                    let message = format!("metadata has no field {:?}", suggest::clip(other));
                    self.refuse(*at, message, "remove it");
                }
            }
        }
        for key in ["labels", "annotations"] {
            self.field::<BTreeMap<String, String>>(metadata, key, "write texts below text keys");
        }
        let name: Option<String> = self.field(metadata, "name", "write a name");
        if metadata.entry("name").is_none() {
            self.refuse(metadata.at, "metadata.name is missing", "add a name");
        }
        name.unwrap_or_default()
    }

    /// The database, as soon as it can be known: even a refused document freezes it.
    fn database(&mut self, spec: &Node, around: &Surroundings<'_>) -> Option<DatabaseRef> {
        let target = self.mapping(spec, "databaseRef")?;
        self.fields(target, &["name", "namespace"], "databaseRef");
        let mut part = |key: &str| -> Option<Option<String>> {
            let entry = target.entry(key)?;
            let text = target.text(key).filter(|text| is_dns_label(text));
            if text.is_none() {
                let message = format!("databaseRef.{key} is not a name of Kubernetes");
                let instead = "write at most 63 of a-z, 0-9 and -, in quotes where it is a number";
                self.refuse(entry.node.at, message, instead);
            }
            Some(text.map(str::to_owned))
        };
        let (name, namespace) = (part("name"), part("namespace"));
        if name.is_none() {
            self.refuse(target.at, "databaseRef.name is missing", "add the database's name");
        }
        let namespace = namespace.unwrap_or_else(|| Some(around.namespace.to_owned()))?;
        Some(DatabaseRef::new(namespace, name??))
    }

    fn spec(
        &mut self,
        spec: &Node,
        around: &Surroundings<'_>,
        name: String,
        database: Option<DatabaseRef>,
        place: &Place,
    ) -> Option<Document> {
        self.fields(spec, &SPEC, "spec");
        let defaults = around.defaults;
        let mode = self.field(spec, "mode", "write Merge or Replace").unwrap_or_default();
        let restart = self.restart(spec).unwrap_or(defaults.restart);
        let apply = self.field(spec, "apply", "write IfReady or Always").unwrap_or(defaults.apply);
        let wave = self.field(spec, "wave", "write a whole number").unwrap_or(defaults.wave);
        let timeout = self.timeout(spec).or(defaults.timeout);
        let mut settings = Settings::new();
        let fragment = self.fragment(spec, around, &mut settings);
        let mut from_fragment: BTreeSet<Name> = settings.names().cloned().collect();
        self.parameters(spec, &mut settings, &mut from_fragment);
        let allow_unsafe = self.allow_unsafe(spec, &settings);
        if mode == Mode::Replace && settings.is_empty() {
            let message = "mode Replace without any parameter would drop all configuration";
            self.refuse(spec.at, message, "name the parameters that are to stay");
        }
        let mut document = Document {
            name,
            database: database?,
            place: place.clone(),
            mode,
            settings,
            fragment,
            from_fragment,
            restart,
            apply,
            wave,
            timeout,
            allow_unsafe,
            digest: String::new(),
        };
        self.check(&document);
        document.digest = document.digest_of();
        Some(document)
    }
}

fn is_dns_label(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let edge = |b: Option<u8>| b.is_some_and(plain);
    edge(text.bytes().next())
        && edge(text.bytes().last())
        && text.len() <= 63
        && text.bytes().all(|b| plain(b) || b == b'-')
}

impl Read {
    /// What could be read, refused or not.
    pub fn draft_or_document(&self) -> Option<Arc<Document>> {
        self.document.clone().or_else(|| self.draft.clone())
    }
}

impl Document {
    /// The file in which a parameter's value stands.
    pub fn file_of(&self, name: &Name) -> &Arc<str> {
        match &self.fragment {
            Some(fragment) if self.from_fragment.contains(name) => fragment,
            _ => &self.place.file,
        }
    }

    /// Where a parameter's value stands, as `orders.yaml:8`.
    pub fn line_of(&self, name: &Name) -> Option<String> {
        let at = self.settings.position(name)?;
        Some(format!("{}:{}", self.file_of(name), at.line))
    }

    /// Puts a problem of these settings where it belongs.
    pub fn locate(&self, problem: crate::pgconf::Problem) -> Problem {
        let name = problem.parameter.as_deref().and_then(|name| Name::new(name).ok());
        let file = name.as_ref().map_or(&self.place.file, |name| self.file_of(name));
        let at = name.as_ref().and_then(|name| self.settings.position(name));
        Problem::of(file, at.unwrap_or(self.place.at), problem)
    }

    fn digest_of(&self) -> String {
        // Destructured, so that a field that is added cannot be forgotten here.
        let Self {
            name: _,
            database,
            place: _,
            mode,
            settings,
            fragment: _,
            from_fragment: _,
            restart,
            apply,
            wave,
            timeout,
            allow_unsafe,
            digest: _,
        } = self;
        let timeout = timeout.map(|timeout| timeout.to_string()).unwrap_or_default();
        let mut parts =
            vec![database.to_string(), format!("{mode:?} {restart:?} {apply:?} {wave} {timeout}")];
        let by_name: BTreeMap<String, &Value> =
            settings.iter().map(|(name, value)| (name.lower(), value)).collect();
        for (name, value) in by_name {
            parts.extend([name, value.as_str().to_owned()]);
        }
        for (name, allowance) in allow_unsafe {
            let until = allowance.until.map(|date| date.to_string()).unwrap_or_default();
            parts.extend(["allow".to_owned(), name.lower(), allowance.reason.clone(), until]);
        }
        digest(&parts.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

/// The kind of these documents, for [`is_ours`].
pub const DOCUMENT_KIND: &str = KIND;
