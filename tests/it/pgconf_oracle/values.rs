//! Values of every parameter against `postgres -C name -c name=value`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pgitops::pgconf::{Catalogue, Context, Kind, Parameter, Refusal, Value, Why};

use super::random::Random;
use super::{budget, seed};
use crate::postgres::{self, Folder};

/// Parameters that are refused in every document, and whose value here would not be the one that
/// was asked for: where the server reads its files, paths it shortens, and what every transaction
/// begins with.
const NOT_ASKED: [&str; 10] = [
    "config_file",
    "data_directory",
    "external_pid_file",
    "hba_file",
    "ident_file",
    "log_directory",
    "stats_temp_directory",
    "transaction_deferrable",
    "transaction_isolation",
    "transaction_read_only",
];

/// Parameters whose small values the server raises, so that 0 does not stay 0.
const RAISED: [&str; 2] = ["autovacuum_work_mem", "wal_buffers"];

/// What the machine, the build or the sum of several parameters decides, not the text: a server may
/// refuse these where another takes them.
const SURROUNDINGS: [&str; 6] = [
    "autovacuum_max_workers",
    "bonjour",
    "max_connections",
    "max_stack_depth",
    "max_wal_senders",
    "max_worker_processes",
];

#[test]
fn values_are_what_the_servers_say() {
    let seed = seed("values_are_what_the_servers_say");
    let majors = postgres::bin_dirs();
    let mut all_wrong = Vec::new();
    for (major, bin) in &majors {
        let catalogue = Catalogue::for_major(*major).expect("a catalogue of an installed major");
        let cases = value_cases(catalogue, seed);
        let (ran, tally, wrong) = ask_all(catalogue, bin, &cases, budget(majors.len()));
        println!("PostgreSQL {major}: {ran} of {} value cases ran: {tally:?}", cases.len());
        let parameters = catalogue.iter().filter(|parameter| is_asked(parameter)).count();
        assert!(ran >= parameters, "too slow: not even one value of each of {parameters}");
        all_wrong.extend(wrong.into_iter().map(|wrong| format!("PostgreSQL {major}: {wrong}")));
    }
    assert!(all_wrong.is_empty(), "{} differ:\n{}", all_wrong.len(), all_wrong.join("\n"));
}

/// One value of one parameter.
type Case<'a> = (&'a Parameter, String);

/// How our answer and the server's compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// Both take it, as the same value.
    SameValue,
    /// Both refuse it.
    BothRefuse,
    /// We refuse what is rounded to 0, the server takes it as 0: our rule.
    RoundsToZero,
    /// A text that we pass on and the server refuses: found by the dry run.
    LeftToDryRun,
    /// The server refuses it because of the machine or its build.
    Surroundings,
    /// The server is of an earlier minor version than the table, which did not have it yet.
    NotThereYet,
    /// A fault of ours.
    Wrong,
}

fn is_asked(parameter: &Parameter) -> bool {
    parameter.context() != Context::Internal && !NOT_ASKED.contains(&parameter.name())
}

fn ask_all(
    catalogue: &Catalogue,
    bin: &Path,
    cases: &[Case<'_>],
    budget: Duration,
) -> (usize, BTreeMap<Verdict, usize>, Vec<String>) {
    let folder = Folder::new();
    folder.write("postgresql.conf", "");
    let earlier = is_earlier(bin, folder.path(), catalogue);
    let deadline = Instant::now() + budget;
    let (next, ran) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let found = Mutex::new((BTreeMap::new(), Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while Instant::now() < deadline {
                    let Some((parameter, text)) = cases.get(next.fetch_add(1, Ordering::Relaxed))
                    else {
                        break;
                    };
                    let theirs = ask(bin, folder.path(), parameter.name(), text);
                    let ours = Value::new(text).map(|v| catalogue.normalise(parameter.name(), &v));
                    let ours = ours.expect("cases hold no line break").map(|ours| ours.text);
                    let verdict = judge(parameter, &ours, &theirs, earlier);
                    ran.fetch_add(1, Ordering::Relaxed);
                    let mut found = found.lock().expect("no panic before");
                    *found.0.entry(verdict).or_default() += 1;
                    if verdict == Verdict::Wrong {
                        let name = parameter.name();
                        found
                            .1
                            .push(format!("{name} = {text:?}: ours {ours:?}, server {theirs:?}"));
                    }
                }
            });
        }
    });
    let (tally, mut wrong) = found.into_inner().expect("no panic before");
    wrong.sort();
    (ran.into_inner(), tally, wrong)
}

