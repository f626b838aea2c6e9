//! Whole files against `pg_file_settings` of a running server, and our own writing read back.

use std::path::Path;
use std::time::{Duration, Instant};

use pgitops::pgconf::Settings;
use pgitops::pgconf::lexer::{self, Item};

use super::random::Random;
use super::{budget, seed};
use crate::postgres::{self, Server};

#[test]
fn files_are_read_as_the_servers_read_them() {
    let seed = seed("files_are_read_as_the_servers_read_them");
    let majors = postgres::bin_dirs();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio");
    for (major, bin) in &majors {
        let ran = runtime.block_on(read_files(bin, seed ^ u64::from(*major), budget(majors.len())));
        println!("PostgreSQL {major}: {ran:?}");
        assert!(ran.files >= edge_files().len(), "too slow: not even the edge files were read");
    }
}

/// How many files were read, and how.
#[derive(Debug, Default)]
struct Read {
    files: usize,
    accepted: usize,
    refused: usize,
    /// Files that the server takes and we refuse on purpose: NUL, line breaks, bytes that are no
    /// text.
    stricter: usize,
    assignments: usize,
}

/// More files than these teach nothing: the grammar is small.
const RANDOM_FILES: usize = 6000;

async fn read_files(bin: &Path, seed: u64, budget: Duration) -> Read {
    let server = Server::start(bin, "include_if_exists 'case.conf'\n");
    let (client, connection) =
        server.connection().connect(tokio_postgres::NoTls).await.expect("connect to the server");
    let connection = tokio::spawn(connection);
    let deadline = Instant::now() + budget;
    let mut random = Random(seed);
    let mut read = Read::default();
    let random_files = std::iter::repeat_with(|| random_file(&mut random)).take(RANDOM_FILES);
    for text in edge_files().into_iter().chain(random_files) {
        if Instant::now() > deadline {
            break;
        }
        server.folder().write("data/case.conf", &text);
        let rows = client
            .query(
                "select name, encode(textsend(setting), 'hex'), sourceline,
                        error = 'syntax error'
                   from pg_file_settings where sourcefile like '%/case.conf' order by seqno",
                &[],
            )
            .await
            .expect("read pg_file_settings");
        let theirs = Theirs {
            syntax_error: rows
                .iter()
                .find(|row| row.get::<_, Option<bool>>(3) == Some(true))
                .map(|row| row.get::<_, i32>(2)),
            assignments: rows
                .iter()
                .filter_map(|row| {
                    let setting = unhex(row.get::<_, Option<&str>>(1)?);
                    Some((row.get::<_, Option<String>>(0)?, setting, row.get::<_, i32>(2)))
                })
                .collect(),
        };
        compare_file(&text, &theirs, &mut read);
    }
    drop(client);
    let _ = connection.await;
    read
}

/// What `pg_file_settings` says about a file.
struct Theirs {
    /// Line of the first syntax error.
    syntax_error: Option<i32>,
    /// Name, value and line.
    assignments: Vec<(String, Vec<u8>, i32)>,
}

