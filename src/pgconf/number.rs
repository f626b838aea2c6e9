//! Numbers as the server reads and prints them: `strtol` with base 0, `strtod`, `%g`.
//!
//! Leaves units, rounding and ranges to [`value`](super::value). Never accepts what the C library
//! would not: signs, leading spaces and the longest valid beginning are the rules, not Rust's.

/// A number at the beginning of a text, and the rest of the text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Read<'a> {
    /// The number.
    pub number: f64,
    /// What follows it, unread.
    pub rest: &'a str,
}

/// Reads a number as the server reads one for an integer parameter: decimal, `0x` hexadecimal or
/// leading-zero octal; again as a real when it goes on with `.` or an exponent, or is too long for
/// 64 bits. `None` if there is no number, or one that no `double` holds.
pub(super) fn read_integer(text: &str) -> Option<Read<'_>> {
    match strtol(text) {
        // Having read nothing, strtol leaves even the leading spaces to be looked at.
        None => text.starts_with(['.', 'e', 'E']).then(|| read_real(text)).flatten(),
        Some((Some(number), rest)) if !rest.starts_with(['.', 'e', 'E']) => {
            Some(Read { number: number as f64, rest })
        }
        Some(_) => read_real(text),
    }
}

/// Reads a number as the server reads one for a real parameter. `None` if there is none, or one
/// that no `double` holds; infinities are read, and are for the range check.
pub(super) fn read_real(text: &str) -> Option<Read<'_>> {
    let body = skip_spaces(text);
    let (negative, body) = sign(body);
    let (number, rest) = if let Some(rest) = strip_word(body, "infinity") {
        (f64::INFINITY, rest)
    } else if let Some(rest) = strip_word(body, "inf") {
        (f64::INFINITY, rest)
    } else if let Some((number, rest)) = hexadecimal(body) {
        (finite(number, !body_is_zero(body, rest))?, rest)
    } else {
        let length = decimal_length(body)?;
        let (digits, rest) = body.split_at(length);
        (finite(digits.parse().ok()?, !body_is_zero(body, rest))?, rest)
    };
    Some(Read { number: if negative { -number } else { number }, rest })
}

/// What the C library reports as out of range: overflow, and a number too small to be exact.
fn finite(number: f64, is_something: bool) -> Option<f64> {
    let too_small = is_something && !number.is_normal();
    (number.is_finite() && !too_small).then_some(number)
}

/// Whether the digits before the exponent are all zero.
fn body_is_zero(body: &str, rest: &str) -> bool {
    let read = &body[..body.len() - rest.len()];
    let hexadecimal = read.starts_with("0x") || read.starts_with("0X");
    let mantissa = match (hexadecimal, read.find(if hexadecimal { ['p', 'P'] } else { ['e', 'E'] }))
    {
        (true, end) => &read[2..end.unwrap_or(read.len())],
        (false, end) => &read[..end.unwrap_or(read.len())],
    };
    mantissa.bytes().all(|byte| byte == b'0' || byte == b'.')
}

/// `strtol(text, &rest, 0)`. The outer `None`: nothing read; the inner: too large for 64 bits.
fn strtol(text: &str) -> Option<(Option<i64>, &str)> {
    let (negative, body) = sign(skip_spaces(text));
    let prefixed = |prefix| {
        body.strip_prefix(prefix)
            .filter(|digits: &&str| digits.starts_with(|c: char| c.is_ascii_hexdigit()))
    };
    let (radix, digits) = match prefixed("0x").or_else(|| prefixed("0X")) {
        Some(digits) => (16, digits),
        None if body.starts_with('0') => (8, body),
        None => (10, body),
    };
    let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
    if end == 0 {
        return None;
    }
    let (digits, rest) = digits.split_at(end);
    let number = digits.bytes().try_fold(0i64, |number, byte| {
        let digit = i64::from((byte as char).to_digit(radix)?);
        let number = number.checked_mul(i64::from(radix))?;
        if negative { number.checked_sub(digit) } else { number.checked_add(digit) }
    });
    Some((number, rest))
}

/// Length of a decimal number with fraction and exponent at the beginning of the text.
fn decimal_length(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let whole = digits(0);
    let mut end = whole;
    if bytes.get(end) == Some(&b'.') {
        let fraction = digits(end + 1);
        if whole + fraction == 0 {
            return None;
        }
        end += 1 + fraction;
    } else if whole == 0 {
        return None;
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        let from = (end + 1 + sign).min(bytes.len());
        let exponent = digits(from);
        if exponent > 0 {
            end = from + exponent;
        }
    }
    Some(end)
}

