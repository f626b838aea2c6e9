//! Values of text parameters that the server rewrites or refuses by looking at the text alone.
//!
//! Follows the parameters' own check functions in the server. Every other text is passed on as it
//! is. Leaves everything that needs a file, a library, a role or a database to the server's dry
//! run. Paths that the server shortens belong to owned parameters and are not followed.

use super::suggest;
use super::value::{Refusal, Why};

/// Names of things in a database end here; the server cuts what is longer.
const IDENTIFIER_LIMIT: usize = 63;

/// The text as a server of that major version would report it.
pub(super) fn canonical(name: &str, major: u32, text: &str) -> Result<String, Refusal> {
    match name {
        "DateStyle" => date_style(text),
        "client_encoding" => encoding(text),
        "application_name" | "cluster_name" => Ok(ascii(identifier(text), major)),
        "default_table_access_method" | "default_tablespace" => Ok(identifier(text).to_owned()),
        "log_destination" => words(text, LOG_DESTINATIONS).map(|_| text.to_owned()),
        "search_path" | "temp_tablespaces" => list(text).map(|_| text.to_owned()),
        _ => Ok(text.to_owned()),
    }
}

/// `jsonlog` came with 15; `eventlog` is for Windows.
const LOG_DESTINATIONS: &[&str] = &["stderr", "csvlog", "jsonlog", "syslog"];

fn refuse(message: String, instead: Option<String>) -> Refusal {
    Refusal { why: Why::Text, message, instead }
}

/// A name, cut as the server cuts it: at a character's beginning.
fn identifier(text: &str) -> &str {
    let end = (0..=text.len().min(IDENTIFIER_LIMIT)).rev().find(|at| text.is_char_boundary(*at));
    &text[..end.unwrap_or(0)]
}

/// Bytes that are not printable ASCII are replaced, since 16 by their code.
fn ascii(text: &str, major: u32) -> String {
    let replaced = text.bytes().map(|byte| match byte {
        32..=126 => (byte as char).to_string(),
        _ if major >= 16 => format!("\\x{byte:02x}"),
        _ => "?".to_owned(),
    });
    replaced.collect()
}

/// A list of identifiers as `SplitIdentifierString` reads one: quoted or folded to lower case.
fn list(text: &str) -> Result<Vec<String>, Refusal> {
    let broken = || {
        let message = format!("\"{}\" is not a list of names", suggest::clip(text));
        let instead = "separate names by commas, and put \"\" around odd ones";
        refuse(message, Some(instead.to_owned()))
    };
    let spaces = [' ', '\t', '\n', '\r', '\u{b}', '\u{c}'];
    let mut rest = text.trim_start_matches(spaces);
    let mut names = Vec::new();
    if rest.is_empty() {
        return Ok(names);
    }
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (name, after) = quoted_name(quoted).ok_or_else(broken)?;
            names.push(name);
            rest = after;
        } else {
            let end = rest.find(|c| c == ',' || spaces.contains(&c)).unwrap_or(rest.len());
            if end == 0 {
                return Err(broken());
            }
            names.push(rest[..end].to_ascii_lowercase());
            rest = &rest[end..];
        }
        rest = rest.trim_start_matches(spaces);
        if rest.is_empty() {
            return Ok(names);
        }
        rest = rest.strip_prefix(',').ok_or_else(broken)?.trim_start_matches(spaces);
    }
}

/// The name up to the closing quote, and what follows it; `""` stands for a quote.
fn quoted_name(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"')?;
        name.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(after) => {
                name.push('"');
                rest = after;
            }
            None => return Some((name, rest)),
        }
    }
}

/// A list of words, each of which has to be known.
fn words(text: &str, known: &[&str]) -> Result<(), Refusal> {
    for word in list(text)? {
        if !known.contains(&word.as_str()) {
            let message = format!("\"{}\" is none of {}", suggest::clip(&word), known.join(", "));
            let meant = suggest::nearest(&word, known.iter().copied());
            return Err(refuse(message, meant.map(|meant| format!("write {meant}"))));
        }
    }
    Ok(())
}

/// Style and order of dates; what is not named stays as it is built in: `ISO, MDY`.
fn date_style(text: &str) -> Result<String, Refusal> {
    let (mut style, mut order): (Option<&str>, Option<&str>) = (None, None);
    let mut conflict = false;
    let mut set = |slot: &mut Option<&'static str>, to: &'static str| {
        conflict |= slot.is_some_and(|was| was != to);
        *slot = Some(to);
    };
    for word in list(text)? {
        match word.as_str() {
            "iso" => set(&mut style, "ISO"),
            "sql" => set(&mut style, "SQL"),
            "german" => {
                set(&mut style, "German");
                // Day first, unless an order was named before.
                order.get_or_insert("DMY");
            }
            "ymd" => set(&mut order, "YMD"),
            "dmy" => set(&mut order, "DMY"),
            "mdy" | "us" => set(&mut order, "MDY"),
            "default" => {
                style.get_or_insert("ISO");
                order.get_or_insert("MDY");
            }
            word if word.starts_with("postgres") => set(&mut style, "Postgres"),
            word if word.starts_with("euro") => set(&mut order, "DMY"),
            word if word.starts_with("noneuro") => set(&mut order, "MDY"),
            word => {
                let message = format!("unknown word \"{}\"", suggest::clip(word));
                return Err(refuse(message, Some("write ISO, DMY or the like".to_owned())));
            }
        }
    }
    if conflict {
        let message = format!("\"{}\" names two styles or two orders", suggest::clip(text));
        return Err(refuse(message, Some("write one of each, such as ISO, DMY".to_owned())));
    }
    Ok(format!("{}, {}", style.unwrap_or("ISO"), order.unwrap_or("MDY")))
}

