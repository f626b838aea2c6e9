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
    let mut managers = old.map(read).unwrap_or_default();
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
