//! An ordered list of parameters with their values, and the only writer of configuration files.
//!
//! Every name stands in it once: an assignment keeps the place of the first and takes the value of
//! the last, as the server does. Leaves meaning to the catalogue: nothing here knows whether a
//! parameter exists. Never writes a value without quotes.

use std::collections::BTreeMap;
use std::fmt;

use super::lexer::{self, Item, Lexed};
use super::name::{Name, Value};
use super::problem::{Position, Problem};
use super::tiers;

/// Parameters and their values, in the order of their first appearance.
///
/// Equal to another when both have the same names with the same texts, whatever the order, the
/// spelling of names and the positions.
#[derive(Clone, Default)]
pub struct Settings {
    /// By order of appearance.
    entries: BTreeMap<usize, Entry>,
    /// Name → key of `entries`.
    places: BTreeMap<Name, usize>,
}

#[derive(Clone)]
struct Entry {
    name: Name,
    value: Value,
    at: Option<Position>,
}

impl Settings {
    /// No parameters.
    pub fn new() -> Settings {
        Settings::default()
    }

    /// Reads the text of a configuration file or fragment. Where a name appears twice, the last
    /// value counts.
    ///
    /// # Errors
    /// All syntax errors with their places; include directives are among them, because we read no
    /// second file. With any error the server would use nothing of the text, and nor do we.
    pub fn parse(text: &str) -> Result<Settings, Vec<Problem>> {
        Settings::from_lexed(lexer::lex(text))
    }

