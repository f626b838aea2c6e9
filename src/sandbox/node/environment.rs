//! The environment of a container: fields, keys and `$(VAR)`.
//!
//! Works on values that are already read: the pod, its address and the Secrets and ConfigMaps
//! that it names. Literal text is rewritten (`paths`) before anything is put into it, so that a
//! secret is never touched. Never reads the process's own environment: a container starts with
//! nothing but what its image and its pod give it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::{
    Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod, ResourceFieldSelector,
};

use super::paths::PathMap;

/// The Secrets and ConfigMaps of a pod's namespace that its containers name, by name.
#[derive(Clone, Default)]
pub struct Sources {
    /// Secret name → key → bytes.
    pub secrets: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// ConfigMap name → key → bytes.
    pub config_maps: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    /// A token of the pod's ServiceAccount, where the server makes such.
    pub token: Option<Vec<u8>>,
}

/// Builds the container's environment: `base` (from the image) < `envFrom` < `env`.
///
/// # Errors
/// A key or object that is required but absent, and a field that the sandbox does not know.
pub fn build(
    base: &BTreeMap<String, String>,
    pod: &Pod,
    container: &Container,
    sources: &Sources,
    paths: &PathMap,
) -> Result<BTreeMap<String, String>> {
    let mut env = base.clone();
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or("");
        let (kind, name, optional, known) = if let Some(r) = &from.secret_ref {
            ("secret", &r.name, r.optional, &sources.secrets)
        } else if let Some(r) = &from.config_map_ref {
            ("configmap", &r.name, r.optional, &sources.config_maps)
        } else {
            continue;
        };
        match known.get(name) {
            Some(keys) => env.extend(keys.iter().map(|(k, v)| (format!("{prefix}{k}"), text(v)))),
            None if optional == Some(true) => {}
            None => bail!("{kind} \"{name}\" not found"),
        }
    }
    for var in container.env.iter().flatten() {
        if let Some(value) = value_of(var, pod, container, sources, paths, &env)? {
            env.insert(var.name.clone(), value);
        }
    }
    Ok(env)
}

fn value_of(
    var: &EnvVar,
    pod: &Pod,
    container: &Container,
    sources: &Sources,
    paths: &PathMap,
    env: &BTreeMap<String, String>,
) -> Result<Option<String>> {
    let Some(from) = &var.value_from else {
        return Ok(Some(expand(&paths.rewrite(var.value.as_deref().unwrap_or("")), env)));
    };
    let EnvVarSource {
        config_map_key_ref,
        field_ref,
        file_key_ref,
        resource_field_ref,
        secret_key_ref,
    } = from;
    if let Some(r) = secret_key_ref {
        return key(&sources.secrets, "secret", &r.name, &r.key, r.optional);
    }
    if let Some(r) = config_map_key_ref {
        return key(&sources.config_maps, "configmap", &r.name, &r.key, r.optional);
    }
    if let Some(r) = field_ref {
        return field(pod, r).map(Some);
    }
    if let Some(r) = resource_field_ref {
        return resource(container, r).map(Some);
    }
    if file_key_ref.is_some() {
        bail!("env {}: fileKeyRef is not supported by the sandbox", var.name);
    }
    Ok(None)
}

fn key(
    known: &BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    kind: &str,
    name: &str,
    key: &str,
    optional: Option<bool>,
) -> Result<Option<String>> {
    let optional = optional == Some(true);
    match known.get(name) {
        None if optional => Ok(None),
        None => bail!("{kind} \"{name}\" not found"),
        Some(keys) => match keys.get(key) {
            Some(value) => Ok(Some(text(value))),
            None if optional => Ok(None),
            None => bail!("couldn't find key {key} in {kind} \"{name}\""),
        },
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A field of the pod as the downward API gives it (`metadata.name`, `status.podIP`, …).
///
/// # Errors
/// A path that the downward API does not offer.
pub fn field(pod: &Pod, selector: &ObjectFieldSelector) -> Result<String> {
    let path = selector.field_path.as_str();
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => meta.labels.as_ref(),
            "metadata.annotations" => meta.annotations.as_ref(),
            _ => bail!("unsupported field path {path}"),
        };
        return Ok(map.and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    let value = match path {
        "metadata.name" => meta.name.clone(),
        "metadata.namespace" => meta.namespace.clone(),
        "metadata.uid" => meta.uid.clone(),
        "metadata.labels" => meta.labels.as_ref().map(lines),
        "metadata.annotations" => meta.annotations.as_ref().map(lines),
        "spec.nodeName" => spec.and_then(|s| s.node_name.clone()),
        "spec.serviceAccountName" => {
            spec.and_then(|s| s.service_account_name.clone()).or(Some("default".to_owned()))
        }
        "status.podIP" | "status.podIPs" => status.and_then(|s| s.pod_ip.clone()),
        "status.hostIP" | "status.hostIPs" => status.and_then(|s| s.host_ip.clone()),
        _ => bail!("unsupported field path {path}"),
    };
    Ok(value.unwrap_or_default())
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, key) = path.strip_suffix("']")?.split_once("['")?;
    Some((map, key))
}

fn lines(map: &BTreeMap<String, String>) -> String {
    map.iter().map(|(k, v)| format!("{k}={v:?}\n")).collect()
}

/// A container's own request or limit in units of the divisor, rounded up, as the kubelet does.
fn resource(container: &Container, selector: &ResourceFieldSelector) -> Result<String> {
    let (side, name) = selector
        .resource
        .split_once('.')
        .with_context(|| format!("unsupported resource {}", selector.resource))?;
    let resources = container.resources.as_ref();
    let side = match side {
        "limits" => resources.and_then(|r| r.limits.as_ref()),
        "requests" => resources.and_then(|r| r.requests.as_ref()),
        _ => bail!("unsupported resource {}", selector.resource),
    };
    let amount = side.and_then(|s| s.get(name)).map(|q| quantity(&q.0)).transpose()?;
    let divisor = selector.divisor.as_ref().map_or(Ok(1.0), |q| quantity(&q.0))?;
    let divisor = if divisor > 0.0 { divisor } else { 1.0 };
    Ok(format!("{:.0}", (amount.unwrap_or(0.0) / divisor).ceil()))
}

/// A Kubernetes quantity (`500m`, `1Gi`, `2e3`) as a number.
fn quantity(text: &str) -> Result<f64> {
    const SUFFIXES: [(&str, f64); 14] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let (number, factor) = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| text.strip_suffix(suffix).map(|n| (n, *factor)))
        .unwrap_or((text, 1.0));
    let number: f64 = number.parse().with_context(|| format!("quantity {text:?}"))?;
    Ok(number * factor)
}

