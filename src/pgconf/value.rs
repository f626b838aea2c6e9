//! One value of one parameter, as the server understands it.
//!
//! Follows `parse_and_validate_value` of the server's `guc.c`: number, unit, rounding, range, and
//! the checks of single parameters (`hook`). Stricter than the server in one
//! point: a value that is something and rounds to 0 is refused, because 0 usually means "disabled".
//! Leaves names and tiers to `check`. Never looks at other parameters: what two of
//! them may not be together is for the server's dry run.

mod hook;

use std::fmt;

use super::catalogue::{Kind, Number, Parameter};
use super::name::Value;
use super::number::{self, Read};
use super::suggest;
use super::text;
use super::unit::Unit;

/// A value in the form in which the server reports it in `pg_settings.reset_val`: base units,
/// `on`/`off`, the enum's own spelling. Two values are the same exactly when these texts are equal
/// (reals are shown to six digits, and that is as far as anybody can see from outside).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Normalised {
    /// The server's canonical text: `104448` for `0.1GB` of a `kB` parameter.
    pub text: String,
    /// The same for people, as `SHOW` writes it: `102MB`.
    pub shown: String,
    /// What a person may not expect of this text, if anything.
    pub remark: Option<Remark>,
}

/// Something about an accepted value that a person should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// Lower case: `1024 has no unit and means 1MB`.
    pub message: String,
    /// What to write instead, as an imperative clause.
    pub instead: Option<String>,
}

/// Why the server would not take a value, or why we do not send it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of fault.
    pub why: Why,
    /// What is wrong, in lower case, without the parameter's name.
    pub message: String,
    /// What to write instead, as an imperative clause: `write 12GB`.
    pub instead: Option<String>,
}

/// The kinds of fault in a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Not a number, not a boolean.
    Syntax,
    /// A unit that the parameter does not have.
    Unit,
    /// Outside the parameter's range.
    Range,
    /// A number that is something and becomes 0 in the parameter's unit. The server may take it.
    RoundsToZero,
    /// A word that the enum does not know.
    Word,
    /// A text that the parameter's own check refuses.
    Text,
}

/// Normalises a value of a parameter that the catalogue knows.
///
/// # Errors
/// A [`Refusal`] with what to write instead. For text parameters only the checks of
/// [`text`](self) that need nothing but the text are made; a library, a file or a role that does
/// not exist is found by the server's dry run.
pub fn normalise(parameter: &Parameter, value: &Value) -> Result<Normalised, Refusal> {
    let text = value.as_str();
    match parameter.kind() {
        Kind::Bool => boolean(text).map(plain).ok_or_else(|| not_boolean(text)),
        Kind::Integer(number) => integer(parameter, number, text),
        Kind::Real(number) => real(number, text),
        Kind::Enum { words, aliases } => word(parameter, words, aliases, text),
        Kind::Text => text::canonical(parameter.name(), parameter.major(), text).map(plain),
    }
}

fn plain(text: impl Into<String>) -> Normalised {
    let text = text.into();
    Normalised { shown: text.clone(), text, remark: None }
}

/// A boolean as the server reads one: a prefix of `true`, `false`, `yes`, `no`, `on` or `off` that
/// fits only one of them, or `1` or `0`; case does not count, spaces do. Gives `on` or `off`.
pub fn boolean(text: &str) -> Option<&'static str> {
    let lower = text.to_ascii_lowercase();
    let begins = |word: &str, least: usize| lower.len() >= least && word.starts_with(&lower);
    if begins("true", 1) || begins("yes", 1) || begins("on", 2) || lower == "1" {
        Some("on")
    } else if begins("false", 1) || begins("no", 1) || begins("off", 2) || lower == "0" {
        Some("off")
    } else {
        None
    }
}