    /// Reads the bytes of a configuration file.
    ///
    /// # Errors
    /// As [`parse`](Settings::parse), and for bytes that are not UTF-8.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Settings, Vec<Problem>> {
        Settings::from_lexed(lexer::lex_bytes(bytes))
    }

    fn from_lexed(lexed: Lexed) -> Result<Settings, Vec<Problem>> {
        let mut problems = lexed.problems;
        let mut settings = Settings::new();
        for item in lexed.items {
            match item {
                Item::Assignment { name, value, name_at: _, value_at } => {
                    settings.set_at(name, value, value_at);
                }
                Item::Include { directive, path: _, at } => problems.push(
                    Problem::refused("other files cannot be included")
                        .of(directive)
                        .at(at)
                        .instead("write the parameters of that file here"),
                ),
            }
        }
        problems.sort_by_key(|problem| problem.at);
        if problems.is_empty() { Ok(settings) } else { Err(problems) }
    }

    /// Checks names and values one by one and keeps them in this order.
    ///
    /// # Errors
    /// A [`Problem`] for each name and each value that is not valid.
    pub fn from_pairs<N, V>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Settings, Vec<Problem>>
    where
        N: AsRef<str>,
        V: AsRef<str>,
    {
        let (mut settings, mut problems) = (Settings::new(), Vec::new());
        for (name, value) in pairs {
            match (Name::new(name.as_ref()), Value::new(value)) {
                (Ok(name), Ok(value)) => settings.set(name, value),
                (Err(problem), _) => problems.push(problem),
                (_, Err(problem)) => problems.push(problem.of(name.as_ref())),
            }
        }
        if problems.is_empty() { Ok(settings) } else { Err(problems) }
    }

    /// Sets a value: in place if the name is there, at the end otherwise.
    pub fn set(&mut self, name: Name, value: Value) {
        self.put(Entry { name, value, at: None });
    }

    /// Sets a value and remembers where it was written.
    pub fn set_at(&mut self, name: Name, value: Value, at: Position) {
        self.put(Entry { name, value, at: Some(at) });
    }

    fn put(&mut self, entry: Entry) {
        let next = self.entries.last_key_value().map_or(0, |(last, _)| last + 1);
        let place = *self.places.entry(entry.name.clone()).or_insert(next);
        match self.entries.get_mut(&place) {
            // The first spelling stays with the first place.
            Some(there) => *there = Entry { name: there.name.clone(), ..entry },
            None => {
                self.entries.insert(place, entry);
            }
        }
    }

    /// Lays other settings over these, name by name: a name that is here keeps its place, a new one
    /// is added at the end. What the other does not name stays.
    pub fn merge(&mut self, over: &Settings) {
        for entry in over.entries.values() {
            self.put(entry.clone());
        }
    }

    /// These settings with others laid over them.
    #[must_use]
    pub fn merged(&self, over: &Settings) -> Settings {
        let mut merged = self.clone();
        merged.merge(over);
        merged
    }

    /// Drops everything and takes the other settings as they are.
    pub fn replace(&mut self, with: &Settings) {
        self.clone_from(with);
    }

    /// Drops one parameter and gives its value; the others keep their order.
    pub fn remove(&mut self, name: &Name) -> Option<Value> {
        let place = self.places.remove(name)?;
        self.entries.remove(&place).map(|entry| entry.value)
    }

    /// Keeps the parameters that the predicate accepts, in their order.
    pub fn retain(&mut self, mut keep: impl FnMut(&Name, &Value) -> bool) {
        self.entries.retain(|_, entry| keep(&entry.name, &entry.value));
        let entries = &self.entries;
        self.places.retain(|_, place| entries.contains_key(place));
    }

    /// These settings, but with the parameters that `hold` accepts as they are in `old`: at the old
    /// value, or absent. This is how a value that needs a restart stays off a node's disk until the
    /// node's turn.
    #[must_use]
    pub fn holding(&self, old: &Settings, hold: impl Fn(&Name) -> bool) -> Settings {
        let mut held = self.clone();
        held.retain(|name, _| !hold(name) || old.contains(name));
        for entry in old.entries.values().filter(|entry| hold(&entry.name)) {
            held.put(entry.clone());
        }
        held
    }

    /// The value of a parameter.
    pub fn get(&self, name: &Name) -> Option<&Value> {
        self.entry(name).map(|entry| &entry.value)
    }

    /// The value of a parameter by its name as text; case does not count.
    pub fn value_of(&self, name: &str) -> Option<&str> {
        self.get(&Name::new(name).ok()?).map(Value::as_str)
    }

    /// Where a parameter's value was written, if it was read from a text.
    pub fn position(&self, name: &Name) -> Option<Position> {
        self.entry(name).and_then(|entry| entry.at)
    }

    fn entry(&self, name: &Name) -> Option<&Entry> {
        self.entries.get(self.places.get(name)?)
    }

    /// Whether the parameter is set.
    pub fn contains(&self, name: &Name) -> bool {
        self.places.contains_key(name)
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Name, &Value)> {
        self.entries.values().map(|entry| (&entry.name, &entry.value))
    }

    /// The names in order.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.entries.values().map(|entry| &entry.name)
    }

    /// How many parameters are set.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The text of a file that sets exactly this: a line `name = 'value'` for each, in order.
    pub fn render(&self) -> String {
        let mut text = String::new();
        for (name, value) in self.iter() {
            text.push_str(&format!("{name} = {}\n", quote(value.as_str())));
        }
        text
    }

    /// A server's text without the sensitive values that stand in these settings: each is replaced
    /// by `(hidden)`. For messages that are shown or stored.
    pub fn hide_in(&self, text: &str) -> String {
        let sensitive = self.iter().filter(|(name, _)| tiers::is_sensitive(name));
        let mut values: Vec<&str> = sensitive.map(|(_, value)| value.as_str().trim()).collect();
        // The longest first: one value may hold another.
        values.sort_by_key(|value| (std::cmp::Reverse(value.len()), *value));
        values
            .into_iter()
            .filter(|value| !value.is_empty())
            .fold(text.to_owned(), |text, value| text.replace(value, tiers::HIDDEN))
    }
}

/// A value between quotes, as the server's scanner reads it back: `'` and `\` doubled.
pub(super) fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

impl PartialEq for Settings {
    fn eq(&self, other: &Settings) -> bool {
        self.len() == other.len() && self.iter().all(|(name, value)| other.get(name) == Some(value))
    }
}

impl Eq for Settings {}

impl FromIterator<(Name, Value)> for Settings {
    fn from_iter<I: IntoIterator<Item = (Name, Value)>>(pairs: I) -> Settings {
        let mut settings = Settings::new();
        settings.extend(pairs);
        settings
    }
}

