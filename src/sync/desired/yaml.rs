//! A YAML file taken apart into documents, each value with its place.
//!
//! `serde_yaml` decides what a document means; `serde-saphyr` says where everything stands. A
//! document about which the two disagree is refused: other tools would disagree as well. Documents
//! of a file are read one by one, so that a broken one hides only itself. Leaves what a document
//! says to `documents.rs`. Never guesses a meaning.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use serde_yaml::Value;

use crate::sync::problem::{Position, Problem};

/// A value of a document and its place.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it begins.
    pub at: Position,
    /// What it is.
    pub shape: Shape,
    /// The same as `serde_yaml` understands it.
    pub value: Value,
}

/// What a value is.
#[derive(Clone, Debug)]
pub enum Shape {
    /// A mapping, in the order in which it is written.
    Map(Vec<Entry>),
    /// A sequence.
    List(Vec<Node>),
    /// Text, a number or a boolean.
    Scalar(Scalar),
    /// Nothing: `~`, `null` or no text at all.
    Null,
}

/// A key of a mapping and its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key's text.
    pub key: String,
    /// Where the key begins.
    pub at: Position,
    /// The value.
    pub node: Node,
}

/// Text, a number or a boolean.
#[derive(Clone, Debug)]
pub struct Scalar {
    /// The text that a server is given: `on` and `off` for booleans, and for whatever stands
    /// unquoted the very characters of the file, because YAML turns `0777`, `1_000` or `1e3` into
    /// something else.
    pub text: String,
    /// Whether another reader of YAML makes something else of it (`off`, `1_000`, `0777`, `12:30`).
    pub ambiguous: bool,
}

/// The documents of a file, and what is wrong with those that cannot be read.
pub fn documents(file: &str, text: &str) -> (Vec<Node>, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut nodes = Vec::new();
    for chunk in chunks(text) {
        match read(file, &chunk) {
            Ok(node) if matches!(node.shape, Shape::Null) => {}
            Ok(node) => nodes.push(node),
            Err(problem) => problems.push(*problem),
        }
    }
    (nodes, problems)
}

/// The text of one document, and how many lines of the file stand before it.
#[derive(Debug, PartialEq)]
struct Chunk<'a> {
    lines_before: u32,
    text: &'a str,
}

/// Cuts at the lines that begin or end a document. Such a line is a marker wherever it stands:
/// YAML forbids it even inside a quoted or block text.
fn chunks(text: &str) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut begin, mut lines_before) = (0, 0);
    let (mut offset, mut only_comments) = (0, true);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let marker = |mark: &str| {
            let rest = line.strip_prefix(mark);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
        };
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        if marker("---") && !only_comments {
            chunks.push(Chunk { lines_before, text: &text[begin..offset] });
            (begin, lines_before) = (offset, number);
        }
        let blank = line.trim().is_empty() || line.starts_with(['#', '%']);
        only_comments = only_comments && blank;
        offset += line.len();
        if marker("...") {
            chunks.push(Chunk { lines_before, text: &text[begin..offset - line.len()] });
            (begin, lines_before, only_comments) = (offset, number + 1, true);
        }
    }
    chunks.push(Chunk { lines_before, text: &text[begin..] });
    chunks
}

