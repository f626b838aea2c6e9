//! The text of a note: how the outcome of a commit reads, for people and for machines.
//!
//! First a verdict of at most 72 columns, then a block for each database, each line true on its
//! own. The same outcome always gives the same bytes. Leaves the facts to `outcome.rs` and the
//! writing to `act.rs`. Never rewrites a final verdict: further attempts are appended.

mod corrected;
mod machine;
mod verdict;

use std::collections::BTreeMap;

use jiff::Timestamp;

pub use corrected::stands;
use machine::{machine_line, machine_lines};
use verdict::{is_final_text, verdict};

use super::outcome::{Attempt, Block, CommitOutcome, Correction, Fate, Outcome};
use super::plan::{Held, Weight};
use crate::api::names::{CommitId, DatabaseRef};
use crate::api::ops_request::{OpsPhase, ProofReport};
use crate::pgconf::tiers;

/// Most problems of one document in a note; `validate` lists all.
const REASONS: usize = 20;
/// Most changed parameters of one database in a note; the request has all.
const CHANGES: usize = 100;
/// Longest line: what a server says may be long.
const LINE: usize = 400;

/// What is to stand on a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The commit.
    pub commit: CommitId,
    /// The text for people.
    pub text: String,
    /// Lines for machines.
    pub lines: Vec<String>,
    /// Whether it closes the commit: such notes are pushed at once.
    pub is_final: bool,
}

impl Note {
    /// Every note that has to change, given what stands on the commits. `corrections`: those of the
    /// outcome of which it is not known yet that they stand in a note.
    pub fn wanted(
        outcome: &Outcome,
        corrections: &[Correction],
        standing: &BTreeMap<CommitId, String>,
        instance: &str,
        now: Timestamp,
    ) -> Vec<Self> {
        let text = |id: &CommitId| standing.get(id).map(String::as_str);
        let of = |commit| Self::of(commit, text(&commit.commit), instance, now);
        let mut wanted: Vec<Self> = outcome.commits.iter().filter_map(of).collect();
        let attempts = by_commit(&outcome.attempts, |attempt| &attempt.commit);
        wanted.extend(attempts.into_iter().filter_map(|(commit, attempts)| {
            Self::appended(commit, &attempts, text(commit), instance, now)
        }));
        for (commit, corrections) in by_commit(corrections, |correction| &correction.commit) {
            let news = wanted.iter_mut().find(|note| note.commit == *commit);
            let existing = match &news {
                Some(note) => Some(note.text.as_str()),
                None => text(commit),
            };
            let is_open = || outcome.commits.iter().any(|o| o.commit == *commit && !o.is_settled());
            if !existing.map_or_else(|| !is_open(), is_final_text) {
                continue;
            }
            let with = Self::corrected(commit, &corrections, existing, instance, now);
            match (news, with) {
                (Some(note), Some(with)) => {
                    note.text = with.text;
                    note.lines.extend(with.lines);
                }
                (None, Some(with)) => wanted.push(with),
                (Some(_) | None, None) => {}
            }
        }
        wanted
    }

    /// The note of a commit, if what stands there (`existing`) has to change.
    pub fn of(
        outcome: &CommitOutcome,
        existing: Option<&str>,
        instance: &str,
        now: Timestamp,
    ) -> Option<Self> {
        let verdict = verdict(outcome);
        let is_final = outcome.is_settled();
        let keep = existing.is_some_and(|text| {
            let stands = text.lines().next().unwrap_or_default();
            is_final_text(text) || (!is_final && stands == verdict)
        });
        if keep {
            return None;
        }
        Some(Self {
            commit: outcome.commit.clone(),
            text: text(outcome, &verdict),
            lines: machine_lines(outcome, instance, now),
            is_final,
        })
    }

    /// The note with further attempts at its foot, if they do not stand there already.
    pub fn appended(
        commit: &CommitId,
        attempts: &[&Attempt],
        existing: Option<&str>,
        instance: &str,
        now: Timestamp,
    ) -> Option<Self> {
        let mut text = existing.unwrap_or_default().trim_end().to_owned();
        let mut lines = Vec::new();
        for attempt in attempts {
            let Attempt { database, request, fate, proof, .. } = attempt;
            let namespaced = format!("{}/{request}", database.namespace);
            if text.contains(&namespaced) {
                continue;
            }
            let how = outcome_line(fate, proof.as_ref(), None);
            let line = format!("Attempt: {database} {how} ({namespaced})");
            text = format!("{text}\n{}", cut(&line));
            let block = Block {
                fate: fate.clone(),
                file: None,
                version: None,
                nodes: None,
                request: Some((request.clone(), Default::default())),
                merged: None,
                changes: Vec::new(),
                proof: proof.clone(),
                runs: None,
            };
            lines.push(machine_line(commit, database, &block, None, instance, now));
        }
        if lines.is_empty() {
            return None;
        }
        Some(Self { commit: commit.clone(), text: text + "\n", lines, is_final: true })
    }
}

