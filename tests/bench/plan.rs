//! A plan of many documents: the pure line alone, and with a real repository before it.
//!
//! Cold: nothing is known, everything is read. One file changed: the commit before is known, as it
//! is to a controller that runs.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use jiff::Timestamp;
use pgitops::api::Claim;
use pgitops::api::names::{CommitId, DatabaseRef, RepositoryRef};
use pgitops::api::postgres::Phase;
use pgitops::git::{self, MirrorOptions, Mirrors, SourceUrl};
use pgitops::pgconf::{Layers, Settings};
use pgitops::sandbox::cluster::{NAMESPACE, REPOSITORY};
use pgitops::sync::desired::{Desired, Scope, Tree};
use pgitops::sync::drift::Drift;
use pgitops::sync::live::{Custom, Live, Observed, Present};
use pgitops::sync::observe;
use pgitops::sync::plan::Plan;
use pgitops::sync::source::{self, Commit, Source, Stance};

use crate::figure::Figure;
use crate::fleet;

/// A number of documents, and what the design says about it.
struct Size {
    databases: usize,
    /// Cold plans that are made.
    runs: usize,
    /// Milliseconds to reach when cold; 0 when the design names none.
    cold: f64,
    /// The same when one file has changed.
    changed: f64,
}

const SIZES: [Size; 2] = [
    Size { databases: 1_000, runs: 5, cold: 0.0, changed: 0.0 },
    Size { databases: 10_000, runs: 3, cold: 1000.0, changed: 20.0 },
];
/// Plans with one file changed.
const CHANGES: usize = 10;
/// What a changed document asks for.
const OTHER: &str = "17MB";

/// Measures.
///
/// # Errors
/// When a plan is not what it must be.
pub async fn measure() -> anyhow::Result<Vec<Figure>> {
    let mut all = Vec::new();
    for size in &SIZES {
        let live = claimed(size.databases)?;
        all.extend(pure(size, &live)?);
        all.extend(with_git(size, &live).await?);
    }
    Ok(all)
}

/// The pure line, from files in memory.
fn pure(size: &Size, live: &Observed) -> anyhow::Result<Vec<Figure>> {
    let databases = size.databases;
    let tree = tree(databases);
    let (first, second) = (commit_id(1)?, commit_id(2)?);
    let mut known = Arc::default();
    let (mut cold, mut changed) = (Vec::new(), Vec::new());
    for _ in 0..size.runs {
        let begun = Instant::now();
        let desired = Arc::new(Desired::parse(&tree, &scope()));
        let plan = plan(&first, None, &desired, live);
        cold.push(begun.elapsed());
        check(&plan, databases, 0)?;
        known = desired;
    }
    for number in changing(databases) {
        let mut tree = tree.clone();
        let text = fleet::document(number, OTHER).into_bytes();
        tree.files.insert(fleet::path(number), text.into());
        let begun = Instant::now();
        let desired = Arc::new(Desired::parse_after(&tree, &scope(), &known));
        let plan = plan(&second, Some(&known), &desired, live);
        changed.push(begun.elapsed());
        check(&plan, databases - 1, 1)?;
    }
    let named = |what: &str| format!("{databases} documents in memory, {what}");
    Ok(vec![
        Figure::of_durations(&named("cold"), cold).reach(size.cold),
        Figure::of_durations(&named("one file changed"), changed).reach(size.changed),
    ])
}

/// From a repository on disk: its copy, its files, the pure line.
async fn with_git(size: &Size, live: &Observed) -> anyhow::Result<Vec<Figure>> {
    let databases = size.databases;
    let folder = tempfile::Builder::new().prefix("pgitops-bench").tempdir()?;
    let bare = fleet::repository(folder.path(), databases).await?;
    let (mut cold, mut changed) = (Vec::new(), Vec::new());
    let mut warm = None;
    for run in 0..size.runs {
        let source = mirror(&bare, &folder.path().join(format!("mirrors-{run}")))?;
        let begun = Instant::now();
        let head = source.head("main").await?;
        let tree = observe::tree(&source.files(&head, ".").await?);
        let desired = Arc::new(Desired::parse(&tree, &scope()));
        let plan = plan(&head, None, &desired, live);
        cold.push(begun.elapsed());
        check(&plan, databases, 0)?;
        warm = Some((source, head, desired));
    }
    let (source, first, known) = warm.context("no cold plan was made")?;
    for number in changing(databases) {
        let file = (fleet::path(number), fleet::document(number, OTHER));
        fleet::commit(&bare, &[file], Some(first.as_str())).await?;
        let begun = Instant::now();
        let head = source.head("main").await?;
        let tree = observe::tree(&source.files(&head, ".").await?);
        let desired = Arc::new(Desired::parse_after(&tree, &scope(), &known));
        let plan = plan(&head, Some(&known), &desired, live);
        changed.push(begun.elapsed());
        check(&plan, databases - 1, 1)?;
    }
    let named = |what: &str| format!("{databases} documents in git, {what}");
    Ok(vec![
        Figure::of_durations(&named("cold"), cold).reach(size.cold),
        Figure::of_durations(&named("one file changed"), changed).reach(size.changed),
    ])
}