impl Extend<(Name, Value)> for Settings {
    fn extend<I: IntoIterator<Item = (Name, Value)>>(&mut self, pairs: I) {
        for (name, value) in pairs {
            self.set(name, value);
        }
    }
}

/// Sensitive values do not appear.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.iter().map(|(name, value)| (name, tiers::shown(name, value)));
        f.debug_map().entries(shown).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Settings {
        Settings::parse(text).unwrap()
    }

    fn name(name: &str) -> Name {
        Name::new(name).unwrap()
    }

    #[test]
    fn the_last_value_counts_at_the_first_place() {
        let settings = parse("Work_Mem = bad\nport = 1\nwork_mem = 4MB\n");
        assert_eq!(settings.render(), "Work_Mem = '4MB'\nport = '1'\n");
        assert_eq!(settings.value_of("WORK_MEM"), Some("4MB"));
        assert_eq!(settings.position(&name("work_mem")), Some(Position::new(3, 12)));
        assert_eq!(settings.len(), 2);
    }

    #[test]
    fn merge_replace_and_remove_keep_order() {
        let mut settings = parse("a = 1\nb = 2\nc = 3\n");
        settings.merge(&parse("d = 4\nB = 5\n"));
        assert_eq!(settings.render(), "a = '1'\nb = '5'\nc = '3'\nd = '4'\n");
        assert_eq!(settings.remove(&name("A")).unwrap().as_str(), "1");
        assert_eq!(settings.remove(&name("a")), None);
        assert_eq!(settings.render(), "b = '5'\nc = '3'\nd = '4'\n");
        settings.merge(&parse("a = 6"));
        assert_eq!(settings.render(), "b = '5'\nc = '3'\nd = '4'\na = '6'\n");
        settings.replace(&parse("z = 1"));
        assert_eq!(settings.render(), "z = '1'\n");
    }

    #[test]
    fn a_value_waits_at_its_old_state() {
        let (old, new) =
            (parse("a = 1\nkeep = x\ngone = y\n"), parse("a = 2\nkeep = z\nnew = 1\n"));
        let held = new.holding(&old, |name| !name.eq_ignore_ascii_case("a"));
        assert_eq!(held.render(), "a = '2'\nkeep = 'x'\ngone = 'y'\n");
        assert_eq!(new.holding(&old, |_| false), new);
        assert_eq!(new.holding(&old, |_| true), old);
    }

    #[test]
    fn writing_never_lets_a_value_out_of_its_quotes() {
        let settings = Settings::from_pairs([("a", "it's \\ # = \"x\""), ("b", "")]).unwrap();
        assert_eq!(settings.render(), "a = 'it''s \\\\ # = \"x\"'\nb = ''\n");
        assert_eq!(parse(&settings.render()), settings);
        let problems = Settings::from_pairs([("a", "1\nfsync = off"), ("b\nc", "1")]).unwrap_err();
        assert_eq!(problems.len(), 2);
        assert_eq!(problems[0].parameter.as_deref(), Some("a"));
    }

    #[test]
    fn includes_are_refused_with_their_place() {
        let problems = Settings::parse("a = 1\n include_dir 'x'\nb\n").unwrap_err();
        let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
        assert_eq!(
            lines,
            [
                "2:2 include_dir: other files cannot be included; \
                 write the parameters of that file here",
                "3:2 b: no value; write b = 'value'",
            ]
        );
    }

    #[test]
    fn equality_ignores_order_and_spelling() {
        assert_eq!(parse("a = 1\nb = 2"), parse("B = 2\nA = 1"));
        assert_ne!(parse("a = 1"), parse("a = 1\nb = 2"));
        assert_ne!(parse("a = 1"), parse("a = 01"));
    }

    #[test]
    fn secrets_are_hidden() {
        let settings = parse("work_mem = 4MB\nprimary_conninfo = 'password=xyz'\n");
        let debug = format!("{settings:?}");
        assert!(debug.contains("4MB") && !debug.contains("xyz"), "{debug}");
        let text = settings.hide_in("invalid \"password=xyz\" here, not 4MB");
        assert_eq!(text, "invalid \"(hidden)\" here, not 4MB");
    }
}
