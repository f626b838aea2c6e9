//! What a server of one major version knows: its parameters, their contexts, types and ranges.
//!
//! The tables are made from real servers by `tests/catalogue/make.sh`, one file per major, and read
//! once. Parameters of extensions are not in them. Leaves the meaning of a single value to
//! [`value`]. Never guesses: a major that has no table has no catalogue.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::name::Value;
use super::problem::Problem;
use super::suggest;
use super::unit::Unit;
use super::value::{self, Normalised, Refusal};

/// The parameters of one major version of the server.
#[derive(Debug)]
pub struct Catalogue {
    major: u32,
    version: &'static str,
    /// By name in lower case.
    parameters: BTreeMap<String, Parameter>,
}

/// One parameter as `pg_settings` describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    major: u32,
    name: &'static str,
    context: Context,
    kind: Kind,
    boot: Option<String>,
}

/// When a parameter can be changed (column `context` of `pg_settings`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Context {
    /// Never: the server only reports it.
    Internal,
    /// At the start of the server.
    Postmaster,
    /// On reload, for everybody.
    Sighup,
    /// On reload, for sessions that begin afterwards; at login by superusers.
    SuperuserBackend,
    /// On reload, for sessions that begin afterwards; at login by anybody.
    Backend,
    /// On reload where no session overrides it; in a session by superusers.
    Superuser,
    /// On reload where no session overrides it; in a session by anybody.
    User,
}

/// What a parameter's value looks like (column `vartype`).
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// `on` or `off`.
    Bool,
    /// A whole number of 32 bits.
    Integer(Number),
    /// A real number.
    Real(Number),
    /// One of a few words.
    Enum {
        /// The words in the server's order and spelling.
        words: Vec<&'static str>,
        /// Words that the server takes as well and shows as another, (alias, word).
        aliases: Vec<(&'static str, &'static str)>,
    },
    /// Anything, subject to a check of the parameter's own.
    Text,
}

/// The range and unit of a number.
#[derive(Debug, Clone, PartialEq)]
pub struct Number {
    /// Smallest value, in base units.
    pub min: f64,
    /// Largest value, in base units.
    pub max: f64,
    /// The base unit, if the parameter has one.
    pub unit: Option<Unit>,
    /// The built-in value as `SHOW` writes it: an example to put in a message.
    pub(super) default_hint: String,
}

/// The majors that have a table, oldest first.
pub const MAJORS: [u32; 6] = [13, 14, 15, 16, 17, 18];

/// One table a major; [`MAJORS`] in the same order.
const TABLES: [&str; 6] = [
    include_str!("catalogue/pg13.tsv"),
    include_str!("catalogue/pg14.tsv"),
    include_str!("catalogue/pg15.tsv"),
    include_str!("catalogue/pg16.tsv"),
    include_str!("catalogue/pg17.tsv"),
    include_str!("catalogue/pg18.tsv"),
];

/// Names that the server still takes for another one (`map_old_guc_names` of its `guc.c`), with the
/// first major that does. They are refused here: two names for one parameter would hide from the
/// layers which assignment wins.
const OLD_NAMES: [(&str, u32, &str); 3] = [
    ("sort_mem", 13, "work_mem"),
    ("vacuum_mem", 13, "maintenance_work_mem"),
    ("ssl_ecdh_curve", 18, "ssl_groups"),
];

