//! The real kube client against the sandbox's API server alone: what a node or a controller of a
//! real cluster would get in the way of. All the rest is in `conformance`.

use super::cluster::Cluster;
use crate::kubectl::DEADLINE;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, EvictParams, Patch, PatchParams, PostParams},
    runtime::wait::{await_condition, conditions},
};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_nothing_moves_no_revision() {
    let c = Cluster::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(c.client(), "default");
    let object: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "x"}})).unwrap();
    let first = maps.create(&PostParams::default(), &object).await.unwrap();
    let before = c.running.revision();
    maps.replace("x", &PostParams::default(), &first).await.unwrap();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    maps.create(&dry, &serde_json::from_value(json!({"metadata": {"name": "y"}})).unwrap())
        .await
        .unwrap();
    let apply = PatchParams { dry_run: true, ..PatchParams::apply("me") };
    let body = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "y"}});
    maps.patch("y", &apply, &Patch::Apply(&body)).await.unwrap();
    assert_eq!(c.running.revision(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_evicted_when_their_budget_allows() {
    let c = Cluster::start().await;
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
