//! The line from a body to a stored object: create, replace, patch.
//!
//! body → identity → unknown fields → defaults → rules → ownership → stored. Nothing is stored
//! unless all of it passes. Leaves deletion to `delete.rs`.

use super::{
    By, Store, Written,
    apply::managers::{self, Manager},
    body::{decode, keep_other_part, preconditions, restrict, unchanged, undecodable},
    kinds::Kind,
    metadata,
    patch::Patch,
    refusal::{Cause, Refusal},
    rules,
    schema::{defaults, prune, rules as cel, validate},
};
use serde_json::{Value, json};
use std::sync::Arc;

/// What a write is aimed at.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The kind.
    pub kind: &'a Kind,
    /// The namespace; ignored for kinds of the whole cluster.
    pub namespace: &'a str,
    /// The object's name.
    pub name: &'a str,
    /// The whole object or its status.
    pub part: Part,
}

/// The part of an object that a write may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All but the status, where that is a subresource.
    Whole,
    /// Only the status.
    Status,
    /// The whole object, by way of `scale`.
    Scale,
}

impl Target<'_> {
    fn not_found(&self) -> Refusal {
        Refusal::not_found(&self.kind.group, &self.kind.plural, self.name)
    }

    fn writer(&self, by: &By, applies: bool) -> Manager {
        let subresource = match self.part {
            Part::Whole => "",
            Part::Status => "status",
            Part::Scale => "scale",
        };
        Manager {
            name: by.manager.clone(),
            applies,
            api_version: self.kind.api_version(),
            subresource: subresource.into(),
            time: metadata::time(by.now),
            fields: Default::default(),
        }
    }
}

impl Store {
    /// Creates an object.
    ///
    /// # Errors
    /// 400, 403, 404 (namespace), 409 (name taken), 422.
    pub fn create(
        &mut self,
        kind: &Kind,
        namespace: &str,
        mut body: Value,
        by: &By,
    ) -> Result<Written, Refusal> {
        metadata::identify(kind, namespace, &mut body)?;
        let name = metadata::name(&body).to_owned();
        let target = Target { kind, namespace, name: &name, part: Part::Whole };
        self.add(target, body, by, None)
    }

    /// Replaces an object.
    ///
    /// # Errors
    /// As [`Store::create`], and 409 if the caller read an older revision.
    pub fn replace(
        &mut self,
        target: Target<'_>,
        mut body: Value,
        by: &By,
    ) -> Result<Written, Refusal> {
        let old = self.get(target.kind, target.namespace, target.name)?;
        metadata::identify(target.kind, target.namespace, &mut body)?;
        metadata::is_named(target.name, &body)?;
        let needs_revision = target.kind.is_custom() && target.part == Part::Whole;
        let version = body["metadata"]["resourceVersion"].as_str().unwrap_or_default();
        if needs_revision && version.is_empty() {
            let cause = Cause {
                reason: "FieldValueInvalid".into(),
                message: "Invalid value: 0x0: must be specified for an update".into(),
                field: "metadata.resourceVersion".into(),
            };
            let kind = target.kind;
            return Err(Refusal::invalid(&kind.group, &kind.kind, target.name, vec![cause]));
        }
        self.change(target, &old, body, by, Ownership::Update)
    }

    /// Patches an object; an apply creates one that is missing.
    ///
    /// # Errors
    /// As [`Store::replace`].
    pub fn patch(
        &mut self,
        target: Target<'_>,
        patch: &Patch,
        by: &By,
    ) -> Result<Written, Refusal> {
        let old = self.get(target.kind, target.namespace, target.name);
        if let Patch::Apply { config, force } = patch {
            return self.apply(target, old.ok(), config.clone(), *force, by);
        }
        let old = old?;
        let new = patch.onto(&old, target)?;
        metadata::is_named(target.name, &new)?;
        self.change(target, &old, new, by, Ownership::Update)
    }

    fn apply(
        &mut self,
        target: Target<'_>,
        old: Option<Arc<Value>>,
        mut config: Value,
        force: bool,
        by: &By,
    ) -> Result<Written, Refusal> {
        let kind = target.kind;
        if config["metadata"]["managedFields"].as_array().is_some_and(|m| !m.is_empty()) {
            return Err(Refusal::bad_request("metadata.managedFields must be nil"));
        }
        metadata::identify(kind, target.namespace, &mut config)?;
        if old.is_some() && metadata::name(&config).is_empty() {
            // The name of what is there, as every field that is not given.
            metadata::metadata_mut(&mut config)?.insert("name".into(), json!(target.name));
        }
        metadata::is_named(target.name, &config)?;
        self.refuse_undeclared(target, &config)?;
        preconditions(target, old.as_deref(), &config)?;
        prune::drop_nulls(&mut config);
        restrict(target, &mut config);
        let writer = target.writer(by, true);
        let shape = kind.schema.shape();
        match old {
            Some(old) => {
                let new = managers::apply(&old, &config, &writer, force, shape)?;
                self.change(target, &old, new, by, Ownership::Done)
            }
            None if target.part == Part::Status => Err(target.not_found()),
            None => self.add(target, config, by, Some(writer)),
        }
    }

