//! How a status looks to a person: aligned columns, no colour.
//!
//! Leaves what it says to `sheet.rs`. Never prints a value that the sheet does not have.

use super::overview::Overview;
use super::sheet::{Cell, Node, Row, Sheet};

/// Longest cell: a list of libraries must not push the nodes off the screen. `-o json` has all.
const WIDTH: usize = 40;
/// Longest sentence of a server or a hold on one line.
const SENTENCE: usize = 400;

/// The lines of one database.
pub fn sheet(sheet: &Sheet) -> Vec<String> {
    let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let mut lines = vec![format!("{}: {}", sheet.database, or(&sheet.phase))];
    let mut say =
        |what: &str, text: &str| lines.push(format!("  {what}: {}", clip(text, SENTENCE)));
    match (&sheet.repository, &sheet.head) {
        (Some(repository), Some(head)) => {
            let file = sheet.file.as_deref().unwrap_or("no document");
            let applied = or(&sheet.applied);
            say("git", &format!("{repository} at {head}, {file}; applied {applied}"));
        }
        _ => say("git", "no repository speaks of it"),
    }
    let told = [
        ("verdict", &sheet.verdict),
        ("reason", &sheet.reason),
        ("lifted by", &sheet.lift),
        ("paused", &sheet.paused),
        ("frozen", &sheet.frozen),
        ("last request", &sheet.last_request),
    ];
    for (what, text) in told {
        if let Some(text) = text {
            say(what, text);
        }
    }
    say("next start", &sheet.next_start);
    for why in &sheet.unknown {
        say("unknown", why);
    }
    if !sheet.nodes.is_empty() {
        lines.push(String::new());
        lines.extend(nodes(&sheet.nodes));
    }
    if !sheet.parameters.is_empty() {
        lines.push(String::new());
        lines.extend(parameters(&sheet.parameters, &sheet.nodes));
    }
    if !sheet.overrides.is_empty() {
        lines.push(String::new());
        lines.push("OVERRIDES of some sessions".to_owned());
        lines.extend(sheet.overrides.iter().map(|setting| format!("  {}", setting.line())));
    }
    if sheet.more_overrides {
        lines.push("  and more: see pg_db_role_setting".to_owned());
    }
    lines
}

fn nodes(nodes: &[Node]) -> Vec<String> {
    let head = ["NODE", "ROLE", "STATE", "VERSION", "STREAMING", "NEXT START"];
    let mut table = vec![head.map(str::to_owned).to_vec()];
    let mut notes = Vec::new();
    for node in nodes {
        let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        table.push(vec![
            node.name.clone(),
            or(&node.role),
            node.state.clone().unwrap_or_else(|| "unknown".to_owned()),
            or(&node.version),
            or(&node.streaming),
            node.next_start.clone(),
        ]);
        let told = [("would not start", &node.words), ("fell back", &node.fallback)];
        for (what, words) in told {
            if let Some(words) = words {
                notes.push(format!("  {} {what}: {}", node.name, clip(words, SENTENCE)));
            }
        }
    }
    let mut lines = columns(&table);
    lines.extend(notes);
    lines
}

fn parameters(rows: &[Row], nodes: &[Node]) -> Vec<String> {
    let mut head = ["", "PARAMETER", "GIT", "SPEC"].map(str::to_owned).to_vec();
    head.extend(nodes.iter().map(|node| node.name.clone()));
    let mut table = vec![head];
    for row in rows {
        let git = match (&row.git, &row.git_at) {
            (Some(value), Some(at)) => format!("{} ({at})", clip(value, WIDTH)),
            (Some(value), None) => clip(value, WIDTH),
            (None, _) => "-".to_owned(),
        };
        let spec = match &row.spec {
            Some(value) => format!("{} ({})", clip(value, WIDTH), row.spec_from),
            None => "-".to_owned(),
        };
        let mark = if row.differs { "!" } else { "" };
        let mut line = vec![mark.to_owned(), row.name.clone(), git, spec];
        line.extend(nodes.iter().map(|node| running(row.running.get(&node.name))));
        table.push(line);
    }
    columns(&table)
}

fn running(cell: Option<&Cell>) -> String {
    let Some(cell) = cell else { return "?".to_owned() };
    let mut text = cell.value.as_deref().map_or("not there".to_owned(), |v| clip(v, WIDTH));
    if cell.overridden {
        text.push_str(" (ALTER SYSTEM)");
    }
    if cell.pending {
        text.push_str(" (pending restart)");
    }
    text
}

/// The lines of a namespace.
pub fn overview(overview: &Overview) -> Vec<String> {
    let or = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let mut lines = Vec::new();
    if !overview.repositories.is_empty() {
        let head = ["REPOSITORY", "HEAD", "ACCEPTED", "STATE", "NOTES", "MESSAGE"];
        let mut table = vec![head.map(str::to_owned).to_vec()];
        for line in &overview.repositories {
            let notes = match line.notes_published {
                Some(true) => "published",
                Some(false) => "not published",
                None => "-",
            };
            let message = clip(&or(&line.message), SENTENCE);
            let (head, accepted) = (or(&line.head), or(&line.accepted));
            let (name, state) = (line.repository.clone(), line.state.clone());
            table.push(vec![name, head, accepted, state, notes.to_owned(), message]);
        }
        lines.extend(columns(&table));
        lines.push(String::new());
    }
    let head = ["DATABASE", "FILE", "VERDICT", "PHASE", "APPLIED", "LAST REQUEST", "WHY"];
    let mut table = vec![head.map(str::to_owned).to_vec()];
    for line in &overview.databases {
        table.push(vec![
            line.database.clone(),
            or(&line.file),
            line.verdict.clone(),
            or(&line.phase),
            or(&line.applied),
            or(&line.last_request),
            clip(&or(&line.why), SENTENCE),
        ]);
    }
    match overview.databases.is_empty() {
        true => lines.push("no database".to_owned()),
        false => lines.extend(columns(&table)),
    }
    lines.extend(overview.unknown.iter().map(|why| format!("unknown: {}", clip(why, SENTENCE))));
    lines
}

/// On one line, and not longer than `most` characters.
fn clip(text: &str, most: usize) -> String {
    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).collect();
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    if line.chars().count() <= most {
        return line;
    }
    line.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// Columns as wide as their widest cell, two spaces between them.
fn columns(table: &[Vec<String>]) -> Vec<String> {
    let count = table.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = table.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    table.iter().map(line).collect()
}