impl Catalogue {
    /// The catalogue of a major version, or `None` if there is no table for it
    /// ([`MAJORS`] lists those that there are).
    pub fn for_major(major: u32) -> Option<&'static Catalogue> {
        static READ: [OnceLock<Catalogue>; 6] = [const { OnceLock::new() }; 6];
        let at = MAJORS.iter().position(|known| *known == major)?;
        Some(READ[at].get_or_init(|| Catalogue::read(major, TABLES[at])))
    }

    /// The catalogue for a version as it is written in `spec.version` or reported by a server:
    /// `15`, `15.18`, `16.4-bookworm`; or as KubeDB names a server with an extension's version in
    /// front: `timescaledb-2.14.2-pg14`.
    pub fn for_version(version: &str) -> Option<&'static Catalogue> {
        let leading = |text: &str| text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok();
        let behind_pg =
            || version.split('-').filter_map(|part| part.strip_prefix("pg")).next_back();
        let major = leading(version).or_else(|| behind_pg().and_then(leading))?;
        Catalogue::for_major(major)
    }

    fn read(major: u32, table: &'static str) -> Catalogue {
        let version = table.lines().next().and_then(|line| line.split(['(', ')', ';']).nth(2));
        let rows = table.lines().filter(|line| !line.starts_with('#'));
        let parameters = rows
            .filter_map(|row| Parameter::read(major, row))
            .map(|parameter| (parameter.name.to_ascii_lowercase(), parameter))
            .collect();
        Catalogue { major, version: version.unwrap_or_default().trim(), parameters }
    }

    /// The major version.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The release whose server made the table, such as `15.18`.
    pub fn version(&self) -> &'static str {
        self.version
    }

    /// The parameter of that name; case does not count.
    pub fn get(&self, name: &str) -> Option<&Parameter> {
        self.parameters.get(&name.to_ascii_lowercase())
    }

    /// All parameters, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Parameter> {
        self.parameters.values()
    }

    /// What to say about a name that [`get`](Catalogue::get) does not find: which name was meant,
    /// or which other versions know it. A dotted name belongs to an extension and is a warning; any
    /// other is refused, because a server of this version does not load such a file at all.
    pub fn unknown(&self, name: &str) -> Problem {
        let of = |problem: Problem| problem.of(suggest::clip(name));
        if name.contains('.') {
            return of(Problem::warning("belongs to an extension, so its value was not checked"));
        }
        let lower = name.to_ascii_lowercase();
        let old = OLD_NAMES.iter().find(|(old, since, _)| *old == lower && self.major >= *since);
        if let Some((_, _, new)) = old {
            let message = format!("this is the old name of {new} in PostgreSQL {}", self.major);
            return of(Problem::refused(message).instead(format!("write {new}")));
        }
        let elsewhere: Vec<String> = MAJORS
            .into_iter()
            .filter(|major| Catalogue::for_major(*major).is_some_and(|c| c.get(name).is_some()))
            .map(|major| major.to_string())
            .collect();
        let message = format!("PostgreSQL {} has no such parameter", self.major);
        if !elsewhere.is_empty() {
            let message = format!("{message} (it is in {})", elsewhere.join(", "));
            return of(Problem::refused(message).instead("remove it"));
        }
        let problem = Problem::refused(message);
        of(match suggest::nearest(&lower, self.parameters.keys().map(String::as_str)) {
            Some(meant) => problem.instead(format!("write {meant}")),
            None => problem.instead("remove it"),
        })
    }

    /// The value as the server would report it; a name that is not in the catalogue has its text
    /// taken as it is.
    ///
    /// # Errors
    /// A [`Refusal`] with what to write instead.
    pub fn normalise(&self, name: &str, value: &Value) -> Result<Normalised, Refusal> {
        match self.get(name) {
            Some(parameter) => value::normalise(parameter, value),
            None => Ok(Normalised {
                text: value.as_str().to_owned(),
                shown: value.as_str().to_owned(),
                remark: None,
            }),
        }
    }

    /// Whether two texts mean the same to the server. A text that it would refuse is the same only
    /// as itself.
    pub fn same(&self, name: &str, a: &Value, b: &Value) -> bool {
        if a == b {
            return true;
        }
        match (self.normalise(name, a), self.normalise(name, b)) {
            (Ok(a), Ok(b)) => {
                a.text == b.text || (shown_as_written(name) && a.text.eq_ignore_ascii_case(&b.text))
            }
            _ => false,
        }
    }

    /// Whether a server that reports `reset_val` (column of `pg_settings`) runs with this value.
    /// Where the server computes the value itself (`wal_buffers = -1`), any report will do.
    pub fn runs_with(&self, name: &str, value: &Value, reset_val: &str) -> bool {
        let Ok(wanted) = self.normalise(name, value) else { return false };
        let computed = COMPUTED.iter().any(|(computed, special)| {
            name.eq_ignore_ascii_case(computed) && wanted.text == *special
        });
        computed
            || wanted.text == reset_val
            || (shown_as_written(name) && wanted.text.eq_ignore_ascii_case(reset_val))
    }

    /// The value that the server has when nothing sets the parameter, as far as it is built in:
    /// in base units, as `pg_settings.boot_val` shows it.
    pub fn boot_value(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Parameter::boot)
    }
}

/// Time zones are reported as they were written, whatever the case.
fn shown_as_written(name: &str) -> bool {
    ["timezone", "log_timezone"].iter().any(|zone| name.eq_ignore_ascii_case(zone))
}

