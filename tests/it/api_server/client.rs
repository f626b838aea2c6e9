//! The real kube client: watcher, Controller, finalizer, Recorder, Lease, conflicts, pages.

use super::cluster::{Cluster, DEADLINE, until};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{ConfigMap, Event as CoreEvent, Pod},
};
use kube::{
    Api, Resource, ResourceExt,
    api::{
        DeleteParams, EvictParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams,
        Preconditions, PropagationPolicy, WatchEvent, WatchParams,
    },
    runtime::{
        Controller, WatchStreamExt,
        controller::Action,
        events::{Event, EventType, Recorder, Reporter},
        finalizer::{Event as Finalizer, finalizer},
        wait::{await_condition, conditions},
        watcher,
    },
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

fn map(name: &str, data: &[(&str, &str)]) -> ConfigMap {
    let data: BTreeMap<String, String> =
        data.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
        data: Some(data),
        ..ConfigMap::default()
    }
}

async fn start() -> (Cluster, Api<ConfigMap>) {
    let c = Cluster::start().await;
    let maps = Api::namespaced(c.client(), "default");
    (c, maps)
}

#[tokio::test(flavor = "multi_thread")]
async fn revisions_conflict_and_idle_writes_do_not_move_them() {
    let (c, maps) = start().await;
    let pp = PostParams::default();
    let first = maps.create(&pp, &map("x", &[("a", "1")])).await.unwrap();
    let again = maps.create(&pp, &map("x", &[])).await.unwrap_err();
    assert!(matches!(&again, kube::Error::Api(s) if s.is_already_exists()), "{again}");
    let before = c.running.revision();
    let same = maps.replace("x", &pp, &first).await.unwrap();
    assert_eq!((same.resource_version(), c.running.revision()), (first.resource_version(), before));
    let mut changed = first.clone();
    changed.data = Some(BTreeMap::from([("a".into(), "2".into())]));
    let second = maps.replace("x", &pp, &changed).await.unwrap();
    assert_ne!(second.resource_version(), first.resource_version());
    let stale = maps.replace("x", &pp, &first).await.unwrap_err();
    assert!(matches!(&stale, kube::Error::Api(s) if s.is_conflict()), "{stale}");
    let wrong = Preconditions { uid: Some("other".into()), ..Preconditions::default() };
    let dp = DeleteParams { preconditions: Some(wrong), ..DeleteParams::default() };
    let refused = maps.delete("x", &dp).await.unwrap_err();
    assert!(matches!(&refused, kube::Error::Api(s) if s.is_conflict()), "{refused}");
    maps.delete("x", &DeleteParams::default()).await.unwrap();
    assert!(maps.get_opt("x").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn dry_runs_store_nothing() {
    let (c, maps) = start().await;
    let before = c.running.revision();
    let pp = PostParams { dry_run: true, ..PostParams::default() };
    let dry = maps.create(&pp, &map("x", &[])).await.unwrap();
    assert!(dry.uid().is_some());
    let ssapply = PatchParams { dry_run: true, ..PatchParams::apply("me") };
    maps.patch("x", &ssapply, &Patch::Apply(map("x", &[("a", "b")]))).await.unwrap();
    assert_eq!(c.running.revision(), before);
    assert!(maps.get_opt("x").await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_comes_in_consistent_pages() {
    let (_c, maps) = start().await;
    for n in 0..5 {
        maps.create(&PostParams::default(), &map(&format!("m{n}"), &[])).await.unwrap();
    }
    let page = maps.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!(page.metadata.remaining_item_count, Some(3));
    // What changes after the first page is not in the later ones.
    maps.create(&PostParams::default(), &map("m9", &[])).await.unwrap();
    maps.delete("m3", &DeleteParams::default()).await.unwrap();
    let token = page.metadata.continue_.clone().unwrap();
    let rest = maps.list(&ListParams::default().limit(9).continue_token(&token)).await.unwrap();
    let names: Vec<String> = rest.items.iter().map(ResourceExt::name_any).collect();
    assert_eq!(names, ["m2", "m3", "m4"]);
    assert_eq!(rest.metadata.resource_version, page.metadata.resource_version);
    let lp = ListParams::default();
    maps.delete_collection(&DeleteParams::default(), &lp.labels("none=here")).await.unwrap();
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 5);
    maps.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_resume_see_selectors_and_expire() {
    let folder = tempfile::tempdir().unwrap();
    let running = Cluster::server(folder.path(), 10).await;
    let maps: Api<ConfigMap> = Api::namespaced(running.client().unwrap(), "default");
    let pp = PostParams::default();
    let first = maps.create(&pp, &map("x", &[])).await.unwrap();
    let from = first.resource_version().unwrap();
    let label = |value: &str| Patch::Merge(json!({"metadata": {"labels": {"on": value}}}));
    for value in ["yes", "no", "yes"] {
        maps.patch("x", &PatchParams::default(), &label(value)).await.unwrap();
    }
    maps.delete("x", &DeleteParams::default()).await.unwrap();
    let wp = WatchParams::default().labels("on=yes").timeout(1);
    let events: Vec<WatchEvent<ConfigMap>> =
        maps.watch(&wp, &from).await.unwrap().try_collect().await.unwrap();
    let words: Vec<&str> = events
        .iter()
        .map(|event| match event {
            WatchEvent::Added(_) => "added",
            WatchEvent::Modified(_) => "modified",
            WatchEvent::Deleted(_) => "deleted",
            WatchEvent::Bookmark(_) => "bookmark",
            WatchEvent::Error(_) => "error",
        })
        .collect();
    assert_eq!(words, ["added", "deleted", "added", "deleted"]);
    for n in 0..12 {
        maps.create(&pp, &map(&format!("m{n}"), &[])).await.unwrap();
    }
    let gone = maps.watch(&WatchParams::default(), &from).await;
    let code = match gone {
        Err(kube::Error::Api(status)) => status.code,
        Ok(stream) => match Box::pin(stream).next().await {
            Some(Ok(WatchEvent::Error(status))) => status.code,
            other => panic!("no 410: {other:?}"),
        },
        Err(error) => panic!("no 410: {error}"),
    };
    assert_eq!(code, 410);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_starts_by_list_or_by_stream() {
    let (_c, maps) = start().await;
    maps.create(&PostParams::default(), &map("x", &[])).await.unwrap();
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let mut stream = Box::pin(watcher(maps.clone(), config).applied_objects());
        let first = tokio::time::timeout(DEADLINE, stream.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(first.name_any(), "x");
        let change = Patch::Merge(json!({"data": {"t": first.resource_version()}}));
        maps.patch("x", &PatchParams::default(), &change).await.unwrap();
        let next = tokio::time::timeout(DEADLINE, stream.next()).await.unwrap().unwrap().unwrap();
        assert_ne!(next.resource_version(), first.resource_version());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_with_finalizer_and_events_does_its_work() {
    let (c, maps) = start().await;
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let (client, log, api) = (c.client(), Arc::clone(&seen), maps.clone());
    let reconcile = move |object: Arc<ConfigMap>, _: Arc<()>| {
        let (api, client, log) = (api.clone(), client.clone(), Arc::clone(&log));
        async move {
            finalizer(&api, "example.com/test", object, |event| async move {
                let (word, object) = match event {
                    Finalizer::Apply(object) => ("apply", object),
                    Finalizer::Cleanup(object) => ("cleanup", object),
                };
                log.lock().unwrap().push(format!("{word} {}", object.name_any()));
                let recorder = Recorder::new(client, Reporter::from("test"));
                let event = Event {
                    type_: EventType::Normal,
                    reason: word.into(),
                    note: Some("seen".into()),
                    action: "Test".into(),
                    secondary: None,
                };
                recorder.publish(&event, &object.object_ref(&())).await?;
                Ok::<_, kube::Error>(Action::await_change())
            })
            .await
        }
    };
    let run = Controller::new(maps.clone(), watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(50)), Arc::new(()))
        .for_each(async |_| {});
    let task = tokio::spawn(run);
    maps.create(&PostParams::default(), &map("x", &[])).await.unwrap();
    until("the finalizer is set", async || !maps.get("x").await.unwrap().finalizers().is_empty())
        .await;
    until("applied", async || seen.lock().unwrap().contains(&"apply x".to_owned())).await;
    let deleted = maps.delete("x", &DeleteParams::default()).await.unwrap();
    assert!(deleted.left().is_some_and(|o| o.metadata.deletion_timestamp.is_some()));
    until("gone", async || maps.get_opt("x").await.unwrap().is_none()).await;
    assert!(seen.lock().unwrap().contains(&"cleanup x".to_owned()));
    let events: Api<CoreEvent> = Api::namespaced(c.client(), "default");
    let lp = ListParams::default().fields("involvedObject.name=x,reason=cleanup");
    let found = events.list(&lp).await.unwrap().items;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].message.as_deref(), Some("seen"));
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn applies_own_fields_and_conflict() {
    let (_c, maps) = start().await;
    let one = PatchParams::apply("one");
    maps.patch(
        "x",
        &one,
        &Patch::Apply(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1", "b": "1"}})),
    )
    .await
    .unwrap();
    let theirs = Patch::Apply(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "2", "c": "2"}}));
    let two = PatchParams::apply("two");
    let conflict = maps.patch("x", &two, &theirs).await.unwrap_err();
    let kube::Error::Api(status) = conflict else { panic!("{conflict}") };
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    assert_eq!(status.message, "Apply failed with 1 conflict: conflict with \"one\": .data.a");
    let cause = &status.details.unwrap().causes[0];
    assert_eq!((cause.reason.as_str(), cause.field.as_str()), ("FieldManagerConflict", ".data.a"));
    maps.patch("x", &two.clone().force(), &theirs).await.unwrap();
    // What "one" no longer names goes; what "two" has taken stays.
    let less = Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {}}));
    let object = maps.patch("x", &one, &less).await.unwrap();
    let expected = BTreeMap::from([("a".into(), "2".into()), ("c".into(), "2".into())]);
    assert_eq!(object.data, Some(expected));
    let before = object.resource_version();
    let same = maps.patch("x", &two, &theirs).await.unwrap();
    assert_eq!(same.resource_version(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_gets_the_lease() {
    let (c, _) = start().await;
    let leases: Api<Lease> = Api::namespaced(c.client(), "default");
    let pp = PostParams::default();
    let lease = |holder: &str| -> Lease {
        serde_json::from_value(json!({
            "metadata": {"name": "leader"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15,
                     "renewTime": "2026-01-01T00:00:00.000000Z"},
        }))
        .unwrap()
    };
    let created = leases.create(&pp, &lease("")).await.unwrap();
    let contenders = (0..16).map(|n| {
        let (leases, revision) = (leases.clone(), created.resource_version());
        let mut mine = lease(&format!("c{n}"));
        mine.metadata.resource_version = revision;
        async move { leases.replace("leader", &PostParams::default(), &mine).await.is_ok() }
    });
    let won = futures::future::join_all(contenders).await;
    assert_eq!(won.into_iter().filter(|w| *w).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_evicted_when_their_budget_allows() {
    let (c, _) = start().await;
    let pods: Api<Pod> = Api::namespaced(c.client(), "default");
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"generateName": "web-", "labels": {"app": "web"}},
        "spec": {"nodeName": "sandbox", "containers": [{"name": "c", "image": "x"}]},
    }))
    .unwrap();
    let name = pods.create(&PostParams::default(), &pod).await.unwrap().name_any();
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
    c.ok("create pdb p --selector=app=web --min-available=1").await;
    // kubectl and the client both try a 429 again; the raw path shows it.
    let body =
        format!(r#"{{"apiVersion":"policy/v1","kind":"Eviction","metadata":{{"name":"{name}"}}}}"#);
    let file = c.file("eviction.json", &body);
    let path = format!("/api/v1/namespaces/default/pods/{name}/eviction");
    let refused = c.fails(&format!("create --raw {path} -f {file} --request-timeout=5s")).await;
    assert!(refused.contains("violate the pod's disruption budget"), "{refused}");
    let allow =
        r#"patch pdb p --subresource status --type merge -p {"status":{"disruptionsAllowed":1}}"#;
    c.ok(allow).await;
    pods.evict(&name, &EvictParams::default()).await.unwrap();
    let pod = pods.get(&name).await.unwrap();
    assert_eq!(pod.metadata.deletion_grace_period_seconds, Some(30));
    // The node agent ends it.
    pods.delete(&name, &DeleteParams::default().grace_period(0)).await.unwrap();
    let uid = pod.uid().unwrap();
    let gone = await_condition(pods, &name, conditions::is_deleted(&uid));
    tokio::time::timeout(DEADLINE, gone).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_in_the_foreground_waits_for_what_it_owns() {
    let (_c, maps) = start().await;
    let pp = PostParams::default();
    let owner = maps.create(&pp, &map("owner", &[])).await.unwrap();
    let mut owned = map("owned", &[]);
    let reference = owner.owner_ref(&()).unwrap();
    owned.metadata.owner_references =
        Some(vec![k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference {
            block_owner_deletion: Some(true),
            ..reference
        }]);
    owned.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    maps.create(&pp, &owned).await.unwrap();
    let dp = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Foreground),
        ..DeleteParams::default()
    };
    maps.delete("owner", &dp).await.unwrap();
    assert_eq!(maps.get("owner").await.unwrap().finalizers(), ["foregroundDeletion"]);
    assert!(maps.get("owned").await.unwrap().metadata.deletion_timestamp.is_some());
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    maps.patch("owned", &PatchParams::default(), &release).await.unwrap();
    assert!(maps.get_opt("owned").await.unwrap().is_none());
    assert!(maps.get_opt("owner").await.unwrap().is_none());
}
