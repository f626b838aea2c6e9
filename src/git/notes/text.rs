//! What becomes of a note that is already there. Pure.
//!
//! Lines for machines only grow in number; one that says the same as the newest one about its
//! database, but for the time, is no news. The text for people is ours and replaced as a
//! whole, but what somebody else wrote into it is kept below a line of its own: nobody's words
//! are thrown away by a program.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

/// Stands between our text and what others added.
pub(super) const KEPT: &str = "Kept: the lines below were added by somebody else";
/// Most text of others that is kept on one commit.
const KEPT_LIMIT: usize = 64 * 1024;

/// The lines that are there, then those of `new` that say something new.
pub(super) fn append(existing: &str, new: &[String]) -> String {
    let mut text = existing.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let mut there: HashSet<&str> = existing.lines().collect();
    let mut newest: HashMap<String, Value> = existing.lines().filter_map(record).collect();
    for line in new {
        if !there.insert(line) {
            continue;
        }
        // While a push is refused the same result is composed anew with every look.
        if let Some((database, says)) = record(line)
            && newest.insert(database, says.clone()) == Some(says)
        {
            continue;
        }
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// The database that a line is about, and what it says but for the time.
fn record(line: &str) -> Option<(String, Value)> {
    let mut says: Value = serde_json::from_str(line).ok()?;
    let fields = says.as_object_mut()?;
    fields.remove("ts");
    let database = fields.get("db")?.as_str()?.to_owned();
    Some((database, says))
}

/// The lines of `new` that `old` does not have.
pub(super) fn added(old: &str, new: &str) -> Vec<String> {
    let there: HashSet<&str> = old.lines().collect();
    new.lines().filter(|line| !there.contains(line)).map(str::to_owned).collect()
}

/// `ours`, and below it what others wrote: what had been kept before, and the lines of `existing`
/// that were not in `previous`, the text that we last wrote.
pub(super) fn replace(existing: &str, previous: &str, ours: &str) -> String {
    // Whoever composed it from what stood there may have taken the words of others along.
    let ours = split(ours).0;
    let mut text = ours.trim_end().to_owned();
    text.push('\n');
    let (body, mut kept) = split(existing);
    let known: HashSet<&str> =
        split(previous).0.lines().chain(ours.lines()).map(str::trim_end).collect();
    kept.extend(
        body.lines().filter(|line| !line.trim().is_empty() && !known.contains(line.trim_end())),
    );
    if kept.is_empty() {
        return text;
    }
    text.push('\n');
    text.push_str(KEPT);
    text.push('\n');
    let limit = text.len() + KEPT_LIMIT;
    for line in kept {
        if text.len() + line.len() < limit {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// Our part of a text.
pub(super) fn ours(text: &str) -> &str {
    split(text).0
}

fn split(text: &str) -> (&str, Vec<&str>) {
    let at = match text.strip_prefix(KEPT) {
        Some(_) => Some(0),
        None => text.find(&format!("\n{KEPT}\n")).map(|at| at + 1),
    };
    let Some((body, rest)) = at.and_then(|at| text.split_at_checked(at)) else {
        return (text, vec![]);
    };
    (body, rest.lines().skip(1).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(existing: &str, previous: &str, ours: &str, expected: &str) {
        let got = replace(existing, previous, ours);
        assert_eq!(got, expected);
        assert_eq!(replace(&got, &got, ours), expected, "a second time changes nothing");
    }

    #[test]
    fn our_text_is_replaced_and_others_words_are_kept() {
        let kept = format!("\n{KEPT}\n");
        check("", "", "APPLIED", "APPLIED\n");
        check("IN PROGRESS\n", "IN PROGRESS\n", "APPLIED\n\n", "APPLIED\n");
        let foreign = "IN PROGRESS\n\nsaw it\n";
        check(foreign, "IN PROGRESS\n", "APPLIED", &format!("APPLIED\n{kept}saw it\n"));
        let tail = format!("IN PROGRESS\n{kept}saw it\n");
        check(&tail, &tail, "APPLIED", &format!("APPLIED\n{kept}saw it\n"));
        let more = format!("{tail}me too\n");
        check(&more, &tail, "APPLIED", &format!("APPLIED\n{kept}saw it\nme too\n"));
        check("theirs\n", "", "APPLIED", &format!("APPLIED\n{kept}theirs\n"));
        check("APPLIED\n", "", "APPLIED", "APPLIED\n");
        let both = format!("APPLIED\nAttempt: 2\n{kept}saw it\n");
        check(&tail, &tail, &both, &both);
    }

    #[test]
    fn an_unchanged_text_stays_byte_for_byte() {
        let tail = format!("APPLIED\n\n{KEPT}\nsaw it\n");
        assert_eq!(replace(&tail, &tail, ours(&tail)), tail);
    }

    #[test]
    fn others_words_have_a_limit() {
        let much = "x".repeat(100).replace('x', &format!("{}\n", "y".repeat(2000)));
        let much: String = much.lines().enumerate().map(|(i, l)| format!("{i}{l}\n")).collect();
        assert!(replace(&much, "", "APPLIED").len() < KEPT_LIMIT + 200);
    }

    #[test]
    fn lines_are_only_ever_added_once() {
        let lines = |all: &[&str]| all.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
        assert_eq!(append("", &lines(&["a", "b", "a"])), "a\nb\n");
        assert_eq!(append("a\nfrom others", &lines(&["a", "b"])), "a\nfrom others\nb\n");
        assert_eq!(append("a\nb\n", &lines(&["b"])), "a\nb\n");
        let line = |ts: u32, db: &str, phase: &str| {
            format!(r#"{{"ts":"{ts}","db":"{db}","phase":"{phase}"}}"#)
        };
        let held = line(1, "a", "held");
        let text = append("", std::slice::from_ref(&held));
        assert_eq!(append(&text, &[line(2, "a", "held")]), text, "only the time differs");
        let more = [line(3, "b", "held"), line(4, "a", "running"), line(5, "a", "held")];
        let expected = format!("{held}\n{}\n{}\n{}\n", more[0], more[1], more[2]);
        assert_eq!(append(&text, &more), expected, "held again is news");
    }
}
