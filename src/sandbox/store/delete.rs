//! Deleting: preconditions, finalizers, grace, and what happens to dependents.

use super::{By, Store, kinds::Kind, metadata, refusal::Refusal, rules, write::Target};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::sync::Arc;

/// What happens to objects that the deleted one owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dependents {
    /// They go after it.
    #[default]
    Background,
    /// They go before it.
    Foreground,
    /// They stay, without an owner.
    Orphan,
}

/// How to delete.
#[derive(Debug, Clone, Default)]
pub struct Deletion {
    /// What happens to dependents.
    pub dependents: Dependents,
    /// Only the object with this uid.
    pub uid: Option<String>,
    /// Only the object at this revision.
    pub revision: Option<String>,
    /// Seconds a pod has to end; the pod's own number if not given.
    pub grace: Option<i64>,
}

impl Store {
    /// Deletes an object. Returns its last state, and true if it is gone (not only marked).
    ///
    /// # Errors
    /// 403 (a namespace that must stay), 404, 409 (a precondition).
    pub fn delete(
        &mut self,
        target: Target<'_>,
        deletion: &Deletion,
        by: &By,
    ) -> Result<(Arc<Value>, bool), Refusal> {
        let kind = target.kind;
        let old = self.get(kind, target.namespace, target.name)?;
        rules::may_be_deleted(kind, &old)?;
        precondition(target, &old, deletion)?;
        if by.dry_run {
            return Ok((old, true));
        }
        let done = self.begin_deletion(kind, &old, deletion, by.now);
        self.settle(by.now);
        Ok(done)
    }

    /// Marks an object, or removes it if nothing keeps it.
    pub(super) fn begin_deletion(
        &mut self,
        kind: &Kind,
        old: &Arc<Value>,
        deletion: &Deletion,
        now: Timestamp,
    ) -> (Arc<Value>, bool) {
        let key =
            kind.key(old["metadata"]["namespace"].as_str().unwrap_or(""), metadata::name(old));
        let uid = metadata::uid(old).unwrap_or_default().to_owned();
        let mut new = Value::clone(old);
        let mut finalizers: Vec<String> =
            metadata::finalizers(old).into_iter().map(str::to_owned).collect();
        match deletion.dependents {
            Dependents::Background => {}
            Dependents::Foreground if self.dependents.contains_key(&uid) => {
                if !finalizers.iter().any(|f| f == FOREGROUND) {
                    finalizers.push(FOREGROUND.to_owned());
                }
            }
            Dependents::Foreground => {}
            Dependents::Orphan => self.orphan(&uid),
        }
        let grace = rules::pod::grace(kind, old, deletion.grace);
        let held = rules::namespace::holds_contents(kind) || rules::crd::holds_contents(kind);
        if finalizers.is_empty() && grace == 0 && !held {
            let last =
                self.remove(&key).map_or_else(|| Arc::clone(old), |last| kind.present(&last));
            return (last, true);
        }
        let shorter =
            old["metadata"]["deletionGracePeriodSeconds"].as_i64().is_some_and(|g| grace < g);
        if !metadata::is_terminating(old) || shorter {
            let at = now.saturating_add(SignedDuration::from_secs(grace)).unwrap_or(now);
            new["metadata"]["deletionTimestamp"] = json!(metadata::time(at));
            new["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
            if new["metadata"]["generation"].is_i64() && !metadata::is_terminating(old) {
                let generation = new["metadata"]["generation"].as_i64().unwrap_or(0);
                new["metadata"]["generation"] = json!(generation + 1);
            }
        }
        if !finalizers.is_empty() {
            new["metadata"]["finalizers"] = json!(finalizers);
        }
        rules::namespace::mark(kind, &mut new);
        rules::crd::mark(kind, &mut new, now);
        if new == **old {
            return (Arc::clone(old), false);
        }
        let stored = self.put(&key, rules::to_stored(kind, new));
        if finalizers.iter().any(|f| f == FOREGROUND) {
            self.delete_dependents(&uid, now);
        }
        (kind.present(&stored), false)
    }
}

/// The finalizer that makes an owner wait for its dependents.
pub(super) const FOREGROUND: &str = "foregroundDeletion";

fn precondition(target: Target<'_>, old: &Value, deletion: &Deletion) -> Result<(), Refusal> {
    let kind = target.kind;
    let have = |field: &str| old["metadata"][field].as_str().unwrap_or_default().to_owned();
    for (word, short, wanted, found) in [
        ("UID", "UID", &deletion.uid, have("uid")),
        ("ResourceVersion", "ResourceVersion", &deletion.revision, have("resourceVersion")),
    ] {
        if let Some(wanted) = wanted
            && *wanted != found
        {
            let why = format!(
                "Precondition failed: {word} in precondition: {wanted}, {short} in object meta: \
                 {found}"
            );
            return Err(Refusal::conflict(&kind.group, &kind.plural, target.name, &why));
        }
    }
    Ok(())
}