    /// An apply with a field that is not in the schema cannot be typed, whatever was asked for.
    fn refuse_undeclared(&self, target: Target<'_>, config: &Value) -> Result<(), Refusal> {
        let kind = target.kind;
        let mut unknown = Vec::new();
        prune::prune(&mut config.clone(), kind.schema.shape(), "", &mut unknown);
        let Some(first) = unknown.first() else { return Ok(()) };
        Err(Refusal::internal(format!(
            "failed to create typed patch object ({}/{}; {}, Kind={}): .{first}: field not \
             declared in schema",
            target.namespace,
            target.name,
            kind.api_version(),
            kind.kind
        )))
    }

    fn add(
        &mut self,
        target: Target<'_>,
        mut object: Value,
        by: &By,
        applied_by: Option<Manager>,
    ) -> Result<Written, Refusal> {
        let kind = target.kind;
        self.namespace_accepts(kind, target.namespace, metadata::name(&object))?;
        let mut warnings = Vec::new();
        decode(target, &mut object, by, &mut warnings)?;
        metadata::begin(kind, &mut object, by)?;
        let applied = object.clone();
        if kind.has_status
            && let Some(map) = object.as_object_mut()
        {
            map.remove("status");
        }
        defaults::fill(&mut object, kind.schema.shape());
        rules::prepare(kind, self, None, &mut object, by)?;
        self.judge(target, None, &object)?;
        let shape = kind.schema.shape();
        match applied_by {
            Some(writer) => {
                let owned = managers::apply(&json!({}), &applied, &writer, true, shape)?;
                managers::write(&mut object, managers::read(&owned));
            }
            None => {
                let writer = target.writer(by, false);
                managers::record_update(None, &mut object, &writer, kind);
            }
        }
        let key = kind.key(target.namespace, metadata::name(&object));
        if self.objects.contains_key(&key) {
            return Err(Refusal::already_exists(&kind.group, &kind.plural, &key.name));
        }
        let stored = self.store(kind, &key, object, by);
        Ok(Written { object: stored, created: true, warnings })
    }

    fn change(
        &mut self,
        target: Target<'_>,
        old: &Arc<Value>,
        mut new: Value,
        by: &By,
        ownership: Ownership,
    ) -> Result<Written, Refusal> {
        let kind = target.kind;
        preconditions(target, Some(old), &new)?;
        let mut warnings = Vec::new();
        decode(target, &mut new, by, &mut warnings)?;
        keep_other_part(target, old, &mut new);
        defaults::fill(&mut new, kind.schema.shape());
        rules::prepare(kind, self, Some(old), &mut new, by)?;
        metadata::carry(kind, old, &mut new)?;
        self.judge(target, Some(old), &new)?;
        if ownership == Ownership::Update {
            let writer = target.writer(by, false);
            managers::record_update(Some(old), &mut new, &writer, kind);
        }
        if new == **old {
            return Ok(Written { object: Arc::clone(old), created: false, warnings });
        }
        let key = kind.key(target.namespace, target.name);
        let last = metadata::is_terminating(&new) && metadata::finalizers(&new).is_empty();
        if last && !rules::pod::awaits_its_node(kind, &new) && !by.dry_run {
            self.remove(&key);
            self.settle(by.now);
            return Ok(Written { object: Arc::new(new), created: false, warnings });
        }
        let stored = self.store(kind, &key, new, by);
        Ok(Written { object: stored, created: false, warnings })
    }

    /// Stores an object unless this is a dry run, and lets what depends on it follow.
    fn store(&mut self, kind: &Kind, key: &super::Key, object: Value, by: &By) -> Arc<Value> {
        if by.dry_run {
            return Arc::new(object);
        }
        let stored = self.put(key, rules::to_stored(kind, object));
        if metadata::owners(&stored).next().is_some() {
            self.unproven.push(key.clone());
        }
        self.settle(by.now);
        kind.present(&stored)
    }