fn not_boolean(text: &str) -> Refusal {
    let lower = text.trim().to_ascii_lowercase();
    let meant = match lower.as_str() {
        "enable" | "enabled" | "active" | "ja" | "si" | "oui" => Some("on"),
        "disable" | "disabled" | "inactive" | "none" | "null" | "never" => Some("off"),
        trimmed => boolean(trimmed),
    };
    Refusal {
        why: Why::Syntax,
        message: format!("\"{}\" is not a boolean", suggest::clip(text)),
        instead: Some(format!("write {}", meant.unwrap_or("on or off"))),
    }
}

fn integer(parameter: &Parameter, range: &Number, text: &str) -> Result<Normalised, Refusal> {
    let read = number::read_integer(text).ok_or_else(|| not_number(range, text))?;
    let (base, bare) = in_base_unit(range, text, read)?;
    let rounded = base.round_ties_even();
    if rounded == 0.0 && read.number != 0.0 {
        return Err(rounds_to_zero(range, text));
    }
    if !(f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&rounded) {
        return Err(out_of_range(range, text, base));
    }
    if rounded < range.min || rounded > range.max {
        return Err(out_of_range(range, text, base));
    }
    // In range of i32, so nothing is lost.
    let asked = rounded as i64;
    let hooked = hook::apply(parameter, asked, range)?;
    let shown = range.show(hooked as f64);
    let remark = if hooked != asked {
        remark(text, format!("is raised by the server to {shown}"), None)
    } else if bare && hooked > 0 {
        without_unit(text, &shown)
    } else if base != rounded {
        remark(text, format!("is rounded to {shown}"), None)
    } else {
        None
    };
    Ok(Normalised { text: hooked.to_string(), shown, remark })
}

fn remark(text: &str, what: String, instead: Option<String>) -> Option<Remark> {
    Some(Remark { message: format!("{} {what}", suggest::clip(text.trim())), instead })
}

fn without_unit(text: &str, shown: &str) -> Option<Remark> {
    remark(text, format!("has no unit and means {shown}"), Some(format!("write {shown}")))
}

fn real(range: &Number, text: &str) -> Result<Normalised, Refusal> {
    let read = number::read_real(text).ok_or_else(|| not_number(range, text))?;
    let (base, bare) = in_base_unit(range, text, read)?;
    if base == 0.0 && read.number != 0.0 {
        return Err(rounds_to_zero(range, text));
    }
    if base < range.min || base > range.max {
        return Err(out_of_range(range, text, base));
    }
    let shown = range.show(base);
    let remark = if bare && base > 0.0 { without_unit(text, &shown) } else { None };
    Ok(Normalised { text: number::format_g(base), shown, remark })
}

/// The number in base units, and whether it was written without a unit where there is one.
fn in_base_unit(range: &Number, text: &str, read: Read<'_>) -> Result<(f64, bool), Refusal> {
    let rest = number::skip_spaces(read.rest);
    if rest.is_empty() {
        return Ok((read.number, range.unit.is_some()));
    }
    let word = rest.trim_end_matches([' ', '\t', '\n', '\r', '\u{b}', '\u{c}']);
    let digits = text[..text.len() - read.rest.len()].trim();
    match &range.unit {
        Some(unit) => match unit.to_base(read.number, word) {
            Some(base) => Ok((base, false)),
            None => Err(unknown_unit(unit, digits, word)),
        },
        None => Err(Refusal {
            why: Why::Unit,
            message: format!("\"{}\" is not a number; this has no unit", suggest::clip(text)),
            instead: Some(format!("write {}", digits.replace('_', ""))),
        }),
    }
}

fn unknown_unit(unit: &Unit, digits: &str, word: &str) -> Refusal {
    let message = format!("unknown unit \"{}\"", suggest::clip(word));
    let instead = match unit.meant(word) {
        Some(meant) => format!("write {digits}{meant}"),
        None => format!("use one of {}", unit.words().collect::<Vec<_>>().join(", ")),
    };
    Refusal { why: Why::Unit, message, instead: Some(instead) }
}

