//! Lines at the foot of a note about values of others that were brought back, or were not.
//!
//! Each is true on its own and names its request, by which it is known again: it is written once,
//! whatever was forgotten. Never lets a note grow without end.

use jiff::Timestamp;

use super::machine::machine_line;
use super::{LINE, Note, cut, outcome_line};
use crate::api::names::CommitId;
use crate::sync::drift::Change;
use crate::sync::outcome::{Block, Correction, Fate};
use crate::sync::plan::Held;

/// How a line about a correction begins.
const CORRECTED: &str = "Drift-Corrected: ";
/// How a line about a correction that failed begins.
const NOT_CORRECTED: &str = "Drift-Not-Corrected: ";
/// Most such lines of one note.
const CORRECTIONS: usize = 20;
/// The last line, once there are more.
const MORE: &str = "Drift-More: there are later corrections; pgitops log names their requests";
/// Most parameters of one line.
const NAMED: usize = 5;

impl Note {
    /// The note with these corrections at its foot, as far as they do not stand there already.
    pub(super) fn corrected(
        commit: &CommitId,
        corrections: &[&Correction],
        existing: Option<&str>,
        instance: &str,
        now: Timestamp,
    ) -> Option<Self> {
        let mut text = existing.unwrap_or_default().to_owned();
        let mut lines = Vec::new();
        let mut is_new = false;
        for correction in corrections {
            if stands(&text, correction) {
                continue;
            }
            is_new = true;
            let trimmed = text.trim_end();
            let gap = if trimmed.is_empty() { "" } else { "\n" };
            if number(&text) >= CORRECTIONS {
                text = format!("{trimmed}{gap}{MORE}\n");
                break;
            }
            text = format!("{trimmed}{gap}{}\n", line(correction));
            lines.push(machine(commit, correction, instance, now));
        }
        is_new.then(|| Self { commit: commit.clone(), text, lines, is_final: true })
    }
}

/// Whether a note tells of a correction, or says that it tells of no more.
pub fn stands(text: &str, correction: &Correction) -> bool {
    let name = name(correction);
    text.lines().any(|line| line == MORE || (is_about(line) && line.ends_with(&name)))
}

fn number(text: &str) -> usize {
    text.lines().filter(|line| is_about(line)).count()
}

fn is_about(line: &str) -> bool {
    line.starts_with(CORRECTED) || line.starts_with(NOT_CORRECTED)
}

/// The request, as the end of a line.
fn name(correction: &Correction) -> String {
    format!(" ({}/{})", correction.database.namespace, correction.request)
}

fn line(correction: &Correction) -> String {
    let Correction { database, changes, fate, proof, .. } = correction;
    let how = outcome_line(fate, proof.as_ref(), None);
    let (begin, how) = match fate {
        Fate::Held(Held::Failed { words, .. } | Held::Denied { words, .. })
            if !words.is_empty() =>
        {
            (NOT_CORRECTED, format!("{how}: {words}"))
        }
        Fate::Held(_) => (NOT_CORRECTED, how),
        Fate::Applied
        | Fate::PendingRestart(_)
        | Fate::NoChange
        | Fate::Released
        | Fate::Superseded(_)
        | Fate::Running { .. } => {
            (CORRECTED, how.strip_prefix("applied, ").unwrap_or(&how).to_owned())
        }
    };
    let mut named: Vec<String> = changes.iter().take(NAMED).map(short).collect();
    named.extend(
        changes.len().checked_sub(NAMED).filter(|n| *n > 0).map(|n| format!("and {n} more")),
    );
    let named = if named.is_empty() { String::new() } else { format!(" {}", named.join(", ")) };
    // Whatever a server says, the name by which the line is known stays whole.
    let name = name(correction);
    let room = LINE.saturating_sub(name.chars().count());
    let said: String = format!("{begin}{database}{named}, {how}").chars().take(room).collect();
    cut(&format!("{said}{name}"))
}

/// `work_mem 7MB -> 16MB`.
fn short(change: &Change) -> String {
    let shown = |value: &str| if value.is_empty() { "''".to_owned() } else { value.to_owned() };
    format!("{} {} -> {}", change.name, shown(&change.before), shown(&change.after))
}

fn machine(commit: &CommitId, correction: &Correction, instance: &str, now: Timestamp) -> String {
    let block = Block {
        fate: correction.fate.clone(),
        file: None,
        version: None,
        nodes: None,
        request: Some((correction.request.clone(), Default::default())),
        merged: None,
        changes: Vec::new(),
        proof: correction.proof.clone(),
        runs: None,
    };
    machine_line(commit, &correction.database, &block, Some("drift"), instance, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::names::{DatabaseRef, RequestName};

    fn correction(number: usize, words: Option<&str>) -> Correction {
        let commit = CommitId::parse(&"1".repeat(40)).unwrap();
        let request = RequestName(format!("orders-{number:08x}"));
        let fate = match words {
            None => Fate::Applied,
            Some(words) => Fate::Held(Held::Failed {
                commit: commit.clone(),
                request: request.clone(),
                words: words.to_owned(),
            }),
        };
        let database = DatabaseRef { namespace: "demo".into(), name: "orders".into() };
        Correction { commit, database, request, changes: Vec::new(), fate, proof: None }
    }

    #[test]
    fn a_note_ends_with_the_word_that_there_are_more() {
        let mut existing = "APPLIED: 1 of 1 database applied\n".to_owned();
        let mut told = 0;
        for number in 0..30 {
            let one = correction(number, None);
            let commit = one.commit.clone();
            let note =
                Note::corrected(&commit, &[&one], Some(&existing), "i", Timestamp::UNIX_EPOCH);
            if let Some(note) = note {
                told += note.lines.len();
                existing = note.text;
            }
            assert!(stands(&existing, &one));
        }
        assert_eq!((existing.lines().count(), told), (1 + CORRECTIONS + 1, CORRECTIONS));
        assert_eq!(existing.lines().last(), Some(MORE));
        let all: Vec<Correction> = (0..30).map(|number| correction(number, None)).collect();
        let all: Vec<&Correction> = all.iter().collect();
        let first = Some("APPLIED: 1 of 1 database applied\n");
        let at_once = Note::corrected(&all[0].commit, &all, first, "i", Timestamp::UNIX_EPOCH);
        assert_eq!(at_once.unwrap().text, existing);
    }

    #[test]
    fn long_words_leave_the_request_known() {
        let words = "no\nroom ".repeat(200);
        let one = correction(7, Some(&words));
        let at = Timestamp::UNIX_EPOCH;
        let note = Note::corrected(&one.commit, &[&one], None, "i", at).unwrap();
        assert!(note.text.starts_with(NOT_CORRECTED), "{}", note.text);
        assert!(note.text.ends_with(" (demo/orders-00000007)\n"), "{}", note.text);
        assert_eq!((note.text.lines().count(), note.text.trim_end().len()), (1, LINE));
        assert!(note.lines[0].contains(r#""cause":"drift""#), "{}", note.lines[0]);
        let again = Note::corrected(&one.commit, &[&one], Some(&note.text), "i", at);
        assert_eq!(again, None);
    }
}