    fn judge(&self, target: Target<'_>, old: Option<&Value>, new: &Value) -> Result<(), Refusal> {
        let kind = target.kind;
        let mut causes = metadata::judge(kind, new);
        validate::validate(new, kind.schema.shape(), "", &mut causes);
        if kind.custom.is_none() {
            undecodable(kind, &causes)?;
            // What Go decodes has no holes: what is absent is zero. Specs are judged by hand.
            causes.retain(|c| !(c.field.starts_with("status") && c.reason.ends_with("Required")));
        }
        if let Some(custom) = &kind.custom {
            let blocking = ["Required", "TypeInvalid", "TooLong", "TooMany", "Duplicate"];
            let blocked = |c: &Cause| blocking.iter().any(|b| c.reason.ends_with(b));
            if !causes.iter().any(blocked) {
                causes.extend(cel::broken(kind, custom, new, old));
            } else if custom.rules.is_some() {
                causes.push(cel::not_run());
            }
        }
        if let Some(old) = old {
            causes.retain(|cause| !unchanged(old, new, cause));
        }
        causes.extend(rules::judge(kind, self, old, new));
        if causes.is_empty() {
            return Ok(());
        }
        let name = metadata::name(new);
        Err(Refusal::invalid(&kind.group, &kind.kind, name, causes))
    }
}

/// Who records the ownership of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ownership {
    /// The change is an update: what differs belongs to the writer.
    Update,
    /// An apply has written it already.
    Done,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::store::tests::World;

    fn pod() -> Value {
        json!({
            "metadata": {"name": "p", "labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "x:1"}]},
            "status": {"phase": "Running"},
        })
    }

    #[test]
    fn a_new_object_gets_its_identity_and_no_foreign_status() {
        let mut world = World::new();
        let made = world.create("pods", pod()).unwrap();
        assert_eq!(made["status"]["phase"], "Pending");
        assert_eq!(made["metadata"]["generation"], 1);
        assert_eq!(made["metadata"]["namespace"], "demo");
        assert_eq!(made["metadata"]["creationTimestamp"], "2027-01-15T08:00:02Z");
        assert_eq!(made["spec"]["terminationGracePeriodSeconds"], 30);
        assert_eq!(world.create("pods", pod()).unwrap_err().code, 409);
        let elsewhere = json!({"metadata": {"name": "p", "namespace": "other"}});
        assert_eq!(world.create("pods", elsewhere).unwrap_err().code, 400);
    }

    fn check(patch: Value, revision_moves: bool, generation: u64) {
        let mut world = World::new();
        world.create("pods", pod()).unwrap();
        let before = world.store.revision();
        let new = world.patch("pods", "p", "test", &Patch::Strategic(patch.clone())).unwrap();
        assert_eq!(world.store.revision() > before, revision_moves, "{patch}");
        assert_eq!(new["metadata"]["generation"], generation, "{patch}");
    }

    #[test]
    fn generations_count_what_is_wanted_and_idle_writes_move_nothing() {
        check(json!({"metadata": {"labels": {"a": "b"}}}), false, 1);
        check(json!({"metadata": {"labels": {"a": "c"}}}), true, 1);
        check(json!({"status": {"phase": "Failed"}}), false, 1);
        check(json!({"spec": {"containers": [{"name": "c", "image": "x:2"}]}}), true, 2);
        check(json!({"spec": {"containers": [{"name": "c", "image": "x:1"}]}}), false, 1);
        check(json!({"metadata": {"uid": null, "creationTimestamp": null}}), false, 1);
    }

    #[test]
    fn an_old_revision_a_wrong_uid_and_a_wrong_name_are_refused() {
        let mut world = World::new();
        let old = world.create("pods", pod()).unwrap();
        let label = json!({"metadata": {"labels": {"x": "y"}}});
        world.patch("pods", "p", "test", &Patch::Merge(label)).unwrap();
        let kind = world.kind("pods");
        let target = Target { kind: &kind, namespace: "demo", name: "p", part: Part::Whole };
        let by = world.by("test");
        let stale = world.store.replace(target, Value::clone(&old), &by).unwrap_err();
        assert_eq!((stale.code, stale.reason), (409, "Conflict"));
        let wrong = json!({"metadata": {"uid": "other"}});
        let wrong = world.patch("pods", "p", "test", &Patch::Merge(wrong)).unwrap_err();
        assert!(wrong.message.contains("Precondition failed: UID in precondition: other"));
        let renamed = json!({"metadata": {"name": "q"}});
        let refused = world.store.replace(target, renamed, &by).unwrap_err();
        assert_eq!(refused.code, 400);
    }
}
