//! Label and field selectors: their text, and what they select.

use super::{kinds::Kind, refusal::Refusal};
use serde_json::Value;

/// One requirement on labels.
#[derive(Debug, Clone, PartialEq)]
pub enum Requirement {
    /// The label has one of these values.
    In(String, Vec<String>),
    /// The label is absent or has none of these values.
    NotIn(String, Vec<String>),
    /// The label is there.
    Exists(String),
    /// The label is not there.
    Absent(String),
    /// The label is a whole number above this one.
    Above(String, i64),
    /// The label is a whole number below this one.
    Below(String, i64),
}

/// Which objects of a kind a list, a watch or a deletion means.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selector {
    labels: Vec<Requirement>,
    /// Path, value, and true for "equals".
    fields: Vec<(String, String, bool)>,
}

impl Selector {
    /// Reads both selectors of a request.
    ///
    /// # Errors
    /// 400 for a text that is no selector, or a field that the kind does not offer.
    pub fn parse(labels: &str, fields: &str, kind: &Kind) -> Result<Self, Refusal> {
        Ok(Self { labels: parse_labels(labels)?, fields: parse_fields(fields, kind)? })
    }

    /// True if every object is selected.
    pub fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// True if the object is selected.
    pub fn selects(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels.iter().all(|r| r.holds(labels))
            && self
                .fields
                .iter()
                .all(|(path, value, equal)| (field_text(object, path) == *value) == *equal)
    }

    /// The name, if the field selector asks for exactly one.
    pub fn name(&self) -> Option<&str> {
        let wanted = |(path, _, equal): &&(String, String, bool)| path == "metadata.name" && *equal;
        self.fields.iter().find(wanted).map(|(_, name, _)| name.as_str())
    }
}

impl Requirement {
    fn holds(&self, labels: &Value) -> bool {
        let get = |key: &String| labels.get(key).and_then(Value::as_str);
        let number = |key: &String| get(key).and_then(|v| v.parse::<i64>().ok());
        match self {
            Self::In(key, values) => get(key).is_some_and(|v| values.iter().any(|w| w == v)),
            Self::NotIn(key, values) => !get(key).is_some_and(|v| values.iter().any(|w| w == v)),
            Self::Exists(key) => get(key).is_some(),
            Self::Absent(key) => get(key).is_none(),
            Self::Above(key, bound) => number(key).is_some_and(|n| n > *bound),
            Self::Below(key, bound) => number(key).is_some_and(|n| n < *bound),
        }
    }
}

/// True if a `LabelSelector` object (`matchLabels`, `matchExpressions`) selects these labels.
pub fn label_selector_selects(selector: &Value, labels: &Value) -> bool {
    let equal = selector["matchLabels"]
        .as_object()
        .is_none_or(|wanted| wanted.iter().all(|(key, value)| labels.get(key) == Some(value)));
    let expressions = selector["matchExpressions"].as_array();
    equal
        && expressions.into_iter().flatten().all(|e| expression(e).is_some_and(|r| r.holds(labels)))
}

fn expression(expression: &Value) -> Option<Requirement> {
    let key = expression["key"].as_str()?.to_owned();
    let values = expression["values"].as_array().into_iter().flatten();
    let values = values.filter_map(Value::as_str).map(str::to_owned).collect();
    match expression["operator"].as_str()? {
        "In" => Some(Requirement::In(key, values)),
        "NotIn" => Some(Requirement::NotIn(key, values)),
        "Exists" => Some(Requirement::Exists(key)),
        "DoesNotExist" => Some(Requirement::Absent(key)),
        _ => None,
    }
}