/// Results by the commit on which they are noted, each in its order.
fn by_commit<T>(all: &[T], of: impl Fn(&T) -> &CommitId) -> BTreeMap<&CommitId, Vec<&T>> {
    let mut by_commit: BTreeMap<&CommitId, Vec<&T>> = BTreeMap::new();
    for one in all {
        by_commit.entry(of(one)).or_default().push(one);
    }
    by_commit
}

fn text(outcome: &CommitOutcome, verdict: &str) -> String {
    let mut text = format!("{verdict}\n");
    for (database, block) in &outcome.blocks {
        text.push('\n');
        for line in block_lines(outcome, database, block) {
            text.push_str(&cut(&line));
            text.push('\n');
        }
    }
    for (file, problem) in &outcome.broken {
        let lines = [
            format!("File: {file}"),
            "Outcome: refused; no database is taken from what cannot be read".to_owned(),
            format!("Reason: {problem}"),
            format!("Next-Step: fix {file} and push"),
        ];
        text.push('\n');
        for line in lines {
            text.push_str(&cut(&line));
            text.push('\n');
        }
    }
    text
}

/// One line, without control characters, not too long.
fn cut(line: &str) -> String {
    let clean: String =
        line.chars().take(LINE).map(|c| if c.is_control() { ' ' } else { c }).collect();
    clean.trim_end().to_owned()
}

fn block_lines(outcome: &CommitOutcome, database: &DatabaseRef, block: &Block) -> Vec<String> {
    let about: Vec<String> = [block.file.clone(), block.version.clone(), block.nodes.map(nodes)]
        .into_iter()
        .flatten()
        .collect();
    let about = if about.is_empty() { String::new() } else { format!(" ({})", about.join(", ")) };
    let mut lines = vec![format!("Database: {database}{about}")];
    let how = outcome_line(&block.fate, block.proof.as_ref(), block.runs.as_ref());
    lines.push(format!("Outcome: {how}"));
    if let Some((request, phase)) = &block.request {
        let merged = block.merged.as_ref().map(|ours| format!(", merged from {ours} and others"));
        let merged = merged.unwrap_or_default();
        let phase = match phase {
            OpsPhase::Other => "in a phase that this version does not know".to_owned(),
            known => format!("{known:?}"),
        };
        lines.push(format!("Ops-Request: {}/{request} {phase}{merged}", database.namespace));
    }
    for change in block.changes.iter().take(CHANGES) {
        lines.push(format!("Changed: {}", change.line()));
    }
    if let Some(more) = block.changes.len().checked_sub(CHANGES).filter(|more| *more > 0) {
        lines.push(format!("Changed: and {more} more"));
    }
    lines.extend(endings(outcome, database, block));
    lines
}

/// The lines below the changes: what it cost, or why it was not done.
fn endings(outcome: &CommitOutcome, database: &DatabaseRef, block: &Block) -> Vec<String> {
    match &block.fate {
        Fate::Applied => {
            let mut lines = order_and_impact(block);
            lines.extend(undo(outcome, block));
            lines
        }
        Fate::PendingRestart(names) => {
            let next = format!("run pgitops restart -n {} {}", database.namespace, database.name);
            vec![
                format!("Reason: {} waits for a restart", names.join(", ")),
                format!("Next-Step: {next}"),
            ]
        }
        Fate::Superseded(newer) => vec![format!("Superseded-By: {newer}")],
        Fate::Held(held) => {
            let mut lines = reasons(held);
            let freeze = if held.weight() == Weight::Refused {
                "; until then drift is not corrected"
            } else {
                ""
            };
            lines.push(format!("Next-Step: {}{freeze}", held.lift(database)));
            lines
        }
        Fate::NoChange | Fate::Released | Fate::Running { .. } => Vec::new(),
    }
}

fn reasons(held: &Held) -> Vec<String> {
    if let Held::Refused(problems) = held {
        let refusals = problems.iter().filter(|problem| problem.is_refusal());
        return refusals.take(REASONS).map(|problem| format!("Reason: {problem}")).collect();
    }
    match held {
        Held::Failed { words, .. } | Held::Denied { words, .. } if !words.is_empty() => {
            vec![format!("Reason: {words}")]
        }
        other => vec![format!("Reason: {}", other.text())],
    }
}

