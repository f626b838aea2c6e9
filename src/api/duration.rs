//! Lengths of time as Kubernetes objects write them: Go's duration strings (`90s`, `1h30m`).
//!
//! Source: Go `time.ParseDuration`, which `metav1.Duration` uses. Negative lengths are refused:
//! nothing here can wait backwards.

use std::{fmt, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time, written as `5m`, `90s`, `1h30m`, `250ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Length(pub Duration);

/// Units of Go's grammar and their length in nanoseconds, longest name first.
const UNITS: [(&str, f64); 7] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];

/// Ten years: longer waits are typing errors, and larger numbers overflow clocks.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

impl Length {
    /// Whole seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// Reads Go's grammar: a sequence of decimal numbers, each with a unit.
    ///
    /// # Errors
    /// When the text is empty, negative, lacks a unit, or is longer than ten years.
    pub fn parse(text: &str) -> Result<Self, NotALength> {
        let wrong = || NotALength(text.chars().take(40).collect());
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if rest == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let mut nanoseconds = 0.0;
        while !rest.is_empty() {
            let digits = rest
                .find(|c: char| !c.is_ascii_digit() && c != '.')
                .filter(|at| *at > 0)
                .ok_or_else(wrong)?;
            let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
            rest = &rest[digits..];
            // "m" is also the beginning of "ms": the longest unit that fits wins.
            let (unit, length) = UNITS
                .iter()
                .filter(|(unit, _)| rest.starts_with(unit))
                .max_by_key(|(unit, _)| unit.len())
                .ok_or_else(wrong)?;
            nanoseconds += number * length;
            rest = &rest[unit.len()..];
        }
        if text.is_empty() || nanoseconds > LONGEST.as_nanos() as f64 {
            return Err(wrong());
        }
        Ok(Self(Duration::from_nanos(nanoseconds.round() as u64)))
    }
}

impl fmt::Display for Length {
    /// The shortest exact form of whole units, as people write it: `1h30m`, `90s` is `1m30s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.0.as_nanos();
        if total == 0 {
            return f.write_str("0s");
        }
        let seconds = self.0.as_secs();
        let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        if rest > 0 {
            write!(f, "{rest}s")?;
        }
        let fraction = self.0.subsec_nanos();
        match fraction {
            0 => Ok(()),
            n if n % 1_000_000 == 0 => write!(f, "{}ms", n / 1_000_000),
            n => write!(f, "{n}ns"),
        }
    }
}

impl Serialize for Length {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Length {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Length".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 40,
            "pattern": "^([0-9]+(\\.[0-9]+)?(ns|us|ms|s|m|h))+$|^0$"
        })
    }
}

/// A text that was to be a length of time and is not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("duration {0:?} is not of the form 90s, 5m or 1h30m")]
pub struct NotALength(String);

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<(u64, &str)>) {
        let read = Length::parse(text).ok();
        assert_eq!(read.map(|l| l.0.as_millis() as u64), expected.map(|e| e.0), "{text}");
        assert_eq!(read.map(|l| l.to_string()).as_deref(), expected.map(|e| e.1), "{text}");
    }

    #[test]
    fn lengths_are_gos() {
        check("5m", Some((300_000, "5m")));
        check("90s", Some((90_000, "1m30s")));
        check("1h30m", Some((5_400_000, "1h30m")));
        check("1.5s", Some((1_500, "1s500ms")));
        check("250ms", Some((250, "250ms")));
        check("0", Some((0, "0s")));
        for bad in ["", "5", "m", "5 m", "-5m", "5x", "9999999h", "."] {
            check(bad, None);
        }
    }
}
