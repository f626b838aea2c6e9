//! What the sandbox's API server alone says: what it does not serve, and who it is. All that it has
//! in common with a real one is in `conformance`.

use super::cluster::Cluster;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: one, namespace: demo, labels: {app: one}}
spec:
  nodeName: sandbox
  containers: [{name: c, image: 'nginx:1.25'}]
";

async fn demo() -> Cluster {
    let c = Cluster::start().await;
    assert_eq!(c.ok("create namespace demo").await, "namespace/demo created");
    c
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_served_is_said() {
    let c = demo().await;
    let refused = c.fails("create deployment d --image=x -n demo").await;
    assert!(refused.contains("kubectl apply -f -"), "{refused}");
    assert_eq!(c.ok("auth can-i delete pods").await, "yes");
    assert!(c.ok("auth whoami").await.contains("sandbox-admin"));
    let unserved = c.fails("get --raw /apis/batch/v1/jobs").await;
    assert!(unserved.contains("the sandbox does not serve jobs.batch"), "{unserved}");
    assert!(c.ok("version").await.contains("Server Version: v1.36.0-pgitops-sandbox"));
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_shown_logged_and_end_gracefully() {
    let c = demo().await;
    c.apply(POD).await;
    let pods: Api<Pod> = Api::namespaced(c.client(), "demo");
    let status = json!({"status": {
        "phase": "Running", "podIP": "127.3.2.1",
        "containerStatuses": [{"name": "c", "ready": true, "restartCount": 0, "image": "x",
            "imageID": "", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }});
    pods.patch_status("one", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let rows = c.table("get pods -n demo -o wide").await;
    assert_eq!(rows[0], "NAME READY STATUS RESTARTS AGE IP NODE NOMINATED NODE READINESS GATES");
    assert!(rows[1].starts_with("one 1/1 Running 0 "), "{rows:?}");
    assert!(rows[1].ends_with(" 127.3.2.1 sandbox <none> <none>"), "{rows:?}");
    assert_eq!(c.ok("wait --for=condition=Ready pod/one -n demo").await, "pod/one condition met");
    assert!(c.ok("describe pod one -n demo").await.contains("IP:           127.3.2.1"));
    assert_eq!(
        c.table("get pods -A --field-selector status.phase=Running -o name").await,
        ["pod/one"]
    );
    assert_eq!(c.table("get pods -A -l app!=one -o name").await, [""; 0]);

    let early = c.fails("logs one -n demo").await;
    assert!(early.contains("is waiting to start or has no log"), "{early}");
    c.file("one.log", "first\nsecond\nthird\n");
    assert_eq!(c.ok("logs one -n demo").await, "first\nsecond\nthird");
    assert_eq!(c.ok("logs one -n demo --tail=2 -c c").await, "second\nthird");
    assert!(c.fails("logs one -n demo -c other").await.contains("container other is not valid"));
    let exec = c.fails("exec one -n demo -- ls").await;
    assert!(exec.contains("has no exec; use instead: psql -h one.demo"), "{exec}");

    let mut follow = c.spawn("logs -f one -n demo --tail=1");
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "third");
    c.file("one.log", "first\nsecond\nthird\nfourth\n");
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "fourth");

    let deleted = c.ok("delete pod one -n demo --wait=false").await;
    assert_eq!(deleted.replace(" from demo namespace", ""), "pod \"one\" deleted");
    let rows = c.table("get pods -n demo").await;
    assert!(rows[1].starts_with("one 1/1 Terminating"), "{rows:?}");
    c.ok("delete pod one -n demo --grace-period=0 --force").await;
    assert_eq!(lines.next_line().await.unwrap(), None);
    assert_eq!(c.table("get pods -n demo -o name").await, [""; 0]);
}
