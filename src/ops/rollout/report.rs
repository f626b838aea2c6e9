//! What an execution proved and measured, for the request's status.
//!
//! Grows with the rollout: a restart and its cost stand in it as soon as they are known. Holds
//! names of parameters, never values.

use crate::api::ops_request::ProofReport;
use crate::instance::protocol::Restarted;
use crate::ops::journal::Journal;
use crate::ops::seen::{Measured, Progress, Seen, Server};
use crate::ops::status;
use crate::ops::step::Step;

use super::Current;

/// The report with a restart added.
pub fn with_restart(
    seen: &Seen,
    current: &Current<'_>,
    measured: &Measured,
) -> (ProofReport, String) {
    let status = current.request.and_then(|request| request.status.as_ref());
    let mut report = status::report(status);
    let Measured { node, primary, connections, restarted } = measured;
    let role = if *primary { "primary" } else { "standby" };
    let (gap, message) = match restarted {
        Restarted::Restarted { stop_ms, start_ms, .. } => {
            let message = format!("restarted {node} ({role}): down for {} ms", stop_ms + start_ms);
            (Some(stop_ms + start_ms), message)
        }
        Restarted::FellBack { gap_ms, .. } => {
            let message =
                format!("{node} ({role}) did not start with it and went back: {gap_ms} ms");
            (Some(*gap_ms), message)
        }
        Restarted::Down { .. } => (None, format!("{node} ({role}) does not start")),
    };
    report.restarted.push(format!("{node} {role}"));
    let server = seen.servers().find(|(name, _)| *name == node.as_str());
    let number = server.and_then(|(_, server)| started(server));
    report.starts.extend(number.map(|number| (node.clone(), number)));
    let cut = i64::from(*connections);
    report.connections_cut = Some(report.connections_cut.unwrap_or_default() + cut);
    if *primary && let Some(gap) = gap.and_then(|gap| i64::try_from(gap).ok()) {
        report.writes_paused_ms = Some(report.writes_paused_ms.unwrap_or_default() + gap);
    }
    (report, message)
}

/// The report at the end.
pub fn of_end(seen: &Seen, current: &Current<'_>, pending_restart: Vec<String>) -> ProofReport {
    let status = current.request.and_then(|request| request.status.as_ref());
    let mut report = status::report(status);
    let nodes = i32::try_from(seen.nodes.len()).unwrap_or(i32::MAX);
    report.nodes = nodes;
    report.proven = nodes;
    report.pending_restart = pending_restart;
    finish(seen, current, &mut report);
    report
}

/// What is known at any end, good or bad.
pub fn finish(seen: &Seen, current: &Current<'_>, report: &mut ProofReport) {
    report.nodes = i32::try_from(seen.nodes.len()).unwrap_or(i32::MAX);
    let version = seen.servers().find_map(|(_, server)| server.facts.version.as_ref());
    if let Some(version) = version {
        report.server_version = format!("PostgreSQL {}", version.text);
    }
    let now = seen.primary().map(|(name, _)| name);
    let before = current.journal.and_then(|journal| journal.primary.as_deref());
    report.roles_unchanged = now.is_some() && now == before;
    if let Some(journal) = current.journal {
        report.configuration = crate::api::names::digest(&[&journal.target().file]);
    }
    let accepted = current.request.and_then(|request| Progress::of(request).accepted);
    let began = accepted.or(current.journal.map(|journal| journal.began));
    report.duration_ms = began.map_or(0, |began| {
        i64::try_from(current.now.duration_since(began).as_millis()).unwrap_or(i64::MAX)
    });
}

/// A restart that nobody reported: the process that made it ended before it could. To be noted
/// before the next one is made, so that the order told is the order made.
pub fn unreported(seen: &Seen, current: &Current<'_>, journal: &Journal) -> Option<Step> {
    let request = current.request?;
    let mut report = status::report(request.status.as_ref());
    let told = |node: &str| report.starts.get(node).copied().unwrap_or(journal.base.0);
    let started =
        seen.servers().filter_map(|(node, server)| Some((started(server)?, node, server)));
    let untold = started.filter(|(number, node, _)| *number > told(node));
    let (number, node, server) = untold.min_by_key(|(number, ..)| *number)?;
    let role = if server.is_primary() { "primary" } else { "standby" };
    report.restarted.push(format!("{node} {role}"));
    report.starts.insert(node.to_owned(), number);
    let message = format!("restarted {node} ({role}); whoever did it ended before saying the cost");
    Some(Step::Note(status::restarted(request, report, node, &message, current.now)))
}

/// The number of the set that a server was last started with: higher with every restart of a
/// rollout, whatever the nodes' clocks say.
fn started(server: &Server) -> Option<u64> {
    server.facts.sets.last_started.as_ref().map(|set| set.sequence)
}