/// Expands `$(VAR)` as Kubernetes does: an unknown name stays as it is written, `$$` is `$`.
pub fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, tail) = rest.split_at(at);
        out.push_str(before);
        let after = tail.get(1..).unwrap_or("");
        if let Some(escaped) = after.strip_prefix('$') {
            out.push('$');
            rest = escaped;
        } else if let Some((name, next)) =
            after.strip_prefix('(').and_then(|inner| inner.split_once(')'))
        {
            match env.get(name) {
                Some(value) => out.push_str(value),
                None => out.extend(["$(", name, ")"]),
            }
            rest = next;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(env: serde_json::Value, name: &str, expected: Result<Option<&str>, &str>) {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "db-0", "namespace": "demo", "uid": "u1", "labels": {"a": "b"}},
            "spec": {"nodeName": "sandbox", "containers": []},
            "status": {"podIP": "127.64.0.10"},
        }))
        .unwrap();
        let container: Container = serde_json::from_value(json!({
            "name": "c", "env": env,
            "resources": {"limits": {"memory": "1Gi", "cpu": "1500m"}},
        }))
        .unwrap();
        let sources = Sources {
            secrets: [("s".into(), [("k".into(), b"/var/pv $(A)".to_vec())].into())].into(),
            config_maps: [("m".into(), [("k".into(), b"v".to_vec())].into())].into(),
            token: None,
        };
        let paths = PathMap::new([("/var/pv".to_owned(), "/local".to_owned())]);
        let base = [("PATH".to_owned(), "/bin".to_owned())].into();
        let built = build(&base, &pod, &container, &sources, &paths);
        match (built, expected) {
            (Ok(env), Ok(value)) => assert_eq!(env.get(name).map(String::as_str), value, "{name}"),
            (Err(e), Err(words)) => assert!(e.to_string().contains(words), "{e}"),
            (got, wanted) => panic!("got {got:?}, wanted {wanted:?}"),
        }
    }

    fn from(source: serde_json::Value) -> serde_json::Value {
        json!([{"name": "X", "valueFrom": source}])
    }

    #[test]
    fn fields_keys_and_resources() {
        let field = |p: &str| from(json!({"fieldRef": {"fieldPath": p}}));
        check(field("status.podIP"), "X", Ok(Some("127.64.0.10")));
        check(field("metadata.name"), "X", Ok(Some("db-0")));
        check(field("metadata.namespace"), "X", Ok(Some("demo")));
        check(field("metadata.uid"), "X", Ok(Some("u1")));
        check(field("spec.nodeName"), "X", Ok(Some("sandbox")));
        check(field("metadata.labels['a']"), "X", Ok(Some("b")));
        check(field("metadata.labels['z']"), "X", Ok(Some("")));
        check(field("spec.nothing"), "X", Err("unsupported field path"));
        check(
            from(json!({"secretKeyRef": {"name": "s", "key": "k"}})),
            "X",
            Ok(Some("/var/pv $(A)")),
        );
        check(from(json!({"secretKeyRef": {"name": "s", "key": "z"}})), "X", Err("find key z"));
        check(from(json!({"secretKeyRef": {"name": "z", "key": "k"}})), "X", Err("not found"));
        let optional = json!({"secretKeyRef": {"name": "z", "key": "k", "optional": true}});
        check(from(optional), "X", Ok(None));
        check(from(json!({"configMapKeyRef": {"name": "m", "key": "k"}})), "X", Ok(Some("v")));
        let memory = |d: &str| {
            from(json!({"resourceFieldRef": {"resource": "limits.memory", "divisor": d}}))
        };
        check(memory("1Mi"), "X", Ok(Some("1024")));
        check(memory("0"), "X", Ok(Some("1073741824")));
        check(from(json!({"resourceFieldRef": {"resource": "limits.cpu"}})), "X", Ok(Some("2")));
    }

    #[test]
    fn literals_are_rewritten_and_expanded_but_secrets_are_not() {
        check(
            json!([{"name": "D", "value": "/var/pv"}, {"name": "X", "value": "$(D)/data"}]),
            "X",
            Ok(Some("/local/data")),
        );
        check(json!([{"name": "X", "value": "$(LATER)"}]), "X", Ok(Some("$(LATER)")));
        check(json!([{"name": "X", "value": "$(PATH):/x"}]), "X", Ok(Some("/bin:/x")));
        check(json!([{"name": "X", "value": "$$(PATH) 5$ $"}]), "X", Ok(Some("$(PATH) 5$ $")));
        let secret = json!({"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}});
        check(json!([secret, {"name": "X", "value": "<$(S)>"}]), "X", Ok(Some("</var/pv $(A)>")));
    }
}
