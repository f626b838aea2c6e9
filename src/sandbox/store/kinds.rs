//! The kinds that are served: built in, or made by a CustomResourceDefinition.
//!
//! Leaves the list of built-in kinds to `built_in.rs` and reading a CRD to `custom.rs`.

use super::{refusal::qualified, shape::Schema};
use kube::core::cel::CompiledSchema;
use std::{collections::BTreeMap, sync::Arc};

/// One kind in one version.
#[derive(Debug, Clone)]
pub struct Kind {
    /// The API group, empty for the core.
    pub group: String,
    /// The version, as `v1`.
    pub version: String,
    /// The kind, as `StatefulSet`.
    pub kind: String,
    /// The kind of a list.
    pub list_kind: String,
    /// The resource in paths, as `statefulsets`.
    pub plural: String,
    /// The word for one, as `statefulset`.
    pub singular: String,
    /// What kubectl also understands, as `sts`.
    pub short_names: Vec<String>,
    /// Groups of kinds, as `all`.
    pub categories: Vec<String>,
    /// False for kinds of the whole cluster.
    pub namespaced: bool,
    /// True if `status` is a subresource of its own.
    pub has_status: bool,
    /// The `scale` subresource.
    pub scale: Option<Scale>,
    /// The name under which objects are stored; versions of one kind share it, and so do the two
    /// representations of an event.
    pub storage: String,
    /// What the objects look like.
    pub schema: Schema,
    /// How kubectl shows the objects of a custom resource.
    pub columns: Vec<Column>,
    /// The fields a field selector may name, besides name and namespace, without a leading dot.
    pub selectable: Vec<String>,
    /// What only a custom resource has; `None` for built-in kinds.
    pub custom: Option<Arc<Custom>>,
}

/// What only a custom resource has.
#[derive(Debug)]
pub struct Custom {
    /// The CEL rules, compiled; `None` if there are none.
    pub rules: Option<CompiledSchema>,
}

/// Where a custom resource keeps what `scale` needs; paths as in the CRD, with a leading dot.
#[derive(Debug, Clone)]
pub struct Scale {
    /// The wanted number.
    pub spec: String,
    /// The number that is there.
    pub status: String,
    /// The selector as text.
    pub selector: Option<String>,
}

/// A printer column of a custom resource.
#[derive(Debug, Clone)]
pub struct Column {
    /// The header.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub value_type: String,
    /// A format for clients, may be empty.
    pub format: String,
    /// For `kubectl get` 0, for `-o wide` more.
    pub priority: i64,
    /// What it says.
    pub description: String,
    /// The JSON path of the value.
    pub path: String,
}

impl Kind {
    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `pods` or `statefulsets.apps`.
    pub fn qualified(&self) -> String {
        qualified(&self.group, &self.plural)
    }

    /// True for a kind that a CRD made.
    pub fn is_custom(&self) -> bool {
        self.custom.is_some()
    }

    /// True for the given built-in kind, whatever its version.
    pub fn is(&self, group: &str, kind: &str) -> bool {
        self.custom.is_none() && self.group == group && self.kind == kind
    }
}

/// All kinds, in the order in which discovery shows them.
#[derive(Debug, Default)]
pub struct Kinds {
    built_in: Vec<Arc<Kind>>,
    custom: BTreeMap<String, Vec<Arc<Kind>>>,
}

impl Kinds {
    /// Only the built-in kinds.
    pub fn new(built_in: Vec<Arc<Kind>>) -> Self {
        Self { built_in, custom: BTreeMap::new() }
    }

    /// Serves the versions of a CRD from now on; an empty list ends that.
    pub fn serve(&mut self, definition: &str, versions: Vec<Arc<Kind>>) {
        if versions.is_empty() {
            self.custom.remove(definition);
        } else {
            self.custom.insert(definition.to_owned(), versions);
        }
    }

    /// All kinds.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.built_in.iter().chain(self.custom.values().flatten())
    }

    /// The kind that is served at a path.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        self.all().find(|k| k.group == group && k.version == version && k.plural == plural).cloned()
    }

    /// The kind that objects of this type have.
    pub fn of(&self, api_version: &str, kind: &str) -> Option<Arc<Kind>> {
        self.all().find(|k| k.kind == kind && k.api_version() == api_version).cloned()
    }

    /// A kind by the name under which its objects are stored.
    pub fn stored_as(&self, storage: &str) -> Option<Arc<Kind>> {
        self.all().find(|k| k.storage == storage).cloned()
    }

    /// The groups, each with its versions, in order; the core group is left out.
    pub fn groups(&self) -> Vec<(String, Vec<String>)> {
        let mut groups: Vec<(String, Vec<String>)> = Vec::new();
        for kind in self.all().filter(|k| !k.group.is_empty()) {
            match groups.iter_mut().find(|(g, _)| *g == kind.group) {
                Some((_, versions)) if versions.contains(&kind.version) => {}
                Some((_, versions)) => versions.push(kind.version.clone()),
                None => groups.push((kind.group.clone(), vec![kind.version.clone()])),
            }
        }
        groups
    }
}
