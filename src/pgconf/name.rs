//! The name of a parameter and the text of a value, valid from construction.
//!
//! Leaves to [`catalogue`](super::catalogue) whether a server knows the name, and to
//! [`value`](super::value) whether it takes the value. A `Name` can never carry a second line into
//! a file, and a `Value` can never break out of its quotes or be cut short by the server.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::problem::Problem;
use super::suggest;

/// The name of a parameter as the file's grammar allows it: `work_mem`, `auto_explain.log_analyze`.
///
/// Compared, ordered and hashed without regard to ASCII case, as the server does; keeps the
/// spelling it was made with. Cheap to clone.
#[derive(Clone)]
pub struct Name(Arc<str>);

/// The text of a value, as it stands between the quotes: no newline, no NUL.
///
/// Whether two texts mean the same is for [`Catalogue::same`](super::Catalogue::same); `==`
/// compares the texts.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value(Arc<str>);

/// The include directives have the shape of a parameter, but are none.
pub(super) const DIRECTIVES: [&str; 3] = ["include", "include_if_exists", "include_dir"];

/// Longest name we take. The server has no limit, its identifiers end at 63 bytes; a name is two
/// identifiers and a dot.
const NAME_LIMIT: usize = 127;

impl Name {
    /// Checks a name against the grammar of `postgresql.conf`: letters, digits and `_`, not
    /// beginning with a digit, at most one dot.
    ///
    /// # Errors
    /// A [`Problem`] that says what is wrong with the name and what to write instead.
    pub fn new(text: impl AsRef<str>) -> Result<Name, Problem> {
        let text = text.as_ref();
        let refuse = |message: &str| Err(Problem::refused(message).of(suggest::clip(text)));
        if text.len() > NAME_LIMIT {
            return refuse(&format!("a parameter's name has at most {NAME_LIMIT} bytes"));
        }
        if DIRECTIVES.iter().any(|directive| directive.eq_ignore_ascii_case(text)) {
            return refuse("this is a directive, not a parameter; other files cannot be included");
        }
        if text.starts_with('\u{feff}') {
            return refuse("the name begins with a byte order mark")
                .map_err(|problem: Problem| problem.instead("save the file without it"));
        }
        let parts: Vec<&str> = text.split('.').collect();
        if parts.len() > 2 {
            return refuse("a parameter's name has at most one dot");
        }
        if !parts.iter().all(|part| is_identifier(part)) {
            let problem = Problem::refused(
                "not a parameter's name; it has letters, digits and _, and begins with no digit",
            )
            .of(suggest::clip(text));
            return Err(match suggest::repaired_name(text) {
                Some(name) => problem.instead(format!("write {name}")),
                None => problem,
            });
        }
        Ok(Name(text.into()))
    }

    /// The name as it was spelled.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name in ASCII lower case.
    pub fn lower(&self) -> String {
        self.0.to_ascii_lowercase()
    }

    /// Whether the name belongs to an extension (`prefix.name`). The server takes such a name and
    /// any value for it as long as no library has claimed the prefix.
    pub fn is_dotted(&self) -> bool {
        self.0.contains('.')
    }

    fn bytes(&self) -> impl Iterator<Item = u8> {
        self.0.bytes().map(|byte| byte.to_ascii_lowercase())
    }
}

/// Letter first, then letters and digits; every character outside ASCII is a letter to the server.
fn is_identifier(part: &str) -> bool {
    let mut bytes = part.bytes();
    bytes.next().is_some_and(is_letter) && bytes.all(is_letter_or_digit)
}

/// `LETTER` of the server's scanner.
pub(super) fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

/// `LETTER_OR_DIGIT` of the server's scanner.
pub(super) fn is_letter_or_digit(byte: u8) -> bool {
    is_letter(byte) || byte.is_ascii_digit()
}

impl Value {
    /// Checks the text of a value.
    ///
    /// # Errors
    /// A newline or NUL: a line break cannot stand between the quotes, and the server cuts a value
    /// at NUL without a word. The [`Problem`] does not carry the text.
    pub fn new(text: impl AsRef<str>) -> Result<Value, Problem> {
        let text = text.as_ref();
        if text.contains('\0') {
            return Err(Problem::refused("a NUL byte, at which the server would cut the value")
                .instead("remove it"));
        }
        if text.contains('\n') {
            return Err(Problem::refused("a line break, which a value cannot hold")
                .instead("write the value on one line"));
        }
        Ok(Value(text.into()))
    }

    /// The text, without quotes or escapes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Name {}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Name) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Name) -> Ordering {
        self.bytes().cmp(other.bytes())
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for byte in self.bytes() {
            state.write_u8(byte);
        }
    }
}

impl Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl std::str::FromStr for Name {
    type Err = Problem;
    fn from_str(text: &str) -> Result<Name, Problem> {
        Name::new(text)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Name, D::Error> {
        let text = String::deserialize(deserializer)?;
        Name::new(text).map_err(de::Error::custom)
    }
}

impl AsRef<str> for Value {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Value {
    type Err = Problem;
    fn from_str(text: &str) -> Result<Value, Problem> {
        Value::new(text)
    }
}

/// For test failures. Anything that prints for people asks `tiers::shown` first; that is why a
/// `Value` has no `Display`.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_without_case_and_keep_their_spelling() {
        let (a, b) = (Name::new("DateStyle").unwrap(), Name::new("datestyle").unwrap());
        assert_eq!(a, b);
        assert_eq!(a.cmp(&b), Ordering::Equal);
        assert_eq!(a.as_str(), "DateStyle");
        assert!(Name::new("a_b").unwrap() > Name::new("A.b").unwrap());
    }

    #[test]
    fn names_follow_the_grammar_of_the_file() {
        fn check(text: &str, expected: Result<(), &str>) {
            let got = Name::new(text).map(|_| ()).map_err(|problem| problem.to_string());
            assert_eq!(got, expected.map_err(str::to_owned), "{text:?}");
        }
        check("work_mem", Ok(()));
        check("_x1", Ok(()));
        check("größe.wert", Ok(()));
        check("auto_explain.log_analyze", Ok(()));
        let shape =
            "not a parameter's name; it has letters, digits and _, and begins with no digit";
        check("work-mem", Err(&format!("work-mem: {shape}; write work_mem")));
        check("1a", Err(&format!("1a: {shape}")));
        check("", Err(&format!(": {shape}")));
        check("a.", Err(&format!("a.: {shape}")));
        check("a$b", Err(&format!("a$b: {shape}")));
        check("x\ny = 1", Err(&format!("x y = 1: {shape}")));
        check("a.b.c", Err("a.b.c: a parameter's name has at most one dot"));
        check(
            "Include",
            Err("Include: this is a directive, not a parameter; other files cannot be included"),
        );
        check(
            "\u{feff}work_mem",
            Err(
                "\u{feff}work_mem: the name begins with a byte order mark; save the file without it",
            ),
        );
    }

    #[test]
    fn a_value_is_one_line_that_the_server_reads_whole() {
        assert!(Value::new("it's \\ fine\tand\r so on").is_ok());
        assert!(Value::new("").is_ok());
        assert!(Value::new("a\nb").is_err());
        assert!(Value::new("a\0b").is_err());
    }
}
