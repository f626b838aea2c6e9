//! The units of sizes and times, and how the server converts between them.
//!
//! Follows `convert_to_base_unit` and its two inverses in the server's `guc.c`, the order of its
//! tables included: what rounds there rounds here. Never reads or writes a whole value; that is
//! for [`value`](super::value).

/// The unit in which a server keeps a parameter (column `unit` of `pg_settings`), such as `kB`,
/// `8kB` or `ms`, with the units one may write for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Unit {
    name: String,
    /// Largest first, each with its size in base units.
    steps: Vec<Step>,
}

/// One unit that may be written, and how many base units it is.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Step {
    word: &'static str,
    size: f64,
}

const KIB: f64 = 1024.0;

/// Sizes in bytes, largest first; case counts.
const MEMORY: [(&str, f64); 5] = [
    ("TB", KIB * KIB * KIB * KIB),
    ("GB", KIB * KIB * KIB),
    ("MB", KIB * KIB),
    ("kB", KIB),
    ("B", 1.0),
];

/// Times as the server writes its factors: the fractions are rounded the same way.
const MILLISECONDS: [(&str, f64); 6] = [
    ("d", 86_400_000.0),
    ("h", 3_600_000.0),
    ("min", 60_000.0),
    ("s", 1000.0),
    ("ms", 1.0),
    ("us", 1.0 / 1000.0),
];
const SECONDS: [(&str, f64); 6] = [
    ("d", 86_400.0),
    ("h", 3600.0),
    ("min", 60.0),
    ("s", 1.0),
    ("ms", 1.0 / 1000.0),
    ("us", 1.0 / 1_000_000.0),
];
const MINUTES: [(&str, f64); 6] = [
    ("d", 1440.0),
    ("h", 60.0),
    ("min", 1.0),
    ("s", 1.0 / 60.0),
    ("ms", 1.0 / 60_000.0),
    ("us", 1.0 / 60_000_000.0),
];

impl Unit {
    /// Reads the column `unit` of `pg_settings`: `B`, `kB`, `MB`, a number before one of these
    /// (`8kB`, `16MB`: the block size of the build), `ms`, `s` or `min`. `None` for anything else.
    pub fn parse(name: &str) -> Option<Unit> {
        let steps = match name {
            "ms" => steps(&MILLISECONDS, 1.0),
            "s" => steps(&SECONDS, 1.0),
            "min" => steps(&MINUTES, 1.0),
            _ => {
                let word = name.trim_start_matches(|c: char| c.is_ascii_digit());
                let count = &name[..name.len() - word.len()];
                let count: f64 = if count.is_empty() { 1.0 } else { count.parse().ok()? };
                let (_, size) = MEMORY.iter().find(|(memory, _)| *memory == word)?;
                steps(&MEMORY, count * size)
            }
        };
        Some(Unit { name: name.to_owned(), steps })
    }

    /// The unit's name as `pg_settings` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The units that may be written, largest first: `TB, GB, MB, kB, B`.
    pub fn words(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.steps.iter().map(|step| step.word)
    }

    /// So many of a unit in base units, not yet rounded to a whole number, but rounded to a
    /// multiple of the next smaller unit as the server does first (`0.1GB` is 102MB). `None` if the
    /// unit does not belong here; case counts.
    pub fn to_base(&self, number: f64, word: &str) -> Option<f64> {
        let at = self.steps.iter().position(|step| step.word == word)?;
        let base = number * self.steps[at].size;
        Some(match self.steps.get(at + 1) {
            Some(smaller) => (base / smaller.size).round_ties_even() * smaller.size,
            None => base,
        })
    }

    /// A whole number of base units as `SHOW` writes it: in the largest unit that divides it
    /// (`1024` of `kB` is `1MB`). Numbers of zero and below carry no unit: they have a meaning of
    /// their own.
    pub fn show_integer(&self, base: i64) -> String {
        if base <= 0 {
            return base.to_string();
        }
        let whole = |step: &&Step| step.size <= 1.0 || base % step.size as i64 == 0;
        match self.steps.iter().find(whole) {
            Some(step) => format!("{}{}", (base as f64 / step.size).round_ties_even(), step.word),
            None => base.to_string(),
        }
    }

    /// A number of base units as `SHOW` writes a real: in the largest unit that makes it whole, or
    /// else in the smallest.
    pub fn show_real(&self, base: f64) -> String {
        if base <= 0.0 {
            return super::number::format_g(base);
        }
        let whole = |step: &&Step| {
            let value = base / step.size;
            value > 0.0 && (value.round_ties_even() / value - 1.0).abs() <= 1e-8
        };
        match self.steps.iter().find(whole).or(self.steps.last()) {
            Some(step) => format!("{}{}", super::number::format_g(base / step.size), step.word),
            None => super::number::format_g(base),
        }
    }

