//! What one document of kind `PostgresConfig` says, with all that is wrong with it.
//!
//! Everything that can be known without a server and without a clock is checked here: fields,
//! names, values that no version takes, fragments. Leaves to `drift.rs` what depends on the major
//! version, and to `plan.rs` what depends on the day (`allowUnsafe.until`). Never drops a field
//! silently: what is not understood is a problem.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::de::DeserializeOwned;

use super::policy::{self, Defaults, POLICY_KIND};
use super::yaml::{Entry, Node, Shape};
use crate::api::duration::Length;
use crate::api::names::{DatabaseRef, digest};
use crate::api::ops_request::{Apply, Restart};
use crate::api::postgres_config::{API_VERSION, KIND, Mode};
use crate::pgconf::{Catalogue, Name, Settings, Tier, Value, catalogue, suggest, tiers};
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
    pub fragment: &'a dyn Fn(&str) -> Option<(Arc<str>, Arc<[u8]>)>,
}

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
    let document = document.filter(|_| !refused).map(Arc::new);
    Read { database, place, document, problems }
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

/// Longest text of `allowUnsafe.reason`: it goes into notes and an annotation.
const REASON_LIMIT: usize = 300;

/// Collects problems while reading.
pub(super) struct Reader {
    pub(super) file: Arc<str>,
    pub(super) problems: Vec<Problem>,
}

impl Reader {
    pub(super) fn refuse(&mut self, at: Position, message: impl Into<String>, instead: &str) {
        self.problems.push(Problem::refused(&self.file, at, message).instead(instead));
    }

    /// Every key must be known.
    pub(super) fn fields(&mut self, node: &Node, known: &[&str], what: &str) {
        for Entry { key, at, .. } in node.entries() {
            if !known.contains(&key.as_str()) {
                let instead = match suggest::nearest(key, known.iter().copied()) {
                    Some(meant) => format!("write {meant}"),
                    None => format!("remove it; the fields are {}", known.join(", ")),
                };
                let message = format!("{what} has no field {:?}", suggest::clip(key));
                self.refuse(*at, message, &instead);
            }
        }
    }

