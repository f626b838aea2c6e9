//! Objects that the API server has and that cannot be read here.
//!
//! kube decodes a list as a whole: one object with a field of an unknown form would hide all others
//! of its kind. Decoded by itself, it is known by its metadata and by the field at which reading
//! ended. (kube's `DeserializeGuard` keeps the value and loses the field; a value may be somebody's
//! configuration, and is never told.) Leaves telling of it to `tell`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use kube::api::ObjectMeta;
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An object as far as it can be read.
#[derive(Clone, Debug)]
pub enum Read<K> {
    /// All of it.
    Whole(K),
    /// Its metadata only.
    Not(Box<Unreadable>),
}

/// An object that cannot be read.
#[derive(Clone, Debug, PartialEq)]
pub struct Unreadable {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// The field at which reading ended, as `spec.storage.accessModes`; never its value.
    pub field: String,
    /// The conditions of its status as they stand, whatever they are like.
    pub conditions: Vec<Value>,
    /// The database that it is about, where it is a request.
    pub database: Option<String>,
}

/// What cannot be read of one kind, by namespace and name.
pub type Unread = BTreeMap<(String, String), Unreadable>;

impl Unreadable {
    /// What is wrong and what to do, for people.
    pub fn words(&self) -> String {
        words(&self.field)
    }

    /// Where events about it belong.
    pub fn reference<K: Resource<DynamicType = ()>>(&self) -> ObjectReference {
        let ObjectMeta { name, namespace, uid, resource_version, .. } = self.metadata.clone();
        ObjectReference {
            api_version: Some(K::api_version(&()).into_owned()),
            kind: Some(K::kind(&()).into_owned()),
            name,
            namespace,
            uid,
            resource_version,
            field_path: None,
        }
    }
}

/// What is wrong with an object whose reading ended at `field`, and what to do.
pub(super) fn words(field: &str) -> String {
    format!(
        "{field} has a form that this version of pgitops does not know, so the object is left \
         alone: correct the field, or use a newer version"
    )
}

impl<'de, K: DeserializeOwned> Deserialize<'de> for Read<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let error = match serde_path_to_error::deserialize::<_, K>(&value) {
            Ok(object) => return Ok(Self::Whole(object)),
            Err(error) => error,
        };
        let metadata = value.get("metadata").ok_or_else(|| D::Error::missing_field("metadata"))?;
        let mut metadata = ObjectMeta::deserialize(metadata)
            .map_err(|_| D::Error::custom("metadata cannot be read"))?;
        // The largest part, and nobody needs it.
        metadata.managed_fields = None;
        let conditions = value.pointer("/status/conditions").and_then(Value::as_array);
        let conditions = conditions.cloned().unwrap_or_default();
        let database = value.pointer("/spec/databaseRef/name").and_then(Value::as_str);
        let database = database.map(str::to_owned);
        let field = error.path().to_string();
        Ok(Self::Not(Box::new(Unreadable { metadata, field, conditions, database })))
    }
}

impl<K: Serialize> Serialize for Read<K> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Whole(object) => object.serialize(serializer),
            Self::Not(unreadable) => unreadable.metadata.serialize(serializer),
        }
    }
}

impl<K: Resource> Resource for Read<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    // Of Secrets only the metadata is sent: forgetting this would fetch all their contents.
    fn metadata_api() -> bool {
        K::metadata_api()
    }

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            Self::Whole(object) => object.meta(),
            Self::Not(unreadable) => &unreadable.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Whole(object) => object.meta_mut(),
            Self::Not(unreadable) => &mut unreadable.metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Postgres;
    use serde_json::json;

    fn read(spec: Value) -> Read<Postgres> {
        let object = json!({
            "apiVersion": "kubedb.com/v1", "kind": "Postgres",
            "metadata": {"name": "orders", "namespace": "demo", "uid": "u"}, "spec": spec,
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn of_what_is_read_as_metadata_nothing_else_is_sent() {
        use k8s_openapi::api::core::v1::Secret;
        use kube::core::PartialObjectMeta;
        assert!(Read::<PartialObjectMeta<Secret>>::metadata_api());
        assert!(!Read::<Postgres>::metadata_api());
    }

    #[test]
    fn an_unknown_form_is_known_by_its_field_and_never_by_its_value() {
        let check = |spec: Value, field: &str| {
            let Read::Not(unreadable) = read(spec) else { panic!("{field}: read") };
            assert_eq!(unreadable.field, field);
            assert_eq!(unreadable.metadata.name.as_deref(), Some("orders"));
            assert!(!unreadable.words().contains("hunter2"), "{}", unreadable.words());
        };
        let storage = json!({"version": "15", "storage": {"accessModes": "hunter2"}});
        check(storage, "spec.storage.accessModes");
        let inline = json!({"version": "15", "configuration": {"inline": "hunter2"}});
        check(inline, "spec.configuration.inline");
        let Read::Whole(whole) = read(json!({"version": "15"})) else { panic!("not read") };
        assert_eq!(whole.spec.version, "15");
    }
}
