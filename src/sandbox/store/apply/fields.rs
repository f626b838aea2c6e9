//! A set of fields as a tree, in the words of `FieldsV1`: `f:name` a field, `k:{…}` an element
//! of a list by its keys, `v:…` an element of a set by its value.
//!
//! Leaves what an element's keys are to `Shape`.

use crate::sandbox::store::shape::Shape;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A set of fields. Equal sets are equal values.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fields {
    /// True if this very place is in the set (`.` in `FieldsV1`).
    pub here: bool,
    /// What lies below, by path element.
    pub below: BTreeMap<String, Fields>,
}

impl Fields {
    /// The set of just this place.
    pub fn leaf() -> Self {
        Self { here: true, below: BTreeMap::new() }
    }

    /// True if nothing is in the set.
    pub fn is_empty(&self) -> bool {
        !self.here && self.below.is_empty()
    }

    /// Puts a set below a path element; an empty one leaves no trace.
    pub fn put(&mut self, element: String, fields: Fields) {
        if !fields.is_empty() {
            match self.below.get_mut(&element) {
                Some(old) => old.add(&fields),
                None => {
                    self.below.insert(element, fields);
                }
            }
        }
    }

    /// Adds all of `other`.
    pub fn add(&mut self, other: &Fields) {
        self.here |= other.here;
        for (element, fields) in &other.below {
            self.below.entry(element.clone()).or_default().add(fields);
        }
    }

    /// Everything that is not in `other`.
    pub fn without(&self, other: &Fields) -> Fields {
        let mut rest = Fields { here: self.here && !other.here, below: BTreeMap::new() };
        for (element, fields) in &self.below {
            match other.below.get(element) {
                Some(theirs) => rest.put(element.clone(), fields.without(theirs)),
                None => rest.put(element.clone(), fields.clone()),
            }
        }
        rest
    }

    /// What is in both.
    pub fn common(&self, other: &Fields) -> Fields {
        let mut both = Fields { here: self.here && other.here, below: BTreeMap::new() };
        for (element, fields) in &self.below {
            if let Some(theirs) = other.below.get(element) {
                both.put(element.clone(), fields.common(theirs));
            }
        }
        both
    }

    /// The set below a path of elements, if any.
    pub fn at(&self, path: &[&str]) -> Option<&Fields> {
        path.iter().try_fold(self, |fields, element| fields.below.get(*element))
    }

    /// Takes a place and all below it out of the set.
    pub fn cut(&mut self, path: &[&str]) {
        match path {
            [] => *self = Fields::default(),
            [last] => {
                self.below.remove(*last);
            }
            [first, rest @ ..] => {
                if let Some(below) = self.below.get_mut(*first) {
                    below.cut(rest);
                    if below.is_empty() {
                        self.below.remove(*first);
                    }
                }
            }
        }
    }

    /// Every path in the set as the real server writes it: `.spec.containers[name="a"].image`.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect(String::new(), &mut paths);
        paths
    }

    fn collect(&self, path: String, paths: &mut Vec<String>) {
        if self.here {
            paths.push(path.clone());
        }
        for (element, fields) in &self.below {
            fields.collect(format!("{path}{}", element_text(element)), paths);
        }
    }

    /// The `FieldsV1` form.
    pub fn encode(&self) -> Value {
        let mut map = Map::new();
        if self.here && !self.below.is_empty() {
            map.insert(".".into(), Value::Object(Map::new()));
        }
        for (element, fields) in &self.below {
            map.insert(element.clone(), fields.encode());
        }
        Value::Object(map)
    }

    /// Reads the `FieldsV1` form; what is no object counts as a leaf.
    pub fn decode(value: &Value) -> Fields {
        let Some(map) = value.as_object() else { return Fields::leaf() };
        let below = |(element, value): (&String, &Value)| (element.clone(), Fields::decode(value));
        Fields {
            here: map.is_empty() || map.contains_key("."),
            below: map.iter().filter(|(element, _)| *element != ".").map(below).collect(),
        }
    }

    /// Reads the `FieldsV1` form of a whole object, whose own place is never in the set.
    pub fn decode_root(value: &Value) -> Fields {
        Fields { here: false, ..Fields::decode(value) }
    }
}

/// The path element of a field.
pub fn field(name: &str) -> String {
    format!("f:{name}")
}

/// The path element of a list's element by its keys. A key that is absent has its default; one
/// without a default is left out.
pub fn keyed(item: &Value, keys: &[&str], shape: Shape<'_>) -> String {
    let mut found: BTreeMap<&str, &Value> = BTreeMap::new();
    for key in keys {
        if let Some(value) = item.get(*key).or_else(|| shape.field(key).get("default")) {
            found.insert(key, value);
        }
    }
    let parts: Vec<String> =
        found.iter().map(|(k, v)| format!("{}:{v}", Value::from(*k))).collect();
    format!("k:{{{}}}", parts.join(","))
}

/// The path element of a set's element.
pub fn valued(item: &Value) -> String {
    format!("v:{item}")
}

fn element_text(element: &str) -> String {
    if let Some(name) = element.strip_prefix("f:") {
        return format!(".{name}");
    }
    if let Some(value) = element.strip_prefix("v:") {
        return format!("[={value}]");
    }
    let keys = element.strip_prefix("k:").and_then(|k| serde_json::from_str::<Value>(k).ok());
    match keys {
        Some(Value::Object(keys)) => {
            let parts: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
            format!("[{}]", parts.join(","))
        }
        _ => format!("[{element}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(encoded: Value, paths: &[&str]) {
        let fields = Fields::decode_root(&encoded);
        assert_eq!(fields.paths(), paths);
        assert_eq!(fields.encode(), encoded);
    }

    #[test]
    fn fields_go_to_fields_v1_and_back() {
        check(json!({"f:spec": {"f:replicas": {}}}), &[".spec.replicas"]);
        check(
            json!({"f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}}}}}),
            &[r#".spec.containers[name="a"]"#, r#".spec.containers[name="a"].image"#],
        );
        check(
            json!({"f:metadata": {"f:finalizers": {"v:\"x\"": {}}}}),
            &[r#".metadata.finalizers[="x"]"#],
        );
    }

    #[test]
    fn sets_subtract_and_meet() {
        let all = Fields::decode_root(&json!({"f:a": {".": {}, "f:b": {}, "f:c": {}}}));
        let some = Fields::decode_root(&json!({"f:a": {"f:b": {}}}));
        assert_eq!(all.without(&some).encode(), json!({"f:a": {".": {}, "f:c": {}}}));
        assert_eq!(all.common(&some), some);
        assert!(some.without(&all).is_empty());
    }
}
