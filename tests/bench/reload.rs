//! A change that a reload is enough for, on three idle nodes: from push to proven and to note.

use pgitops::cli::demo::servers::three_nodes;

use crate::figure::{Figure, Unit};
use crate::line;
use crate::signs::Timeline;

/// Changes that are measured, after one that is not.
const RUNS: usize = 20;

/// Measures.
///
/// # Errors
/// When a change does not end as it must.
pub async fn measure() -> anyhow::Result<Vec<Figure>> {
    let (servers, changes) = line::with(three_nodes(None)?, async |line| {
        let mut changes = Vec::with_capacity(RUNS);
        for run in 0..=RUNS {
            let value = format!("{}MB", 5 + run);
            let timeline = line.applied(&[("work_mem", &value)]).await?;
            let restarted = &timeline.report.restarted;
            anyhow::ensure!(restarted.is_empty(), "work_mem restarted {restarted:?}");
            // The first opens connections and makes the mirror: it is not what is asked for.
            if run > 0 {
                changes.push(timeline);
            }
        }
        Ok((line.servers.describe().await?, changes))
    })
    .await?;
    println!("  {servers}");
    Ok(figures(&changes, 150.0))
}

/// From push to note, and the controller's own part.
pub fn figures(changes: &[Timeline], proven: f64) -> Vec<Figure> {
    let all = |what: &str, from: fn(&Timeline) -> _, to: fn(&Timeline) -> _| {
        let taken = changes.iter().map(|change| {
            let (from, to): (std::time::Instant, std::time::Instant) = (from(change), to(change));
            to.saturating_duration_since(from)
        });
        Figure::of_durations(what, taken)
    };
    vec![
        all("push -> request emitted", |c| c.pushed, |c| c.emitted).reach(50.0),
        all("push -> proven on 3 nodes", |c| c.pushed, |c| c.ended).reach(proven),
        all("request accepted -> proven", |c| c.accepted, |c| c.ended),
        all("push -> note in the repository", |c| c.pushed, |c| c.noted),
        Figure::of(
            "API calls until the note",
            Unit::Number,
            changes.iter().map(|c| c.calls as f64),
        ),
    ]
}
