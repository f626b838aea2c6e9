//! `spec.podTemplate.spec` laid over the pod that we make.
//!
//! After the rules of a strategic merge patch: objects are merged, lists of things with a key are
//! merged by that key, every other list is replaced. What would take the pod out of our hands is
//! refused in words that name the field ([`refusals`]); what KubeDB knows and we do not use is
//! listed ([`unused`]). Leaves the pod itself to `pod`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::api::names::CONTAINER;

use super::workload::WorkloadKind;

/// Volumes of ours (KubeDB's reserved names and our own).
const VOLUMES: [&str; 11] = [
    "initial-script",
    "shared-memory",
    "data",
    "custom-config",
    "run-scripts",
    "role-scripts",
    "scripts",
    "certs",
    "pgitops-bin",
    "pgitops-tls",
    "pgitops-run",
];

/// Paths of ours (KubeDB's reserved ones and our own); everything below them too.
const PATHS: [&str; 12] = [
    "/var/initdb",
    "/dev/shm",
    "/var/pv",
    "/etc/config",
    "/run_scripts",
    "/role_scripts",
    "/scripts",
    "/tls/certs",
    "/etc/pgitops",
    "/opt/pgitops",
    "/run/postgresql",
    "/var/run/postgresql",
];

/// Variables of ours (KubeDB's forbidden ones and our own).
const VARIABLES: [&str; 7] = [
    "POSTGRES_USER",
    "POSTGRES_PASSWORD",
    "PGDATA",
    "PGITOPS_MEMORY_LIMIT",
    "POD_IP",
    "POD_NAME",
    "POD_NAMESPACE",
];

/// Containers of KubeDB that have no place here.
const FOREIGN: [&str; 2] = ["pg-coordinator", "postgres-init-container"];

/// Fields of the server's container that are ours alone: the instance in it must be what starts,
/// and its probes must ask the instance.
const OURS: [&str; 9] = [
    "args",
    "command",
    "image",
    "lifecycle",
    "livenessProbe",
    "ports",
    "readinessProbe",
    "startupProbe",
    "workingDir",
];

/// KubeDB's name of the policy that places pods: a field of the PetSet, of no pod.
const PLACEMENT: &str = "podPlacementPolicy";

/// Fields of the pod that are ours alone, or that are KubeDB's and no Kubernetes knows.
const POD: [&str; 7] = [
    "args",
    "automountServiceAccountToken",
    "hostname",
    PLACEMENT,
    "restartPolicy",
    "setHostnameAsFQDN",
    "subdomain",
];

/// Keys by which Kubernetes merges lists, by the field that holds them.
fn key_of(field: &str) -> Option<&'static str> {
    match field {
        "containers" | "initContainers" | "env" | "volumes" | "imagePullSecrets" => Some("name"),
        "volumeMounts" => Some("mountPath"),
        "ports" => Some("containerPort"),
        "hostAliases" => Some("ip"),
        _ => None,
    }
}

/// `over` laid over `base`.
pub fn merge(base: Value, over: &Value) -> Value {
    merge_field("", base, over)
}

fn merge_field(field: &str, base: Value, over: &Value) -> Value {
    match (base, over) {
        // Resources are taken as they are given: our request with their lower limit would be
        // a pod that no cluster accepts.
        (_, over) if field == "resources" => texts(over),
        (Value::Object(mut base), Value::Object(over)) => {
            for (key, over) in over {
                let below = base.remove(key).unwrap_or(Value::Null);
                let merged = merge_field(key, below, over);
                if !merged.is_null() {
                    base.insert(key.clone(), merged);
                }
            }
            Value::Object(base)
        }
        (Value::Array(base), Value::Array(over)) => match key_of(field) {
            Some(key) => Value::Array(merge_list(key, base, over)),
            None => Value::Array(over.clone()),
        },
        (Value::Null, Value::Object(over)) => {
            merge_field(field, Value::Object(Map::new()), &Value::Object(over.clone()))
        }
        (Value::Null, Value::Array(over)) if key_of(field).is_some() => {
            merge_field(field, Value::Array(Vec::new()), &Value::Array(over.clone()))
        }
        (_, over) => over.clone(),
    }
}

