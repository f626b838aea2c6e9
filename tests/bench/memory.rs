//! The controller's memory, as a process of its own with the sync loop, beside an API server that
//! has the objects of databases which nobody runs, and a repository with their documents.
//!
//! Measured once every database is claimed and a look at everything calls nobody any more.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use kube::Api;
use kube::api::ListParams;
use pgitops::api::Postgres;
use pgitops::api::names::annotations;
use pgitops::sandbox::cluster::{NAMESPACE, REPOSITORY};

use crate::controller::{Controller, Memory};
use crate::figure::{Figure, Unit};
use crate::fleet::Fleet;

/// Claiming 10 000 databases takes two calls each.
const SETTLED: Duration = Duration::from_secs(240);
/// For this long nobody may have called: a pass of so many databases takes less.
const QUIET: Duration = Duration::from_secs(2);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// One database, and what the design expects of 1 000.
///
/// # Errors
/// When nothing comes to rest.
pub async fn small() -> anyhow::Result<Vec<Figure>> {
    Ok([of(1, 0.0).await?, of(1_000, 48.0).await?].concat())
}

/// What the design expects of 10 000.
///
/// # Errors
/// When nothing comes to rest.
pub async fn large() -> anyhow::Result<Vec<Figure>> {
    of(10_000, 160.0).await
}

async fn of(databases: usize, reach: f64) -> anyhow::Result<Vec<Figure>> {
    let fleet = Fleet::start(databases).await?;
    let measured = measured(&fleet, databases).await;
    fleet.stop().await?;
    let Memory { resident, most } = measured?;
    let mib = |bytes: u64| [bytes as f64 / f64::from(1 << 20)];
    let named = |what: &str| format!("{databases} databases: {what}");
    Ok(vec![
        Figure::of(&named("resident at rest"), Unit::MiB, mib(resident)).reach(reach),
        Figure::of(&named("resident at most"), Unit::MiB, mib(most)),
    ])
}

async fn measured(fleet: &Fleet, databases: usize) -> anyhow::Result<Memory> {
    let kubeconfig = fleet.folder.path().join("kubeconfig");
    fleet.server.write_kubeconfig(&kubeconfig)?;
    let controller = Controller::start(&kubeconfig, fleet.folder.path(), "sync")?;
    let done = settle(fleet, databases).await.and_then(|()| controller.memory());
    let words = controller.words();
    let ended = controller.stop().await;
    let done = done.with_context(|| format!("the controller's last words:\n{words}\n"))?;
    ended.map(|()| done)
}

/// Waits until the head is applied on all databases and nobody calls any more.
async fn settle(fleet: &Fleet, databases: usize) -> anyhow::Result<()> {
    let begun = Instant::now();
    let (mut calls, mut since) = (0, Instant::now());
    loop {
        if fleet.calls() != calls {
            (calls, since) = (fleet.calls(), Instant::now());
        }
        if since.elapsed() >= QUIET {
            if is_applied(fleet, databases).await? {
                return Ok(());
            }
            // Asking was a call as well; and there is no need to ask often.
            (calls, since) = (fleet.calls(), Instant::now());
        }
        anyhow::ensure!(begun.elapsed() < SETTLED, "no rest after {SETTLED:?}");
        tokio::time::sleep(LOOK).await;
    }
}

async fn is_applied(fleet: &Fleet, databases: usize) -> anyhow::Result<bool> {
    let repository = fleet.repositories().get(REPOSITORY).await?;
    let status = repository.status.unwrap_or_default();
    let all = Api::<Postgres>::namespaced(fleet.client.clone(), NAMESPACE);
    let listed = all.list_metadata(&ListParams::default()).await?;
    let claimed = listed.items.iter().filter(|object| {
        let notes = object.metadata.annotations.as_ref();
        notes.is_some_and(|notes| notes.contains_key(annotations::CLAIM))
    });
    Ok(status.applied.is_some() && status.applied == status.head && claimed.count() == databases)
}
