//! What there is: versions, groups, resources.

use crate::sandbox::store::{Store, kinds::Kind};
use serde_json::{Value, json};
use std::sync::Arc;

/// The version this server says it has: of the Kubernetes types it is built with.
pub fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "gitVersion": "v1.36.0-pgitops-sandbox",
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc", "platform": "linux",
    })
}

/// `/api`.
pub fn core(address: &str) -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

/// `/apis`.
pub fn groups(store: &Store) -> Value {
    let groups: Vec<Value> =
        store.kinds().groups().iter().map(|(name, versions)| group_value(name, versions)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/<group>`.
pub fn group(store: &Store, name: &str) -> Option<Value> {
    let groups = store.kinds().groups();
    let (name, versions) = groups.iter().find(|(group, _)| group == name)?;
    let mut group = group_value(name, versions);
    group["kind"] = json!("APIGroup");
    group["apiVersion"] = json!("v1");
    Some(group)
}

fn group_value(name: &str, versions: &[String]) -> Value {
    let version = |v: &String| json!({"groupVersion": format!("{name}/{v}"), "version": v});
    let all: Vec<Value> = versions.iter().map(version).collect();
    json!({"name": name, "versions": all, "preferredVersion": all.first()})
}

/// `/api/v1` or `/apis/<group>/<version>`.
pub fn resources(store: &Store, group: &str, version: &str) -> Option<Value> {
    let kinds: Vec<&Arc<Kind>> =
        store.kinds().all().filter(|k| k.group == group && k.version == version).collect();
    let first = kinds.first()?;
    let resources: Vec<Value> = kinds.iter().flat_map(|kind| entries(kind)).collect();
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": first.api_version(),
        "resources": resources,
    }))
}

/// The verbs of an object.
const VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

fn entries(kind: &Kind) -> Vec<Value> {
    let mut entry = json!({
        "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced,
        "kind": kind.kind, "verbs": VERBS,
    });
    if !kind.short_names.is_empty() {
        entry["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        entry["categories"] = json!(kind.categories);
    }
    let mut entries = vec![entry];
    for (name, of, verbs) in subresources(kind) {
        let mut entry = json!({
            "name": format!("{}/{name}", kind.plural), "singularName": "",
            "namespaced": kind.namespaced, "kind": of.2, "verbs": verbs,
        });
        if (of.0, of.1) != (kind.group.as_str(), kind.version.as_str()) {
            entry["group"] = json!(of.0);
            entry["version"] = json!(of.1);
        }
        entries.push(entry);
    }
    entries
}

type Subresource<'a> = (&'static str, (&'a str, &'a str, &'a str), &'static [&'static str]);

fn subresources(kind: &Kind) -> Vec<Subresource<'_>> {
    let own = (kind.group.as_str(), kind.version.as_str(), kind.kind.as_str());
    let mut all: Vec<Subresource<'_>> = Vec::new();
    if kind.has_status {
        all.push(("status", own, &["get", "patch", "update"]));
    }
    if kind.scale.is_some() {
        all.push(("scale", ("autoscaling", "v1", "Scale"), &["get", "patch", "update"]));
    }
    if kind.is("", "Pod") {
        all.push(("log", own, &["get"]));
        all.push(("binding", ("", "v1", "Binding"), &["create"]));
        all.push(("eviction", ("policy", "v1", "Eviction"), &["create"]));
    }
    all
}

/// Everything at once, for one of `/api` (the core) and `/apis` (the groups).
pub fn aggregated(store: &Store, of_core: bool) -> Value {
    let mut groups: Vec<(String, Vec<String>)> = vec![(String::new(), vec!["v1".into()])];
    if !of_core {
        groups = store.kinds().groups();
    }
    let items: Vec<Value> = groups
        .iter()
        .map(|(group, versions)| {
            let versions: Vec<Value> =
                versions.iter().map(|v| aggregated_version(store, group, v)).collect();
            json!({"metadata": {"name": group, "creationTimestamp": null}, "versions": versions})
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {},
        "items": items,
    })
}

fn aggregated_version(store: &Store, group: &str, version: &str) -> Value {
    let kinds = store.kinds().all().filter(|k| k.group == group && k.version == version);
    let resources: Vec<Value> = kinds
        .map(|kind| {
            let of = |(group, version, kind): (&str, &str, &str)| {
                json!({"group": group, "version": version, "kind": kind})
            };
            let own = (kind.group.as_str(), kind.version.as_str(), kind.kind.as_str());
            let subresources: Vec<Value> = subresources(kind)
                .into_iter()
                .map(|(name, kind, verbs)| {
                    json!({"subresource": name, "responseKind": of(kind), "verbs": verbs})
                })
                .collect();
            let mut entry = json!({
                "resource": kind.plural, "responseKind": of(own),
                "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
                "singularResource": kind.singular, "verbs": VERBS,
            });
            for (field, words) in
                [("shortNames", &kind.short_names), ("categories", &kind.categories)]
            {
                if !words.is_empty() {
                    entry[field] = json!(words);
                }
            }
            if !subresources.is_empty() {
                entry["subresources"] = json!(subresources);
            }
            entry
        })
        .collect();
    json!({"version": version, "resources": resources, "freshness": "Current"})
}
