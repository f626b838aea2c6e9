//! The controller's rights in `deploy/` are those that it uses, no more and no less.
//!
//! The whole line is run under the account's name in a sandbox, whose API server remembers who
//! asked for what in which scope. What few rights a run does not reach stand in [`RARE`], with the
//! place in the code that uses them. The sandbox refuses nothing itself: a missing right shows as a
//! difference.

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, Subject,
};
use kube::Resource;
use pgitops::sandbox::api_server::Access;
use serde::de::DeserializeOwned;

use super::line::Line;
use super::manifests::{Objects, overlay};

/// The namespace of `deploy/`.
pub const HOME: &str = "pgitops-system";

/// How the API server knows the account of `deploy/`.
pub const ACCOUNT: &str = "system:serviceaccount:pgitops-system:pgitops";

/// Rights that the runs below do not reach.
const RARE: [Rare; 1] = [Rare {
    verb: "update",
    resource: "postgreses.kubedb.com/finalizers",
    why: "asked by the admission plugin OwnerReferencesPermissionEnforcement alone, for an owner \
          reference that blocks",
    file: "src/provision/children.rs",
    text: "block_owner_deletion: Some(true)",
}];

/// A right that is needed and not reached.
struct Rare {
    verb: &'static str,
    resource: &'static str,
    why: &'static str,
    /// Where it is used, and what stands there.
    file: &'static str,
    text: &'static str,
}

/// A verb on a resource, in one namespace or in all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    namespace: Option<String>,
    verb: String,
    /// As `secrets` or `postgreses.kubedb.com/status`.
    resource: String,
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_are_those_that_are_used() {
    let beside = Line::run_sync_alone().await;
    compare("beside-kubedb", &beside);
    let alone = Line::run_everything().await;
    let of_pet_sets = |access: &&Access| access.plural == "petsets";
    let asked = alone.iter().find(of_pet_sets);
    assert_eq!(asked, None, "a kind that is not served is not asked for");
    let pets = Line::run_on_pet_sets().await;
    assert!(pets.iter().any(|access| of_pet_sets(&access)));
    // Sync is the same loop in all.
    compare("standalone", &(&(&beside | &alone) | &pets));
}

/// Fails with every right that is used and not granted, and every one that is granted and not used.
fn compare(name: &str, used: &BTreeSet<Access>) {
    let granted = granted(&overlay(name));
    let mut wrong = Vec::new();
    for access in used {
        let wanted = right(access);
        let home = Right { namespace: Some(HOME.to_owned()), ..wanted.clone() };
        let at_home = access.namespace.as_deref() == Some(HOME) && granted.contains(&home);
        if !at_home && !granted.contains(&wanted) {
            wrong.push(format!("used, not granted: {access:?}"));
        }
    }
    for right in &granted {
        let rare = RARE.iter().find(|r| (r.verb, r.resource) == (&right.verb, &right.resource));
        let of_it = used
            .iter()
            .filter(|access| access.verb == right.verb && resource(access) == right.resource);
        // What is granted everywhere must be needed outside of our own namespace.
        let needed = of_it
            .filter(|access| {
                (access.namespace.as_deref() == Some(HOME)) == right.namespace.is_some()
            })
            .count();
        match (needed, rare) {
            (0, None) => wrong.push(format!("granted, not used: {right:?}")),
            (1.., Some(rare)) => wrong
                .push(format!("used after all, take it off the list of rare ones: {}", rare.why)),
            (0, Some(_)) | (1.., None) => {}
        }
    }
    assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
}

fn right(access: &Access) -> Right {
    Right { namespace: None, verb: access.verb.to_owned(), resource: resource(access) }
}

fn resource(access: &Access) -> String {
    let part = access.subresource.as_ref().map(|part| format!("/{part}")).unwrap_or_default();
    named(&access.group, &access.plural) + &part
}

/// `secrets`, `postgreses.kubedb.com`.
fn named(group: &str, plural: &str) -> String {
    if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") }
}

