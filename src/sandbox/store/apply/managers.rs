//! `metadata.managedFields`: who owns which field, what an update and an apply do to it, and when
//! an apply conflicts.
//!
//! Ownership follows the real server's updater: an update takes the fields that it changes, an
//! apply owns exactly what it names, and a field that an apply no longer names goes unless
//! another manager owns it.

use super::{
    compare::{Difference, claimed},
    fields::Fields,
    merge::{merged, pruned},
};
use crate::sandbox::store::{
    kinds::Kind,
    refusal::{Cause, Refusal},
    shape::Shape,
};
use serde_json::{Value, json};

/// One writer's fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Manager {
    /// The writer's name.
    pub name: String,
    /// True for `Apply`, false for `Update`.
    pub applies: bool,
    /// The version it wrote in, as `apps/v1`.
    pub api_version: String,
    /// `status` for writes through the subresource, otherwise empty.
    pub subresource: String,
    /// When it last changed something.
    pub time: String,
    /// What it owns.
    pub fields: Fields,
}

impl Manager {
    fn is(&self, other: &Manager) -> bool {
        self.name == other.name
            && self.applies == other.applies
            && self.subresource == other.subresource
            && self.api_version == other.api_version
    }

    fn decode(entry: &Value) -> Manager {
        let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        Manager {
            name: text("manager"),
            applies: entry["operation"] == "Apply",
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: text("time"),
            fields: Fields::decode_root(&entry["fieldsV1"]),
        }
    }

    fn encode(&self) -> Value {
        let mut entry = json!({
            "manager": self.name,
            "operation": if self.applies { "Apply" } else { "Update" },
            "apiVersion": self.api_version,
            "time": self.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.encode(),
        });
        if !self.subresource.is_empty() {
            entry["subresource"] = json!(self.subresource);
        }
        entry
    }

    /// As the real server names a manager in a conflict.
    fn text(&self) -> String {
        let mut text = format!("{:?}", self.name);
        if !self.subresource.is_empty() {
            text = format!("{text} with subresource {:?}", self.subresource);
        }
        if !self.applies {
            text = format!("{text} using {}", self.api_version);
            if !self.time.is_empty() {
                text = format!("{text} at {}", self.time);
            }
        }
        text
    }
}

/// The managers of an object.
pub fn read(object: &Value) -> Vec<Manager> {
    let entries = object["metadata"]["managedFields"].as_array();
    entries.into_iter().flatten().map(Manager::decode).collect()
}

/// Writes the managers into an object; those that own nothing are left out.
pub fn write(object: &mut Value, mut managers: Vec<Manager>) {
    managers.retain(|m| !m.fields.is_empty());
    managers.sort_by(|a, b| {
        let key = |m: &Manager| (!m.applies, m.time.clone(), m.name.clone(), m.api_version.clone());
        key(a).cmp(&key(b))
    });
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if managers.is_empty() {
        metadata.remove("managedFields");
    } else {
        let entries: Vec<Value> = managers.iter().map(Manager::encode).collect();
        metadata.insert("managedFields".into(), json!(entries));
    }
}

/// Records an update of `old` (`None`: a creation) to `new` by `writer`, whose fields are ignored.
pub fn record_update(old: Option<&Value>, new: &mut Value, writer: &Manager, kind: &Kind) {
    let nothing = json!({});
    let shape = kind.schema.shape();
    let difference = Difference::between(old.unwrap_or(&nothing), new, shape);
    let mut managers = before(old, new, writer);
    let plain = if kind.is_custom() { &PLAIN_STRUCTS[..1] } else { PLAIN_STRUCTS };
    let changed = without(difference.changed(), plain);
    for other in managers.iter_mut() {
        other.fields = other.fields.without(&difference.removed);
        if !other.is(writer) {
            other.fields = other.fields.without(&changed);
        }
    }
    if !changed.is_empty() {
        match managers.iter_mut().find(|m| m.is(writer)) {
            Some(own) => {
                own.fields.add(&changed);
                own.time = writer.time.clone();
            }
            None => managers.push(Manager { fields: changed, ..writer.clone() }),
        }
    }
    write(new, managers);
}

