//! A restart that fails on the primary and is rolled back: how much longer writes pause.
//!
//! The dry run looks at files, not at the data: a primary that has a logical replication slot does
//! not start with `wal_level = replica`, and only the start finds out. `max_connections` falls to its
//! default in the same change, so that it is the primary whose turn is first. Compared with restarts
//! of the same nodes that succeed.

use std::time::Duration;

use pgitops::api::ops_request::OpsPhase;
use pgitops::cli::demo::repository::document;
use pgitops::cli::demo::servers::three_nodes;
use pgitops::cli::demo::writer::Writer;

use crate::figure::Figure;
use crate::line::{self, Line};

/// Changes of each kind.
const RUNS: usize = 3;
/// The slot that keeps the primary from starting.
const SLOT: &str =
    "SELECT slot_name::text FROM pg_create_logical_replication_slot('bench', 'pgoutput')";

/// Sync knows that this ends logical replication, and wants to be told that it may.
const ALLOWED: &str = "  allowUnsafe: {wal_level: {reason: benchmark}}\n";

/// Measures.
///
/// # Errors
/// When a change does not end as it must.
pub async fn measure() -> anyhow::Result<Vec<Figure>> {
    line::with(three_nodes(None)?, async |line| {
        line.applied(&[("wal_level", "logical")]).await?;
        let mut good = Vec::new();
        for value in ["120", "160"].into_iter().cycle().take(RUNS) {
            let writer = Writer::start(line.servers.primary(), line.servers.password()).await?;
            let changed =
                line.applied(&[("wal_level", "logical"), ("max_connections", value)]).await;
            good.push(writer.take().gap);
            writer.stop().await;
            changed?;
        }
        line.servers.ask_primary(SLOT).await?;
        let (mut bad, mut took) = (Vec::new(), Vec::new());
        for run in 0..RUNS {
            let (gap, whole) = fail(line, run).await?;
            bad.push(gap);
            took.push(whole);
        }
        let good = Figure::of_durations("gap, restart that succeeds", good);
        let usual = Duration::from_secs_f64(good.median().unwrap_or_default() / 1000.0);
        let extra = bad.iter().map(|gap| gap.saturating_sub(usual));
        let extra = Figure::of_durations("extra gap", extra).reach(300.0);
        let extra = extra.remark("over the median of those that succeed");
        let bad = Figure::of_durations("gap, restart that is rolled back", bad);
        let whole = Figure::of_durations("push -> previous configuration proven", took);
        Ok(vec![good, bad, extra, whole])
    })
    .await
}

/// One change that fails; the gap, and the time to the end of the rollback.
async fn fail(line: &mut Line<'_>, run: usize) -> anyhow::Result<(Duration, Duration)> {
    let before = line.servers.started().await?;
    let writer = Writer::start(line.servers.primary(), line.servers.password()).await?;
    // Another value each time: the same change is not tried twice.
    let work_mem = format!("{}MB", 5 + run);
    let document = document(&[("wal_level", "replica"), ("work_mem", &work_mem)]) + ALLOWED;
    let failed = line.change(&document).await;
    let seen = writer.take();
    writer.stop().await;
    let failed = failed?;
    let note = &failed.note;
    anyhow::ensure!(failed.phase == OpsPhase::Failed, "it has not failed:\n{note}");
    anyhow::ensure!(failed.report.rolled_back, "it was not rolled back:\n{note}");
    anyhow::ensure!(note.contains("wal_level"), "it failed for another reason:\n{note}");
    let restarted = line.servers.started().await?.differing(&before);
    anyhow::ensure!(!restarted.is_empty(), "no server was restarted:\n{note}");
    line.in_force("wal_level", "logical").await?;
    line.in_force("work_mem", "4MB").await?;
    Ok((seen.gap, failed.ended.saturating_duration_since(failed.pushed)))
}