fn not_number(range: &Number, text: &str) -> Refusal {
    let example = if range.default_hint.is_empty() { "a number" } else { &range.default_hint };
    Refusal {
        why: Why::Syntax,
        message: format!("\"{}\" is not a number", suggest::clip(text)),
        instead: Some(match range.unit {
            Some(_) => format!("write a number and a unit, such as {example}"),
            None => format!("write a number, such as {example}"),
        }),
    }
}

fn rounds_to_zero(range: &Number, text: &str) -> Refusal {
    let least = match &range.unit {
        Some(unit) => unit.show_integer((range.min.max(1.0)) as i64),
        None => number::format_g(range.min.max(1.0)),
    };
    let zero =
        if range.min <= 0.0 && range.max >= 0.0 { "write 0 if you mean 0, or" } else { "write" };
    Refusal {
        why: Why::RoundsToZero,
        message: format!("{} is rounded to 0", suggest::clip(text.trim())),
        instead: Some(format!("{zero} at least {least}")),
    }
}

fn out_of_range(range: &Number, text: &str, base: f64) -> Refusal {
    let low = base < range.min;
    let (side, limit) = if low { ("below", range.min) } else { ("above", range.max) };
    let (limit, text) = (range.show(limit), suggest::clip(text.trim()));
    let allowed = if low { "at least" } else { "at most" };
    Refusal {
        why: Why::Range,
        message: format!("{text} is {side} the limit of {limit}"),
        instead: Some(format!("write {allowed} {limit}")),
    }
}

