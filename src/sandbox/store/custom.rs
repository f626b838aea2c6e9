//! A CustomResourceDefinition becomes kinds that are served.

use super::{
    kinds::{Column, Custom, Kind, Scale},
    shape::{REFERENCE, Schema},
};
use kube::core::cel::compile_schema;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The served versions of a definition.
pub fn kinds(definition: &Value, definitions: &Arc<Map<String, Value>>) -> Vec<Arc<Kind>> {
    let versions = definition["spec"]["versions"].as_array();
    let served = versions.into_iter().flatten().filter(|v| v["served"] == true);
    served.map(|version| Arc::new(kind(definition, version, definitions))).collect()
}

fn kind(definition: &Value, version: &Value, definitions: &Arc<Map<String, Value>>) -> Kind {
    let spec = &definition["spec"];
    let names = &spec["names"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let words = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(&text).collect()
    };
    let (group, plural, name) =
        (text(&spec["group"]), text(&names["plural"]), text(&names["kind"]));
    let list_kind = names["listKind"].as_str().map_or_else(|| format!("{name}List"), str::to_owned);
    let singular = names["singular"].as_str().map_or_else(|| name.to_lowercase(), str::to_owned);
    let subresources = &version["subresources"];
    let selectable = version["selectableFields"].as_array().into_iter().flatten();
    let schema = &version["schema"]["openAPIV3Schema"];
    let has_rules = schema.to_string().contains("x-kubernetes-validations");
    Kind {
        list_kind,
        singular,
        short_names: words(&names["shortNames"]),
        categories: words(&names["categories"]),
        namespaced: spec["scope"] == "Namespaced",
        has_status: subresources["status"].is_object(),
        scale: scale(&subresources["scale"]),
        storage: format!("{plural}.{group}"),
        schema: Schema {
            root: Arc::new(root(schema.clone())),
            definitions: Arc::clone(definitions),
        },
        columns: columns(&version["additionalPrinterColumns"]),
        selectable: selectable
            .map(|f| text(&f["jsonPath"]).trim_start_matches('.').to_owned())
            .collect(),
        custom: Some(Arc::new(Custom { rules: has_rules.then(|| compile_schema(schema)) })),
        group,
        version: text(&version["name"]),
        plural,
        kind: name,
    }
}

fn scale(scale: &Value) -> Option<Scale> {
    Some(Scale {
        spec: scale["specReplicasPath"].as_str()?.to_owned(),
        status: scale["statusReplicasPath"].as_str()?.to_owned(),
        selector: scale["labelSelectorPath"].as_str().map(str::to_owned),
    })
}

/// The schema of a whole object: the definition's own words on metadata are few, so the real
/// server puts the type's there, and so do we.
fn root(mut schema: Value) -> Value {
    let Some(root) = schema.as_object_mut() else { return json!({}) };
    if root.contains_key("properties") || !root.contains_key("x-kubernetes-preserve-unknown-fields")
    {
        let properties = root.entry("properties").or_insert_with(|| json!({}));
        properties["apiVersion"] = json!({"type": "string"});
        properties["kind"] = json!({"type": "string"});
        let metadata = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
        properties["metadata"] = json!({"$ref": format!("{REFERENCE}{metadata}")});
    }
    schema
}

fn columns(columns: &Value) -> Vec<Column> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let column = |c: &Value| Column {
        name: text(&c["name"]),
        value_type: text(&c["type"]),
        format: text(&c["format"]),
        priority: c["priority"].as_i64().unwrap_or(0),
        description: text(&c["description"]),
        path: text(&c["jsonPath"]),
    };
    let mut all: Vec<Column> = columns.as_array().into_iter().flatten().map(column).collect();
    if all.is_empty() {
        all.push(Column {
            name: "Age".into(),
            value_type: "date".into(),
            format: String::new(),
            priority: 0,
            description: "CreationTimestamp is a timestamp representing the server time when \
                          this object was created."
                .into(),
            path: ".metadata.creationTimestamp".into(),
        });
    }
    all
}