    /// The mapping below a key that must be there.
    pub(super) fn mapping<'n>(&mut self, node: &'n Node, key: &str) -> Option<&'n Node> {
        match node.entry(key) {
            None => {
                self.refuse(node.at, format!("{key} is missing"), &format!("add {key}"));
                None
            }
            Some(entry) => match entry.node.shape {
                Shape::Map(_) => Some(&entry.node),
                Shape::List(_) | Shape::Scalar(_) | Shape::Null => {
                    let message = format!("{key} is {}", entry.node.kind());
                    self.refuse(entry.node.at, message, "write a mapping");
                    None
                }
            },
        }
    }

    /// A field of a type that serde knows; absent or wrong is `None`, wrong is a problem as well.
    pub(super) fn field<T: DeserializeOwned>(
        &mut self,
        node: &Node,
        key: &str,
        instead: &str,
    ) -> Option<T> {
        let entry = node.entry(key)?;
        match serde_yaml::from_value(entry.node.value.clone()) {
            Ok(value) => Some(value),
            Err(_) => {
                let found = match &entry.node.shape {
                    Shape::Scalar(scalar) => format!("{:?}", suggest::clip(&scalar.text)),
                    Shape::Map(_) | Shape::List(_) | Shape::Null => entry.node.kind().to_owned(),
                };
                self.refuse(entry.node.at, format!("{key}: {found} is not valid"), instead);
                None
            }
        }
    }

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

    pub(super) fn restart(&mut self, spec: &Node) -> Option<Restart> {
        let entry = spec.entry("restart")?;
        match spec.text("restart") {
            Some("auto") => Some(Restart::Auto),
            Some("on" | "true") => Some(Restart::True),
            Some("off" | "false") => Some(Restart::False),
            _ => {
                self.refuse(entry.node.at, "restart is not valid", "write auto, true or false");
                None
            }
        }
    }

    pub(super) fn timeout(&mut self, spec: &Node) -> Option<Length> {
        let timeout: Length = self.field(spec, "timeout", "write a length such as 90s or 5m")?;
        if timeout < Length::seconds(1) {
            let at = spec.entry("timeout").map_or(spec.at, |entry| entry.node.at);
            self.refuse(at, "timeout is too short to do anything in", "write at least 1s");
        }
        Some(timeout)
    }

    /// Reads the fragment into `settings`; gives its path.
    fn fragment(
        &mut self,
        spec: &Node,
        around: &Surroundings<'_>,
        settings: &mut Settings,
    ) -> Option<Arc<str>> {
        let at = spec.entry("configFile")?.node.at;
        let Some(name) = spec.text("configFile").filter(|name| !name.is_empty()) else {
            self.refuse(at, "configFile is not the name of a file", "write the file's name");
            return None;
        };
        if name.contains(['/', '\\']) || name.starts_with('.') {
            let instead = "move the fragment beside this file and write its name alone";
            self.refuse(at, "configFile points to another folder", instead);
            return None;
        }
        let Some((path, bytes)) = (around.fragment)(name) else {
            let message = format!("configFile {:?} is not beside this file", suggest::clip(name));
            self.refuse(at, message, "commit it there, with a name that ends in .conf");
            return None;
        };
        match Settings::parse_bytes(&bytes) {
            Ok(read) => settings.replace(&read),
            Err(problems) => {
                self.problems.extend(problems.into_iter().map(|p| Problem::of(&path, None, p)));
            }
        }
        Some(path)
    }

    fn parameters(
        &mut self,
        spec: &Node,
        settings: &mut Settings,
        from_fragment: &mut BTreeSet<Name>,
    ) {
        let Some(entry) = spec.entry("parameters") else { return };
        let Shape::Map(entries) = &entry.node.shape else {
            let message = format!("parameters is {}", entry.node.kind());
            self.refuse(entry.node.at, message, "write a mapping, {} for none");
            return;
        };
        let mut seen: BTreeMap<Name, Position> = BTreeMap::new();
        for Entry { key, at, node } in entries {
            let name = match Name::new(key) {
                Ok(name) => name,
                Err(problem) => {
                    self.problems.push(Problem::of(&self.file, *at, problem));
                    continue;
                }
            };
            if let Some(first) = seen.insert(name.clone(), *at) {
                let message = format!("stands here twice, first on line {}", first.line);
                let problem = Problem::refused(&self.file, *at, message).parameter(key.as_str());
                self.problems.push(problem.instead("keep one; case does not count"));
                continue;
            }
            if let Some(value) = self.value(&name, node) {
                from_fragment.remove(&name);
                settings.set_at(name, value, node.at);
            }
        }
    }

    fn value(&mut self, name: &Name, node: &Node) -> Option<Value> {
        let Shape::Scalar(scalar) = &node.shape else {
            let message = format!("the value is {}", node.kind());
            let problem = Problem::refused(&self.file, node.at, message).parameter(name.as_str());
            self.problems.push(problem.instead("write a single value, or leave the parameter out"));
            return None;
        };
        if scalar.ambiguous && !tiers::is_sensitive(name) {
            let text = &scalar.text;
            let message = format!("unquoted {text} means something else to other readers of YAML");
            let problem = Problem::warning(&self.file, node.at, message).parameter(name.as_str());
            self.problems.push(problem.instead(format!("write \"{text}\"")));
        }
        match Value::new(&scalar.text) {
            Ok(value) => Some(value),
            Err(problem) => {
                let problem = problem.of(name.as_str());
                self.problems.push(Problem::of(&self.file, node.at, problem));
                None
            }
        }
    }

    fn allow_unsafe(&mut self, spec: &Node, settings: &Settings) -> BTreeMap<Name, Allowance> {
        let mut allowances = BTreeMap::new();
        if spec.entry("allowUnsafe").is_none() {
            return allowances;
        }
        let Some(map) = self.mapping(spec, "allowUnsafe") else { return allowances };
        for Entry { key, at, node } in map.entries() {
            let known = Name::new(key).ok().filter(|name| tiers::tier(name) == Tier::Unsafe);
            let Some(name) = known else {
                let message = format!("{:?} needs no allowUnsafe", suggest::clip(key));
                self.refuse(*at, message, "remove it");
                continue;
            };
            if !settings.contains(&name) {
                let message = format!("allowUnsafe names {name}, which the document does not set");
                let problem = Problem::warning(&self.file, *at, message);
                self.problems.push(problem.instead("remove it"));
            }
            if let Some(allowance) = self.allowance(&name, *at, node) {
                allowances.insert(name, allowance);
            }
        }
        allowances
    }

    fn allowance(&mut self, name: &Name, at: Position, node: &Node) -> Option<Allowance> {
        self.fields(node, &["reason", "until"], "an entry of allowUnsafe");
        let reason = node.text("reason").map(str::trim).filter(|reason| !reason.is_empty());
        let Some(reason) = reason else {
            let message = format!("allowUnsafe.{name} has no reason");
            self.refuse(at, message, "add reason: with a sentence for whoever reads the log");
            return None;
        };
        let mut allowance =
            Allowance { reason: reason.chars().take(REASON_LIMIT).collect(), until: None, at };
        if let Some(entry) = node.entry("until") {
            allowance.at = entry.node.at;
            let date = node.text("until").and_then(|text| text.parse().ok());
            if date.is_none() {
                let message = format!("allowUnsafe.{name}.until is not a date");
                self.refuse(entry.node.at, message, "write the last day as 2026-12-31");
            }
            allowance.until = Some(date?);
        }
        Some(allowance)
    }

    /// What no server takes, whatever its version.
    fn check(&mut self, document: &Document) {
        for (name, _) in document.settings.iter() {
            let problem = if tiers::tier(name) == Tier::Owned {
                let message = "belongs to the operator, which sets it itself";
                crate::pgconf::Problem::refused(message).of(name.as_str()).instead("remove it")
            } else if name.is_dotted() || known_to_any(name) {
                continue;
            } else {
                let newest = catalogue::MAJORS.iter().rev().find_map(|m| Catalogue::for_major(*m));
                let Some(newest) = newest else { continue };
                newest.unknown(name)
            };
            let at = document.settings.position(name);
            let file = document.file_of(name).clone();
            let name_free = crate::pgconf::Problem { at: None, ..problem };
            self.problems.push(Problem::of(&file, at, name_free));
        }
    }
}

fn known_to_any(name: &Name) -> bool {
    catalogue::MAJORS
        .iter()
        .filter_map(|major| Catalogue::for_major(*major))
        .any(|catalogue| catalogue.get(name).is_some())
}

fn is_dns_label(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let edge = |b: Option<u8>| b.is_some_and(plain);
    edge(text.bytes().next())
        && edge(text.bytes().last())
        && text.len() <= 63
        && text.bytes().all(|b| plain(b) || b == b'-')
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