/// The managers an update begins with: those in the body if it brings any (a client may rewrite
/// them, and `[{}]` clears them), otherwise those of the stored object.
fn before(old: Option<&Value>, new: &Value, writer: &Manager) -> Vec<Manager> {
    let Some(old) = old else { return Vec::new() };
    let brought = new["metadata"]["managedFields"].as_array();
    match brought.map(Vec::as_slice) {
        Some([only]) if *only == json!({}) => Vec::new(),
        Some([_, ..]) if writer.subresource.is_empty() => read(new),
        _ => read(old),
    }
}

/// Takes single places out of a set, not what lies below them.
fn without(mut fields: Fields, places: &[&[&str]]) -> Fields {
    for path in places {
        let mut here = Some(&mut fields);
        for element in *path {
            here = here.and_then(|f| f.below.get_mut(*element));
        }
        if let Some(place) = here
            && !place.below.is_empty()
        {
            place.here = false;
        }
    }
    fields
}

/// Containers that every object of a type has are not owned themselves; the first is one for
/// custom resources too.
const PLAIN_STRUCTS: &[&[&str]] = &[
    &["f:metadata"],
    &["f:spec"],
    &["f:status"],
    &["f:spec", "f:containers"],
    &["f:spec", "f:template"],
    &["f:spec", "f:template", "f:metadata"],
    &["f:spec", "f:template", "f:spec"],
    &["f:spec", "f:template", "f:spec", "f:containers"],
    &["f:spec", "f:updateStrategy"],
    &["f:spec", "f:strategy"],
];

/// What an apply makes of `live`: the new object with its managers, or the conflict.
pub fn apply(
    live: &Value,
    config: &Value,
    writer: &Manager,
    force: bool,
    shape: Shape<'_>,
) -> Result<Value, Refusal> {
    let mut managers = read(live);
    let claimed = claimed(config, shape);
    let last = managers.iter().find(|m| m.is(writer)).map(|m| m.fields.clone());
    let mut kept = claimed.clone();
    managers.iter().filter(|m| !m.is(writer)).for_each(|m| kept.add(&m.fields));
    let mut new = merged(live, config, shape);
    if let Some(last) = &last {
        new = pruned(&new, last, &kept, shape);
    }
    let difference = Difference::between(live, &new, shape);
    let changed = difference.changed();
    let mut conflicts: Vec<(Manager, Fields)> = Vec::new();
    for other in managers.iter_mut().filter(|m| !m.is(writer)) {
        let lost = other.fields.common(&changed);
        if !lost.is_empty() {
            conflicts.push((other.clone(), lost));
        }
        other.fields = other.fields.without(&changed).without(&difference.removed);
    }
    if !conflicts.is_empty() && !force {
        return Err(conflict(&conflicts));
    }
    let moved = !difference.removed.is_empty() || !changed.is_empty();
    match managers.iter_mut().find(|m| m.is(writer)) {
        Some(own) => {
            if moved || own.fields != claimed {
                own.time = writer.time.clone();
            }
            own.fields = claimed;
        }
        None => managers.push(Manager { fields: claimed, ..writer.clone() }),
    }
    write(&mut new, managers);
    Ok(new)
}

fn conflict(conflicts: &[(Manager, Fields)]) -> Refusal {
    let mut causes = Vec::new();
    let mut lines = Vec::new();
    for (manager, fields) in conflicts {
        lines.push(format!("conflicts with {}:", manager.text()));
        for path in fields.paths() {
            lines.push(format!("- {path}"));
            causes.push(Cause {
                reason: "FieldManagerConflict".into(),
                message: format!("conflict with {}", manager.text()),
                field: path,
            });
        }
    }
    let message = match causes.as_slice() {
        [one] => format!("Apply failed with 1 conflict: {}: {}", one.message, one.field),
        many => format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n")),
    };
    Refusal::apply_conflict(message, causes)
}

#[cfg(test)]
mod tests {
    use crate::sandbox::store::{patch::Patch, tests::World};
    use serde_json::{Value, json};

