//! `pgitops plan`: what a folder or a commit would do to the cluster now.
//!
//! The same pure line as the controller's, against what lives; writes nothing. Exit code 0: all is
//! as desired, 2: something differs, 1: something is refused or could not be found out.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use jiff::Timestamp;
use serde::Serialize;

use super::connection::{Connection, Output, print};
use super::look::Look;
use crate::api::config_repository::ConfigRepository;
use crate::api::names::CommitId;
use crate::cluster::Cluster;
use crate::git::{self, SourceUrl};
use crate::sync::desired::{Desired, Scope};
use crate::sync::drift::Drift;
use crate::sync::observe;
use crate::sync::plan::{Entry, Plan, Sums};
use crate::sync::source::{Source, Stance};
use crate::sync::{self, problem::Problem};

/// Arguments of `pgitops plan`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A folder with documents, instead of what the repository holds
    #[arg(long, value_name = "DIR", conflicts_with = "commit")]
    pub folder: Option<PathBuf>,
    /// A commit (full id), branch or tag of the repository, instead of the one it follows
    #[arg(long, value_name = "COMMIT")]
    pub commit: Option<String>,
    /// The ConfigRepository; needed when the namespace has more than one
    #[arg(long, value_name = "NAME")]
    pub repository: Option<String>,
    /// How the plan is printed
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    #[command(flatten)]
    connection: Connection,
}

/// What is printed.
#[derive(Serialize)]
struct Printed<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    stalled: Option<String>,
    databases: &'a [Entry],
    problems: &'a [Problem],
    sums: Sums,
}

/// Prints the plan.
///
/// # Errors
/// When the cluster, the repository or the folder cannot be read.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let (cluster, namespace) = args.connection.open().await?;
    let repository = repository(&cluster, &namespace, args.repository.as_deref()).await?;
    let look = Look::open(&cluster).await?;
    planned(&args, &repository, &look.cx).await
}

async fn planned(
    args: &Args,
    repository: &ConfigRepository,
    cx: &sync::Context,
) -> anyhow::Result<ExitCode> {
    let (source, desired) = source(args, repository, cx).await?;
    let live = observe::live(repository, &desired, cx).await;
    let drift = Drift::between(&desired, &live);
    let plan = Plan::make(&source, &desired, &drift, &live, Timestamp::now());
    let entries = plan.entries(&desired, &drift, &live);
    let sums = Sums::of(&entries);
    let stalled = plan.stalled.as_ref().map(|stalled| stalled.text(&source));
    let problems = plan.problems(&desired);
    let refused = problems.iter().any(Problem::is_refusal) || sums.refused > 0;
    let differs = entries.iter().any(|entry| !entry.changes.is_empty())
        || sums.change + sums.held + sums.running > 0
        || entries.iter().any(|entry| entry.verdict == "released");
    match args.output {
        Output::Text => text(stalled.as_deref(), &entries, &problems, &sums)?,
        Output::Json | Output::Yaml => {
            let problems = &problems[..];
            let printed = Printed { stalled: stalled.clone(), databases: &entries, problems, sums };
            print(&printed, args.output)?;
        }
    }
    Ok(match (refused || stalled.is_some(), differs) {
        (true, _) => ExitCode::FAILURE,
        (false, true) => ExitCode::from(2),
        (false, false) => ExitCode::SUCCESS,
    })
}

fn text(
    stalled: Option<&str>,
    entries: &[Entry],
    problems: &[Problem],
    sums: &Sums,
) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let mut say = |line: &str| writeln!(out, "{line}").context("standard output");
    if let Some(stalled) = stalled {
        say(&format!("stalled: {stalled}"))?;
    }
    for problem in problems {
        say(&problem.as_compiler_line())?;
    }
    for line in entries.iter().flat_map(Entry::lines) {
        say(&line)?;
    }
    say(&sums.line())
}

/// Where the documents come from: a folder, a commit, or what the repository follows.
async fn source(
    args: &Args,
    repository: &ConfigRepository,
    cx: &sync::Context,
) -> anyhow::Result<(Source, Arc<Desired>)> {
    let id = repository.repository();
    let scope = |folder: &str| Scope { namespace: id.namespace.clone(), folder: folder.to_owned() };
    if let Some(folder) = &args.folder {
        let files = git::read_folder(folder)
            .with_context(|| format!("folder {} cannot be read", folder.display()))?;
        let desired = Desired::parse(&observe::tree(&files), &scope("."));
        let nowhere = CommitId::parse(&"0".repeat(40))?;
        return Ok((bare(repository, nowhere), Arc::new(desired)));
    }
    let Some(commit) = &args.commit else {
        let look = observe::source(repository, cx).await.context("repository")?;
        return Ok((look.source, look.desired));
    };
    let url = SourceUrl::parse(&repository.spec.url).context("spec.url")?;
    let git = cx.mirrors.get(&url)?.with_timeout(repository.spec.timeout.0);
    let head = git.head(&repository.spec.reference).await.context("repository")?;
    let commit = match CommitId::parse(commit) {
        Ok(id) => id,
        Err(_) if head.as_str().starts_with(commit.as_str()) => head,
        Err(_) => git.head(commit).await.context("--commit")?,
    };
    let path = &repository.spec.path;
    let files = git.files(&commit, path).await.context("--commit")?;
    let desired = Desired::parse(&observe::tree(&files), &scope(path));
    Ok((bare(repository, commit), Arc::new(desired)))
}

/// A source without a history: what stands in it is judged against what lives, and no commit
/// answers for it.
fn bare(repository: &ConfigRepository, head: CommitId) -> Source {
    Source {
        repository: repository.repository(),
        uid: repository.uid().to_owned(),
        // A plan shows what would be sent if nobody had said stop; drift is judged as ever.
        stance: Stance { drift: repository.spec.drift, ..Stance::default() },
        head,
        line: Vec::new(),
        first_sight: false,
        rewritten: None,
    }
}

async fn repository(
    cluster: &Cluster,
    namespace: &str,
    name: Option<&str>,
) -> anyhow::Result<ConfigRepository> {
    if let Some(name) = name {
        let found = cluster.get::<ConfigRepository>(namespace, name).await?;
        return found.with_context(|| format!("ConfigRepository {namespace}/{name} is not there"));
    }
    let mut all = cluster.list::<ConfigRepository>(Some(namespace), "").await?;
    let names: Vec<String> = all.iter().map(|r| r.repository().name).collect();
    match (all.pop(), names.len()) {
        (Some(one), 1) => Ok(one),
        (None, _) => {
            anyhow::bail!("namespace {namespace} has no ConfigRepository; give another with -n")
        }
        (Some(_), _) => anyhow::bail!("choose one with --repository: {}", names.join(", ")),
    }
}