fn nodes(number: i32) -> String {
    if number == 1 { "1 node".to_owned() } else { format!("{number} nodes") }
}

/// What stands behind `Outcome:`.
fn outcome_line(fate: &Fate, proof: Option<&ProofReport>, runs: Option<&CommitId>) -> String {
    let still = match runs {
        Some(commit) => format!("still running what {} asked for", commit.short()),
        None => "nothing was changed".to_owned(),
    };
    match (fate, proof) {
        (Fate::Applied, Some(proof)) => {
            format!("applied, proven on {} of {} nodes", proof.proven, proof.nodes)
        }
        (Fate::Applied, None) => "applied, reported by KubeDB, not proven".to_owned(),
        (Fate::PendingRestart(_), _) => "configured, waits for a restart".to_owned(),
        (Fate::NoChange, _) => "no change; it runs this already".to_owned(),
        (Fate::Released, _) => "released; it keeps its values".to_owned(),
        (Fate::Superseded(_), _) => "superseded before anything was sent".to_owned(),
        (Fate::Running { .. }, _) => "in progress".to_owned(),
        (Fate::Held(Held::Denied { .. }), _) => format!("denied before any change; {still}"),
        (Fate::Held(held), proof) => match (held.weight(), proof) {
            (Weight::Failed, Some(proof)) if proof.rolled_back => {
                "failed; the previous configuration is in force again".to_owned()
            }
            (Weight::Failed, Some(_)) => format!("failed before any change; {still}"),
            (Weight::Failed, None) => "failed, reported by KubeDB, not proven".to_owned(),
            (Weight::Refused, _) => format!("refused before any change; {still}"),
            (Weight::Held, _) => format!("held; {still}"),
            (Weight::Waiting, _) => format!("waiting; {still}"),
        },
    }
}

/// `Order:` and `Impact:`, as far as somebody reported them.
fn order_and_impact(block: &Block) -> Vec<String> {
    let Some(proof) = &block.proof else { return Vec::new() };
    if proof.restarted.is_empty() {
        return vec!["Impact: reload only, no connection was cut".to_owned()];
    }
    let mut lines = vec![format!("Order: {}", order(&proof.restarted))];
    let mut impact = Vec::new();
    impact.extend(proof.writes_paused_ms.map(|ms| format!("writes paused {ms} ms")));
    impact.extend(proof.connections_cut.map(|number| match number {
        1 => "1 connection cut".to_owned(),
        _ => format!("{number} connections cut"),
    }));
    impact.push(match proof.roles_unchanged {
        true => "roles unchanged".to_owned(),
        false => "roles changed".to_owned(),
    });
    lines.push(format!("Impact: {}", impact.join(", ")));
    lines
}

/// `pg-1, pg-2 (standbys), pg-0 (primary)` from `pg-1 standby`, `pg-2 standby`, `pg-0 primary`.
fn order(restarted: &[String]) -> String {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for entry in restarted {
        let (pod, role) = entry.split_once(' ').unwrap_or((entry, ""));
        match groups.last_mut() {
            Some((last, pods)) if *last == role => pods.push(pod),
            _ => groups.push((role, vec![pod])),
        }
    }
    let group = |(role, pods): &(&str, Vec<&str>)| {
        let plural = if pods.len() > 1 && !role.is_empty() { "s" } else { "" };
        let role = if role.is_empty() { String::new() } else { format!(" ({role}{plural})") };
        format!("{}{role}", pods.join(", "))
    };
    groups.iter().map(group).collect::<Vec<_>>().join(", ")
}

/// How to undo a commit here, and what that costs.
fn undo(outcome: &CommitOutcome, block: &Block) -> Option<String> {
    if block.changes.is_empty() {
        return None;
    }
    let revert = format!("Undo: git revert {}", outcome.commit.short());
    if block.proof.is_none() {
        // Whoever carried it out has rules of its own for what a change costs.
        return Some(revert);
    }
    let restarts = block.changes.iter().any(|change| change.restarts());
    let cost = match restarts {
        false => "needs a reload".to_owned(),
        true => {
            // What went up has to come down: then the primary goes first.
            let ordered = |name: &str| tiers::tier(name) == tiers::Tier::Ordered;
            let number = |text: &str| text.parse::<i64>().ok();
            let lowers = block.changes.iter().any(|change| {
                ordered(&change.name) && number(&change.after) > number(&change.before)
            });
            let first = if lowers { "primary first" } else { "standbys first" };
            let nodes = block.nodes.unwrap_or(1);
            match nodes {
                1 => "needs 1 restart".to_owned(),
                _ => format!("needs {nodes} restarts, {first}"),
            }
        }
    };
    Some(format!("{revert}; {cost}"))
}