    fn apply(world: &mut World, by: &str, data: Value, force: bool) -> Result<Value, String> {
        let metadata = json!({"name": "x"});
        let config =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data});
        let patch = Patch::Apply { config, force };
        let done = world.patch("configmaps", "x", by, &patch);
        done.map(|object| object["data"].clone()).map_err(|refusal| refusal.message)
    }

    fn owners(world: &World) -> Vec<String> {
        let kind = world.kind("configmaps");
        let object = world.store.get(&kind, "demo", "x").unwrap();
        super::read(&object)
            .iter()
            .map(|m| format!("{} {}", m.name, m.fields.paths().join(" ")))
            .collect()
    }

    #[test]
    fn an_apply_owns_what_it_names_and_gives_up_what_it_does_not() {
        let mut world = World::new();
        apply(&mut world, "one", json!({"a": "1", "b": "1"}), false).unwrap();
        assert_eq!(owners(&world), ["one .data.a .data.b"]);
        // The same value may have two owners.
        apply(&mut world, "two", json!({"b": "1", "c": "2"}), false).unwrap();
        assert_eq!(owners(&world), ["one .data.a .data.b", "two .data.b .data.c"]);
        let left = apply(&mut world, "one", json!({"a": "1"}), false).unwrap();
        assert_eq!(left, json!({"a": "1", "b": "1", "c": "2"}));
        let left = apply(&mut world, "two", json!({"c": "2"}), false).unwrap();
        assert_eq!(left, json!({"a": "1", "c": "2"}));
    }

    #[test]
    fn another_value_conflicts_until_it_is_forced() {
        let mut world = World::new();
        apply(&mut world, "one", json!({"a": "1", "b": "1"}), false).unwrap();
        let theirs = json!({"a": "2", "b": "2"});
        assert_eq!(
            apply(&mut world, "two", theirs.clone(), false).unwrap_err(),
            "Apply failed with 2 conflicts: conflicts with \"one\":\n- .data.a\n- .data.b"
        );
        apply(&mut world, "two", theirs, true).unwrap();
        assert_eq!(owners(&world), ["two .data.a .data.b"]);
    }

    #[test]
    fn an_update_takes_what_it_changes() {
        let mut world = World::new();
        apply(&mut world, "one", json!({"a": "1", "b": "1"}), false).unwrap();
        let patch = Patch::Merge(json!({"data": {"a": "9", "c": "9"}}));
        world.patch("configmaps", "x", "editor", &patch).unwrap();
        assert_eq!(owners(&world), ["one .data.b", "editor .data.a .data.c"]);
        let refused = apply(&mut world, "one", json!({"a": "1"}), false).unwrap_err();
        assert_eq!(
            refused,
            "Apply failed with 1 conflict: conflict with \"editor\" using v1 at \
             2027-01-15T08:00:03Z: .data.a"
        );
        let gone = Patch::Merge(json!({"data": {"a": null}}));
        world.patch("configmaps", "x", "editor", &gone).unwrap();
        assert_eq!(owners(&world), ["one .data.b", "editor .data.c"]);
    }

    #[test]
    fn the_same_apply_again_changes_nothing() {
        let mut world = World::new();
        apply(&mut world, "one", json!({"a": "1"}), false).unwrap();
        let before = world.store.revision();
        apply(&mut world, "one", json!({"a": "1"}), false).unwrap();
        assert_eq!(world.store.revision(), before);
    }

    #[test]
    fn managers_can_be_rewritten_and_cleared() {
        let mut world = World::new();
        apply(&mut world, "one", json!({"a": "1"}), false).unwrap();
        let clear = Patch::Merge(json!({"metadata": {"managedFields": [{}]}}));
        world.patch("configmaps", "x", "editor", &clear).unwrap();
        assert!(owners(&world).is_empty());
    }

    #[test]
    fn a_list_by_key_is_owned_by_element_and_a_default_key_counts() {
        let mut world = World::new();
        let mut service = |by: &str, ports: Value| {
            let config = json!({
                "apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"},
                "spec": {"ports": ports},
            });
            let patch = Patch::Apply { config, force: false };
            world.patch("services", "x", by, &patch).map(|o| o["spec"]["ports"].clone())
        };
        service("one", json!([{"name": "a", "port": 1}])).unwrap();
        let both = service("two", json!([{"name": "b", "port": 1, "protocol": "UDP"}])).unwrap();
        assert_eq!(both.as_array().map(Vec::len), Some(2));
        let conflict = service("two", json!([{"name": "c", "port": 1}])).unwrap_err();
        let path = r#".spec.ports[port=1,protocol="TCP"].name"#;
        assert!(conflict.message.ends_with(path), "{conflict}");
    }
}