fn parse_labels(text: &str) -> Result<Vec<Requirement>, Refusal> {
    let mut requirements = Vec::new();
    for part in split_outside_parentheses(text) {
        let part = part.trim();
        if !part.is_empty() {
            requirements.push(parse_label(part).ok_or_else(|| {
                Refusal::bad_request(format!("unable to parse requirement: {part:?}"))
            })?);
        }
    }
    Ok(requirements)
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_u32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn parse_label(part: &str) -> Option<Requirement> {
    if let Some((head, values)) = part.split_once('(') {
        let values = values.strip_suffix(')')?.split(',').map(|v| v.trim().to_owned()).collect();
        let mut words = head.split_whitespace();
        let (key, operator) = (key(words.next()?)?, words.next()?);
        return match (operator, words.next()) {
            ("in", None) => Some(Requirement::In(key, values)),
            ("notin", None) => Some(Requirement::NotIn(key, values)),
            _ => None,
        };
    }
    if let Some((k, v)) = part.split_once("!=") {
        return Some(Requirement::NotIn(key(k)?, vec![value(v)?]));
    }
    if let Some((k, v)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Some(Requirement::In(key(k)?, vec![value(v)?]));
    }
    if let Some((k, v)) = part.split_once('>') {
        return Some(Requirement::Above(key(k)?, v.trim().parse().ok()?));
    }
    if let Some((k, v)) = part.split_once('<') {
        return Some(Requirement::Below(key(k)?, v.trim().parse().ok()?));
    }
    match part.strip_prefix('!') {
        Some(absent) => Some(Requirement::Absent(key(absent)?)),
        None => Some(Requirement::Exists(key(part)?)),
    }
}

fn key(text: &str) -> Option<String> {
    let text = text.trim();
    let good = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    (!text.is_empty() && text.chars().all(good)).then(|| text.to_owned())
}

fn value(text: &str) -> Option<String> {
    let text = text.trim();
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    text.chars().all(good).then(|| text.to_owned())
}

fn parse_fields(text: &str, kind: &Kind) -> Result<Vec<(String, String, bool)>, Refusal> {
    let mut fields = Vec::new();
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (path, value, equal) = if let Some((p, v)) = part.split_once("!=") {
            (p, v, false)
        } else if let Some((p, v)) = part.split_once("==").or_else(|| part.split_once('=')) {
            (p, v, true)
        } else {
            let why = format!("invalid field selector: {part:?}; can't understand it");
            return Err(Refusal::bad_request(why));
        };
        let path = path.trim();
        let common = path == "metadata.name" || (path == "metadata.namespace" && kind.namespaced);
        if !common && !kind.selectable.iter().any(|s| s == path) {
            let why = format!("field label not supported: {path}");
            return Err(Refusal::bad_request(why));
        }
        fields.push((path.to_owned(), value.trim().to_owned(), equal));
    }
    Ok(fields)
}

fn field_text(object: &Value, path: &str) -> String {
    let found = path.split('.').try_fold(object, |value, part| value.get(part));
    match found {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => match path {
            "spec.unschedulable" | "spec.hostNetwork" => "false".into(),
            _ => String::new(),
        },
        // The legacy source of an event is an object; its component is what is selected.
        Some(Value::Object(source)) => {
            source.get("component").and_then(Value::as_str).unwrap_or_default().to_owned()
        }
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(text: &str, labels: Value, selected: bool) {
        let labels_only = Selector { labels: parse_labels(text).unwrap(), fields: Vec::new() };
        assert_eq!(
            labels_only.selects(&json!({"metadata": {"labels": labels}})),
            selected,
            "{text}"
        );
    }

    #[test]
    fn label_selectors_select() {
        check("", json!({}), true);
        check("a=b", json!({"a": "b"}), true);
        check("a==b,c!=d", json!({"a": "b"}), true);
        check("a==b,c!=d", json!({"a": "b", "c": "d"}), false);
        check("a in (b, c),x", json!({"a": "c", "x": ""}), true);
        check("a notin (b,c)", json!({}), true);
        check("!a", json!({"a": ""}), false);
        check("kubedb.com/role=primary", json!({"kubedb.com/role": "primary"}), true);
        check("n>3", json!({"n": "4"}), true);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["a in b", "=x", "a b", "a=b c", "a in (b"] {
            assert_eq!(parse_labels(text).unwrap_err().code, 400, "{text}");
        }
    }
}
