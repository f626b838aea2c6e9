//! What becomes of a note that is already there. Pure.
//!
//! Lines for machines are a set that only grows. The text for people is ours and replaced as a
//! whole, but what somebody else wrote into it is kept below a line of its own: nobody's words
//! are thrown away by a program.

use std::collections::HashSet;

/// Stands between our text and what others added.
pub(super) const KEPT: &str = "Kept: the lines below were added by somebody else";
/// Most text of others that is kept on one commit.
const KEPT_LIMIT: usize = 64 * 1024;

/// The lines that are there, then those of `new` that are not.
pub(super) fn append(existing: &str, new: &[String]) -> String {
    let mut text = existing.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    let mut there: HashSet<&str> = existing.lines().collect();
    for line in new {
        if there.insert(line) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// The lines of `new` that `old` does not have.
pub(super) fn added(old: &str, new: &str) -> Vec<String> {
    let there: HashSet<&str> = old.lines().collect();
    new.lines().filter(|line| !there.contains(line)).map(str::to_owned).collect()
}

/// `ours`, and below it what others wrote: what had been kept before, and the lines of `existing`
/// that were not in `previous`, the text that we last wrote.
pub(super) fn replace(existing: &str, previous: &str, ours: &str) -> String {
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
    }
}
