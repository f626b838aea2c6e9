//! Which fields differ between two objects, and which fields an object has.
//!
//! The walk follows the [`Shape`]: maps are granular unless declared atomic, lists are atomic
//! unless declared a set or a map.

use super::fields::{Fields, field, keyed, valued};
use crate::sandbox::store::shape::{ListKind, Shape};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// The difference between two objects.
#[derive(Debug, Default, PartialEq)]
pub struct Difference {
    /// In the new object only.
    pub added: Fields,
    /// In both, with another value.
    pub modified: Fields,
    /// In the old object only.
    pub removed: Fields,
}

impl Difference {
    /// Between two whole objects. Fields the server itself sets are left out.
    pub fn between(old: &Value, new: &Value, shape: Shape<'_>) -> Self {
        let mut difference = compare(Some(old), Some(new), shape);
        for fields in [&mut difference.added, &mut difference.modified, &mut difference.removed] {
            fields.here = false;
            strip(fields);
        }
        difference
    }

    /// What is new or has another value.
    pub fn changed(&self) -> Fields {
        let mut changed = self.added.clone();
        changed.add(&self.modified);
        changed
    }

    fn put(&mut self, element: String, below: Difference) {
        self.added.put(element.clone(), below.added);
        self.modified.put(element.clone(), below.modified);
        self.removed.put(element, below.removed);
    }
}

/// Takes out what nobody can own: identity and what the server sets.
pub fn strip(fields: &mut Fields) {
    fields.cut(&["f:apiVersion"]);
    fields.cut(&["f:kind"]);
    for name in SERVER_METADATA {
        fields.cut(&["f:metadata", &field(name)]);
    }
    if let Some(metadata) = fields.below.get_mut("f:metadata") {
        metadata.here = false;
        if metadata.is_empty() {
            fields.below.remove("f:metadata");
        }
    }
}

const SERVER_METADATA: &[&str] = &[
    "name",
    "namespace",
    "creationTimestamp",
    "selfLink",
    "uid",
    "generation",
    "managedFields",
    "resourceVersion",
];

fn compare(old: Option<&Value>, new: Option<&Value>, shape: Shape<'_>) -> Difference {
    match (old, new) {
        (None, None) => Difference::default(),
        (None, Some(new)) => Difference { added: every(new, shape), ..Difference::default() },
        (Some(old), None) => Difference { removed: every(old, shape), ..Difference::default() },
        (Some(old), Some(new)) if old == new => Difference::default(),
        (Some(Value::Object(old)), Some(Value::Object(new))) if !shape.is_atomic_map() => {
            compare_maps(old, new, shape)
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => compare_lists(a, b, shape),
        (Some(_), Some(_)) => Difference { modified: Fields::leaf(), ..Difference::default() },
    }
}

fn compare_maps(
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    shape: Shape<'_>,
) -> Difference {
    let mut difference = Difference::default();
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names {
        difference.put(field(name), compare(old.get(name), new.get(name), shape.field(name)));
    }
    difference
}

fn compare_lists(old: &[Value], new: &[Value], shape: Shape<'_>) -> Difference {
    let kind = shape.list_kind();
    if kind == ListKind::Atomic {
        return Difference { modified: Fields::leaf(), ..Difference::default() };
    }
    let items = shape.items();
    let (old, new) = (by_element(old, &kind, items), by_element(new, &kind, items));
    let mut difference = Difference::default();
    let elements: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for element in elements {
        let below = compare(old.get(element).copied(), new.get(element).copied(), items);
        difference.put(element.clone(), below);
    }
    difference
}

/// The elements of a list by their path elements; of doubled ones the first counts.
pub fn by_element<'a>(
    list: &'a [Value],
    kind: &ListKind<'_>,
    items: Shape<'_>,
) -> BTreeMap<String, &'a Value> {
    let mut elements = BTreeMap::new();
    for item in list {
        elements.entry(element_of(item, kind, items)).or_insert(item);
    }
    elements
}

/// The path element of one element of a list that is a set or a map.
pub fn element_of(item: &Value, kind: &ListKind<'_>, items: Shape<'_>) -> String {
    match kind {
        ListKind::Map(keys) => keyed(item, keys, items),
        ListKind::Set | ListKind::Atomic => valued(item),
    }
}

/// Every place in a value, containers included.
fn every(value: &Value, shape: Shape<'_>) -> Fields {
    let mut fields = leaves(value, shape);
    fields.here = true;
    fields
}

/// The fields an applied configuration claims: leaves, empty containers, elements of lists and of
/// free maps.
pub fn claimed(value: &Value, shape: Shape<'_>) -> Fields {
    let mut fields = claim(value, shape);
    fields.here = false;
    strip(&mut fields);
    fields
}

fn claim(value: &Value, shape: Shape<'_>) -> Fields {
    match value {
        Value::Object(map) if !map.is_empty() && !shape.is_atomic_map() => {
            let mut fields = Fields::default();
            for (name, value) in map {
                let mut below = claim(value, shape.field(name));
                below.here |= !shape.declares(name);
                fields.put(field(name), below);
            }
            fields
        }
        Value::Array(list) if !list.is_empty() && shape.list_kind() != ListKind::Atomic => {
            let kind = shape.list_kind();
            let mut fields = Fields::default();
            for (element, item) in by_element(list, &kind, shape.items()) {
                let mut below = claim(item, shape.items());
                below.here = true;
                fields.put(element, below);
            }
            fields
        }
        _ => Fields::leaf(),
    }
}

fn leaves(value: &Value, shape: Shape<'_>) -> Fields {
    match value {
        Value::Object(map) if !shape.is_atomic_map() => {
            let mut fields = Fields::default();
            for (name, value) in map {
                fields.put(field(name), every(value, shape.field(name)));
            }
            fields
        }
        Value::Array(list) if shape.list_kind() != ListKind::Atomic => {
            let mut fields = Fields::default();
            for (element, item) in by_element(list, &shape.list_kind(), shape.items()) {
                fields.put(element, every(item, shape.items()));
            }
            fields
        }
        _ => Fields::leaf(),
    }
}
