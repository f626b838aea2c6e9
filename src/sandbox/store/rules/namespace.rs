//! Namespaces: objects need one that exists, and it goes after all that is in it.

use crate::sandbox::store::{Store, kinds::Kind, metadata, refusal::Refusal};
use serde_json::{Value, json};

/// Phase, finalizer and the label with its own name.
pub fn prepare(old: Option<&Value>, namespace: &mut Value) {
    let name = metadata::name(namespace).to_owned();
    if !namespace["metadata"]["labels"].is_object() {
        namespace["metadata"]["labels"] = json!({});
    }
    namespace["metadata"]["labels"]["kubernetes.io/metadata.name"] = json!(name);
    if namespace["spec"]["finalizers"].is_null() {
        namespace["spec"] = json!({"finalizers": ["kubernetes"]});
    }
    if old.is_none() {
        namespace["status"] = json!({"phase": "Active"});
    }
}

/// True for kinds that are not removed before their contents are.
pub fn holds_contents(kind: &Kind) -> bool {
    kind.is("", "Namespace")
}

/// A namespace that is being deleted says so.
pub fn mark(kind: &Kind, namespace: &mut Value) {
    if holds_contents(kind) {
        namespace["status"]["phase"] = json!("Terminating");
    }
}

impl Store {
    /// Objects go only into a namespace that is there and stays.
    ///
    /// # Errors
    /// 404, 403.
    pub(in crate::sandbox::store) fn namespace_accepts(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
    ) -> Result<(), Refusal> {
        if !kind.namespaced {
            return Ok(());
        }
        let key = super::super::Key {
            storage: "namespaces".into(),
            namespace: String::new(),
            name: namespace.into(),
        };
        match self.objects.get(&key) {
            None => Err(Refusal::not_found("", "namespaces", namespace)),
            Some(found) if metadata::is_terminating(found) => {
                let why = format!(
                    "unable to create new content in namespace {namespace} because it is being \
                     terminated"
                );
                Err(Refusal::forbidden(&kind.group, &kind.plural, name, &why))
            }
            Some(_) => Ok(()),
        }
    }
}