fn compare_file(text: &str, theirs: &Theirs, read: &mut Read) {
    read.files += 1;
    let lexed = lexer::lex(text);
    let ours: Vec<(String, Vec<u8>, i32)> = lexed
        .items
        .iter()
        .filter_map(|item| match item {
            Item::Assignment { name, value, name_at, .. } => Some((
                name.as_str().to_owned(),
                value.as_str().as_bytes().to_vec(),
                i32::try_from(name_at.line).expect("a small file"),
            )),
            Item::Include { .. } => None,
        })
        .collect();
    let on_purpose = |message: &str| {
        ["a NUL", "a line break", "the octal"].iter().any(|start| message.starts_with(start))
    };
    let (stricter, syntax): (Vec<_>, Vec<_>) =
        lexed.problems.iter().partition(|problem| on_purpose(&problem.message));
    let first = syntax.first().and_then(|problem| problem.at).map(|at| at.line as i32);
    // In a last line without newline the server counts one line too few when nothing is there.
    let unended = !text.ends_with('\n') && first == theirs.syntax_error.map(|line| line + 1);
    assert!(
        first == theirs.syntax_error || unended,
        "{text:?}: server {:?}, ours {:?}",
        theirs.syntax_error,
        lexed.problems
    );
    if first.is_some() {
        read.refused += 1;
    } else if !stricter.is_empty() {
        let odd = |value: &[u8]| std::str::from_utf8(value).is_err() || value.contains(&b'\n');
        let cut = stricter.iter().any(|problem| problem.message.starts_with("a NUL"));
        let odd = cut || theirs.assignments.iter().any(|(_, value, _)| odd(value));
        assert!(odd, "{text:?}: {:?}", lexed.problems);
        read.stricter += 1;
    } else {
        assert_eq!(ours, theirs.assignments, "{text:?}");
        read.accepted += 1;
        read.assignments += ours.len();
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hex from the server");
    (0..text.len()).step_by(2).map(byte).collect()
}

/// Texts after a name, separated by `|`.
const VALUES: &str = r#"
0.5GB|1.5s|1e3|8 MB|/path|127.0.0.1|*|a,b|%m|a@b|x;y|-a|pg_catalog.english|8MB|.5|1.|+8192|0x1000
0X10|0x|0xg|log/x|a:b/c-d.e|größe|a.b|a.b.c|a.1|a.|a-|1.5e3|1.5e|1.5e+|-.5|+|-|.|1-2|8MB2|''|'a''b'
'a'b|'a' 'b'|'a|a'b|'\'|'\''|'\\'|'\101'|'\7z'|'\1234'|'\400'|'\n'|'\q\t\b\f\r'|'\000x'|'\303\251'
'\377'|"a"|= 5|== 5|'a' # c|a#b|#|5 #x|$a|a$b|{}|_|é|true|on off|''''|'''|a\|'''a'''|0|007|1_000|٣
'a\|'\u0041'|'\x41'|'\8'|'''\''|1.2.3|1..2|0x1.8|0x1p3|1E5|1.E5|++1|+-1|a:|:a|_.a|'é\|a.b-c|a.b:
"#;

/// Whole files.
const FILES: [&str; 35] = [
    "",
    "\n",
    "\n\n#\n",
    "# only\n",
    " \t\r\n",
    "x.y = 1",
    "x.y = 1\r\nX.Y = 2\r\n",
    "= 5\n",
    "x.y\n",
    "x.y =\n",
    "x.y.z = 1\n",
    "1x = 2\n",
    "x-y = 1\n",
    "'x' = 1\n",
    "x$ = 1\n",
    "x.1 = 1\n",
    ".x = 1\n",
    "x. = 1\n",
    "é.ü = 'ö'\n",
    "x.y = 1\n\nx.y 2 3\n",
    "x.y = 'a\nb'\n",
    "x.y = 'a\\\nb'\n",
    "include_if_exists 'nothere'\nx.y = 2\n",
    "INCLUDE_IF_EXISTS = nothere\n",
    "bogus = 1\nx.y = 2\n",
    "Work_Mem = 4MB\nwork_mem = bad\n",
    "x.y = 1\n\u{c}\n",
    "x.y = 1 \\\n",
    "x.y = 1\rx.z = 2\n",
    "@ = 1\nx\n'\n",
    "x.y=1=2\n",
    "x = y = z\n",
    "x.y = 'a\tb\rc'\r\n",
    "x.y = \u{c}5\n",
    "\u{b}x.y = 5\n",
];

fn edge_files() -> Vec<String> {
    let values = VALUES.lines().flat_map(|line| line.split('|'));
    let with_values = values.flat_map(|value| {
        [format!("x.y = {value}\n"), format!("work_mem {value}"), format!("x.y={value}\nx.z = 1\n")]
    });
    with_values.chain(FILES.map(str::to_owned)).collect()
}

/// The pieces that matter to the grammar.
const PIECES: &str = r"' '' \ \' \n \t \1 \12 \303 \0 a Z é _ 0 1 9 0x f e E + - . : / MB kB on = #
    , @ $ % ; 5 'abc' ''''";

/// A few lines, glued together from pieces.
fn random_file(random: &mut Random) -> String {
    let good = ["x.y", "a.b", "work_mem", "X.Y", "é.b", "x", "x._9", "A_9.b"];
    let bad = ["x.y.z", "1x", "q-r", "x.1"];
    let mut pieces: Vec<&str> = PIECES.split_whitespace().collect();
    pieces.extend([" ", "\t", "\r", "\u{c}", "\""]);
    let mut text = String::new();
    for _ in 0..=random.below(2) {
        if random.below(8) == 0 {
            text.push_str(random.pick(&["#", "", " ", "# it's = 'x", "\t#"]));
        } else {
            text.push_str(random.pick(&["", "", "", " ", "\t"]));
            text.push_str(if random.below(12) == 0 {
                random.pick(&bad)
            } else {
                random.pick(&good)
            });
            text.push_str(random.pick(&[" = ", "=", " ", "\t=\t", " =", "= "]));
            let quote = random.pick(&["", "'"]);
            text.push_str(quote);
            // Outside quotes most pieces are an error, and the first one hides the rest.
            for _ in 0..=random.below(if quote.is_empty() { 2 } else { 6 }) {
                text.push_str(random.pick(&pieces));
            }
            text.push_str(quote);
            text.push_str(random.pick(&["", "", "", " # c", " ", "\r"]));
        }
        text.push('\n');
    }
    if random.below(4) == 0 {
        text.pop();
    }
    text
}

#[test]
fn what_we_write_is_what_we_read() {
    let mut random = Random(seed("what_we_write_is_what_we_read"));
    let letters = ['\'', '\\', '"', '#', '=', ' ', '\t', '\r', 'a', '7', 'é', '\u{7f}', '\u{1}'];
    for _ in 0..20_000 {
        let length = random.below(12);
        let text: String = std::iter::repeat_with(|| random.pick(&letters)).take(length).collect();
        let written = Settings::from_pairs([("a.b", text.as_str()), ("c", "1")]).expect("valid");
        let read = Settings::parse(&written.render()).expect("our own writing");
        assert_eq!(read, written, "{text:?}");
        assert_eq!(read.value_of("a.b"), Some(text.as_str()));
    }
}