fn merge_list(key: &str, mut base: Vec<Value>, over: &[Value]) -> Vec<Value> {
    for element in over {
        let twin = base.iter().position(|other| other.get(key) == element.get(key));
        match twin {
            Some(at) => {
                let below = base.remove(at);
                base.insert(at, merge_field("", below, element));
            }
            None => base.push(merge_field("", Value::Null, element)),
        }
    }
    base
}

/// Numbers as texts: `cpu: 1` is how people write it, a text is what Kubernetes stores.
fn texts(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            Value::Object(map.iter().map(|(key, value)| (key.clone(), texts(value))).collect())
        }
        Value::Number(number) => Value::String(number.to_string()),
        Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) => value.clone(),
    }
}

/// The part of the template that is laid over our pod: [`unused`] fields and containers left out.
pub fn used(spec: &BTreeMap<String, Value>) -> Value {
    let mut used: Map<String, Value> = Map::new();
    for (key, value) in spec.iter().filter(|(key, _)| !POD.contains(&key.as_str())) {
        let value = match key.as_str() {
            "containers" | "initContainers" => Value::Array(
                elements(value)
                    .filter(|c| !FOREIGN.contains(&name(c)))
                    .map(used_container)
                    .collect(),
            ),
            _ => value.clone(),
        };
        used.insert(key.clone(), value);
    }
    Value::Object(used)
}

fn used_container(container: &Value) -> Value {
    let mut container = container.clone();
    if name(&container) == CONTAINER
        && let Value::Object(fields) = &mut container
    {
        fields.retain(|key, _| !OURS.contains(&key.as_str()));
    }
    container
}

/// Name of the policy that places the pods, where their workload takes one.
pub fn placement(spec: &BTreeMap<String, Value>, kind: WorkloadKind) -> Option<&str> {
    let policy = match kind {
        WorkloadKind::StatefulSet => None,
        WorkloadKind::PetSet => spec.get(PLACEMENT),
    };
    policy.map(name).filter(|name| !name.is_empty())
}

/// Fields that are accepted and not used, as paths below `spec`.
pub fn unused(spec: &BTreeMap<String, Value>, kind: WorkloadKind) -> Vec<String> {
    let at = |path: &str| format!("podTemplate.spec.{path}");
    let placed = placement(spec, kind).is_some();
    let is_unused = |key: &&String| POD.contains(&key.as_str()) && !(placed && *key == PLACEMENT);
    let mut paths: Vec<String> = spec.keys().filter(is_unused).map(|key| at(key)).collect();
    for list in ["containers", "initContainers"] {
        for container in spec.get(list).into_iter().flat_map(elements) {
            let name = name(container);
            if FOREIGN.contains(&name) {
                paths.push(at(&format!("{list}[{name}]")));
            } else if name == CONTAINER {
                let fields = container.as_object().into_iter().flat_map(Map::keys);
                let ours = fields.filter(|key| OURS.contains(&key.as_str()));
                paths.extend(ours.map(|key| at(&format!("{list}[{name}].{key}"))));
            }
        }
    }
    paths
}

/// What is refused, a sentence each that names the field.
pub fn refusals(spec: &BTreeMap<String, Value>) -> Vec<String> {
    let mut refusals = Vec::new();
    for volume in spec.get("volumes").into_iter().flat_map(elements) {
        if VOLUMES.contains(&name(volume)) {
            refusals.push(format!(
                "spec.podTemplate.spec.volumes: the name {} is reserved; choose another",
                name(volume)
            ));
        }
    }
    for list in ["containers", "initContainers"] {
        for container in spec.get(list).into_iter().flat_map(elements) {
            let at = format!("spec.podTemplate.spec.{list}[{}]", name(container));
            refusals.extend(refusals_of(&at, container));
        }
    }
    refusals
}

