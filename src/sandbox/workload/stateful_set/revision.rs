//! Revisions of a set's template: their names, and which one a pod is of.
//!
//! Pure. Leaves what follows from a pod's revision to the file above.

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::{Observed, REVISION, Set};

pub(super) fn revision_of(pod: &Pod) -> Option<&str> {
    pod.metadata.labels.as_ref()?.get(REVISION).map(String::as_str)
}

/// `<set>-<hash of the template>`.
pub(super) fn revision_name(set: &Set) -> String {
    let text = serde_json::to_vec(&set.spec.template).unwrap_or_default();
    let hash: String = Sha256::digest(text).iter().take(5).map(|b| format!("{b:02x}")).collect();
    format!("{}-{hash}", set.name())
}

/// The revision that a roll-out comes from.
pub(super) fn current_revision(seen: &Observed, update: &str) -> String {
    let status = seen.set.status.as_ref();
    let known = status.and_then(|s| s.current_revision.clone()).filter(|name| !name.is_empty());
    known.unwrap_or_else(|| update.to_owned())
}

pub(super) fn revision(seen: &Observed, name: &str) -> ControllerRevision {
    let Set { metadata, reference, spec, status: _ } = &seen.set;
    let number = seen.revisions.iter().map(|r| r.revision).max().unwrap_or(0) + 1;
    let mut revision = ControllerRevision {
        data: Some(RawExtension(json!({"spec": {"template": spec.template}}))),
        revision: number,
        ..ControllerRevision::default()
    };
    revision.metadata.name = Some(name.to_owned());
    revision.metadata.namespace = metadata.namespace.clone();
    revision.metadata.labels = spec.selector.match_labels.clone();
    revision.metadata.owner_references = reference.clone().map(|o| vec![o]);
    revision
}