fn word(
    parameter: &Parameter,
    words: &[&'static str],
    aliases: &[(&'static str, &'static str)],
    text: &str,
) -> Result<Normalised, Refusal> {
    let same = |word: &str| word.eq_ignore_ascii_case(text);
    if let Some((_, word)) = aliases.iter().find(|(alias, _)| same(alias)) {
        return Ok(plain(*word));
    }
    if let Some(word) = words.iter().find(|word| same(word)) {
        return Ok(plain(*word));
    }
    let built = BUILD_WORDS.iter().find(|(name, major, word)| {
        *name == parameter.name() && parameter.major() >= *major && same(word)
    });
    if let Some((_, _, word)) = built {
        let message = format!("whether {word} is there depends on how the server was built");
        let remark = Some(Remark { message, instead: None });
        return Ok(Normalised { remark, ..plain(*word) });
    }
    let listed: Vec<&str> = words.iter().copied().filter(|word| !word.is_empty()).collect();
    let trimmed = text.trim();
    let meant = words.iter().find(|word| word.eq_ignore_ascii_case(trimmed)).copied();
    Err(Refusal {
        why: Why::Word,
        message: format!("\"{}\" is none of {}", suggest::clip(text), listed.join(", ")),
        instead: meant
            .or_else(|| suggest::nearest(trimmed, listed.iter().copied()))
            .map(|word| format!("write {word}")),
    })
}

/// Words that an enum has only where the server was built with a library: (parameter, first major,
/// word). The servers that made the catalogue do not all have them.
const BUILD_WORDS: [(&str, u32, &str); 4] = [
    ("wal_compression", 15, "lz4"),
    ("wal_compression", 15, "zstd"),
    ("default_toast_compression", 14, "lz4"),
    ("io_method", 18, "io_uring"),
];

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.instead {
            Some(instead) => write!(f, "; {instead}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::pgconf::Catalogue;

    use super::*;

    fn get(name: &str, text: &str) -> Result<Normalised, Refusal> {
        Catalogue::for_major(15).unwrap().normalise(name, &Value::new(text).unwrap())
    }

    #[test]
    fn values_come_out_as_the_server_reports_them() {
        fn check(name: &str, text: &str, expected: &str) {
            assert_eq!(get(name, text).unwrap().text, expected, "{name} = {text:?}");
        }
        check("work_mem", "1GB", "1048576");
        check("work_mem", "1024MB", "1048576");
        check("WORK_MEM", " 1 MB ", "1024");
        check("shared_buffers", "0.1GB", "13056");
        check("shared_buffers", "1.5MB", "192");
        check("statement_timeout", "1500us", "2");
        check("statement_timeout", "2500us", "2");
        check("max_connections", "0x64", "100");
        check("max_connections", "0144", "100");
        check("max_connections", "100.5", "100");
        check("max_connections", "101.5", "102");
        check("seq_page_cost", "1.10", "1.1");
        check("seq_page_cost", "1e-2", "0.01");
        check("vacuum_cost_delay", "1500us", "1.5");
    }

    #[test]
    fn refusals_say_what_to_write() {
        fn check(name: &str, text: &str, why: Why, expected: &str) {
            let refusal = get(name, text).unwrap_err();
            assert_eq!((refusal.why, refusal.to_string()), (why, expected.to_owned()), "{text}");
        }
        check("shared_buffers", "12gb", Why::Unit, "unknown unit \"gb\"; write 12GB");
        check("shared_buffers", "12 Gi", Why::Unit, "unknown unit \"Gi\"; write 12GB");
        check("work_mem", "5s", Why::Unit, "unknown unit \"s\"; use one of TB, GB, MB, kB, B");
        check(
            "max_connections",
            "100kB",
            Why::Unit,
            "\"100kB\" is not a number; this has no unit; write 100",
        );
        check(
            "max_connections",
            "many",
            Why::Syntax,
            "\"many\" is not a number; write a number, such as 100",
        );
        check(
            "work_mem",
            "",
            Why::Syntax,
            "\"\" is not a number; write a number and a unit, such as 4MB",
        );
        check(
            "shared_buffers",
            "100kB",
            Why::Range,
            "100kB is below the limit of 128kB; write at least 128kB",
        );
        check(
            "max_connections",
            "9999999999",
            Why::Range,
            "9999999999 is above the limit of 262143; write at most 262143",
        );
        check(
            "statement_timeout",
            "500us",
            Why::RoundsToZero,
            "500us is rounded to 0; write 0 if you mean 0, or at least 1ms",
        );
        check("fsync", "enabled", Why::Syntax, "\"enabled\" is not a boolean; write on");
        check("fsync", "on ", Why::Syntax, "\"on \" is not a boolean; write on");
        check("fsync", "o", Why::Syntax, "\"o\" is not a boolean; write on or off");
        check(
            "wal_level",
            "logicl",
            Why::Word,
            "\"logicl\" is none of minimal, replica, logical; write logical",
        );
    }

    #[test]
    fn booleans_are_unique_beginnings() {
        for on in ["on", "ON", "t", "tru", "y", "1"] {
            assert_eq!(boolean(on), Some("on"), "{on}");
        }
        for off in ["of", "OFF", "f", "no", "n", "0"] {
            assert_eq!(boolean(off), Some("off"), "{off}");
        }
        for neither in ["", "o", "on ", " on", "2", "truee", "10"] {
            assert_eq!(boolean(neither), None, "{neither:?}");
        }
    }

    #[test]
    fn what_a_person_may_not_expect_is_remarked() {
        fn check(name: &str, text: &str, expected: Option<&str>) {
            let remark = get(name, text).unwrap().remark.map(|remark| remark.message);
            assert_eq!(remark.as_deref(), expected, "{name} = {text}");
        }
        check("work_mem", "1024", Some("1024 has no unit and means 1MB"));
        check("work_mem", "1MB", None);
        check("statement_timeout", "0", None);
        check("log_min_duration_statement", "-1", None);
        check("max_connections", "100", None);
        check("shared_buffers", "1.7MB", Some("1.7MB is rounded to 1744kB"));
        check("wal_buffers", "8kB", Some("8kB is raised by the server to 32kB"));
    }
}