fn scope() -> Scope {
    Scope { namespace: NAMESPACE.to_owned(), folder: ".".to_owned() }
}

fn mirror(bare: &Path, cache: &Path) -> anyhow::Result<git::Source> {
    let options = MirrorOptions { allow_local: true, ..MirrorOptions::default() };
    let url = SourceUrl::parse(bare.to_str().context("the temporary folder is not UTF-8")?)?;
    Ok(Mirrors::open(cache, options)?.get(&url)?)
}

fn commit_id(number: u8) -> anyhow::Result<CommitId> {
    Ok(CommitId::parse(&number.to_string().repeat(40))?)
}

/// The documents that are changed, each in a commit of its own: all over the fleet.
fn changing(databases: usize) -> impl Iterator<Item = usize> {
    (0..CHANGES).map(move |change| change * databases / CHANGES)
}

fn tree(databases: usize) -> Tree {
    let file = |number| {
        let text = fleet::document(number, fleet::WORK_MEM).into_bytes();
        (fleet::path(number), text.into())
    };
    let files = (0..databases).map(file).collect();
    Tree { files, unreadable: BTreeMap::new(), complete: true }
}

/// From what is desired to what is done, as a pass does it.
fn plan(
    head: &CommitId,
    before: Option<&Arc<Desired>>,
    desired: &Arc<Desired>,
    live: &Observed,
) -> Plan {
    let commit = Commit { id: head.clone(), subject: String::new(), desired: Arc::clone(desired) };
    let source = Source {
        repository: RepositoryRef { namespace: NAMESPACE.into(), name: REPOSITORY.into() },
        uid: "repository-uid".to_owned(),
        stance: Stance::default(),
        head: head.clone(),
        line: source::line(before.cloned(), vec![commit]),
        first_sight: before.is_none(),
        rewritten: None,
    };
    let drift = Drift::between(desired, live);
    Plan::make(&source, desired, &drift, live, Timestamp::UNIX_EPOCH)
}

fn check(plan: &Plan, equal: usize, requests: usize) -> anyhow::Result<()> {
    let found = (plan.equal.len(), plan.emissions.len(), plan.held.len());
    anyhow::ensure!(
        found == (equal, requests, 0) && plan.stalled.is_none(),
        "{found:?} are equal, requests, held instead of {:?}: {:?}",
        (equal, requests, 0),
        plan.held.first_key_value()
    );
    Ok(())
}

/// What lives: everything that the documents ask for, claimed by an earlier pass.
fn claimed(databases: usize) -> anyhow::Result<Observed> {
    let inline = Settings::parse(&fleet::in_place())
        .map_err(|problems| anyhow::anyhow!("the settings in place: {problems:?}"))?;
    let mut live: Observed = (0..databases)
        .map(|number| {
            let name = DatabaseRef::new(NAMESPACE, fleet::name(number));
            (name, Live::Present(Box::new(present(number, &inline))))
        })
        .collect();
    let desired = Arc::new(Desired::parse(&tree(databases), &scope()));
    let first = plan(&commit_id(1)?, None, &desired, &live);
    for (database, write) in first.claims {
        if let Some(Live::Present(present)) = live.get_mut(&database) {
            present.claim_text = write.claim.as_ref().map(Claim::render);
            present.claim = write.claim;
        }
    }
    let unclaimed = live.values().any(|live| match live {
        Live::Present(present) => present.claim.is_none(),
        Live::Absent | Live::Unknown(_) => true,
    });
    anyhow::ensure!(!unclaimed, "the first plan does not claim every database");
    Ok(live)
}

fn present(number: usize, inline: &Settings) -> Present {
    let layers = Layers { inline: inline.clone(), ..Layers::default() };
    Present {
        uid: format!("uid-{number}"),
        version: "15".to_owned(),
        nodes: 3,
        phase: Some(Phase::Ready),
        provisioned: true,
        claimant_exists: true,
        admitted: true,
        custom: Custom { layers, ..Custom::default() },
        ..Present::default()
    }
}
