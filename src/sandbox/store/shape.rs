//! How the parts of an object merge: a walk through its schema.
//!
//! A [`Schema`] is an OpenAPI v3 schema with Kubernetes' extensions; a [`Shape`] is a place in it.
//! Custom resources bring theirs, built-in kinds have one made from the Kubernetes types. Where a
//! schema says nothing, maps are granular and lists atomic, as the real server deduces it.
//! Leaves validation to `schema/`.

use serde_json::{Map, Value};
use std::sync::Arc;

/// Where references of a schema point to.
pub const REFERENCE: &str = "#/components/schemas/";

/// A schema and the definitions it refers to.
#[derive(Debug, Clone)]
pub struct Schema {
    /// The schema of the object itself.
    pub root: Arc<Value>,
    /// The definitions by name.
    pub definitions: Arc<Map<String, Value>>,
}

impl Schema {
    /// The place where a walk begins.
    pub fn shape(&self) -> Shape<'_> {
        Shape { node: Some(&self.root), definitions: &self.definitions }.resolved()
    }
}

/// A place in a schema; `node` is `None` where nothing is known.
#[derive(Debug, Clone, Copy)]
pub struct Shape<'a> {
    node: Option<&'a Value>,
    definitions: &'a Map<String, Value>,
}

/// How a list merges.
#[derive(Debug, Clone, PartialEq)]
pub enum ListKind<'a> {
    /// Replaced as a whole.
    Atomic,
    /// A set of scalars.
    Set,
    /// A map with these keys.
    Map(Vec<&'a str>),
}

impl<'a> Shape<'a> {
    fn at(self, node: Option<&'a Value>) -> Self {
        Self { node, definitions: self.definitions }.resolved()
    }

    fn resolved(self) -> Self {
        let name = self
            .node
            .and_then(|n| n.get("$ref"))
            .and_then(Value::as_str)
            .and_then(|r| r.strip_prefix(REFERENCE));
        match name {
            Some(name) => {
                Self { node: self.definitions.get(name), definitions: self.definitions }.resolved()
            }
            None => self,
        }
    }

    /// The schema here.
    pub fn node(&self) -> Option<&'a Value> {
        self.node
    }

    /// A keyword of the schema here.
    pub fn get(&self, keyword: &str) -> Option<&'a Value> {
        self.node.and_then(|n| n.get(keyword))
    }

    fn is(&self, keyword: &str) -> bool {
        self.get(keyword) == Some(&Value::Bool(true))
    }

    /// The declared properties, with references not yet followed.
    pub fn properties(&self) -> Option<&'a Map<String, Value>> {
        self.get("properties").and_then(Value::as_object)
    }

    /// True if the field is a declared property (not an element of a free map).
    pub fn declares(&self, field: &str) -> bool {
        self.properties().is_some_and(|p| p.contains_key(field))
    }

    /// The shape of a field or of a map's element.
    pub fn field(&self, field: &str) -> Shape<'a> {
        let declared = self.properties().and_then(|p| p.get(field));
        self.at(declared.or_else(|| self.get("additionalProperties").filter(|a| a.is_object())))
    }

    /// The shape of a list's element.
    pub fn items(&self) -> Shape<'a> {
        self.at(self.get("items"))
    }

    /// The schema under a keyword, as `not`.
    pub fn keyword(&self, keyword: &str) -> Shape<'a> {
        self.at(self.get(keyword))
    }

    /// One of the schemas of `allOf`, `anyOf` or `oneOf`.
    pub fn branch(&self, keyword: &str, index: usize) -> Shape<'a> {
        self.at(self.get(keyword).and_then(|branches| branches.get(index)))
    }

    /// True if elements with any name are allowed here.
    pub fn is_free_map(&self) -> bool {
        self.get("additionalProperties").is_some_and(|a| a != &Value::Bool(false))
    }

    /// True if fields that are not declared stay.
    pub fn preserves_unknown(&self) -> bool {
        self.node.is_none() || self.is("x-kubernetes-preserve-unknown-fields")
    }

    /// True for a whole Kubernetes object inside another.
    pub fn is_embedded(&self) -> bool {
        self.is("x-kubernetes-embedded-resource")
    }

    /// True where a number or a string may stand.
    pub fn is_int_or_string(&self) -> bool {
        self.is("x-kubernetes-int-or-string")
    }

    /// True where `null` is a value.
    pub fn is_nullable(&self) -> bool {
        self.is("nullable")
    }

    /// True for a map that is replaced as a whole.
    pub fn is_atomic_map(&self) -> bool {
        self.get("x-kubernetes-map-type").and_then(Value::as_str) == Some("atomic")
    }

    /// How the list here merges under server-side apply.
    pub fn list_kind(&self) -> ListKind<'a> {
        match self.get("x-kubernetes-list-type").and_then(Value::as_str) {
            Some("set") => ListKind::Set,
            Some("map") => {
                let keys = self.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
                ListKind::Map(keys.into_iter().flatten().filter_map(Value::as_str).collect())
            }
            _ => ListKind::Atomic,
        }
    }

    /// The key by which a strategic merge patch merges the list here.
    pub fn merge_key(&self) -> Option<&'a str> {
        self.get("x-kubernetes-patch-merge-key").and_then(Value::as_str)
    }

    /// True if a strategic merge patch merges the list of scalars here.
    pub fn merges_scalars(&self) -> bool {
        self.merge_key().is_none()
            && self
                .get("x-kubernetes-patch-strategy")
                .and_then(Value::as_str)
                .is_some_and(|s| s.split(',').any(|s| s == "merge"))
    }
}
