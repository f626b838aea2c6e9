//! A folder from an earlier run is taken up again.

use super::cluster::Cluster;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use pgitops::sandbox::api_server::Running;
use serde_json::json;

fn maps(running: &Running) -> Api<ConfigMap> {
    Api::namespaced(running.client().unwrap(), "default")
}

async fn create(running: &Running, name: &str) {
    let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    maps(running).create(&PostParams::default(), &map).await.unwrap();
}

async fn names(running: &Running) -> Vec<String> {
    let list = maps(running).list(&ListParams::default()).await.unwrap();
    list.items.into_iter().filter_map(|m| m.metadata.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_with_a_clean_end() {
    let folder = tempfile::tempdir().unwrap();
    let first = Cluster::server(folder.path(), 100).await;
    create(&first, "a").await;
    create(&first, "b").await;
    maps(&first).delete("a", &DeleteParams::default()).await.unwrap();
    let revision = first.revision();
    first.shutdown().await.unwrap();
    let kubeconfig = std::fs::read_to_string(folder.path().join("kubeconfig")).unwrap();
    let second = Cluster::server(folder.path(), 100).await;
    assert_eq!(second.revision(), revision);
    assert_eq!(names(&second).await, ["b"]);
    // Same authority and token: only the port differs.
    let token = |text: &str| text.split("\"token\":").nth(1).map(str::to_owned);
    assert_eq!(token(&second.kubeconfig()), token(&kubeconfig));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_without_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let first = Cluster::server(folder.path(), 100).await;
    create(&first, "a").await;
    create(&first, "b").await;
    let revision = first.revision();
    // As after a kill: no shutdown, only what was written at each change; the last line cut off.
    let journal = folder.path().join("objects/journal.jsonl");
    let mut text = std::fs::read(&journal).unwrap();
    text.extend_from_slice(b"{\"revision\": 99, \"key\": [\"conf");
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(copy.path().join("objects")).unwrap();
    for name in ["objects.json", "identity.json"] {
        let from = folder.path().join("objects").join(name);
        std::fs::copy(from, copy.path().join("objects").join(name)).unwrap();
    }
    std::fs::write(copy.path().join("objects/journal.jsonl"), text).unwrap();
    let second = Cluster::server(copy.path(), 100).await;
    assert_eq!((second.revision(), names(&second).await), (revision, vec!["a".into(), "b".into()]));
}
