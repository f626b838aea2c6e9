//! `postgresql.conf` text → assignments and directives, after the server's own grammar.
//!
//! Follows `guc-file.l` token by token (longest match wins, ties go to the first rule) and its
//! parser line by line. Where the server says only `syntax error near token`, this says what is
//! wrong and what to write. Refuses a little more than the server: NUL, a byte order mark, and
//! values that [`Value`] cannot hold, each of which the server would misread in silence.
//! Leaves duplicates and meaning to [`settings`](super::settings). Never follows an include.

mod scan;

use self::scan::{Kind, Token};
use super::name::{DIRECTIVES, Name, Value};
use super::problem::{Position, Problem};
use super::settings::quote;
use super::suggest;
use super::tiers;

/// Largest text we read: a Secret holds no more.
pub const TEXT_LIMIT: usize = 1024 * 1024;

/// The server gives up on a file after so many syntax errors; more help nobody.
const PROBLEM_LIMIT: usize = 100;

/// What a text says, and what is wrong with it. With any problem in it the server would use nothing
/// of the text.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Lexed {
    /// Assignments and directives in reading order.
    pub items: Vec<Item>,
    /// Syntax errors, at most 100.
    pub problems: Vec<Problem>,
}

/// One line of a configuration file that says something.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// `name = value`.
    Assignment {
        /// The parameter.
        name: Name,
        /// The value without quotes and escapes.
        value: Value,
        /// Where the name stands.
        name_at: Position,
        /// Where the value stands, its quote included.
        value_at: Position,
    },
    /// `include`, `include_if_exists` or `include_dir`.
    Include {
        /// The directive as it was written.
        directive: String,
        /// The file or folder it names.
        path: Value,
        /// Where the directive stands.
        at: Position,
    },
}

/// Reads the bytes of a file.
pub fn lex_bytes(bytes: &[u8]) -> Lexed {
    match std::str::from_utf8(bytes) {
        Ok(text) => lex(text),
        Err(error) => {
            let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let message = "not UTF-8 text; the server would load it and its clients would fail";
            let at = position(&before, before.len());
            refuse(Problem::refused(message).at(at).instead("save the file as UTF-8"))
        }
    }
}

/// Reads the text of a file.
pub fn lex(text: &str) -> Lexed {
    if text.len() > TEXT_LIMIT {
        return refuse(Problem::refused(format!(
            "{} bytes are more than a configuration file may have ({TEXT_LIMIT})",
            text.len()
        )));
    }
    if text.starts_with('\u{feff}') {
        let message = "the file begins with a byte order mark, which the server takes for a letter";
        let problem = Problem::refused(message).at(Position::new(1, 1));
        return refuse(problem.instead("save the file without it"));
    }
    if let Some(at) = text.find('\0') {
        let message = "a NUL byte, at which the server would cut the value";
        return refuse(Problem::refused(message).at(position(text, at)).instead("remove it"));
    }
    let mut lexed = Lexed::default();
    for (at, line) in text.split('\n').enumerate() {
        let line_number = u32::try_from(at + 1).unwrap_or(u32::MAX);
        let line = Line { text: line, number: line_number };
        match line.read() {
            Ok(Some(item)) => lexed.items.push(item),
            Ok(None) => {}
            Err(problem) => lexed.problems.push(*problem),
        }
        if lexed.problems.len() >= PROBLEM_LIMIT {
            break;
        }
    }
    lexed
}

fn refuse(problem: Problem) -> Lexed {
    Lexed { items: vec![], problems: vec![problem] }
}

/// Line and column of a byte of a text.
fn position(text: &str, byte: usize) -> Position {
    let before = &text[..byte];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |line| line.chars().count()) + 1;
    Position::new(u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(1))
}

/// One line, without its newline.
#[derive(Clone, Copy)]
struct Line<'a> {
    text: &'a str,
    number: u32,
}

impl<'a> Line<'a> {
    /// `[name [=] value]`, as the server's `ParseConfigFp` reads a line.
    fn read(self) -> Result<Option<Item>, Box<Problem>> {
        let name = self.token(0);
        match name.kind {
            Kind::End => return Ok(None),
            Kind::Id | Kind::QualifiedId => {}
            Kind::String
            | Kind::Unquoted
            | Kind::Integer
            | Kind::Real
            | Kind::Equals
            | Kind::Error => return Err(self.bad_name(name)),
        }
        let mut value = self.token(name.end);
        if value.kind == Kind::Equals {
            value = self.token(value.end);
        }
        match value.kind {
            Kind::Id | Kind::String | Kind::Unquoted | Kind::Integer | Kind::Real => {}
            Kind::QualifiedId | Kind::Equals | Kind::Error | Kind::End => {
                return Err(self.bad_value(name, value));
            }
        }
        let after = self.token(value.end);
        if after.kind != Kind::End {
            return Err(self.bad_rest(name, value, after));
        }
        self.item(name, value).map(Some)
    }

