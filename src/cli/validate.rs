//! `pgitops validate`: what is wrong with documents, offline.
//!
//! Prints problems as compilers do, so that editors and CI find them. Without `--major` only what
//! no version takes is found; with it also what that version refuses. Never contacts anything.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;

use super::connection::{Output, print};
use crate::git;
use crate::pgconf::{self, Catalogue, catalogue};
use crate::sync::desired::{Desired, Document, Scope, Target, Tree};
use crate::sync::observe;
use crate::sync::problem::Problem;

/// Arguments of `pgitops validate`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Folders or files; the current folder when absent
    #[arg(value_name = "DIR|FILE")]
    pub paths: Vec<PathBuf>,
    /// Major versions of PostgreSQL to check against (13 to 18)
    #[arg(long, value_name = "N", value_delimiter = ',')]
    pub major: Vec<u32>,
    /// Namespace of databases that documents name without one
    #[arg(short, long, default_value = "default", value_name = "NAMESPACE")]
    pub namespace: String,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// Prints all problems; 0 when none of them refuses anything, else 1.
///
/// # Errors
/// When a path cannot be read, or there is no catalogue of a version.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let catalogues = catalogues(&args.major)?;
    let mut problems = Vec::new();
    let mut documents = 0;
    let here = [PathBuf::from(".")];
    let paths = if args.paths.is_empty() { &here[..] } else { &args.paths[..] };
    for (folder, tree) in trees(paths)? {
        let scope = Scope { namespace: args.namespace.clone(), folder };
        let desired = Desired::parse(&tree, &scope);
        documents += desired.targets.len();
        problems.extend(desired.problems.iter().cloned());
        for target in desired.targets.values() {
            let (documents, known) = match target {
                Target::Wanted(document) => (std::slice::from_ref(document), &[][..]),
                Target::Refused { drafts, problems, .. } => (&drafts[..], &problems[..]),
            };
            let found = documents.iter().flat_map(|document| {
                catalogues.iter().flat_map(|catalogue| for_version(document, catalogue))
            });
            problems.extend(found.filter(|problem| !problem.is_among(known)));
        }
    }
    problems.sort();
    problems.dedup();
    let refused = problems.iter().filter(|problem| problem.is_refusal()).count();
    match args.output {
        Output::Text => {
            let mut out = std::io::stdout().lock();
            for problem in &problems {
                writeln!(out, "{}", problem.as_compiler_line()).context("standard output")?;
            }
            let warnings = problems.len() - refused;
            let databases = if documents == 1 { "database" } else { "databases" };
            eprintln!("{documents} {databases}, {refused} refused, {warnings} warnings");
        }
        Output::Json | Output::Yaml => print(&problems, args.output)?,
    }
    Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn catalogues(majors: &[u32]) -> anyhow::Result<Vec<&'static Catalogue>> {
    let known: Vec<String> = catalogue::MAJORS.iter().map(ToString::to_string).collect();
    let find = |major: &u32| {
        Catalogue::for_major(*major)
            .with_context(|| format!("--major {major} is not known; write {}", known.join(", ")))
    };
    majors.iter().map(find).collect()
}

/// What a version says about a document, with the version where it is not the only one.
fn for_version(document: &Document, catalogue: &Catalogue) -> Vec<Problem> {
    let allowed: BTreeSet<_> = document.allow_unsafe.keys().cloned().collect();
    let checked = pgconf::check(&document.settings, catalogue, &allowed);
    checked.problems.into_iter().map(|problem| document.locate(problem)).collect()
}

/// Each folder by itself; files together, with the fragments beside them.
fn trees(paths: &[PathBuf]) -> anyhow::Result<Vec<(String, Tree)>> {
    let mut trees = Vec::new();
    let mut files = Tree { complete: true, ..Tree::default() };
    for path in paths {
        if path.is_dir() {
            let read = git::read_folder(path)
                .with_context(|| format!("folder {} cannot be read", path.display()))?;
            trees.push((shown(path), observe::tree(&read)));
        } else {
            take_file(path, &mut files.files)?;
        }
    }
    if !files.files.is_empty() {
        trees.push((".".to_owned(), files));
    }
    Ok(trees)
}

/// A folder as it stands before the files in it.
fn shown(path: &Path) -> String {
    let text = path.to_string_lossy().into_owned();
    let text = text.trim_start_matches("./").trim_end_matches('/');
    if text.is_empty() { ".".to_owned() } else { text.to_owned() }
}

fn take_file(
    path: &Path,
    files: &mut BTreeMap<String, std::sync::Arc<[u8]>>,
) -> anyhow::Result<()> {
    let read = |path: &Path| {
        std::fs::read(path).with_context(|| format!("file {} cannot be read", path.display()))
    };
    files.insert(shown(path), read(path)?.into());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let beside = std::fs::read_dir(folder.unwrap_or(Path::new("."))).context("folder")?;
    for entry in beside.flatten() {
        let fragment = folder.map_or_else(
            || PathBuf::from(entry.file_name()),
            |folder| folder.join(entry.file_name()),
        );
        if fragment.extension().is_some_and(|extension| extension == "conf") && fragment.is_file() {
            files.insert(shown(&fragment), read(&fragment)?.into());
        }
    }
    Ok(())
}
