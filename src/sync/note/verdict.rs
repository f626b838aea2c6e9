//! The first line of a note: at most 72 columns, the worst database's fate first.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;

use crate::api::names::CommitId;
use crate::sync::outcome::{CommitOutcome, Fate};
use crate::sync::plan::Weight;

/// Beginnings of verdicts that are not final.
const INTERIM: [&str; 3] = ["IN PROGRESS", "HELD", "WAITING"];
/// Whether the verdict of a note is final.
pub fn is_final_text(text: &str) -> bool {
    !INTERIM.iter().any(|begin| text.starts_with(begin))
}

/// The first line.
pub(super) fn verdict(outcome: &CommitOutcome) -> String {
    let tally = Tally::of(outcome);
    if let Some((since, deadline)) = tally.running {
        return format!("IN PROGRESS as of {}, deadline {}", clock(since), clock(deadline));
    }
    let of = tally.blocks;
    let databases = if of == 1 { "database" } else { "databases" };
    let keeps = if of == 1 { "keeps its" } else { "keep their" };
    let runs = if of == 1 { "runs" } else { "run" };
    let alone = |fate: &str| tally.count(fate) == of && of > 0 && outcome.broken.is_empty();
    if alone("no change") {
        return format!("NO CHANGE: {of} {databases} {runs} this already");
    }
    if alone("released") {
        return format!("RELEASED: {of} {databases} {keeps} values, no longer configured");
    }
    if let Some(newer) = tally.newer.as_ref().filter(|_| alone("superseded")) {
        return format!("SUPERSEDED: by {} before anything was sent", newer.short());
    }
    let done = tally.count("applied") + tally.count("no change") + tally.count("released");
    let begin = match tally.worst() {
        None if outcome.broken.is_empty() => "APPLIED",
        Some(Weight::Failed) => "FAILED",
        Some(Weight::Held) if !outcome.is_settled() => "HELD",
        Some(Weight::Waiting) if !outcome.is_settled() => "WAITING",
        Some(_) | None if done > 0 => "INCOMPLETE",
        None if tally.count("pending restart") > 0 => "PENDING RESTART",
        Some(_) | None => "REFUSED",
    };
    let begin = match tally.count("pending restart") > 0 && begin == "APPLIED" {
        true => "PENDING RESTART",
        false => begin,
    };
    let mut line = format!("{begin}: {done} of {of} {databases} applied");
    for word in ["failed", "refused", "held", "waiting", "superseded", "pending restart"] {
        match tally.count(word) {
            0 => {}
            number => write!(line, ", {number} {word}").unwrap_or_default(),
        }
    }
    match outcome.broken.len() {
        0 => {}
        1 => line.push_str(", 1 file unreadable"),
        number => write!(line, ", {number} files unreadable").unwrap_or_default(),
    }
    line.chars().take(72).collect()
}

/// How many databases came to what.
#[derive(Default)]
struct Tally {
    blocks: usize,
    counts: BTreeMap<&'static str, usize>,
    worst: Option<Weight>,
    running: Option<(Timestamp, Timestamp)>,
    newer: Option<CommitId>,
}

impl Tally {
    fn of(outcome: &CommitOutcome) -> Self {
        let mut tally = Self { blocks: outcome.blocks.len(), ..Self::default() };
        for block in outcome.blocks.values() {
            let word = match &block.fate {
                Fate::Applied => "applied",
                Fate::PendingRestart(_) => "pending restart",
                Fate::NoChange => "no change",
                Fate::Released => "released",
                Fate::Superseded(newer) => {
                    tally.newer = Some(newer.clone());
                    "superseded"
                }
                Fate::Running { since, deadline } => {
                    let (begin, end) = tally.running.unwrap_or((*since, *deadline));
                    tally.running = Some((begin.min(*since), end.max(*deadline)));
                    "running"
                }
                Fate::Held(held) => {
                    tally.worst = tally.worst.max(Some(held.weight()));
                    match held.weight() {
                        Weight::Failed => "failed",
                        Weight::Refused => "refused",
                        Weight::Held => "held",
                        Weight::Waiting => "waiting",
                    }
                }
            };
            *tally.counts.entry(word).or_default() += 1;
        }
        tally
    }

    fn count(&self, word: &str) -> usize {
        self.counts.get(word).copied().unwrap_or_default()
    }

    fn worst(&self) -> Option<Weight> {
        self.worst
    }
}

/// Whole seconds, UTC.
pub(super) fn clock(at: Timestamp) -> String {
    let whole = at.round(jiff::Unit::Second).unwrap_or(at);
    whole.to_string()
}