/// An encoding by its own name; spelling counts only by its letters and digits.
fn encoding(text: &str) -> Result<String, Refusal> {
    let bare: String =
        text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    if let Some((_, is)) = ENCODINGS.iter().find(|(name, _)| *name == bare) {
        return Ok((*is).to_owned());
    }
    let message = format!("unknown encoding \"{}\"", suggest::clip(text));
    let meant = suggest::nearest(&bare, ENCODINGS.iter().map(|(name, _)| *name));
    let meant = ENCODINGS.iter().find(|(name, _)| Some(*name) == meant);
    Err(refuse(message, meant.map(|(_, is)| format!("write {is}"))))
}

/// `pg_encname_tbl` of the server's `encnames.c`: what one may write, and what it is called.
pub(super) const ENCODINGS: &[(&str, &str)] = &[
    ("abc", "WIN1258"),
    ("alt", "WIN866"),
    ("big5", "BIG5"),
    ("euccn", "EUC_CN"),
    ("eucjis2004", "EUC_JIS_2004"),
    ("eucjp", "EUC_JP"),
    ("euckr", "EUC_KR"),
    ("euctw", "EUC_TW"),
    ("gb18030", "GB18030"),
    ("gbk", "GBK"),
    ("iso88591", "LATIN1"),
    ("iso885910", "LATIN6"),
    ("iso885913", "LATIN7"),
    ("iso885914", "LATIN8"),
    ("iso885915", "LATIN9"),
    ("iso885916", "LATIN10"),
    ("iso88592", "LATIN2"),
    ("iso88593", "LATIN3"),
    ("iso88594", "LATIN4"),
    ("iso88595", "ISO_8859_5"),
    ("iso88596", "ISO_8859_6"),
    ("iso88597", "ISO_8859_7"),
    ("iso88598", "ISO_8859_8"),
    ("iso88599", "LATIN5"),
    ("johab", "JOHAB"),
    ("koi8", "KOI8R"),
    ("koi8r", "KOI8R"),
    ("koi8u", "KOI8U"),
    ("latin1", "LATIN1"),
    ("latin10", "LATIN10"),
    ("latin2", "LATIN2"),
    ("latin3", "LATIN3"),
    ("latin4", "LATIN4"),
    ("latin5", "LATIN5"),
    ("latin6", "LATIN6"),
    ("latin7", "LATIN7"),
    ("latin8", "LATIN8"),
    ("latin9", "LATIN9"),
    ("mskanji", "SJIS"),
    ("muleinternal", "MULE_INTERNAL"),
    ("shiftjis", "SJIS"),
    ("shiftjis2004", "SHIFT_JIS_2004"),
    ("sjis", "SJIS"),
    ("sqlascii", "SQL_ASCII"),
    ("tcvn", "WIN1258"),
    ("tcvn5712", "WIN1258"),
    ("uhc", "UHC"),
    ("unicode", "UTF8"),
    ("utf8", "UTF8"),
    ("vscii", "WIN1258"),
    ("win", "WIN1251"),
    ("win1250", "WIN1250"),
    ("win1251", "WIN1251"),
    ("win1252", "WIN1252"),
    ("win1253", "WIN1253"),
    ("win1254", "WIN1254"),
    ("win1255", "WIN1255"),
    ("win1256", "WIN1256"),
    ("win1257", "WIN1257"),
    ("win1258", "WIN1258"),
    ("win866", "WIN866"),
    ("win874", "WIN874"),
    ("win932", "SJIS"),
    ("win936", "GBK"),
    ("win949", "UHC"),
    ("win950", "BIG5"),
    ("windows1250", "WIN1250"),
    ("windows1251", "WIN1251"),
    ("windows1252", "WIN1252"),
    ("windows1253", "WIN1253"),
    ("windows1254", "WIN1254"),
    ("windows1255", "WIN1255"),
    ("windows1256", "WIN1256"),
    ("windows1257", "WIN1257"),
    ("windows1258", "WIN1258"),
    ("windows866", "WIN866"),
    ("windows874", "WIN874"),
    ("windows932", "SJIS"),
    ("windows936", "GBK"),
    ("windows949", "UHC"),
    ("windows950", "BIG5"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, text: &str, expected: Option<&str>) {
        assert_eq!(canonical(name, 15, text).ok().as_deref(), expected, "{name} = {text:?}");
    }

    #[test]
    fn date_styles_are_completed() {
        check("DateStyle", "iso,dmy", Some("ISO, DMY"));
        check("DateStyle", "german", Some("German, DMY"));
        check("DateStyle", "ymd, german", Some("German, YMD"));
        check("DateStyle", "", Some("ISO, MDY"));
        check("DateStyle", "iso,sql", None);
        check("DateStyle", "iso,,dmy", None);
    }

    #[test]
    fn lists_are_read_like_identifiers() {
        check("search_path", "\"$user\", public", Some("\"$user\", public"));
        check("search_path", "a,,b", None);
        check("search_path", "\"a", None);
        check("search_path", "a b", None);
        check("log_destination", "STDERR , csvlog", Some("STDERR , csvlog"));
        let refusal = canonical("log_destination", 15, "csvlg").unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "\"csvlg\" is none of stderr, csvlog, jsonlog, syslog; write csvlog"
        );
    }

    #[test]
    fn names_are_cut_and_cleaned() {
        check("application_name", "é", Some("??"));
        assert_eq!(canonical("application_name", 16, "é").unwrap(), "\\xc3\\xa9");
        check("cluster_name", &"x".repeat(70), Some(&"x".repeat(63)));
        check("client_encoding", "utf-8", Some("UTF8"));
        check("client_encoding", "ISO_8859-1", Some("LATIN1"));
        check("client_encoding", "utf9", None);
    }
}