    fn item(self, name: Token, value: Token) -> Result<Item, Box<Problem>> {
        let (name_at, value_at) = (self.position(name.start), self.position(value.start));
        let word = self.of(name);
        let text = self.of(value);
        let text = match value.kind {
            Kind::String => {
                scan::unescape(text).map_err(|problem| problem.at(value_at).of(word))?
            }
            Kind::Id
            | Kind::Unquoted
            | Kind::Integer
            | Kind::Real
            | Kind::QualifiedId
            | Kind::Equals
            | Kind::Error
            | Kind::End => text.to_owned(),
        };
        let value = Value::new(text).map_err(|problem| problem.at(value_at).of(word))?;
        if DIRECTIVES.iter().any(|directive| directive.eq_ignore_ascii_case(word)) {
            return Ok(Item::Include { directive: word.to_owned(), path: value, at: name_at });
        }
        let name = Name::new(word).map_err(|problem| problem.at(name_at))?;
        Ok(Item::Assignment { name, value, name_at, value_at })
    }

    fn token(self, from: usize) -> Token {
        scan::token(self.text, from)
    }

    fn of(self, token: Token) -> &'a str {
        &self.text[token.start..token.end]
    }

    fn position(self, byte: usize) -> Position {
        let column = self.text[..byte].chars().count() + 1;
        Position::new(self.number, u32::try_from(column).unwrap_or(u32::MAX))
    }

    fn bad_name(self, token: Token) -> Box<Problem> {
        let at = self.position(token.start);
        let rest = &self.text[token.start..];
        let written = rest.split([' ', '\t', '\r', '=', '#']).next().unwrap_or_default();
        if written.is_empty() {
            let message = "the line has no parameter before the =";
            return Box::new(Problem::refused(message).at(at).instead("write name = 'value'"));
        }
        let problem = match Name::new(written) {
            Err(problem) => problem.at(at),
            Ok(_) => Problem::refused("a line begins with a parameter's name").at(at),
        };
        Box::new(match problem.instead {
            Some(_) => problem,
            None => problem.instead("write name = 'value'"),
        })
    }

    /// No legal value after the name.
    fn bad_value(self, name: Token, value: Token) -> Box<Problem> {
        let word = self.of(name);
        let refused = |message: &str| {
            Problem::refused(message).of(word).at(self.position(value.start.min(self.text.len())))
        };
        let problem = match value.kind {
            Kind::End => refused("no value").instead(format!("write {word} = 'value'")),
            Kind::Error if self.text[value.start..].starts_with('\'') => {
                refused("the quote is not closed on this line")
                    .instead("close it; write '' for a quote within the value")
            }
            Kind::Equals => refused("more than one =").instead(format!("write {word} = 'value'")),
            Kind::QualifiedId
            | Kind::Error
            | Kind::Id
            | Kind::String
            | Kind::Unquoted
            | Kind::Integer
            | Kind::Real => refused("this value needs quotes").instead(self.quoted(name, value)),
        };
        Box::new(problem)
    }

    /// Something after a value that was legal so far.
    fn bad_rest(self, name: Token, value: Token, after: Token) -> Box<Problem> {
        let word = self.of(name);
        let at = self.position(after.start);
        let problem = match (value.kind, after.kind) {
            (Kind::String, Kind::String) => Problem::refused("two values").instead(
                "put them between one pair of quotes, separated by commas if it is a list",
            ),
            (Kind::String, _) => Problem::refused("something follows the closing quote")
                .instead("remove it; write '' for a quote within the value"),
            (_, _) => {
                let problem = Problem::refused("this value needs quotes");
                return Box::new(
                    problem
                        .of(word)
                        .at(self.position(value.start))
                        .instead(self.quoted(name, value)),
                );
            }
        };
        Box::new(problem.of(word).at(at))
    }

    /// `write name = '…'` with the rest of the line as the value.
    fn quoted(self, name: Token, value: Token) -> String {
        let word = self.of(name);
        if tiers::is_sensitive(word) {
            return format!("write {word} = '…'");
        }
        let rest = &self.text[value.start..];
        // A # may belong to the value, but most often it begins a comment.
        let rest = rest.split(" #").next().unwrap_or(rest).trim_end_matches([' ', '\t', '\r']);
        let bare = rest.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(rest);
        format!("write {word} = {}", suggest::clip(&quote(bare)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One line: either the value it assigns, or its problem.
    fn check(text: &str, expected: Result<&str, &str>) {
        let lexed = lex(text);
        let got = match (lexed.problems.first(), lexed.items.first()) {
            (Some(problem), _) => Err(problem.to_string()),
            (None, Some(Item::Assignment { value, .. })) => Ok(value.as_str().to_owned()),
            (None, Some(Item::Include { directive, .. })) => Ok(format!("({directive})")),
            (None, None) => Ok("(nothing)".to_owned()),
        };
        let expected = expected.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(got, expected, "{text:?}");
    }

    #[test]
    fn values_that_the_server_takes_without_quotes() {
        for value in ["8MB", ".5", "1.", "+8192", "0x1000", "log/x", "a:b/c-d.e", "größe", "a.b.c"]
        {
            check(&format!("x = {value}"), Ok(value));
            check(&format!("x {value}#c"), Ok(value));
        }
        check("x='a''b\\'c\\\\d\\101\\t'", Ok("a'b'c\\dA\t"));
        check("x = a#b", Ok("a"));
        check("\tx\t=\t'on'\t\r", Ok("on"));
        check("  # x = 1", Ok("(nothing)"));
        check("INCLUDE_IF_EXISTS 'other.conf'", Ok("(INCLUDE_IF_EXISTS)"));
    }

    #[test]
    fn values_that_need_quotes_are_named_with_the_cure() {
        for value in ["0.5GB", "1e3", "8 MB", "/path", "127.0.0.1", "*", "a,b", "%m", "a@b", "a.b"]
        {
            let message = format!("1:5 x: this value needs quotes; write x = '{value}'");
            check(&format!("x = {value} # why"), Err(&message));
        }
        check("x = \"on\"", Err("1:5 x: this value needs quotes; write x = 'on'"));
        check(
            "primary_conninfo = host=a password=b",
            Err("1:20 primary_conninfo: this value needs quotes; write primary_conninfo = '…'"),
        );
    }

    #[test]
    fn syntax_errors_say_where_and_what_to_write() {
        check("x =", Err("1:4 x: no value; write x = 'value'"));
        check("x = = 1", Err("1:5 x: more than one =; write x = 'value'"));
        check(
            "x = 'it's'",
            Err("1:9 x: something follows the closing quote; \
                 remove it; write '' for a quote within the value"),
        );
        check(
            "\nx = 'abc # d",
            Err("2:5 x: the quote is not closed on this line; \
                 close it; write '' for a quote within the value"),
        );
        check("= 1", Err("1:1 the line has no parameter before the =; write name = 'value'"));
        check(
            "work-mem = 1",
            Err("1:1 work-mem: not a parameter's name; it has letters, digits and _, \
                 and begins with no digit; write work_mem"),
        );
        check(
            "a.b.c = 1",
            Err("1:1 a.b.c: a parameter's name has at most one dot; write name = 'value'"),
        );
    }

    #[test]
    fn what_the_server_would_misread_in_silence_is_refused() {
        let nul = "a NUL byte, at which the server would cut the value; remove it";
        check("x = 'é\0'", Err(&format!("1:7 {nul}")));
        check("x = '\\000'", Err(&format!("1:5 x: {nul}")));
        check(
            "\u{feff}x = 1",
            Err(
                "1:1 the file begins with a byte order mark, which the server takes for a letter; \
                 save the file without it",
            ),
        );
        check(
            "x = 'a\\nb'",
            Err("1:5 x: a line break, which a value cannot hold; write the value on one line"),
        );
        let lexed = lex_bytes(b"x = 1\ny = '\xff'\n");
        assert_eq!(
            lexed.problems[0].to_string(),
            "2:6 not UTF-8 text; the server would load it and its clients would fail; \
             save the file as UTF-8"
        );
    }

    #[test]
    fn every_line_is_read_and_problems_are_limited() {
        let lexed = lex("a = 1\nb\nc = 3\n=\n");
        assert_eq!((lexed.items.len(), lexed.problems.len()), (2, 2));
        assert_eq!(lex(&"=\n".repeat(1000)).problems.len(), PROBLEM_LIMIT);
        assert_eq!(lex(&" ".repeat(TEXT_LIMIT + 1)).problems.len(), 1);
    }
}
