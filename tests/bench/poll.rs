//! A look at a repository in which nothing has changed: what it costs git, the API server and the
//! processor.
//!
//! Passes are made here, one after another, by the sync loop's own function, so that each counts
//! exactly. Processor time is that of all threads of this process; the API server, which is a part
//! of it here, has nothing to do meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use pgitops::api::names::annotations;
use pgitops::api::{Claim, ConfigRepository, Postgres};
use pgitops::cluster::{Cluster, Leadership, Watched};
use pgitops::git::{MirrorOptions, Mirrors, SourceUrl};
use pgitops::sandbox::cluster::{NAMESPACE, REPOSITORY};
use pgitops::sync::Context;
use pgitops::sync::reconcile::reconcile;
use pgitops::telemetry::Metrics;

use crate::figure::{Figure, Unit};
use crate::fleet::Fleet;

/// Batches that are measured.
const BATCHES: usize = 10;
/// Passes of a batch: the clock of threads is finer than this, but shares a processor.
const PASSES: usize = 20;
/// Databases, from one to what a repository of an organisation has.
const SIZES: [usize; 2] = [1, 1_000];
/// The first passes claim everything.
const SETTLED: Duration = Duration::from_secs(120);
/// Pause between two looks whether it has settled.
const LOOK: Duration = Duration::from_millis(20);

/// Measures.
///
/// # Errors
/// When a pass fails, or nothing comes to rest.
pub async fn measure() -> anyhow::Result<Vec<Figure>> {
    let mut all = Vec::new();
    for databases in SIZES {
        let fleet = Fleet::start(databases).await?;
        let figures = of(&fleet, databases).await;
        fleet.stop().await?;
        all.extend(figures?);
    }
    Ok(all)
}

async fn of(fleet: &Fleet, databases: usize) -> anyhow::Result<Vec<Figure>> {
    let cluster = Cluster::new(fleet.client.clone());
    let options = MirrorOptions { allow_local: true, ..MirrorOptions::default() };
    let cx = Arc::new(Context::new(
        cluster.clone(),
        Mirrors::open(fleet.folder.path().join("mirrors"), options)?,
        Watched::<ConfigRepository>::start(&cluster, None),
        Watched::<Postgres>::start(&cluster, None),
        Watched::start(&cluster, None),
        Leadership::fixed(1),
        Arc::new(Metrics::default()),
    ));
    tokio::time::timeout(SETTLED, cx.ready()).await.context("the first lists")?;
    settle(fleet, databases, &cx).await?;
    let url = fleet.repository.to_str().context("the temporary folder is not UTF-8")?;
    let git = cx.mirrors.get(&SourceUrl::parse(url)?)?;
    let (mut visits, mut calls, mut time, mut wall) = (vec![], vec![], vec![], vec![]);
    for _ in 0..BATCHES {
        let before = (git.visits(), fleet.calls(), processor_time()?, Instant::now());
        for _ in 0..PASSES {
            pass(&cx).await?;
        }
        wall.push(before.3.elapsed().as_secs_f64() * 1000.0);
        time.push((processor_time()?.saturating_sub(before.2)).as_secs_f64() * 1000.0);
        calls.push((fleet.calls() - before.1) as f64);
        visits.push((git.visits() - before.0) as f64);
    }
    let each = |samples: Vec<f64>| samples.into_iter().map(|sum| sum / PASSES as f64);
    let named = |what: &str| format!("{databases} databases: {what}");
    Ok(vec![
        Figure::of(&named("git listings"), Unit::Number, each(visits)).reach(1.0),
        Figure::of(&named("API calls"), Unit::Number, each(calls)).remark("to reach: none"),
        Figure::of(&named("processor time"), Unit::Ms, each(time)).reach(1.0),
        Figure::of(&named("time"), Unit::Ms, each(wall)),
    ])
}

async fn pass(cx: &Arc<Context>) -> anyhow::Result<()> {
    let repository = cx.repositories.get(NAMESPACE, REPOSITORY).context("no ConfigRepository")?;
    reconcile(repository, cx.clone()).await.context("pass")?;
    Ok(())
}

/// Makes passes until the databases are claimed and a pass calls nobody.
async fn settle(fleet: &Fleet, databases: usize, cx: &Arc<Context>) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let before = fleet.calls();
        // One that finds an old object loses against itself; the next one is right.
        let passed = pass(cx).await;
        let claimed = cx.databases.all().iter().filter(|postgres| applied(postgres)).count();
        if passed.is_ok() && claimed == databases && fleet.calls() == before {
            return Ok(());
        }
        anyhow::ensure!(
            begun.elapsed() < SETTLED,
            "{claimed} of {databases} databases are claimed after {SETTLED:?}; {passed:?}"
        );
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether a claim says that a commit is in place.
fn applied(postgres: &Postgres) -> bool {
    let notes = postgres.metadata.annotations.as_ref();
    let claim = notes.and_then(|notes| Claim::parse(notes.get(annotations::CLAIM)?));
    claim.is_some_and(|claim| claim.applied.is_some())
}

/// Time that all threads of this process have had so far.
fn processor_time() -> anyhow::Result<Duration> {
    let mut sum = 0;
    for task in std::fs::read_dir("/proc/self/task").context("/proc/self/task")? {
        let path = task?.path().join("schedstat");
        // A thread may have ended since.
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let first = text.split(' ').next().and_then(|number| number.parse::<u64>().ok());
        sum += first.with_context(|| format!("{}: {text}", path.display()))?;
    }
    Ok(Duration::from_nanos(sum))
}
