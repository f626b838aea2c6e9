//! The built-in kinds, their schemas made from the Kubernetes types, and how their lists merge.
//!
//! The types carry neither merge keys nor defaults; `built_in/tables.rs` adds them.

mod tables;

use self::tables::{
    ATOMIC, ATOMIC_FIELDS, CORE_EVENT_FIELDS, DEFAULTS, EVENT_FIELDS, LISTS, POD_FIELDS,
};
use super::{
    kinds::{Kind, Scale},
    refusal::qualified,
    shape::{REFERENCE, Schema},
};
use k8s_openapi::{
    api::{apps::v1 as apps, coordination::v1 as coordination, core::v1 as core},
    api::{discovery::v1 as discovery, events::v1 as events, policy::v1 as policy},
    api::{rbac::v1 as rbac, storage::v1 as storage},
    apiextensions_apiserver::pkg::apis::apiextensions::v1 as extensions,
};
use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// A line of the table below.
struct Row {
    plural: &'static str,
    short_names: &'static [&'static str],
    all: bool,
    namespaced: bool,
    has_status: bool,
    selectable: &'static [&'static str],
}

const PLAIN: Row = Row {
    plural: "",
    short_names: &[],
    all: false,
    namespaced: true,
    has_status: false,
    selectable: &[],
};

