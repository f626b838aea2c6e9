//! Columns of custom resources: the printer columns of their definition.

use super::text;
use crate::sandbox::store::kinds::{Column, Kind};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// Headers, and the cells of each object.
pub(super) fn columns(
    kind: &Kind,
    objects: &[Arc<Value>],
    now: Timestamp,
) -> (Vec<Value>, Vec<Vec<Value>>) {
    let mut headers = vec![super::header(&("Name", "string", false))];
    headers.extend(kind.columns.iter().map(|c| {
        json!({
            "name": c.name, "type": c.value_type, "format": c.format,
            "description": c.description, "priority": c.priority,
        })
    }));
    let cells = objects.iter().map(|object| {
        let mut cells = vec![object["metadata"]["name"].clone()];
        cells.extend(kind.columns.iter().map(|column| cell(column, object, now)));
        cells
    });
    (headers, cells.collect())
}

fn cell(column: &Column, object: &Value, now: Timestamp) -> Value {
    let found = find(object, &column.path);
    match (column.value_type.as_str(), found.as_slice()) {
        ("date", [one]) => json!(text::age(one, now)),
        (_, []) => Value::Null,
        ("integer", [one]) => one.as_i64().map_or(Value::Null, |n| json!(n)),
        ("number", [one]) => one.as_f64().map_or(Value::Null, |n| json!(n)),
        ("boolean", [one]) => one.as_bool().map_or(Value::Null, |b| json!(b)),
        (_, many) => {
            let texts: Vec<String> = many.iter().map(|v| text::plain(v, "")).collect();
            json!(texts.join(" "))
        }
    }
}

/// What a JSON path finds: fields, `['quoted']` fields, `[0]`, `[*]` and
/// `[?(@.field=="text")]` are understood.
pub(in crate::sandbox::api_server) fn find<'a>(object: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut found = vec![object];
    for step in steps(path) {
        found = found.into_iter().flat_map(|value| follow(value, &step)).collect();
    }
    found
}

enum Step {
    Field(String),
    Index(usize),
    All,
    Where(String, String),
}

fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix('[') {
            let end = inner.find(']').unwrap_or(inner.len());
            steps.push(bracket(&inner[..end]));
            rest = inner.get(end + 1..).unwrap_or("");
        } else {
            rest = rest.trim_start_matches('.');
            // `\.` is a dot inside a name.
            let mut name = String::new();
            let mut chars = rest.char_indices().peekable();
            let mut end = rest.len();
            while let Some((at, c)) = chars.next() {
                match c {
                    '\\' => name.extend(chars.next().map(|(_, c)| c)),
                    '.' | '[' => {
                        end = at;
                        break;
                    }
                    c => name.push(c),
                }
            }
            rest = &rest[end..];
            if !name.is_empty() {
                steps.push(if name == "*" { Step::All } else { Step::Field(name) });
            }
        }
    }
    steps
}

fn bracket(inner: &str) -> Step {
    let unquoted = |text: &str| text.trim().trim_matches(['\'', '"']).to_owned();
    if inner == "*" {
        return Step::All;
    }
    if let Ok(index) = inner.parse() {
        return Step::Index(index);
    }
    let condition = inner.strip_prefix("?(").and_then(|c| c.strip_suffix(')'));
    if let Some((field, value)) = condition.and_then(|c| c.split_once("==")) {
        let field = field.trim().trim_start_matches("@.").to_owned();
        return Step::Where(field, unquoted(value));
    }
    Step::Field(unquoted(inner))
}

fn follow<'a>(value: &'a Value, step: &Step) -> Vec<&'a Value> {
    match step {
        Step::Field(name) => value.get(name).filter(|v| !v.is_null()).into_iter().collect(),
        Step::Index(index) => value.get(index).into_iter().collect(),
        Step::All => match value {
            Value::Array(items) => items.iter().collect(),
            Value::Object(map) => map.values().collect(),
            _ => Vec::new(),
        },
        Step::Where(field, wanted) => {
            let items = value.as_array().into_iter().flatten();
            items.filter(|item| text::plain(&item[field.as_str()], "") == *wanted).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: Value) {
        let object = json!({
            "metadata": {"annotations": {"a.b/c": "x"}},
            "status": {"n": 3, "conditions": [
                {"type": "Ready", "status": "True"}, {"type": "Paused", "status": "False"},
            ]},
        });
        let found: Vec<Value> = find(&object, path).into_iter().cloned().collect();
        assert_eq!(json!(found), expected, "{path}");
    }

    #[test]
    fn paths_of_printer_columns_are_followed() {
        check(".status.n", json!([3]));
        check(".status.missing", json!([]));
        check(".status.conditions[?(@.type==\"Ready\")].status", json!(["True"]));
        check(".status.conditions[?(@.type=='Paused')].status", json!(["False"]));
        check(".status.conditions[*].type", json!(["Ready", "Paused"]));
        check(".status.conditions[0].type", json!(["Ready"]));
        check(r".metadata.annotations.a\.b/c", json!(["x"]));
        check(".metadata.annotations['a.b/c']", json!(["x"]));
    }
}