    /// The unit that somebody meant by a word the server does not know: `gb`, `GiB` and `G` for
    /// `GB`, `sec` for `s`.
    pub fn meant(&self, word: &str) -> Option<&'static str> {
        let lower = word.to_ascii_lowercase();
        let known = |candidate: &str| self.words().find(|known| *known == candidate);
        let spelled = SPELLINGS.iter().find(|(spelling, _)| *spelling == lower);
        spelled
            .and_then(|(_, unit)| known(unit))
            .or_else(|| self.words().find(|known| known.eq_ignore_ascii_case(word)))
            .or_else(|| (lower == "m").then(|| known("MB").or_else(|| known("min"))).flatten())
    }
}

/// What people write for units, in lower case. `m` is left out: it depends on the kind.
const SPELLINGS: [(&str, &str); 38] = [
    ("byte", "B"),
    ("bytes", "B"),
    ("k", "kB"),
    ("ki", "kB"),
    ("kib", "kB"),
    ("mi", "MB"),
    ("mib", "MB"),
    ("mega", "MB"),
    ("megabytes", "MB"),
    ("g", "GB"),
    ("gi", "GB"),
    ("gib", "GB"),
    ("giga", "GB"),
    ("gigabytes", "GB"),
    ("t", "TB"),
    ("ti", "TB"),
    ("tib", "TB"),
    ("day", "d"),
    ("days", "d"),
    ("hour", "h"),
    ("hours", "h"),
    ("hr", "h"),
    ("hrs", "h"),
    ("mins", "min"),
    ("minute", "min"),
    ("minutes", "min"),
    ("sec", "s"),
    ("secs", "s"),
    ("second", "s"),
    ("seconds", "s"),
    ("msec", "ms"),
    ("millis", "ms"),
    ("millisecond", "ms"),
    ("milliseconds", "ms"),
    ("µs", "us"),
    ("usec", "us"),
    ("microsecond", "us"),
    ("microseconds", "us"),
];

fn steps(table: &'static [(&'static str, f64)], base: f64) -> Vec<Step> {
    table.iter().map(|(word, size)| Step { word, size: size / base }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_is_rounded_to_the_next_smaller_unit_first() {
        fn check(unit: &str, number: f64, word: &str, expected: f64) {
            assert_eq!(Unit::parse(unit).unwrap().to_base(number, word), Some(expected));
        }
        check("kB", 0.1, "GB", 102.0 * 1024.0);
        check("8kB", 0.1, "GB", 13056.0);
        check("8kB", 12.0, "kB", 1.5);
        check("ms", 1500.0, "us", 1.5);
        check("min", 90.0, "s", 1.5);
        assert_eq!(Unit::parse("kB").unwrap().to_base(1.0, "kb"), None);
        assert_eq!(Unit::parse("ms").unwrap().to_base(1.0, "kB"), None);
        assert_eq!(Unit::parse("furlong"), None);
    }

    #[test]
    fn numbers_are_shown_in_the_largest_unit_that_divides_them() {
        fn check(unit: &str, base: i64, expected: &str) {
            assert_eq!(Unit::parse(unit).unwrap().show_integer(base), expected);
        }
        check("kB", 1024, "1MB");
        check("kB", 1025, "1025kB");
        check("8kB", 16384, "128MB");
        check("8kB", 3, "24kB");
        check("MB", 1024, "1GB");
        check("ms", 1500, "1500ms");
        check("ms", 300_000, "5min");
        check("s", 0, "0");
        check("kB", -1, "-1");
        assert_eq!(Unit::parse("ms").unwrap().show_real(2.5), "2500us");
        assert_eq!(Unit::parse("ms").unwrap().show_real(2000.0), "2s");
    }

    #[test]
    fn a_slip_in_a_unit_is_understood() {
        fn check(unit: &str, word: &str, expected: Option<&str>) {
            assert_eq!(Unit::parse(unit).unwrap().meant(word), expected, "{unit} {word}");
        }
        check("8kB", "gb", Some("GB"));
        check("8kB", "Gi", Some("GB"));
        check("kB", "m", Some("MB"));
        check("kB", "K", Some("kB"));
        check("ms", "m", Some("min"));
        check("s", "secs", Some("s"));
        check("s", "H", Some("h"));
        check("s", "gb", None);
    }
}