/// Reads one document with both readers and lays their answers over each other.
fn read(file: &str, chunk: &Chunk<'_>) -> Result<Node, Box<Problem>> {
    let shift = |line: u64, column: u64| {
        let small = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        Position::new(small(line).saturating_add(chunk.lines_before), small(column).max(1))
    };
    let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
    let spans = serde_saphyr::from_str_with_options::<Spanned<Tree>>(chunk.text, options);
    let value: Value = serde_yaml::from_str(chunk.text).map_err(|error| {
        let place = error.location().map(|at| shift(at.line() as u64, at.column() as u64));
        // Where both refuse, saphyr points at the cause: the second of two equal keys, the bracket
        // that is never closed.
        let other = spans.as_ref().err();
        let exact = other.and_then(|e| e.location()).map(|at| shift(at.line(), at.column()));
        let said = error.to_string();
        let words = match other {
            Some(other) if !said.contains(TWICE) => other.to_string(),
            Some(_) | None => said,
        };
        Box::new(syntax(file, exact.or(place), &words))
    })?;
    let tree = spans.map_err(|error| {
        let place = error.location().map(|at| shift(at.line(), at.column()));
        let message = format!("readers of YAML disagree about this: {}", without_place(&error));
        Box::new(Problem::refused(file, place, message).instead("write it more plainly"))
    })?;
    Overlay { file, text: chunk.text, shift: &shift }.node(tree, value)
}

/// How `serde_yaml` begins to say that a key stands in a mapping twice.
const TWICE: &str = "duplicate entry with key ";

/// A problem of the YAML itself.
fn syntax(file: &str, place: Option<Position>, error: &str) -> Problem {
    let sentence = without_place(&error);
    // Deeper in a document the path stands before it: `spec.parameters: duplicate entry …`.
    if let Some((_, key)) = sentence.split_once(TWICE) {
        let message = format!("the key {key} stands here twice");
        return Problem::refused(file, place, message).instead("keep one of the two");
    }
    Problem::refused(file, place, format!("not YAML: {sentence}"))
}

/// A reader's message without the place, which is said separately.
fn without_place(error: &impl fmt::Display) -> String {
    let text = error.to_string();
    let end = text.find(" at line ").unwrap_or(text.len());
    text[..end].lines().next().unwrap_or_default().chars().take(200).collect()
}

/// Lays what `serde_yaml` understood over what saphyr located.
struct Overlay<'a> {
    file: &'a str,
    text: &'a str,
    shift: &'a dyn Fn(u64, u64) -> Position,
}

impl Overlay<'_> {
    fn node(&self, tree: Spanned<Tree>, value: Value) -> Result<Node, Box<Problem>> {
        let at = (self.shift)(tree.referenced.line(), tree.referenced.column());
        let bytes = tree.defined.span();
        let literal = bytes
            .byte_offset()
            .zip(bytes.byte_len())
            .and_then(|(begin, length)| self.text.get(begin as usize..(begin + length) as usize));
        let shape = match (tree.value, untagged(&value)) {
            (Tree::Map(entries), Value::Mapping(mapping)) => self.map(at, entries, mapping)?,
            (Tree::List(items), Value::Sequence(values)) if items.len() == values.len() => {
                let nodes = items.into_iter().zip(values).map(|(i, v)| self.node(i, v.clone()));
                Shape::List(nodes.collect::<Result<_, _>>()?)
            }
            (Tree::Scalar, Value::Null) => Shape::Null,
            (Tree::Scalar, value @ (Value::Bool(_) | Value::Number(_) | Value::String(_))) => {
                Shape::Scalar(scalar(value, literal.unwrap_or_default()))
            }
            _ => return Err(self.disagreement(at)),
        };
        Ok(Node { at, shape, value })
    }

    fn map(
        &self,
        at: Position,
        entries: Vec<(Spanned<String>, Spanned<Tree>)>,
        mapping: &serde_yaml::Mapping,
    ) -> Result<Shape, Box<Problem>> {
        if mapping.contains_key("<<") {
            let problem = Problem::refused(self.file, at, "merge keys (<<) are not read");
            return Err(Box::new(problem.instead("write the fields out")));
        }
        let mut by_key: BTreeMap<String, &Value> = BTreeMap::new();
        for (key, value) in mapping {
            by_key.insert(key_text(key).ok_or_else(|| self.disagreement(at))?, value);
        }
        let mut shape = Vec::with_capacity(entries.len());
        for (key, tree) in entries {
            let at = (self.shift)(key.referenced.line(), key.referenced.column());
            let literal = key.value;
            let value = by_key.remove(&literal).ok_or_else(|| self.disagreement(at))?;
            shape.push(Entry { key: literal, at, node: self.node(tree, value.clone())? });
        }
        if by_key.is_empty() { Ok(Shape::Map(shape)) } else { Err(self.disagreement(at)) }
    }

    fn disagreement(&self, at: Position) -> Box<Problem> {
        let problem = Problem::refused(self.file, at, "readers of YAML disagree about this");
        Box::new(problem.instead("quote the text, or write it more plainly"))
    }
}

