//! A change that needs a restart of every node: idle, under load, with synchronous replication.
//!
//! `max_connections` goes up (standbys first) and down (primary first) while a client writes every
//! millisecond.

use anyhow::Context as _;
use pgitops::api::Postgres;
use pgitops::api::postgres::StreamingMode;
use pgitops::cli::demo::servers::three_nodes;
use pgitops::cli::demo::writer::Writer;

use crate::figure::{Figure, Unit};
use crate::line::{self, Line};
use crate::load::Load;
use crate::reload;
use crate::signs::Timeline;

/// Changes up, and as many down.
const RUNS: usize = 4;
/// What `max_connections` alternates between.
const VALUES: [&str; 2] = ["120", "160"];
/// Milliseconds that all three nodes may take when nothing else happens on them.
const PROVEN: f64 = 1000.0;

/// One change, and what the writer saw of it.
struct Restart {
    timeline: Timeline,
    gap: std::time::Duration,
}

/// Three idle nodes.
///
/// # Errors
/// When a change does not end as it must.
pub async fn idle() -> anyhow::Result<Vec<Figure>> {
    line::with(three_nodes(None)?, async |line| {
        let [up, down] = alternate(line).await?;
        Ok([figures("up", &up, PROVEN, 110.0), figures("down", &down, PROVEN, 110.0)].concat())
    })
    .await
}

/// Three nodes of which the primary has eight clients.
///
/// # Errors
/// When a change does not end as it must, or the load ends.
pub async fn under_load() -> anyhow::Result<Vec<Figure>> {
    line::with(three_nodes(None)?, async |line| {
        let load = Load::start(&line.servers).await?;
        let done = alternate(line).await;
        let (told, transactions) = load.stop(&line.servers).await?;
        let [up, down] = done?;
        let mut all = [figures("up", &up, 0.0, 470.0), figures("down", &down, 0.0, 470.0)].concat();
        all.push(Figure::of("transactions per second", Unit::Number, [transactions]).remark(told));
        Ok(all)
    })
    .await
}

/// Three idle nodes, each write waiting for a standby.
///
/// # Errors
/// When a change does not end as it must, or writes do not wait.
pub async fn synchronous() -> anyhow::Result<Vec<Figure>> {
    let mut database: Postgres = three_nodes(None)?;
    database.spec.streaming_mode = Some(StreamingMode::Synchronous);
    line::with(database, async |line| {
        let waits = "SELECT count(*)::text FROM pg_stat_replication \
                     WHERE sync_state IN ('sync', 'quorum')";
        let waits = line.servers.ask_primary(waits).await?;
        anyhow::ensure!(waits != "0", "streamingMode Synchronous: no standby is synchronous");
        let [up, down] = alternate(line).await?;
        Ok([figures("up", &up, 0.0, 300.0), figures("down", &down, 0.0, 300.0)].concat())
    })
    .await
}

/// Changes up and down in turns, after one that is not measured.
async fn alternate(line: &mut Line<'_>) -> anyhow::Result<[Vec<Restart>; 2]> {
    let [low, high] = VALUES;
    change(line, low).await?;
    let mut all = [Vec::new(), Vec::new()];
    for _ in 0..RUNS {
        for (changes, value) in all.iter_mut().zip([high, low]) {
            changes.push(change(line, value).await?);
        }
    }
    Ok(all)
}

async fn change(line: &mut Line<'_>, value: &str) -> anyhow::Result<Restart> {
    let before = line.servers.started().await?;
    // One writer a change: while nobody measures nobody writes.
    let writer = Writer::start(line.servers.primary(), line.servers.password()).await?;
    let timeline = line.applied(&[("max_connections", value)]).await;
    let seen = writer.take();
    writer.stop().await;
    let timeline = timeline.with_context(|| format!("max_connections = {value}"))?;
    let restarted = line.servers.started().await?.differing(&before);
    anyhow::ensure!(restarted.len() == 3, "only {restarted:?} were restarted");
    anyhow::ensure!(seen.commits > 0, "the writer has not written anything");
    Ok(Restart { timeline, gap: seen.gap })
}

/// `proven`, `gap`: milliseconds to reach; 0 when the design names none.
fn figures(way: &str, changes: &[Restart], proven: f64, gap: f64) -> Vec<Figure> {
    let gaps = changes.iter().map(|change| change.gap);
    let timelines: Vec<Timeline> = changes.iter().map(|c| c.timeline.clone()).collect();
    let mut all = vec![Figure::of_durations("longest gap between two writes", gaps).reach(gap)];
    all.extend(reload::figures(&timelines, proven));
    all.into_iter().map(|figure| figure.named(way)).collect()
}
