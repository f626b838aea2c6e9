//! The rules of the house that a machine can check.
//!
//! Each rule is a line of the design. A line that breaks one is named with file and line.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Lines before a file's tests.
const FILE_LIMIT: usize = 400;
/// Lines of a function, braces included.
const FUNCTION_LIMIT: usize = 60;
/// Columns of a line.
const COLUMNS: usize = 100;

struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The part before the file's tests.
    fn product(&self) -> &str {
        self.text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(&self.text)
    }
    fn room(&self) -> &str {
        self.path.strip_prefix("src/").and_then(|p| p.split('/').next()).unwrap_or("")
    }
    /// The three files of a loop that may do more than think (folders of those names too).
    fn is_edge_of_a_loop(&self) -> bool {
        let mut parts = self.path.split('/').skip(2);
        let first = parts.next().unwrap_or("").trim_end_matches(".rs");
        ["observe", "act", "reconcile"].contains(&first)
    }
    fn is_pure(&self) -> bool {
        match self.room() {
            "api" | "pgconf" => true,
            "sync" | "ops" | "provision" => {
                !self.is_edge_of_a_loop() && !self.path.ends_with("/mod.rs")
            }
            _ => false,
        }
    }
}

#[test]
fn top_level_holds_what_the_design_says_and_no_more() {
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "CHANGELOG.md",
        "LICENSE",
        "src",
        "examples",
        "deploy",
        "tests",
        "target",
    ];
    let found: Vec<String> = std::fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.') && !allowed.contains(&name.as_str()))
        .collect();
    assert!(found.is_empty(), "not in the design: {found:?}");
}

#[test]
fn files_and_functions_are_short_and_lines_fit() {
    let mut wrong = String::new();
    for source in sources() {
        // Tables of data and the texts of the command line may be long.
        let table = source.path.starts_with("src/cli/") || source.path.ends_with("/table.rs");
        let lines = source.product().lines().count();
        if lines > FILE_LIMIT && !table {
            writeln!(wrong, "{}: {lines} lines before its tests", source.path).unwrap();
        }
        for (number, line) in source.text.lines().enumerate() {
            // A literal that cannot be broken, such as a sentence of a schema, may stand out.
            let literal = line.contains('"');
            if line.chars().count() > COLUMNS && !literal {
                writeln!(wrong, "{}:{}: over {COLUMNS} columns", source.path, number + 1).unwrap();
            }
        }
        for (line, length) in long_functions(source.product()) {
            writeln!(wrong, "{}:{line}: a function of {length} lines", source.path).unwrap();
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn files_say_what_they_are_for() {
    let silent: Vec<String> = sources()
        .into_iter()
        .filter(|source| !source.text.starts_with("//!"))
        .map(|source| source.path)
        .collect();
    assert!(silent.is_empty(), "no //! at the beginning: {silent:?}");
}

#[test]
fn pure_files_only_think() {
    let forbidden = [
        ".await",
        "async fn",
        "tokio::",
        "std::fs",
        "std::net",
        "std::process",
        "std::env",
        "tracing::",
        "Timestamp::now",
        "SystemTime",
        "Instant::now",
        "getrandom",
        "println!",
        "eprintln!",
        "kube::Client",
        "kube::Api",
        "git2::",
    ];
    refuse(|source| source.is_pure(), &forbidden);
}

#[test]
fn rooms_keep_to_themselves() {
    let loops = ["sync", "ops", "provision"];
    for room in loops {
        let others: Vec<String> = loops
            .iter()
            .filter(|other| **other != room)
            .map(|other| format!("crate::{other}"))
            .collect();
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        refuse(|source| source.room() == room, &others);
    }
    refuse(|source| source.room() != "git", &["git2::"]);
    refuse(|source| !["cli", "sandbox"].contains(&source.room()), &["crate::sandbox"]);
    let thinking = ["api", "pgconf", "sync", "ops", "provision", "instance", "git"];
    for room in ["api", "pgconf"] {
        let others: Vec<String> = thinking
            .iter()
            .skip(2)
            .chain(["cluster", "telemetry", "cli"].iter())
            .map(|other| format!("crate::{other}"))
            .collect();
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        refuse(|source| source.room() == room, &others);
    }
}

#[test]
fn nothing_is_left_open_and_nothing_panics() {
    let forbidden = [
        "TODO",
        "FIXME",
        "XXX",
        "todo!(",
        "unimplemented!(",
        ".unwrap()",
        ".expect(",
        "panic!(",
        "unreachable!(",
    ];
    refuse(|_| true, &forbidden);
}

#[test]
fn words_of_no_meaning_name_nothing() {
    let mut wrong = String::new();
    for source in sources() {
        for word in ["manager", "helper", "util", "utils", "info", "common", "misc"] {
            if source.path.split(['/', '.', '_']).any(|part| part == word) {
                writeln!(wrong, "{}: `{word}` says nothing", source.path).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn the_changelog_knows_this_version() {
    let changelog = std::fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert!(changelog.contains(version), "CHANGELOG.md does not mention {version}");
}

/// Names every line of the product, comments left out, that holds a forbidden word.
fn refuse(applies: impl Fn(&Source) -> bool, forbidden: &[&str]) {
    let mut wrong = String::new();
    for source in sources().into_iter().filter(|source| applies(source)) {
        for (number, line) in source.product().lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            for word in forbidden.iter().filter(|word| code.contains(**word)) {
                writeln!(wrong, "{}:{}: `{word}`", source.path, number + 1).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// First line and length of functions over the limit, by indentation of rustfmt's braces.
fn long_functions(text: &str) -> Vec<(usize, usize)> {
    let mut long = Vec::new();
    let mut open: BTreeMap<usize, usize> = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let trimmed = line.trim_start();
        let is_function = [
            "fn ",
            "pub fn ",
            "async fn ",
            "pub async fn ",
            "pub(super) fn ",
            "pub(crate) fn ",
            "const fn ",
            "pub const fn ",
            "pub(super) async fn ",
            "pub(crate) async fn ",
        ]
        .iter()
        .any(|start| trimmed.starts_with(start));
        if is_function && !trimmed.ends_with(';') && !trimmed.ends_with('}') {
            open.insert(indent, number);
        } else if trimmed == "}"
            && let Some(start) = open.remove(&indent)
        {
            let length = number - start + 1;
            if length > FUNCTION_LIMIT {
                long.push((start + 1, length));
            }
        }
    }
    long
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root().join("src"), &mut found);
    assert!(found.len() > 10, "the sources were not found");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn collect(folder: &Path, found: &mut Vec<Source>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
            found.push(Source { path, text });
        }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