/// What the account may do by the roles that are bound to it.
fn granted(objects: &Objects) -> BTreeSet<Right> {
    let mut granted = BTreeSet::new();
    let mut add = |namespace: Option<String>, rules: Option<Vec<PolicyRule>>| {
        for right in rules.into_iter().flatten().flat_map(rights_of) {
            let right = Right { namespace: namespace.clone(), ..right };
            assert!(granted.insert(right.clone()), "granted twice: {right:?}");
        }
    };
    for binding in of_kind::<ClusterRoleBinding>(objects) {
        ours(binding.subjects.as_deref());
        let role = ("ClusterRole".to_owned(), binding.role_ref.name);
        let role: ClusterRole = serde_json::from_value(objects[&role].clone()).unwrap();
        add(None, role.rules);
    }
    for binding in of_kind::<RoleBinding>(objects) {
        ours(binding.subjects.as_deref());
        assert_eq!(binding.metadata.namespace.as_deref(), Some(HOME));
        let role = ("Role".to_owned(), binding.role_ref.name);
        let role: Role = serde_json::from_value(objects[&role].clone()).unwrap();
        assert_eq!(role.metadata.namespace.as_deref(), Some(HOME));
        add(Some(HOME.to_owned()), role.rules);
    }
    granted
}

fn of_kind<K>(objects: &Objects) -> Vec<K>
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    let of_it = objects.iter().filter(|((kind, _), _)| *kind == K::kind(&()));
    of_it.map(|(_, object)| serde_json::from_value(object.clone()).unwrap()).collect()
}

fn ours(subjects: Option<&[Subject]>) {
    let named = |s: &Subject| {
        format!("system:serviceaccount:{}:{}", s.namespace.as_deref().unwrap_or("-"), s.name)
    };
    let subjects: Vec<String> = subjects.into_iter().flatten().map(named).collect();
    assert_eq!(subjects, [ACCOUNT]);
}

fn rights_of(rule: PolicyRule) -> Vec<Right> {
    let all = |list: Option<Vec<String>>| list.unwrap_or_default();
    let (groups, resources) = (all(rule.api_groups), all(rule.resources));
    let mut rights = Vec::new();
    for (group, resource, verb) in groups
        .iter()
        .flat_map(|g| resources.iter().map(move |r| (g, r)))
        .flat_map(|(g, r)| rule.verbs.iter().map(move |v| (g, r, v)))
    {
        assert!(
            ![group, resource, verb].contains(&&"*".to_owned()),
            "no wildcards: {group}/{resource} {verb}"
        );
        let (plural, part) = resource.split_once('/').unwrap_or((resource, ""));
        let part = if part.is_empty() { String::new() } else { format!("/{part}") };
        let resource = named(group, plural) + &part;
        rights.push(Right { namespace: None, verb: verb.clone(), resource });
    }
    rights
}

#[test]
fn rare_rights_are_where_they_are_said_to_be() {
    let granted = granted(&overlay("standalone"));
    for rare in RARE {
        let text = std::fs::read_to_string(super::root().join(rare.file)).unwrap();
        assert!(text.contains(rare.text), "{}: no {:?} ({})", rare.file, rare.text, rare.why);
        let is_it =
            |r: &Right| (r.verb.as_str(), r.resource.as_str()) == (rare.verb, rare.resource);
        assert!(granted.iter().any(is_it), "{} {} is not granted", rare.verb, rare.resource);
    }
}

#[test]
fn every_rule_says_why() {
    let files =
        ["base/lease-role.yaml", "base/sync-role.yaml", "overlays/standalone/servers-role.yaml"];
    for file in files {
        let text = std::fs::read_to_string(super::root().join("deploy").join(file)).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let rules = lines.iter().enumerate().filter(|(_, line)| line.starts_with("  - apiGroups:"));
        for (at, rule) in rules {
            let before = lines[at - 1];
            assert!(before.starts_with("  # "), "{file}:{}: no reason above {rule}", at + 1);
        }
    }
}