/// Collects kinds while their schemas are made by one generator.
struct Table {
    generator: SchemaGenerator,
    rows: Vec<(&'static str, &'static str, &'static str, Value, Row)>,
}

impl Table {
    fn add<K: JsonSchema + k8s_openapi::Resource>(&mut self, row: Row) {
        let reference = self.generator.subschema_for::<K>();
        self.rows.push((K::GROUP, K::VERSION, K::KIND, reference.to_value(), row));
    }
}

/// All built-in kinds.
pub fn kinds() -> Vec<Arc<Kind>> {
    let settings = SchemaSettings::openapi3().with(|s| {
        s.definitions_path = "/components/schemas".into();
        s.transforms.clear();
    });
    let mut table = Table { generator: settings.into_generator(), rows: Vec::new() };
    fill_core(&mut table);
    fill_groups(&mut table);
    let mut definitions = table.generator.take_definitions(true);
    definitions.values_mut().for_each(point_references);
    extend(&mut definitions);
    let definitions = Arc::new(definitions);
    table.rows.into_iter().map(|row| Arc::new(kind(row, &definitions))).collect()
}

fn fill_core(t: &mut Table) {
    t.add::<core::Namespace>(Row {
        plural: "namespaces",
        short_names: &["ns"],
        namespaced: false,
        has_status: true,
        selectable: &["status.phase"],
        ..PLAIN
    });
    t.add::<core::Node>(Row {
        plural: "nodes",
        short_names: &["no"],
        namespaced: false,
        has_status: true,
        selectable: &["spec.unschedulable"],
        ..PLAIN
    });
    t.add::<core::Pod>(Row {
        plural: "pods",
        short_names: &["po"],
        all: true,
        has_status: true,
        selectable: POD_FIELDS,
        ..PLAIN
    });
    t.add::<core::Service>(Row {
        plural: "services",
        short_names: &["svc"],
        all: true,
        has_status: true,
        selectable: &["spec.clusterIP", "spec.type"],
        ..PLAIN
    });
    t.add::<core::Endpoints>(Row { plural: "endpoints", short_names: &["ep"], ..PLAIN });
    t.add::<core::Secret>(Row { plural: "secrets", selectable: &["type"], ..PLAIN });
    t.add::<core::ConfigMap>(Row { plural: "configmaps", short_names: &["cm"], ..PLAIN });
    t.add::<core::ServiceAccount>(Row { plural: "serviceaccounts", short_names: &["sa"], ..PLAIN });
    t.add::<core::PersistentVolumeClaim>(Row {
        plural: "persistentvolumeclaims",
        short_names: &["pvc"],
        has_status: true,
        ..PLAIN
    });
    t.add::<core::PersistentVolume>(Row {
        plural: "persistentvolumes",
        short_names: &["pv"],
        namespaced: false,
        has_status: true,
        ..PLAIN
    });
    t.add::<core::Event>(Row {
        plural: "events",
        short_names: &["ev"],
        selectable: CORE_EVENT_FIELDS,
        ..PLAIN
    });
}

fn fill_groups(t: &mut Table) {
    let workload =
        |plural, short_names| Row { plural, short_names, all: true, has_status: true, ..PLAIN };
    t.add::<apps::StatefulSet>(workload("statefulsets", &["sts"]));
    t.add::<apps::Deployment>(workload("deployments", &["deploy"]));
    t.add::<apps::ControllerRevision>(Row { plural: "controllerrevisions", ..PLAIN });
    t.add::<policy::PodDisruptionBudget>(Row {
        plural: "poddisruptionbudgets",
        short_names: &["pdb"],
        has_status: true,
        ..PLAIN
    });
    t.add::<coordination::Lease>(Row { plural: "leases", ..PLAIN });
    t.add::<events::Event>(Row {
        plural: "events",
        short_names: &["ev"],
        selectable: EVENT_FIELDS,
        ..PLAIN
    });
    t.add::<discovery::EndpointSlice>(Row { plural: "endpointslices", ..PLAIN });
    t.add::<rbac::Role>(Row { plural: "roles", ..PLAIN });
    t.add::<rbac::RoleBinding>(Row { plural: "rolebindings", ..PLAIN });
    t.add::<rbac::ClusterRole>(Row { plural: "clusterroles", namespaced: false, ..PLAIN });
    t.add::<rbac::ClusterRoleBinding>(Row {
        plural: "clusterrolebindings",
        namespaced: false,
        ..PLAIN
    });
    t.add::<storage::StorageClass>(Row {
        plural: "storageclasses",
        short_names: &["sc"],
        namespaced: false,
        ..PLAIN
    });
    t.add::<extensions::CustomResourceDefinition>(Row {
        plural: "customresourcedefinitions",
        short_names: &["crd", "crds"],
        namespaced: false,
        has_status: true,
        ..PLAIN
    });
}

fn kind(
    (group, version, name, reference, row): (&str, &str, &str, Value, Row),
    definitions: &Arc<Map<String, Value>>,
) -> Kind {
    let mut root = reference;
    point_references(&mut root);
    let scale = ["StatefulSet", "Deployment"].contains(&name).then(|| Scale {
        spec: ".spec.replicas".into(),
        status: ".status.replicas".into(),
        selector: None,
    });
    let storage = if name == "Event" { "events".to_owned() } else { qualified(group, row.plural) };
    Kind {
        group: group.into(),
        version: version.into(),
        kind: name.into(),
        list_kind: format!("{name}List"),
        plural: row.plural.into(),
        singular: name.to_lowercase(),
        short_names: row.short_names.iter().map(|s| (*s).into()).collect(),
        categories: if row.all { vec!["all".into()] } else { Vec::new() },
        namespaced: row.namespaced,
        has_status: row.has_status,
        scale,
        storage,
        schema: Schema { root: Arc::new(root), definitions: Arc::clone(definitions) },
        columns: Vec::new(),
        selectable: row.selectable.iter().map(|s| (*s).into()).collect(),
        custom: None,
    }
}

/// Whatever prefix the generator writes, references point to [`REFERENCE`].
fn point_references(node: &mut Value) {
    match node {
        Value::Object(map) => {
            if let Some(Value::String(to)) = map.get_mut("$ref")
                && let Some(name) = to.rsplit('/').next()
            {
                *to = format!("{REFERENCE}{}", name.to_owned());
            }
            map.values_mut().for_each(point_references);
        }
        Value::Array(items) => items.iter_mut().for_each(point_references),
        _ => {}
    }
}

/// Adds what the types do not carry.
fn extend(definitions: &mut Map<String, Value>) {
    for (name, definition) in definitions.iter_mut() {
        let short = name.rsplit('.').next().unwrap_or(name).to_owned();
        if short == "Quantity" {
            definition["x-quantity"] = json!(true);
        }
        // Any JSON: `FieldsV1`, `JSON`, `JSONSchemaPropsOrBool` and their like. (The types call
        // some of them objects, which they are not.)
        let kept = ["properties", "additionalProperties", "x-kubernetes-int-or-string"];
        let any = kept.iter().all(|keyword| definition.get(*keyword).is_none());
        if any && (definition.get("type").is_none() || definition["type"] == "object") {
            *definition = json!({"x-kubernetes-preserve-unknown-fields": true});
        }
        if ATOMIC.contains(&short.as_str()) {
            definition["x-kubernetes-map-type"] = json!("atomic");
        }
        let mut field = |of: &str, field: &str, extend: &mut dyn FnMut(&mut Value)| {
            if of == short
                && let Some(property) = definition.pointer_mut(&format!("/properties/{field}"))
            {
                extend(property);
            }
        };
        for (of, name, keys, merge_key) in LISTS {
            field(of, name, &mut |list| merge_by(list, keys, merge_key));
        }
        for (of, name) in ATOMIC_FIELDS {
            field(of, name, &mut |map| map["x-kubernetes-map-type"] = json!("atomic"));
        }
        for (of, name, default) in DEFAULTS {
            let default: Value = serde_json::from_str(default).unwrap_or_default();
            field(of, name, &mut |property| property["default"] = default.clone());
        }
    }
}

fn merge_by(list: &mut Value, keys: &[&str], merge_key: &str) {
    list["x-kubernetes-list-type"] = json!(if keys.is_empty() { "set" } else { "map" });
    list["x-kubernetes-patch-strategy"] = json!("merge");
    if !keys.is_empty() {
        list["x-kubernetes-list-map-keys"] = json!(keys);
        list["x-kubernetes-patch-merge-key"] = json!(merge_key);
    }
}
