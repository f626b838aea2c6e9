//! The tokens of a line, as the server's scanner finds them.
//!
//! Leaves the order in which tokens may stand to [`lexer`](super). Never fails: what is no token is
//! a token of the kind `Error`.

use crate::pgconf::name::{is_letter, is_letter_or_digit};
use crate::pgconf::problem::Problem;

/// The kinds of token of the server's scanner. No token spans a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Id,
    QualifiedId,
    String,
    Unquoted,
    Integer,
    Real,
    Equals,
    Error,
    End,
}

/// A token and where it stands in its line, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The token at or after a byte of a line; white space and a comment are passed over.
pub(super) fn token(line: &str, from: usize) -> Token {
    let bytes = line.as_bytes();
    let start = from + count(&bytes[from..], |byte| matches!(byte, b' ' | b'\t' | b'\r'));
    let rest = &bytes[start..];
    let (kind, length) = match rest.first() {
        None | Some(b'#') => (Kind::End, rest.len()),
        Some(b'=') => (Kind::Equals, 1),
        Some(b'\'') => string(rest).map_or((Kind::Error, 1), |length| (Kind::String, length)),
        Some(first) if is_letter(*first) => word(rest),
        Some(_) => number(rest).unwrap_or((Kind::Error, 1)),
    };
    Token { kind, start, end: start + length }
}

fn count(bytes: &[u8], is: impl Fn(u8) -> bool) -> usize {
    bytes.iter().take_while(|byte| is(**byte)).count()
}

/// `ID`, `ID.ID` or an unquoted string: the longest, and on a tie the first of these.
fn word(bytes: &[u8]) -> (Kind, usize) {
    let id = count(bytes, is_letter_or_digit);
    let qualified = match bytes.get(id..) {
        Some([b'.', second, ..]) if is_letter(*second) => {
            id + 1 + count(&bytes[id + 1..], is_letter_or_digit)
        }
        _ => 0,
    };
    let unquoted = count(bytes, |byte| {
        is_letter_or_digit(byte) || matches!(byte, b'-' | b'.' | b'_' | b':' | b'/')
    });
    if unquoted == id {
        (Kind::Id, id)
    } else if unquoted == qualified {
        (Kind::QualifiedId, qualified)
    } else {
        (Kind::Unquoted, unquoted)
    }
}

/// `'…'`, with `''` and backslash escapes inside; `None` if it is not closed.
fn string(bytes: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match bytes.get(at)? {
            b'\\' => {
                bytes.get(at + 1)?;
                at += 2;
            }
            b'\'' if bytes.get(at + 1) == Some(&b'\'') => at += 2,
            b'\'' => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// An integer with letters glued on, or a real without: the longer, and on a tie the integer.
fn number(bytes: &[u8]) -> Option<(Kind, usize)> {
    let sign = usize::from(matches!(bytes.first(), Some(b'+' | b'-')));
    let digits = count(&bytes[sign..], |byte| byte.is_ascii_digit());
    let mut integer = 0;
    if digits > 0 {
        let mut end = sign + digits;
        if bytes[sign..].starts_with(b"0x") {
            let hex = count(&bytes[sign + 2..], |byte| byte.is_ascii_hexdigit());
            end = if hex > 0 { sign + 2 + hex } else { end };
        }
        integer = end + count(&bytes[end..], |byte| byte.is_ascii_alphabetic());
    }
    let mut real = 0;
    if bytes.get(sign + digits) == Some(&b'.') {
        let point = sign + digits + 1;
        real = point + count(&bytes[point..], |byte| byte.is_ascii_digit());
        if let Some(b'e' | b'E') = bytes.get(real) {
            let sign = usize::from(matches!(bytes.get(real + 1), Some(b'+' | b'-')));
            let from = (real + 1 + sign).min(bytes.len());
            let exponent = count(&bytes[from..], |byte| byte.is_ascii_digit());
            real = if exponent > 0 { from + exponent } else { real };
        }
    }
    match (integer, real) {
        (0, 0) => None,
        (integer, real) if integer >= real => Some((Kind::Integer, integer)),
        (_, real) => Some((Kind::Real, real)),
    }
}

/// What stands between the quotes, as the server's `DeescapeQuotedString` reads it.
pub(super) fn unescape(quoted: &str) -> Result<String, Problem> {
    let mut bytes = quoted[1..quoted.len() - 1].bytes().peekable();
    let mut text = Vec::new();
    while let Some(byte) = bytes.next() {
        match byte {
            // Within the string a quote stands only in pairs.
            b'\'' => {
                bytes.next();
                text.push(b'\'');
            }
            b'\\' => match bytes.next() {
                Some(b'b') => text.push(8),
                Some(b'f') => text.push(12),
                Some(b'n') => text.push(b'\n'),
                Some(b'r') => text.push(b'\r'),
                Some(b't') => text.push(b'\t'),
                Some(digit @ b'0'..=b'7') => {
                    let mut octal = u32::from(digit - b'0');
                    for _ in 0..2 {
                        let Some(digit) = bytes.next_if(|byte| (b'0'..=b'7').contains(byte)) else {
                            break;
                        };
                        octal = octal * 8 + u32::from(digit - b'0');
                    }
                    // The server keeps one byte of it.
                    text.push(u8::try_from(octal & 0xff).unwrap_or_default());
                }
                Some(other) => text.push(other),
                None => {}
            },
            other => text.push(other),
        }
    }
    if text.contains(&0) {
        return Err(Problem::refused("a NUL byte, at which the server would cut the value")
            .instead("remove it"));
    }
    String::from_utf8(text).map_err(|_| {
        Problem::refused("the octal escapes do not make UTF-8 text")
            .instead("write the characters themselves")
    })
}
