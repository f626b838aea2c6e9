//! OpenAPI documents: what `kubectl explain`, `apply` and `create` need of them.
//!
//! Version 3 has the schemas that objects are judged by. Of version 2 there is only a stub: the
//! clients that we know ask for 3 first.

use crate::sandbox::store::{Store, kinds::Kind};
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeSet, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    sync::Arc,
};

/// `/openapi/v3`: a path for each group and version.
pub fn index(store: &Store) -> Value {
    let mut paths = Map::new();
    let mut add = |path: String, group: &str, version: &str| {
        let mut hasher = DefaultHasher::new();
        for kind in store.kinds().all().filter(|k| k.group == group && k.version == version) {
            (&kind.kind, kind.schema.root.to_string()).hash(&mut hasher);
        }
        let url = format!("/openapi/v3/{path}?hash={:X}", hasher.finish());
        paths.insert(path, json!({"serverRelativeURL": url}));
    };
    add("api/v1".into(), "", "v1");
    for (group, versions) in store.kinds().groups() {
        for version in versions {
            add(format!("apis/{group}/{version}"), &group, &version);
        }
    }
    json!({"paths": paths})
}

/// `/openapi/v3/…`: one group and version.
pub fn document(store: &Store, group: &str, version: &str) -> Option<Value> {
    let kinds: Vec<&Arc<Kind>> =
        store.kinds().all().filter(|k| k.group == group && k.version == version).collect();
    let first = kinds.first()?;
    let mut paths = Map::new();
    let mut schemas = Map::new();
    let mut wanted = BTreeSet::new();
    for kind in &kinds {
        let (name, schema) = schema(kind, &mut wanted);
        schemas.insert(name.clone(), schema);
        paths.insert(object_path(kind), operations(kind, &name));
    }
    while let Some(name) = wanted.pop_first() {
        if let Some(definition) = first.schema.definitions.get(&name)
            && !schemas.contains_key(&name)
        {
            references(definition, &mut wanted);
            schemas.insert(name, definition.clone());
        }
    }
    Some(json!({
        "openapi": "3.0.0", "info": {"title": "pgitops sandbox", "version": "v1.36.0"},
        "paths": paths, "components": {"schemas": schemas},
    }))
}

/// `/openapi/v2` as JSON.
pub fn stub() -> Value {
    json!({
        "swagger": "2.0", "info": {"title": "pgitops sandbox", "version": "v1.36.0"},
        "paths": {}, "definitions": {},
    })
}

/// `/openapi/v2` as protobuf: one operation. kubectl looks here for a kind that version 3 does not
/// have (a custom resource whose definition is not there yet), and only for whether a patch of a
/// Namespace knows `fieldValidation`.
pub fn stub_protobuf() -> Vec<u8> {
    let field = |number: u8, content: &[u8]| {
        let mut out = vec![number << 3 | 2];
        let mut length = content.len();
        while length > 0x7f {
            out.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        out.extend_from_slice(content);
        out
    };
    let both = |a: Vec<u8>, b: Vec<u8>| [a, b].concat();
    // Field numbers of gnostic's OpenAPIv2.proto, from the innermost message outwards.
    let query = both(field(2, b"query"), field(4, b"fieldValidation"));
    let parameter = field(1, &field(2, &field(3, &query)));
    let kind = b"group: \"\"\nkind: Namespace\nversion: v1\n";
    let extension = both(field(1, b"x-kubernetes-group-version-kind"), field(2, &field(2, kind)));
    let operation = both(field(8, &parameter), field(13, &extension));
    let path = both(field(1, b"/api/v1/namespaces/{name}"), field(2, &field(8, &operation)));
    both(field(1, b"2.0"), field(8, &field(2, &path)))
}

fn schema(kind: &Kind, wanted: &mut BTreeSet<String>) -> (String, Value) {
    let reference = kind.schema.root.get("$ref").and_then(Value::as_str);
    let named = reference.and_then(|r| r.rsplit('/').next()).map(str::to_owned);
    let (name, mut schema) = match named {
        Some(name) => {
            let schema = kind.schema.definitions.get(&name).cloned().unwrap_or_default();
            (name, schema)
        }
        None => {
            let reversed: Vec<&str> = kind.group.split('.').rev().collect();
            let name = format!("{}.{}.{}", reversed.join("."), kind.version, kind.kind);
            (name, Value::clone(&kind.schema.root))
        }
    };
    references(&schema, wanted);
    schema["x-kubernetes-group-version-kind"] = json!([type_of(kind)]);
    (name, schema)
}

fn type_of(kind: &Kind) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

fn object_path(kind: &Kind) -> String {
    let base = if kind.group.is_empty() {
        format!("/api/{}", kind.version)
    } else {
        format!("/apis/{}/{}", kind.group, kind.version)
    };
    let namespace = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
    format!("{base}{namespace}/{}/{{name}}", kind.plural)
}

fn operations(kind: &Kind, name: &str) -> Value {
    let parameter = |name: &str| json!({"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": true}});
    let body = json!({"description": "OK", "content": {"application/json": {
        "schema": {"$ref": format!("#/components/schemas/{name}")}}}});
    let operation = |action: &str, parameters: &[&str]| {
        json!({
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": type_of(kind),
            "parameters": parameters.iter().map(|p| parameter(p)).collect::<Vec<_>>(),
            "responses": {"200": body},
        })
    };
    let write = ["dryRun", "fieldManager", "fieldValidation"];
    json!({
        "get": operation("get", &[]),
        "put": operation("put", &write),
        "delete": operation("delete", &["dryRun"]),
        "patch": operation("patch", &["dryRun", "fieldManager", "fieldValidation", "force"]),
    })
}

fn references(node: &Value, wanted: &mut BTreeSet<String>) {
    match node {
        Value::Object(map) => {
            if let Some(name) =
                map.get("$ref").and_then(Value::as_str).and_then(|r| r.rsplit('/').next())
            {
                wanted.insert(name.to_owned());
            }
            map.values().for_each(|v| references(v, wanted));
        }
        Value::Array(items) => items.iter().for_each(|v| references(v, wanted)),
        _ => {}
    }
}
