//! The lines of a note for machines: one JSON object each, append-only.

use jiff::Timestamp;
use serde::Serialize;

use super::verdict::clock;
use crate::api::names::{CommitId, DatabaseRef};
use crate::sync::outcome::{Block, CommitOutcome, Fate};

/// One line for machines: append-only, each complete by itself.
#[derive(Serialize)]
struct Line<'a> {
    v: u32,
    ts: String,
    instance: &'a str,
    commit: &'a str,
    db: String,
    phase: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    /// `drift` when no commit asked for it; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ops: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proven: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nodes: Option<i32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    restarted: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    writes_paused_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<i64>,
}

pub(super) fn machine_lines(
    outcome: &CommitOutcome,
    instance: &str,
    now: Timestamp,
) -> Vec<String> {
    let blocks = outcome.blocks.iter();
    blocks
        .map(|(db, block)| machine_line(&outcome.commit, db, block, None, instance, now))
        .collect()
}

pub(super) fn machine_line(
    commit: &CommitId,
    database: &DatabaseRef,
    block: &Block,
    cause: Option<&str>,
    instance: &str,
    now: Timestamp,
) -> String {
    let proof = block.proof.as_ref();
    let line = Line {
        v: 1,
        ts: clock(now),
        instance,
        commit: commit.as_str(),
        db: database.to_string(),
        phase: block.fate.word(),
        reason: match &block.fate {
            Fate::Held(held) => Some(held.label()),
            Fate::Applied
            | Fate::PendingRestart(_)
            | Fate::NoChange
            | Fate::Released
            | Fate::Superseded(_)
            | Fate::Running { .. } => None,
        },
        cause,
        ops: block.request.as_ref().map(|(name, _)| format!("{}/{name}", database.namespace)),
        proven: proof.map(|proof| proof.proven),
        nodes: proof.map(|proof| proof.nodes),
        restarted: proof
            .map(|p| p.restarted.iter().map(String::as_str).collect())
            .unwrap_or_default(),
        writes_paused_ms: proof.and_then(|proof| proof.writes_paused_ms),
        duration_ms: proof.map(|proof| proof.duration_ms),
    };
    // A struct of plain fields always serialises.
    serde_json::to_string(&line).unwrap_or_default()
}
