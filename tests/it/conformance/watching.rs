//! Watches: by the bare client, by watchers of kube's runtime, and by a whole controller.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Event as CoreEvent, Secret};
use kube::api::{
    DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::finalizer::{Event as Finalizer, finalizer};
use kube::runtime::{Controller, WatchStreamExt as _, watcher};
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::json;

use super::{Cluster, map};
use crate::kubectl::{DEADLINE, until};

fn words(event: &WatchEvent<Secret>) -> String {
    match event {
        WatchEvent::Added(object) => format!("added {}", object.name_any()),
        WatchEvent::Modified(object) => format!("modified {}", object.name_any()),
        WatchEvent::Deleted(object) => format!("deleted {}", object.name_any()),
        WatchEvent::Bookmark(_) => "bookmark".to_owned(),
        WatchEvent::Error(status) => format!("error {}", status.code),
    }
}

pub async fn watches_resume_and_see_selectors(c: &Cluster) {
    let secrets: Api<Secret> = c.api();
    let object = |name: &str| -> Secret {
        serde_json::from_value(json!({"metadata": {"name": name}})).unwrap()
    };
    let first = secrets.create(&PostParams::default(), &object("x")).await.unwrap();
    let from = first.resource_version().unwrap();
    let label = |value: &str| Patch::Merge(json!({"metadata": {"labels": {"on": value}}}));
    let mut revisions = vec![from.clone()];
    for value in ["yes", "no", "yes"] {
        let patched = secrets.patch("x", &PatchParams::default(), &label(value)).await.unwrap();
        revisions.push(patched.resource_version().unwrap());
    }
    secrets.delete("x", &DeleteParams::default()).await.unwrap();
    secrets.create(&PostParams::default(), &object("y")).await.unwrap();
    let seen = |parameters: WatchParams, from: String| {
        let secrets = secrets.clone();
        async move {
            let stream = secrets.watch(&parameters.timeout(1).disable_bookmarks(), &from).await;
            let events: Vec<WatchEvent<Secret>> = stream.unwrap().try_collect().await.unwrap();
            events.iter().map(words).collect::<Vec<_>>().join(", ")
        }
    };
    assert_eq!(
        seen(WatchParams::default(), from.clone()).await,
        "modified x, modified x, modified x, deleted x, added y"
    );
    // Resumed in the middle: what was seen is not seen again.
    assert_eq!(
        seen(WatchParams::default(), revisions[2].clone()).await,
        "modified x, deleted x, added y"
    );
    // A selector turns changes into comings and goings.
    assert_eq!(
        seen(WatchParams::default().labels("on=yes"), from.clone()).await,
        "added x, deleted x, added x, deleted x"
    );
    assert_eq!(seen(WatchParams::default().fields("metadata.name=y"), from).await, "added y");
    // From "now": first what there is.
    assert_eq!(seen(WatchParams::default(), String::new()).await, "added y");
}

/// A watch from a revision that the server has forgotten is told so. `forget` makes the server
/// forget everything before now.
pub async fn an_old_watch_expires<F: Future<Output = ()>>(c: &Cluster, forget: F) {
    let secrets: Api<Secret> = c.api();
    let object: Secret = serde_json::from_value(json!({"metadata": {"name": "x"}})).unwrap();
    let first = secrets.create(&PostParams::default(), &object).await.unwrap();
    // Two changes: what follows the last revision that is forgotten can still be watched.
    for value in ["b", "c"] {
        let change = Patch::Merge(json!({"metadata": {"labels": {"a": value}}}));
        secrets.patch("x", &PatchParams::default(), &change).await.unwrap();
    }
    forget.await;
    let from = first.resource_version().unwrap();
    let watch = secrets.watch(&WatchParams::default(), &from).await;
    let code = match watch {
        Err(kube::Error::Api(status)) => status.code,
        Err(error) => panic!("no 410: {error}"),
        Ok(stream) => match Box::pin(stream).next().await {
            Some(Ok(WatchEvent::Error(status))) => status.code,
            other => panic!("no 410: {other:?}"),
        },
    };
    assert_eq!(code, 410);
    // The runtime's watcher begins anew by itself.
    let mut stream =
        Box::pin(watcher(secrets, watcher::Config::default()).applied_objects().default_backoff());
    let seen = tokio::time::timeout(DEADLINE, stream.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(seen.name_any(), "x");
}

pub async fn watchers_start_by_list_and_by_stream(c: &Cluster) {
    let secrets: Api<Secret> = c.api();
    let object: Secret = serde_json::from_value(json!({"metadata": {"name": "x"}})).unwrap();
    secrets.create(&PostParams::default(), &object).await.unwrap();
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let mut stream = Box::pin(watcher(secrets.clone(), config).applied_objects());
        let first = tokio::time::timeout(DEADLINE, stream.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(first.name_any(), "x");
        let change = Patch::Merge(json!({"stringData": {"t": first.resource_version()}}));
        secrets.patch("x", &PatchParams::default(), &change).await.unwrap();
        let next = tokio::time::timeout(DEADLINE, stream.next()).await.unwrap().unwrap().unwrap();
        assert_ne!(next.resource_version(), first.resource_version());
    }
}

pub async fn a_controller_with_finalizer_and_events_works(c: &Cluster) {
    let maps: Api<ConfigMap> = c.api();
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let (client, log, api) = (c.client.clone(), Arc::clone(&seen), maps.clone());
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
    let mine = watcher::Config::default().labels("case=ours");
    let run = Controller::new(maps.clone(), mine)
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(50)), Arc::new(()))
        .for_each(async |_| {});
    let task = tokio::spawn(run);
    let mut object = map("x", &[]);
    object.labels_mut().insert("case".into(), "ours".into());
    maps.create(&PostParams::default(), &object).await.unwrap();
    until("the finalizer is set", async || !maps.get("x").await.unwrap().finalizers().is_empty())
        .await;
    until("applied", async || seen.lock().unwrap().contains(&"apply x".to_owned())).await;
    let deleted = maps.delete("x", &DeleteParams::default()).await.unwrap();
    assert!(deleted.left().is_some_and(|o| o.metadata.deletion_timestamp.is_some()));
    until("gone", async || maps.get_opt("x").await.unwrap().is_none()).await;
    assert!(seen.lock().unwrap().contains(&"cleanup x".to_owned()));
    let events: Api<CoreEvent> = c.api();
    let lp = ListParams::default().fields("involvedObject.name=x,reason=cleanup");
    let found = events.list(&lp).await.unwrap().items;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].message.as_deref(), Some("seen"));
    assert_eq!(found[0].reporting_component.as_deref(), Some("test"));
    task.abort();
}
