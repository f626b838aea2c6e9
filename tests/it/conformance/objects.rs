//! Objects by the real client: revisions, dry runs, pages, selectors, names, leases.

use std::collections::BTreeMap;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{Cluster, map, refusal};

pub async fn writes_conflict_by_revision(c: &Cluster) {
    let maps: Api<ConfigMap> = c.api();
    let pp = PostParams::default();
    let first = maps.create(&pp, &map("x", &[("a", "1")])).await.unwrap();
    let again = refusal(maps.create(&pp, &map("x", &[])).await);
    assert_eq!((again.code, again.reason.as_str()), (409, "AlreadyExists"));
    assert_eq!(again.message, "configmaps \"x\" already exists");
    let same = maps.replace("x", &pp, &first).await.unwrap();
    assert_eq!(same.resource_version(), first.resource_version(), "nothing changed");
    let mut changed = first.clone();
    changed.data = Some(BTreeMap::from([("a".into(), "2".into())]));
    let second = maps.replace("x", &pp, &changed).await.unwrap();
    assert_ne!(second.resource_version(), first.resource_version());
    let stale = refusal(maps.replace("x", &pp, &changed).await);
    assert_eq!((stale.code, stale.reason.as_str()), (409, "Conflict"));
    assert_eq!(
        stale.message,
        "Operation cannot be fulfilled on configmaps \"x\": the object has been modified; please \
         apply your changes to the latest version and try again"
    );
    // A patch that names a revision is compared as well.
    let old =
        json!({"metadata": {"resourceVersion": first.resource_version()}, "data": {"b": "1"}});
    let parameters = PatchParams::default();
    assert_eq!(refusal(maps.patch("x", &parameters, &Patch::Merge(&old)).await).code, 409);
    let mut other = second.clone();
    other.metadata.uid = Some("other".into());
    assert_eq!(refusal(maps.replace("x", &pp, &other).await).code, 409);

    for (uid, revision) in [(Some("other"), None), (None, first.resource_version())] {
        let wrong = Preconditions { uid: uid.map(str::to_owned), resource_version: revision };
        let parameters = DeleteParams { preconditions: Some(wrong), ..DeleteParams::default() };
        assert_eq!(refusal(maps.delete("x", &parameters).await).code, 409);
    }
    maps.delete("x", &DeleteParams::default()).await.unwrap();
    let absent = refusal(maps.get("x").await);
    assert_eq!((absent.code, absent.message.as_str()), (404, "configmaps \"x\" not found"));
    let absent = refusal(maps.replace("x", &pp, &second).await);
    assert!(matches!(absent.code, 404 | 409), "{absent:?}");
}

pub async fn dry_runs_store_nothing(c: &Cluster) {
    let maps: Api<ConfigMap> = c.api();
    let pp = PostParams { dry_run: true, ..PostParams::default() };
    let dry = maps.create(&pp, &map("x", &[])).await.unwrap();
    assert!(dry.uid().is_some());
    let apply = PatchParams { dry_run: true, ..PatchParams::apply("me") };
    maps.patch("x", &apply, &Patch::Apply(map("x", &[("a", "b")]))).await.unwrap();
    assert!(maps.get_opt("x").await.unwrap().is_none());
    let kept = maps.create(&PostParams::default(), &map("y", &[("a", "1")])).await.unwrap();
    let merge = PatchParams { dry_run: true, ..PatchParams::default() };
    let patched = maps.patch("y", &merge, &Patch::Merge(json!({"data": {"a": "2"}}))).await;
    assert_eq!(patched.unwrap().data.unwrap()["a"], "2");
    let gone = DeleteParams { dry_run: true, ..DeleteParams::default() };
    maps.delete("y", &gone).await.unwrap();
    let now = maps.get("y").await.unwrap();
    assert_eq!((now.resource_version(), now.data), (kept.resource_version(), kept.data));
    // What is wrong is refused all the same.
    let mut wrong = map("Not_A_Name", &[]);
    wrong.metadata.namespace = Some(c.namespace.clone());
    assert_eq!(refusal(maps.create(&pp, &wrong).await).code, 422);
}

fn secret(name: &str) -> Secret {
    serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
}

