//! The server's own words, from what it wrote to its log; pure.
//!
//! Picks what says why, cuts prefixes, masks values of parameters that may hold secrets, and caps
//! the length. Leaves the whole log to the container's log.

use super::protocol::MAX_WORDS;
use crate::pgconf::tiers::{HIDDEN, is_sensitive};

/// Levels that say why something failed.
const LEVELS: [&str; 7] = ["FATAL:", "PANIC:", "ERROR:", "DETAIL:", "HINT:", "CONTEXT:", "LOG:"];

/// Beginnings of LOG lines that say why a file is refused; other LOG lines are the usual chat.
const TELLING: [&str; 14] = [
    "invalid value for parameter",
    "unrecognized configuration parameter",
    "parameter \"",
    "syntax error in file",
    "too many syntax errors",
    "configuration file",
    "could not ",
    "invalid ",
    "shutting down due to",
    "recovery aborted",
    "startup process",
    "terminating any other",
    "server process",
    "must be",
];

/// The lines that say why, masked and capped; if none does, the last few.
#[must_use]
pub fn pick<'a>(lines: impl IntoIterator<Item = &'a str>) -> String {
    let lines: Vec<&str> = lines.into_iter().map(str::trim).filter(|l| !l.is_empty()).collect();
    let mut picked: Vec<String> = lines.iter().filter_map(|line| telling(line)).collect();
    if picked.is_empty() {
        // Three lines hold what a program says when it cannot even be started.
        picked = lines.iter().rev().take(3).rev().map(|line| mask(line)).collect();
    }
    picked.dedup();
    cap(picked.join("\n"))
}

/// The text without what may be secret, at most [`MAX_WORDS`] bytes.
#[must_use]
pub fn clean(text: &str) -> String {
    cap(text.lines().map(mask).collect::<Vec<_>>().join("\n"))
}

fn telling(line: &str) -> Option<String> {
    // `postgres: …` is how it complains before its log is set up.
    if line.starts_with("postgres: ") {
        return Some(mask(line));
    }
    let (at, level) = LEVELS
        .iter()
        .filter_map(|level| Some((line.find(level)?, level)))
        .min_by_key(|(at, _)| *at)?;
    let rest = &line[at..];
    let message = rest[level.len()..].trim_start();
    let chat = *level == "LOG:"
        && !TELLING.iter().any(|beginning| message.starts_with(beginning))
        && !message.contains("outside the valid range");
    // A connection that came too early says nothing about the start.
    let early = message.starts_with("the database system is");
    (!chat && !early).then(|| mask(rest))
}

/// Hides everything that follows the name of a sensitive parameter, from the first quote or equals
/// sign on: `password=…`, `parameter "archive_command" changed to "…"`.
fn mask(line: &str) -> String {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    let mut at = 0;
    for word in line.split(|c| !is_word(c)) {
        let after = at + word.len();
        if is_sensitive(word) {
            // The name itself may stand between quotes.
            let value = after + usize::from(line[after..].starts_with('"'));
            return match line[value..].find(['"', '\'', '=']) {
                Some(found) => format!("{}{HIDDEN}", &line[..value + found]),
                None => line.to_owned(),
            };
        }
        // What separates words here may be longer than a byte.
        at = after + line[after..].chars().next().map_or(0, char::len_utf8);
    }
    line.to_owned()
}

fn cap(mut text: String) -> String {
    if text.len() > MAX_WORDS {
        let mut end = MAX_WORDS - 4;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(" ...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(log: &str, expect: &str) {
        assert_eq!(pick(log.lines()), expect);
    }

    #[test]
    fn what_says_why_is_picked() {
        check(
            "2026-01-01 00:00:00.000 GMT [7] LOG:  starting PostgreSQL 15.18\n\
             2026-01-01 00:00:00.000 GMT [7] FATAL:  could not access file \"nosuchlib\"",
            "FATAL:  could not access file \"nosuchlib\"",
        );
        check(
            "LOG:  99999999 is outside the valid range for parameter \"max_connections\"\n\
             FATAL:  configuration file \"/x\" contains errors",
            "LOG:  99999999 is outside the valid range for parameter \"max_connections\"\n\
             FATAL:  configuration file \"/x\" contains errors",
        );
        check(
            "postgres: superuser_reserved_connections (3) must be less than max_connections (2)",
            "postgres: superuser_reserved_connections (3) must be less than max_connections (2)",
        );
        check(
            "LOG:  listening on IPv4\nFATAL:  the database system is starting up",
            "LOG:  listening on IPv4\nFATAL:  the database system is starting up",
        );
        check("exec format error", "exec format error");
    }

    #[test]
    fn secrets_are_masked_and_length_is_capped() {
        check(
            "LOG:  parameter \"archive_command\" changed to \"curl -u me:secret\"",
            "LOG:  parameter \"archive_command\" changed to (hidden)",
        );
        check(
            "FATAL:  could not connect: invalid option password=secret host=x",
            "FATAL:  could not connect: invalid option password(hidden)",
        );
        check("FATAL:  ä \"primary_conninfo\": 'x'", "FATAL:  ä \"primary_conninfo\": (hidden)");
        let long = format!("FATAL:  {}", "ä".repeat(MAX_WORDS));
        assert!(pick([long.as_str()]).len() <= MAX_WORDS);
    }
}
