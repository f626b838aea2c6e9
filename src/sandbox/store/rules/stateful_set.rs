//! StatefulSets: what may not change after creation.

use super::pod;
use crate::sandbox::store::{refusal::Cause, selector::label_selector_selects};
use serde_json::{Value, json};

/// Fills in what depends on other fields.
pub fn prepare(set: &mut Value) {
    pod::template(&mut set["spec"]["template"]["spec"]);
    let rolling = set["spec"]["updateStrategy"]["type"] == "RollingUpdate";
    if rolling && set["spec"]["updateStrategy"]["rollingUpdate"].is_null() {
        set["spec"]["updateStrategy"]["rollingUpdate"] = json!({"partition": 0});
    }
    for claim in set["spec"]["volumeClaimTemplates"].as_array_mut().into_iter().flatten() {
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
