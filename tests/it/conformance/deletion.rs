//! Deletion: finalizers, owners and what they own, namespaces.

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::json;

use super::{Cluster, eventually, map};
use crate::kubectl::until;

pub async fn an_owner_in_the_foreground_waits(c: &Cluster) {
    let maps: Api<ConfigMap> = c.api();
    let pp = PostParams::default();
    let owner = maps.create(&pp, &map("owner", &[])).await.unwrap();
    let mut owned = map("owned", &[]);
    let reference = owner.owner_ref(&()).unwrap();
    owned.metadata.owner_references =
        Some(vec![OwnerReference { block_owner_deletion: Some(true), ..reference }]);
    owned.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    maps.create(&pp, &owned).await.unwrap();
    let dp = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Foreground),
        ..DeleteParams::default()
    };
    let deleted = maps.delete("owner", &dp).await.unwrap();
    let owner = deleted.left().expect("it is there still");
    assert_eq!(owner.finalizers(), ["foregroundDeletion"]);
    until("the collector has begun", async || {
        maps.get("owned").await.unwrap().metadata.deletion_timestamp.is_some()
    })
    .await;
    assert_eq!(maps.get("owner").await.unwrap().finalizers(), ["foregroundDeletion"]);
    // On its way out nothing can be added that holds it.
    let hold = Patch::Merge(json!({"metadata": {"finalizers": ["example.com/hold", "a.b/c"]}}));
    let refused = maps.patch("owned", &PatchParams::default(), &hold).await;
    let refused = super::refusal(refused);
    assert_eq!(refused.code, 422, "{refused:?}");
    assert!(refused.message.contains("no new finalizers can be added"), "{refused:?}");
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("owned", &PatchParams::default(), &release).await.unwrap();
    assert!(maps.get_opt("owned").await.unwrap().is_none());
    until("the owner is gone", async || maps.get_opt("owner").await.unwrap().is_none()).await;
}

pub async fn dependents_follow_their_owner(c: &Cluster) {
    for (policy, stays) in [("background", false), ("foreground", false), ("orphan", true)] {
        c.ok("create configmap owner --from-literal=a=b").await;
        let uid = c.ok("get configmap owner -o jsonpath={.metadata.uid}").await;
        c.apply(&format!(
            "
apiVersion: v1
kind: ConfigMap
metadata:
  name: owned
  labels: {{case: owners}}
  ownerReferences:
  - {{apiVersion: v1, kind: ConfigMap, name: owner, uid: {uid}, blockOwnerDeletion: true}}
"
        ))
        .await;
        c.ok(&format!("delete configmap owner --cascade={policy}")).await;
        let expected = if stays { vec!["configmap/owned"] } else { vec![] };
        eventually(policy, || async {
            let names = c.table("get configmap -o name -l case=owners").await;
            if names == expected { Ok(()) } else { Err(format!("{names:?}")) }
        })
        .await;
    }
    let owners = c.ok("get configmap owned -o jsonpath={.metadata.ownerReferences}").await;
    assert_eq!(owners, "");
    // An owner that never was: the collector takes the object away.
    c.apply(
        "
apiVersion: v1
kind: ConfigMap
metadata:
  name: astray
  ownerReferences:
  - {apiVersion: v1, kind: ConfigMap, name: nobody, uid: 01234567-89ab-cdef-0123-456789abcdef}
",
    )
    .await;
    let maps: Api<ConfigMap> = c.api();
    until("astray is gone", async || maps.get_opt("astray").await.unwrap().is_none()).await;
}

pub async fn a_namespace_goes_after_all_in_it(c: &Cluster) {
    let other = format!("{}-2", c.namespace);
    let namespace = format!("namespace/{other}");
    assert_eq!(c.ok(&format!("create namespace {other}")).await, format!("{namespace} created"));
    let held = c.file(
        "held.yaml",
        "
apiVersion: v1
kind: Secret
metadata: {name: held, finalizers: [example.com/hold]}
",
    );
    c.ok(&format!("apply --namespace={other} -f {held}")).await;
    c.ok(&format!("delete {namespace} --wait=false")).await;
    let phase = c.ok(&format!("get {namespace} -o jsonpath={{.status.phase}}")).await;
    assert_eq!(phase, "Terminating");
    let refused = c.fails(&format!("create secret generic x --namespace={other}")).await;
    assert!(refused.contains("because it is being terminated"), "{refused}");
    let release = r#"--type json -p [{"op":"remove","path":"/metadata/finalizers"}]"#;
    c.ok(&format!("patch secret held --namespace={other} {release}")).await;
    until("the namespace is gone", async || {
        !c.ok("get namespaces -o name").await.lines().any(|line| line == namespace)
    })
    .await;
    let refused = c.fails(&format!("create secret generic x --namespace={other}")).await;
    assert!(refused.contains(&format!("namespaces \"{other}\" not found")), "{refused}");
}