/// What the server makes of a value: its canonical text, or its words of refusal.
fn ask(bin: &Path, scratch: &Path, name: &str, value: &str) -> Result<String, String> {
    let output = postgres::command(bin.join("postgres"))
        .arg("-D")
        .arg(scratch)
        .args(["-C", name, "-c", &format!("{name}={value}")])
        .output()
        .expect("run postgres -C");
    if output.status.success() {
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

/// Whether the server is of an earlier minor version than the table is made of.
fn is_earlier(bin: &Path, scratch: &Path, catalogue: &Catalogue) -> bool {
    const VERSION: &str = "server_version_num";
    let asked = postgres::command(bin.join("postgres"))
        .arg("-D")
        .arg(scratch)
        .args(["-C", VERSION])
        .output()
        .expect("run postgres -C");
    let theirs = String::from_utf8_lossy(&asked.stdout).trim().parse::<u32>();
    let ours = catalogue.get(VERSION).and_then(Parameter::boot).map(str::parse::<u32>);
    theirs.expect("a version") < ours.expect("a version in the table").expect("a number")
}

fn judge(
    parameter: &Parameter,
    ours: &Result<String, Refusal>,
    theirs: &Result<String, String>,
    earlier: bool,
) -> Verdict {
    const UNKNOWN: &str = "unrecognized configuration parameter";
    match (ours, theirs) {
        (_, Err(words)) if earlier && words.contains(UNKNOWN) => Verdict::NotThereYet,
        (Ok(ours), Ok(theirs)) if ours == theirs => Verdict::SameValue,
        (Err(refusal), Ok(theirs))
            if refusal.why == Why::RoundsToZero
                && (is_zero(theirs) || RAISED.contains(&parameter.name())) =>
        {
            Verdict::RoundsToZero
        }
        (Err(_), Err(_)) => Verdict::BothRefuse,
        (Ok(_), Err(_)) if *parameter.kind() == Kind::Text => Verdict::LeftToDryRun,
        (Ok(_), Err(_)) if SURROUNDINGS.contains(&parameter.name()) => Verdict::Surroundings,
        (Ok(_) | Err(_), Ok(_) | Err(_)) => Verdict::Wrong,
    }
}

fn is_zero(text: &str) -> bool {
    text.parse::<f64>() == Ok(0.0)
}

/// Candidate values of all parameters: the first of each parameter, then the second of each, …
fn value_cases(catalogue: &Catalogue, seed: u64) -> Vec<Case<'_>> {
    let mut random = Random(seed ^ u64::from(catalogue.major()));
    let lists: Vec<Vec<Case<'_>>> = catalogue
        .iter()
        .filter(|parameter| is_asked(parameter))
        .map(|parameter| {
            let mut values = candidates(parameter, &mut random);
            random.shuffle(&mut values);
            values.into_iter().map(|value| (parameter, value)).collect()
        })
        .collect();
    let longest = lists.iter().map(Vec::len).max().unwrap_or(0);
    (0..longest).flat_map(|at| lists.iter().filter_map(move |list| list.get(at).cloned())).collect()
}

/// Values, separated by white space; `·` stands for a space within one.
const BOOLEANS: &str = "on off true FALSE Yes no 1 0 t f tr fal y n o of ON ·on on· 2 00 enabled
    null yess truef -1 1.0 10";

const ENUMS: &str = "true no 1 0 junk debug o TRUE of yes off on none";

const NUMBERS: &str = "0 -1 1 +7 -0 ·5· 0x10 0X1f -0x1 0x 010 08 1. .5 +.5 ·.5 0.4 1.5 2.5 100.5
    101.5 1e2 1E1 1e e1 1e-3 0x1.8 0x1p3 1_000 1,5 abc . - --1 nan inf -Infinity 1e999 1e-999
    2147483647 2147483648 -2147483649 99999999999999999999 0xfffffffff 5·apples 1kB 1s 0.1234567
    1234567.5 3% 1e0 0.0 0e5 0.5e1 00 -1.4 -0.4 1e-320";

const WITH_UNITS: &str = "1kb 1m 1K 1GiB 500us 1500us 2500us 4kB 11kB 12kB 25d 2TB 3TB 1kBB
    100·kB·x 1·k·B 1B 1023B 1e1kB 0x10MB 010s 1h1 1.5e0min 0.0GB -1kB -1ms 1e-9s";

const TEXTS: &str = "abc a,b a,,b a·b é it's \\x /tmp/x /tmp/x/../y/ ./a//b on 0 ·lead trail·
    \"Quoted\" \"open * $user,·public utf8 -1 a\u{7f}b";

fn words(table: &str) -> Vec<String> {
    table.split_whitespace().map(|word| word.replace('·', " ")).collect()
}

fn candidates(parameter: &Parameter, random: &mut Random) -> Vec<String> {
    let mut values = match parameter.kind() {
        Kind::Bool => words(BOOLEANS),
        Kind::Enum { words: listed, aliases } => {
            let mut values = words(ENUMS);
            for word in listed.iter().chain(aliases.iter().map(|(alias, _)| alias)) {
                values.extend([(*word).to_owned(), word.to_uppercase(), format!("{word} ")]);
                values.push(word.chars().take(word.len() / 2).collect());
            }
            values
        }
        Kind::Integer(number) | Kind::Real(number) => {
            numbers(number.min, number.max, parameter, random)
        }
        Kind::Text => texts(parameter),
    };
    values.push(String::new());
    values.extend(parameter.boot().map(str::to_owned));
    values.sort();
    values.dedup();
    values
}

fn numbers(min: f64, max: f64, parameter: &Parameter, random: &mut Random) -> Vec<String> {
    let mut values = words(NUMBERS);
    values.push("\t6".to_owned());
    for limit in [min, max] {
        for step in [-1.0, -0.5, 0.0, 0.4, 0.5, 1.0] {
            values.push(format!("{}", limit + step));
        }
    }
    let (low, high) = (min.max(-1e6), max.min(1e6));
    for _ in 0..4 {
        values.push(format!("{}", (low + (high - low) * random.fraction()).trunc()));
        values.push(format!("{:.3}", low + (high - low) * random.fraction()));
        values.push(format!("{}", random.below(300)));
    }
    let Some(unit) = parameter.unit() else { return values };
    for word in unit.words() {
        values.extend([
            format!("1{word}"),
            format!("3 {word} "),
            format!("0.1{word}"),
            format!("1.5{word}"),
            format!("{}{word}", random.below(5000)),
            format!("{:.2}{word}", random.fraction() * 300.0),
            format!("{:.4}{word}", random.fraction()),
            format!("2{}", word.to_uppercase()),
        ]);
    }
    values.extend(words(WITH_UNITS));
    values
}

fn texts(parameter: &Parameter) -> Vec<String> {
    let mut values = words(TEXTS);
    values.extend(["tab\there".to_owned(), "x".repeat(100)]);
    values.extend(words(match parameter.name() {
        "DateStyle" => "iso,dmy ISO german SQL,·European us iso,sql Postgres,·ymd iso,,ymd default",
        "client_encoding" => "UTF-8 latin1 SQL_ASCII win1252 iso88591 Unicode euc_jp KOI8 big5",
        "TimeZone" | "log_timezone" => "UTC europe/berlin Europe/Berlin +02 EST5EDT",
        "log_destination" => "stderr stderr,csvlog STDERR·,·syslog jsonlog none",
        "search_path" => "\"$user\",·public pg_catalog A,·B",
        "synchronous_standby_names" => "ANY·1·(a,·b) FIRST·2·(a) * 1·(a",
        "log_connections" => "all receipt,authorization true t yes none",
        "recovery_target_timeline" => "latest current 3 4294967296",
        "default_text_search_config" => "english pg_catalog.simple",
        _ => "",
    }));
    values
}