/// Values that stand for "the server works it out", by parameter: `reset_val` shows the result.
const COMPUTED: [(&str, &str); 5] = [
    ("wal_buffers", "-1"),
    ("transaction_buffers", "0"),
    ("subtransaction_buffers", "0"),
    ("commit_timestamp_buffers", "0"),
    ("io_max_concurrency", "-1"),
];

impl Parameter {
    /// Reads a row of a table. `None` if it is not one; a test reads all rows.
    fn read(major: u32, row: &'static str) -> Option<Parameter> {
        let mut columns = row.split('\t').map(|column| (column != "\\N").then_some(column));
        let mut next = || columns.next();
        let (name, context, vartype) = (next()??, Context::parse(next()??)?, next()??);
        let (unit, min, max) = (next()?, next()?, next()?);
        let (words, aliases, boot) = (next()?, next()?, next()?);
        let number = || -> Option<Number> {
            let unit = match unit {
                Some(unit) => Some(Unit::parse(unit)?),
                None => None,
            };
            let mut number =
                Number { min: limit(min?)?, max: limit(max?)?, unit, default_hint: String::new() };
            number.default_hint = number.show(boot?.parse().ok()?);
            Some(number)
        };
        let kind = match vartype {
            "bool" => Kind::Bool,
            "integer" => Kind::Integer(number()?),
            "real" => Kind::Real(number()?),
            "enum" => Kind::Enum {
                words: words?.split(',').collect(),
                aliases: aliases.map_or(Some(vec![]), |pairs| {
                    pairs.split(',').map(|pair| pair.split_once('=')).collect()
                })?,
            },
            "string" => Kind::Text,
            _ => return None,
        };
        let boot = boot.map(unescape);
        Some(Parameter { major, name, context, kind, boot })
    }

    /// The name in the server's spelling.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The major version of the catalogue that this stands in.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// When it can be changed.
    pub fn context(&self) -> Context {
        self.context
    }

    /// What its values look like.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The built-in value in base units (column `boot_val`); `None` where the server has none
    /// before it has looked at its surroundings.
    pub fn boot(&self) -> Option<&str> {
        self.boot.as_deref()
    }

    /// The base unit, if it has one.
    pub fn unit(&self) -> Option<&Unit> {
        match &self.kind {
            Kind::Integer(number) | Kind::Real(number) => number.unit.as_ref(),
            Kind::Bool | Kind::Enum { .. } | Kind::Text => None,
        }
    }
}

/// Undoes the escapes of COPY's text format; no built-in value holds any but these.
fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n").replace("\\\\", "\\")
}

/// A limit as `pg_settings` prints it: six digits, which for the largest double is a little less.
fn limit(text: &str) -> Option<f64> {
    match text {
        "1.79769e+308" => Some(f64::MAX),
        "-1.79769e+308" => Some(f64::MIN),
        _ => text.parse().ok(),
    }
}

impl Number {
    /// A number of base units as `SHOW` writes it.
    pub fn show(&self, base: f64) -> String {
        match &self.unit {
            // A whole number below 2^53 is exact in both types.
            Some(unit) if base.fract() == 0.0 && base.abs() < 9e15 => {
                unit.show_integer(base as i64)
            }
            Some(unit) => unit.show_real(base),
            None if base.fract() == 0.0 && base.abs() < 9e15 => (base as i64).to_string(),
            None => super::number::format_g(base),
        }
    }
}