fn untagged(value: &Value) -> &Value {
    match value {
        Value::Tagged(tagged) => untagged(&tagged.value),
        plain => plain,
    }
}

/// A key as text; `None` for mappings and the like, which no document of ours has as a key.
fn key_text(key: &Value) -> Option<String> {
    match key {
        Value::String(text) => Some(text.clone()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => None,
    }
}

/// The text of a scalar. Quoted and block texts are what `serde_yaml` makes of them.
fn scalar(value: &Value, literal: &str) -> Scalar {
    let quoted = literal.starts_with(['"', '\'', '|', '>', '!']);
    let text = match value {
        Value::Bool(true) => "on".to_owned(),
        Value::Bool(false) => "off".to_owned(),
        Value::Number(_) if !quoted && !literal.is_empty() => literal.to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Null | Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => String::new(),
    };
    Scalar { ambiguous: !quoted && is_ambiguous(literal), text }
}

/// Whether YAML 1.1 or 1.2, or another reader, makes a boolean or another number of these
/// unquoted characters. `true` and `false` are the same everywhere.
fn is_ambiguous(literal: &str) -> bool {
    let words = ["on", "off", "yes", "no", "y", "n"];
    let digits = literal.trim_start_matches(['-', '+']);
    let number_like = digits.starts_with(|c: char| c.is_ascii_digit());
    let grouped = digits.contains('_') && digits.chars().all(|c| c.is_ascii_digit() || c == '_');
    let octal =
        digits.len() > 1 && digits.starts_with('0') && digits.chars().all(|c| c.is_ascii_digit());
    let radix = ["0x", "0o", "0b"].iter().any(|prefix| digits.starts_with(prefix));
    let exponent = digits.parse::<f64>().is_ok() && digits.contains(['e', 'E']);
    let clock = digits.contains(':') && digits.chars().all(|c| c.is_ascii_digit() || c == ':');
    words.iter().any(|word| word.eq_ignore_ascii_case(literal))
        || number_like && (grouped || octal || radix || exponent || clock)
}

/// The shape of a document as saphyr sees it; meanings come from `serde_yaml`.
#[derive(Debug)]
enum Tree {
    Map(Vec<(Spanned<String>, Spanned<Tree>)>),
    List(Vec<Spanned<Tree>>),
    Scalar,
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
    fn visit_i128<E>(self, _: i128) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
    fn visit_u128<E>(self, _: u128) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
    fn visit_str<E>(self, _: &str) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
    fn visit_bytes<E>(self, _: &[u8]) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
    fn visit_none<E>(self) -> Result<Tree, E> {
        Ok(Tree::Scalar)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Tree::Map(entries))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Tree, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

impl Node {
    /// The entries of a mapping; none for anything else.
    pub fn entries(&self) -> &[Entry] {
        match &self.shape {
            Shape::Map(entries) => entries,
            Shape::List(_) | Shape::Scalar(_) | Shape::Null => &[],
        }
    }

    /// The entry of this key.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// The text of a scalar below this key.
    pub fn text(&self, key: &str) -> Option<&str> {
        match &self.entry(key)?.node.shape {
            Shape::Scalar(scalar) => Some(&scalar.text),
            Shape::Map(_) | Shape::List(_) | Shape::Null => None,
        }
    }

    /// What kind of value it is, for messages.
    pub fn kind(&self) -> &'static str {
        match &self.shape {
            Shape::Map(_) => "a mapping",
            Shape::List(_) => "a list",
            Shape::Scalar(_) => "a single value",
            Shape::Null => "nothing",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn unquoted_text_is_taken_as_it_stands_in_the_file() {
        fn check(yaml: &str, text: &str, ambiguous: bool) {
            let (nodes, problems) = documents("f", &format!("a: {yaml}\n"));
            assert_eq!(problems, [], "{yaml}");
            let Shape::Scalar(scalar) = &nodes[0].entry("a").unwrap().node.shape else { panic!() };
            assert_eq!((scalar.text.as_str(), scalar.ambiguous), (text, ambiguous), "{yaml}");
        }
        check("250", "250", false);
        check("16MB", "16MB", false);
        check("0777", "0777", true);
        check("1_000", "1_000", true);
        check("1e3", "1e3", true);
        check("1.10", "1.10", false);
        check("12:30", "12:30", true);
        check("0x10", "0x10", true);
        check("off", "off", true);
        check("\"off\"", "off", false);
        check("true", "on", false);
        check("False", "off", false);
        check("'0777'", "0777", false);
        check("2026-12-01", "2026-12-01", false);
        check("a b # c", "a b", false);
        check("&x 16MB", "16MB", false);
    }

    #[test]
    fn places_are_those_of_the_file() {
        let text = "# c\n---\na: 1\n---\nb:\n  ö: 2\n  é: [x]\n...\nc: 3\n";
        let (nodes, problems) = documents("f", text);
        assert_eq!(problems, []);
        let places: Vec<(String, Position)> =
            nodes.iter().map(|n| (n.entries()[0].key.clone(), n.entries()[0].at)).collect();
        let at = Position::new;
        assert_eq!(
            places,
            [("a".into(), at(3, 1)), ("b".into(), at(5, 1)), ("c".into(), at(9, 1))]
        );
        let inner = nodes[1].entry("b").unwrap().node.entry("é").unwrap();
        assert_eq!((inner.at, inner.node.at), (at(7, 3), at(7, 6)));
    }

    #[test]
    fn a_broken_document_hides_only_itself() {
        fn check(text: &str, documents_read: usize, expected: &[&str]) {
            let (nodes, problems) = documents("f", text);
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            assert_eq!(nodes.len(), documents_read, "{text:?}");
            assert_eq!(problems, expected, "{text:?}");
        }
        check("", 0, &[]);
        check("# nothing\n", 0, &[]);
        check("a: 1\n---\nb: 2\n", 2, &[]);
        let twice = "f:4:1 the key \"b\" stands here twice; keep one of the two";
        check("a: 1\n---\nb: 1\nb: 2\n---\nc: 1\n", 2, &[twice]);
        let deeper = "f:1:15 the key \"c\" stands here twice; keep one of the two";
        check("a: {b: {c: 1, c: 2}}\n", 0, &[deeper]);
        check("a: [1,\n---\nb: 2\n", 1, &["f:1:4 not YAML: unclosed bracket '['"]);
        check(
            "a: &x {q: 1}\nb:\n  <<: *x\n",
            0,
            &["f:3:3 merge keys (<<) are not read; write the fields out"],
        );
        check("a:\tb: c", 0, &["f:1:5 not YAML: mapping values are not allowed in this context"]);
    }

    proptest! {
        /// No text makes the reader panic, and every place lies in the file.
        #[test]
        fn any_text_is_read_or_refused(text in "(\\PC|[-:{}\\[\\],&*#?|>'\"%@!~\n\t ]){0,80}") {
            let (nodes, problems) = documents("f", &text);
            let lines = text.lines().count() as u32 + 1;
            for node in nodes {
                prop_assert!(node.at.line <= lines);
            }
            for problem in problems {
                prop_assert!(problem.at.is_none_or(|at| at.line <= lines + 1), "{problem}");
            }
        }
    }
}