pub async fn lists_come_in_consistent_pages(c: &Cluster) {
    let secrets: Api<Secret> = c.api();
    let pp = PostParams::default();
    for n in 0..5 {
        secrets.create(&pp, &secret(&format!("m{n}"))).await.unwrap();
    }
    let page = secrets.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!(page.items.len(), 2);
    assert_eq!(page.metadata.remaining_item_count, Some(3));
    // What changes after the first page is not in the later ones.
    secrets.create(&pp, &secret("m9")).await.unwrap();
    secrets.delete("m3", &DeleteParams::default()).await.unwrap();
    let token = page.metadata.continue_.clone().unwrap();
    let rest = secrets.list(&ListParams::default().limit(9).continue_token(&token)).await.unwrap();
    let names: Vec<String> = rest.items.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["m2", "m3", "m4"]);
    assert_eq!(rest.metadata.resource_version, page.metadata.resource_version);
    assert!(rest.metadata.continue_.unwrap_or_default().is_empty());
    let broken = ListParams::default().limit(2).continue_token("nonsense");
    assert_eq!(refusal(secrets.list(&broken).await).code, 400);

    let lp = ListParams::default();
    let dp = DeleteParams::default();
    secrets.delete_collection(&dp, &lp.clone().labels("none=here")).await.unwrap();
    assert_eq!(secrets.list(&lp).await.unwrap().items.len(), 5);
    secrets.delete_collection(&dp, &lp).await.unwrap();
    assert_eq!(secrets.list(&lp).await.unwrap().items.len(), 0);
}

pub async fn selectors_choose(c: &Cluster) {
    let secrets: Api<Secret> = c.api();
    for (name, labels) in [
        ("a", json!({"app": "web", "tier": "front"})),
        ("b", json!({"app": "web"})),
        ("c", json!({"app": "db", "tier": "back"})),
        ("d", json!({})),
    ] {
        let object = json!({"metadata": {"name": name, "labels": labels}, "type": "example.com/x"});
        let object: Secret = serde_json::from_value(object).unwrap();
        secrets.create(&PostParams::default(), &object).await.unwrap();
    }
    for (labels, fields, expected) in [
        ("app=web", "", "a b"),
        ("app==web,tier", "", "a"),
        ("app!=web", "", "c d"),
        ("!tier", "", "b d"),
        ("tier in (front,back)", "", "a c"),
        ("app notin (web),tier", "", "c"),
        ("app", "metadata.name=b", "b"),
        ("", "metadata.name!=b", "a c d"),
        ("", "type=example.com/x", "a b c d"),
        ("", "type=Opaque", ""),
    ] {
        let lp = ListParams::default().labels(labels).fields(fields);
        let found = secrets.list(&lp).await.unwrap().items;
        let names: Vec<String> = found.iter().map(ResourceExt::name_any).collect();
        assert_eq!(names.join(" "), expected, "{labels} {fields}");
    }
    for wrong in ["a b", "a in web", "=x", "a=b=c"] {
        let refused = refusal(secrets.list(&ListParams::default().labels(wrong)).await);
        assert_eq!(refused.code, 400, "{wrong}");
    }
    let refused = refusal(secrets.list(&ListParams::default().fields("data.x=y")).await);
    assert_eq!(refused.code, 400);
    assert!(refused.message.contains("field label not supported"), "{refused:?}");
}

pub async fn names_are_generated(c: &Cluster) {
    let secrets: Api<Secret> = c.api();
    let object: Secret =
        serde_json::from_value(json!({"metadata": {"generateName": "web-"}})).unwrap();
    let name = secrets.create(&PostParams::default(), &object).await.unwrap().name_any();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
    let nameless = refusal(secrets.create(&PostParams::default(), &Secret::default()).await);
    assert_eq!(nameless.code, 422);
    assert!(nameless.message.contains("name or generateName is required"), "{nameless:?}");
}

pub async fn one_of_many_gets_a_lease(c: &Cluster) {
    let leases: Api<Lease> = c.api();
    let pp = PostParams::default();
    let lease = |holder: &str| -> Lease {
        serde_json::from_value(json!({
            "metadata": {"name": "leader"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15,
                     "renewTime": "2026-01-01T00:00:00.000000Z", "leaseTransitions": 1},
        }))
        .unwrap()
    };
    let created = leases.create(&pp, &lease("nobody")).await.unwrap();
    let contenders = (0..16).map(|n| {
        let (leases, revision) = (leases.clone(), created.resource_version());
        let mut mine = lease(&format!("c{n}"));
        mine.metadata.resource_version = revision;
        async move { leases.replace("leader", &PostParams::default(), &mine).await.is_ok() }
    });
    let won = futures::future::join_all(contenders).await;
    assert_eq!(won.into_iter().filter(|w| *w).count(), 1);
    let held = leases.get("leader").await.unwrap().spec.unwrap();
    assert!(held.holder_identity.unwrap().starts_with('c'));
    let time = json!(held.renew_time);
    assert_eq!(time, json!("2026-01-01T00:00:00.000000Z"));
    let wrong = json!({"spec": {"leaseDurationSeconds": 0}});
    let refused = leases.patch("leader", &PatchParams::default(), &Patch::Merge(wrong)).await;
    let refused = refusal(refused);
    assert_eq!(refused.code, 422);
    assert!(refused.message.contains("spec.leaseDurationSeconds"), "{refused:?}");
}