impl Context {
    /// The word of `pg_settings`.
    pub fn as_str(self) -> &'static str {
        match self {
            Context::Internal => "internal",
            Context::Postmaster => "postmaster",
            Context::Sighup => "sighup",
            Context::SuperuserBackend => "superuser-backend",
            Context::Backend => "backend",
            Context::Superuser => "superuser",
            Context::User => "user",
        }
    }

    fn parse(text: &str) -> Option<Context> {
        Some(match text {
            "internal" => Context::Internal,
            "postmaster" => Context::Postmaster,
            "sighup" => Context::Sighup,
            "superuser-backend" => Context::SuperuserBackend,
            "backend" => Context::Backend,
            "superuser" => Context::Superuser,
            "user" => Context::User,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        Value::new(text).unwrap()
    }

    #[test]
    fn every_row_of_every_table_is_read() {
        for (major, table) in MAJORS.into_iter().zip(TABLES) {
            let catalogue = Catalogue::for_major(major).unwrap();
            assert_eq!(catalogue.iter().count(), table.lines().count() - 1, "{major}");
            assert!(catalogue.version().starts_with(&format!("{major}.")), "{major}");
            for parameter in catalogue.iter() {
                // The server takes its own built-in values.
                if let Some(boot) = parameter.boot() {
                    let normalised = catalogue.normalise(parameter.name(), &value(boot));
                    assert!(normalised.is_ok(), "{major} {}: {normalised:?}", parameter.name());
                }
            }
        }
        assert!(Catalogue::for_major(12).is_none());
    }

    #[test]
    fn versions_are_found_however_they_are_written() {
        let check = |version: &str, expected: Option<u32>| {
            assert_eq!(
                Catalogue::for_version(version).map(Catalogue::major),
                expected,
                "{version}"
            );
        };
        check("15", Some(15));
        check("15.18", Some(15));
        check("15-bookworm", Some(15));
        // Names of KubeDB's PostgresVersions.
        check("13.13", Some(13));
        check("16.4", Some(16));
        check("17.2-bookworm", Some(17));
        check("16.12-percona", Some(16));
        check("timescaledb-2.14.2-pg14", Some(14));
        check("timescaledb-2.1.0-pg14.1", Some(14));
        check("9.6.24", None);
        check("latest", None);
        check("pgvector", None);
    }

    #[test]
    fn contexts_differ_by_major() {
        let context =
            |major, name| Catalogue::for_major(major).unwrap().get(name).unwrap().context();
        assert_eq!(context(15, "autovacuum_max_workers"), Context::Postmaster);
        assert_eq!(context(18, "autovacuum_max_workers"), Context::Sighup);
        assert_eq!(context(15, "LOG_Connections"), Context::SuperuserBackend);
    }

    #[test]
    fn unknown_names_are_explained() {
        fn check(major: u32, name: &str, expected: &str) {
            let problem = Catalogue::for_major(major).unwrap().unknown(name);
            assert_eq!(problem.to_string(), expected);
        }
        check(15, "work_memm", "work_memm: PostgreSQL 15 has no such parameter; write work_mem");
        check(15, "frobnicate", "frobnicate: PostgreSQL 15 has no such parameter; remove it");
        check(
            15,
            "io_method",
            "io_method: PostgreSQL 15 has no such parameter (it is in 18); remove it",
        );
        check(
            18,
            "ssl_ecdh_curve",
            "ssl_ecdh_curve: this is the old name of ssl_groups in PostgreSQL 18; write ssl_groups",
        );
        check(
            15,
            "auto_explain.log_analyze",
            "auto_explain.log_analyze: belongs to an extension, so its value was not checked",
        );
    }

    #[test]
    fn values_are_equal_as_the_server_sees_them() {
        fn check(name: &str, a: &str, b: &str, expected: bool) {
            let catalogue = Catalogue::for_major(15).unwrap();
            assert_eq!(catalogue.same(name, &value(a), &value(b)), expected, "{name} {a} {b}");
        }
        check("work_mem", "1GB", "1024MB", true);
        check("work_mem", "1024", "1MB", true);
        check("fsync", "true", "on", true);
        check("max_connections", "0x64", "100", true);
        check("shared_buffers", "0.1GB", "102MB", true);
        check("wal_level", "hot_standby", "REPLICA", true);
        check("wal_compression", "on", "pglz", true);
        check("TimeZone", "europe/berlin", "Europe/Berlin", true);
        check("search_path", "A", "a", false);
        check("work_mem", "junk", "junk", true);
        check("work_mem", "junk", "1MB", false);
        check("x.y", "1", "01", false);
    }

    #[test]
    fn a_server_runs_with_a_value_when_it_reports_it() {
        fn check(name: &str, wanted: &str, reset_val: &str, expected: bool) {
            let catalogue = Catalogue::for_major(15).unwrap();
            assert_eq!(catalogue.runs_with(name, &value(wanted), reset_val), expected, "{name}");
        }
        check("shared_buffers", "128MB", "16384", true);
        check("shared_buffers", "128MB", "16385", false);
        check("wal_buffers", "-1", "512", true);
        check("wal_buffers", "1MB", "512", false);
        check("log_file_mode", "0640", "416", true);
        check("timezone", "utc", "UTC", true);
        check("archive_command", "", "", true);
    }
}
