//! Pods: the values the server fills in, what may change, and the grace of a deletion.

use super::each;
use crate::sandbox::store::{kinds::Kind, metadata, refusal::Cause};
use serde_json::{Value, json};

/// Fills in what depends on other fields; plain defaults are in the schema.
pub fn prepare(old: Option<&Value>, pod: &mut Value) {
    if let Some(spec) = pod.get_mut("spec") {
        template(spec);
    }
    if old.is_none() {
        pod["status"] = json!({"phase": "Pending", "qosClass": quality(&pod["spec"])});
    }
}

/// The same for a pod template.
pub fn template(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    if let Some(account) = spec["serviceAccountName"].as_str().map(str::to_owned) {
        spec["serviceAccount"] = json!(account);
    }
    for list in ["containers", "initContainers"] {
        for container in each(spec, list) {
            let image = container["image"].as_str().unwrap_or_default();
            let latest = match image.rsplit('/').next().and_then(|i| i.split_once(':')) {
                Some((_, tag)) => tag == "latest",
                None => !image.contains('@'),
            };
            if !image.is_empty() && container["imagePullPolicy"].is_null() {
                let policy = if latest { "Always" } else { "IfNotPresent" };
                container["imagePullPolicy"] = json!(policy);
            }
        }
    }
}

fn quality(spec: &Value) -> &'static str {
    let containers = || spec["containers"].as_array().into_iter().flatten();
    let any =
        |c: &Value, what: &str| c["resources"][what].as_object().is_some_and(|m| !m.is_empty());
    if !containers().any(|c| any(c, "limits") || any(c, "requests")) {
        return "BestEffort";
    }
    let guaranteed = containers().all(|c| {
        ["cpu", "memory"].iter().all(|r| {
            let limit = &c["resources"]["limits"][*r];
            let request = &c["resources"]["requests"][*r];
            limit.is_string() && (request.is_null() || request == limit)
        })
    });
    if guaranteed { "Guaranteed" } else { "Burstable" }
}

/// What may not change.
pub fn judge(old: Option<&Value>, new: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    if new["spec"]["containers"].as_array().is_some_and(Vec::is_empty) {
        causes.push(Cause::required("spec.containers", ""));
    }
    let Some(old) = old else { return causes };
    let fixed = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        for list in ["containers", "initContainers"] {
            for container in each(&mut spec, list) {
                container["image"] = Value::Null;
                container["imagePullPolicy"] = Value::Null;
            }
        }
        for free in ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds"] {
            spec[free] = Value::Null;
        }
        if old["spec"]["nodeName"].is_null() {
            spec["nodeName"] = Value::Null;
        }
        spec
    };
    if fixed(old) != fixed(new) {
        let why = "pod updates may not change fields other than \
                   `spec.containers[*].image`,`spec.initContainers[*].image`,\
                   `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
                   tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if \
                   it was previously negative)";
        causes.push(Cause::forbidden("spec", why));
    }
    causes
}

/// The seconds a deletion waits: only a pod on a node that still runs has any.
pub fn grace(kind: &Kind, pod: &Value, asked: Option<i64>) -> i64 {
    if !kind.is("", "Pod") {
        return 0;
    }
    let ended = ["Succeeded", "Failed"].iter().any(|p| pod["status"]["phase"] == *p);
    if pod["spec"]["nodeName"].as_str().is_none_or(str::is_empty) || ended {
        return 0;
    }
    let own = pod["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
    asked.unwrap_or(own).max(0)
}

/// True for a pod that its node has yet to end: it goes by a deletion with no grace.
pub fn awaits_its_node(kind: &Kind, pod: &Value) -> bool {
    kind.is("", "Pod")
        && metadata::is_terminating(pod)
        && pod["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) > 0
}