/// A hexadecimal number as `strtod` reads it: `0x1f`, `0x.8`, `0x1p-3`.
fn hexadecimal(text: &str) -> Option<(f64, &str)> {
    let body = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))?;
    let (mut number, mut scale, mut seen, mut after_dot) = (0.0f64, 0i32, false, false);
    let mut end = 0;
    for byte in body.bytes() {
        match (byte as char).to_digit(16) {
            Some(digit) => {
                number = number * 16.0 + f64::from(digit);
                scale -= if after_dot { 4 } else { 0 };
                seen = true;
            }
            None if byte == b'.' && !after_dot => after_dot = true,
            None => break,
        }
        end += 1;
    }
    if !seen {
        return None;
    }
    let mut rest = &body[end..];
    if let Some(power) = rest.strip_prefix(['p', 'P']) {
        let (negative, digits) = sign(power);
        let length = digits.bytes().take_while(u8::is_ascii_digit).count();
        if length > 0 {
            // More than the largest exponent is all the same.
            let exponent: i32 = digits[..length].parse().unwrap_or(100_000).min(100_000);
            scale = scale.saturating_add(if negative { -exponent } else { exponent });
            rest = &digits[length..];
        }
    }
    Some((number * 2f64.powi(scale), rest))
}

/// The space characters of the C locale.
pub(super) fn skip_spaces(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\n', '\r', '\u{b}', '\u{c}'])
}

fn sign(text: &str) -> (bool, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    }
}

fn strip_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let head = text.get(..word.len())?;
    head.eq_ignore_ascii_case(word).then(|| &text[word.len()..])
}

/// A number as C's `%g` prints it: six significant digits, no trailing zeros. The server shows
/// reals this way, so two reals that agree in six digits cannot be told apart from outside.
pub(super) fn format_g(number: f64) -> String {
    if number == 0.0 {
        return if number.is_sign_negative() { "-0" } else { "0" }.to_owned();
    }
    let scientific = format!("{number:.5e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        let places = usize::try_from(5 - exponent).unwrap_or(0);
        return trim_zeros(&format!("{number:.places$}")).to_owned();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trim_zeros(mantissa), exponent.abs())
}

fn trim_zeros(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_read_like_strtol() {
        fn check(text: &str, expected: Option<(f64, &str)>) {
            let got = read_integer(text).map(|read| (read.number, read.rest));
            assert_eq!(got, expected, "{text:?}");
        }
        check("100", Some((100.0, "")));
        check(" \t+42kB", Some((42.0, "kB")));
        check("-0x10", Some((-16.0, "")));
        check("0X1F", Some((31.0, "")));
        check("0x", Some((0.0, "x")));
        check("010000", Some((4096.0, "")));
        check("0800", Some((0.0, "800")));
        check("010.5", Some((10.5, "")));
        check("08.5", Some((0.0, "8.5")));
        check("1e3kB", Some((1000.0, "kB")));
        check("1e", Some((1.0, "e")));
        check(".5", Some((0.5, "")));
        check("1.", Some((1.0, "")));
        check("0x1.8", Some((1.5, "")));
        check("0x1e3", Some((483.0, "")));
        check("99999999999999999999", Some((1e20, "")));
        check("1_000", Some((1.0, "_000")));
        check(".", None);
        check("e5", None);
        check("", None);
        check("kB", None);
        check("inf", None);
        check("1e999", None);
        check("1e-999", None);
    }

    #[test]
    fn reals_are_read_like_strtod() {
        fn check(text: &str, expected: Option<(f64, &str)>) {
            let got = read_real(text).map(|read| (read.number, read.rest));
            assert_eq!(got, expected, "{text:?}");
        }
        check("1.10", Some((1.1, "")));
        check("-1e-2x", Some((-0.01, "x")));
        check("0x10", Some((16.0, "")));
        check("0x1p3", Some((8.0, "")));
        check("010", Some((10.0, "")));
        check("0e5", Some((0.0, "")));
        check("Infinity", Some((f64::INFINITY, "")));
        check("nan", None);
        check("--1", None);
    }

    #[test]
    fn numbers_are_printed_like_g() {
        fn check(number: f64, expected: &str) {
            assert_eq!(format_g(number), expected);
        }
        check(1.1, "1.1");
        check(0.01, "0.01");
        check(100.0, "100");
        check(1_000_000.0, "1e+06");
        check(999_999.5, "1e+06");
        check(123_456.7, "123457");
        check(0.0001, "0.0001");
        check(0.000_01, "1e-05");
        check(f64::MAX, "1.79769e+308");
        check(0.0, "0");
        check(-1.0, "-1");
        check(0.1 + 0.2, "0.3");
    }
}