fn refusals_of(at: &str, container: &Value) -> Vec<String> {
    let mut refusals = Vec::new();
    if name(container) != CONTAINER {
        return refusals;
    }
    for variable in container.get("env").into_iter().flat_map(elements) {
        if VARIABLES.contains(&name(variable)) {
            refusals.push(format!("{at}.env: {} is reserved; remove it", name(variable)));
        }
    }
    for mount in container.get("volumeMounts").into_iter().flat_map(elements) {
        let path = mount["mountPath"].as_str().unwrap_or_default();
        let below = |ours: &&&str| {
            path.strip_prefix(**ours).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if let Some(ours) = PATHS.iter().find(below) {
            refusals.push(format!(
                "{at}.volumeMounts: {path} is reserved (all of {ours} is); choose another path"
            ));
        }
    }
    refusals
}

fn elements(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn name(value: &Value) -> &str {
    value.get("name").and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(base: Value, over: Value, expected: Value) {
        assert_eq!(merge(base.clone(), &over), expected, "{base} {over}");
    }

    fn spec(value: Value) -> BTreeMap<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn containers_are_merged_by_name_and_plain_lists_replaced() {
        check(
            json!({"containers": [{"name": "postgres", "image": "p", "args": ["a", "b"]}]}),
            json!({"containers": [{"name": "postgres", "args": ["c"]}, {"name": "side"}]}),
            json!({"containers": [
                {"name": "postgres", "image": "p", "args": ["c"]}, {"name": "side"}]}),
        );
        check(
            json!({"securityContext": {"fsGroup": 999}}),
            json!({"securityContext": {"fsGroup": 70}, "nodeSelector": {"disk": "ssd"}}),
            json!({"securityContext": {"fsGroup": 70}, "nodeSelector": {"disk": "ssd"}}),
        );
    }

    #[test]
    fn resources_are_taken_as_a_whole() {
        check(
            json!({"resources": {"requests": {"memory": "1Gi"}}}),
            json!({"resources": {"limits": {"memory": "512Mi", "cpu": 1}}}),
            json!({"resources": {"limits": {"memory": "512Mi", "cpu": "1"}}}),
        );
    }

    #[test]
    fn what_is_not_used_is_listed_and_left_out() {
        let spec = spec(json!({
            "podPlacementPolicy": {"name": "default"},
            "containers": [
                {"name": "postgres", "image": "mine", "resources": {}},
                {"name": "pg-coordinator"}]
        }));
        let expected = [
            "podTemplate.spec.podPlacementPolicy",
            "podTemplate.spec.containers[postgres].image",
            "podTemplate.spec.containers[pg-coordinator]",
        ];
        assert_eq!(unused(&spec, WorkloadKind::StatefulSet), expected);
        assert_eq!(unused(&spec, WorkloadKind::PetSet), expected[1..]);
        assert_eq!(placement(&spec, WorkloadKind::StatefulSet), None);
        assert_eq!(placement(&spec, WorkloadKind::PetSet), Some("default"));
        let used = used(&spec);
        assert_eq!(used, json!({"containers": [{"name": "postgres", "resources": {}}]}));
    }

    #[test]
    fn what_is_reserved_is_refused_with_the_field() {
        let spec = spec(json!({
            "volumes": [{"name": "data"}, {"name": "mine"}],
            "containers": [{"name": "postgres",
                "env": [{"name": "POSTGRES_PASSWORD"}, {"name": "TZ"}],
                "volumeMounts": [{"mountPath": "/var/pv/x"}, {"mountPath": "/var/pvx"}]}]
        }));
        let refusals = refusals(&spec);
        assert_eq!(refusals.len(), 3, "{refusals:?}");
        assert!(refusals[1].contains("containers[postgres].env: POSTGRES_PASSWORD"));
        assert!(refusals[2].contains("/var/pv/x is reserved"));
    }
}
