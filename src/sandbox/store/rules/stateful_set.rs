//! StatefulSets: what may not change after creation.

use super::{each, pod};
use crate::sandbox::store::{refusal::Cause, selector::label_selector_selects};
use serde_json::{Value, json};

/// Fills in what depends on other fields.
pub fn prepare(set: &mut Value) {
    if let Some(spec) = set.pointer_mut("/spec/template/spec") {
        pod::template(spec);
    }
    let Some(spec) = set.get_mut("spec") else { return };
    if let Some(strategy) = spec.get_mut("updateStrategy")
        && strategy["type"] == "RollingUpdate"
        && strategy.get("rollingUpdate").is_none()
    {
        strategy["rollingUpdate"] = json!({"partition": 0});
    }
    for claim in each(spec, "volumeClaimTemplates") {
        claim["apiVersion"] = json!("v1");
        claim["kind"] = json!("PersistentVolumeClaim");
        if claim["status"].is_null() {
            claim["status"] = json!({"phase": "Pending"});
        }
    }
}

/// Selector against labels; only a few fields of the spec may change.
pub fn judge(old: Option<&Value>, new: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let labels = &new["spec"]["template"]["metadata"]["labels"];
    if !label_selector_selects(&new["spec"]["selector"], labels) {
        causes.push(Cause::invalid(
            "spec.template.metadata.labels",
            labels,
            "`selector` does not match template `labels`",
        ));
    }
    let Some(old) = old else { return causes };
    let fixed = |set: &Value| {
        let mut spec = set["spec"].clone();
        if let Some(spec) = spec.as_object_mut() {
            MAY_CHANGE.iter().for_each(|field| {
                spec.remove(*field);
            });
        }
        spec
    };
    if fixed(old) != fixed(new) {
        causes.push(Cause::forbidden(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', \
             'template', 'updateStrategy', 'revisionHistoryLimit', \
             'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        ));
    }
    causes
}

const MAY_CHANGE: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];
